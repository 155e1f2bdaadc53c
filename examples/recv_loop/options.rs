//! The command line.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::support::{help_or_mistake, nonzero, size, size_within};

const HELP: &str = "\
Receives many TCP connections into the slots of an arena, without a copy, and verifies every byte.

Usage: recv_loop [OPTIONS]
  --connections N   connections to open (64); with --listen, stop after so many (never)
  --slots N         slots of the arena (512)
  --slot-bytes SIZE bytes of a slot (64K)
  --bytes SIZE      bytes to send over all connections (2G)
  --file PATH       file to send, over and over (this program)
  --listen ADDR     serve clients of other programs instead, such as `nc -N 127.0.0.1 9000 < file`
Sizes take K, M, G: powers of 1024.";

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
}

impl Options {
    /// Parses the command line. Returns `None` if only help was asked for.
    pub fn parse() -> Result<Option<Options>, Box<dyn Error>> {
        use lexopt::prelude::*;

        let mut options = Options {
            connections: nonzero(64)?,
            connections_given: false,
            slots: nonzero(512)?,
            slot_bytes: nonzero(64 << 10)?,
            bytes: 2 << 30,
            file: PathBuf::new(),
            listen: None,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("connections") => {
                    let advice = "use several processes";
                    options.connections =
                        nonzero(size_within("--connections", parser.value()?, 1 << 20, advice)?)?;
                    options.connections_given = true;
                }
                Long("slots") => {
                    let advice = "a buffer id of the kernel has 16 bits, use larger slots";
                    options.slots =
                        nonzero(size_within("--slots", parser.value()?, 1 << 16, advice)?)?;
                }
                Long("slot-bytes") => {
                    let advice = "a larger one gains nothing, use more slots";
                    options.slot_bytes =
                        nonzero(size_within("--slot-bytes", parser.value()?, 1 << 30, advice)?)?;
                }
                Long("bytes") => options.bytes = size("--bytes", parser.value()?)?,
                Long("file") => options.file = parser.value()?.into(),
                Long("listen") => options.listen = Some(parser.value()?.string()?),
                other => return help_or_mistake(other, HELP),
            }
        }
        if options.file.as_os_str().is_empty() {
            options.file = std::env::current_exe()?;
        }
        Ok(Some(options))
    }

    /// Returns the number of connections that are open at the same time.
    pub fn connections_max(&self) -> usize {
        if self.listen.is_some() { SERVED_MAX } else { self.connections.get() }
    }
}
