//! Peers that stop reading, reset, half-close and send errors, while files are aborted, closed and
//! cancelled on at random, and a listener that now and then finds no descriptor.
//!
//! Every operation has one event, every file is closed, and an abort gives everything back. What a
//! drain reports is what a drop quarantines. Time and random numbers as for the streams.

use std::collections::HashMap;
use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::streams::settings;
use crate::support::driver::build;
use crate::support::limits::{leave_descriptors, set_descriptors};
use crate::support::{
    Random, TIMEOUT, assert_all_free, message_pair, paged_arena, stuck_pair, tcp_pair, written,
};
use bytes::Bytes;
use rustix::net::{SendFlags, sockopt};
use uring_arena::{
    BufferRing, BufferRingId, Driver, Event, FileId, FixedArena, OperationId, SocketId,
};

/// Bytes of a slot.
const SLOT: usize = 1 << 14;

/// The number of files that are open at one time.
const FILES: usize = 12;

/// The number of messages on a connection of messages.
const MESSAGES: u8 = 5;

/// A file as the program knows it.
struct File {
    /// The far end, unless a thread reads it.
    far: Option<TcpStream>,
    clone: TcpStream,
    /// The operations whose events are to come.
    operations: Vec<OperationId>,
    is_closing: bool,
}

/// A socket that is received from.
enum Socket {
    /// The clone of a file: its end comes when the connection ends.
    Stream,
    /// A datagram socket: the program alone closes it.
    Datagrams { closed_by_us: bool },
    /// A connection of messages, and the number of messages that came.
    Messages { came: u8 },
}

/// One life of a driver.
struct Life<'a> {
    driver: Driver,
    arena: &'a FixedArena,
    ring: BufferRingId,
    random: &'a mut Random,
    files: HashMap<FileId, File>,
    sockets: HashMap<SocketId, Socket>,
    readers: Vec<JoinHandle<()>>,
    events: u64,
    listener: Option<Listener>,
    /// The times that the descriptors were few.
    shortages: u64,
}

/// A listener, and the clients that it has not accepted yet.
struct Listener {
    id: SocketId,
    address: SocketAddr,
    clients: Vec<TcpStream>,
    waiting: usize,
}

impl Life<'_> {
    /// Opens a connection: to a peer that never reads, or to one that does.
    fn open(&mut self) {
        let reads = self.random.one_in(2);
        let (near, far) = if reads { tcp_pair() } else { stuck_pair() };
        let clone = near.try_clone().unwrap();
        if self.random.one_in(3) {
            let id = self.driver.receive(self.ring, near.try_clone().unwrap()).unwrap();
            self.sockets.insert(id, Socket::Stream);
        }
        if self.random.one_in(4) {
            sockopt::set_socket_linger(&near, Some(Duration::from_secs(300))).unwrap();
        }
        let far = if reads {
            self.readers.push(std::thread::spawn(move || read_all(far)));
            None
        } else {
            Some(far)
        };
        let id = self.driver.add_file(near).unwrap();
        let file = File { far, clone, operations: Vec::new(), is_closing: false };
        assert!(self.files.insert(id, file).is_none(), "the id was given out twice");
    }

    fn any_file(&mut self) -> Option<FileId> {
        let open: Vec<FileId> = self.files.keys().copied().collect();
        (!open.is_empty()).then(|| open[self.random.below(open.len() as u64) as usize])
    }

    fn send(&mut self, id: FileId) {
        let sent = match self.random.below(4) {
            0 => self.driver.send(id, Bytes::from_static(&[7; 1 << 20])),
            1 => self.driver.send(id, Bytes::from_static(b"few")),
            _ => match self.arena.allocate() {
                Ok(buffer) => self.driver.send(id, written(buffer, &[7; SLOT])),
                Err(_) => return,
            },
        };
        let file = self.files.get_mut(&id).unwrap();
        match sent {
            Ok(operation) => file.operations.push(operation),
            Err(refused) => assert!(file.is_closing, "{refused}"),
        }
    }

    fn read(&mut self, id: FileId) {
        let Ok(buffer) = self.arena.allocate() else { return };
        let file = self.files.get_mut(&id).unwrap();
        match self.driver.read(id, buffer, 0) {
            Ok(operation) => file.operations.push(operation),
            Err(refused) => assert!(file.is_closing, "{refused}"),
        }
    }

    /// Does something to a file.
    fn act(&mut self, id: FileId) {
        let what = self.random.below(24);
        let file = self.files.get_mut(&id).unwrap();
        match what {
            0 => {
                // It may be closed already, with its event to be taken.
                assert!(self.driver.abort_file(id).is_ok() || file.is_closing);
                file.is_closing = true;
            }
            1 if !file.is_closing => {
                file.is_closing = true;
                self.driver.close_file(id).unwrap();
            }
            2 | 3 => {
                if let Some(&operation) = file.operations.last() {
                    self.driver.cancel_operation(operation).unwrap();
                }
            }
            4 => drop(file.clone.shutdown(Shutdown::Write)),
            5 => {
                if let Some(far) = file.far.take() {
                    sockopt::set_socket_linger(&far, Some(Duration::ZERO)).unwrap();
                }
            }
            6 => {
                if let Some(far) = &file.far {
                    let _ = far.shutdown(Shutdown::Write);
                }
            }
            7..10 => self.read(id),
            _ => self.send(id),
        }
    }

    /// Receives datagrams, on a socket whose peer is not there.
    fn datagrams(&mut self) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        socket.connect(nobody).unwrap();
        let clone = socket.try_clone().unwrap();
        let id = self.driver.receive_datagrams(self.ring, socket).unwrap();
        self.sockets.insert(id, Socket::Datagrams { closed_by_us: false });
        for _ in 0..self.random.below(10) {
            let _ = clone.send(b"nobody is there");
        }
    }

    /// Receives messages up to the end.
    fn messages(&mut self) {
        let (ours, theirs): (OwnedFd, OwnedFd) = message_pair();
        let id = self.driver.receive_datagrams(self.ring, ours).unwrap();
        self.sockets.insert(id, Socket::Messages { came: 0 });
        for number in 0..MESSAGES {
            rustix::net::send(&theirs, &[number], SendFlags::empty()).unwrap();
        }
    }

    /// Listens, or has some clients connect, the descriptors being few for a moment.
    fn accept(&mut self) {
        let Some(listener) = &mut self.listener else {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = socket.local_addr().unwrap();
            let id = self.driver.accept(socket).unwrap();
            self.listener = Some(Listener { id, address, clients: Vec::new(), waiting: 0 });
            return;
        };
        for _ in 0..1 + self.random.below(6) {
            listener.clients.push(TcpStream::connect(listener.address).unwrap());
            listener.waiting += 1;
        }
        let before = leave_descriptors(self.random.below(3) as usize);
        for _ in 0..self.random.below(4) {
            self.driver.wait_timeout(Duration::from_millis(1)).unwrap();
            self.take();
        }
        set_descriptors(before);
        self.shortages += 1;
    }

    /// Takes all events. Returns `true` if there were any.
    fn take(&mut self) -> bool {
        let before = self.events;
        while let Some(event) = self.driver.next() {
            self.events += 1;
            match event {
                Event::Sent { id, .. } | Event::Read { id, .. } => self.over(id),
                Event::FileClosed { id, .. } => {
                    let file = self.files.remove(&id).expect("closed once");
                    assert!(file.is_closing && file.operations.is_empty(), "closed too early");
                }
                Event::Received { id, .. } => {
                    assert!(matches!(self.sockets[&id], Socket::Stream));
                }
                Event::Datagram { id, datagram, .. } => match self.sockets.get_mut(&id).unwrap() {
                    Socket::Messages { came } => {
                        assert_eq!(datagram.bytes[..], [*came]);
                        *came += 1;
                    }
                    _ => panic!("nobody sends datagrams"),
                },
                Event::Accepted { socket, .. } => {
                    drop(socket);
                    self.listener.as_mut().expect("a listener").waiting -= 1;
                }
                Event::AcceptFailed { error, .. } => {
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
                }
                Event::Closed { id, .. }
                    if self.listener.as_ref().is_some_and(|it| it.id == id) =>
                {
                    self.listener = None;
                }
                Event::Closed { id, error, .. } => match self.sockets.remove(&id).expect("once") {
                    Socket::Stream => {}
                    Socket::Datagrams { closed_by_us } => assert!(closed_by_us, "{error:?}"),
                    Socket::Messages { came } => assert!(came == MESSAGES && error.is_none()),
                },
                other => panic!("{other:?}"),
            }
        }
        self.events > before
    }

    /// Notes that an operation is over.
    fn over(&mut self, id: OperationId) {
        let mut files = self.files.values_mut();
        let place = files.find_map(|file| {
            let at = file.operations.iter().position(|&operation| operation == id)?;
            Some((file, at))
        });
        let (file, at) = place.expect("one event for each operation");
        file.operations.swap_remove(at);
    }

    /// Aborts every file, and closes every socket. Fails if that does not end.
    fn end_all(&mut self) {
        let ids: Vec<FileId> = self.files.keys().copied().collect();
        for id in ids {
            let file = self.files.get_mut(&id).unwrap();
            assert!(self.driver.abort_file(id).is_ok() || file.is_closing);
            file.is_closing = true;
        }
        for (&id, socket) in &mut self.sockets {
            match socket {
                Socket::Datagrams { closed_by_us } => *closed_by_us = true,
                Socket::Messages { .. } => continue,
                Socket::Stream => {}
            }
            self.driver.close(id).unwrap();
        }
        let until = Instant::now() + TIMEOUT;
        // Every client is served once there are descriptors again.
        while self.listener.as_ref().is_some_and(|listener| listener.waiting > 0) {
            self.driver.wait_timeout(TIMEOUT).unwrap();
            self.take();
            assert!(Instant::now() < until, "clients wait: {:?}", self.driver.metrics());
        }
        if let Some(listener) = &self.listener {
            self.driver.close(listener.id).unwrap();
        }
        while !self.files.is_empty() || !self.sockets.is_empty() || self.listener.is_some() {
            self.driver.wait_timeout(TIMEOUT).unwrap();
            self.take();
            assert!(Instant::now() < until, "stuck: {:?}", self.driver.metrics());
        }
    }
}

fn read_all(mut far: TcpStream) {
    let mut part = [0; 5000];
    while far.read(&mut part).is_ok_and(|bytes| bytes > 0) {}
}

/// The drivers that may be dropped with sends that nobody lets go of. Each leaks its arena, as a
/// driver has to, and a soak is to end with the memory that it has.
const LOSSES_MAX: usize = 100;

fn live(arena: &FixedArena, random: &mut Random, may_lose: bool) -> Option<(u64, u64)> {
    let builder = Driver::builder().file_events(true).single_issuer(!random.one_in(3));
    let mut driver = build(builder)?;
    driver.register(arena).unwrap();
    let options = BufferRing::options().entries(1 << random.below(5));
    let ring = driver.register_buffer_ring(arena, options).unwrap();
    let (files, sockets, readers) = (HashMap::new(), HashMap::new(), Vec::new());
    let mut life = Life {
        driver,
        arena,
        ring,
        random,
        files,
        sockets,
        readers,
        events: 0,
        listener: None,
        shortages: 0,
    };
    for _ in 0..life.random.below(400) {
        match life.random.below(13) {
            0 if life.files.len() < FILES => life.open(),
            1 if life.sockets.len() < FILES => life.datagrams(),
            2 if life.sockets.len() < FILES => life.messages(),
            3 => life.accept(),
            4 => {
                life.driver.wait_timeout(Duration::from_millis(life.random.below(2))).unwrap();
                life.take();
            }
            _ => {
                if let Some(id) = life.any_file() {
                    life.act(id);
                }
            }
        }
    }
    let ends_in_order = life.random.one_in(2) || !may_lose;
    if ends_in_order {
        life.end_all();
    }
    let Life { mut driver, random, readers, events, files, shortages, .. } = life;
    let time = Duration::from_millis(random.below(3));
    let report = driver.drain(time).unwrap();
    assert_eq!((report.receives_in_flight, report.rings_left), (0, 0), "{report:?}");
    assert!(!ends_in_order || report.in_flight == 0, "{report:?}");
    drop((driver, files));
    for reader in readers {
        reader.join().unwrap();
    }
    let quarantined = arena.slot_states().quarantined;
    assert!(quarantined <= report.quarantined, "{quarantined} of {report:?}");
    let free = arena.slot_count() - quarantined;
    let mut all = Vec::new();
    arena.allocate_many(arena.slot_count(), |buffer| all.push(buffer));
    assert_eq!(all.len(), free, "slots are missing");
    Some((events, shortages))
}

/// The soak, in a process of its own for its limit of descriptors.
#[test]
fn soak() {
    crate::in_own_process("peers::helper_soak", crate::soak_time() + 5 * TIMEOUT);
}

#[test]
#[ignore = "lowers the limit of descriptors: run by another test"]
fn helper_soak() {
    let (mut random, until) = settings();
    let (mut lives, mut events, mut shortages, mut losses) = (0, 0, 0, 0);
    while Instant::now() < until {
        let arena = paged_arena(48, SLOT);
        let Some(more) = live(&arena, &mut random, losses < LOSSES_MAX) else { return };
        if arena.metrics().quarantined == 0 {
            assert_all_free(&arena);
        } else {
            losses += 1;
        }
        (lives, events, shortages) = (lives + 1, events + more.0, shortages + more.1);
    }
    eprintln!(
        "{events} events over {lives} drivers, {shortages} times few descriptors; nothing hung, \
         nothing is missing"
    );
}
