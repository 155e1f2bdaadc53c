//! The command line.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::support::{mistake, size, size_within};

const HELP: &str = "\
Receives many TCP connections into the slots of an arena, without a copy, and verifies every byte.

Usage: recv_loop [OPTIONS]
  --connections N   connections to open (64); with --listen: stop after so many (never)
  --slots N         slots of the arena (512)
  --slot-bytes SIZE bytes of a slot (64K)
  --bytes SIZE      bytes to send over all connections (2G)
  --file PATH       what to send, again and again (this program)
  --listen ADDR     serve clients from outside instead, such as `nc -N 127.0.0.1 9000 < file`
Sizes take K, M, G: powers of 1024.";

/// Connections that are served at one time with `--listen`.
const SERVED_MAX: usize = 16_384;

pub struct Options {
    pub connections: NonZeroUsize,
    pub connections_given: bool,
    pub slots: NonZeroUsize,
    pub slot_bytes: NonZeroUsize,
    pub bytes: u64,
    pub file: PathBuf,
    pub listen: Option<String>,
}

impl Options {
    /// The options, or `None` if only help was asked for.
    pub fn parse() -> Result<Option<Options>, Box<dyn Error>> {
        use lexopt::prelude::*;

        let mut options = Options {
            connections: nonzero(64),
            connections_given: false,
            slots: nonzero(512),
            slot_bytes: nonzero(64 << 10),
            bytes: 2 << 30,
            file: PathBuf::new(),
            listen: None,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("connections") => {
                    options.connections = nonzero(size_within(
                        "--connections",
                        parser.value()?,
                        1 << 20,
                        "use several processes",
                    )?);
                    options.connections_given = true;
                }
                Long("slots") => {
                    let advice = "a buffer id of the kernel numbers no more, use larger slots";
                    options.slots =
                        nonzero(size_within("--slots", parser.value()?, 1 << 16, advice)?);
                }
                Long("slot-bytes") => {
                    let advice = "a larger one gains nothing, use more slots";
                    options.slot_bytes =
                        nonzero(size_within("--slot-bytes", parser.value()?, 1 << 30, advice)?);
                }
                Long("bytes") => options.bytes = size("--bytes", parser.value()?)?,
                Long("file") => options.file = parser.value()?.into(),
                Long("listen") => {
                    options.listen = Some(parser.value()?.to_string_lossy().into_owned())
                }
                Long("help") | Short('h') => {
                    println!("{HELP}");
                    return Ok(None);
                }
                other => {
                    return Err(mistake(format!(
                        "{}; --help lists the options",
                        other.unexpected()
                    )));
                }
            }
        }
        if options.file.as_os_str().is_empty() {
            options.file = std::env::current_exe()?;
        }
        Ok(Some(options))
    }

    /// Connections at one time.
    pub fn connections_max(&self) -> usize {
        if self.listen.is_some() { SERVED_MAX } else { self.connections.get() }
    }
}

fn nonzero(value: u64) -> NonZeroUsize {
    usize::try_from(value).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
}
