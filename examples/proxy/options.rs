//! The command line.

use std::error::Error;
use std::num::NonZeroUsize;

use crate::support::{mistake, size, size_within};

const HELP: &str = "\
A TCP proxy that sends every byte from the slot that it arrived in.

Usage: proxy [OPTIONS]
  --listen ADDR     where clients connect, and
  --to ADDR         where their connections go; without, it drives itself:
  --connections N   connections to open (16)
  --bytes SIZE      bytes to send over all of them, and back (512M)
  --slots N         slots of the arena, one arena for each way (256)
  --slot-bytes SIZE bytes of a slot (64K)
  --zero-copy-from SIZE  bytes from which on a send is zero-copy (16K)
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
    /// The options, or `None` if only help was asked for.
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
                Long("listen") => {
                    options.listen = Some(parser.value()?.to_string_lossy().into_owned())
                }
                Long("to") => options.to = Some(parser.value()?.to_string_lossy().into_owned()),
                Long("connections") => {
                    let advice = "use several processes";
                    options.connections =
                        size_within("--connections", parser.value()?, 4096, advice)? as usize;
                }
                Long("bytes") => options.bytes = size("--bytes", parser.value()?)?,
                Long("slots") => {
                    let advice = "a buffer id of the kernel numbers no more, use larger slots";
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
        Ok(Some(options))
    }
}

fn nonzero(value: u64) -> Result<NonZeroUsize, Box<dyn Error>> {
    let value = usize::try_from(value).ok().and_then(NonZeroUsize::new);
    value.ok_or_else(|| mistake("a size of zero, or more than this machine can number"))
}
