//! Entries of the program's own: each completion comes back, with the token and in order.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::{cqueue, opcode, types};
use uring_arena::{BufferRing, Driver, DriverError, Event};

use crate::support::driver::{build, driver, finish, run};
use crate::support::{TIMEOUT, arena};

fn nop() -> Entry {
    opcode::Nop::new().build()
}

/// Takes the next completion of an entry: token, result, flags.
fn next_completed(driver: &mut Driver) -> (u64, i32, u32) {
    let mut completed = None;
    run(driver, |event| {
        let Event::Completed { token, result, flags, .. } = event else { panic!("{event:?}") };
        completed = Some((token, result, flags));
        true
    });
    completed.unwrap()
}

#[test]
fn an_entry_completes_with_its_token_and_its_id_names_nothing_afterwards() {
    let Some(mut driver) = driver() else { return };
    // SAFETY: the entry names nothing.
    let id = unsafe { driver.push(nop(), u64::MAX) }.unwrap();
    assert_eq!(driver.metrics().in_flight, 1);
    assert_eq!(next_completed(&mut driver), (u64::MAX, 0, 0));
    assert_eq!(driver.cancel_operation(id), Err(DriverError::UnknownOperation));
    assert_eq!(driver.metrics().in_flight, 0);
    finish(driver);
}

#[test]
fn an_entry_of_several_completions_goes_on_until_it_is_cancelled() {
    let Some(mut driver) = driver() else { return };
    let (reader, mut writer) = std::io::pipe().unwrap();
    let events = libc::POLLIN as u32;
    let poll = opcode::PollAdd::new(types::Fd(reader.as_raw_fd()), events).multi(true).build();
    // SAFETY: the entry names the pipe, which outlives it.
    let id = unsafe { driver.push(poll, 5) }.unwrap();
    for _ in 0..3 {
        writer.write_all(b"x").unwrap();
        let (token, result, flags) = next_completed(&mut driver);
        assert_eq!((token, cqueue::more(flags)), (5, true));
        assert_ne!(result & libc::POLLIN as i32, 0);
    }
    driver.cancel_operation(id).unwrap();
    let (token, result, flags) = next_completed(&mut driver);
    assert_eq!((token, result, cqueue::more(flags)), (5, -libc::ECANCELED, false));
    assert_eq!(driver.metrics().in_flight, 0);
    finish(driver);
    drop(reader);
}

#[test]
fn an_entry_whose_time_is_over_is_cancelled() {
    let Some(mut driver) = driver() else { return };
    let (reader, _writer) = std::io::pipe().unwrap();
    let poll = opcode::PollAdd::new(types::Fd(reader.as_raw_fd()), libc::POLLIN as u32).build();
    // SAFETY: the entry names the pipe, which outlives it.
    let id = unsafe { driver.push(poll, 5) }.unwrap();
    let at = Instant::now() + Duration::from_millis(20);
    driver.set_deadline(id, at).unwrap();
    assert_eq!(next_completed(&mut driver).1, -libc::ECANCELED);
    assert!(Instant::now() >= at);
    finish(driver);
    drop(reader);
}

#[test]
fn a_zero_copy_entry_is_over_with_its_notification_and_drain_names_it_until_then() {
    let Some(mut driver) = driver() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let bytes = vec![7u8; 16 << 20].leak();
    let send = opcode::SendZc::new(types::Fd(ours.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32);
    // SAFETY: the memory is leaked, and the socket outlives the entry.
    if let Err(error) = unsafe { driver.push(send.flags(libc::MSG_DONTWAIT).build(), 11) } {
        panic!("{error}");
    }
    let (token, sent, flags) = next_completed(&mut driver);
    if sent == -libc::EINVAL {
        return eprintln!("SKIPPED: no zero-copy send");
    }
    assert_eq!((token, cqueue::more(flags)), (11, true), "the peer reads nothing");
    // What the peer does not let out of the socket is the kernel's.
    let report = driver.drain(Duration::from_millis(50)).unwrap();
    assert_eq!((report.tokens_left, report.in_flight), (vec![11], 1));
    let reads = std::thread::spawn(move || {
        let mut left = sent as usize;
        let mut block = vec![0; 1 << 20];
        while left > 0 {
            left -= peer.read(&mut block).unwrap();
        }
    });
    let (token, _, flags) = next_completed(&mut driver);
    assert_eq!((token, cqueue::notif(flags)), (11, true));
    reads.join().unwrap();
    let report = driver.drain(Duration::from_secs(20)).unwrap();
    assert_eq!((report.tokens_left, report.in_flight), (vec![], 0));
    drop(ours);
}

#[test]
fn entries_that_the_driver_cannot_live_with_are_refused() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 4096);
    driver.register_buffer_ring(&arena, BufferRing::options().group(109).entries(2)).unwrap();
    let flags = [
        (Flags::SKIP_SUCCESS, "CQE_SKIP_SUCCESS"),
        (Flags::IO_DRAIN, "IO_DRAIN"),
        (Flags::IO_LINK, "push_linked"),
        (Flags::IO_HARDLINK, "push_linked"),
        (Flags::FIXED_FILE, "FIXED_FILE"),
    ];
    for (flag, text) in flags {
        // SAFETY: it is refused.
        let error = unsafe { driver.push(nop().flags(flag), 0) }.unwrap_err();
        assert!(matches!(error, DriverError::EntryFlag { .. }), "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
    // A splice names the file that it reads by a flag of its own.
    let splice = opcode::Splice::new(types::Fixed(0), -1, types::Fd(1), -1, 1).build();
    // SAFETY: it is refused.
    let error = unsafe { driver.push(splice, 0) }.unwrap_err();
    assert!(error.to_string().contains("SPLICE_F_FD_IN_FIXED"), "{error}");
    let receive = opcode::Recv::new(types::Fd(0), std::ptr::null_mut(), 0).buf_group(109).build();
    // SAFETY: it is refused.
    let error = unsafe { driver.push(receive.flags(Flags::BUFFER_SELECT), 0) }.unwrap_err();
    assert_eq!(error, DriverError::EntryGroup { group: 109 });
    assert_eq!(driver.metrics().in_flight, 0);
    finish(driver);
}

/// Tokens may be equal; each entry that is left is named, and a later drain names none.
#[test]
fn a_drain_ends_the_entries_that_can_be_ended_and_a_drop_waits_for_none() {
    let Some(mut driver) = driver() else { return };
    let (reader, mut writer) = std::io::pipe().unwrap();
    let poll = || {
        let events = libc::POLLIN as u32;
        opcode::PollAdd::new(types::Fd(reader.as_raw_fd()), events).multi(true).build()
    };
    for token in [5, 5, 6] {
        // SAFETY: the entry names the pipe, which outlives it.
        unsafe { driver.push(poll(), token) }.unwrap();
    }
    // SAFETY: as above; it is never submitted by a turn.
    let chain = unsafe { driver.push_linked(&[(poll(), 7), (nop(), 8)]) }.unwrap();
    driver.cancel_operation(chain[1]).unwrap();
    // Without time: what is cancelled once is over.
    let report = driver.drain(Duration::ZERO).unwrap();
    assert_eq!((report.tokens_left.len(), report.in_flight), (0, 0), "{report:?}");
    writer.write_all(b"x").unwrap();
    assert!(!driver.wait_timeout(Duration::from_millis(5)).unwrap());
    // SAFETY: as above.
    unsafe { driver.push(poll(), 9) }.unwrap();
    assert_eq!(next_completed(&mut driver).0, 9);
    let begin = Instant::now();
    drop(driver);
    assert!(begin.elapsed() < TIMEOUT);
}

#[test]
fn linked_entries_are_pushed_all_or_none() {
    let Some(mut driver) = build(Driver::builder().entries(4).operations(8)) else { return };
    let fails = || opcode::Fsync::new(types::Fd(-1)).build();
    // However full the queue is, the chain is not cut.
    for before in 0..4 {
        for _ in 0..before {
            // SAFETY: the entry names nothing.
            unsafe { driver.push(nop(), 1) }.unwrap();
        }
        let chain = [(nop(), 2), (fails(), 3), (nop(), 4)];
        // SAFETY: the entries name nothing.
        let ids = unsafe { driver.push_linked(&chain) }.unwrap();
        assert_eq!(ids.len(), 3);
        let mut results: Vec<_> =
            (0..before + 3).map(|_| next_completed(&mut driver)).map(|it| (it.0, it.1)).collect();
        results.retain(|&(token, _)| token != 1);
        assert_eq!(results, [(2, 0), (3, -libc::EBADF), (4, -libc::ECANCELED)]);
    }
    let too_long = vec![(nop(), 1); 5];
    // SAFETY: the entries name nothing.
    let error = unsafe { driver.push_linked(&too_long) }.unwrap_err();
    assert_eq!(error, DriverError::ChainTooLong { entries: 5, limit: 4 });
    let too_many = vec![(nop(), 1); 9];
    // SAFETY: the entries name nothing.
    let error = unsafe { driver.push_linked(&too_many) }.unwrap_err();
    assert_eq!(error, DriverError::TooManyOperations { limit: 8 });
    assert_eq!(driver.metrics().in_flight, 0);
    finish(driver);
}
