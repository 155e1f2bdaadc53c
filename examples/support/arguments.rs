//! The command line: options, sizes, addresses.

use std::error::Error;
use std::ffi::OsString;
use std::net::TcpListener;
use std::num::NonZeroUsize;

use super::{mistake, say};

/// The command line that an example takes.
pub struct CommandLine {
    /// The text for `--help`.
    pub help: &'static str,
    /// The options that have a value.
    pub options: &'static [&'static str],
    /// The options that have none.
    pub flags: &'static [&'static str],
    /// The arguments without a name, in their order. Each may be left out.
    pub operands: &'static [&'static str],
}

impl CommandLine {
    /// Parses the command line, and calls `set` for each value, with the name that it belongs to.
    ///
    /// Returns `None` if the command line asks for help, which is then printed.
    pub fn parse(
        &self,
        mut set: impl FnMut(&'static str, OsString) -> Result<(), Box<dyn Error>>,
    ) -> Result<Option<Given>, Box<dyn Error>> {
        use lexopt::prelude::*;

        let mut given = Given::default();
        let mut operands = self.operands.iter();
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            let known = |names: &[&'static str]| match argument {
                Long(name) => {
                    names.iter().copied().find(|one| one.strip_prefix("--") == Some(name))
                }
                _ => None,
            };
            if let Some(flag) = known(self.flags) {
                given.add(flag)?;
            } else if let Some(option) = known(self.options) {
                given.add(option)?;
                set(option, parser.value()?)?;
            } else {
                match argument {
                    Long("help") | Short('h') => {
                        say!("{}", self.help);
                        return Ok(None);
                    }
                    Value(value) if operands.len() > 0 => {
                        let operand = operands.next().copied().unwrap_or_default();
                        given.add(operand)?;
                        set(operand, value)?;
                    }
                    other => {
                        let unknown = other.unexpected();
                        return Err(mistake(format!("{unknown}; --help lists the options")));
                    }
                }
            }
        }
        Ok(Some(given))
    }
}

/// Parses the command line of an example without options.
///
/// Returns `None` if the command line asks for help, which is then printed.
pub fn no_options(help: &'static str) -> Result<Option<()>, Box<dyn Error>> {
    let line = CommandLine { help, options: &[], flags: &[], operands: &[] };
    Ok(line.parse(|_, _| Ok(()))?.map(drop))
}

/// The options that a command line gave, to refuse those that contradict each other.
#[derive(Default)]
pub struct Given(Vec<&'static str>);

impl Given {
    /// Adds an option. Returns an error if it was given before.
    pub fn add(&mut self, option: &'static str) -> Result<(), Box<dyn Error>> {
        if self.has(option) {
            return Err(mistake(format!("{option} is given twice: give it once")));
        }
        self.0.push(option);
        Ok(())
    }

    /// Returns whether the command line gave `option`.
    pub fn has(&self, option: &str) -> bool {
        self.0.contains(&option)
    }

    /// Returns an error if `option` was given and `needed` was not.
    pub fn check_needs(
        &self,
        option: &str,
        needed: &str,
        use_of: &str,
    ) -> Result<(), Box<dyn Error>> {
        if self.has(option) && !self.has(needed) {
            return Err(mistake(format!("{option} needs {needed}, {use_of}: give both")));
        }
        Ok(())
    }

    /// Returns an error if `option` was given together with one of `others`.
    ///
    /// `reason` says why the other option has no meaning then.
    pub fn check_without(
        &self,
        option: &str,
        others: &[&str],
        reason: &str,
    ) -> Result<(), Box<dyn Error>> {
        let other = others.iter().find(|other| self.has(option) && self.has(other));
        other.map_or(Ok(()), |other| {
            Err(mistake(format!("{option} and {other} contradict each other: {reason}; drop one")))
        })
    }
}

/// Parses the value of `option` as a size: `4096`, `64K`, `2G`. Suffixes are powers of 1024.
pub fn size(option: &str, value: OsString) -> Result<u64, Box<dyn Error>> {
    let text = value.to_string_lossy();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => Some(0),
        "K" | "KB" | "KIB" => Some(10),
        "M" | "MB" | "MIB" => Some(20),
        "G" | "GB" | "GIB" => Some(30),
        "T" | "TB" | "TIB" => Some(40),
        _ => None,
    };
    let size = shift.and_then(|shift| digits.parse::<u64>().ok()?.checked_mul(1 << shift));
    size.ok_or_else(|| {
        mistake(format!(
            "{option} {text}: not a size; give a number below 2^64, bare or followed by K, M, G or T"
        ))
    })
}

/// Parses a number or a size of at least 1 and at most `limit`.
///
/// `advice` is the remedy that the error of a larger one names.
pub fn count(
    option: &str,
    value: OsString,
    limit: u64,
    advice: &str,
) -> Result<NonZeroUsize, Box<dyn Error>> {
    match size(option, value)? {
        0 => Err(mistake(format!("{option} 0: must be at least 1"))),
        size if size > limit => {
            Err(mistake(format!("{option} {size}: must be at most {limit}; {advice}")))
        }
        size => nonzero(size),
    }
}

/// Parses the number of slots of an arena that a buffer ring is fed from.
pub fn ring_slots(option: &str, value: OsString) -> Result<NonZeroUsize, Box<dyn Error>> {
    count(option, value, 1 << 16, "a buffer id of the kernel has 16 bits, use larger slots")
}

/// Parses the bytes of a slot.
pub fn slot_bytes(option: &str, value: OsString) -> Result<NonZeroUsize, Box<dyn Error>> {
    count(option, value, 1 << 30, "a larger one gains nothing, use more slots")
}

/// Converts a size into the type that the builders take.
pub fn nonzero(value: u64) -> Result<NonZeroUsize, Box<dyn Error>> {
    let value = usize::try_from(value).ok().and_then(NonZeroUsize::new);
    value.ok_or_else(|| mistake("a size of zero, or more than this machine can address"))
}

/// Binds a listener to the address that `--listen` gave.
pub fn listen(address: &str) -> Result<TcpListener, Box<dyn Error>> {
    let listener = TcpListener::bind(address).map_err(|error| {
        mistake(format!(
            "--listen {address}: {error}; give a free ADDRESS:PORT of this machine, for example 127.0.0.1:9000"
        ))
    })?;
    // The queue of the standard library has 128 places. A client that finds it full waits a second
    // before it knocks again.
    #[cfg(target_os = "linux")]
    rustix::net::listen(&listener, 4096)?;
    Ok(listener)
}
