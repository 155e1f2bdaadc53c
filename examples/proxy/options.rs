//! The command line.

use std::error::Error;
use std::num::NonZeroUsize;

use crate::support::{help_or_mistake, nonzero, size, size_within};

const HELP: &str = "\
A TCP proxy that sends every byte from the slot that it was received into.

Usage: proxy [OPTIONS]
  --listen ADDR     accept clients there, and
  --to ADDR         connect each of them to this server; by default the example drives itself:
  --connections N   connections that it opens (16)
  --bytes SIZE      bytes that it sends over all of them, in each direction (512M)
  --slots N         slots of the arena, one arena for each direction (256)
  --slot-bytes SIZE bytes of a slot (64K)
  --zero-copy-from SIZE  shortest send that is zero-copy (16K)
Sizes take K, M, G: powers of 1024.";

pub struct Options {
    pub listen: Option<String>,
    pub to: Option<String>,
    pub connections: usize,
    pub bytes: u64,
    pub slots: NonZeroUsize,
    pub slot_bytes: NonZeroUsize,
    pub zero_copy_from: usize,
}

impl Options {
    /// Parses the command line. Returns `None` if only help was asked for.
    pub fn parse() -> Result<Option<Options>, Box<dyn Error>> {
        use lexopt::prelude::*;

        let mut options = Options {
            listen: None,
            to: None,
            connections: 16,
            bytes: 512 << 20,
            slots: nonzero(256)?,
            slot_bytes: nonzero(64 << 10)?,
            zero_copy_from: uring_arena::SendOptions::ZERO_COPY_FROM,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("listen") => options.listen = Some(parser.value()?.string()?),
                Long("to") => options.to = Some(parser.value()?.string()?),
                Long("connections") => {
                    let advice = "use several processes";
                    options.connections =
                        size_within("--connections", parser.value()?, 4096, advice)? as usize;
                }
                Long("bytes") => options.bytes = size("--bytes", parser.value()?)?,
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
                Long("zero-copy-from") => {
                    let bytes = size("--zero-copy-from", parser.value()?)?;
                    options.zero_copy_from = usize::try_from(bytes).unwrap_or(usize::MAX);
                }
                other => return help_or_mistake(other, HELP),
            }
        }
        Ok(Some(options))
    }
}
