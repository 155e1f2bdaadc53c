//! The program's own clients: subscribers that check every byte, and a publisher.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use uring_arena::{BufferRing, Driver, Event, FixedArena, SendOptions, SocketId};

use crate::broker::{Broker, SLOT_BYTES, behind_max};
use crate::options::Options;
use crate::support::{self, Checksum, check_all_free, fill_random, mistake, say};

/// Runs broker and clients, and compares what each subscriber got.
pub fn verify(options: &Options) -> Result<(), Box<dyn Error>> {
    let subscribers = options.subscribers.get();
    support::need_descriptors(2 * subscribers as u64 + 64)?;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut broker = Broker::new(any, options.slots.get(), options.idle)?;
    let address = broker.address()?;
    let (messages, bytes) = (options.messages.get(), options.bytes.get());
    let behind = behind_max(options.slots.get()) as u64;
    let (begin, may_begin) = channel();
    let clients = std::thread::spawn(move || {
        Clients::run(address, subscribers, (messages, bytes), behind, &may_begin)
            .map_err(|error| error.to_string())
    });
    while broker.subscribers() < subscribers && !clients.is_finished() {
        broker.step()?.into_iter().for_each(|told| say!("{told}"));
    }
    let (started, cpu, before) = (Instant::now(), support::thread_cpu(), broker.driver.metrics());
    begin.send(())?;
    let expected = (subscribers * messages) as u64;
    while broker.tally.delivered < expected && !clients.is_finished() {
        broker.step()?.into_iter().for_each(|told| say!("{told}"));
    }
    let (time, cpu, after) =
        (started.elapsed(), support::thread_cpu() - cpu, broker.driver.metrics());
    let answer = clients.join().map_err(|_| mistake("the clients failed"))?;
    answer.map_err(mistake)?;
    let total = expected * (bytes as u64 + 4);
    say!("delivered  {:.0} a second", expected as f64 / time.as_secs_f64());
    say!("rate       {}", support::rate(total, time));
    say!("CPU        {}", support::cpu_per_gb(total, cpu, "broker"));
    let calls = (after.enters - before.enters) as f64 / expected as f64;
    say!("calls      {calls:.3} system calls a delivered message");
    say!("copied     {} received messages", after.copied);
    let drained = broker.driver.drain(Duration::from_secs(10))?;
    check_all_free(&broker.arena, drained.in_flight)?;
    say!("verified {expected} messages, the same {messages} to {subscribers} subscribers");
    Ok(())
}

struct Clients {
    driver: Driver,
    subscribers: Vec<Checksum>,
    publisher: SocketId,
    message: Vec<u8>,
    published: Checksum,
    /// The bytes that all subscribers have got.
    got: u64,
}

impl Clients {
    fn run(
        broker: SocketAddr,
        subscribers: usize,
        (messages, bytes): (usize, usize),
        behind: u64,
        may_begin: &Receiver<()>,
    ) -> Result<(), Box<dyn Error>> {
        let arena = FixedArena::new(1024, SLOT_BYTES)?;
        let mut driver = Driver::builder().operations(2 * subscribers + 64).build()?;
        let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
        for token in 0..subscribers {
            let id = driver.connect(ring, broker, token as u64)?;
            driver.send(id, Bytes::from_static(b"SUB topic\n"))?;
        }
        let publisher = driver.connect(ring, broker, subscribers as u64)?;
        driver.send(publisher, Bytes::from_static(b"PUB topic\n"))?;
        let mut clients = Clients {
            driver,
            subscribers: vec![Checksum::default(); subscribers],
            publisher,
            message: vec![0; bytes.next_multiple_of(8)],
            published: Checksum::default(),
            got: 0,
        };
        let mut sent = 0;
        while sent <= subscribers {
            sent += usize::from(clients.step()?);
        }
        may_begin.recv()?;
        let mut state = 1;
        for _ in 0..messages {
            // Nobody falls so far behind that it misses a message.
            let (all, len) = (subscribers as u64, bytes as u64 + 4);
            while clients.published.bytes * all - clients.got > behind.min(all * len / 2) {
                clients.step()?;
            }
            clients.publish(&mut state, bytes)?;
        }
        while clients.got < clients.published.bytes * subscribers as u64 {
            clients.step()?;
        }
        let is_wrong = |got: &Checksum| *got != clients.published;
        match clients.subscribers.iter().position(is_wrong) {
            None => Ok(()),
            Some(number) => Err(mistake(format!(
                "subscriber {number} got {}, published were {}",
                clients.subscribers[number], clients.published
            ))),
        }
    }

    fn publish(&mut self, state: &mut u64, bytes: usize) -> Result<(), Box<dyn Error>> {
        fill_random(state, &mut self.message);
        let head = Bytes::copy_from_slice(&(bytes as u32).to_be_bytes());
        let body = Bytes::copy_from_slice(&self.message[..bytes]);
        self.published.append(&head);
        self.published.append(&body);
        self.driver.send_vectored(self.publisher, [head, body], SendOptions::new())?;
        Ok(())
    }

    /// Handles an event. Returns `true` if one of the first lines went out.
    fn step(&mut self) -> Result<bool, Box<dyn Error>> {
        match self.driver.wait_event()? {
            Event::Received { token, bytes, .. } => {
                self.subscribers[token as usize].append(&bytes);
                self.got += bytes.len() as u64;
            }
            Event::Sent { result, .. } => {
                result?;
                return Ok(true);
            }
            Event::SentVectored { result, .. } => drop(result?),
            Event::Closed { error, .. } => {
                let reason = error.map_or("by the broker".into(), |error| error.to_string());
                return Err(mistake(format!("a connection was closed: {reason}")));
            }
            _ => {}
        }
        Ok(false)
    }
}
