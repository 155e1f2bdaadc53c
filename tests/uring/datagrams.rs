//! Datagrams and messages on a bare ring: the ends and the errors that look like something else.
#![allow(unsafe_code)]

use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::support::ring::ring;
use crate::support::{arena, assert_all_free, message_pair};
use io_uring::{IoUring, types::Fd};
use rustix::net::{SendFlags, send};
use uring_arena::{ArenaBytes, BufferRing, Datagram, FixedArena, Status};

/// A ring with one buffer ring on it.
struct Bench {
    uring: IoUring,
    buffers: BufferRing,
    arena: FixedArena,
}

impl Bench {
    fn new(test: &str) -> Option<Bench> {
        let (uring, arena) = (ring(test)?, arena(8, 256));
        // SAFETY: receives go to this ring, each completion is handed in once, and `end` takes the
        // buffers off it.
        let buffers = unsafe { BufferRing::register(&uring, &arena, BufferRing::options()) };
        Some(Bench { buffers: buffers.unwrap(), uring, arena })
    }

    fn arm(&mut self, socket: &impl AsRawFd) {
        let entry = self.buffers.receive_datagrams(Fd(socket.as_raw_fd()));
        // SAFETY: the tests keep their sockets until the receives have ended.
        unsafe { self.uring.submission().push(&entry) }.unwrap();
        self.uring.submit().unwrap();
    }

    fn next(&mut self) -> (Option<Datagram<ArenaBytes>>, Status) {
        self.uring.submit_and_wait(1).unwrap();
        let completion = self.uring.completion().next().unwrap();
        // SAFETY: a completion of the only receive, handed in once.
        let mut received = unsafe { self.buffers.complete_datagram(&completion) };
        let datagram = received.next();
        assert!(received.next().is_none());
        let status = received.status();
        self.buffers.refill();
        (datagram, status)
    }

    fn end(mut self) {
        // SAFETY: the tests see the end of each receive first.
        unsafe { self.buffers.unregister(&self.uring) }.unwrap();
        assert_all_free(&self.arena);
    }
}

fn send_all(socket: impl AsFd, messages: &[&[u8]]) {
    for message in messages {
        assert_eq!(send(&socket, message, SendFlags::empty()).unwrap(), message.len());
    }
}

/// A connection that ends completes with an empty datagram, again and again. The datagram tells.
#[test]
fn the_end_of_a_connection_is_told_from_an_empty_message() {
    let Some(mut bench) = Bench::new("messages") else { return };
    let (ours, theirs) = message_pair();
    send_all(&theirs, &[b"one", b"", b"two", b""]);
    let (mut theirs, mut is_armed) = (Some(theirs), false);
    for expected in [Some(&b"one"[..]), Some(b""), Some(b"two"), Some(b""), None, None] {
        if expected.is_none() {
            theirs = None;
        }
        if !is_armed {
            bench.arm(&ours);
        }
        let (datagram, status) = bench.next();
        let datagram = datagram.unwrap_or_else(|| panic!("{status}"));
        assert_eq!(&datagram.bytes[..], expected.unwrap_or_default());
        assert_eq!(datagram.is_end_of(&ours), expected.is_none());
        // An empty one ends the receive; so does the end.
        is_armed = status == Status::Armed;
        assert_eq!(is_armed, !datagram.bytes.is_empty(), "{status}");
    }
    drop(theirs);
    bench.end();
}

/// A stream is not for this form; its end looks the same, and a datagram socket has none.
#[test]
fn a_stream_has_an_end_and_a_datagram_socket_has_none() {
    let Some(mut bench) = Bench::new("ends") else { return };
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    bench.arm(&ours);
    let (datagram, status) = bench.next();
    assert!(datagram.unwrap().is_end_of(&ours));
    assert_eq!(status, Status::Ended);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(socket.local_addr().unwrap()).unwrap();
    socket.send(b"").unwrap();
    bench.arm(&socket);
    let (datagram, status) = bench.next();
    assert!(!datagram.unwrap().is_end_of(&socket));
    assert_eq!(status, Status::Ended);
    bench.end();
}

#[test]
fn a_pending_error_is_told_from_one_that_stays() {
    let Some(mut bench) = Bench::new("pending errors") else { return };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    socket.connect(nobody).unwrap();
    for _ in 0..5 {
        bench.arm(&socket);
        socket.send(b"nobody").unwrap();
        let (datagram, status) = bench.next();
        assert!(datagram.is_none());
        assert_eq!(status, Status::Failed { errno: libc::ECONNREFUSED });
        assert!(status.is_pending_error_of(&socket));
    }
    let no_socket: OwnedFd = std::io::pipe().unwrap().0.into();
    bench.arm(&no_socket);
    let (_, status) = bench.next();
    assert_eq!(status, Status::Failed { errno: libc::ENOTSOCK });
    assert!(!status.is_pending_error_of(&no_socket));
    // Not of the descriptor: the kernel says the same again.
    let alone = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        None,
    )
    .unwrap();
    bench.arm(&alone);
    let (_, status) = bench.next();
    assert_eq!(status, Status::Failed { errno: libc::ENOTCONN });
    assert!(!status.is_pending_error_of(&alone));
    assert!(!Status::Ended.is_pending_error_of(&socket));
    bench.end();
}
