//! Forked children of a process with a ring of its own: what the kernel knows is the parent's.
#![allow(unsafe_code)]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use io_uring::types::Fd;
use uring_arena::{
    ArenaBytes, BufferRing, InFlight, Progress, RegisterError, RegistrationMode, RingError, Status,
};

use crate::support::fork::in_child;
use crate::support::ring::{push, register, ring};
use crate::support::{assert_all_free, paged_arena};

#[test]
fn a_child_takes_nothing_off_the_parents_ring() {
    let Some(mut uring) = ring("a_child_takes_nothing_off_the_parents_ring") else { return };
    let arena = paged_arena(8, 4096);
    let registered = register(&uring, &arena, RegistrationMode::Regions);
    let options = BufferRing::options().entries(4);
    // SAFETY: each completion of a receive is handed in below, once.
    let mut buffers = unsafe { BufferRing::register(&uring, &arena, options) }.unwrap();
    let (mut sender, receiver) = UnixStream::pair().unwrap();
    push(&mut uring, &buffers.receive_multi(Fd(receiver.as_raw_fd())).user_data(1));
    let (reader, mut pipe) = std::io::pipe().unwrap();
    let (entry, operation) = registered.read(&reader, arena.allocate().unwrap(), 0);
    push(&mut uring, &entry.user_data(2));
    // A message leaves room in the ring.
    sender.write_all(b"hello").unwrap();
    uring.submit_and_wait(1).unwrap();
    let completion = uring.completion().next().unwrap();
    // SAFETY: a completion of the receive, handed in once.
    let received = unsafe { buffers.complete::<ArenaBytes>(&completion) };
    assert!(received.eq([&b"hello"[..]]));
    let mut copies = Some((registered, buffers, operation));
    in_child(|| {
        let (registered, mut buffers, operation) = copies.take().unwrap();
        // The child's own memory, and no slot of the parent's.
        buffers.refill();
        // SAFETY: refused before anything happens.
        let refused = unsafe { buffers.reconcile(&uring) }.unwrap_err();
        assert!(matches!(refused, RingError::OtherProcess { .. }), "{refused}");
        // SAFETY: as above.
        let refused = unsafe { buffers.unregister(&uring) }.unwrap_err();
        assert!(matches!(refused, RingError::OtherProcess { .. }), "{refused}");
        let refused = registered.unregister(&uring).unwrap_err();
        assert!(matches!(refused, RegisterError::OtherProcess { .. }), "{refused}");
        let mut in_flight = InFlight::new(1);
        let (_, other) = register_nothing(&arena).read(&reader, arena.allocate().unwrap(), 0);
        in_flight.begin(io_uring::opcode::Nop::new().build(), other);
        drop((buffers, operation, in_flight));
    });
    let Some((registered, mut buffers, operation)) = copies else { panic!("the parent's") };
    sender.write_all(b"after it").unwrap();
    pipe.write_all(b"a pipe").unwrap();
    drop(sender);
    let (mut operation, mut text, mut finished) = (Some(operation), Vec::new(), false);
    while operation.is_some() || !finished {
        uring.submit_and_wait(1).unwrap();
        let Some(completion) = uring.completion().next() else { continue };
        if completion.user_data() == 2 {
            // SAFETY: the only completion of the read.
            match unsafe { operation.take().unwrap().complete(&completion) } {
                Progress::Done { buffer, .. } => assert_eq!(&buffer[..], b"a pipe"),
                Progress::More(_) => panic!("a read completes once"),
            }
            continue;
        }
        // SAFETY: a completion of the receive, handed in once.
        let mut received = unsafe { buffers.complete::<ArenaBytes>(&completion) };
        received.by_ref().for_each(|bytes| text.extend_from_slice(&bytes));
        match received.status() {
            Status::Armed => {}
            Status::Finished => finished = true,
            other => panic!("{other}"),
        }
    }
    assert_eq!(text, b"after it");
    // SAFETY: the only receive has ended.
    unsafe { buffers.unregister(&uring) }.unwrap();
    registered.unregister(&uring).unwrap();
    assert_all_free(&arena);
}

/// Registers an arena of the child with a ring of the child's.
fn register_nothing(arena: &uring_arena::FixedArena) -> uring_arena::RegisteredArena {
    let uring = ring("in the child").unwrap();
    register(&uring, arena, RegistrationMode::Regions)
}
