//! Connections that the driver makes: they end in the same id, or say why not.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::io::ioctl_fionbio;
use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
use uring_arena::{Address, BufferRing, BufferRingId, Driver, DriverError, Event, FixedArena};

use crate::support::driver::{driver, finish, run};
use crate::support::{TIMEOUT, TestFile, arena, assert_all_free, watched};

fn with_ring() -> Option<(Driver, FixedArena, BufferRingId)> {
    let mut driver = driver()?;
    let arena = arena(16, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(8)).unwrap();
    Some((driver, arena, ring))
}

#[test]
fn a_connection_is_made_and_what_was_sent_before_goes_out() {
    let Some((mut driver, arena, ring)) = with_ring() else { return };
    let path = TestFile::path("connect-to");
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [
        Address::from(tcp.local_addr().unwrap()),
        Address::from(UnixAddress::from_pathname(&path).unwrap()),
    ];
    let server = std::thread::spawn(move || {
        let echo = |read: &mut dyn Read, write: &mut dyn Write| {
            let mut text = [0; 8];
            read.read_exact(&mut text).unwrap();
            write.write_all(&text).unwrap();
        };
        let (stream, _) = tcp.accept().unwrap();
        echo(&mut &stream, &mut &stream);
        drop(stream);
        let (stream, _) = unix.accept().unwrap();
        echo(&mut &stream, &mut &stream);
    });
    for (token, address) in (1..).zip(addresses) {
        let id = driver.connect(ring, address, token).unwrap();
        driver.send(id, Bytes::from_static(b"be")).unwrap();
        driver.send(id, Bytes::from_static(b"fore")).unwrap();
        let (mut told, mut echo) = (Vec::new(), Vec::new());
        run(&mut driver, |event| {
            match event {
                Event::Connected { token: of, .. } => told.push(("connected", of)),
                Event::Sent { token: of, result, .. } => {
                    result.unwrap();
                    told.push(("sent", of));
                }
                Event::Received { token: of, bytes, .. } => {
                    assert_eq!(of, token);
                    echo.extend_from_slice(&bytes);
                }
                other => panic!("{other:?}"),
            }
            told.len() == 3
        });
        assert_eq!(told, [("connected", token), ("sent", token), ("sent", token)]);
        driver.send(id, Bytes::from_static(b"ab")).unwrap();
        run(&mut driver, |event| match event {
            Event::Received { bytes, .. } => {
                echo.extend_from_slice(&bytes);
                false
            }
            Event::Closed { error, .. } => error.is_none(),
            _ => false,
        });
        assert_eq!(echo, b"beforeab");
    }
    server.join().unwrap();
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_connection_that_is_refused_fails_what_was_to_be_sent() {
    let Some((mut driver, arena, ring)) = with_ring() else { return };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nowhere = UnixAddress::from_pathname("/nonexistent/socket").unwrap();
    for (address, kind) in [
        (Address::from(closed), ErrorKind::ConnectionRefused),
        (Address::from(nowhere), ErrorKind::NotFound),
    ] {
        let id = driver.connect(ring, address, 7).unwrap();
        driver.send(id, Bytes::from_static(b"never")).unwrap();
        let mut failed = false;
        run(&mut driver, |event| match event {
            Event::Sent { result, sent, .. } => {
                failed = result.is_err() && sent == 0;
                false
            }
            Event::Closed { id: closed, token, error, .. } => {
                assert_eq!((closed, token, error.unwrap().kind()), (id, 7, kind));
                true
            }
            other => panic!("{other:?}"),
        });
        assert!(failed, "what was to be sent failed before");
    }
    finish(driver);
    assert_all_free(&arena);
}

/// A server that accepts nothing, with a queue that is full: connects to it go on for minutes.
struct Deaf {
    address: Address,
    _listener: std::os::fd::OwnedFd,
    _waiting: Vec<std::os::fd::OwnedFd>,
}

impl Deaf {
    fn tcp() -> Deaf {
        let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listen(&listener, 0).unwrap();
        let address = TcpListener::from(listener.try_clone().unwrap()).local_addr().unwrap();
        // The kernel lets one in beyond the length of the queue.
        let waiting = (0..1).map(|_| std::net::TcpStream::connect(address).unwrap().into());
        let waiting = waiting.collect();
        Deaf { address: address.into(), _listener: listener, _waiting: waiting }
    }

    /// Accepts and keeps connections on a thread, which ends a while after the last one.
    fn accept_all(&self) -> JoinHandle<()> {
        let listener = self._listener.try_clone().unwrap();
        ioctl_fionbio(&listener, true).unwrap();
        std::thread::spawn(move || {
            let (mut kept, mut last) = (Vec::new(), Instant::now());
            while last.elapsed() < TIMEOUT / 4 && kept.len() < 2 {
                if let Ok(socket) = rustix::net::accept(&listener) {
                    (last, _) = (Instant::now(), kept.push(socket));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    }

    fn unix() -> Deaf {
        let name = format!("uring-arena deaf {} {:?}", std::process::id(), Instant::now());
        use std::os::linux::net::SocketAddrExt;
        let address = UnixAddress::from_abstract_name(name).unwrap();
        let listener: std::os::fd::OwnedFd = UnixListener::bind_addr(&address).unwrap().into();
        listen(&listener, 0).unwrap();
        let waiting = vec![UnixStream::connect_addr(&address).unwrap().into()];
        Deaf { address: address.into(), _listener: listener, _waiting: waiting }
    }
}

#[test]
fn a_connect_that_nobody_answers_is_given_up_in_time_and_can_be_closed_and_drained() {
    watched(|| {
        for deaf in [Deaf::tcp, Deaf::unix] {
            let Some((mut driver, arena, ring)) = with_ring() else { return };
            let deaf = deaf();
            let id = driver.connect(ring, deaf.address.clone(), 7).unwrap();
            let at = Instant::now() + Duration::from_millis(50);
            driver.set_connect_deadline(id, at + TIMEOUT).unwrap();
            driver.set_connect_deadline(id, at).unwrap();
            driver.send(id, Bytes::from_static(b"never")).unwrap();
            run(&mut driver, |event| match event {
                Event::Closed { error, .. } => {
                    assert_eq!(error.unwrap().kind(), ErrorKind::TimedOut);
                    true
                }
                Event::Sent { result, .. } => result.is_ok(),
                other => panic!("{other:?}"),
            });
            assert!(Instant::now() >= at);
            // It waits without a turn after the other.
            let id = driver.connect(ring, deaf.address.clone(), 7).unwrap();
            let before = driver.metrics().enters;
            let until = Instant::now() + Duration::from_millis(60);
            while Instant::now() < until {
                driver.wait_timeout(Duration::from_millis(60)).unwrap();
                assert!(driver.next().is_none());
            }
            assert!(driver.metrics().enters < before + 10, "{:?}", driver.metrics());
            driver.pause(id).unwrap();
            driver.close(id).unwrap();
            run(&mut driver, |event| matches!(event, Event::Closed { error: None, .. }));
            let id = driver.connect(ring, deaf.address.clone(), 7).unwrap();
            driver.abort(id).unwrap();
            run(&mut driver, |event| matches!(event, Event::Closed { error: None, .. }));
            driver.connect(ring, deaf.address.clone(), 7).unwrap();
            let report = driver.drain(TIMEOUT).unwrap();
            assert_eq!((report.in_flight, report.closed), (0, 1));
            drop(driver);
            assert_all_free(&arena);
        }
    });
}

#[test]
fn a_connect_that_is_closed_gives_up_what_was_to_be_sent() {
    watched(|| {
        for deaf in [Deaf::tcp, Deaf::unix] {
            let Some((mut driver, arena, ring)) = with_ring() else { return };
            let deaf = deaf();
            for is_shut_down in [false, true] {
                let id = driver.connect(ring, deaf.address.clone(), 7).unwrap();
                driver.send(id, Bytes::from_static(b"never")).unwrap();
                driver.send(id, Bytes::from_static(b"ever")).unwrap();
                if is_shut_down {
                    driver.shutdown_write(id).unwrap();
                }
                driver.wait_timeout(Duration::from_millis(5)).unwrap();
                driver.close(id).unwrap();
                let mut given_up = 0;
                run(&mut driver, |event| match event {
                    Event::Sent { result, sent: 0, .. } => {
                        given_up += usize::from(result.is_err());
                        false
                    }
                    Event::Done { result, .. } => {
                        given_up += usize::from(result.is_err());
                        false
                    }
                    Event::Closed { error, .. } => {
                        assert!(error.is_none(), "the program has closed it");
                        true
                    }
                    other => panic!("{other:?}"),
                });
                assert_eq!(given_up, 2 + usize::from(is_shut_down), "before the end");
            }
            finish(driver);
            assert_all_free(&arena);
        }
    });
}

#[test]
fn a_send_that_is_given_up_before_the_connection_lets_no_other_go_too_early() {
    watched(|| {
        for deaf in [Deaf::tcp, Deaf::unix] {
            let Some((mut driver, arena, ring)) = with_ring() else { return };
            let deaf = deaf();
            let id = driver.connect(ring, deaf.address.clone(), 7).unwrap();
            let first = driver.send(id, Bytes::from_static(b"given up")).unwrap();
            let second = driver.send(id, Bytes::from_static(b"late")).unwrap();
            let third = driver.send(id, Bytes::from_static(b"sent")).unwrap();
            driver.cancel_operation(first).unwrap();
            driver.set_deadline(second, Instant::now()).unwrap();
            for expected in [first, second] {
                run(&mut driver, |event| {
                    let Event::Sent { id, result, .. } = event else { panic!("{event:?}") };
                    assert!(id == expected && result.is_err(), "{result:?}");
                    true
                });
            }
            for _ in 0..5 {
                driver.wait_timeout(Duration::from_millis(5)).unwrap();
                let event = driver.next();
                assert!(event.is_none(), "there is no connection: {event:?}");
            }
            // Now the server takes connections.
            let accepting = deaf.accept_all();
            let mut is_sent = false;
            run(&mut driver, |event| match event {
                Event::Connected { .. } => false,
                Event::Sent { id, result, .. } => {
                    assert_eq!((id, result.unwrap()), (third, 4));
                    is_sent = true;
                    true
                }
                other => panic!("{other:?}"),
            });
            assert!(is_sent);
            accepting.join().unwrap();
            driver.close(id).unwrap();
            run(&mut driver, |event| matches!(event, Event::Closed { .. }));
            finish(driver);
            assert_all_free(&arena);
        }
    });
}

#[test]
fn a_listener_is_made_and_told_of_each_peer() {
    let Some((mut driver, arena, ring)) = with_ring() else { return };
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let address: SocketAddr = address.parse().unwrap();
        let listener = match driver.listen(address, 3) {
            Ok(listener) => listener,
            Err(error) if address.is_ipv6() => {
                eprintln!("SKIPPED: no IPv6: {error}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let socket = driver.socket(listener).unwrap().try_clone_to_owned().unwrap();
        let address = TcpListener::from(socket).local_addr().unwrap();
        let id = driver.connect(ring, address, 4).unwrap();
        let mut ours = None;
        let mut peer = None;
        run(&mut driver, |event| {
            match event {
                Event::Connected { .. } => ours = Some(id),
                Event::Accepted { token, from, socket, .. } => {
                    assert_eq!(token, 3);
                    peer = Some((from.unwrap(), socket));
                }
                other => panic!("{other:?}"),
            }
            ours.is_some() && peer.is_some()
        });
        let socket = driver.socket(id).unwrap().try_clone_to_owned().unwrap();
        let ours = std::net::TcpStream::from(socket).local_addr().unwrap();
        assert_eq!(peer.unwrap().0, ours);
        let error = driver.listen(address, 0).unwrap_err();
        let in_use = DriverError::System { action: "listening", errno: libc::EADDRINUSE };
        assert_eq!(error, in_use);
        driver.close(listener).unwrap();
        let mut closed = 0;
        run(&mut driver, |event| {
            closed += usize::from(matches!(event, Event::Closed { .. }));
            closed == 2
        });
    }
    finish(driver);
    assert_all_free(&arena);
}
