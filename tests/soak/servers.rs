//! Servers at random: connects, sends to and fro, half-closes, timers, deadlines, silence, syncs
//! behind writes, several pieces as one, addressed datagrams, and entries of the program's.
//!
//! Each operation has one event with its token, each socket one end, after all of its sends. No
//! sync says `Ok` before the writes that it stands behind. Time and random numbers as for the
//! streams.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use io_uring::{opcode, types};
use uring_arena::{
    BufferRing, BufferRingId, Destination, Driver, DriverError, Event, FileId, FixedArena,
    OperationId, Payload, SendOptions, SocketId, SubmitError, TimerId, TransferError,
};

use crate::streams::settings;
use crate::support::driver::build;
use crate::support::{Random, TIMEOUT, TestFile, assert_all_free, paged_arena, written};

/// Bytes of a slot.
const SLOT: usize = 4096;

/// The number of sockets that are open at one time.
const SOCKETS: usize = 16;

/// The token of a socket is its number; that of an operation has this bit and a number of its own.
const OPERATION: u64 = 1 << 63;

/// A connection as the program knows it.
struct Socket {
    token: u64,
    /// The sends whose events are to come.
    sends: usize,
    is_closing: bool,
}

/// An operation of which an event is to come.
enum Open {
    Send(SocketId),
    Addressed,
    Write,
    /// A sync, and the writes that were begun before it.
    Sync(u64),
    Other,
}

/// One life of a driver.
struct Life<'a> {
    driver: Driver,
    arena: &'a FixedArena,
    ring: BufferRingId,
    random: &'a mut Random,
    address: SocketAddr,
    listener: SocketId,
    sockets: HashMap<SocketId, Socket>,
    udp: SocketId,
    udp_address: SocketAddr,
    file: FileId,
    open: HashMap<OperationId, (u64, Open)>,
    timers: HashMap<TimerId, u64>,
    /// The numbers of writes that were begun and are not over.
    writes: Vec<(OperationId, u64)>,
    begun: u64,
    tokens: u64,
    events: u64,
}

impl Life<'_> {
    fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    /// Notes an operation, with a token of its own now and then, and a deadline.
    fn note(&mut self, operation: OperationId, open: Open, token: u64) {
        let mut token = token;
        if self.random.one_in(2) {
            token = OPERATION | self.token();
            self.driver.set_token(operation, token).unwrap();
        }
        if self.random.one_in(6) {
            let at = Instant::now() + Duration::from_micros(self.random.below(3000));
            self.driver.set_deadline(operation, at).unwrap();
        }
        assert!(self.open.insert(operation, (token, open)).is_none(), "the id was given out twice");
    }

    fn connect(&mut self) {
        let token = self.token();
        let id = self.driver.connect(self.ring, self.address, token).unwrap();
        self.opened(id, token);
        if self.random.one_in(8) {
            let at = Instant::now() + Duration::from_micros(self.random.below(500));
            self.driver.set_connect_deadline(id, at).unwrap();
        }
    }

    fn opened(&mut self, id: SocketId, token: u64) {
        if self.random.one_in(3) {
            let time = Duration::from_millis(1 + self.random.below(20));
            self.driver.set_idle_timeout(id, Some(time)).unwrap();
        }
        if self.random.one_in(3) {
            self.driver.set_half_open(id, true).unwrap();
        }
        let socket = Socket { token, sends: 0, is_closing: false };
        assert!(self.sockets.insert(id, socket).is_none(), "the id was given out twice");
    }

    fn any_socket(&mut self) -> Option<SocketId> {
        let ids: Vec<SocketId> = self.sockets.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[self.random.below(ids.len() as u64) as usize])
    }

    fn payload(&mut self) -> Payload {
        let len = 1 + self.random.below(SLOT as u64) as usize;
        match self.arena.allocate() {
            Ok(buffer) if self.random.one_in(2) => written(buffer, &vec![7; len]).into(),
            _ => Bytes::from(vec![7; len]).into(),
        }
    }

    fn act_on_socket(&mut self, id: SocketId) {
        let Socket { token, is_closing, .. } = self.sockets[&id];
        let what = self.random.below(20);
        let answer = match what {
            0 => self.driver.close(id),
            1 => self.driver.abort(id),
            2 => self.driver.pause(id),
            3 => self.driver.resume(id),
            4 => match self.driver.shutdown_write(id) {
                Ok(operation) => {
                    self.sockets.get_mut(&id).unwrap().sends += 1;
                    return self.note(operation, Open::Send(id), token);
                }
                Err(error) => return assert_eq!(error, DriverError::SocketEnded),
            },
            _ => return self.send(id, what, token, is_closing),
        };
        answer.unwrap();
        self.sockets.get_mut(&id).unwrap().is_closing |= what < 2;
    }

    fn send(&mut self, id: SocketId, what: u64, token: u64, is_closing: bool) {
        let first = self.payload();
        let sent = match what {
            5..8 => {
                let pieces = [first, self.payload()];
                let sent = self.driver.send_vectored(id, pieces, SendOptions::new());
                sent.map_err(|refused| refused.error)
            }
            8 => {
                // Long enough to come short, and to be torn.
                let long = Bytes::from(vec![7; 1 << 20]);
                self.driver.send(id, long).map_err(|refused| refused.error)
            }
            _ => self.driver.send(id, first).map_err(|refused| refused.error),
        };
        match sent {
            Ok(operation) => {
                assert!(!is_closing, "it is sent on no more");
                self.sockets.get_mut(&id).unwrap().sends += 1;
                self.note(operation, Open::Send(id), token);
            }
            Err(error) => {
                assert_eq!(error, TransferError::Driver(DriverError::SocketEnded));
            }
        }
    }

    fn act_on_file(&mut self) {
        let offset = self.random.below(1 << 16);
        let what = self.random.below(7);
        if what < 2 {
            let sync = match what {
                0 => self.driver.sync_data(self.file).unwrap(),
                _ => self.driver.sync_all(self.file).unwrap(),
            };
            return self.note(sync, Open::Sync(self.begun), 0);
        }
        let first = self.payload();
        let begun = match what {
            2 => {
                let (file, slot) = (self.file, self.arena.allocate());
                let Ok(slot) = slot else { return };
                let read = self.driver.read_vectored(file, vec![slot], offset).map_err(error_of);
                return self.note(read.unwrap(), Open::Other, 0);
            }
            3 => {
                let allocation = self.driver.allocate(self.file, offset, SLOT as u64).unwrap();
                return self.note(allocation, Open::Other, 0);
            }
            4 => {
                let pieces = [first, self.payload()];
                self.driver.write_vectored(self.file, pieces, offset).map_err(error_of)
            }
            _ => self.driver.write(self.file, first, offset).map_err(error_of),
        };
        let write = begun.unwrap();
        self.begun += 1;
        self.writes.push((write, self.begun));
        self.note(write, Open::Write, 0);
    }

    fn act(&mut self) {
        match self.random.below(12) {
            0 if self.sockets.len() < SOCKETS => self.connect(),
            1 => {
                let token = self.token();
                let at = Instant::now() + Duration::from_micros(self.random.below(2000));
                let id = self.driver.timer(at, token).unwrap();
                let other = self.timers.insert(id, token);
                assert!(
                    other.is_none()
                        && !self.timers.keys().any(|it| { *it != id && it.index() == id.index() })
                );
            }
            2 => {
                let any = self.timers.keys().next().copied();
                if let Some(id) = any
                    && self.driver.cancel_timer(id).is_ok()
                {
                    self.timers.remove(&id);
                }
            }
            3 => {
                let to = Destination::from(self.udp_address).ecn(self.random.below(4) as u8);
                let bytes = self.payload();
                let sent = self.driver.send_to(self.udp, bytes, to).map_err(error_of).unwrap();
                self.note(sent, Open::Addressed, 0);
            }
            4 => {
                let (token, nop) = (OPERATION | self.token(), opcode::Nop::new().build());
                let udp = self.driver.socket(self.udp).unwrap().as_raw_fd();
                let poll = opcode::PollAdd::new(types::Fd(udp), libc::POLLPRI as u32).build();
                let entry = if self.random.one_in(2) { nop } else { poll };
                // SAFETY: the entry names a socket that the driver keeps.
                let pushed = unsafe { self.driver.push(entry, token) }.unwrap();
                self.open.insert(pushed, (token, Open::Other));
            }
            5 => {
                let any = self.open.keys().next().copied();
                any.into_iter().for_each(|id| self.driver.cancel_operation(id).unwrap());
            }
            6 | 7 => self.act_on_file(),
            8 => {
                self.driver.wait_timeout(Duration::from_millis(self.random.below(2))).unwrap();
                self.take();
            }
            _ => {
                if let Some(id) = self.any_socket() {
                    self.act_on_socket(id);
                }
            }
        }
    }

    /// Notes the end of an operation.
    fn over(&mut self, id: OperationId, token: u64, is_ok: bool) {
        let (expected, open) = self.open.remove(&id).expect("one event for each operation");
        assert_eq!(token, expected);
        match open {
            Open::Send(socket) => {
                self.sockets.get_mut(&socket).expect("a send ends before its socket").sends -= 1;
            }
            Open::Write => self.writes.retain(|(write, _)| *write != id),
            Open::Sync(before) if is_ok => {
                let waits = self.writes.iter().filter(|(_, number)| *number <= before).count();
                assert_eq!(waits, 0, "durable, and not over");
            }
            Open::Sync(_) | Open::Addressed | Open::Other => {}
        }
    }

    /// Takes all events. Returns `true` if there were any.
    fn take(&mut self) -> bool {
        let before = self.events;
        while let Some(event) = self.driver.next() {
            self.events += 1;
            match event {
                Event::Accepted { id, socket, .. } => {
                    assert!(id == self.listener);
                    let token = self.token();
                    let id = self.driver.receive_with(self.ring, socket, token).unwrap();
                    self.opened(id, token);
                }
                Event::Connected { id, token, .. } => assert_eq!(self.sockets[&id].token, token),
                Event::Received { id, token, bytes, .. } => {
                    assert_eq!(self.sockets[&id].token, token);
                    assert!(bytes.iter().all(|&byte| byte == 7));
                }
                Event::Idle { id, token, .. } | Event::Finished { id, token, .. } => {
                    assert_eq!(self.sockets[&id].token, token);
                    if self.random.one_in(2) && self.driver.close(id).is_ok() {
                        self.sockets.get_mut(&id).unwrap().is_closing = true;
                    }
                }
                Event::Closed { id, token, .. } => {
                    let socket = self.sockets.remove(&id).expect("closed once");
                    assert_eq!((socket.token, socket.sends), (token, 0), "its sends are over");
                }
                Event::Datagram { id, datagram, .. } => {
                    assert!(id == self.udp && datagram.bytes.iter().all(|&byte| byte == 7));
                }
                Event::Timer { id, token, .. } => {
                    assert_eq!(self.timers.remove(&id), Some(token), "once, and not cancelled");
                }
                Event::Completed { id, token, result, .. } => self.over(id, token, result >= 0),
                Event::Sent { id, token, result, .. } => self.over(id, token, result.is_ok()),
                Event::SentVectored { id, token, result, .. } => {
                    self.over(id, token, result.is_ok());
                }
                Event::Wrote { id, token, result, .. } => self.over(id, token, result.is_ok()),
                Event::WroteVectored { id, token, result, .. } => {
                    self.over(id, token, result.is_ok());
                }
                Event::ReadVectored { id, token, result, .. } => {
                    self.over(id, token, result.is_ok());
                }
                Event::Done { id, token, result, .. } => self.over(id, token, result.is_ok()),
                other => panic!("{other:?}"),
            }
        }
        self.events > before
    }

    /// Ends everything in order. Fails if that does not end.
    fn end_all(&mut self) {
        let until = Instant::now() + TIMEOUT;
        while !self.sockets.is_empty() || !self.open.is_empty() || !self.timers.is_empty() {
            let ids: Vec<SocketId> = self.sockets.keys().copied().collect();
            for id in ids {
                // A close waits for peers that are paused, or read nothing.
                self.driver.abort(id).unwrap();
                self.sockets.get_mut(&id).unwrap().is_closing = true;
            }
            let ids: Vec<OperationId> = self.open.keys().copied().collect();
            ids.into_iter().for_each(|id| self.driver.cancel_operation(id).unwrap());
            self.driver.wait_timeout(Duration::from_millis(50)).unwrap();
            self.take();
            assert!(Instant::now() < until, "stuck: {:?}", self.driver.metrics());
        }
    }
}

fn error_of<M>(refused: SubmitError<M>) -> TransferError {
    refused.error
}

fn live(arena: &FixedArena, random: &mut Random, path: &TestFile) -> Option<u64> {
    let mut driver = build(Driver::builder().single_issuer(!random.one_in(3)))?;
    if random.one_in(2) {
        driver.register(arena).unwrap();
    }
    let options = BufferRing::options().entries(1 << random.below(5)).datagram_details(true);
    let ring = driver.register_buffer_ring(arena, options).unwrap();
    let listener = driver.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 0).unwrap();
    let socket = driver.socket(listener).unwrap().try_clone_to_owned().unwrap();
    let address = TcpListener::from(socket).local_addr().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp_address = udp.local_addr().unwrap();
    let udp = driver.receive_datagrams(ring, udp).unwrap();
    let file = driver.add_file(path.open()).unwrap();
    let mut life = Life {
        driver,
        arena,
        ring,
        random,
        address,
        listener,
        sockets: HashMap::new(),
        udp,
        udp_address,
        file,
        open: HashMap::new(),
        timers: HashMap::new(),
        writes: Vec::new(),
        begun: 0,
        tokens: 0,
        events: 0,
    };
    for _ in 0..life.random.below(400) {
        life.act();
    }
    if life.random.one_in(2) {
        life.end_all();
    }
    let Life { mut driver, events, random, .. } = life;
    if random.one_in(3) {
        let report = driver.drain(TIMEOUT).unwrap();
        assert_eq!((report.in_flight, report.tokens_left.len()), (0, 0), "{report:?}");
    }
    Some(events)
}

#[test]
fn soak() {
    crate::in_own_process("servers::helper_soak", crate::soak_time() + 5 * TIMEOUT);
}

#[test]
#[ignore = "hangs if it fails: run by another test"]
fn helper_soak() {
    let (mut random, until) = settings();
    let path = TestFile::new("soak-servers", &[]);
    let (mut lives, mut events) = (0, 0);
    while Instant::now() < until {
        let arena = paged_arena(48, SLOT);
        let Some(more) = live(&arena, &mut random, &path) else { return };
        assert_all_free(&arena);
        (lives, events) = (lives + 1, events + more);
    }
    let mut head = [0; 1];
    let read = path.open().read(&mut head).unwrap();
    assert!(read == 0 || head == [7] || head == [0]);
    eprintln!("{events} events over {lives} drivers; nothing hung, nothing is missing");
}
