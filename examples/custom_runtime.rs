//! A small runtime that uses an arena as its registered-buffer pool, and an echo server on it.
//!
//! The runtime is a single-threaded executor with tasks, a ring and timers. The pieces of
//! `uring_arena` build entries and interpret completions; the runtime owns the ring, pushes the
//! entries and takes the completions.
//!
//! `ring.rs` shows the rule that keeps this safe: an operation belongs to a table of the runtime,
//! not to the future that waits for it. A future that is dropped, here by a timeout, asks the
//! kernel to cancel; the last completion frees the slot.
//!
//! ```text
//! cargo run --release --example custom_runtime
//! cargo run --release --example custom_runtime -- 200
//! ```

#[path = "custom_runtime/executor.rs"]
mod executor;
#[path = "custom_runtime/ring.rs"]
mod ring;
mod support;

use executor::Runtime;
use std::cell::Cell;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};
use support::{CommandLine, check_all_free, count, exact_bytes, mistake, nonzero, say};
use uring_arena::FixedArena;

const LINE: CommandLine = CommandLine {
    help: "\
Echoes 4 KiB messages on a small runtime of its own, and compares the answers. 32 clients send;
8 more connect and stay silent until the server's timeout of 2 s cancels their reads.

Usage: custom_runtime [MESSAGES]
  MESSAGES  messages of each client (2000)",
    options: &[],
    flags: &[],
    operands: &["MESSAGES"],
};

/// The number of clients that send messages.
const TALKING: usize = 32;
/// The number of clients that connect and send nothing.
const SILENT: usize = 8;
const MESSAGE_BYTES: usize = 4096;
/// The time after which the server cancels the read of a silent client.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    support::run(parse_messages, |&messages| serve(messages))
}

/// Parses the command line. Returns `None` if only help was asked for.
fn parse_messages() -> Result<Option<u64>, Box<dyn Error>> {
    let mut messages = 2000;
    let given = LINE.parse(|name, value| {
        messages = count(name, value, 1 << 20, "more take hours, use fewer")?.get() as u64;
        Ok(())
    })?;
    Ok(given.map(|_| messages))
}

/// The state that every task of the server shares.
#[derive(Clone)]
struct Server {
    runtime: Runtime,
    arena: FixedArena,
    echoed: Rc<Cell<u64>>,
}

fn serve(messages: u64) -> Result<(), Box<dyn Error>> {
    support::need_descriptors(2 * (TALKING + SILENT) as u64 + 64)?;
    let slots = nonzero((TALKING + SILENT) as u64)?;
    let arena = FixedArena::with_slot_capacity(slots, nonzero(MESSAGE_BYTES as u64)?).build()?;
    let server =
        Server { runtime: Runtime::new(&arena)?, arena: arena.clone(), echoed: Rc::default() };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let start = |client| std::thread::spawn(move || talk(address, client, messages));
    let clients: Vec<_> = (0..TALKING).map(start).collect();
    let _silent: Vec<_> =
        (0..SILENT).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;

    let (started, sent) = (Instant::now(), TALKING as u64 * messages * MESSAGE_BYTES as u64);
    server.runtime.spawn(server.clone().accept(Rc::new(listener)));
    server.runtime.run()?;
    let (time, echoed) = (started.elapsed(), server.echoed.get());
    for client in clients {
        client.join().map_err(|_| mistake("a client received other bytes than it sent"))??;
    }
    let ring = server.runtime.ring.0.borrow();
    say!("echoed     {}", exact_bytes(echoed));
    say!("rate       {}, the timeout of the silent clients included", support::rate(echoed, time));
    say!("cancelled  {} reads", ring.cancelled);
    check_all_free(&arena, ring.in_flight)?;
    if (echoed, ring.cancelled) != (sent, SILENT) {
        return Err(mistake(format!(
            "expected {} and {SILENT} cancelled reads",
            exact_bytes(sent)
        )));
    }
    say!("verified {} on {TALKING} connections", exact_bytes(echoed));
    Ok(())
}

impl Server {
    /// Accepts every client, and spawns a task for each.
    async fn accept(self, listener: Rc<TcpListener>) -> io::Result<()> {
        for _ in 0..TALKING + SILENT {
            self.runtime.ring.readable(listener.clone()).await?;
            self.runtime.spawn(self.clone().echo(Rc::new(listener.accept()?.0)));
        }
        Ok(())
    }

    /// Sends each message back from the slot that it was received into.
    ///
    /// The task ends when the client closes the connection, or is silent for [`IDLE_TIMEOUT`].
    async fn echo(self, socket: Rc<TcpStream>) -> io::Result<()> {
        let ring = &self.runtime.ring;
        loop {
            let read = ring.read(socket.clone(), self.arena.allocate().map_err(io::Error::other)?);
            // The timeout drops the future of the read. The kernel keeps the slot until the
            // completion.
            match self.runtime.timeout(IDLE_TIMEOUT, read).await.transpose()? {
                None | Some((0, _)) => return Ok(()),
                Some((_, buffer)) => {
                    let sent = ring.send(socket.clone(), buffer).await?;
                    self.echoed.update(|echoed| echoed + sent as u64);
                }
            }
        }
    }
}

/// Runs a client on its own thread, with ordinary blocking calls.
fn talk(address: SocketAddr, client: usize, messages: u64) -> io::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    let mut answer = [0; MESSAGE_BYTES];
    for number in 0..messages {
        let message: [u8; MESSAGE_BYTES] =
            std::array::from_fn(|at| (at.wrapping_mul(31) ^ client ^ number as usize) as u8);
        socket.write_all(&message)?;
        socket.read_exact(&mut answer)?;
        assert!(message == answer, "client {client}, message {number}");
    }
    Ok(())
}
