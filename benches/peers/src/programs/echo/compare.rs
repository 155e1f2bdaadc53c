//! Both servers, by turns.

use std::io;
use std::time::Instant;

use crate::harness::{
    Allocator, Child, Effort, Progress, Sample, pin_to_core, registered_buffers, serve,
    take_turns_anew,
};
use crate::report::{Bound, Comparison, Figure, OURS, Part, Row};

use super::server::{CONNECTIONS, Serve, Server};
use super::{bare, tasks};

const BARE: &str = "bare io-uring crate";

/// Ours and the other: the child's word, the name of the line, its note, and the server.
const SERVERS: [(&str, &str, &str, Serve); 2] = [
    ("tasks", OURS, "a task per connection, a slot per message", tasks::serve),
    (
        "bare",
        BARE,
        "a registered buffer per connection, used again and again; the same ring flags",
        bare::serve,
    ),
];

pub fn compare(effort: Effort, progress: &Progress, part: &mut Part) {
    let start = || {
        let start = |at: usize| match Child::start(
            &["programs", "echo", SERVERS[at].0],
            Allocator::Glibc,
        ) {
            Ok(child) => Some((at, child)),
            Err(error) => {
                progress.aloud(&format!("left out: echo by {}: {error}", SERVERS[at].1));
                None
            }
        };
        (0..SERVERS.len()).filter_map(start).collect()
    };
    let rounds = effort.choose(5, 12);
    let answers =
        take_turns_anew(effort.choose(2, 4), rounds, start, |child: &mut Child| child.run(100));
    for (what, title) in [
        ("server", "Echo: the server's processor time per message"),
        ("wall", "Echo: the round by the wall clock, per message"),
    ] {
        let rows = answers.iter().map(|(at, own)| {
            let (_, name, note, _) = SERVERS[*at];
            Row::new(name, &own.note(note), own.values(what))
        });
        part.push(Comparison::new(&format!("echo-{what}"), title, "ns", rows.collect()));
    }
    for (what, case) in [
        ("echo-wall", "echo through `custom_runtime`, the round"),
        ("echo-server", "echo through `custom_runtime`, the server's CPU"),
    ] {
        let measured = part.ratio((what, OURS), (what, BARE));
        let of = "× the same server on the bare crate";
        part.figures.push(Figure::new("Kernel side", case, Bound::AtMost(1.1), of, measured));
    }
}

/// The child's side: which server.
pub fn work(words: &[String]) -> io::Result<()> {
    pin_to_core(0);
    let unknown = || io::Error::other("no such server");
    let word = words.first().ok_or_else(unknown)?;
    let (.., server) = SERVERS.iter().find(|server| server.0 == word).ok_or_else(unknown)?;
    let mut server = Server::start(*server)?;
    for _ in 0..100 {
        server.round()?;
    }
    let registered = registered_buffers();
    serve(|rounds| {
        let begin = Instant::now();
        let stopwatch = server.stopwatch()?;
        for _ in 0..rounds {
            server.round()?;
        }
        let messages = (rounds * CONNECTIONS as u64) as f64;
        let (served, wall) = (stopwatch.elapsed(), begin.elapsed());
        Ok(Sample::default()
            .with("registered", registered)
            .with("server", served.as_nanos() as f64 / messages)
            .with("wall", wall.as_nanos() as f64 / messages))
    })
}
