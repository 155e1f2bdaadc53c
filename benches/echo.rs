//! What an echo server costs on the runtime of `examples/custom_runtime`, beside the same server written on the bare io-uring crate.
//!
//! Lockstep: one client thread writes a message to each connection and then reads every answer; the servers take turns round by round, and
//! the figure is the median of the ratios of neighbouring rounds.
//!
//! ```text
//! cargo bench --bench echo [-- ROUNDS]
//! ```

#[path = "echo/bare.rs"]
mod bare;
#[path = "../examples/custom_runtime/executor.rs"]
#[allow(dead_code)] // the timers are not used here
mod executor;
#[path = "../examples/custom_runtime/ring.rs"]
#[allow(dead_code)] // nobody is accepted here
mod ring;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Instant;

use executor::Runtime;
use uring_arena::FixedArena;

const CONNECTIONS: usize = 32;
const MESSAGE_BYTES: usize = 512;
const SLOT_BYTES: usize = 4096;

/// A server on a thread of its own, and the clients' ends of its connections.
struct Server {
    name: &'static str,
    clients: Vec<TcpStream>,
    thread: JoinHandle<io::Result<()>>,
}

impl Server {
    fn start(name: &'static str, serve: fn(Vec<TcpStream>) -> io::Result<()>) -> io::Result<Server> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (mut clients, mut sockets) = (Vec::new(), Vec::new());
        for _ in 0..CONNECTIONS {
            let client = TcpStream::connect(listener.local_addr()?)?;
            client.set_nodelay(true)?;
            clients.push(client);
            sockets.push(listener.accept()?.0);
        }
        Ok(Server { name, clients, thread: std::thread::spawn(move || serve(sockets)) })
    }

    /// One message there and back on every connection; nanoseconds.
    fn round(&mut self, message: &[u8]) -> io::Result<f64> {
        let start = Instant::now();
        for client in &mut self.clients {
            client.write_all(message)?;
        }
        let mut answer = [0; MESSAGE_BYTES];
        for client in &mut self.clients {
            client.read_exact(&mut answer)?;
        }
        Ok(start.elapsed().as_secs_f64() * 1e9)
    }

    fn finish(self) -> io::Result<()> {
        drop(self.clients);
        self.thread.join().map_err(|_| io::Error::other("the server panicked"))?
    }
}

/// The server on the runtime.
fn serve_by_tasks(sockets: Vec<TcpStream>) -> io::Result<()> {
    let size = |number: usize| number.try_into().map_err(io::Error::other);
    let arena = FixedArena::with_slot_capacity(size(CONNECTIONS)?, size(SLOT_BYTES)?).alignment(4096);
    let arena = arena.build().map_err(io::Error::other)?;
    let runtime = Runtime::new(&arena).map_err(|error| io::Error::other(error.to_string()))?;
    for socket in sockets {
        let (ring, arena, socket) = (runtime.ring.clone(), arena.clone(), Rc::new(socket));
        runtime.spawn(async move {
            loop {
                let buffer = arena.allocate().map_err(io::Error::other)?;
                match ring.read(socket.clone(), buffer).await? {
                    (0, _) => return Ok(()),
                    (_, buffer) => ring.send(socket.clone(), buffer).await?,
                };
            }
        });
    }
    runtime.run()
}

fn main() -> io::Result<()> {
    if let Err(error) = io_uring::IoUring::new(2) {
        println!("SKIPPED: {error}");
        return Ok(());
    }
    let bench = std::env::args().any(|argument| argument == "--bench");
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(if bench {
        10_000
    } else {
        20
    });
    let mut servers =
        [Server::start("bare crate", bare::serve)?, Server::start("custom_runtime", serve_by_tasks)?];
    let message = [0x5A; MESSAGE_BYTES];
    let mut times: [Vec<f64>; 2] = Default::default();
    for round in 0..rounds + rounds / 10 {
        for turn in 0..servers.len() {
            let at = (turn + round) % servers.len();
            let time = servers[at].round(&message)?;
            // The first rounds warm up.
            if round >= rounds / 10 {
                times[at].push(time);
            }
        }
    }
    println!("echo, {CONNECTIONS} connections x {MESSAGE_BYTES} B, {rounds} rounds");
    for (server, own) in servers.iter().zip(&times) {
        let ratio = median(own.iter().zip(&times[0]).map(|(own, bare)| own / bare));
        let each = median(own.iter().copied()) / CONNECTIONS as f64;
        println!("  {:<16} {each:>7.0} ns a message, {ratio:.3} of the bare server", server.name);
    }
    for server in servers {
        server.finish()?;
    }
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
