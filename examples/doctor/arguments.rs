//! The command line of the doctor.

use std::ffi::OsString;

pub const HELP: &str = "\
Reports what this kernel and this user can do with io_uring, and which settings to use.

Usage: doctor [OPTIONS]
  --slots N         slots of the arena in question (512)
  --slot-bytes SIZE bytes of a slot (64K)
  --json            one JSON object in place of lines
Sizes take K, M, G: powers of 1024.
Exit code: 0 all is well, 2 something of use is missing, 3 io_uring is, 1 a mistake here.";

/// The arena in question, and the form of the answer.
pub struct Question {
    pub slots: usize,
    pub slot_bytes: usize,
    pub json: bool,
}

impl Question {
    pub fn bytes(&self) -> u64 {
        (self.slots as u64).saturating_mul(self.slot_bytes as u64)
    }
}

/// Parses the command line. Returns `None` if only help was asked for.
pub fn parse() -> Result<Option<Question>, String> {
    use lexopt::prelude::*;

    let (mut slots, mut slot_bytes, mut json) = (None, None, None);
    let mut parser = lexopt::Parser::from_env();
    let words = |error: lexopt::Error| error.to_string();
    while let Some(argument) = parser.next().map_err(words)? {
        match argument {
            Long("slots") => {
                let value = parser.value().map_err(words)?;
                let value = size("--slots", value, 1 << 31, "use several arenas")?;
                once("--slots", &mut slots, value)?;
            }
            Long("slot-bytes") => {
                let value = parser.value().map_err(words)?;
                let value = size("--slot-bytes", value, 1 << 40, "use more slots")?;
                once("--slot-bytes", &mut slot_bytes, value)?;
            }
            Long("json") => once("--json", &mut json, true)?,
            Long("help") | Short('h') => return Ok(None),
            other => return Err(format!("{}; --help lists the options", other.unexpected())),
        }
    }
    Ok(Some(Question {
        slots: slots.unwrap_or(512),
        slot_bytes: slot_bytes.unwrap_or(64 << 10),
        json: json.unwrap_or(false),
    }))
}

fn once<T>(option: &str, place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        Some(_) => Err(format!("{option} is given twice: give it once")),
        None => Ok(()),
    }
}

/// Parses a size: `4096`, `64K`, `2G`.
fn size(option: &str, value: OsString, limit: u64, remedy: &str) -> Result<usize, String> {
    let text = value.to_string_lossy();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => Some(0),
        "K" | "KB" | "KIB" => Some(10),
        "M" | "MB" | "MIB" => Some(20),
        "G" | "GB" | "GIB" => Some(30),
        _ => None,
    };
    let size = shift.and_then(|shift| digits.parse::<u64>().ok()?.checked_mul(1 << shift));
    match size {
        None => Err(format!("{option} {text}: not a size; give a number, bare or with K, M or G")),
        Some(0) => Err(format!("{option} 0: must be at least 1")),
        Some(size) if size > limit => {
            Err(format!("{option} {size}: must be at most {limit}; {remedy}"))
        }
        Some(size) => usize::try_from(size)
            .map_err(|_| format!("{option} {size}: more than this machine can address")),
    }
}
