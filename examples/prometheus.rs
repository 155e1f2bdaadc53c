//! A server of metrics in the text format of Prometheus, written by hand in a few lines.
//!
//! A program adds [`exposition`] to its own HTTP server. This one has a thread that works on an
//! arena, so that the numbers move.
//!
//! ```text
//! cargo run --release --example prometheus
//! cargo run --release --example prometheus -- --listen 127.0.0.1:9200
//! curl http://127.0.0.1:9200/metrics                                     # in another shell
//! ```

mod support;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use bytes::BufMut;
use support::{CommandLine, listen, say};
use uring_arena::{FixedArena, MetricKind, Metrics};

const LINE: CommandLine = CommandLine {
    help: "\
Serves the metrics of an arena in the text format of Prometheus. Without --listen it asks itself
once, and ends.

Usage: prometheus [OPTIONS]
  --listen ADDRESS  the address to serve on, for ever",
    options: &["--listen"],
    flags: &[],
    operands: &[],
};

/// The longest head of a request that is read, in bytes.
const HEAD_MAX: u64 = 8192;

/// The time that a client may take.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    support::run(parse, |address| {
        let arena = FixedArena::new(64, 4096)?;
        let worker = arena.clone();
        thread::spawn(move || work(&worker));
        match address {
            Some(address) => {
                let listener = listen(address)?;
                say!("listening on {}", listener.local_addr()?);
                serve(&listener, &arena, usize::MAX)
            }
            None => ask_itself(&arena),
        }
    })
}

/// Parses the command line. Returns `None` if only help was asked for.
fn parse() -> Result<Option<Option<String>>, Box<dyn Error>> {
    let mut address = None;
    let given = LINE.parse(|_, value| {
        address = Some(value.to_string_lossy().into_owned());
        Ok(())
    })?;
    Ok(given.map(|_| address))
}

/// Claims and drops, for ever, as a program does.
fn work(arena: &FixedArena) {
    loop {
        let mut held = Vec::new();
        while let Ok(mut buffer) = arena.allocate() {
            buffer.put_slice(b"some bytes");
            held.push(buffer.freeze());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Serves one request on its own socket, and prints some of the answer.
fn ask_itself(arena: &FixedArena) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    client.write_all(b"GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n")?;
    serve(&listener, arena, 1)?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    let samples: Vec<&str> =
        answer.lines().filter(|line| line.starts_with("uring_arena_")).collect();
    samples.iter().for_each(|line| say!("{line}"));
    say!("verified {} samples", samples.len());
    Ok(())
}

/// Serves so many requests, one after another: a scraper comes once in some seconds.
fn serve(listener: &TcpListener, arena: &FixedArena, count: usize) -> Result<(), Box<dyn Error>> {
    for client in listener.incoming().take(count) {
        // A client that goes away, or sends nonsense, is no matter of the next one.
        if let Err(error) = client.and_then(|client| answer(client, arena)) {
            eprintln!("a client: {error}");
        }
    }
    Ok(())
}

fn answer(mut client: TcpStream, arena: &FixedArena) -> std::io::Result<()> {
    client.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    client.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut request = String::new();
    let mut head = BufReader::new(&client).take(HEAD_MAX);
    head.read_line(&mut request)?;
    let mut line = String::new();
    while head.read_line(&mut line)? > 2 {
        line.clear();
    }
    let (status, body) = match request.starts_with("GET /metrics ") {
        true => ("200 OK", exposition(&Metrics::new().with("frames", arena))),
        false => ("404 Not Found", String::from("ask for /metrics\n")),
    };
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: \
         {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// Writes metrics as Prometheus reads them: all samples of a name together, behind its help text.
fn exposition(metrics: &Metrics) -> String {
    let mut families: BTreeMap<&str, String> = BTreeMap::new();
    metrics.for_each(|labels, metric| {
        let text = families.entry(metric.name).or_insert_with(|| {
            let kind = if metric.kind == MetricKind::Counter { "counter" } else { "gauge" };
            format!("# HELP {0} {1}.\n# TYPE {0} {kind}\n", metric.name, metric.help)
        });
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let (name, labels, value) = (metric.name, labels.join(","), metric.in_base_unit());
        writeln!(text, "{name}{{{labels}}} {value}").expect("a string takes everything");
    });
    families.into_values().collect()
}

/// Escapes the value of a label.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
