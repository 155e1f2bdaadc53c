//! An echo server on tokio-uring that answers from the very slots it received into, and checks
//! itself.
//!
//! `cargo run --example tokio_uring_echo --features tokio-uring`

use std::error::Error;
use std::num::NonZeroUsize;
use std::rc::Rc;

use bytes::BufMut;
use tokio_uring::net::{TcpListener, TcpStream};
use uring_arena::FixedArena;
use uring_arena::tokio_uring::{Registered, drain};

const CLIENTS: usize = 8;
const MESSAGES: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let (slots, bytes) = (NonZeroUsize::new(64).unwrap(), NonZeroUsize::new(4096).unwrap());
    let arena = FixedArena::with_slot_capacity(slots, bytes).alignment(4096).build()?;

    let echoed = tokio_uring::start(async {
        let registered = Rc::new(Registered::new(&arena)?);
        let listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
        let address = listener.local_addr()?;

        tokio_uring::spawn({
            let arena = arena.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio_uring::spawn(serve(
                        arena.clone(),
                        Rc::clone(&registered),
                        Rc::new(stream),
                    ));
                }
            }
        });

        let clients: Vec<_> =
            (0..CLIENTS).map(|id| tokio_uring::spawn(check(arena.clone(), address, id))).collect();
        let mut echoed = 0;
        for client in clients {
            echoed += client.await?.map_err(|error| error.to_string())?;
        }
        // The servers are done when their clients are; then nothing of the arena is with the
        // kernel.
        drain().await;
        Ok::<usize, Box<dyn Error>>(echoed)
    })?;

    let metrics = arena.metrics();
    assert_eq!((metrics.bytes_live, metrics.quarantined), (0, 0));
    println!("{CLIENTS} clients, {echoed} bytes echoed and checked; every slot came back");
    Ok(())
}

/// Sends back whatever comes, from where it came to lie.
async fn serve(arena: FixedArena, registered: Rc<Registered>, stream: Rc<TcpStream>) {
    while let Ok(buffer) = arena.allocate() {
        let (result, buffer) = registered.read(&stream, buffer).await;
        if !result.is_ok_and(|read| read > 0) {
            return;
        }
        let mut bytes = buffer.freeze();
        while !bytes.is_empty() {
            let (result, rest) = registered.write(&stream, bytes).await;
            let Ok(written) = result else { return };
            bytes = rest.slice(written..);
        }
    }
}

/// Sends messages of many lengths, and compares what comes back.
async fn check(
    arena: FixedArena,
    address: std::net::SocketAddr,
    id: usize,
) -> Result<usize, Box<dyn Error>> {
    let stream = Rc::new(TcpStream::connect(address).await?);
    let mut echoed = 0;
    for turn in 0..MESSAGES {
        let message: Vec<u8> = (0..1 + turn * 37 % 3000).map(|at| (at + turn + id) as u8).collect();
        let mut buffer = arena.allocate()?;
        buffer.put_slice(&message);
        let (sent, _) = uring_arena::tokio_uring::write(&stream, buffer).await;
        assert_eq!(sent?, message.len(), "a short message goes out in one piece");
        let mut answer = Vec::new();
        while answer.len() < message.len() {
            let (result, buffer) = uring_arena::tokio_uring::read(&stream, arena.allocate()?).await;
            assert!(result? > 0, "the server hung up");
            answer.extend_from_slice(&buffer);
        }
        assert!(answer == message, "client {id}, message {turn}");
        echoed += answer.len();
    }
    stream.shutdown(std::net::Shutdown::Both)?;
    Ok(echoed)
}
