//! An echo server on tokio-uring that answers from the slots that it received into.
//!
//! The clients are tasks of the same runtime, and compare the answers.
//!
//! ```text
//! cargo run --release --features tokio-uring --example tokio_uring_echo
//! ```

mod support;

use std::error::Error;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use bytes::BufMut;
use support::{Warning, check_all_free, exact_bytes, nonzero, say};
use tokio_uring::net::{TcpListener, TcpStream};
use uring_arena::tokio_uring::{Registered, drain};
use uring_arena::{Buffer, FixedArena};

const HELP: &str = "\
Echoes 1000 messages of each of 8 clients on tokio-uring, and compares the answers. Takes no
options.";

const CLIENTS: usize = 8;
const MESSAGES: usize = 1000;

/// The time until accepting is tried again after it failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The time until a slot is claimed again after there was none.
const SLOT_AGAIN: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    support::run(|| support::no_options(HELP), |()| run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let arena =
        FixedArena::with_slot_capacity(nonzero(64)?, nonzero(4096)?).alignment(4096).build()?;

    support::need_descriptors(4 * CLIENTS as u64 + 64)?;
    // `tokio_uring::start` panics where no ring can be made.
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())?;
    let echoed = runtime.block_on(async {
        let registered = Rc::new(Registered::new(&arena)?);
        let listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
        let address = listener.local_addr()?;

        tokio_uring::spawn(accept(listener, arena.clone(), registered));

        let clients: Vec<_> =
            (0..CLIENTS).map(|id| tokio_uring::spawn(check(arena.clone(), address, id))).collect();
        let mut echoed = 0;
        for client in clients {
            echoed += client.await?.map_err(|error| error.to_string())?;
        }
        // Each server ends with its client. After `drain` the kernel has no slot of the arena.
        drain().await;
        Ok::<u64, Box<dyn Error>>(echoed)
    })?;

    check_all_free(&arena, 0)?;
    say!("verified {} on {CLIENTS} connections; every slot is free again", exact_bytes(echoed));
    Ok(())
}

/// Accepts clients for ever. Nothing that goes wrong with one ends it for the others.
async fn accept(listener: TcpListener, arena: FixedArena, registered: Rc<Registered>) {
    let mut warning = Warning::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio_uring::spawn(serve(arena.clone(), Rc::clone(&registered), Rc::new(stream)));
            }
            // No descriptor is left, say. That passes when a client goes.
            Err(error) => {
                warning.print(format_args!("clients wait: {error}; {}", support::MORE_ROOM));
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Sends every message back from the slot that it was received into.
async fn serve(arena: FixedArena, registered: Rc<Registered>, stream: Rc<TcpStream>) {
    loop {
        let (result, buffer) = registered.read(&stream, claim(&arena).await).await;
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

/// Claims a slot as soon as one is free.
async fn claim(arena: &FixedArena) -> Buffer {
    loop {
        match arena.allocate() {
            Ok(buffer) => return buffer,
            Err(_) => tokio::time::sleep(SLOT_AGAIN).await,
        }
    }
}

/// Sends messages of many lengths, and compares the answers. Returns the bytes compared.
async fn check(
    arena: FixedArena,
    address: std::net::SocketAddr,
    id: usize,
) -> Result<u64, Box<dyn Error>> {
    let stream = Rc::new(TcpStream::connect(address).await?);
    let mut echoed = 0;
    for number in 0..MESSAGES {
        let message = support::echo_message(id, number);
        let mut buffer = claim(&arena).await;
        buffer.put_slice(&message);
        let (sent, _) = uring_arena::tokio_uring::write(&stream, buffer).await;
        assert_eq!(sent?, message.len(), "a short message goes out in one piece");
        let mut answer = Vec::new();
        while answer.len() < message.len() {
            let (result, buffer) =
                uring_arena::tokio_uring::read(&stream, claim(&arena).await).await;
            assert!(result? > 0, "the server hung up");
            answer.extend_from_slice(&buffer);
        }
        assert!(answer == message, "client {id}, message {number}");
        echoed += answer.len() as u64;
    }
    stream.shutdown(std::net::Shutdown::Both)?;
    Ok(echoed)
}
