//! A broker: each message to a thousand subscribers.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::measure::be_load;
use crate::receive::allow_descriptors;
use crate::report::OURS;
use crate::run::{Answer, Method, Question, Sample, Work, metric, to_io_error};

use super::broker::Broker;
use super::part::server;

const SUBSCRIBERS: usize = 1000;
const MESSAGE_BYTES: usize = 4096;

pub const FANOUT: Question = Question {
    label: "fanout-1000: Broker, 4 KiB to 1,000 subscribers",
    metrics: &[
        metric("cpu", "the broker's processor time per delivered message", "ns", 1.0),
        metric("wall", "time per delivered message by the wall clock", "ns", 1.0),
        metric("syscalls", "the broker's system calls per delivered message", "number", 1.0),
    ],
    method: |effort| Method { pinned: true, ..server(effort) },
};

pub static SERVERS: [Answer<Question>; 2] = [
    Answer::new(OURS, "`examples/broker`: `Driver`, from the slot that it arrived in", |_, _| {
        start(|tell| {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let broker = Broker::new(any, 1024, Duration::from_secs(3600));
            let mut broker = broker.map_err(to_io_error)?;
            tell(broker.address().map_err(to_io_error)?);
            loop {
                broker.step().map_err(to_io_error)?;
            }
        })
    }),
    Answer::new(
        "tokio, cloned `Bytes`",
        "current-thread runtime; a task and a channel for each subscriber, `write_all`",
        |_, _| start(by_tokio),
    ),
];

type Topics = std::rc::Rc<std::cell::RefCell<HashMap<String, Vec<UnboundedSender<Bytes>>>>>;

fn by_tokio(tell: &dyn Fn(SocketAddr)) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        tell(listener.local_addr()?);
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let topics = Topics::default();
        loop {
            let (socket, _) = listener.accept().await?;
            tokio::task::spawn_local(client(socket, Topics::clone(&topics)));
        }
    })
}

/// Serves a client: by its first line a subscriber or a publisher.
async fn client(mut socket: tokio::net::TcpStream, topics: Topics) -> io::Result<()> {
    let mut bytes = BytesMut::with_capacity(16 << 10);
    let end = loop {
        if let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            break end;
        }
        if socket.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let line = bytes.split_to(end + 1);
    let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
    let (kind, topic) = line.split_once(' ').ok_or(io::ErrorKind::InvalidData)?;
    if kind == "SUB" {
        let (sender, mut messages) = unbounded_channel::<Bytes>();
        topics.borrow_mut().entry(topic.to_owned()).or_default().push(sender);
        while let Some(message) = messages.recv().await {
            socket.write_all(&message).await?;
        }
        return Ok(());
    }
    loop {
        while let Some(head) = bytes.first_chunk::<4>() {
            let len = 4 + u32::from_be_bytes(*head) as usize;
            if bytes.len() < len {
                break;
            }
            let message = bytes.split_to(len).freeze();
            for subscriber in topics.borrow().get(topic).into_iter().flatten() {
                // One that has gone takes nothing any more.
                let _ = subscriber.send(message.clone());
            }
        }
        bytes.reserve(16 << 10);
        if socket.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}

type Serve = fn(&dyn Fn(SocketAddr)) -> io::Result<()>;

/// Starts a broker on a thread of its own. The clients are this thread.
fn start(serve: Serve) -> io::Result<Work> {
    be_load();
    allow_descriptors(2 * SUBSCRIBERS as u64 + 64)?;
    let (tell, told) = channel();
    thread::Builder::new()
        .name("server".into())
        .spawn(move || serve(&move |address| tell.send(address).expect("it waits")))?;
    let address = told.recv().map_err(io::Error::other)?;
    let mut subscribers = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let mut subscriber = TcpStream::connect(address)?;
        subscriber.write_all(b"SUB topic\n")?;
        subscribers.push(subscriber);
    }
    let mut publisher = TcpStream::connect(address)?;
    publisher.write_all(b"PUB topic\n")?;
    // Nothing says that a subscriber is known.
    thread::sleep(Duration::from_millis(500));
    let mut message = (MESSAGE_BYTES as u32).to_be_bytes().to_vec();
    message.resize(4 + MESSAGE_BYTES, 0x5A);
    let mut came = vec![0; message.len()];
    Ok(Box::new(move |times| {
        let begin = Instant::now();
        for _ in 0..times {
            publisher.write_all(&message)?;
            for subscriber in &mut subscribers {
                subscriber.read_exact(&mut came)?;
                if came != message {
                    return Err(io::Error::other("the message is not what was published"));
                }
            }
        }
        let delivered = (times * SUBSCRIBERS as u64) as f64;
        let wall = begin.elapsed().as_nanos() as f64 / delivered;
        Ok(Sample::default().with("wall", wall).with("operations", delivered))
    }))
}
