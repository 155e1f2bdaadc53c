//! The process of a pair.
//!
//! The parent sends a number on a line and waits for a line of `name=value`. Only one process works
//! at a time, so rounds are interleaved between processes.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{self, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use super::profile::Profile;
use super::sample::{Sample, Work};

/// A time far beyond any honest round: a peer that has stopped is a result, not a reason to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// A started process; ended when dropped.
pub struct Child {
    process: process::Child,
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Child {
    /// Starts this program again in a role.
    pub fn start(role: &[&str]) -> io::Result<Self> {
        let mut command = Command::new(Profile::Release.program()?);
        command.args(role);
        Self::spawn(command)
    }

    /// Starts a process that serves, and waits until it is ready.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let orders = process.stdin.take();
        let lines = BufReader::new(process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?).lines();
        let (sender, answers) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let child = Self { process, orders, answers };
        child.answer()?;
        Ok(child)
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Has the process do its work so many times.
    pub fn run(&mut self, times: u64) -> io::Result<Sample> {
        writeln!(self.orders.as_mut().ok_or(io::ErrorKind::BrokenPipe)?, "{times}")?;
        self.answer()
    }

    /// Ends the process and waits for its end.
    pub fn finish(mut self) -> io::Result<()> {
        self.orders = None;
        self.process.wait().map(drop)
    }

    fn answer(&self) -> io::Result<Sample> {
        match self.answers.recv_timeout(ANSWER_TIMEOUT) {
            Ok(line) => match line.strip_prefix("error ") {
                Some(error) => Err(io::Error::other(error.to_owned())),
                None => Ok(Sample::parse(&line)),
            },
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the process gave no answer")),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The end of its orders is the polite end; a child that hangs is ended by force.
        self.orders = None;
        for _ in 0..500 {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Works in the child: answers orders until the parent closes them.
pub fn serve(work: io::Result<Work>) -> io::Result<()> {
    let mut out = io::stdout();
    let mut say = |sample: io::Result<Sample>| match sample {
        Ok(sample) => writeln!(out, "{sample}"),
        Err(error) => writeln!(out, "error {}", error.to_string().replace('\n', " ")),
    };
    let mut work = match work {
        Ok(work) => work,
        Err(error) => return say(Err(error)),
    };
    say(Ok(Sample::default()))?;
    for line in io::stdin().lock().lines() {
        let times = line?.parse().map_err(io::Error::other)?;
        say(work(times))?;
    }
    Ok(())
}
