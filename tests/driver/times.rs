//! Timers, deadlines and idle timeouts: never early, never lost, and none for what is over.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use uring_arena::{BufferRing, DriverError, Event};

use crate::support::driver::{driver, finish, run};
use crate::support::{TIMEOUT, arena, assert_all_free, stuck_pair, watched};

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn timers_end_in_order_and_never_early() {
    let Some(mut driver) = driver() else { return };
    let start = Instant::now();
    // The later ones first: each earlier one hastens the timer of the ring.
    let mut ids = Vec::new();
    for after in [90, 60, 30, 120, 30] {
        ids.push(driver.timer(start + MS(after), after).unwrap());
    }
    driver.cancel_timer(ids[1]).unwrap();
    assert_eq!(driver.cancel_timer(ids[1]), Err(DriverError::UnknownTimer));
    let mut ended = Vec::new();
    run(&mut driver, |event| {
        let Event::Timer { token, .. } = event else { panic!("{event:?}") };
        assert!(start.elapsed() >= MS(token), "{token} ms are not over");
        ended.push(token);
        ended.len() == 4
    });
    assert_eq!(ended, [30, 30, 90, 120]);
    assert_eq!(driver.cancel_timer(ids[0]), Err(DriverError::UnknownTimer));
    // One that is over already, and one that is never over.
    driver.timer(start, 1).unwrap();
    driver.timer(start + Duration::from_secs(1 << 40), 2).unwrap();
    run(&mut driver, |event| matches!(event, Event::Timer { token: 1, .. }));
    assert!(!driver.wait_timeout(MS(10)).unwrap());
    finish(driver);
}

/// A program has a table by the index of its timers: an event must find the timer that it is of.
#[test]
fn the_index_of_a_timer_is_not_given_out_before_its_event_was_taken() {
    let Some(mut driver) = driver() else { return };
    let now = Instant::now();
    let ids = [1, 2, 3].map(|token| driver.timer(now, token).unwrap());
    let mut ended = 0;
    run(&mut driver, |event| {
        assert!(matches!(event, Event::Timer { .. }));
        ended += 1;
        ended == 1
    });
    // The other two are over, and their events are still to come.
    let next = driver.timer(now + TIMEOUT, 4).unwrap();
    assert!(ids[1..].iter().all(|id| id.index() != next.index()), "{ids:?} {next:?}");
    assert_eq!(driver.cancel_timer(ids[2]), Err(DriverError::UnknownTimer));
    for id in &ids[1..] {
        run(&mut driver, |event| matches!(event, Event::Timer { id: of, .. } if of == *id));
    }
    let again = driver.timer(now + TIMEOUT, 5).unwrap();
    assert!(ids.iter().any(|id| id.index() == again.index()), "{ids:?} {again:?}");
    driver.cancel_timer(next).unwrap();
    driver.cancel_timer(again).unwrap();
    finish(driver);
}

#[test]
fn an_operation_that_was_given_up_before_its_time_says_so() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 4096);
    let (stuck, _peer) = stuck_pair();
    let stuck = driver.add_file(stuck).unwrap();
    let (silent, _other) = UnixStream::pair().unwrap();
    let silent = driver.add_file(silent).unwrap();
    let read = driver.read(silent, arena.allocate().unwrap(), 0).unwrap();
    let first = driver.send(stuck, Bytes::from(vec![1; 64 << 20])).unwrap();
    let queued = driver.send(stuck, Bytes::from_static(b"behind it")).unwrap();
    driver.wait_timeout(MS(5)).unwrap();
    // Their time is over before the program takes the events.
    for id in [read, queued, first] {
        driver.cancel_operation(id).unwrap();
        driver.set_deadline(id, Instant::now()).unwrap();
    }
    let mut given_up = 0;
    run(&mut driver, |event| {
        let result = match event {
            Event::Read { result, .. } | Event::Sent { result, .. } => result,
            other => panic!("{other:?}"),
        };
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        given_up += 1;
        given_up == 3
    });
    driver.abort_file(stuck).unwrap();
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_timer_is_told_to_another_loop() {
    watched(|| {
        let Some(mut driver) = driver() else { return };
        let event_fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        driver.register_eventfd(&event_fd).unwrap();
        for round in 0..20 {
            driver.timer(Instant::now() + MS(2), round).unwrap();
            let mut told = false;
            while !told {
                while driver.poll_now().unwrap() || !driver.is_idle() {
                    while let Some(event) = driver.next() {
                        assert!(matches!(event, Event::Timer { token, .. } if token == round));
                        told = true;
                    }
                }
                if !told {
                    poll(&mut [PollFd::new(&event_fd, PollFlags::IN)], None).unwrap();
                    let _ = rustix::io::read(&event_fd, &mut [0; 8]);
                }
            }
        }
        finish(driver);
    });
}

#[test]
fn an_operation_whose_time_is_over_is_given_up_wherever_it_stands() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 4096);
    let (silent, _peer) = UnixStream::pair().unwrap();
    let silent = driver.add_file(silent).unwrap();
    let (stuck, mut peer) = stuck_pair();
    let stuck = driver.add_file(stuck).unwrap();
    let at = Instant::now() + MS(50);
    let read = driver.read(silent, arena.allocate().unwrap(), 0).unwrap();
    let first = driver.send(stuck, Bytes::from(vec![1; 64 << 20])).unwrap();
    let queued = driver.send(stuck, Bytes::from_static(b"behind it")).unwrap();
    for id in [read, queued] {
        driver.set_deadline(id, at).unwrap();
    }
    // A later call sets another time.
    driver.set_deadline(first, at).unwrap();
    driver.set_deadline(first, at + TIMEOUT).unwrap();
    let mut over = Vec::new();
    run(&mut driver, |event| {
        let (id, result) = match event {
            Event::Read { id, result, .. } => (id, result),
            Event::Sent { id, result, sent: 0, .. } => (id, result),
            other => panic!("{other:?}"),
        };
        assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
        over.push(id);
        over.len() == 2
    });
    assert!(Instant::now() >= at);
    assert!(over.contains(&read) && over.contains(&queued));
    assert_eq!(driver.set_deadline(read, at), Err(DriverError::UnknownOperation));
    // What is done before its time is done, and the time is of nothing then.
    let reads = std::thread::spawn(move || {
        let (mut left, mut block) = (64 << 20, vec![0; 1 << 20]);
        while left > 0 {
            left -= peer.read(&mut block).unwrap();
        }
    });
    run(&mut driver, |event| matches!(event, Event::Sent { result: Ok(_), .. }));
    reads.join().unwrap();
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn deadlines_of_what_is_over_take_no_room_and_end_nothing_else() {
    let Some(mut driver) = driver() else { return };
    let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
    let null = driver.add_file(null).unwrap();
    let start = Instant::now();
    for round in 0..5000 {
        let id = driver.write(null, Bytes::from_static(b"x"), 0).unwrap();
        // Some are over while later operations have their indices.
        let after = if round % 2 == 0 { MS(1) } else { TIMEOUT };
        driver.set_deadline(id, Instant::now() + after).unwrap();
        run(&mut driver, |event| {
            let Event::Wrote { result, .. } = event else { panic!("{event:?}") };
            match result {
                Ok(1) => true,
                Err(error) => error.kind() == ErrorKind::TimedOut,
                other => panic!("{other:?}"),
            }
        });
    }
    assert!(start.elapsed() < TIMEOUT, "each looks through all before it");
    finish(driver);
}

#[test]
fn silence_is_told_after_its_time_and_bytes_begin_it_anew() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (mut peer, socket) = UnixStream::pair().unwrap();
    let id = driver.receive_with(ring, socket, 9).unwrap();
    let timeout = MS(200);
    driver.set_idle_timeout(id, Some(timeout)).unwrap();
    let mut last = Instant::now();
    let mut told = 0;
    let mut left = 4;
    let until = Instant::now() + TIMEOUT;
    while told < 3 {
        assert!(Instant::now() < until);
        // Bytes come for a while, and then none.
        if left > 0 && last.elapsed() >= MS(30) {
            peer.write_all(b"x").unwrap();
            left -= 1;
        }
        driver.wait_timeout(MS(10)).unwrap();
        while let Some(event) = driver.next() {
            match event {
                Event::Received { .. } => last = Instant::now(),
                Event::Idle { id: of, token, .. } => {
                    assert_eq!((of, token), (id, 9));
                    assert!(last.elapsed() >= timeout, "only {:?}", last.elapsed());
                    (told, last) = (told + 1, Instant::now());
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // A socket that is paused is not silent, and neither is one without a timeout.
    driver.pause(id).unwrap();
    assert!(!happens(&mut driver, 3 * timeout));
    driver.resume(id).unwrap();
    driver.set_idle_timeout(id, None).unwrap();
    assert!(!happens(&mut driver, 2 * timeout));
    // Its timeout ends with it.
    driver.set_idle_timeout(id, Some(MS(40))).unwrap();
    driver.close(id).unwrap();
    run(&mut driver, |event| matches!(event, Event::Closed { .. }));
    assert!(!happens(&mut driver, MS(100)));
    assert_eq!(driver.set_idle_timeout(id, None), Err(DriverError::UnknownSocket));
    finish(driver);
    assert_all_free(&arena);
}

/// Returns whether an event comes within a time.
fn happens(driver: &mut uring_arena::Driver, within: Duration) -> bool {
    let until = Instant::now() + within;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        driver.wait_timeout(left).unwrap();
        if let Some(event) = driver.next() {
            eprintln!("{event:?}");
            return true;
        }
    }
}
