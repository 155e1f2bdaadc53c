//! The server of metrics, scraped as Prometheus does.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::TIMEOUT;
use crate::support::examples::Program;

/// Asks for a page. Returns its status and its body.
fn get(address: &str, path: &str) -> (String, String) {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    write!(client, "GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: */*\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.lines().next().unwrap().to_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), body.len());
    (status, body.to_owned())
}

/// Reads the text format: each sample behind the help and the type of its name, which come once.
fn samples(body: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut described: Vec<(String, Option<String>)> = Vec::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty());
            assert!(described.iter().all(|(known, _)| known != name), "{name} comes twice");
            described.push((name.to_owned(), None));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let last = described.last_mut().unwrap();
            assert!(last.0 == name && ["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            last.1 = Some(kind.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let (last, kind) = described.last().unwrap();
            assert!(last == name && kind.is_some(), "{line} stands behind {last}");
            assert!(series.ends_with('}') && series.contains("arena=\"frames\""), "{line}");
            samples.insert(name.to_owned(), value.parse().unwrap());
        }
    }
    samples
}

#[test]
fn it_is_scraped_twice_and_its_counters_go_on() {
    let mut program = Program::start("prometheus", &["--listen", "127.0.0.1:0"]);
    let address = program.line("listening on ");
    let (status, body) = get(&address, "/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let first = samples(&body);
    assert_eq!(first["uring_arena_reserved_bytes"], 64.0 * 4096.0);
    // The thread that works fills the arena again and again.
    let last = loop {
        let last = samples(&get(&address, "/metrics").1);
        assert!(program.is_running());
        if last["uring_arena_refusals_total"] > first["uring_arena_refusals_total"] {
            break last;
        }
    };
    assert!(last["uring_arena_claims_total"] > first["uring_arena_claims_total"]);
    assert_eq!(last["uring_arena_live_max_bytes"], 64.0 * 4096.0);
    assert_eq!(last.len(), first.len());
    assert_eq!(get(&address, "/other").0, "HTTP/1.1 404 Not Found");
    // A client that leaves is no matter of the next one.
    drop(TcpStream::connect(&address).unwrap());
    assert_eq!(get(&address, "/metrics").0, "HTTP/1.1 200 OK");
}
