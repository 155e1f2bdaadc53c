//! An echo server on compio: receives into an arena, answers from the same slots.
//!
//! One multishot receive per connection fills slots of the arena. The server sends each message
//! back from the slot that the kernel received it into, and the clients compare the answers.
//!
//! ```text
//! cargo run --release --features compio --example compio_echo
//! ```

mod support;

use std::error::Error;
use std::process::ExitCode;
use std::rc::Rc;

use compio::io::AsyncWriteExt;
use compio::net::{TcpListener, TcpStream};
use support::{check_all_free, exact_bytes, nonzero, say};
use uring_arena::compio::{ReceiveRing, Registered};
use uring_arena::{BufferRing, FixedArena, SendOptions};

const HELP: &str = "\
Echoes 1000 messages of each of 8 clients on compio, and compares the answers. Takes no options.";

const CLIENTS: usize = 8;
const MESSAGES: usize = 1000;

fn main() -> ExitCode {
    support::run(|| support::no_options(HELP), |()| run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let arena =
        FixedArena::with_slot_capacity(nonzero(256)?, nonzero(4096)?).alignment(4096).build()?;

    support::need_descriptors(4 * CLIENTS as u64 + 64)?;
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
        say!("arena      {}", support::mode_name(registered.mode()));
        let metrics = ring.metrics();
        say!("messages   {}, starved {} times", metrics.received, metrics.starved);
        Ok::<u64, Box<dyn Error>>(echoed)
    })?;

    check_all_free(&arena, 0)?;
    say!("verified {} on {CLIENTS} connections; every slot is free again", exact_bytes(echoed));
    Ok(())
}

/// Sends every message back from the slot that it was received into.
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

/// Sends messages of many lengths, and compares the answers. Returns the bytes compared.
async fn check(ring: ReceiveRing, mut stream: TcpStream, id: usize) -> Result<u64, Box<dyn Error>> {
    let mut incoming = ring.receive(&stream);
    let mut echoed = 0;
    for number in 0..MESSAGES {
        let message = support::echo_message(id, number);
        stream.write_all(message.clone()).await.0?;
        let mut answer = Vec::new();
        while answer.len() < message.len() {
            let bytes = incoming.try_next().await?.expect("the server hung up");
            answer.extend_from_slice(&bytes);
        }
        assert!(answer == message, "client {id}, message {number}");
        echoed += answer.len() as u64;
    }
    Ok(echoed)
}
