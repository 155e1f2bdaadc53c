//! The same loop by `epoll` and `read`, into memory of the heap: what `--compare` compares with.

use std::error::Error;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::options::Options;
use crate::senders::Senders;
use crate::support::{self, mistake};
use crate::worker::{Work, Worker};

/// The bytes that a read asks for.
const READ_BYTES: usize = 64 << 10;

/// The figures of one run.
pub struct Run {
    pub time: Duration,
    pub cpu: Duration,
}

/// Receives what senders of its own send, and compares every checksum.
pub fn run(options: &Options) -> Result<Run, Box<dyn Error>> {
    let (outgoing, incoming) = crate::connect_pairs(options.connections.get())?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    for (stream, socket) in (0..).zip(&incoming) {
        socket.set_nonblocking(true)?;
        epoll::add(&epoll, socket, EventData::new_u64(stream), EventFlags::IN)?;
    }
    let senders = Senders::start(outgoing, &options.file, options.bytes)?;
    let (queue, worker) = Worker::start();
    let (started, cpu_before) = (Instant::now(), support::thread_cpu());
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
    let (time, cpu) = (started.elapsed(), support::thread_cpu() - cpu_before);
    drop(queue);
    crate::compare(&senders.finish()?, &worker.finish())?;
    Ok(Run { time, cpu })
}
