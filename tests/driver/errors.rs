//! Errors of the driver as `io::Error`: of the kind that happened, with the text.

use std::io::{self, ErrorKind};

use crate::support::driver::{build, driver, finish};
use crate::support::{arena, paged_arena, seccomp, tcp_pair};
use bytes::Bytes;
use uring_arena::{
    AllocError, BufferRing, Driver, RegisterOptions, RegistrationMode, TransferError,
};

/// Fails unless an error becomes an `io::Error` of a kind that keeps its text, and prints it.
#[track_caller]
fn assert_kind<E: Into<io::Error> + std::error::Error>(error: E, kind: ErrorKind) {
    let text = error.to_string();
    assert_eq!(format!("{error:?}"), text, "what `main` prints");
    assert!(!text.contains("  "), "{text}");
    let error: io::Error = error.into();
    assert_eq!((error.kind(), error.to_string()), (kind, text));
}

#[test]
fn each_refusal_is_an_io_error_of_its_kind() {
    let Some(mut ours) = build(Driver::builder().operations(2)) else { return };
    let Some(mut other) = driver() else { return };
    let full = arena(1, 64);
    let held = full.allocate().unwrap();
    assert_kind(full.allocate().unwrap_err(), ErrorKind::OutOfMemory);
    assert_kind(AllocError::RequestTooLarge, ErrorKind::InvalidInput);
    assert_kind(uring_arena::FixedArena::new(0, 1).unwrap_err(), ErrorKind::InvalidInput);
    drop(held);

    let (slots, buffers) = (paged_arena(4, 4096), paged_arena(4, 4096));
    let wrong = BufferRing::options().entries(3);
    assert_kind(ours.register_buffer_ring(&slots, wrong).unwrap_err(), ErrorKind::InvalidInput);
    let ring = ours.register_buffer_ring(&slots, BufferRing::options().group(101)).unwrap();
    let taken = BufferRing::options().group(101);
    assert_kind(ours.register_buffer_ring(&slots, taken).unwrap_err(), ErrorKind::AlreadyExists);
    let clone = RegisterOptions::new().mode(RegistrationMode::Cloned);
    assert_kind(ours.register_with(&slots, clone).unwrap_err(), ErrorKind::NotFound);

    let (socket, _peer) = tcp_pair();
    ours.receive(ring, socket.try_clone().unwrap()).unwrap();
    assert_kind(ours.unregister_buffer_ring(ring).unwrap_err(), ErrorKind::ResourceBusy);
    assert_kind(other.ring_metrics(ring).unwrap_err(), ErrorKind::InvalidInput);
    let file = ours.add_file(socket).unwrap();
    ours.read(file, buffers.allocate().unwrap(), 0).unwrap();
    let refused = ours.send(file, Bytes::from_static(b"one too many")).unwrap_err();
    assert_kind(refused, ErrorKind::QuotaExceeded);
    ours.close_file(file).unwrap();
    assert_kind(ours.close_file(file).unwrap_err(), ErrorKind::NotFound);
    let mut full = buffers.allocate().unwrap();
    io::Write::write_all(&mut full, &[0; 4096]).unwrap();
    let file = other.add_file(std::fs::File::open("/dev/zero").unwrap()).unwrap();
    assert_kind(other.read(file, full, 0).unwrap_err(), ErrorKind::InvalidInput);
    assert_kind(TransferError::Torn { done: 1, len: 2 }, ErrorKind::BrokenPipe);
    let refused = Driver::builder().entries(0).build().unwrap_err();
    assert_kind(refused, ErrorKind::InvalidInput);
    finish(ours);
    finish(other);
}

/// A file that the kernel does not describe is refused with the kernel's number: here a filter
/// refuses statx(2).
#[test]
fn a_file_that_cannot_be_asked_is_told_with_its_number() {
    let test = std::thread::spawn(|| {
        if seccomp::fail_calls_on_this_thread(libc::SYS_statx, libc::EIO).is_err() {
            return eprintln!("SKIPPED: no seccomp here");
        }
        let Some(mut driver) = driver() else { return };
        let refused = driver.add_file(std::fs::File::open("/dev/zero").unwrap()).unwrap_err();
        assert!(refused.to_string().contains("os error 5"), "{refused}");
        assert_eq!(format!("{refused:?}"), refused.to_string());
        assert_eq!(io::Error::from(refused).raw_os_error(), Some(libc::EIO));
        finish(driver);
    });
    test.join().unwrap();
}
