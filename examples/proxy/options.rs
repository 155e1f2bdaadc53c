//! The command line.

use std::error::Error;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;

use crate::support::{
    CommandLine, check_slots, count, mistake, nonzero, ring_slots, size, slot_bytes,
};

const LINE: CommandLine = CommandLine {
    help: "\
A TCP proxy that sends every byte from the slot that it was received into.

Usage: proxy [OPTIONS]                          drives itself, and compares every byte
       proxy --listen ADDR --to ADDR [OPTIONS]
  --listen ADDR     accept clients there, and
  --to ADDR         connect each of them to this server; a name is looked up once
  --clients N       with --listen: clients at a time, others wait (4096, or as many as there are
                    descriptors for: each client takes 4)
  --connections N   without --listen: connections that the example opens (16)
  --bytes SIZE      without --listen: bytes that it sends in each direction (512M)
  --slots N         slots of the arena, one arena for each direction (256)
  --slot-bytes SIZE bytes of a slot (64K)
  --zero-copy-from SIZE  shortest send that is zero-copy (16K)
Sizes take K, M, G: powers of 1024.",
    options: &[
        "--listen",
        "--to",
        "--clients",
        "--connections",
        "--bytes",
        "--slots",
        "--slot-bytes",
        "--zero-copy-from",
    ],
    flags: &[],
    operands: &[],
};

pub struct Options {
    pub listen: Option<String>,
    pub to: Option<SocketAddr>,
    pub clients: usize,
    pub connections: usize,
    pub bytes: u64,
    pub slots: NonZeroUsize,
    pub slot_bytes: NonZeroUsize,
    pub zero_copy_from: usize,
}

impl Options {
    /// Parses the command line. Returns `None` if only help was asked for.
    pub fn parse() -> Result<Option<Options>, Box<dyn Error>> {
        let mut options = Options {
            listen: None,
            to: None,
            clients: 4096,
            connections: 16,
            bytes: 512 << 20,
            slots: nonzero(256)?,
            slot_bytes: nonzero(64 << 10)?,
            zero_copy_from: uring_arena::SendOptions::ZERO_COPY_FROM,
        };
        let given = LINE.parse(|name, value| {
            let processes = "use several processes";
            match name {
                "--listen" => options.listen = Some(lexopt::ValueExt::string(value)?),
                "--to" => options.to = Some(look_up(&lexopt::ValueExt::string(value)?)?),
                "--clients" => options.clients = count(name, value, 1 << 16, processes)?.get(),
                "--connections" => options.connections = count(name, value, 1024, processes)?.get(),
                "--bytes" => options.bytes = size(name, value)?,
                "--slots" => options.slots = ring_slots(name, value)?,
                "--slot-bytes" => options.slot_bytes = slot_bytes(name, value)?,
                _ => {
                    let bytes = size(name, value)?;
                    options.zero_copy_from = usize::try_from(bytes).unwrap_or(usize::MAX);
                }
            }
            Ok(())
        })?;
        let Some(given) = given else { return Ok(None) };
        given.check_needs("--to", "--listen", "where clients are accepted")?;
        given.check_needs("--listen", "--to", "where their bytes go")?;
        given.check_needs("--clients", "--listen", "where they are accepted")?;
        let reason = "the clients decide what is sent";
        given.check_without("--listen", &["--connections", "--bytes"], reason)?;
        check_slots(options.slots, options.slot_bytes, 2)?;
        Ok(Some(options))
    }
}

/// Looks an address up. Of several addresses it takes an IPv4 one, which more servers listen on.
fn look_up(text: &str) -> Result<SocketAddr, Box<dyn Error>> {
    let wrong = |reason: String| {
        mistake(format!(
            "--to {text}: {reason}; give the ADDRESS:PORT of a server, for example 127.0.0.1:80"
        ))
    };
    let found: Vec<SocketAddr> =
        text.to_socket_addrs().map_err(|error| wrong(error.to_string()))?.collect();
    let address = found.iter().find(|address| address.is_ipv4()).or(found.first()).copied();
    match address {
        Some(address) if address.port() != 0 => Ok(address),
        Some(_) => Err(wrong("no server has port 0".into())),
        None => Err(wrong("the name has no address".into())),
    }
}
