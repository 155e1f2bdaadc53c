//! The command line.

use std::error::Error;
use std::path::PathBuf;

use crate::support::{help_or_mistake, mistake, size, size_within};

const HELP: &str = "\
Reads a file with O_DIRECT into the slots of a registered arena, and compares it with an ordinary read.

Usage: direct_reader [OPTIONS] [FILE]
  FILE              file to read (a file of random bytes, made here and removed at the end)
  --bytes SIZE      size of the file that is made (256M)
  --depth N         reads at a time (32)
  --block SIZE      bytes of a read, a multiple of 4096 (128K)
  --buffered        read through the page cache, for file systems that refuse O_DIRECT
  --no-verify       skip the ordinary read at the end
Sizes take K, M, G: powers of 1024.";

/// An alignment that every `O_DIRECT` device accepts.
const BLOCK_STEP: usize = 4096;

pub struct Options {
    pub file: Option<PathBuf>,
    pub bytes: u64,
    pub depth: usize,
    pub block: usize,
    pub buffered: bool,
    pub verify: bool,
}

impl Options {
    /// Parses the command line. Returns `None` if only help was asked for.
    pub fn parse() -> Result<Option<Options>, Box<dyn Error>> {
        use lexopt::prelude::*;

        let mut options = Options {
            file: None,
            bytes: 256 << 20,
            depth: 32,
            block: 128 << 10,
            buffered: false,
            verify: true,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("bytes") => options.bytes = size("--bytes", parser.value()?)?,
                Long("depth") => {
                    let advice = "a deeper queue gains nothing";
                    options.depth = size_within("--depth", parser.value()?, 4096, advice)? as usize;
                }
                Long("block") => {
                    let advice = "a larger one gains nothing, use more at a time";
                    options.block =
                        size_within("--block", parser.value()?, 1 << 30, advice)? as usize;
                }
                Long("buffered") => options.buffered = true,
                Long("verify") => options.verify = true,
                Long("no-verify") => options.verify = false,
                Value(path) if options.file.is_none() => options.file = Some(path.into()),
                other => return help_or_mistake(other, HELP),
            }
        }
        if !options.block.is_multiple_of(BLOCK_STEP) {
            return Err(mistake(format!(
                "--block {}: O_DIRECT needs aligned reads, give a multiple of {BLOCK_STEP}",
                options.block
            )));
        }
        Ok(Some(options))
    }
}
