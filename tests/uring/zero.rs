//! `InitPolicy::Zero` where the kernel writes: reads, and slots of a buffer ring.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::io::Write;
use std::os::fd::AsRawFd;

use io_uring::{opcode, types};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use uring_arena::{BufferRing, FixedArena, InitPolicy, RegistrationMode};

use crate::support::ring::{push, register, ring, run};
use crate::support::zero::{Arena, check, life};
use crate::support::{TestFile, tcp_pair};

/// The histories of `arena::zero`, with reads of a file among the writing calls.
#[test]
fn no_owner_finds_what_the_kernel_read_for_an_earlier_one() {
    let Some(ring) = ring("reads under Zero") else { return };
    let ring = RefCell::new(ring);
    let file = TestFile::new("zero", &[0xA5; 300]).open();
    let config = Config { cases: 128, failure_persistence: None, ..Config::default() };
    let lives = (life(), any::<bool>());
    let checked = TestRunner::new(config).run(&lives, |((steps, end), spill)| {
        for arena in Arena::both(spill) {
            let ring = &mut *ring.borrow_mut();
            let registered = match &arena {
                Arena::Fixed(arena) => register(ring, arena, RegistrationMode::Unregistered),
                Arena::Buddy(arena) => register(ring, arena, RegistrationMode::Unregistered),
            };
            check(&arena, &steps, &end, &mut |buffer, count| {
                if buffer.is_spilled() || count == 0 || buffer.len() == buffer.capacity() {
                    return buffer;
                }
                // From near the end of the file, so that some reads are short.
                let read = registered.read_at_most(&file, buffer, 200, count);
                run(ring, read).buffer
            });
        }
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
}

/// The kernel received into slots whose completions nobody interpreted. The ring is unregistered,
/// and the next owners find nothing.
#[test]
fn slots_of_a_ring_that_is_gone_hide_nothing() {
    let Some(mut uring) = ring("buffer ring under Zero") else { return };
    let arena = FixedArena::with_sizes(4, 512).init_policy(InitPolicy::Zero).build().unwrap();
    let registered =
        // SAFETY: the only user of this ring's buffer group, and the receive has ended before the
        // ring is unregistered.
        unsafe { BufferRing::register(&uring, &arena, BufferRing::options().entries(4).group(3)) };
    let mut buffers = match registered {
        Ok(buffers) => buffers,
        Err(error) => {
            eprintln!("SKIPPED buffer ring under Zero: {error}");
            return;
        }
    };
    let (mut sender, receiver) = tcp_pair();
    sender.write_all(&[0xA5; 400]).unwrap();
    let entry = opcode::Recv::new(types::Fd(receiver.as_raw_fd()), std::ptr::null_mut(), 0)
        .buf_group(3)
        .build()
        .flags(io_uring::squeue::Flags::BUFFER_SELECT);
    push(&mut uring, &entry);
    uring.submit_and_wait(1).unwrap();
    let completion = uring.completion().next().unwrap();
    assert!(completion.result() > 0);
    // SAFETY: nothing receives into the ring any more.
    unsafe { buffers.unregister(&uring) }.unwrap();
    drop(buffers);
    let mut everything = Vec::new();
    assert_eq!(arena.allocate_many(4, |buffer| everything.push(buffer)), 4);
    for mut buffer in everything {
        // SAFETY: the memory of a mapping is initialised.
        unsafe { buffer.set_len(512) };
        assert!(buffer.iter().all(|&byte| byte == 0), "bytes of an earlier owner");
    }
}
