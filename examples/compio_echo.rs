//! An echo server on compio: multishot receives into an arena, answers sent from the very slots,
//! checked at the other end.
//!
//! `cargo run --example compio_echo --features compio`

use std::error::Error;
use std::num::NonZeroUsize;
use std::rc::Rc;

use compio::io::AsyncWriteExt;
use compio::net::{TcpListener, TcpStream};
use uring_arena::compio::{ReceiveRing, Registered};
use uring_arena::{BufferRing, FixedArena, SendOptions};

const CLIENTS: usize = 8;
const MESSAGES: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let (slots, bytes) = (NonZeroUsize::new(256).unwrap(), NonZeroUsize::new(4096).unwrap());
    let arena = FixedArena::with_slot_capacity(slots, bytes).alignment(4096).build()?;

    let runtime = compio::runtime::Runtime::new()?;
    let echoed = runtime.block_on(async {
        let registered = Rc::new(Registered::new(&arena)?);
        let ring = ReceiveRing::new(&arena, BufferRing::options().entries(64))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;

        let mut clients = Vec::new();
        let mut servers = Vec::new();
        for id in 0..CLIENTS {
            let client = TcpStream::connect(address).await?;
            let (server, _) = listener.accept().await?;
            servers.push(compio::runtime::spawn(serve(
                ring.clone(),
                Rc::clone(&registered),
                server,
            )));
            clients.push(compio::runtime::spawn(check(ring.clone(), client, id)));
        }
        let mut echoed = 0;
        for client in clients {
            echoed += client
                .await
                .expect("the client did not panic")
                .map_err(|error| error.to_string())?;
        }
        for server in servers {
            server.await.expect("the server did not panic")?;
        }
        println!("{:?}, {:?}", registered.mode(), ring.metrics());
        Ok::<usize, Box<dyn Error>>(echoed)
    })?;

    let metrics = arena.metrics();
    assert_eq!((metrics.bytes_live, metrics.quarantined), (0, 0));
    println!("{CLIENTS} clients, {echoed} bytes echoed and checked; every slot came back");
    Ok(())
}

/// Sends back whatever comes, from where it came to lie.
async fn serve(
    ring: ReceiveRing,
    registered: Rc<Registered>,
    stream: TcpStream,
) -> std::io::Result<()> {
    let mut incoming = ring.receive(&stream);
    let options = SendOptions::new().wait_all();
    while let Some(bytes) = incoming.try_next().await? {
        registered.send(&stream, bytes, options).await.0?;
    }
    Ok(())
}

/// Sends messages of many lengths, and compares what comes back.
async fn check(
    ring: ReceiveRing,
    mut stream: TcpStream,
    id: usize,
) -> Result<usize, Box<dyn Error>> {
    let mut incoming = ring.receive(&stream);
    let mut echoed = 0;
    for turn in 0..MESSAGES {
        let message: Vec<u8> = (0..1 + turn * 37 % 3000).map(|at| (at + turn + id) as u8).collect();
        stream.write_all(message.clone()).await.0?;
        let mut answer = Vec::new();
        while answer.len() < message.len() {
            let bytes = incoming.try_next().await?.expect("the server hung up");
            answer.extend_from_slice(&bytes);
        }
        assert!(answer == message, "client {id}, message {turn}");
        echoed += answer.len();
    }
    Ok(echoed)
}
