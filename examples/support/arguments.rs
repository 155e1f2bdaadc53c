//! The command line: options, sizes, addresses.

use std::error::Error;
use std::ffi::OsString;
use std::net::TcpListener;
use std::num::NonZeroUsize;

use super::mistake;

/// Parses the command line of an example without options.
///
/// Returns `None` if the command line asks for help, which is then printed.
pub fn no_options(help: &str) -> Result<Option<()>, Box<dyn Error>> {
    match lexopt::Parser::from_env().next()? {
        None => Ok(Some(())),
        Some(argument) => help_or_mistake(argument, help),
    }
}

/// Prints `help` if `argument` is `--help` or `-h`, and returns `None`.
///
/// Returns an error for every other argument: the caller does not know it either.
pub fn help_or_mistake<T>(
    argument: lexopt::Arg<'_>,
    help: &str,
) -> Result<Option<T>, Box<dyn Error>> {
    use lexopt::prelude::*;

    match argument {
        Long("help") | Short('h') => {
            println!("{help}");
            Ok(None)
        }
        other => Err(mistake(format!("{}; --help lists the options", other.unexpected()))),
    }
}

/// Parses the value of `option` as a size: `4096`, `64K`, `2G`. Suffixes are powers of 1024.
pub fn size(option: &str, value: OsString) -> Result<u64, Box<dyn Error>> {
    let text = value.to_string_lossy();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..]
        .to_ascii_uppercase()
        .trim_end_matches("IB")
        .trim_end_matches('B')
    {
        "" => Some(0),
        "K" => Some(10),
        "M" => Some(20),
        "G" => Some(30),
        "T" => Some(40),
        _ => None,
    };
    let size = shift.and_then(|shift| digits.parse::<u64>().ok()?.checked_mul(1 << shift));
    size.ok_or_else(|| {
        mistake(format!(
            "{option} {text}: not a size; give a number below 2^64, bare or followed by K, M, G or T"
        ))
    })
}

/// Parses a size of at least 1 and at most `limit`.
///
/// `advice` is the remedy that the error of a larger size names.
pub fn size_within(
    option: &str,
    value: OsString,
    limit: u64,
    advice: &str,
) -> Result<u64, Box<dyn Error>> {
    match size(option, value)? {
        0 => Err(mistake(format!("{option} 0: must be at least 1"))),
        size if size > limit => {
            Err(mistake(format!("{option} {size}: must be at most {limit}; {advice}")))
        }
        size => Ok(size),
    }
}

/// Converts a size into the type that the builders take.
pub fn nonzero(value: u64) -> Result<NonZeroUsize, Box<dyn Error>> {
    let value = usize::try_from(value).ok().and_then(NonZeroUsize::new);
    value.ok_or_else(|| mistake("a size of zero, or more than this machine can address"))
}

/// Binds a listener to the address that `--listen` gave.
pub fn listen(address: &str) -> Result<TcpListener, Box<dyn Error>> {
    TcpListener::bind(address).map_err(|error| {
        mistake(format!(
            "--listen {address}: {error}; give a free ADDRESS:PORT of this machine, for example 127.0.0.1:9000"
        ))
    })
}
