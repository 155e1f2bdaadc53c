//! A contender in a process of its own: another allocator, a runtime that wants the thread, or
//! memory to weigh.
//!
//! The parent sends `run N` on a line and waits for a line of `name=value`: only one process works
//! at a time, so rounds can be interleaved between processes as they are within one.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{self, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use super::{Allocator, Tool};

/// Far beyond any honest round: a peer that has stopped is a result, not a reason to wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a child measured in one round, by name.
#[derive(Clone, Debug, Default)]
pub struct Sample(BTreeMap<String, f64>);

impl Sample {
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    fn parse(line: &str) -> Self {
        let pairs = line.split_whitespace().filter_map(|word| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(pairs.collect())
    }
}

/// A started child; ended when dropped.
pub struct Child {
    process: process::Child,
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
    record: Option<PathBuf>,
}

impl Child {
    /// Starts this program again as the worker that `role` names.
    pub fn start(role: &[&str], allocator: Allocator) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("worker").args(role).envs(allocator.environment());
        Self::spawn(command, None)
    }

    /// The same under a tool that counts inside the functions that `pattern` names.
    pub fn start_under(tool: Tool, pattern: &str, role: &[&str]) -> io::Result<Self> {
        let record = env::temp_dir().join(format!("uring-arena-peers-{}.callgrind", process::id()));
        let mut command = tool.command(pattern, &record);
        command.arg(env::current_exe()?).arg("worker").args(role);
        command.stderr(Stdio::null());
        Self::spawn(command, Some(record))
    }

    fn spawn(mut command: Command, record: Option<PathBuf>) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let orders = process.stdin.take();
        let lines = BufReader::new(process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?).lines();
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let child = Self { process, orders, answers, record };
        child.answer()?;
        Ok(child)
    }

    /// One round of `times` operations.
    pub fn run(&mut self, times: u64) -> io::Result<Sample> {
        let orders = self.orders.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(orders, "run {times}")?;
        orders.flush()?;
        self.answer()
    }

    /// Ends the child and reads what callgrind counted; only for a child started under it.
    pub fn instructions(mut self) -> io::Result<u64> {
        self.orders = None;
        self.process.wait()?;
        let record = self.record.take().ok_or(io::ErrorKind::NotFound)?;
        let text = fs::read_to_string(&record)?;
        fs::remove_file(&record).ok();
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        let total = total.and_then(|total| total.split_whitespace().next()?.parse().ok());
        total.ok_or_else(|| io::Error::other("callgrind left no totals"))
    }

    fn answer(&self) -> io::Result<Sample> {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(line) if line.starts_with("error") => Err(io::Error::other(line)),
            Ok(line) => Ok(Sample::parse(&line)),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the child gave no answer")),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Closing its orders is the polite end; a child that hangs is ended by force.
        self.orders = None;
        for _ in 0..50 {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The child's side: answers orders until the parent closes them.
pub fn serve(mut round: impl FnMut(u64) -> io::Result<Sample>) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let Some(times) = line.strip_prefix("run ").and_then(|n| n.parse().ok()) else {
            continue;
        };
        let mut answer = String::new();
        match round(times) {
            Ok(sample) => {
                for (name, value) in &sample.0 {
                    write!(answer, "{name}={value} ").ok();
                }
            }
            Err(error) => write!(answer, "error {error}").unwrap_or_default(),
        }
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}
