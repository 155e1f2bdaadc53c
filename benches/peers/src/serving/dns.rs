//! A DNS server under a client that has 64 questions in flight.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;

use crate::measure::be_load;
use crate::report::OURS;
use crate::run::{Answer, Method, Question, Sample, Work, metric, to_io_error};

use super::dns_by_hand::{self, Messages};
use super::part::server;
use super::server::Server;
use super::zone::{ANSWER_MAX, Zone, answer, wire_name};

/// The questions in flight.
pub const IN_FLIGHT: usize = 64;
const NAMES: usize = 1000;

pub const DNS: Question = Question {
    label: "dns-64: DNS, 64 questions in flight",
    metrics: &[
        metric("cpu", "the server's processor time per question", "ns", 1.0),
        metric("syscalls", "the server's system calls per question", "number", 1.0),
    ],
    method: |effort| Method { pinned: true, ..server(effort) },
};

pub static SERVERS: [Answer<Question>; 3] = [
    Answer::new(OURS, "`examples/dns_server`: `Driver`, answers by `send_to`", |_, _| {
        start(|socket| {
            let mut server = Server::new(socket, NAMES).map_err(to_io_error)?;
            loop {
                server.turn(None).map_err(to_io_error)?;
            }
        })
    }),
    Answer::new(
        "recvmmsg and sendmmsg",
        "64 messages a call; one buffer for each, used again and again",
        |_, _| start(|socket| dns_by_hand::serve(&socket, &Zone::new(NAMES))),
    ),
    Answer::new(
        "tokio `UdpSocket`",
        "current-thread runtime, `recv_from`, `send_to`; the kernel chooses the source address",
        |_, _| start(by_tokio),
    ),
];

fn by_tokio(socket: UdpSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let zone = Zone::new(NAMES);
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        let (mut question, mut bytes) = ([0; ANSWER_MAX], [0; ANSWER_MAX]);
        loop {
            let (len, from) = socket.recv_from(&mut question).await?;
            let mut room = &mut bytes[..];
            if answer(&question[..len], &zone, &mut room) {
                let len = ANSWER_MAX - room.len();
                socket.send_to(&bytes[..len], from).await?;
            }
        }
    })
}

/// Starts a server on a thread of its own. The client is this thread.
fn start(serve: fn(UdpSocket) -> io::Result<()>) -> io::Result<Work> {
    be_load();
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, socket.local_addr()?.port()));
    thread::Builder::new().name("server".into()).spawn(move || serve(socket))?;
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    client.connect(address)?;
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    let questions: Vec<Vec<u8>> = (0..NAMES).map(question).collect();
    let (mut asked, mut answers) = (Messages::new(), Messages::new());
    let mut number = 0;
    Ok(Box::new(move |times| {
        let (mut sent, mut answered) = (0, 0);
        while answered < times {
            let more = (times - sent).min(IN_FLIGHT as u64 - (sent - answered)) as usize;
            for at in 0..more {
                asked.set(at, &questions[number % NAMES]);
                number += 1;
            }
            asked.send(&client, more)?;
            sent += more as u64;
            let came = answers.receive(&client)?;
            if (0..came).any(|at| answers.bytes(at).get(3) != Some(&0)) {
                return Err(io::Error::other("an answer is wrong"));
            }
            answered += came as u64;
        }
        Ok(Sample::default().with("operations", times as f64))
    }))
}

fn question(number: usize) -> Vec<u8> {
    let mut message = (number as u16).to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(wire_name(&format!("h{number}.example.test")));
    message.extend([0, 1, 0, 1]);
    message
}
