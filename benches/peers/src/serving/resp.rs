//! A store of Redis' protocol under `redis-benchmark`.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::thread;

use crate::measure::be_load;
use crate::report::OURS;
use crate::run::{Answer, Case, Effort, Method, Metric, Sample, Work, metric};
use crate::servers::serve_on;

/// One load.
#[derive(Clone, Debug)]
pub struct Requests {
    label: &'static str,
    /// The commands, divided by commas.
    commands: &'static str,
    value_bytes: &'static str,
    /// The threads of the clients: one is slower than the server, two are faster.
    threads: &'static str,
}

pub const CASES: [Requests; 3] = [
    Requests {
        label: "resp-50: RESP, 50 connections, 64 B, a server that waits for its clients",
        commands: "ping_mbulk,set,get",
        value_bytes: "64",
        threads: "1",
    },
    Requests {
        label: "resp-50-busy: RESP, 50 connections, 64 B, a server that is busy",
        commands: "ping_mbulk,set,get",
        value_bytes: "64",
        threads: "2",
    },
    Requests {
        label: "resp-50-long: RESP, 50 connections, SET of 100 KB",
        commands: "set",
        value_bytes: "100000",
        threads: "1",
    },
];

impl Case for Requests {
    fn label(&self) -> String {
        self.label.into()
    }

    fn metrics(&self) -> &'static [Metric] {
        const ALL: &[Metric] = &[
            metric("cpu", "the server's processor time per request", "ns", 1.0),
            metric("syscalls", "the server's system calls per request", "number", 1.0),
        ];
        ALL
    }

    fn method(&self, effort: Effort) -> Method {
        super::part::server(effort)
    }
}

pub static SERVERS: [Answer<Requests>; 2] = [
    Answer::new(
        OURS,
        "`Driver`; answers by `send`, one for all requests that came together",
        |case, _| start("driver", case),
    ),
    Answer::new("tokio", "`read_buf` into `BytesMut`, one `write_all`", |case, _| {
        start("plain", case)
    }),
];

/// Starts a server on a thread of its own. This thread starts the clients, in another process.
fn start(kind: &'static str, case: &Requests) -> io::Result<Work> {
    be_load();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (port, case) = (listener.local_addr()?.port().to_string(), case.clone());
    thread::Builder::new().name("server".into()).spawn(move || serve_on(listener, kind, "0"))?;
    Ok(Box::new(move |times| {
        // A run of the clients takes a quarter of a second at least.
        let requests = times.max(500);
        let output = Command::new("redis-benchmark")
            .args(["-p", &port, "-c", "50", "-q", "-t", case.commands, "-d", case.value_bytes])
            .args(["-n", &requests.to_string(), "--threads", case.threads])
            .output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let commands = case.commands.split(',').count() as u64;
        Ok(Sample::default().with("operations", (requests * commands) as f64))
    }))
}
