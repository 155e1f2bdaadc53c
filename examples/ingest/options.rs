//! The command line.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::support::{mistake, size, size_within};

const HELP: &str = "\
Writes what arrives on a socket to a file, with O_DIRECT, from the slots that it arrived in.

Usage: ingest [OPTIONS] [FILE]
  FILE              where to (a file made here and removed again)
  --listen ADDR     where one client connects; without, it sends itself:
  --bytes SIZE      bytes to send (1G)
  --slots N         slots of the arena: one is filled, the others are written (16)
  --slot-bytes SIZE bytes of a slot, a multiple of 4096 (512K)
  --buffered        without O_DIRECT, for file systems that refuse it
Sizes take K, M, G: powers of 1024.";

pub struct Options {
    pub listen: Option<String>,
    pub file: PathBuf,
    pub keep: bool,
    pub bytes: u64,
    pub slots: NonZeroUsize,
    pub slot_bytes: NonZeroUsize,
    pub buffered: bool,
}

impl Options {
    /// The options, or `None` if only help was asked for.
    pub fn parse() -> Result<Option<Options>, Box<dyn Error>> {
        use lexopt::prelude::*;

        let mut options = Options {
            listen: None,
            file: format!("ingest-{}.tmp", std::process::id()).into(),
            keep: false,
            bytes: 1 << 30,
            slots: nonzero(16)?,
            slot_bytes: nonzero(512 << 10)?,
            buffered: false,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("listen") => {
                    options.listen = Some(parser.value()?.to_string_lossy().into_owned())
                }
                Long("bytes") => options.bytes = size("--bytes", parser.value()?)?,
                Long("slots") => {
                    let advice = "more gain nothing";
                    options.slots =
                        nonzero(size_within("--slots", parser.value()?, 1 << 14, advice)?)?;
                }
                Long("slot-bytes") => {
                    let advice = "a larger one gains nothing, use more slots";
                    options.slot_bytes =
                        nonzero(size_within("--slot-bytes", parser.value()?, 1 << 30, advice)?)?;
                }
                Long("buffered") => options.buffered = true,
                Long("help") | Short('h') => {
                    println!("{HELP}");
                    return Ok(None);
                }
                Value(path) if !options.keep => (options.file, options.keep) = (path.into(), true),
                other => {
                    return Err(mistake(format!(
                        "{}; --help lists the options",
                        other.unexpected()
                    )));
                }
            }
        }
        if !options.slot_bytes.get().is_multiple_of(crate::STEP) {
            return Err(mistake(format!(
                "--slot-bytes {}: O_DIRECT needs aligned writes, give a multiple of {}",
                options.slot_bytes,
                crate::STEP
            )));
        }
        Ok(Some(options))
    }
}

fn nonzero(value: u64) -> Result<NonZeroUsize, Box<dyn Error>> {
    let value = usize::try_from(value).ok().and_then(NonZeroUsize::new);
    value.ok_or_else(|| mistake("a size of zero, or more than this machine can number"))
}
