//! Wakes: of a driver that waits, and of another loop that polls its event descriptor.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use uring_arena::{BufferRing, Driver, Event, Feature, Probe};

use crate::support::driver::{build, driver, finish};
use crate::support::{TIMEOUT, arena, assert_all_free, number_from_env, watched};

/// Another loop: an epoll instance with the event descriptor that a driver has registered.
struct OtherLoop {
    epoll: OwnedFd,
    event_fd: File,
    /// The loop learns of each signal, and does not read the descriptor, as tokio's reactor.
    edge_triggered: bool,
}

impl OtherLoop {
    fn new(driver: &mut Driver, edge_triggered: bool) -> OtherLoop {
        let event_fd = event_fd();
        driver.register_eventfd(&event_fd).unwrap();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let edge = if edge_triggered { epoll::EventFlags::ET } else { epoll::EventFlags::empty() };
        let data = epoll::EventData::new_u64(0);
        epoll::add(&epoll, &event_fd, data, epoll::EventFlags::IN | edge).unwrap();
        OtherLoop { epoll, event_fd, edge_triggered }
    }

    /// Takes events until the driver is idle.
    fn look(&self, driver: &mut Driver, mut on_event: impl FnMut(&mut Driver, Event)) {
        while driver.poll_now().unwrap() || !driver.is_idle() {
            while let Some(event) = driver.next() {
                on_event(driver, event);
            }
        }
    }

    /// Sleeps until the descriptor is signalled. Returns `false` if that takes longer than `time`.
    fn sleep(&self, time: Duration) -> bool {
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: EMPTY }];
        let time = Timespec::try_from(time).unwrap();
        let count = match epoll::wait(&self.epoll, &mut events, Some(&time)) {
            // A ring without deferred completions interrupts its thread for them.
            Err(rustix::io::Errno::INTR) => return true,
            count => count.unwrap(),
        };
        if count > 0 && !self.edge_triggered {
            (&self.event_fd).read_exact(&mut [0; 8]).unwrap();
        }
        count > 0
    }

    #[track_caller]
    fn sleep_until_told(&self, driver: &Driver) {
        assert!(self.sleep(TIMEOUT), "nobody was told: {driver:?} {:?}", driver.metrics());
    }
}

const EMPTY: epoll::EventData = epoll::EventData::new_u64(0);

fn event_fd() -> File {
    File::from(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap())
}

/// Reads a descriptor that does not block. Returns whether it was signalled.
fn take_signal(mut event_fd: &File) -> bool {
    event_fd.read(&mut [0; 8]).is_ok()
}

/// Returns how often the tests that prove that no wake is lost wait for one.
fn rounds(default: u64) -> u64 {
    number_from_env("URING_ARENA_WAKES", default)
}

#[test]
fn each_wake_of_a_waker_reaches_the_other_loop() {
    for (single_issuer, edge_triggered) in [(true, false), (true, true), (false, false)] {
        let Some(mut driver) = build(Driver::builder().single_issuer(single_issuer)) else {
            return;
        };
        let other = OtherLoop::new(&mut driver, edge_triggered);
        let waker = driver.waker().unwrap();
        let (go, wake) = mpsc::channel::<()>();
        let waking = thread::spawn(move || wake.iter().for_each(|()| waker.wake_by_ref()));
        other.look(&mut driver, |_, event| panic!("{event:?}"));
        for round in 0..200 {
            let before = driver.metrics().wakeups;
            go.send(()).unwrap();
            while driver.metrics().wakeups == before {
                assert!(other.sleep(TIMEOUT), "wake {round} was lost, {single_issuer}");
                other.look(&mut driver, |_, event| panic!("{event:?}"));
            }
        }
        drop(go);
        waking.join().unwrap();
    }
}

/// Makes a socket that a thread of its own writes to until it is closed.
fn endless_socket() -> (UnixStream, thread::JoinHandle<()>) {
    let (mut sender, socket) = UnixStream::pair().unwrap();
    let sending = thread::spawn(move || while sender.write_all(&[7; 64]).is_ok() {});
    (socket, sending)
}

/// A number of streams that starve for slots, in another loop.
struct Starving {
    sockets: usize,
    slots: usize,
    edge_triggered: bool,
    /// Threads that claim slots of the same arena, and free them again.
    claimants: usize,
    /// Threads that wake the driver all the time.
    wakers: usize,
}

impl Starving {
    fn streams(sockets: usize, slots: usize) -> Starving {
        Starving { sockets, slots, edge_triggered: false, claimants: 0, wakers: 0 }
    }

    /// Receives until the sockets found no slot, or the ring was woken with one, `starvations`
    /// times. Each message is held until another thread drops it.
    fn run(self, starvations: u64) {
        let Some(mut driver) = driver() else { return };
        let Starving { sockets, slots, edge_triggered, claimants, wakers } = self;
        let arena = arena(slots, 64);
        let other = OtherLoop::new(&mut driver, edge_triggered);
        let options = BufferRing::options().entries(slots);
        let ring = driver.register_buffer_ring(&arena, options).unwrap();
        let mut threads = Vec::new();
        let mut received = HashMap::new();
        for _ in 0..sockets {
            let (socket, sending) = endless_socket();
            received.insert(driver.receive(ring, socket).unwrap(), 0u64);
            threads.push(sending);
        }
        let (hold, held) = mpsc::channel::<Bytes>();
        threads.push(thread::spawn(move || held.into_iter().for_each(drop)));
        let done = Arc::new(AtomicBool::new(false));
        for _ in 0..claimants {
            let (arena, done) = (arena.clone(), Arc::clone(&done));
            threads.push(thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    drop(arena.allocate_timeout(TIMEOUT).expect("slots come back"));
                }
            }));
        }
        for _ in 0..wakers {
            let (waker, done) = (driver.waker().unwrap(), Arc::clone(&done));
            threads.push(thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    waker.wake_by_ref();
                    thread::sleep(Duration::from_micros(100));
                }
            }));
        }
        let waits = |driver: &Driver| driver.metrics().starved + driver.metrics().wakeups;
        while waits(&driver) < starvations {
            other.sleep_until_told(&driver);
            other.look(&mut driver, |_, event| {
                let Event::Received { id, bytes, .. } = event else { panic!("{event:?}") };
                *received.get_mut(&id).unwrap() += 1;
                hold.send(bytes).unwrap();
            });
        }
        let metrics = driver.metrics();
        assert!(metrics.wakeups > 0 && received.values().all(|&count| count > 0), "{received:?}");
        done.store(true, Ordering::Relaxed);
        finish(driver);
        drop(hold);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_all_free(&arena);
        eprintln!("{} starvations, {} wakes", metrics.starved, metrics.wakeups);
    }
}

#[test]
fn a_ring_that_starves_again_and_again_tells_the_other_loop() {
    watched(|| Starving::streams(1, 1).run(rounds(20_000)));
}

#[test]
fn streams_that_starve_together_tell_the_other_loop() {
    watched(|| Starving::streams(5, 2).run(rounds(20_000)));
    watched(|| Starving { edge_triggered: true, ..Starving::streams(5, 2) }.run(rounds(20_000)));
}

#[test]
fn streams_claims_and_wakers_all_get_their_wakes() {
    watched(|| {
        Starving { claimants: 2, wakers: 2, ..Starving::streams(5, 2) }.run(rounds(10_000));
    });
}

/// The ways in which a driver reads an event descriptor of the program.
#[derive(Debug, Clone, Copy)]
enum Reading {
    /// By a read that waits in the kernel.
    File,
    /// By a read that is refused, and by polling.
    FileThatDoesNotBlock,
    /// By multishot reads into a buffer ring.
    Pipe,
}

fn read_event_fds(reading: Reading, signals: usize) {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 64);
    let other = OtherLoop::new(&mut driver, false);
    let flags = match reading {
        Reading::FileThatDoesNotBlock => EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        Reading::File | Reading::Pipe => EventfdFlags::CLOEXEC,
    };
    let theirs = eventfd(0, flags).unwrap();
    let signal = File::from(theirs.try_clone().unwrap());
    let file = match reading {
        Reading::Pipe => {
            let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(2));
            driver.read_pipe(ring.unwrap(), theirs).unwrap();
            None
        }
        _ => {
            let file = driver.add_file(theirs).unwrap();
            driver.read(file, arena.allocate().unwrap(), 0).unwrap();
            Some(file)
        }
    };
    let (go, written) = mpsc::channel::<()>();
    let signalling = thread::spawn(move || {
        written.iter().for_each(|()| (&signal).write_all(&1u64.to_ne_bytes()).unwrap());
    });
    let mut seen = 0;
    other.look(&mut driver, |_, event| panic!("{event:?}"));
    for round in 0..signals {
        go.send(()).unwrap();
        while seen == round {
            assert!(other.sleep(TIMEOUT), "signal {round} was lost, {reading:?}");
            other.look(&mut driver, |driver, event| {
                let buffer = match event {
                    Event::Received { bytes, .. } => bytes,
                    Event::Read { buffer, .. } => {
                        let again = arena.allocate().unwrap();
                        driver.read(file.unwrap(), again, 0).unwrap();
                        buffer.freeze()
                    }
                    other => panic!("{other:?}"),
                };
                assert_eq!(buffer[..], 1u64.to_ne_bytes());
                seen += 1;
            });
        }
    }
    drop(go);
    signalling.join().unwrap();
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn an_event_descriptor_that_the_driver_reads_tells_the_other_loop_each_time() {
    for reading in [Reading::File, Reading::FileThatDoesNotBlock, Reading::Pipe] {
        watched(move || read_event_fds(reading, 20));
    }
}

#[test]
fn a_driver_that_reads_anothers_event_descriptor_is_told_each_time() {
    watched(|| {
        let (Some(mut driver), Some(mut source)) = (driver(), driver()) else { return };
        let arena = arena(4, 64);
        let other = OtherLoop::new(&mut driver, false);
        // What `source` completes is an event of `driver`, which tells the other loop.
        let theirs = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        source.register_eventfd(&theirs).unwrap();
        let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(2)).unwrap();
        driver.read_pipe(ring, theirs).unwrap();
        let waker = source.waker().unwrap();
        let (go, wake) = mpsc::channel::<()>();
        let waking = thread::spawn(move || wake.iter().for_each(|()| waker.wake_by_ref()));
        while source.poll_now().unwrap() || !source.is_idle() {
            assert!(source.next().is_none());
        }
        for round in 0..20 {
            other.look(&mut driver, |_, event| assert!(matches!(event, Event::Received { .. })));
            let (wakes, mut told) = (source.metrics().wakeups, false);
            go.send(()).unwrap();
            while !told || source.metrics().wakeups == wakes {
                assert!(told || other.sleep(TIMEOUT), "wake {round} was lost");
                other.look(&mut driver, |_, _| told = true);
                while source.poll_now().unwrap() || !source.is_idle() {
                    assert!(source.next().is_none());
                }
            }
        }
        drop(go);
        waking.join().unwrap();
        finish(driver);
        assert_all_free(&arena);
    });
}

#[test]
fn the_registered_event_descriptor_can_be_changed_and_taken_off() {
    let Some(mut driver) = driver() else { return };
    let (first, second) = (event_fd(), event_fd());
    let waker = driver.waker().unwrap();
    let wake = |driver: &mut Driver| {
        while driver.poll_now().unwrap() || !driver.is_idle() {
            assert!(driver.next().is_none());
        }
        take_signal(&first);
        take_signal(&second);
        waker.wake_by_ref();
        (take_signal(&first), take_signal(&second))
    };
    driver.unregister_eventfd().expect("nothing to do");
    assert_eq!(wake(&mut driver), (false, false));
    // What happened before is told at once.
    driver.register_eventfd(&first).unwrap();
    assert!(take_signal(&first));
    assert_eq!(wake(&mut driver), (true, false));
    driver.register_eventfd(&second).unwrap();
    assert!(take_signal(&second));
    assert_eq!(wake(&mut driver), (false, true));
    // What is refused changes nothing.
    let refused = driver.register_eventfd(File::open("/dev/null").unwrap()).unwrap_err();
    assert!(refused.to_string().contains("registering an event descriptor"), "{refused}");
    assert_eq!(wake(&mut driver), (false, true));
    driver.unregister_eventfd().unwrap();
    assert_eq!(wake(&mut driver), (false, false));
    driver.register_eventfd(&first).unwrap();
    assert_eq!(wake(&mut driver), (true, false));
    // The driver and the kernel need the program's descriptor no more.
    let alias = first.try_clone().unwrap();
    drop(first);
    while driver.poll_now().unwrap() || !driver.is_idle() {
        assert!(driver.next().is_none());
    }
    take_signal(&alias);
    waker.wake_by_ref();
    assert!(take_signal(&alias));
}

#[test]
fn a_driver_is_not_idle_before_it_can_be_woken_again() {
    let Some(mut driver) = driver() else { return };
    let waker = driver.waker().unwrap();
    // The ring does not poll for wakes yet.
    assert!(!driver.is_idle());
    for _ in 0..10 {
        while driver.poll_now().unwrap() || !driver.is_idle() {
            assert!(driver.next().is_none());
        }
        waker.wake_by_ref();
        assert!(driver.poll_now().unwrap());
        // Takes the wake in, and with it the poll is over.
        assert!(driver.next().is_none());
        assert!(!driver.is_idle(), "nobody would learn of another wake");
    }
}

/// Takes messages until all slots of the arena are held, and the sockets of the ring starve.
fn hold_all(driver: &mut Driver, other: &OtherLoop, slots: usize) -> Vec<Bytes> {
    let mut held = Vec::new();
    while held.len() < slots || driver.metrics().parked == 0 {
        other.look(driver, |_, event| {
            let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
            held.push(bytes);
        });
    }
    held
}

/// The kernel runs twenty pieces of deferred work in one entry that does not wait. A send that was
/// blocked and takes a further part is such a piece without a completion, and so without a signal.
#[test]
fn a_driver_is_not_idle_while_blocked_sends_can_go_on() {
    const SOCKETS: usize = 64;
    watched(|| {
        for single_issuer in [true, false] {
            let Some(mut driver) = build(Driver::builder().single_issuer(single_issuer)) else {
                return;
            };
            let other = OtherLoop::new(&mut driver, true);
            // More than is read.
            let bytes = Bytes::from(vec![7; 64 << 20]);
            let mut peers = Vec::new();
            for _ in 0..SOCKETS {
                let (peer, socket) = UnixStream::pair().unwrap();
                peer.set_nonblocking(true).unwrap();
                let socket = driver.add_file(socket).unwrap();
                driver.send(socket, bytes.clone()).unwrap();
                peers.push(peer);
            }
            other.look(&mut driver, |_, _| panic!("a send is over"));
            let mut room = vec![0; 1 << 20];
            for round in 0..3 {
                for peer in &mut peers {
                    // Less than a send, though the kernel may send on meanwhile.
                    let mut left: usize = 4 << 20;
                    while left > 0
                        && let Ok(bytes) = peer.read(&mut room)
                    {
                        left = left.saturating_sub(bytes);
                    }
                }
                let mut waiting: Vec<usize> = (0..SOCKETS).collect();
                loop {
                    other.look(&mut driver, |_, _| panic!("a send is over"));
                    waiting.retain(|&at| peers[at].read(&mut [0; 1]).is_err());
                    if waiting.is_empty() {
                        break;
                    }
                    assert!(other.sleep(TIMEOUT), "round {round}: {waiting:?} wait");
                }
            }
            drop(peers);
            while driver.metrics().in_flight > 0 {
                driver.wait_timeout(TIMEOUT).unwrap();
                while driver.next().is_some() {}
            }
            finish(driver);
        }
    });
}

#[test]
fn a_driver_is_not_idle_while_starved_sockets_can_be_armed() {
    watched(|| {
        let Some(mut driver) = driver() else { return };
        let arena = arena(8, 64);
        let other = OtherLoop::new(&mut driver, false);
        let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(8)).unwrap();
        let (greedy, sending) = endless_socket();
        let greedy = driver.receive(ring, greedy).unwrap();
        let mut held = hold_all(&mut driver, &other, 8);
        driver.close(greedy).unwrap();
        other.look(&mut driver, |_, event| assert!(matches!(event, Event::Closed { .. })));
        sending.join().unwrap();
        // Silent sockets, and one with data behind them: all of them starve.
        let mut silent = Vec::new();
        for _ in 0..16 {
            let (peer, socket) = UnixStream::pair().unwrap();
            driver.receive(ring, socket).unwrap();
            silent.push(peer);
        }
        let (mut peer, socket) = UnixStream::pair().unwrap();
        let wanted = driver.receive(ring, socket).unwrap();
        peer.write_all(b"hello").unwrap();
        other.look(&mut driver, |_, event| panic!("{event:?}"));
        assert_eq!(driver.metrics().parked, 17);
        // Two slots serve one socket after the other: the silent ones leave them ready.
        held.truncate(6);
        let mut received = false;
        while !received {
            other.sleep_until_told(&driver);
            // As an engine does: one look, the events, and sleep if there is nothing to do.
            loop {
                driver.poll_now().unwrap();
                while let Some(event) = driver.next() {
                    let Event::Received { id, bytes, .. } = event else { panic!("{event:?}") };
                    assert_eq!((id, &bytes[..]), (wanted, &b"hello"[..]));
                    received = true;
                }
                if driver.is_idle() {
                    break;
                }
            }
        }
        drop(held);
        finish(driver);
        assert_all_free(&arena);
    });
}

/// Returns whether the kernel defers completions for a driver, and says so by its flags.
fn defers() -> bool {
    let probe = Probe::new();
    probe.is_ok_and(|probe| probe.has(Feature::SingleIssuer) && probe.has(Feature::DeferTaskrun))
}

#[test]
fn a_turn_with_nothing_to_do_makes_no_system_call() {
    let Some(mut driver) = driver() else { return };
    if !defers() {
        return println!("SKIPPED: the kernel defers no completions");
    }
    let arena = arena(8, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (mut sender, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    let other = OtherLoop::new(&mut driver, false);
    other.look(&mut driver, |_, event| panic!("{event:?}"));
    while other.sleep(Duration::ZERO) {
        other.look(&mut driver, |_, event| panic!("{event:?}"));
    }
    let before = driver.metrics().enters;
    for _ in 0..1000 {
        assert!(!driver.poll_now().unwrap());
        assert!(!driver.wait_timeout(Duration::ZERO).unwrap());
    }
    assert_eq!(driver.metrics().enters, before, "nothing waited in the kernel");
    // One call for each message, though the loop looks a second time before it sleeps.
    const MESSAGES: u64 = 200;
    let mut received = 0;
    for _ in 0..MESSAGES {
        sender.write_all(b"message").unwrap();
        other.sleep_until_told(&driver);
        other.look(&mut driver, |_, event| match event {
            Event::Received { bytes, .. } => received += bytes.len(),
            event => panic!("{event:?}"),
        });
    }
    assert_eq!(received as u64, MESSAGES * b"message".len() as u64);
    let enters = driver.metrics().enters - before;
    assert!(enters < MESSAGES * 3 / 2, "{enters} calls for {MESSAGES} messages");
    finish(driver);
    assert_all_free(&arena);
}

/// The kernel runs twenty deferred completions at a time. What it leaves is told by the flag.
#[test]
fn what_an_entry_leaves_to_be_run_is_found_by_the_next_look() {
    const SOCKETS: usize = 100;
    for round in 0..20 {
        let Some(mut driver) = driver() else { return };
        let arena = arena(256, 64);
        let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
        let mut senders = Vec::new();
        for _ in 0..SOCKETS {
            let (sender, socket) = UnixStream::pair().unwrap();
            driver.receive(ring, socket).unwrap();
            senders.push(sender);
        }
        let other = OtherLoop::new(&mut driver, round % 2 == 0);
        other.look(&mut driver, |_, event| panic!("{event:?}"));
        for sender in &mut senders {
            sender.write_all(b"m").unwrap();
        }
        let mut received = 0;
        while received < SOCKETS {
            other.sleep_until_told(&driver);
            other.look(&mut driver, |_, event| match event {
                Event::Received { .. } => received += 1,
                event => panic!("{event:?}"),
            });
        }
        finish(driver);
        assert_all_free(&arena);
    }
}
