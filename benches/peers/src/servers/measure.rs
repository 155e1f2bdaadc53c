//! The runs: interleaved pairs of a contender and plain tokio, and what each server spent.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// The options of `redis-benchmark` beside the number of its clients.
struct Load {
    name: &'static str,
    words: &'static [&'static str],
}

const LOADS: [Load; 3] = [
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

/// Runs one load, and returns the processor time of the server a request, in nanoseconds.
fn run(kind: &str, threads: &str, load: &Load, clients: &str, requests: u64) -> io::Result<f64> {
    let server = Server::start(kind, threads)?;
    let before = server.spent()?;
    let output = Command::new("redis-benchmark")
        .args(["-p", &server.port, "-c", clients, "-n", &requests.to_string(), "-q"])
        .args(load.words)
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let tests = load.words[1].split(',').count() as u64;
    Ok((server.spent()? - before) as f64 / (requests * tests) as f64)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures. The words: runs, clients, threads (0 for one thread), contenders, loads, seconds of
/// each run, each a list behind its name (`clients=1,50`).
pub fn measure(words: &[&str]) -> io::Result<()> {
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
    println!("| threads | load | clients | server | µs a request | ÷ plain (lowest – highest) |");
    println!("|---|---|--:|---|--:|--:|");
    for threads in list("threads", "0,2") {
        let loads = list("loads", "P1,P16,100 KB");
        for load in LOADS.iter().filter(|load| loads.iter().any(|name| name == load.name)) {
            for clients in list("clients", "1,4,16,50,64,512") {
                let probe = run("plain", &threads, load, &clients, 2000)?;
                let tests = load.words[1].split(',').count() as f64;
                let requests = ((seconds * 1e9 / probe / tests) as u64).max(2000);
                compare(&threads, load, &clients, requests, runs, &contenders)?;
            }
        }
    }
    Ok(())
}

/// Compares all contenders on one load. "plain" beside plain is the control.
fn compare(
    threads: &str,
    load: &Load,
    clients: &str,
    requests: u64,
    runs: usize,
    contenders: &[String],
) -> io::Result<()> {
    let mut times = vec![Vec::new(); contenders.len()];
    let mut ratios = vec![Vec::new(); contenders.len()];
    for round in 0..runs {
        for (index, kind) in contenders.iter().enumerate() {
            let plain = || run("plain", threads, load, clients, requests);
            let own = || run(kind, threads, load, clients, requests);
            // Each goes first in turn.
            let (own, plain) = match round % 2 {
                0 => {
                    let plain = plain()?;
                    (own()?, plain)
                }
                _ => (own()?, plain()?),
            };
            times[index].push(own / 1000.0);
            ratios[index].push(own / plain);
        }
    }
    for (index, kind) in contenders.iter().enumerate() {
        let (time, ratio) = (median(&mut times[index]), median(&mut ratios[index]));
        let (low, high) = (ratios[index][0], ratios[index][runs - 1]);
        let (load, threads) = (load.name, if threads == "0" { "one" } else { threads });
        println!(
            "| {threads} | {load} | {clients} | {kind} | {time:.2} | {ratio:.3} ({low:.3} – {high:.3}) |"
        );
    }
    Ok(())
}
