//! The parts `resp`, `dns`, `broker` and `log`: their cases and contenders.

use std::time::Duration;

use crate::measure::is_installed;
use crate::report::Part;
use crate::run::{Amount, Effort, Method, bind};

use super::{commits, dns, fanout, resp};

const OBSERVED: &str = "\
The server has a process of its own, with the load in other threads of it or in other programs. \
Processor time is the server's thread alone, read from outside; system calls are counted by `perf \
stat` at full speed, in a turn of its own. A round takes the server half a second.";

const RESP: &str = "\
A store of Redis' protocol on two cores: PING, SET and GET of `redis-benchmark` on 50 connections, \
without pipelining, and SET of 100 KB. One thread of clients is slower than the server, which then \
sleeps between requests; two keep it busy.";

const DNS: &str = "\
`examples/dns_server` on one core, with the client: 64 questions in flight, by `sendmmsg` and \
`recvmmsg`.";

const BROKER: &str = "\
`examples/broker` on one core, with its clients: one message of 4 KiB to 1,000 subscribers, then \
the next.";

const LOG: &str = "\
`examples/log_store`: records of 4 KiB, a commit (`fdatasync`) behind 32 of them at most, past the \
page cache, to a file whose room was reserved. More records per second are better.";

/// Measures a server of which a round takes half a second of processor time.
pub(super) fn server(effort: Effort) -> Method {
    let time = Duration::from_millis(effort.choose(50, 500));
    Method { amount: Amount::Processor(time), rounds: 2, ..Method::program(effort) }
}

pub fn resp_part(effort: Effort) -> Part {
    let cases = if is_installed("redis-benchmark") { &resp::CASES[..] } else { &[] };
    let groups = cases.iter().map(|case| vec![bind(case.clone(), &resp::SERVERS, effort)]);
    with_observed("resp", "A server on the driver: RESP", RESP, groups.collect())
}

pub fn dns_part(effort: Effort) -> Part {
    let groups = vec![vec![bind(dns::DNS, &dns::SERVERS, effort)]];
    with_observed("dns", "A server on the driver: DNS", DNS, groups)
}

pub fn broker_part(effort: Effort) -> Part {
    let groups = vec![vec![bind(fanout::FANOUT, &fanout::SERVERS, effort)]];
    with_observed("broker", "A server on the driver: broker", BROKER, groups)
}

pub fn log_part(effort: Effort) -> Part {
    let groups = vec![vec![bind(commits::COMMITS, &commits::LOGS, effort)]];
    Part::new("log", "A log on the driver", LOG, groups)
}

fn with_observed(
    name: &'static str,
    title: &'static str,
    introduction: &'static str,
    groups: Vec<Vec<crate::run::Comparison>>,
) -> Part {
    let prepare = |_: &std::path::Path, _| Ok(vec![OBSERVED.to_owned()]);
    Part { prepare, ..Part::new(name, title, introduction, groups) }
}
