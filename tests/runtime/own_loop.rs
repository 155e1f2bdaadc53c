//! No runtime at all: a loop of the program's own turns a driver, and wakes tasks that wait.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use uring_arena::{BufferRing, Event};

use crate::support::driver::driver;
use crate::support::runtimes::Outcome;
use crate::support::{TIMEOUT, arena, assert_all_free, pattern};

/// The loop sleeps in `poll`, on the event descriptor of the driver alone.
#[test]
fn a_loop_of_the_programs_own_receives_what_is_sent() -> Outcome {
    let Some(mut driver) = driver() else { return Ok(()) };
    let arena = arena(16, 1024);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    let event_fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    driver.register_eventfd(&event_fd)?;
    let (near, mut far) = UnixStream::pair()?;
    driver.receive(ring, near)?;
    let sent = pattern(1, 100_000);
    let to_send = sent.clone();
    let sender = thread::spawn(move || far.write_all(&to_send));

    let mut received = Vec::new();
    let mut is_open = true;
    while is_open {
        while driver.poll_now()? || !driver.is_idle() {
            while let Some(event) = driver.next() {
                match event {
                    Event::Received { bytes, .. } => received.extend_from_slice(&bytes),
                    Event::Closed { error, .. } => {
                        assert!(error.is_none(), "{error:?}");
                        is_open = false;
                    }
                    event => panic!("{event:?}"),
                }
            }
        }
        if is_open {
            let mut polled = [PollFd::from_borrowed_fd(event_fd.as_fd(), PollFlags::IN)];
            let told = poll(&mut polled, Some(&Timespec::try_from(TIMEOUT)?))?;
            assert_eq!(told, 1, "nobody was told: {driver:?}");
            rustix::io::read(&event_fd, &mut [0u8; 8])?;
        }
    }
    sender.join().expect("the sender does not panic")?;
    assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
    drop(driver);
    assert_all_free(&arena);
    Ok(())
}
