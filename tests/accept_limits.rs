//! Accepting without descriptors left: the listener stays, and goes on when there are some.
//!
//! This is a process of its own: the limit of open files holds for all of a process. Its tests take
//! turns.
#![cfg(target_os = "linux")]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use support::driver::{build, driver, finish, run};
use support::limits::FewDescriptors;
use support::{TIMEOUT, arena, assert_all_free};
use uring_arena::{BufferRing, Driver, Event, Feature, Probe, SocketId};

/// Waits for the turn of a test.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a listener, and clients that wait to be accepted.
fn listener(clients: usize) -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let clients = (0..clients).map(|_| TcpStream::connect(address).unwrap()).collect();
    (listener, clients)
}

/// Takes events until the listener fails; returns what was accepted before.
fn accept_until_it_fails(driver: &mut Driver, listener: SocketId) -> Vec<OwnedFd> {
    let mut accepted = Vec::new();
    run(driver, |event| match event {
        Event::Accepted { socket, .. } => {
            accepted.push(socket);
            false
        }
        Event::AcceptFailed { id, error, .. } => {
            assert_eq!((id, error.raw_os_error()), (listener, Some(libc::EMFILE)));
            true
        }
        other => panic!("{other:?}"),
    });
    accepted
}

/// Accepts so many connections; nothing else may happen.
fn accept(driver: &mut Driver, count: usize) -> Vec<OwnedFd> {
    let mut accepted = Vec::new();
    run(driver, |event| {
        let Event::Accepted { socket, .. } = event else { panic!("{event:?}") };
        accepted.push(socket);
        accepted.len() == count
    });
    accepted
}

fn peers(sockets: Vec<OwnedFd>) -> Vec<SocketAddr> {
    let mut peers: Vec<_> =
        sockets.into_iter().map(|socket| TcpStream::from(socket).peer_addr().unwrap()).collect();
    peers.sort_unstable();
    peers
}

#[test]
fn a_listener_outlives_a_lack_of_descriptors_and_accepts_everybody() {
    let _turn = turn();
    let Ok(probe) = Probe::shared() else { return };
    for probe in [probe, probe.without(Feature::AcceptMultishot)] {
        let mut few = FewDescriptors::new();
        let Some(mut driver) = build(Driver::builder().probe(probe)) else { return };
        let (listener, clients) = listener(6);
        let address = listener.local_addr().unwrap();
        few.take_all_but(2);
        let id = driver.accept(listener).unwrap();
        let mut accepted = accept_until_it_fails(&mut driver, id);
        assert_eq!(accepted.len(), 2);
        // It tries again and again, but rarely, and tells nothing more.
        let (metrics, begin) = (driver.metrics(), Instant::now());
        while driver.metrics().retries < metrics.retries + 10 {
            assert!(begin.elapsed() < TIMEOUT, "{:?}", driver.metrics());
            assert!(
                !driver.wait_timeout(Duration::from_millis(10)).unwrap() || {
                    let event = driver.next();
                    assert!(event.is_none(), "{event:?}");
                    true
                }
            );
        }
        assert!(begin.elapsed() > Duration::from_millis(200), "a busy loop: {:?}", begin.elapsed());
        let tries = driver.metrics().armed - metrics.armed;
        assert!(tries <= 12, "{tries} tries for ten failures");
        // Nothing calls the listener back to life but the time that passes.
        few.give_back();
        accepted.extend(accept(&mut driver, 4));
        let mut expected: Vec<_> = clients.iter().map(|it| it.local_addr().unwrap()).collect();
        expected.sort_unstable();
        assert_eq!(peers(accepted), expected, "nobody was lost");
        // The next lack is told again.
        let _late = TcpStream::connect(address).unwrap();
        few.take_all_but(0);
        assert!(accept_until_it_fails(&mut driver, id).is_empty());
        finish(driver);
    }
}

#[test]
fn a_descriptor_that_the_driver_closes_is_a_listeners() {
    let _turn = turn();
    let mut few = FewDescriptors::new();
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(2)).unwrap();
    let (socket, _peer) = UnixStream::pair().unwrap();
    let receiving = driver.receive(ring, socket).unwrap();
    let file = driver.add_file(std::fs::File::open("/dev/null").unwrap()).unwrap();
    let (listener, clients) = listener(2);
    few.take_all_but(0);
    let id = driver.accept(listener).unwrap();
    assert!(accept_until_it_fails(&mut driver, id).is_empty());
    driver.close(receiving).unwrap();
    let mut accepted = Vec::new();
    run(&mut driver, |event| match event {
        Event::Closed { id, error: None, .. } => {
            assert_eq!(id, receiving);
            false
        }
        Event::Accepted { socket, .. } => {
            accepted.push(socket);
            true
        }
        other => panic!("{other:?}"),
    });
    driver.close_file(file).unwrap();
    run(&mut driver, |event| match event {
        Event::AcceptFailed { .. } => false,
        Event::Accepted { socket, .. } => {
            accepted.push(socket);
            true
        }
        other => panic!("{other:?}"),
    });
    drop((accepted, clients));
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_listener_without_descriptors_is_paused_resumed_and_closed() {
    let _turn = turn();
    let mut few = FewDescriptors::new();
    let Some(mut driver) = driver() else { return };
    let (listener, clients) = listener(1);
    let address = listener.local_addr().unwrap();
    few.take_all_but(0);
    let id = driver.accept(listener).unwrap();
    accept_until_it_fails(&mut driver, id);
    driver.pause(id).unwrap();
    few.give_back();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(150) {
        driver.wait_timeout(Duration::from_millis(50)).unwrap();
        assert!(driver.next().is_none(), "it is paused");
    }
    driver.resume(id).unwrap();
    drop(accept(&mut driver, 1));
    let _late = TcpStream::connect(address).unwrap();
    few.take_all_but(0);
    accept_until_it_fails(&mut driver, id);
    driver.close(id).unwrap();
    run(&mut driver, |event| {
        let Event::Closed { id: closed, error: None, .. } = event else { panic!("{event:?}") };
        closed == id
    });
    drop(clients);
    // The timer that is still running wakes nobody up for nothing, and keeps no drain.
    assert!(driver.next().is_none());
    finish(driver);
}

/// A connect and a listener need a descriptor of their own: the refusal names the remedy, and they
/// are made when there is one.
#[test]
fn without_a_descriptor_left_a_connect_and_a_listener_are_refused_by_name() {
    let _turn = turn();
    let mut few = FewDescriptors::new();
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(2)).unwrap();
    let (listening, clients) = listener(0);
    let address = listening.local_addr().unwrap();
    let before = driver.metrics();
    few.take_all_but(0);
    let refused = driver.connect(ring, address, 7).unwrap_err();
    assert!(refused.to_string().contains("ulimit -n"), "{refused}");
    let refused = driver.listen(SocketAddr::from(([127, 0, 0, 1], 0)), 7).unwrap_err();
    assert!(refused.to_string().contains("ulimit -n"), "{refused}");
    assert_eq!(driver.metrics().in_flight, before.in_flight);
    few.give_back();
    driver.connect(ring, address, 7).unwrap();
    run(&mut driver, |event| matches!(event, Event::Connected { token: 7, .. }));
    // What is made needs no further one: sends, syncs, times, addressed sends.
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = udp.local_addr().unwrap();
    let file = driver.add_file(std::fs::File::open("/dev/null").unwrap()).unwrap();
    let (stream, _peer) = UnixStream::pair().unwrap();
    few.take_all_but(0);
    let udp = driver.receive_datagrams(ring, udp).unwrap();
    let stream = driver.receive(ring, stream).unwrap();
    driver.send_to(udp, bytes::Bytes::from_static(b"to itself"), to).unwrap();
    driver.send(stream, bytes::Bytes::from_static(b"hello")).unwrap();
    driver.sync_all(file).unwrap();
    driver.timer(Instant::now(), 8).unwrap();
    let mut told = 0;
    run(&mut driver, |event| {
        match event {
            Event::Sent { result, .. } => assert!(result.is_ok(), "{result:?}"),
            // Nothing is there to be synced.
            Event::Done { result, .. } => assert!(result.is_err()),
            Event::Datagram { .. } | Event::Timer { token: 8, .. } => {}
            other => panic!("{other:?}"),
        }
        told += 1;
        told == 5
    });
    drop((clients, listening));
    finish(driver);
    assert_all_free(&arena);
}

/// Another loop sleeps in poll(2), and looks when the event descriptor is signalled.
#[test]
fn another_loop_learns_when_a_listener_goes_on() {
    let _turn = turn();
    let mut few = FewDescriptors::new();
    let Some(mut driver) = driver() else { return };
    let event_fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    driver.register_eventfd(&event_fd).unwrap();
    let (listener, clients) = listener(2);
    few.take_all_but(0);
    driver.accept(listener).unwrap();
    let (mut accepted, mut failed, begin) = (Vec::new(), 0, Instant::now());
    while accepted.len() < 2 {
        assert!(begin.elapsed() < TIMEOUT, "{:?}", driver.metrics());
        while driver.poll_now().unwrap() || !driver.is_idle() {
            while let Some(event) = driver.next() {
                match event {
                    Event::Accepted { socket, .. } => accepted.push(socket),
                    Event::AcceptFailed { .. } => failed += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        if driver.metrics().retries >= 5 {
            few.give_back();
        }
        if accepted.len() < 2 {
            let timeout = Timespec { tv_sec: TIMEOUT.as_secs() as i64, tv_nsec: 0 };
            poll(&mut [PollFd::new(&event_fd, PollFlags::IN)], Some(&timeout)).unwrap();
            let _ = rustix::io::read(&event_fd, &mut [0; 8]);
        }
    }
    assert_eq!(failed, 1);
    drop(clients);
    finish(driver);
}

#[test]
fn what_is_no_listener_ends_at_once_with_its_error() {
    let _turn = turn();
    let Some(mut driver) = driver() else { return };
    let (listening, _clients) = listener(0);
    let unlistened = listening.try_clone().unwrap();
    rustix::net::shutdown(&unlistened, rustix::net::Shutdown::Both).unwrap();
    let wrong: [(OwnedFd, i32); 5] = [
        (UdpSocket::bind("127.0.0.1:0").unwrap().into(), libc::EOPNOTSUPP),
        (UnixDatagram::unbound().unwrap().into(), libc::EOPNOTSUPP),
        (UnixStream::pair().unwrap().0.into(), libc::EINVAL),
        (std::fs::File::open("/dev/null").unwrap().into(), libc::ENOTSOCK),
        (unlistened.into(), libc::EINVAL),
    ];
    for (descriptor, errno) in wrong {
        let id = driver.accept(descriptor).unwrap();
        run(&mut driver, |event| {
            let Event::Closed { id: closed, error: Some(error), .. } = event else {
                panic!("{event:?}")
            };
            assert_eq!((closed, error.raw_os_error()), (id, Some(errno)));
            true
        });
        assert!(!driver.wait_timeout(Duration::ZERO).unwrap() && driver.next().is_none());
    }
    finish(driver);
}

#[test]
fn a_listener_that_is_set_not_to_block_is_no_busy_loop() {
    let _turn = turn();
    let Some(mut driver) = driver() else { return };
    let (listener, _) = listener(0);
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    driver.accept(listener).unwrap();
    for _ in 0..5 {
        assert!(!driver.wait_timeout(Duration::from_millis(20)).unwrap());
        assert!(driver.next().is_none());
    }
    assert!(driver.metrics().enters <= 10, "{:?}", driver.metrics());
    let _client = TcpStream::connect(address).unwrap();
    drop(accept(&mut driver, 1));
    finish(driver);
}
