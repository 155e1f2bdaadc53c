//! Idle buffer rings give their slots back to those who wait: other rings, other drivers, tasks and
//! threads. No byte is lost, doubled or mixed, and nobody is busy for nothing.

use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::driver::{build, driver, finish, run};
use crate::support::{Random, TIMEOUT, arena, assert_all_free, pattern, tcp_pair};
use bytes::Bytes;
use uring_arena::{
    BufferRing, BufferRingId, BufferRingOptions, Driver, DriverBuilder, Event, FixedArena, SocketId,
};

/// Options of a ring that takes every slot of an arena of 8.
fn all() -> BufferRingOptions {
    BufferRing::options().entries(8)
}

fn published(driver: &Driver, ring: BufferRingId) -> usize {
    driver.ring_metrics(ring).unwrap().published
}

/// Waits for the next message; nothing else may happen.
fn next_message(driver: &mut Driver) -> (SocketId, Bytes) {
    let mut message = None;
    run(driver, |event| match event {
        Event::Received { id, bytes, .. } => {
            message = Some((id, bytes));
            true
        }
        Event::BufferRingEmpty { .. } => false,
        other => panic!("{other:?}"),
    });
    message.unwrap()
}

/// Turns a driver until `done`; nothing may happen.
fn turn_until(driver: &mut Driver, mut done: impl FnMut(&Driver) -> bool) {
    let begin = Instant::now();
    while !done(driver) {
        assert!(begin.elapsed() < TIMEOUT, "{:?}", driver.metrics());
        driver.wait_timeout(Duration::from_millis(5)).unwrap();
        while let Some(event) = driver.next() {
            assert!(matches!(event, Event::BufferRingEmpty { .. }), "{event:?}");
        }
    }
}

/// Turns a driver for some time, in which nothing may happen, and returns how often it entered the
/// kernel.
fn enters_while_idle(driver: &mut Driver, time: Duration) -> u64 {
    let (before, begin) = (driver.metrics().enters, Instant::now());
    while begin.elapsed() < time {
        let left = time.saturating_sub(begin.elapsed());
        driver.wait_timeout(left).unwrap();
        assert!(driver.next().is_none());
    }
    driver.metrics().enters - before
}

#[test]
fn a_ring_without_a_slot_says_so_and_gets_those_of_an_idle_ring() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 64);
    let first = driver.register_buffer_ring(&arena, all()).unwrap();
    let (mut sender, socket) = tcp_pair();
    let idle = driver.receive(first, socket).unwrap();
    let second = driver.register_buffer_ring(&arena, all()).unwrap();
    assert_eq!((published(&driver, first), published(&driver, second)), (8, 0));
    assert_eq!(driver.metrics().empty_rings, 1);
    driver.wait_timeout(Duration::ZERO).unwrap();
    let Some(Event::BufferRingEmpty { ring, .. }) = driver.next() else { panic!("not told") };
    assert_eq!(ring, second);
    let (mut other, socket) = tcp_pair();
    let busy = driver.receive(second, socket).unwrap();
    // By turns: each ring is idle while the other one is used.
    for round in 0..20 {
        let text = format!("round {round}");
        other.write_all(text.as_bytes()).unwrap();
        assert_eq!(next_message(&mut driver), (busy, Bytes::from(text.clone())));
        sender.write_all(text.as_bytes()).unwrap();
        assert_eq!(next_message(&mut driver), (idle, Bytes::from(text)));
    }
    assert!(driver.metrics().given_back >= 8, "{:?}", driver.metrics());
    // Nobody waits any more.
    let enters = enters_while_idle(&mut driver, Duration::from_millis(100));
    assert!(enters < 20, "{enters} calls while nothing happens: {:?}", driver.metrics());
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn one_slot_serves_two_rings_that_are_idle_by_turns() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(1, 64);
    let rings = [(); 2].map(|()| driver.register_buffer_ring(&arena, BufferRing::options()));
    let rings = rings.map(Result::unwrap);
    let (mut first, socket) = tcp_pair();
    let ids = [driver.receive(rings[0], socket).unwrap(), {
        let (second, socket) = tcp_pair();
        let id = driver.receive(rings[1], socket).unwrap();
        first.write_all(b"a").unwrap();
        assert_eq!(next_message(&mut driver).1, "a");
        let mut senders = [first, second];
        for round in 0..30 {
            let which = (round / 3) % 2;
            senders[which].write_all(&[round as u8]).unwrap();
            assert_eq!(next_message(&mut driver).1[..], [round as u8]);
        }
        // Both rings have an armed socket without data, and one slot between them.
        let enters = enters_while_idle(&mut driver, Duration::from_millis(100));
        assert!(enters < 20, "{enters} calls while nothing happens: {:?}", driver.metrics());
        // Both have data, and the slot is held for a while.
        for sender in &mut senders {
            sender.write_all(b"both").unwrap();
        }
        let (one, held) = next_message(&mut driver);
        driver.wait_timeout(Duration::from_millis(20)).unwrap();
        assert!(driver.next().is_none());
        drop(held);
        assert_ne!(next_message(&mut driver).0, one);
        id
    }];
    assert_ne!(ids[0], ids[1]);
    finish(driver);
    assert_all_free(&arena);
}

/// A driver on a thread of its own, whose ring has every slot of an arena, and sleeps.
struct IdleDriver {
    stop: std::task::Waker,
    is_stopped: &'static AtomicBool,
    thread: thread::JoinHandle<()>,
    sender: TcpStream,
    messages: mpsc::Receiver<Bytes>,
}

impl IdleDriver {
    fn start(arena: &FixedArena) -> Option<IdleDriver> {
        driver()?;
        let (sender, socket) = tcp_pair();
        let (started, start) = mpsc::channel();
        let (message, messages) = mpsc::channel();
        let is_stopped: &AtomicBool = Box::leak(Box::default());
        let arena = arena.clone();
        let thread = thread::spawn(move || {
            let mut driver = driver().unwrap();
            let ring = driver.register_buffer_ring(&arena, all()).unwrap();
            driver.receive(ring, socket).unwrap();
            started.send(driver.waker().unwrap()).unwrap();
            while !is_stopped.load(Ordering::Relaxed) {
                driver.wait().unwrap();
                while let Some(event) = driver.next() {
                    let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
                    message.send(bytes).unwrap();
                }
            }
            finish(driver);
        });
        let stop = start.recv().unwrap();
        Some(IdleDriver { stop, is_stopped, thread, sender, messages })
    }

    /// Receives a message, though others have the slots, and ends.
    fn finish(mut self) {
        self.sender.write_all(b"still here").unwrap();
        assert_eq!(self.messages.recv_timeout(TIMEOUT).unwrap(), "still here");
        self.is_stopped.store(true, Ordering::Relaxed);
        self.stop.wake();
        self.thread.join().unwrap();
    }
}

#[test]
fn a_driver_that_sleeps_gives_slots_to_another_driver() {
    let arena = arena(8, 64);
    let Some(idle) = IdleDriver::start(&arena) else { return };
    let mut driver = driver().unwrap();
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (mut sender, socket) = tcp_pair();
    driver.receive(ring, socket).unwrap();
    for round in 0..10u8 {
        sender.write_all(&[round; 64]).unwrap();
        assert_eq!(next_message(&mut driver).1[..], [round; 64]);
    }
    idle.finish();
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_driver_that_sleeps_gives_slots_to_threads() {
    let arena = arena(8, 64);
    let Some(idle) = IdleDriver::start(&arena) else { return };
    let buffer = arena.allocate_timeout(TIMEOUT).expect("an idle ring has slots");
    // One that is refused, and asks again, is served too.
    let mut held = vec![buffer];
    let begin = Instant::now();
    while held.len() < 6 {
        match arena.allocate() {
            Ok(buffer) => held.push(buffer),
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
        assert!(begin.elapsed() < TIMEOUT, "{:?}", arena.metrics());
    }
    idle.finish();
    drop(held);
    assert_all_free(&arena);
}

/// A claim that is refused, and asked again, with nobody that waits.
#[test]
fn a_driver_that_sleeps_gives_slots_to_claims_that_are_refused() {
    let arena = arena(8, 64);
    let Some(idle) = IdleDriver::start(&arena) else { return };
    let begin = Instant::now();
    let buffer = loop {
        if let Ok(buffer) = arena.allocate() {
            break buffer;
        }
        assert!(begin.elapsed() < TIMEOUT, "{:?}", arena.metrics());
        thread::sleep(Duration::from_millis(1));
    };
    drop(buffer);
    idle.finish();
    assert_all_free(&arena);
}

#[cfg(feature = "async-alloc")]
#[test]
fn a_driver_that_sleeps_gives_slots_to_tasks() {
    use futures::executor::block_on;
    use uring_arena::NotifyWaiters;

    let arena = FixedArena::with_sizes(8, 64).build_async().unwrap();
    let Some(idle) = IdleDriver::start(&arena) else { return };
    let buffer = block_on(arena.allocate_async());
    drop(buffer);
    idle.finish();
    assert_all_free(&arena);

    let notify = FixedArena::with_sizes(8, 64).build_async_with(NotifyWaiters::new(1)).unwrap();
    let Some(idle) = IdleDriver::start(&notify) else { return };
    drop(block_on(notify.allocate_async()));
    idle.finish();
    assert_all_free(&notify);

    let own =
        FixedArena::with_sizes(8, 64).build_async_with(policy::Own(NotifyWaiters::new(1))).unwrap();
    let Some(idle) = IdleDriver::start(&own) else { return };
    drop(block_on(own.allocate_async()));
    idle.finish();
    assert_all_free(&own);
}

/// A wake policy of a program's.
#[cfg(feature = "async-alloc")]
mod policy {
    use uring_arena::{NotifyRegistration, NotifyWaiters, Waiter};

    pub struct Own(pub NotifyWaiters);

    impl Waiter for Own {
        type Registration = NotifyRegistration;

        fn register(&self) -> NotifyRegistration {
            Waiter::register(&self.0)
        }

        fn wake(&self) {
            Waiter::wake(&self.0);
        }
    }
}

/// Has somebody wait until the idle rings of a driver have given their slots back, and lets go of
/// the slot.
fn press(driver: &mut Driver, arena: &FixedArena) {
    // Its rings take what is free, and the test the rest.
    driver.wait_timeout(Duration::ZERO).unwrap();
    assert!(driver.next().is_none());
    let before = driver.metrics().given_back;
    let mut free = Vec::new();
    arena.allocate_many(arena.slot_count(), |buffer| free.push(buffer));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| arena.allocate_timeout(TIMEOUT).unwrap());
        turn_until(driver, |_| waiter.is_finished());
        drop(waiter.join().unwrap());
    });
    assert!(driver.metrics().given_back > before, "{:?}", driver.metrics());
}

/// Checks that a kind of receive goes on after its ring gave its slots back. Bytes that came
/// before, while, and after are received once and in order.
fn receives_go_on(builder: DriverBuilder, options: BufferRingOptions, slot_bytes: usize) {
    let Some(mut driver) = build(builder) else { return };
    let arena = arena(8, slot_bytes);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    let (mut stream, socket) = tcp_pair();
    let stream_id = driver.receive(ring, socket).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let pipe_id = driver.read_pipe(ring, reader).unwrap();
    for round in 0..5u8 {
        for written in [&mut stream as &mut dyn Write, &mut writer] {
            written.write_all(&[round; 100]).unwrap();
        }
        let (mut from_stream, mut from_pipe) = (0, 0);
        run(&mut driver, |event| {
            let Event::Received { id, bytes, .. } = event else { panic!("{event:?}") };
            assert!(bytes.iter().all(|&byte| byte == round), "{round}: {bytes:?}");
            match id {
                id if id == stream_id => from_stream += bytes.len(),
                id if id == pipe_id => from_pipe += bytes.len(),
                other => panic!("{other:?}"),
            }
            (from_stream, from_pipe) == (100, 100)
        });
        press(&mut driver, &arena);
        assert_eq!(published(&driver, ring), 0);
    }
    // The ends come as well, though the ring has no slot.
    drop((stream, writer));
    let mut closed = Vec::new();
    run(&mut driver, |event| {
        let Event::Closed { id, error: None, .. } = event else { panic!("{event:?}") };
        closed.push(id);
        closed.len() == 2
    });
    driver.unregister_buffer_ring(ring).unwrap();
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn every_kind_of_receive_goes_on_after_its_ring_gave_back() {
    receives_go_on(Driver::builder(), all(), 64);
    receives_go_on(Driver::builder().multishot(false), all(), 64);
    receives_go_on(Driver::builder().single_issuer(false), all(), 64);
    receives_go_on(Driver::builder(), all().bundles(true), 64);
    receives_go_on(Driver::builder(), all().copy_below(1000), 64);
    receives_go_on(Driver::builder(), all().incremental(true), 256);
    receives_go_on(Driver::builder(), all().incremental(true).bundles(true), 256);
}

#[test]
fn datagrams_go_on_after_their_ring_gave_back() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 256);
    let ring = driver.register_buffer_ring(&arena, all()).unwrap();
    let (ours, theirs) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = ours.local_addr().unwrap();
    driver.receive_datagrams(ring, ours).unwrap();
    for round in 0..5u8 {
        for number in 0..3u8 {
            theirs.send_to(&[round, number], address).unwrap();
        }
        let mut number = 0;
        run(&mut driver, |event| {
            let Event::Datagram { datagram, .. } = event else { panic!("{event:?}") };
            assert_eq!(datagram.bytes[..], [round, number]);
            number += 1;
            number == 3
        });
        press(&mut driver, &arena);
    }
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn sockets_of_a_ring_that_gave_back_are_paused_resumed_and_closed() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 64);
    let ring = driver.register_buffer_ring(&arena, all().group(105)).unwrap();
    let mut pairs: Vec<_> = (0..4)
        .map(|_| {
            let (sender, socket) = UnixStream::pair().unwrap();
            (sender, driver.receive(ring, socket).unwrap())
        })
        .collect();
    driver.wait_timeout(Duration::ZERO).unwrap();
    press(&mut driver, &arena);
    // Its group is not another ring's, though the kernel does not know it now.
    assert!(driver.register_buffer_ring(&arena, all().group(105)).is_err());
    let (mut paused, paused_id) = pairs.pop().unwrap();
    driver.pause(paused_id).unwrap();
    let (_silent, closed_id) = pairs.pop().unwrap();
    driver.close(closed_id).unwrap();
    run(&mut driver, |event| {
        let Event::Closed { id, error: None, .. } = event else { panic!("{event:?}") };
        id == closed_id
    });
    paused.write_all(b"later").unwrap();
    for (sender, id) in &mut pairs {
        sender.write_all(b"now").unwrap();
        assert_eq!(next_message(&mut driver), (*id, Bytes::from_static(b"now")));
    }
    driver.wait_timeout(Duration::from_millis(10)).unwrap();
    assert!(driver.next().is_none(), "it is paused");
    driver.resume(paused_id).unwrap();
    assert_eq!(next_message(&mut driver), (paused_id, Bytes::from_static(b"later")));
    // A new socket on a ring that has no slot.
    press(&mut driver, &arena);
    let (mut sender, socket) = UnixStream::pair().unwrap();
    let id = driver.receive(ring, socket).unwrap();
    sender.write_all(b"new").unwrap();
    assert_eq!(next_message(&mut driver), (id, Bytes::from_static(b"new")));
    press(&mut driver, &arena);
    finish(driver);
    assert_all_free(&arena);
}

/// The driver ends at every point of giving back: what it has is free, and what it received stays.
#[test]
fn a_driver_may_end_while_its_rings_give_back() {
    for turns in 0..12 {
        let Some(mut driver) = driver() else { return };
        let arena = arena(8, 64);
        let ring = driver.register_buffer_ring(&arena, all()).unwrap();
        let (mut sender, socket) = tcp_pair();
        driver.receive(ring, socket).unwrap();
        sender.write_all(b"before").unwrap();
        let (_, held) = next_message(&mut driver);
        thread::sleep(Duration::from_millis(2));
        thread::scope(|scope| {
            let waiter = scope.spawn(|| arena.allocate_timeout(TIMEOUT).map(drop));
            thread::sleep(Duration::from_millis(2));
            for _ in 0..turns {
                driver.poll_now().unwrap();
                // One event a turn, at most.
                if turns % 2 == 0 {
                    assert!(driver.next().is_none());
                }
            }
            drop(driver);
            waiter.join().unwrap().unwrap();
        });
        assert_eq!(held, "before");
        drop(held);
        assert_all_free(&arena);
    }
}

/// Another loop sleeps in poll(2): it is told when a ring is to give slots back.
#[test]
fn another_loop_is_told_when_slots_are_wanted() {
    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

    let Some(mut driver) = driver() else { return };
    let event_fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    driver.register_eventfd(&event_fd).unwrap();
    let arena = arena(8, 64);
    let ring = driver.register_buffer_ring(&arena, all()).unwrap();
    let (_sender, socket) = tcp_pair();
    driver.receive(ring, socket).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            arena.allocate_timeout(TIMEOUT).map(drop)
        });
        let begin = Instant::now();
        while driver.metrics().given_back == 0 || published(&driver, ring) > 0 {
            assert!(begin.elapsed() < TIMEOUT, "{:?}", driver.metrics());
            while driver.poll_now().unwrap() || !driver.is_idle() {
                assert!(driver.next().is_none());
            }
            if published(&driver, ring) > 0 {
                let timeout = Timespec { tv_sec: TIMEOUT.as_secs() as i64, tv_nsec: 0 };
                poll(&mut [PollFd::new(&event_fd, PollFlags::IN)], Some(&timeout)).unwrap();
                let _ = rustix::io::read(&event_fd, &mut [0; 8]);
            }
        }
        waiter.join().unwrap().unwrap();
    });
    finish(driver);
    assert_all_free(&arena);
}

/// Three rings in two drivers, tasks that claim, and streams that stop and go: at every moment
/// somebody waits. Every byte arrives once and in order, and everybody is served.
#[test]
fn rings_that_take_and_give_at_random_lose_nothing() {
    const BYTES: usize = 8_000;

    if driver().is_none() {
        return;
    }
    let arena = arena(6, 64);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let drivers: Vec<_> = (0..2usize)
            .map(|number| {
                let arena = &arena;
                scope.spawn(move || {
                    let mut driver = driver().unwrap();
                    let options = [all(), BufferRing::options(), all().incremental(true)];
                    let rings: Vec<_> = options[number..]
                        .iter()
                        .map(|options| driver.register_buffer_ring(arena, *options).unwrap())
                        .collect();
                    let mut streams: Vec<(SocketId, Vec<u8>, usize)> = Vec::new();
                    let mut senders = Vec::new();
                    for stream in 0..6 {
                        let (mut sender, socket) = tcp_pair();
                        let id = driver.receive(rings[stream % rings.len()], socket).unwrap();
                        let expected = pattern(10 * number + stream, BYTES);
                        let bytes = expected.clone();
                        senders.push(thread::spawn(move || {
                            let mut random = Random::new(stream as u64);
                            let mut left = &bytes[..];
                            while !left.is_empty() {
                                let count = (1 + random.below(200) as usize).min(left.len());
                                sender.write_all(&left[..count]).unwrap();
                                left = &left[count..];
                                if random.one_in(3) {
                                    thread::sleep(Duration::from_millis(random.below(8)));
                                }
                            }
                        }));
                        streams.push((id, expected, 0));
                    }
                    let (mut open, mut held) = (streams.len(), Vec::new());
                    let mut random = Random::new(number as u64);
                    run(&mut driver, |event| {
                        match event {
                            Event::Received { id, bytes, .. } => {
                                let (_, expected, seen) =
                                    streams.iter_mut().find(|stream| stream.0 == id).unwrap();
                                assert_eq!(bytes[..], expected[*seen..*seen + bytes.len()]);
                                *seen += bytes.len();
                                held.push(bytes);
                                if random.one_in(2) || held.len() > 1 {
                                    held.clear();
                                }
                            }
                            Event::Closed { error: None, .. } => open -= 1,
                            Event::BufferRingEmpty { .. } => {}
                            other => panic!("{other:?}"),
                        }
                        // Nothing is held while there may be nothing to wait for.
                        if open == 0 {
                            held.clear();
                        }
                        open == 0
                    });
                    assert!(streams.iter().all(|(_, expected, seen)| *seen == expected.len()));
                    senders.into_iter().for_each(|sender| sender.join().unwrap());
                    let metrics = driver.metrics();
                    finish(driver);
                    metrics
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    let buffer = arena.allocate_timeout(TIMEOUT).expect("everybody is served");
                    thread::sleep(Duration::from_micros(300));
                    drop(buffer);
                    thread::sleep(Duration::from_micros(100));
                }
            });
        }
        let metrics: Vec<_> = drivers.into_iter().map(|driver| driver.join()).collect();
        is_done.store(true, Ordering::Relaxed);
        for metrics in metrics {
            let metrics = metrics.unwrap();
            eprintln!("{} given back, {} starved", metrics.given_back, metrics.starved);
        }
    });
    assert_all_free(&arena);
}
