//! The same loop without the library, by `epoll` and `read` and on tokio, into memory of the heap:
//! what `--compare` compares with.

use std::error::Error;
use std::net::TcpStream;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::options::Options;
use crate::senders::Senders;
use crate::support::{self, mistake, say};
use crate::worker::{Work, Worker};

/// The bytes that a read asks for.
const READ_BYTES: usize = 64 << 10;

/// The figures of one run.
struct Run {
    time: Duration,
    cpu: Duration,
}

/// A core for the receiving thread, and the cores of all others.
pub struct Cores {
    receiver: CpuSet,
    others: CpuSet,
}

impl Cores {
    /// Parts the cores that the program may use. Returns `None` if there is one only.
    pub fn part() -> Option<Cores> {
        let mut others = sched_getaffinity(None).ok()?;
        let first = (0..CpuSet::MAX_CPU).find(|&core| others.is_set(core))?;
        others.unset(first);
        let mut receiver = CpuSet::new();
        receiver.set(first);
        (others.count() > 0).then_some(Cores { receiver, others })
    }

    /// Has threads that start from now on use the cores of the others.
    pub fn for_others(&self) {
        let _ = sched_setaffinity(None, &self.others);
    }

    /// Has the calling thread use the core of the receiver.
    pub fn for_receiver(&self) {
        let _ = sched_setaffinity(None, &self.receiver);
    }
}

/// A loop that receives all that comes, until each connection has ended.
type Receive = fn(Vec<TcpStream>, &Sender<Work>) -> Result<(), Box<dyn Error>>;

/// Receives what senders of its own send in each other way, compares every checksum, and tells the
/// receiving thread's time beside `cpu`, that of the library's loop.
pub fn compare(options: &Options, cpu: Duration) -> Result<(), Box<dyn Error>> {
    let ways: &[(&str, Receive)] = &[
        ("plain read", receive_by_epoll),
        #[cfg(feature = "tokio")]
        ("tokio", on_tokio::receive),
    ];
    for &(name, receive) in ways {
        let run = run(options, receive)?;
        let ratio = cpu.as_secs_f64() / run.cpu.as_secs_f64().max(1e-9);
        say!(
            "compare    {name}: {}, {}; this loop takes {ratio:.2} of its CPU",
            support::cpu_s_per_gb(options.bytes, run.cpu),
            support::rate(options.bytes, run.time)
        );
    }
    if cfg!(not(feature = "tokio")) {
        say!("compare    tokio: left out; it is built by cargo's --features tokio");
    }
    Ok(())
}

fn run(options: &Options, receive: Receive) -> Result<Run, Box<dyn Error>> {
    let (outgoing, incoming) = crate::connect_pairs(options.connections.get())?;
    let cores = Cores::part();
    cores.iter().for_each(Cores::for_others);
    let senders = Senders::start(outgoing, &options.file, options.bytes)?;
    let (queue, worker) = Worker::start();
    cores.iter().for_each(Cores::for_receiver);
    let (started, cpu_before) = (Instant::now(), support::thread_cpu());
    receive(incoming, &queue)?;
    let (time, cpu) = (started.elapsed(), support::thread_cpu() - cpu_before);
    drop(queue);
    crate::compare(&senders.finish()?, &worker.finish())?;
    Ok(Run { time, cpu })
}

fn receive_by_epoll(incoming: Vec<TcpStream>, queue: &Sender<Work>) -> Result<(), Box<dyn Error>> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    for (stream, socket) in (0..).zip(&incoming) {
        socket.set_nonblocking(true)?;
        epoll::add(&epoll, socket, EventData::new_u64(stream), EventFlags::IN)?;
    }
    let mut left = incoming.len();
    let mut events: Vec<Event> = Vec::with_capacity(256);
    while left > 0 {
        events.clear();
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Err(Errno::INTR) => continue,
            answer => drop(answer?),
        }
        for event in &events {
            let stream = event.data.u64();
            let socket = &incoming[stream as usize];
            let mut memory = Vec::with_capacity(READ_BYTES);
            match rustix::io::read(socket, rustix::buffer::spare_capacity(&mut memory)) {
                Ok(0) => {
                    epoll::delete(&epoll, socket)?;
                    left -= 1;
                }
                Ok(_) => queue.send(Work::Bytes { stream, bytes: memory.into() })?,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(mistake(format!("a connection failed: {error}"))),
            }
        }
    }
    Ok(())
}

/// The loop on tokio, with a task for each connection.
#[cfg(feature = "tokio")]
mod on_tokio {
    use std::error::Error;
    use std::io;
    use std::sync::mpsc::Sender;

    use bytes::BytesMut;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    use super::READ_BYTES;
    use crate::support::mistake;
    use crate::worker::Work;

    pub fn receive(
        incoming: Vec<std::net::TcpStream>,
        queue: &Sender<Work>,
    ) -> Result<(), Box<dyn Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for (stream, socket) in (0..).zip(incoming) {
                socket.set_nonblocking(true)?;
                let socket = TcpStream::from_std(socket)?;
                tasks.spawn(receive_one(stream, socket, queue.clone()));
            }
            while let Some(done) = tasks.join_next().await {
                done?.map_err(|error| mistake(format!("a connection failed: {error}")))?;
            }
            Ok(())
        })
    }

    async fn receive_one(
        stream: u64,
        mut socket: TcpStream,
        queue: Sender<Work>,
    ) -> io::Result<()> {
        let mut memory = BytesMut::with_capacity(READ_BYTES);
        loop {
            memory.reserve(READ_BYTES);
            if socket.read_buf(&mut memory).await? == 0 {
                return Ok(());
            }
            let bytes = memory.split().freeze();
            queue.send(Work::Bytes { stream, bytes }).map_err(io::Error::other)?;
        }
    }
}
