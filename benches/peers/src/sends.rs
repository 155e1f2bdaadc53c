//! From how many bytes on a zero-copy send costs less than the copy that it saves:
//! `SendOptions::ZERO_COPY_FROM`.
//!
//! **Loopback always copies**: the sender's pages go to a socket of the same machine, and the
//! kernel copies them there lest the receiver hold the sender's memory. So this is what zero-copy
//! *costs* (pages to count, a notification to take in) without what it saves.

use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::BufMut;
use uring_arena::{ArenaBytes, Driver, Event, FileId, FixedArena, SendOptions};

use crate::measure::Stopwatch;
use crate::report::Part;
use crate::run::{Amount, Answer, Case, Effort, Method, Metric, Sample, Work, bind, metric};

const INTRODUCTION: &str = "\
One pinned thread sends pieces of one size over TCP on loopback until 128 KiB are out, waits until \
the kernel is done with all of them, and drains the other end. Compared is the thread's processor \
time, system calls and network stack included. Loopback always copies, so this is what zero-copy \
costs without what it saves.";

/// The number of bytes that the sockets of loopback take without waiting for the reader.
const PASS_BYTES: usize = 128 << 10;

pub fn part(effort: Effort) -> Part {
    let pieces = [4, 8, 16, 32, 64].map(|kib| vec![bind(Piece { kib }, &WAYS, effort)]);
    Part::new("send", "Sending", INTRODUCTION, pieces.into())
}

#[derive(Clone)]
struct Piece {
    kib: usize,
}

impl Case for Piece {
    fn label(&self) -> String {
        format!("send-{0}: Pieces of {0} KiB", self.kib)
    }

    fn metrics(&self) -> &'static [Metric] {
        const ALL: &[Metric] = &[
            metric("cpu", "CPU per KiB", "ns", 1.0),
            metric("copied", "share of zero-copy sends that the kernel copied", "%", 100.0),
        ];
        ALL
    }

    fn method(&self, effort: Effort) -> Method {
        let share = Duration::from_millis(effort.choose(2, 8));
        Method::rounds(1, effort.choose(9, 41), Amount::Wall(share))
    }
}

static WAYS: [Answer<Piece>; 2] = [
    Answer::new("uring-arena, zero-copy", "`zero_copy_from(1)`", |piece, _| start(piece, 1)),
    Answer::new("uring-arena, copied", "`zero_copy_from(usize::MAX)`", |piece, _| {
        start(piece, usize::MAX)
    }),
];

/// One connection, and one way of sending on it.
struct Way {
    driver: Driver,
    socket: FileId,
    peer: TcpStream,
    bytes: ArenaBytes,
    options: SendOptions,
    sink: Vec<u8>,
    /// The number of notifications, and of copies among the sends that they are about.
    reported: u64,
    copied: u64,
}

fn start(piece: &Piece, zero_copy_from: usize) -> io::Result<Work> {
    let size = NonZeroUsize::new(64 << 10).ok_or(ErrorKind::InvalidInput)?;
    let builder = FixedArena::with_slot_capacity(NonZeroUsize::MIN, size).alignment(4096);
    let arena = builder.build().map_err(io::Error::other)?;
    let mut driver = Driver::builder().build().map_err(io::Error::other)?;
    driver.register(&arena).map_err(io::Error::other)?;
    let mut buffer = arena.allocate().map_err(io::Error::other)?;
    buffer.put_bytes(0x5A, piece.kib << 10);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let (peer, _) = listener.accept()?;
    ours.set_nodelay(true)?;
    peer.set_nonblocking(true)?;
    let mut way = Way {
        socket: driver.add_file(ours).map_err(io::Error::other)?,
        driver,
        peer,
        bytes: buffer.freeze_in_place(),
        options: SendOptions::new().zero_copy_from(zero_copy_from),
        sink: vec![0; 64 << 10],
        reported: 0,
        copied: 0,
    };
    Ok(Box::new(move |times| {
        (way.reported, way.copied) = (0, 0);
        let begin = Stopwatch::thread();
        (0..times).try_for_each(|_| way.pass())?;
        let kib = (times * (PASS_BYTES >> 10) as u64) as f64;
        let sample = Sample::default().with("cpu", begin.elapsed().as_nanos() as f64 / kib);
        // Not a number where no send was zero-copy.
        Ok(sample.with("copied", way.copied as f64 / way.reported as f64))
    }))
}

impl Way {
    /// Sends until all bytes are out, and drains the other end.
    fn pass(&mut self) -> io::Result<()> {
        let pieces = PASS_BYTES / self.bytes.len();
        for _ in 0..pieces {
            let sent = self.driver.send_with(self.socket, self.bytes.clone(), self.options);
            sent.map_err(|refused| io::Error::other(refused.error))?;
        }
        let (mut sent, mut drained) = (0, 0);
        while sent < pieces || drained < PASS_BYTES {
            if sent < pieces {
                self.driver.poll_now().map_err(io::Error::other)?;
            }
            while let Some(event) = self.driver.next_arena_bytes() {
                let Event::Sent { result, copied, .. } = event else { continue };
                assert_eq!(result?, self.bytes.len());
                sent += 1;
                self.reported += u64::from(copied.is_some());
                self.copied += u64::from(copied == Some(true));
            }
            drained += self.drain()?;
        }
        Ok(())
    }

    /// Takes the bytes that lie ready at the other end; returns their number.
    fn drain(&mut self) -> io::Result<usize> {
        let mut drained = 0;
        loop {
            match self.peer.read(&mut self.sink) {
                Ok(bytes) => drained += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(drained),
                Err(error) => return Err(error),
            }
        }
    }
}
