//! Rounds that visit every pair in turn, so that a disturbance meets them all.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::measure::{
    Syscalls, callgrind, callgrind_total, huge_mebibytes, is_installed, processor_time,
    registered_buffers,
};

use super::case::{Amount, Comparison, Effort, Metric, Pair};
use super::child::Child;
use super::profile::Profile;
use super::sample::{Sample, Spread, ratios};

/// The end of a control's name. It is ours once more, and shows how far the same thing scatters.
pub const CONTROL: &str = ", again";

/// The metric that perf counts.
const SYSCALLS: &str = "syscalls";

/// One contender's answer to one case: a line of the record.
#[derive(Clone, Debug)]
pub struct Row {
    pub case: String,
    pub metric: &'static str,
    pub title: String,
    pub unit: &'static str,
    pub profile: Profile,
    pub contender: String,
    pub spread: Option<Spread>,
    /// The ratio of ours to this, by round.
    pub ratio: Option<Spread>,
    pub note: String,
    /// The values by round.
    pub samples: Vec<f64>,
}

/// A run of one part.
pub struct Session<'a> {
    pub part: &'a str,
    pub effort: Effort,
    pub scratch: &'a Path,
    /// The profiles whose program was built.
    pub profiles: &'a [Profile],
    /// The things that were left out, with their reasons.
    pub remarks: Vec<String>,
}

/// A pair while it is measured.
struct Entry<'a> {
    comparison: &'a Comparison,
    pair: &'a Pair,
    profile: Profile,
    is_control: bool,
    times: u64,
    child: Option<Child>,
    samples: Vec<Sample>,
    /// Facts about the process that the kernel knows.
    facts: String,
    failure: Option<String>,
}

impl Session<'_> {
    /// Says something that the reader must not miss, here and on record.
    pub fn remark(&mut self, text: String) {
        if !self.remarks.contains(&text) {
            eprintln!("{}: {text}", self.part);
            self.remarks.push(text);
        }
    }

    /// Measures cases that are compared with each other too: all their pairs in the same rounds.
    pub fn measure(&mut self, group: &[Comparison]) -> Vec<Row> {
        let mut entries = Vec::new();
        for comparison in group {
            let profiles = if comparison.method.micro { self.profiles } else { &Profile::ALL[..1] };
            for &profile in profiles {
                let control = comparison.pairs.first().filter(|_| !comparison.method.is_once());
                let pairs = comparison.pairs.iter().map(|pair| (pair, false));
                for (pair, is_control) in pairs.chain(control.map(|pair| (pair, true))) {
                    entries.push(Entry {
                        comparison,
                        pair,
                        profile,
                        is_control,
                        times: 0,
                        child: None,
                        samples: Vec::new(),
                        facts: String::new(),
                        failure: None,
                    });
                }
            }
        }
        match group.first().map(|comparison| comparison.method) {
            Some(method) if method.is_once() => self.one_by_one(&mut entries),
            Some(method) => self.interleave(&mut entries, method.starts, method.rounds),
            None => {}
        }
        group.iter().flat_map(|comparison| rows(comparison, &entries)).collect()
    }

    fn interleave(&mut self, entries: &mut [Entry<'_>], starts: usize, rounds: usize) {
        let count = entries.len();
        for begun in 1..=starts {
            for entry in &mut *entries {
                self.attempt(entry, |entry, session| {
                    entry.child = Some(Child::spawn(entry.command(session)?)?);
                    entry.calibrate()
                });
            }
            for round in 0..rounds {
                for turn in 0..count {
                    // The first one changes each round: nobody always follows the same neighbour.
                    let entry = &mut entries[(round + turn) % count];
                    entry.samples.push(Sample::default());
                    self.attempt(entry, |entry, _| entry.take_sample());
                }
            }
            for entry in &mut *entries {
                if begun == starts {
                    self.attempt(entry, Entry::observe);
                }
                entry.child = None;
            }
        }
    }

    fn one_by_one(&mut self, entries: &mut [Entry<'_>]) {
        for entry in entries {
            entry.samples.push(Sample::default());
            self.attempt(entry, |entry, session| {
                if let Some(pattern) = entry.comparison.method.callgrind {
                    let counted = entry.instructions(pattern, session)?;
                    entry.samples = vec![Sample::default().with("instructions", counted)];
                    return Ok(());
                }
                entry.child = Some(Child::spawn(entry.command(session)?)?);
                entry.calibrate()?;
                entry.take_sample()
            });
            entry.child = None;
        }
    }

    /// Does a step with an entry that has not failed yet: one that hangs would cost the timeout in
    /// each round.
    fn attempt<'a>(
        &mut self,
        entry: &mut Entry<'a>,
        step: impl FnOnce(&mut Entry<'a>, &mut Self) -> io::Result<()>,
    ) {
        if entry.failure.is_none()
            && let Err(error) = step(entry, self)
        {
            let (name, title) = (entry.pair.contender, &entry.comparison.title);
            self.remark(format!("left out: {name} at \"{title}\": {error}"));
            entry.failure = Some(format!("stopped in round {}: {error}", entry.samples.len()));
        }
    }
}

impl Entry<'_> {
    fn role<'s>(&'s self, session: &'s Session<'_>) -> [&'s str; 5] {
        let scratch = session.scratch.to_str().unwrap_or_default();
        ["worker", scratch, session.part, &self.comparison.key, self.pair.contender]
    }

    fn command(&self, session: &Session<'_>) -> io::Result<Command> {
        let mut command = Command::new(self.profile.program()?);
        command.args(self.role(session)).envs(self.pair.allocator.environment());
        Ok(command)
    }

    fn child(&mut self) -> io::Result<&mut Child> {
        self.child.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Finds how often the work fits into the aimed length; warms it up on the way.
    fn calibrate(&mut self) -> io::Result<()> {
        let aim = match self.comparison.method.amount {
            Amount::Times(times) => {
                self.times = times;
                return Ok(());
            }
            Amount::Wall(aim) | Amount::Processor(aim) => aim,
        };
        let by_processor = matches!(self.comparison.method.amount, Amount::Processor(_));
        let mut times = 1;
        loop {
            let child = self.child()?;
            let (begin, before) = (Instant::now(), processor_time(child.id())?);
            let sample = child.run(times)?;
            let taken = match sample.get("ns") {
                // A loop has timed itself: the way there and back is not in it.
                Some(each) => Duration::from_nanos((each * times as f64) as u64),
                None if by_processor => processor_time(child.id())?.saturating_sub(before),
                None => begin.elapsed(),
            };
            if taken >= aim / 4 || times >= 1 << 28 {
                let each = taken.max(Duration::from_nanos(1)).as_secs_f64() / times as f64;
                // A little more than asked, as the first runs are slow.
                self.times = ((1.1 * aim.as_secs_f64() / each) as u64).max(1);
                return Ok(());
            }
            times *= 4;
        }
    }

    /// Does one turn, and puts it in the place of the empty sample that keeps the rounds of all
    /// entries side by side.
    fn take_sample(&mut self) -> io::Result<()> {
        let (times, observed) = (self.times, self.comparison.method.observed);
        let child = self.child()?;
        let before = if observed { processor_time(child.id())? } else { Duration::ZERO };
        let mut sample = child.run(times)?;
        if observed && sample.get("cpu").is_none() {
            let spent = processor_time(child.id())?.saturating_sub(before).as_nanos() as f64;
            sample = {
                let each = spent / operations(&sample, times);
                sample.with("cpu", each)
            };
        }
        if let Some(last) = self.samples.last_mut() {
            *last = sample;
        }
        Ok(())
    }

    /// Asks the kernel about the process, and perf about one turn more.
    fn observe(&mut self, session: &mut Session<'_>) -> io::Result<()> {
        if !self.comparison.method.observed {
            return Ok(());
        }
        let times = self.times;
        let child = self.child()?;
        let (now, huge) = (registered_buffers(child.id()), huge_mebibytes(child.id()));
        // A program whose ring is gone by now has said it itself.
        let own = self.samples.iter().filter_map(|sample| sample.get("registered"));
        let buffers = own.fold(now, f64::max);
        let facts = format!("fdinfo: {buffers} registered buffers; {huge:.0} MiB on huge pages");
        if self.comparison.metrics.iter().any(|metric| metric.name == SYSCALLS) {
            match self.system_calls(times) {
                Ok(each) => {
                    let last = self.samples.last_mut().map(std::mem::take).unwrap_or_default();
                    self.samples.pop();
                    self.samples.push(last.with(SYSCALLS, each));
                }
                Err(error) => session.remark(format!(
                    "System calls are left out: perf gives no count ({error}). It is Debian's \
                     linux-perf, and needs root."
                )),
            }
        }
        self.facts = facts;
        Ok(())
    }

    fn system_calls(&mut self, times: u64) -> io::Result<f64> {
        let child = self.child()?;
        let counter = Syscalls::attach(child.id())?;
        let sample = child.run(times);
        let count = counter.stop()?;
        Ok(count as f64 / operations(&sample?, times))
    }

    /// Counts instructions twice: the difference between a long run and a short one is free of
    /// warming up.
    fn instructions(&self, pattern: &str, session: &Session<'_>) -> io::Result<f64> {
        if !is_installed("valgrind") {
            return Err(io::Error::other("valgrind is not installed (apt-get install valgrind)"));
        }
        let record = session.scratch.join("callgrind");
        let count = |times| {
            let mut command = callgrind(pattern, &record);
            command.arg(std::env::current_exe()?).args(self.role(session)).stderr(Stdio::null());
            let mut child = Child::spawn(command)?;
            let operations = operations(&child.run(times)?, times);
            child.finish()?;
            io::Result::Ok((callgrind_total(&record)? as f64, operations))
        };
        let (short, long) = (count(2)?, count(6)?);
        Ok((long.0 - short.0) / (long.1 - short.1))
    }

    fn name(&self) -> String {
        format!("{}{}", self.pair.contender, if self.is_control { CONTROL } else { "" })
    }

    /// Returns one value a round; not a number where there was none.
    fn values(&self, metric: Metric) -> Vec<f64> {
        let value = |sample: &Sample| sample.get(metric.name).unwrap_or(f64::NAN) * metric.scale;
        self.samples.iter().map(value).collect()
    }

    fn note(&self) -> String {
        let sum = |name| self.samples.iter().filter_map(|sample| sample.get(name)).sum::<f64>();
        let (starved, cycles) = (sum("starved"), sum("cycles"));
        let words = [
            self.pair.note.to_owned(),
            self.facts.clone(),
            if starved > 0.0 { format!("no buffer {starved} times") } else { String::new() },
            if cycles > 0.0 { format!("{cycles} cycles") } else { String::new() },
            self.failure.clone().unwrap_or_default(),
        ];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

/// Returns the number of operations in a sample: its own word, or how often it was asked for.
fn operations(sample: &Sample, times: u64) -> f64 {
    sample.get("operations").unwrap_or(times as f64)
}

/// Makes the tables of a comparison: one for each metric, in each profile.
fn rows(comparison: &Comparison, entries: &[Entry<'_>]) -> Vec<Row> {
    let mut rows = Vec::new();
    for &metric in comparison.metrics {
        for profile in Profile::ALL {
            let own = entries.iter().filter(|entry| {
                std::ptr::eq(entry.comparison, comparison) && entry.profile == profile
            });
            let mut ours = None;
            for entry in own {
                let samples = entry.values(metric);
                let spread = Spread::of(&samples);
                if spread.is_none() && entry.failure.is_none() {
                    continue;
                }
                let ratio = ratios(ours.get_or_insert_with(|| samples.clone()), &samples);
                let separator = if metric.title.is_empty() { "" } else { ": " };
                rows.push(Row {
                    case: comparison.key.clone(),
                    metric: metric.name,
                    title: format!("{}{separator}{}", comparison.title, metric.title),
                    unit: metric.unit,
                    profile,
                    contender: entry.name(),
                    spread,
                    ratio,
                    note: entry.note(),
                    samples,
                });
            }
        }
    }
    rows
}
