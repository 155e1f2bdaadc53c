//! An arena as the registered-buffer pool of a runtime of one's own: a small single-threaded
//! executor with tasks, a ring and timers, and an echo server on it.
//!
//! The pieces of `uring_arena` build entries and interpret completions; the runtime owns the ring,
//! pushes and reaps. Look at `ring.rs`: an operation lives in the runtime's table, not in the
//! future that waits for it. Dropping the future, as a timeout does here, asks the kernel to
//! cancel; the slot comes home with the completion.
//!
//! ```text
//! cargo run --release --example custom_runtime [-- MESSAGES]
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
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};
use support::mistake;
use uring_arena::FixedArena;

/// Clients that talk, and clients that connect and say nothing.
const TALKING: usize = 32;
const SILENT: usize = 8;
const MESSAGE_BYTES: usize = 4096;
/// A connection that says nothing for so long is closed: its read is cancelled.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let given = std::env::args_os().nth(1);
    let number = |text| support::size_within("MESSAGES", text, 1 << 30, "use fewer");
    support::run(|| serve(given.map_or(Ok(2000), number)?))
}

/// What every task of the server has.
#[derive(Clone)]
struct Server {
    runtime: Runtime,
    arena: FixedArena,
    echoed: Rc<Cell<u64>>,
}

fn serve(messages: u64) -> Result<(), Box<dyn Error>> {
    let nonzero = |number| NonZeroUsize::new(number).ok_or_else(|| mistake("must not be 0"));
    let arena = FixedArena::with_slot_capacity(nonzero(TALKING + SILENT)?, nonzero(MESSAGE_BYTES)?)
        .build()?;
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
    let (time, echoed, metrics) = (started.elapsed(), server.echoed.get(), arena.metrics());
    for client in clients {
        client.join().map_err(|_| mistake("a client got something else back than it sent"))??;
    }
    let ring = server.runtime.ring.0.borrow();
    println!("echoed     {echoed} bytes, {:.2} GB/s", support::gb_per_s(echoed, time));
    println!("cancelled  {} reads; {} bytes of slots in use", ring.cancelled, metrics.bytes_live);
    if (echoed, ring.cancelled, metrics.bytes_live) != (sent, SILENT, 0) {
        return Err(mistake(format!("{sent} bytes and {SILENT} cancelled reads were expected")));
    }
    println!("verified {echoed} bytes on {TALKING} connections");
    Ok(())
}

impl Server {
    /// Takes every client in, a task for each.
    async fn accept(self, listener: Rc<TcpListener>) -> io::Result<()> {
        for _ in 0..TALKING + SILENT {
            self.runtime.ring.readable(listener.clone()).await?;
            self.runtime.spawn(self.clone().echo(Rc::new(listener.accept()?.0)));
        }
        Ok(())
    }

    /// Sends what comes back from the slot that it came in, until the client is done or says
    /// nothing for too long.
    async fn echo(self, socket: Rc<TcpStream>) -> io::Result<()> {
        let ring = &self.runtime.ring;
        loop {
            let read = ring.read(socket.clone(), self.arena.allocate().map_err(io::Error::other)?);
            // When the time is up the read is dropped. Its slot is the kernel's until the
            // completion all the same.
            match self.runtime.timeout(PATIENCE, read).await.transpose()? {
                None | Some((0, _)) => return Ok(()),
                Some((_, buffer)) => {
                    let sent = ring.send(socket.clone(), buffer).await?;
                    self.echoed.update(|echoed| echoed + sent as u64);
                }
            }
        }
    }
}

/// A client, on a thread of its own, with the ordinary blocking calls.
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
