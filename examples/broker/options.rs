//! The command line.

use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::broker::{MESSAGE_MAX, SLOT_BYTES};
use crate::support::{self, CommandLine, count, mistake, nonzero};

const LINE: CommandLine = CommandLine {
    help: "\
A broker: each message goes to every subscriber from the slots it was received into.

Usage: broker [OPTIONS]
  --listen ADDR     serve clients of other programs
  --subscribers N   without --listen: subscribers of the program's own (1000)
  --messages N      without --listen: messages to each of them (200)
  --bytes N         without --listen: bytes of a message, up to 1M (4096)
  --slots N         slots of 16 KiB (1024)
  --idle SECONDS    the silence after which a publisher is dropped (60)",
    options: &["--listen", "--subscribers", "--messages", "--bytes", "--slots", "--idle"],
    flags: &[],
    operands: &[],
};

pub struct Options {
    pub listen: Option<SocketAddr>,
    pub subscribers: NonZeroUsize,
    pub messages: NonZeroUsize,
    pub bytes: NonZeroUsize,
    pub slots: NonZeroUsize,
    pub idle: Duration,
}

/// Parses the command line. Returns `None` if only help was asked for.
pub fn parse() -> Result<Option<Options>, Box<dyn Error>> {
    let mut options = Options {
        listen: None,
        subscribers: nonzero(1000)?,
        messages: nonzero(200)?,
        bytes: nonzero(4096)?,
        slots: nonzero(1024)?,
        idle: Duration::from_secs(60),
    };
    let given = LINE.parse(|name, value| {
        match name {
            "--subscribers" => options.subscribers = count(name, value, 1 << 16, "use more hosts")?,
            "--messages" => options.messages = count(name, value, 1 << 32, "they take hours")?,
            "--bytes" => options.bytes = count(name, value, MESSAGE_MAX as u64, "send several")?,
            "--slots" => options.slots = support::ring_slots(name, value)?,
            "--idle" => {
                let seconds = count(name, value, 1 << 20, "that is twelve days")?;
                options.idle = Duration::from_secs(seconds.get() as u64);
            }
            _ => {
                let text = value.to_string_lossy();
                options.listen = Some(text.parse().map_err(|_| {
                    mistake(format!("--listen {text}: give an IP ADDRESS:PORT of this machine"))
                })?);
            }
        }
        Ok(())
    })?;
    let Some(given) = given else { return Ok(None) };
    let own = ["--subscribers", "--messages", "--bytes"];
    given.check_without("--listen", &own, "the clients decide that")?;
    support::check_slots(options.slots, nonzero(SLOT_BYTES as u64)?, 1)?;
    Ok(Some(options))
}
