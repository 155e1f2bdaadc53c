//! The command line.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::STEP;
use crate::support::{CommandLine, check_slots, count, mistake, nonzero, size, slot_bytes};

const LINE: CommandLine = CommandLine {
    help: "\
Writes a socket to a file with O_DIRECT, from the slots that its bytes were received into.

Usage: ingest [OPTIONS] [FILE]
  FILE              file to make (without: one without a name, which goes with the program)
  --force           replace FILE if there is one
  --listen ADDR     take one sender there; by default the example sends to itself
  --bytes SIZE      without --listen: bytes that it sends to itself (1G)
  --slots N         slots of the arena: one is filled, the others are written (16)
  --slot-bytes SIZE bytes of a slot, a multiple of 4096 (512K)
  --buffered        write through the page cache, for file systems that refuse O_DIRECT
If receiving or writing fails, FILE keeps what was written, and the error says how much that is.
Sizes take K, M, G: powers of 1024.",
    options: &["--listen", "--bytes", "--slots", "--slot-bytes"],
    flags: &["--force", "--buffered"],
    operands: &["FILE"],
};

pub struct Options {
    pub listen: Option<String>,
    pub file: Option<PathBuf>,
    pub force: bool,
    pub bytes: u64,
    pub slots: NonZeroUsize,
    pub slot_bytes: NonZeroUsize,
    pub buffered: bool,
}

impl Options {
    /// Parses the command line. Returns `None` if only help was asked for.
    pub fn parse() -> Result<Option<Options>, Box<dyn Error>> {
        let mut options = Options {
            listen: None,
            file: None,
            force: false,
            bytes: 1 << 30,
            slots: nonzero(16)?,
            slot_bytes: nonzero(512 << 10)?,
            buffered: false,
        };
        let given = LINE.parse(|name, value| {
            match name {
                "--listen" => options.listen = Some(lexopt::ValueExt::string(value)?),
                "--bytes" => options.bytes = size(name, value)?,
                "--slots" => options.slots = count(name, value, 1 << 14, "more gain nothing")?,
                "--slot-bytes" => options.slot_bytes = slot_bytes(name, value)?,
                _ => options.file = Some(value.into()),
            }
            Ok(())
        })?;
        let Some(given) = given else { return Ok(None) };
        options.force = given.has("--force");
        options.buffered = given.has("--buffered");
        given.check_needs("--force", "FILE", "which it replaces")?;
        given.check_without("--listen", &["--bytes"], "the sender decides how much comes")?;
        check_slots(options.slots, options.slot_bytes, 1)?;
        if !options.slot_bytes.get().is_multiple_of(STEP) {
            return Err(mistake(format!(
                "--slot-bytes {}: O_DIRECT needs aligned writes, give a multiple of {STEP}",
                options.slot_bytes
            )));
        }
        Ok(Some(options))
    }
}
