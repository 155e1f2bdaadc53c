//! The command line.

use std::error::Error;
use std::path::PathBuf;

use crate::support::{CommandLine, count, mistake, size};

const LINE: CommandLine = CommandLine {
    help: "\
Reads a file with O_DIRECT into the slots of a registered arena, and compares it with an ordinary read.

Usage: direct_reader [OPTIONS] [FILE]
  FILE              file to read (without: one of random bytes, which goes with the program)
  --bytes SIZE      without FILE: size of the file that is made (256M)
  --depth N         reads at a time (32)
  --block SIZE      bytes of a read, a multiple of 4096 (128K)
  --buffered        read through the page cache, for file systems that refuse O_DIRECT
  --no-verify       skip the ordinary read at the end
Sizes take K, M, G: powers of 1024.",
    options: &["--bytes", "--depth", "--block"],
    flags: &["--buffered", "--no-verify"],
    operands: &["FILE"],
};

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
        let mut options = Options {
            file: None,
            bytes: 256 << 20,
            depth: 32,
            block: 128 << 10,
            buffered: false,
            verify: true,
        };
        let given = LINE.parse(|name, value| {
            match name {
                "--bytes" => options.bytes = size(name, value)?,
                "--depth" => {
                    options.depth = count(name, value, 4096, "a deeper queue gains nothing")?.get();
                }
                "--block" => {
                    let advice = "a larger one gains nothing, use more at a time";
                    options.block = count(name, value, 1 << 30, advice)?.get();
                }
                _ => options.file = Some(value.into()),
            }
            Ok(())
        })?;
        let Some(given) = given else { return Ok(None) };
        options.buffered = given.has("--buffered");
        options.verify = !given.has("--no-verify");
        given.check_without("FILE", &["--bytes"], "FILE is read to its end")?;
        if !options.block.is_multiple_of(BLOCK_STEP) {
            return Err(mistake(format!(
                "--block {}: O_DIRECT needs aligned reads, give a multiple of {BLOCK_STEP}",
                options.block
            )));
        }
        Ok(Some(options))
    }
}
