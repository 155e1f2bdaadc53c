//! A DNS server over UDP: answers from a table, by `send_to`, from the address that was asked.
//!
//! ```text
//! cargo run --release --example dns_server                                # verifies itself
//! cargo run --release --example dns_server -- --listen 127.0.0.1:5353     # for dig and dnsperf
//! dig @127.0.0.1 -p 5353 www.example.test
//! ```

mod support;

use std::collections::HashMap;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::BufMut;
use support::{CommandLine, check_all_free, count, mistake, nonzero, say};
use uring_arena::{
    Buffer, BufferRing, DatagramDetails, Destination, Driver, Event, FixedArena, Payload, SocketId,
};

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

/// The names that the server knows: a zone of addresses.
struct Zone(HashMap<Vec<u8>, Ipv4Addr>);

impl Zone {
    fn new(names: usize) -> Zone {
        let entry = |number: usize| {
            let [_, high, mid, low] = (number as u32).to_be_bytes();
            (wire_name(&format!("h{number}.example.test")), Ipv4Addr::new(10, high, mid, low))
        };
        let mut zone: HashMap<_, _> = (0..names).map(entry).collect();
        zone.insert(wire_name("www.example.test"), Ipv4Addr::new(192, 0, 2, 1));
        Zone(zone)
    }
}

/// Writes a name as the protocol does: each label behind its length.
fn wire_name(name: &str) -> Vec<u8> {
    let labels =
        name.split('.').flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes()));
    labels.chain([0]).collect()
}

/// Bytes of the header of a message.
const HEADER: usize = 12;
/// The response codes.
const FORMAT_ERROR: u8 = 1;
const NO_SUCH_NAME: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;
/// Bytes of the longest answer: a header, a question, an address.
const ANSWER_MAX: usize = 512;

/// Returns where the name of the only question ends, and the name in small letters.
fn question(message: &[u8]) -> Option<(usize, Vec<u8>)> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => break,
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
    let end = at + 1;
    // The type and the class follow; a name has 255 bytes at most.
    (end - HEADER <= 255 && message.len() >= end + 4)
        .then(|| (end, message[HEADER..end].to_ascii_lowercase()))
}

/// Writes the answer to a message. Returns `false` if it gets none.
fn answer(message: &[u8], zone: &Zone, to: &mut Buffer) -> bool {
    // A message without a header, or that is an answer itself.
    if message.len() < HEADER || message[2] & 0x80 != 0 {
        return false;
    }
    let (mut code, mut body, mut address) = (FORMAT_ERROR, &[][..], None);
    if message[2] & 0x78 != 0 {
        code = NOT_IMPLEMENTED;
    } else if let Some((end, name)) = question(message) {
        body = &message[HEADER..end + 4];
        let known = zone.0.get(&name);
        code = if known.is_some() { 0 } else { NO_SUCH_NAME };
        // Type A (1) or any (255), class IN.
        let is_address = matches!(message[end..end + 4], [0, 1 | 255, 0, 1]);
        address = known.filter(|_| is_address);
    }
    to.put_slice(&message[..2]);
    // An answer, with authority; recursion as it was wished.
    to.put_slice(&[0x84 | message[2] & 1, code]);
    to.put_u16(u16::from(!body.is_empty()));
    to.put_u16(u16::from(address.is_some()));
    to.put_u32(0);
    to.put_slice(body);
    if let Some(address) = address {
        // The name of the question, A, IN, a minute, four bytes.
        to.put_slice(&[0xC0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        to.put_slice(&address.octets());
    }
    true
}

struct Server {
    driver: Driver,
    arena: FixedArena,
    answers: FixedArena,
    socket: SocketId,
    zone: Zone,
    answered: u64,
    /// The questions that found no buffer, and the answers that the network did not take.
    lost: u64,
}

impl Server {
    fn new(socket: UdpSocket, names: usize) -> Result<Server, Box<dyn Error>> {
        DatagramDetails::new().destination().enable(&socket)?;
        let (arena, answers) = (FixedArena::new(1024, 1024)?, FixedArena::new(1024, ANSWER_MAX)?);
        let mut driver = Driver::builder().build()?;
        let ring = BufferRing::options().entries(512).datagram_details(true);
        let ring = driver.register_buffer_ring(&arena, ring)?;
        let socket = driver.receive_datagrams(ring, socket)?;
        let zone = Zone::new(names);
        Ok(Server { driver, arena, answers, socket, zone, answered: 0, lost: 0 })
    }

    /// Waits for questions, but not longer than `limit`, and answers them.
    fn turn(&mut self, limit: Option<Duration>) -> Result<(), Box<dyn Error>> {
        match limit {
            Some(limit) => drop(self.driver.wait_timeout(limit)?),
            None => self.driver.wait()?,
        }
        while let Some(event) = self.driver.next_arena_bytes() {
            match event {
                Event::Datagram { datagram, .. } => {
                    let Some(sender) = Destination::reply_to(&datagram) else { continue };
                    let Ok(mut buffer) = self.answers.allocate() else {
                        self.lost += 1;
                        continue;
                    };
                    if answer(&datagram.bytes, &self.zone, &mut buffer) {
                        self.driver.send_to(self.socket, Payload::from(buffer), sender)?;
                    }
                }
                Event::Sent { result: Ok(_), .. } => self.answered += 1,
                Event::Sent { .. } => self.lost += 1,
                Event::Closed { error, .. } => {
                    let reason = error.map_or("it was closed".into(), |error| error.to_string());
                    return Err(mistake(format!("the socket failed: {reason}")));
                }
                _ => {}
            }
        }
        Ok(())
    }
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
