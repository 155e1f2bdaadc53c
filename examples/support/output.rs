//! Output for a person: errors, progress, units.

use std::cell::Cell;
use std::error::Error;
use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanCount, ProgressBar, ProgressStyle};
use uring_arena::FixedArena;

/// An error for the person at the keyboard: the value, the limit, the remedy.
#[derive(Debug)]
struct Mistake(String);

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Mistake {}

/// Makes an error of `text`.
pub fn mistake(text: impl Into<String>) -> Box<dyn Error> {
    Box::new(Mistake(text.into()))
}

/// Prints a line to standard output, as `println!` does, and ends the program if that fails.
///
/// A full disk is told, and a pipe whose reader has gone is not: nobody is left to be told.
macro_rules! say {
    ($($line:tt)*) => { $crate::support::print_line(format_args!($($line)*)) };
}
pub(crate) use say;

/// Prints a line for [`say`].
pub fn print_line(line: fmt::Arguments<'_>) {
    let mut output = io::stdout().lock();
    let Err(error) = writeln!(output, "{line}").and_then(|()| output.flush()) else { return };
    if error.kind() != io::ErrorKind::BrokenPipe {
        warn(format_args!("error: standard output: {error}"));
    }
    std::process::exit(1);
}

/// Prints a line to standard error, if anybody reads it.
pub fn warn(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A warning that may have to be given very often, and is printed once a second.
#[derive(Default)]
pub struct Warning {
    printed: Option<Instant>,
    left_out: u64,
}

impl Warning {
    /// Prints `line`, or counts it if another one was printed within the last second.
    pub fn print(&mut self, line: impl Display) {
        if self.printed.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            self.left_out += 1;
            return;
        }
        match std::mem::take(&mut self.left_out) {
            0 => warn(line),
            left_out => warn(format_args!("{line} (and {left_out} such lines before)")),
        }
        self.printed = Some(Instant::now());
    }
}

/// Runs an example: parses its options, then calls `main` with them.
///
/// `parse` returns `None` if the command line asked for help only. An error goes to standard
/// error, and the exit code is then 1.
pub fn run<O>(
    parse: impl FnOnce() -> Result<Option<O>, Box<dyn Error>>,
    main: impl FnOnce(&O) -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    match parse().and_then(|options| options.as_ref().map_or(Ok(()), main)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warn(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Returns an error unless every slot of the arena is free and no operation is in flight.
pub fn check_all_free(arena: &FixedArena, in_flight: usize) -> Result<(), Box<dyn Error>> {
    let metrics = arena.metrics();
    if (metrics.bytes_live, metrics.quarantined, in_flight) == (0, 0, 0) {
        return Ok(());
    }
    Err(mistake(format!(
        "{} of slots still in use, {} slots in quarantine, {in_flight} operations in flight",
        BinaryBytes(metrics.bytes_live as u64),
        metrics.quarantined
    )))
}

/// The progress of an example: a bar on a terminal, otherwise a line every few seconds.
pub struct Progress {
    bar: ProgressBar,
    lines: bool,
    next_line: Cell<Instant>,
}

/// The time between two lines of progress.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Begins to show the progress towards `total_bytes`, on standard error.
pub fn progress(total_bytes: u64) -> Progress {
    let template = "{bar:40} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    Progress {
        bar: ProgressBar::new(total_bytes).with_style(style),
        lines: !io::stderr().is_terminal(),
        next_line: Cell::new(Instant::now() + LINE_EVERY),
    }
}

impl Progress {
    /// Shows `bytes` more.
    pub fn inc(&self, bytes: u64) {
        self.bar.inc(bytes);
        self.print_line();
    }

    /// Shows that the first `bytes` are done.
    pub fn set_position(&self, bytes: u64) {
        self.bar.set_position(bytes);
        self.print_line();
    }

    /// Takes the bar away.
    pub fn finish_and_clear(&self) {
        self.bar.finish_and_clear();
    }

    fn print_line(&self) {
        if !self.lines || Instant::now() < self.next_line.get() {
            return;
        }
        self.next_line.set(Instant::now() + LINE_EVERY);
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
        warn(format_args!("{} of {}", BinaryBytes(done), BinaryBytes(total)));
    }
}

/// Formats a length to the byte, followed by the rounded length from 1 KiB on.
pub fn exact_bytes(bytes: u64) -> String {
    let exact = HumanCount(bytes);
    if bytes < 1024 {
        format!("{exact} bytes")
    } else {
        format!("{exact} bytes ({})", BinaryBytes(bytes))
    }
}

/// Formats a duration with its unit: `1.2 s`, `3.4 ms`, `5.6 µs`.
pub fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.1} s"),
        seconds if seconds >= 1e-3 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{:.1} µs", seconds * 1e6),
    }
}

/// The number of bytes from which on a rate says something. Fewer take no time to speak of.
const MEASURABLE_BYTES: u64 = 1_000_000;

/// The text in the place of a rate of too few bytes.
const NOT_MEASURED: &str = "not measured: fewer than 1 MB";

/// Formats the rate of `bytes` in `time`, in gigabytes (10⁹ bytes) a second.
pub fn rate(bytes: u64, time: Duration) -> String {
    if bytes < MEASURABLE_BYTES {
        return NOT_MEASURED.into();
    }
    format!("{:.2} GB/s", bytes as f64 / 1e9 / time.as_secs_f64().max(1e-9))
}

/// Formats the CPU time of `bytes`, in seconds of `whose` thread per gigabyte (10⁹ bytes).
pub fn cpu_per_gb(bytes: u64, cpu: Duration, whose: &str) -> String {
    if bytes < MEASURABLE_BYTES {
        return NOT_MEASURED.into();
    }
    format!("{:.3} {whose} seconds per GB", cpu.as_secs_f64() / (bytes as f64 / 1e9))
}

/// Formats the CPU time of the receiving thread for `bytes`, per gigabyte (10⁹ bytes).
#[cfg(feature = "io-uring")]
pub fn cpu_s_per_gb(bytes: u64, cpu: Duration) -> String {
    if bytes < MEASURABLE_BYTES {
        return NOT_MEASURED.into();
    }
    let per_gb = cpu.as_secs_f64() / (bytes as f64 / 1e9);
    format!("{per_gb:.3} CPU s/GB (receiving thread)")
}
