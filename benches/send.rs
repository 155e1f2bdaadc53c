//! From how many bytes on a zero-copy send costs less than the copy that it saves:
//! `SendOptions::ZERO_COPY_FROM`.
//!
//! One pinned thread sends pieces of one size over TCP on loopback until 128 KiB are out, waits
//! until the kernel is done with all of them, and drains the other end. What is compared is the
//! thread's processor time, system calls and network stack included. The two ways take turns round
//! by round, and the figure is the median of the ratios of neighbouring rounds.
//!
//! **Loopback always copies**: it hands the sender's pages to a socket of the same machine, and the
//! kernel copies them there lest the receiver hold the sender's memory. So what is measured here is
//! what zero-copy *costs* (pages to count, a notification to take in) without what it saves. The
//! column `copied` is what the kernel said.
//!
//! ```text
//! cargo bench --bench send [-- ROUNDS]
//! ```

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;

use bytes::BufMut;
use rustix::time::{ClockId, clock_gettime};
use uring_arena::{ArenaBytes, Driver, Event, FileId, FixedArena, SendOptions};

/// Bytes sent in a round: what the sockets of loopback take without waiting for the reader.
const ROUND_BYTES: usize = 128 << 10;

const KIB: [usize; 5] = [4, 8, 16, 32, 64];

fn main() {
    let bench = std::env::args().any(|argument| argument == "--bench");
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next();
    let rounds = rounds.unwrap_or(if bench { 2000 } else { 5 });
    pin();
    println!(
        "{:>8} {:>12} {:>12} {:>8} {:>8}",
        "piece", "copy ns/KiB", "zc ns/KiB", "zc÷copy", "copied"
    );
    for kib in KIB {
        if let Err(error) = compare(kib << 10, rounds) {
            return println!("skipped: {error}");
        }
    }
}

fn compare(piece: usize, rounds: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut ways = [Way::new(piece, usize::MAX)?, Way::new(piece, 1)?];
    let mut spent: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for round in 0..rounds + rounds / 10 {
        // Who goes first takes turns too.
        for which in [round % 2, 1 - round % 2] {
            let nanoseconds = ways[which].round();
            if round >= rounds / 10 {
                spent[which].push(nanoseconds);
            }
        }
    }
    let ratios = spent[1].iter().zip(&spent[0]).map(|(zero_copy, copy)| zero_copy / copy).collect();
    let [copy, zero_copy] = spent.map(|times| median(times) / (ROUND_BYTES >> 10) as f64);
    let Way { copied, told, .. } = ways[1];
    println!(
        "{:>5}KiB {copy:>12.0} {zero_copy:>12.0} {:>8.2} {:>7.0}%",
        piece >> 10,
        median(ratios),
        100.0 * copied as f64 / f64::max(told as f64, 1.0)
    );
    Ok(())
}

/// One connection, and one way of sending on it.
struct Way {
    driver: Driver,
    socket: FileId,
    peer: TcpStream,
    bytes: ArenaBytes,
    options: SendOptions,
    sink: Vec<u8>,
    told: u64,
    copied: u64,
}

impl Way {
    fn new(piece: usize, zero_copy_from: usize) -> Result<Way, Box<dyn std::error::Error>> {
        let (one, slot_bytes) =
            (NonZeroUsize::MIN, NonZeroUsize::new(64 << 10).unwrap_or(NonZeroUsize::MIN));
        let arena = FixedArena::with_slot_capacity(one, slot_bytes).alignment(4096).build()?;
        let mut driver = Driver::builder().build()?;
        driver.register(&arena)?;
        let mut buffer = arena.allocate()?;
        buffer.put_bytes(0x5A, piece);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let ours = TcpStream::connect(listener.local_addr()?)?;
        let (peer, _) = listener.accept()?;
        ours.set_nodelay(true)?;
        peer.set_nonblocking(true)?;
        Ok(Way {
            socket: driver.add_file(ours)?,
            driver,
            peer,
            bytes: buffer.freeze_in_place(),
            options: SendOptions::new().zero_copy_from(zero_copy_from),
            sink: vec![0; 64 << 10],
            told: 0,
            copied: 0,
        })
    }

    /// Nanoseconds of this thread for one round.
    fn round(&mut self) -> f64 {
        let before = thread_nanoseconds();
        let pieces = ROUND_BYTES / self.bytes.len();
        for _ in 0..pieces {
            self.driver
                .send_with(self.socket, self.bytes.clone(), self.options)
                .expect("room in the table");
        }
        let (mut sent, mut drained) = (0, 0);
        while sent < pieces || drained < ROUND_BYTES {
            if sent < pieces {
                self.driver.poll_now().expect("the kernel goes on");
            }
            while let Some(event) = self.driver.next_arena_bytes() {
                let Event::Sent { result, copied, .. } = event else { panic!("{event:?}") };
                assert_eq!(result.expect("a connection"), self.bytes.len());
                sent += 1;
                self.told += u64::from(copied.is_some());
                self.copied += u64::from(copied == Some(true));
            }
            drained += self.drain();
        }
        thread_nanoseconds() - before
    }

    /// Bytes that lay ready at the other end.
    fn drain(&mut self) -> usize {
        let mut drained = 0;
        loop {
            match self.peer.read(&mut self.sink) {
                Ok(bytes) => drained += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return drained,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn thread_nanoseconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// On one processor: moves between two scatter more than what is asked.
fn pin() {
    let mut first = rustix::thread::CpuSet::new();
    first.set(0);
    let _ = rustix::thread::sched_setaffinity(None, &first);
}
