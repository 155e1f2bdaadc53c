//! The command line.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::support::{CommandLine, check_slots, count, nonzero, ring_slots, size, slot_bytes};

const LINE: CommandLine = CommandLine {
    help: "\
Receives many TCP connections into the slots of an arena, without a copy, and verifies every byte.

Usage: recv_loop [OPTIONS]
  --connections N   connections to open (64); with --listen, stop after so many (never)
  --slots N         slots of the arena (512)
  --slot-bytes SIZE bytes of a slot (64K)
  --bytes SIZE      without --listen: bytes to send over all connections (2G)
  --file PATH       without --listen: file to send, over and over (this program)
  --compare         without --listen: compare with epoll and read; with tokio, if it is built in
  --listen ADDR     serve clients of other programs, such as `nc -N 127.0.0.1 9000 < file`
Sizes take K, M, G: powers of 1024.",
    options: &["--connections", "--slots", "--slot-bytes", "--bytes", "--file", "--listen"],
    flags: &["--compare"],
    operands: &[],
};

/// The number of connections that `--listen` serves at the same time.
const SERVED_MAX: usize = 16_384;

pub struct Options {
    pub connections: NonZeroUsize,
    /// The number was given on the command line.
    pub connections_given: bool,
    pub slots: NonZeroUsize,
    pub slot_bytes: NonZeroUsize,
    pub bytes: u64,
    pub file: PathBuf,
    pub listen: Option<String>,
    /// The same is done by `epoll` and `read`, and on tokio.
    pub compare: bool,
}

impl Options {
    /// Parses the command line. Returns `None` if only help was asked for.
    pub fn parse() -> Result<Option<Options>, Box<dyn Error>> {
        let mut options = Options {
            connections: nonzero(64)?,
            connections_given: false,
            slots: nonzero(512)?,
            slot_bytes: nonzero(64 << 10)?,
            bytes: 2 << 30,
            file: PathBuf::new(),
            listen: None,
            compare: false,
        };
        let given = LINE.parse(|name, value| {
            match name {
                "--connections" => {
                    options.connections = count(name, value, 1 << 20, "use several processes")?;
                }
                "--slots" => options.slots = ring_slots(name, value)?,
                "--slot-bytes" => options.slot_bytes = slot_bytes(name, value)?,
                "--bytes" => options.bytes = size(name, value)?,
                "--file" => options.file = value.into(),
                _ => options.listen = Some(lexopt::ValueExt::string(value)?),
            }
            Ok(())
        })?;
        let Some(given) = given else { return Ok(None) };
        options.connections_given = given.has("--connections");
        options.compare = given.has("--compare");
        given.check_without(
            "--listen",
            &["--bytes", "--file", "--compare"],
            "the clients decide what is sent",
        )?;
        check_slots(options.slots, options.slot_bytes, 1)?;
        if !given.has("--file") {
            options.file = std::env::current_exe()?;
        }
        Ok(Some(options))
    }

    /// Returns the number of connections that are open at the same time.
    pub fn connections_max(&self) -> usize {
        if self.listen.is_some() { SERVED_MAX } else { self.connections.get() }
    }
}
