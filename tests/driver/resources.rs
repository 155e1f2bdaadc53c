//! Resources that run out: descriptors, room in tables, slots, locked memory. Each is told, and
//! work goes on when they are back.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::support::driver::{build, driver, finish, run};
use crate::support::{arena, assert_all_free};
use uring_arena::{BufferRing, Driver, DriverError, Event, Feature, Probe, SocketError, SocketId};

/// Hands a socket in, which is refused, and returns it.
///
/// It must be the same descriptor, still open, and its peer must not have seen it close.
fn refused(
    take: impl FnOnce(OwnedFd) -> Result<SocketId, SocketError>,
    expected: impl FnOnce(&DriverError) -> bool,
) {
    let (socket, mut peer) = UnixStream::pair().unwrap();
    let fd = socket.as_raw_fd();
    let error = take(socket.into()).unwrap_err();
    assert!(expected(&error.error), "{error}");
    assert_eq!(error.to_string(), error.error.to_string());
    let mut socket = UnixStream::from(error.socket);
    assert_eq!(socket.as_raw_fd(), fd);
    socket.write_all(b"from here").unwrap();
    peer.write_all(b"and back").unwrap();
    let mut bytes = [0; 9];
    peer.read_exact(&mut bytes).unwrap();
    socket.read_exact(&mut bytes[..8]).unwrap();
    assert_eq!(&bytes[..8], b"and back");
}

#[test]
fn a_refused_socket_comes_back_open_whatever_the_reason() {
    let (Some(mut driver), Some(mut other)) = (build(Driver::builder().operations(1)), driver())
    else {
        return;
    };
    let arena = arena(16, 64);
    let options = BufferRing::options().entries(2);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    let theirs = other.register_buffer_ring(&arena, options).unwrap();
    let gone = driver.register_buffer_ring(&arena, options).unwrap();
    driver.unregister_buffer_ring(gone).unwrap();

    let is_other = |error: &DriverError| matches!(error, DriverError::OtherDriver { .. });
    refused(|fd| driver.receive(theirs, fd), is_other);
    refused(|fd| driver.read_pipe(theirs, fd), is_other);
    refused(|fd| driver.receive_datagrams(theirs, fd), is_other);
    let is_unknown = |error: &DriverError| *error == DriverError::UnknownRing;
    refused(|fd| driver.receive(gone, fd), is_unknown);
    refused(|fd| driver.read_pipe(gone, fd), is_unknown);
    refused(|fd| driver.receive_datagrams(gone, fd), is_unknown);
    let tiny = crate::support::arena(4, 44);
    let tiny = driver.register_buffer_ring(&tiny, options).unwrap();
    let is_small = |error: &DriverError| matches!(error, DriverError::SlotTooSmall { .. });
    refused(|fd| driver.receive_datagrams(tiny, fd), is_small);

    let _only = driver.receive(ring, UnixStream::pair().unwrap().0).unwrap();
    let is_full = |error: &DriverError| *error == DriverError::TooManyOperations { limit: 1 };
    refused(|fd| driver.receive(ring, fd), is_full);
    refused(|fd| driver.read_pipe(ring, fd), is_full);
    refused(|fd| driver.receive_datagrams(ring, fd), is_full);
    refused(|fd| driver.accept(fd), is_full);
    finish(driver);
    finish(other);
    assert_all_free(&arena);
}

#[test]
fn a_refused_datagram_socket_is_taken_by_a_driver_that_can() {
    let Ok(probe) = Probe::shared() else { return };
    let Some(mut old) = build(Driver::builder().probe(probe.without(Feature::RecvMultishot)))
    else {
        return;
    };
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 256);
    let options = BufferRing::options().entries(2);
    let ring = old.register_buffer_ring(&arena, options).unwrap();
    let (ours, theirs) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = ours.local_addr().unwrap();
    let refused = old.receive_datagrams(ring, ours).unwrap_err();
    assert!(matches!(refused.error, DriverError::Unsupported { .. }), "{refused}");
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    driver.receive_datagrams(ring, refused.socket).unwrap();
    theirs.send_to(b"ping", address).unwrap();
    run(&mut driver, |event| {
        let Event::Datagram { datagram, .. } = event else { panic!("{event:?}") };
        datagram.bytes == "ping"
    });
    finish(driver);
    finish(old);
    assert_all_free(&arena);
}

#[test]
fn a_refused_listener_loses_no_connection() {
    let (Some(mut full), Some(mut driver)) = (build(Driver::builder().operations(1)), driver())
    else {
        return;
    };
    full.accept(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _client = TcpStream::connect(address).unwrap();
    let refused = full.accept(listener).unwrap_err();
    driver.accept(refused.socket).unwrap();
    run(&mut driver, |event| matches!(event, Event::Accepted { .. }));
    finish(driver);
    finish(full);
}
