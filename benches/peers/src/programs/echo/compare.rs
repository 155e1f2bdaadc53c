//! Both servers, by turns.

use std::io;
use std::time::Instant;

use crate::harness::{Allocator, Answers, Child, Effort, Progress, Sample, pin_to_core, serve, take_turns};
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
    let mut answers: Vec<Answers> = Vec::new();
    // Started anew several times: where a process's memory comes to lie is worth some per cent.
    for _ in 0..effort.choose(2, 4) {
        let children = SERVERS.map(|(word, ..)| Child::start(&["programs", "echo", word], Allocator::Glibc));
        let mut children: Vec<Child> = match children.into_iter().collect() {
            Ok(children) => children,
            Err(error) => return progress.aloud(&format!("left out: echo: {error}")),
        };
        let later = take_turns(&mut children, effort.choose(5, 12), |child| child.run(100));
        if answers.is_empty() {
            answers = later;
        } else {
            answers.iter_mut().zip(later).for_each(|(own, later)| own.extend(later));
        }
    }
    for (what, title) in [
        ("server", "Echo: the server's processor time per message"),
        ("wall", "Echo: the round by the wall clock, per message"),
    ] {
        let rows = SERVERS.iter().zip(&answers);
        let rows = rows.map(|((_, name, note, _), own)| Row::new(name, &own.note(note), own.values(what)));
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
    serve(|rounds| {
        let begin = Instant::now();
        let stopwatch = server.stopwatch()?;
        for _ in 0..rounds {
            server.round()?;
        }
        let messages = (rounds * CONNECTIONS as u64) as f64;
        let (served, wall) = (stopwatch.elapsed(), begin.elapsed());
        Ok(Sample::default()
            .with("server", served.as_nanos() as f64 / messages)
            .with("wall", wall.as_nanos() as f64 / messages))
    })
}
