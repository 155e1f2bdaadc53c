//! Accepting without descriptors left.
//!
//! This is a process of its own: the limit of open files holds for all of a process.
#![cfg(target_os = "linux")]

mod support;

use std::net::{TcpListener, TcpStream};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::driver::{driver, finish, run};
use uring_arena::Event;

#[test]
fn an_accept_without_descriptors_left_ends_with_emfile_and_can_be_made_again() {
    let Some(mut driver) = driver() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let again = listener.try_clone().unwrap();
    let accepting = driver.accept(listener).unwrap();
    let clients: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
    let old = getrlimit(Resource::Nofile);
    // The next descriptor would be above all that are open now, so none is left.
    let lowest_free = std::os::fd::AsRawFd::as_raw_fd(clients.last().unwrap()) as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(lowest_free + 1), maximum: old.maximum })
        .unwrap();
    let mut accepted = Vec::new();
    run(&mut driver, |event| match event {
        Event::Accepted { socket, .. } => {
            accepted.push(socket);
            false
        }
        Event::Closed { id, error } => {
            assert_eq!(id, accepting);
            assert_eq!(error.unwrap().raw_os_error(), Some(libc::EMFILE));
            true
        }
        other => panic!("{other:?}"),
    });
    setrlimit(Resource::Nofile, old).unwrap();
    driver.accept(again).unwrap();
    run(&mut driver, |event| {
        let Event::Accepted { socket, .. } = event else { panic!("{event:?}") };
        accepted.push(socket);
        // The kernel took one connection off the queue before it found no descriptor for it.
        accepted.len() >= 3
    });
    finish(driver);
}
