//! Datagrams and messages on a bare ring: their addresses and details, and the ends and the errors
//! that look like something else.
#![allow(unsafe_code)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

use crate::support::ring::{push, register, ring, run};
use crate::support::{TIMEOUT, arena, assert_all_free, filled, message_pair, paged_arena, pattern};
use bytes::Bytes;
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{IoUring, opcode};
use rustix::net::{SendFlags, send};
use uring_arena::{
    Address, Addressed, ArenaBytes, BufferRing, Datagram, DatagramDetails, Destination, FixedArena,
    IoMemory, RegisteredArena, RegistrationPolicy, SendOptions, Status,
};

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

/// A ring with room for the details of datagrams, and an arena for what is sent.
struct Details {
    bench: Bench,
    sends: FixedArena,
    registered: RegisteredArena,
}

impl Details {
    fn new(test: &str) -> Option<Details> {
        let (uring, arena) = (ring(test)?, arena(8, 2048));
        let options = BufferRing::options().datagram_details(true);
        // SAFETY: as for `Bench`.
        let buffers = unsafe { BufferRing::register(&uring, &arena, options) }.unwrap();
        let sends = paged_arena(8, 1 << 16);
        let registered = register(&uring, &sends, RegistrationPolicy::Best);
        Some(Details { bench: Bench { uring, buffers, arena }, sends, registered })
    }

    /// Sends, and receives what comes to `to`.
    fn exchange<M: IoMemory>(
        &mut self,
        from: &UdpSocket,
        to: &UdpSocket,
        addressed: Addressed<M>,
        options: SendOptions,
    ) -> (Datagram<ArenaBytes>, M) {
        let sent = run(&mut self.bench.uring, self.registered.send(from, addressed, options));
        sent.result.unwrap();
        self.bench.arm(to);
        let (datagram, status) = self.bench.next();
        assert_eq!(status, Status::Armed);
        self.stop();
        (datagram.unwrap(), sent.buffer.into_memory())
    }

    /// Cancels the receive, and sees its end.
    fn stop(&mut self) {
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(1);
        push(&mut self.bench.uring, &cancel);
        self.bench.uring.submit_and_wait(2).unwrap();
        let completions: Vec<_> = self.bench.uring.completion().collect();
        for completion in completions.iter().filter(|it| it.user_data() == 0) {
            // SAFETY: a completion of the only receive, handed in once.
            let mut received = unsafe { self.bench.buffers.complete_datagram(completion) };
            assert!(received.next().map(|it: Datagram<ArenaBytes>| it.bytes).is_none());
            assert_eq!(received.status(), Status::Cancelled);
        }
    }

    fn end(self) {
        let Details { bench, sends, registered } = self;
        registered.unregister(&bench.uring).unwrap();
        bench.end();
        assert_all_free(&sends);
    }
}

#[test]
fn an_answer_on_a_ring_of_ones_own_comes_from_the_address_that_was_asked() {
    let Some(mut details) = Details::new("answers") else { return };
    for (any, asked, client) in
        [("0.0.0.0:0", "127.0.0.2", "127.0.0.1:0"), ("[::]:0", "::1", "[::1]:0")]
    {
        let (Ok(server), Ok(client)) = (UdpSocket::bind(any), UdpSocket::bind(client)) else {
            eprintln!("SKIPPED: no address {any}");
            continue;
        };
        DatagramDetails::new().destination().ecn().enable(&server).unwrap();
        DatagramDetails::new().ecn().enable(&client).unwrap();
        let asked: IpAddr = asked.parse().unwrap();
        let to = SocketAddr::new(asked, server.local_addr().unwrap().port());
        // Each kind of memory that can be sent comes back as it was.
        let question = Addressed::new(filled(&details.sends, b"question"), to);
        assert_eq!(question.memory().len(), 8);
        let (datagram, buffer) = details.exchange(&client, &server, question, SendOptions::new());
        assert_eq!((&buffer[..], &datagram.bytes[..]), (&b"question"[..], &b"question"[..]));
        assert_eq!((datagram.to(), datagram.ecn()), (Some(asked), Some(0)));
        assert_eq!(datagram.from, Some(client.local_addr().unwrap()));
        let destination = Destination::reply_to(&datagram).unwrap().ecn(3);
        let answer = Addressed::new(datagram.bytes, destination);
        let (datagram, _) = details.exchange(&server, &client, answer, SendOptions::new());
        assert_eq!((datagram.from, &datagram.bytes[..]), (Some(to), &b"question"[..]));
        // The client asked for marks, and not for the address.
        assert_eq!((datagram.to(), datagram.ecn()), (None, Some(3)));
    }
    details.end();
}

#[test]
fn many_datagrams_are_one_addressed_send_also_without_a_copy() {
    let Some(mut details) = Details::new("segments") else { return };
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    server.set_read_timeout(Some(TIMEOUT)).unwrap();
    let bytes = pattern(1, 10_500);
    for zero_copy_from in [usize::MAX, 1] {
        let memory = filled(&details.sends, &bytes).freeze_in_place();
        let addressed = Addressed::new(memory, Destination::from(to).segments(1000));
        let options = SendOptions::new().zero_copy_from(zero_copy_from);
        let entry = details.registered.send(&client, addressed, options);
        let sent = run(&mut details.bench.uring, entry);
        assert_eq!((sent.result.unwrap(), sent.buffer.memory().len()), (10_500, 10_500));
        let mut one = [0; 2048];
        for part in bytes.chunks(1000) {
            assert_eq!(server.recv(&mut one).unwrap(), part.len());
            assert_eq!(one[..part.len()], *part);
        }
    }
    // Bad ones fail, and bring the memory back.
    let bad = [
        Destination::from(to).segments(1),
        Destination::from(to).source("192.0.2.1".parse().unwrap()),
        Destination::from("[::1]:9".parse::<SocketAddr>().unwrap()),
    ];
    for destination in bad {
        let addressed = Addressed::new(filled(&details.sends, &bytes), destination);
        let entry = details.registered.send(&client, addressed, SendOptions::new());
        let sent = run(&mut details.bench.uring, entry);
        assert!(sent.result.is_err());
        assert!(sent.buffer.into_memory()[..] == bytes);
    }
    details.end();
}

/// The kernel may still read the header and the memory of one that is dropped: both stay.
#[test]
fn an_addressed_send_that_is_dropped_keeps_its_slot() {
    let Some(mut details) = Details::new("dropped") else { return };
    let (ours, theirs) = (UnixDatagram::unbound().unwrap(), UnixDatagram::unbound().unwrap());
    drop(theirs);
    let nowhere = std::os::unix::net::SocketAddr::from_pathname("/nonexistent/socket").unwrap();
    let addressed = Addressed::new(filled(&details.sends, b"lost"), Address::from(nowhere));
    let (_, operation) = details.registered.send(&ours, addressed, SendOptions::new());
    // SAFETY: not pushed.
    let back = unsafe { operation.not_submitted() };
    let (entry, operation) = details.registered.send(&ours, back, SendOptions::new());
    push(&mut details.bench.uring, &entry.user_data(1));
    drop(operation);
    assert_eq!(details.sends.metrics().quarantined, 1);
    details.bench.uring.submit_and_wait(1).unwrap();
    let completion = details.bench.uring.completion().next().unwrap();
    assert_eq!(completion.result(), -libc::ENOENT);
    let Details { bench, registered, .. } = details;
    registered.unregister(&bench.uring).unwrap();
    bench.end();
}

#[test]
fn details_that_were_not_asked_for_are_none_and_those_that_a_socket_lacks_are_errors() {
    let Some(mut details) = Details::new("details") else { return };
    let (server, client) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let to = server.local_addr().unwrap();
    let one = Addressed::new(Bytes::from_static(b"plain"), to);
    let (datagram, _) = details.exchange(&client, &server, one, SendOptions::new());
    assert_eq!((datagram.to(), datagram.interface(), datagram.ecn()), (None, None, None));
    assert_eq!((datagram.segment_bytes(), datagram.dropped()), (None, None));
    assert!(datagram.timestamp().is_none() && datagram.from_unix().is_none());
    drop(datagram);
    let all = DatagramDetails::new().destination().segments().ecn().timestamps().drops();
    if let Err(error) = all.enable(&server) {
        eprintln!("SKIPPED: {error}");
    } else {
        // All of them at once have room, and the bytes behind them are whole.
        let bytes = pattern(2, 1700);
        let one = Addressed::new(Bytes::from(bytes.clone()), to);
        let (datagram, _) = details.exchange(&client, &server, one, SendOptions::new());
        assert!(datagram.bytes[..] == bytes);
        assert_eq!(datagram.to(), Some(to.ip()));
        assert!(datagram.interface().is_some_and(|index| index > 0));
        assert!(datagram.timestamp().is_some());
    }
    // No datagram socket of the internet, and no socket.
    assert!(DatagramDetails::new().segments().enable(&UnixDatagram::unbound().unwrap()).is_err());
    assert!(DatagramDetails::new().timestamps().enable(&std::io::pipe().unwrap().0).is_err());
    details.end();
}
