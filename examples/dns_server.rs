//! A DNS server over UDP: answers from a table, by `send_to`, from the address that was asked.
//!
//! ```text
//! cargo run --release --example dns_server                                # verifies itself
//! cargo run --release --example dns_server -- --listen 127.0.0.1:5353     # for dig and dnsperf
//! dig @127.0.0.1 -p 5353 www.example.test
//! ```

#[path = "dns_server/server.rs"]
mod server;
mod support;
#[path = "dns_server/zone.rs"]
mod zone;

use std::collections::HashMap;
use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use server::Server;
use support::{CommandLine, check_all_free, count, mistake, nonzero, say};
use zone::{ANSWER_MAX, NO_SUCH_NAME, wire_name};

const LINE: CommandLine = CommandLine {
    help: "\
Answers DNS questions over UDP from a table, each from the address that was asked.

Usage: dns_server [OPTIONS]
  --listen ADDR     serve dig, dnsperf and others (port 53 needs a privilege)
  --names N         names in the table: h0.example.test and so on (1000)
  --queries N       without --listen: questions of the program's own client (100000)",
    options: &["--listen", "--names", "--queries"],
    flags: &[],
    operands: &[],
};

struct Options {
    listen: Option<SocketAddr>,
    names: NonZeroUsize,
    queries: NonZeroUsize,
}

fn parse() -> Result<Option<Options>, Box<dyn Error>> {
    let mut options = Options { listen: None, names: nonzero(1000)?, queries: nonzero(100_000)? };
    let given = LINE.parse(|name, value| {
        match name {
            "--names" => options.names = count(name, value, 1 << 20, "use several servers")?,
            "--queries" => options.queries = count(name, value, 1 << 32, "they take hours")?,
            _ => {
                let text = value.to_string_lossy();
                let address = text.parse().map_err(|_| {
                    mistake(format!("--listen {text}: give an IP ADDRESS:PORT of this machine"))
                })?;
                options.listen = Some(address);
            }
        }
        Ok(())
    })?;
    let Some(given) = given else { return Ok(None) };
    given.check_without("--listen", &["--queries"], "the clients decide what is asked")?;
    Ok(Some(options))
}

fn main() -> ExitCode {
    support::run(parse, |options| match options.listen {
        Some(address) => {
            let socket = UdpSocket::bind(address)
                .map_err(|error| mistake(format!("--listen {address}: {error}; give another")))?;
            say!("listening on {}", socket.local_addr()?);
            let mut server = Server::new(socket, options.names.get())?;
            loop {
                server.turn(None)?;
            }
        }
        None => verify(options),
    })
}

/// Asks the server on a thread, many questions at a time, and checks each answer.
fn verify(options: &Options) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // Not the address that the kernel would answer from.
    let address = SocketAddr::from(([127, 0, 0, 2], socket.local_addr()?.port()));
    let (queries, names) = (options.queries.get(), options.names.get());
    let mut server = Server::new(socket, names)?;
    let client = std::thread::spawn(move || ask(address, queries, names));
    let (started, cpu) = (Instant::now(), support::thread_cpu());
    let enters = server.driver.metrics().enters;
    while !client.is_finished() {
        server.turn(Some(Duration::from_millis(50)))?;
    }
    let (time, cpu) = (started.elapsed(), support::thread_cpu() - cpu);
    let enters = server.driver.metrics().enters - enters;
    let answered = client.join().map_err(|_| mistake("the client failed"))?.map_err(mistake)?;
    say!("rate       {:.0} answers a second", answered as f64 / time.as_secs_f64());
    say!("CPU        {} an answer", support::time(cpu / answered as u32));
    say!("calls      {:.3} system calls an answer", enters as f64 / answered as f64);
    say!("lost       {} answers for want of buffers, or by the network", server.lost);
    let drained = server.driver.drain(Duration::from_secs(10))?;
    check_all_free(&server.arena, drained.in_flight)?;
    check_all_free(&server.answers, drained.in_flight)?;
    say!("verified {answered} answers about {} names", names + 1);
    Ok(())
}

/// Asks `queries` questions, 64 at a time. Returns how many answers came, all of them right.
fn ask(server: SocketAddr, queries: usize, names: usize) -> Result<u64, String> {
    let client = UdpSocket::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    client.connect(server).map_err(|error| error.to_string())?;
    client.set_read_timeout(Some(Duration::from_secs(2))).map_err(|error| error.to_string())?;
    let send = |number: usize| {
        // One name more than there is.
        let name = wire_name(&format!("H{}.Example.test", number % (names + 1)));
        let mut message = (number as u16).to_be_bytes().to_vec();
        message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend(name);
        message.extend([0, 1, 0, 1]);
        client.send(&message).map_err(|error| error.to_string())
    };
    let (mut sent, mut answered, mut bytes) = (0, 0, [0; ANSWER_MAX]);
    let mut open: HashMap<u16, usize> = HashMap::new();
    while answered < queries {
        while open.len() < 64 && sent < queries {
            open.insert(sent as u16, sent);
            send(sent)?;
            sent += 1;
        }
        let Ok(read) = client.recv(&mut bytes) else {
            // Lost on the way: asked again.
            open.values().try_for_each(|&number| send(number).map(drop))?;
            continue;
        };
        let id = u16::from_be_bytes([bytes[0], bytes[1]]);
        let Some(number) = open.remove(&id) else { continue };
        let host = number % (names + 1);
        let [_, high, mid, low] = (host as u32).to_be_bytes();
        let is_right = match host < names {
            true => bytes[3] == 0 && bytes[..read].ends_with(&[0, 4, 10, high, mid, low]),
            false => bytes[3] == NO_SUCH_NAME,
        };
        if !is_right {
            return Err(format!(
                "the answer about h{host}.example.test is wrong: {:?}",
                &bytes[..read]
            ));
        }
        answered += 1;
    }
    Ok(answered as u64)
}
