//! The command line.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::support::{help_or_mistake, mistake, nonzero, size, size_within};

const HELP: &str = "\
Writes a socket to a file with O_DIRECT, from the slots that its bytes were received into.

Usage: ingest [OPTIONS] [FILE]
  FILE              file to write (a file made here and removed at the end)
  --listen ADDR     accept one client there; by default the example sends to itself
  --bytes SIZE      bytes that it sends to itself (1G)
  --slots N         slots of the arena: one is filled, the others are written (16)
  --slot-bytes SIZE bytes of a slot, a multiple of 4096 (512K)
  --buffered        write through the page cache, for file systems that refuse O_DIRECT
Sizes take K, M, G: powers of 1024.";

pub struct Options {
    pub listen: Option<String>,
    pub file: PathBuf,
    /// The file was named on the command line, and is not removed.
    pub keep: bool,
    pub bytes: u64,
    pub slots: NonZeroUsize,
    pub slot_bytes: NonZeroUsize,
    pub buffered: bool,
}

impl Options {
    /// Parses the command line. Returns `None` if only help was asked for.
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
                Long("listen") => options.listen = Some(parser.value()?.string()?),
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
                Value(path) if !options.keep => (options.file, options.keep) = (path.into(), true),
                other => return help_or_mistake(other, HELP),
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
