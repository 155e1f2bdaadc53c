//! The runs: interleaved pairs of a contender and plain tokio, and what each server spent.
//!
//! A figure is the median of the ratios of the pairs. Its half-width is that of the interval which
//! holds the median of as many pairs in 19 of 20 cases, by the order of the ratios.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::measure::Syscalls;
use crate::report::Table;

/// The options of `redis-benchmark` beside the number of its clients.
struct Load {
    name: &'static str,
    words: &'static [&'static str],
}

/// The load by `wrk` in place of `redis-benchmark` (Debian package `wrk`).
const HTTP: &str = "HTTP";

const LOADS: [Load; 4] = [
    Load { name: HTTP, words: &["-t", "1", "-d", "4s", "--latency"] },
    Load { name: "P1", words: &["-t", "ping_mbulk,set,get", "-P", "1", "-d", "64"] },
    Load { name: "P16", words: &["-t", "ping_mbulk,set,get", "-P", "16", "-d", "64"] },
    Load { name: "100 KB", words: &["-t", "set", "-P", "1", "-d", "100000"] },
];

const CONTENDERS: [&str; 6] = ["plain", "auto", "auto-read", "readiness", "ring", "driver"];

/// A server in a process of its own.
struct Server {
    child: Child,
    port: String,
}

impl Server {
    fn start(kind: &str, threads: &str) -> io::Result<Server> {
        let mut child = Command::new(env::current_exe()?)
            .args(["server", kind, threads])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut port = String::new();
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        BufReader::new(output).read_line(&mut port)?;
        Ok(Server { child, port: port.trim().into() })
    }

    /// Returns the processor time that all threads of the server have used, in nanoseconds.
    fn spent(&self) -> io::Result<u64> {
        let mut spent = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let line = fs::read_to_string(thread?.path().join("schedstat"))?;
            let time = line.split_whitespace().next().and_then(|time| time.parse::<u64>().ok());
            spent += time.unwrap_or(0);
        }
        Ok(spent)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The result of one run.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    /// The processor time of the server a request, in nanoseconds.
    time: f64,
    /// Latencies as the client saw them, in milliseconds: means over its tests.
    p50: f64,
    p99: f64,
    /// System calls of the server a request, if they were counted.
    calls: f64,
}

/// Runs one load.
fn run(kind: &str, threads: &str, load: &Load, clients: &str, requests: u64) -> io::Result<Run> {
    run_counted(kind, threads, load, clients, requests, false)
}

fn run_counted(
    kind: &str,
    threads: &str,
    load: &Load,
    clients: &str,
    requests: u64,
    counts_calls: bool,
) -> io::Result<Run> {
    if load.name == HTTP {
        return run_http(kind, threads, load, clients);
    }
    let server = Server::start(kind, threads)?;
    let counter = counts_calls.then(|| Syscalls::attach(server.child.id())).transpose()?;
    let before = server.spent()?;
    let output = Command::new("redis-benchmark")
        .args(["-p", &server.port, "-c", clients, "-n", &requests.to_string(), "--csv"])
        .args(load.words)
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let total = (requests * load.words[1].split(',').count() as u64) as f64;
    let time = (server.spent()? - before) as f64 / total;
    let calls = counter.map(Syscalls::stop).transpose()?.unwrap_or(0) as f64 / total;
    let output = String::from_utf8_lossy(&output.stdout);
    Ok(Run { time, p50: mean_of(&output, "p50"), p99: mean_of(&output, "p99"), calls })
}

/// Runs `wrk` against a server of HTTP for the seconds that the load says.
fn run_http(kind: &str, threads: &str, load: &Load, clients: &str) -> io::Result<Run> {
    let server = Server::start(&format!("http-{kind}"), threads)?;
    let before = server.spent()?;
    let url = format!("http://127.0.0.1:{}/", server.port);
    let output = Command::new("wrk").args(load.words).args(["-c", clients, &url]).output()?;
    let spent = server.spent()? - before;
    let output = String::from_utf8_lossy(&output.stdout);
    let behind = |mark: &str| {
        let line = output.lines().find(|line| {
            line.trim_start().starts_with(mark)
                || line.contains(" requests in ") && mark == "requests"
        })?;
        // Percentages stand before their latency.
        let words = line.split_whitespace().filter(|word| !word.ends_with('%'));
        let mut words = words;
        words.find_map(|word| {
            let digits = word.trim_end_matches(char::is_alphabetic);
            let scale = if word.ends_with("us") { 0.001 } else { 1.0 };
            digits.parse::<f64>().ok().map(|number| number * scale)
        })
    };
    let requests = behind("requests").ok_or_else(|| io::Error::other(output.to_string()))?;
    let latency = |mark| behind(mark).unwrap_or(f64::NAN);
    let (p50, p99) = (latency("50%"), latency("99%"));
    Ok(Run { time: spent as f64 / requests, p50, p99, calls: f64::NAN })
}

/// Returns the mean of a column of redis-benchmark's table, over its rows.
fn mean_of(table: &str, column: &str) -> f64 {
    let mut lines = table.lines().map(|line| line.split(',').map(|cell| cell.trim_matches('"')));
    let heading =
        |mut line: std::iter::Map<_, _>| line.position(|cell: &str| cell.starts_with(column));
    let Some(column) = lines.next().and_then(heading) else { return f64::NAN };
    let cells: Vec<f64> =
        lines.filter_map(|mut line| line.nth(column)?.parse::<f64>().ok()).collect();
    cells.iter().sum::<f64>() / cells.len() as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns half the width of the interval of the median, of sorted values: the ranks that lie about
/// two standard deviations of a binomial count beside the middle.
fn half_width(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let reach = 0.98 * count.sqrt();
    let low = (count / 2.0 - reach).floor().max(0.0) as usize;
    let high = (count / 2.0 + reach).ceil().min(count - 1.0) as usize;
    (values[high] - values[low]) / 2.0
}

/// Measures. The words: runs, clients, threads (0 for one thread), contenders, loads, seconds of
/// each run, each a list behind its name (`clients=1,50`). With `record` the results are put on
/// record in the folder, in the place of those of the same cases.
pub fn measure(words: &[&str], folder: &Path) -> io::Result<()> {
    if Command::new("redis-benchmark").arg("--version").output().is_err() {
        println!("SKIPPED: there is no redis-benchmark here (Debian package redis-tools)");
        return Ok(());
    }
    let list = |name: &str, default: &str| -> Vec<String> {
        let given = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        given.unwrap_or(default).split(',').map(str::to_owned).collect()
    };
    let number = |name: &str, default: f64| {
        list(name, "").first().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (runs, seconds) = (number("runs", 9.0) as usize, number("seconds", 5.0));
    let contenders = list("contenders", &CONTENDERS.join(","));
    let counts_calls = words.contains(&"calls");
    let keep = |lines: Vec<Vec<String>>| match words.contains(&"record") {
        true => Table::keep_servers(lines, folder),
        false => Ok(()),
    };
    println!(
        "| threads | load | clients | server | µs a request | ÷ plain | p50 ÷ plain | p99 ÷ plain | calls a request |"
    );
    println!("|---|---|--:|---|--:|--:|--:|--:|--:|");
    for threads in list("threads", "0,2") {
        let loads = list("loads", "P1,P16,100 KB");
        for load in LOADS.iter().filter(|load| loads.iter().any(|name| name == load.name)) {
            for clients in list("clients", "1,4,16,50,64,512") {
                if load.name == HTTP {
                    let case = Case { threads: &threads, load, clients: &clients, requests: 0 };
                    keep(case.compare(runs, &contenders, false)?)?;
                    continue;
                }
                let probe = run("plain", &threads, load, &clients, 2000)?.time;
                let tests = load.words[1].split(',').count() as f64;
                let requests = ((seconds * 1e9 / probe / tests) as u64).max(2000);
                let case = Case { threads: &threads, load, clients: &clients, requests };
                keep(case.compare(runs, &contenders, counts_calls)?)?;
            }
        }
    }
    Ok(())
}

/// A load of one size, on one kind of runtime.
struct Case<'a> {
    threads: &'a str,
    load: &'a Load,
    clients: &'a str,
    requests: u64,
}

impl Case<'_> {
    fn run(&self, kind: &str) -> io::Result<Run> {
        run(kind, self.threads, self.load, self.clients, self.requests)
    }

    /// Compares all contenders, and returns the lines of the record. "plain" beside plain is the
    /// control.
    fn compare(
        &self,
        runs: usize,
        contenders: &[String],
        counts_calls: bool,
    ) -> io::Result<Vec<Vec<String>>> {
        let mut pairs = vec![Vec::new(); contenders.len()];
        for round in 0..runs {
            for (index, kind) in contenders.iter().enumerate() {
                // Each goes first in turn.
                let (own, plain) = if round % 2 == 0 {
                    let plain = self.run("plain")?;
                    (self.run(kind)?, plain)
                } else {
                    (self.run(kind)?, self.run("plain")?)
                };
                pairs[index].push((own, plain));
            }
        }
        let mut lines = Vec::new();
        for (kind, pairs) in contenders.iter().zip(pairs) {
            let calls = match counts_calls {
                true => format!("{:.2}", self.calls(kind)?),
                false => String::new(),
            };
            lines.push(self.line(kind, &pairs, calls));
        }
        Ok(lines)
    }

    /// Counts the system calls of a run of its own: counting slows each of them down.
    fn calls(&self, kind: &str) -> io::Result<f64> {
        let Case { threads, load, clients, requests } = *self;
        Ok(run_counted(kind, threads, load, clients, requests, true)?.calls)
    }

    /// Prints the result of a contender. Returns its line of the record.
    fn line(&self, kind: &str, pairs: &[(Run, Run)], calls: String) -> Vec<String> {
        let ratio = |part: fn(&Run) -> f64| {
            let mut ratios: Vec<_> =
                pairs.iter().map(|(own, plain)| part(own) / part(plain)).collect();
            [median(&mut ratios), half_width(&ratios)].map(|number| format!("{number:.3}"))
        };
        let mut times: Vec<_> = pairs.iter().map(|(own, _)| own.time / 1000.0).collect();
        let time = format!("{:.2}", median(&mut times));
        let threads = if self.threads == "0" { "one" } else { self.threads };
        let [cpu, p50, p99] = [ratio(|run| run.time), ratio(|run| run.p50), ratio(|run| run.p99)];
        println!(
            "| {threads} | {} | {} | {kind} | {time} | {} | {} | {} | {calls} |",
            self.load.name,
            self.clients,
            cpu.join(" ± "),
            p50.join(" ± "),
            p99.join(" ± "),
        );
        let key = [threads, self.load.name, self.clients, kind].map(str::to_owned);
        let numbers = [time].into_iter().chain(cpu).chain(p50).chain(p99).chain([calls]);
        key.into_iter().chain(numbers).chain([pairs.len().to_string()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_their_names() {
        let table = "\"test\",\"rps\",\"p50_latency_ms\",\"p99_latency_ms\"\n\
                     \"SET\",\"10.0\",\"0.25\",\"1.0\"\n\"GET\",\"10.0\",\"0.75\",\"3.0\"\n";
        assert_eq!((mean_of(table, "p50"), mean_of(table, "p99")), (0.5, 2.0));
    }

    #[test]
    fn the_interval_of_a_median_narrows_with_more_pairs() {
        let spread = |count: usize| (0..count).map(|at| at as f64 / count as f64).collect();
        let few: Vec<f64> = spread(9);
        let many: Vec<f64> = spread(99);
        assert!(half_width(&many) < half_width(&few) / 2.0);
    }
}
