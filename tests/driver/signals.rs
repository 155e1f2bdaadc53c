//! Signals while a thread waits, and waits without an end.

use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use uring_arena::{BufferRing, Event};

use crate::support::driver::driver;
use crate::support::signals::{Signals, Target, wake_by_signal};
use crate::support::{ENDLESS, TIMEOUT, arena, tcp_pair, watched};

#[test]
fn signals_do_not_end_a_wait_before_its_time() {
    watched(|| {
        let Some(mut driver) = driver() else { return };
        let signals = Signals::to(vec![Target::this_thread()]);
        let time = Duration::from_millis(100);
        let begin = Instant::now();
        assert!(!driver.wait_timeout(time).unwrap());
        assert!(begin.elapsed() >= time, "{:?}", begin.elapsed());
        // The kernel tells of the signal in another way if it has submitted something.
        driver.accept(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let begin = Instant::now();
        assert!(!driver.wait_timeout(time).unwrap());
        assert!(begin.elapsed() >= time, "{:?}", begin.elapsed());
        signals.wait_for(2);
    });
}

#[test]
fn signals_do_not_end_a_wait_for_an_event() {
    watched(|| {
        let Some(mut driver) = driver() else { return };
        let arena = arena(4, 64);
        let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(2)).unwrap();
        let (mut sender, socket) = tcp_pair();
        driver.receive(ring, socket).unwrap();
        let target = Target::this_thread();
        let sending = thread::spawn(move || {
            let signals = Signals::to(vec![target]);
            signals.wait_for(20);
            sender.write_all(b"hello").unwrap();
            (signals, sender)
        });
        driver.wait().unwrap();
        assert!(matches!(driver.next(), Some(Event::Received { .. })));
        drop(sending.join());
    });
}

#[test]
fn a_signal_handler_may_wake_a_driver() {
    watched(|| {
        let Some(mut driver) = driver() else { return };
        let (waker, target) = (driver.waker().unwrap(), Target::this_thread());
        let waking = thread::spawn(move || {
            thread::sleep(Duration::from_millis(10));
            wake_by_signal(&waker, target);
        });
        driver.wait().unwrap();
        assert!(driver.next().is_none());
        assert_eq!(driver.metrics().wakeups, 1);
        waking.join().unwrap();
    });
}

#[test]
fn signals_do_not_end_a_drain() {
    watched(|| {
        let Some(mut driver) = driver() else { return };
        let arena = arena(64, 64);
        let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(2)).unwrap();
        let mut peers = Vec::new();
        for _ in 0..16 {
            let (peer, socket) = tcp_pair();
            driver.receive(ring, socket).unwrap();
            let (reader, writer) = std::io::pipe().unwrap();
            let file = driver.add_file(reader).unwrap();
            driver.read(file, arena.allocate().unwrap(), 0).unwrap();
            peers.push((peer, writer));
        }
        let signals = Signals::to(vec![Target::this_thread()]);
        signals.wait_for(1);
        let report = driver.drain(TIMEOUT).unwrap();
        assert_eq!((report.in_flight, report.quarantined), (0, 0), "{report:?}");
    });
}

#[test]
fn a_wait_without_an_end_ends_with_an_event() {
    for time in ENDLESS {
        watched(move || {
            let Some(mut driver) = driver() else { return };
            let waker = driver.waker().unwrap();
            let (go, wake) = mpsc::channel::<()>();
            let waking = thread::spawn(move || {
                wake.recv().unwrap();
                thread::sleep(Duration::from_millis(5));
                waker.wake();
            });
            go.send(()).unwrap();
            assert!(driver.wait_timeout(time).unwrap(), "{time:?}");
            waking.join().unwrap();
            // A wait that returns at once, and waits again, would enter the kernel very often.
            assert!(driver.metrics().enters < 10, "{time:?}: {:?}", driver.metrics());
        });
    }
}

#[test]
fn a_drain_without_an_end_ends_when_nothing_is_in_flight() {
    for time in ENDLESS {
        watched(move || {
            let Some(mut driver) = driver() else { return };
            let arena = arena(4, 64);
            let ring =
                driver.register_buffer_ring(&arena, BufferRing::options().entries(2)).unwrap();
            let (_peer, socket) = tcp_pair();
            driver.receive(ring, socket).unwrap();
            assert_eq!(driver.drain(time).unwrap().in_flight, 0, "{time:?}");
        });
    }
}
