//! A kernel with io_uring behind a filter that refuses one of its calls: the filter is told, not a
//! kernel that lacks something.
#![allow(unsafe_code)]

use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::support::ring::{register, ring};
use crate::support::{TIMEOUT, arena, seccomp};
use io_uring::IoUring;
use uring_arena::{
    BufferRing, Driver, DriverError, Event, Feature, Probe, RegisterError, RegisteredArena,
    RegistrationMode, RegistrationPolicy, RingError, UnavailableError,
};

/// The answers of sandboxes: container runtimes give the first, older ones the last.
const ANSWERS: [i32; 3] = [libc::EPERM, libc::EACCES, libc::ENOSYS];

/// Runs `test` on a thread whose calls are filtered.
fn where_refused(call: libc::c_long, errno: i32, test: impl FnOnce() + Send + 'static) {
    let thread =
        std::thread::spawn(move || match seccomp::fail_calls_on_this_thread(call, errno) {
            Ok(()) => test(),
            Err(error) => eprintln!("SKIPPED forbidden: no seccomp here: {error}"),
        });
    thread.join().unwrap();
}

/// Fails unless an error says what forbids, and not that the kernel lacks something.
#[track_caller]
fn assert_tells_of_a_filter<E: Into<io::Error> + std::error::Error>(error: E) {
    let text = error.to_string();
    assert!(text.contains("seccomp") && text.contains("profile"), "{text}");
    for wrong in ["has no", "came with Linux", "needs Linux", "or newer"] {
        assert!(!text.contains(wrong), "{text}");
    }
    assert_eq!(format!("{error:?}"), text);
    assert_eq!(error.into().kind(), ErrorKind::PermissionDenied, "{text}");
}

#[test]
fn a_filter_of_the_setup_is_told() {
    let Some(_) = ring("forbidden") else { return };
    for errno in ANSWERS {
        where_refused(libc::SYS_io_uring_setup, errno, || {
            let error = Probe::new().unwrap_err();
            assert_eq!(error, UnavailableError::Forbidden);
            assert_tells_of_a_filter(error);
            let error = Driver::builder().build().unwrap_err();
            assert!(matches!(error, DriverError::Forbidden { .. }), "{error}");
            assert_tells_of_a_filter(error);
        });
    }
}

#[test]
fn a_filter_of_the_registrations_is_told() {
    let Some(_) = ring("forbidden") else { return };
    for errno in ANSWERS {
        where_refused(libc::SYS_io_uring_register, errno, move || {
            // No feature was found, which says nothing of the kernel.
            let probe = Probe::new().unwrap();
            assert_tells_of_a_filter(probe.require(Feature::BufferRing).unwrap_err());
            let arena = arena(8, 4096);
            // On a ring of the program's.
            let ring = IoUring::new(8).unwrap();
            let only = RegistrationPolicy::Only(RegistrationMode::Slots);
            // SAFETY: nothing is registered, and no entry pushed.
            let error = unsafe { RegisteredArena::register(&ring, &arena, only) }.unwrap_err();
            let step = "registering";
            assert_eq!(error, RegisterError::Forbidden { step, errno });
            assert_tells_of_a_filter(error);
            let best = register(&ring, &arena, RegistrationPolicy::Best);
            assert_eq!(best.mode(), RegistrationMode::Unregistered);
            best.refused().iter().for_each(|(_, error)| assert_tells_of_a_filter(error.clone()));
            // SAFETY: nothing is registered.
            let error = unsafe { BufferRing::register(&ring, &arena, BufferRing::options()) };
            assert_tells_of_a_filter(error.unwrap_err());
            // On a driver's.
            let mut driver = Driver::builder().build().unwrap();
            let error = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap_err();
            assert!(matches!(error, RingError::Forbidden { .. }), "{error}");
            assert_tells_of_a_filter(error);
            let id = driver.register(&arena).unwrap();
            let registered = driver.arena(id).unwrap();
            assert_eq!(registered.mode(), RegistrationMode::Unregistered);
            for (_, error) in registered.refused() {
                assert_tells_of_a_filter(error.clone());
            }
        });
    }
}

#[test]
fn a_filter_of_the_entries_is_told() {
    let Some(_) = ring("forbidden") else { return };
    for errno in ANSWERS {
        where_refused(libc::SYS_io_uring_enter, errno, move || {
            assert_tells_of_a_filter(Probe::new().unwrap_err());
            let mut driver = Driver::builder().build().unwrap();
            let error = driver.wait().unwrap_err();
            // A turn without anything to do need not enter the kernel: this one waits.
            assert_eq!(error, driver.wait_timeout(Duration::from_millis(1)).unwrap_err());
            assert!(matches!(error, DriverError::Forbidden { errno: told, .. } if told == errno));
            assert_tells_of_a_filter(error);
        });
    }
}

/// Returns the calls that the profile in the page about containers allows.
fn allowed_by_the_page() -> Vec<&'static str> {
    let page = include_str!("../../docs/containers.md");
    let block = page.split("```json").nth(1).and_then(|block| block.split("```").next());
    let block = block.expect("the page has a profile");
    assert!(block.contains("\"action\": \"SCMP_ACT_ALLOW\""), "{block}");
    block.split('"').filter(|word| word.starts_with("io_uring_")).collect()
}

/// Runs `test` on a thread where io_uring's calls are forbidden, as in a container, but for some.
fn in_a_container_that_allows(allowed: &[&str], test: impl FnOnce() + Send + 'static) {
    const CALLS: [(&str, libc::c_long); 3] = [
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("io_uring_enter", libc::SYS_io_uring_enter),
        ("io_uring_register", libc::SYS_io_uring_register),
    ];
    let forbidden: Vec<libc::c_long> =
        CALLS.iter().filter(|(name, _)| !allowed.contains(name)).map(|(_, call)| *call).collect();
    let thread = std::thread::spawn(move || {
        for call in forbidden {
            if let Err(error) = seccomp::fail_calls_on_this_thread(call, libc::EPERM) {
                return eprintln!("SKIPPED forbidden: no seccomp here: {error}");
            }
        }
        test();
    });
    thread.join().unwrap();
}

/// Receives a message by a driver, into a registered arena.
fn receive_a_message() -> io::Result<()> {
    let arena = arena(8, 4096);
    let mut driver = Driver::builder().build()?;
    driver.register(&arena)?;
    let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    let (mut sender, socket) = UnixStream::pair()?;
    sender.write_all(b"hello")?;
    driver.receive(ring, socket)?;
    loop {
        assert!(driver.wait_timeout(TIMEOUT)?, "no event came");
        while let Some(event) = driver.next() {
            if let Event::Received { bytes, .. } = event {
                assert_eq!(bytes, "hello");
                return Ok(());
            }
        }
    }
}

#[test]
fn the_profile_of_the_page_allows_what_is_needed_and_no_more() {
    let Some(_) = ring("forbidden") else { return };
    let allowed = allowed_by_the_page();
    assert_eq!(allowed.len(), 3, "{allowed:?}");
    in_a_container_that_allows(&allowed, || receive_a_message().unwrap());
    for left_out in &allowed {
        let others: Vec<&str> = allowed.iter().copied().filter(|name| name != left_out).collect();
        in_a_container_that_allows(&others, || {
            let error = receive_a_message().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            assert!(error.to_string().contains("seccomp"), "{error}");
        });
    }
}
