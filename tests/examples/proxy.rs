//! The proxy: nothing that one client does is felt by another, and nothing crosses.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
use uring_arena::Probe;

use crate::support::examples::{Program, command, keeps_freed_memory, refuse, succeed};
use crate::support::{TIMEOUT, pattern};

/// Starts a proxy in front of a server of the test's.
///
/// Returns `None` where io_uring is not available.
fn proxy(server: SocketAddr, limits: &str, arguments: &[&str]) -> Option<(Program, SocketAddr)> {
    if let Err(error) = Probe::shared() {
        eprintln!("SKIPPED: {error}");
        return None;
    }
    let to = server.to_string();
    let mut all = vec!["--listen", "127.0.0.1:0", "--to", &to];
    all.extend(arguments);
    let mut program = Program::spawn("proxy", command("proxy", limits, &all));
    let line = program.line("listening on ");
    let address = line.split(',').next().unwrap().parse().unwrap();
    Some((program, address))
}

/// Starts a server that handles each connection on a thread of its own.
fn serve(handle: impl Fn(TcpStream) + Copy + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || handle(socket));
        }
    });
    address
}

/// Starts a server that hands its connections to the test.
fn serve_here() -> (SocketAddr, Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sockets, accepted) = channel();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            if sockets.send(with_watchdog(socket)).is_err() {
                return;
            }
        }
    });
    (address, accepted)
}

fn echo(socket: TcpStream) {
    let _ = std::io::copy(&mut &socket, &mut &socket);
}

/// The answer to a client that asks for much. It is more than the sockets before the client hold.
const ANSWER_BYTES: usize = 8 << 20;

/// Makes an answer, of which each word tells the client and the place.
fn answer_to(client: u8) -> Vec<u8> {
    (0..ANSWER_BYTES as u64 / 8)
        .flat_map(|at| (at << 8 | u64::from(client)).to_le_bytes())
        .collect()
}

/// Answers the number of a client, one byte, with much; and a zero by echoing what follows.
fn answer(mut socket: TcpStream) {
    let mut number = [0];
    if socket.read_exact(&mut number).is_err() {
        return;
    }
    match number[0] {
        0 => echo(socket),
        client => drop(socket.write_all(&answer_to(client))),
    }
}

fn with_watchdog(socket: TcpStream) -> TcpStream {
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket.set_write_timeout(Some(TIMEOUT)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

fn connect(to: SocketAddr) -> TcpStream {
    with_watchdog(TcpStream::connect(to).unwrap())
}

fn accept(sockets: &Receiver<TcpStream>) -> TcpStream {
    sockets.recv_timeout(TIMEOUT).expect("the proxy connects to the server")
}

/// Sends a message and reads the echo.
#[track_caller]
fn check_echo(client: &mut TcpStream, seed: usize, len: usize) {
    let message = pattern(seed, len);
    client.write_all(&message).unwrap();
    let mut answer = vec![0; len];
    client.read_exact(&mut answer).unwrap_or_else(|error| panic!("no echo: {error}"));
    assert!(answer == message, "another client's bytes");
}

fn reset(socket: TcpStream) {
    set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
}

/// Reads to the end. Returns the bytes, and whether a reset followed them.
#[track_caller]
fn read_to_reset(socket: &mut TcpStream) -> (Vec<u8>, bool) {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match socket.read(&mut part) {
            Ok(0) => return (all, false),
            Ok(read) => all.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (all, true),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("neither end nor reset after {} bytes: {error}", all.len()),
        }
    }
}

#[test]
fn clients_of_many_short_messages_end_nobody() {
    // Each message was a send of its own, as many as came: more than the driver had room for.
    let (server, accepted) = serve_here();
    let Some((mut program, address)) = proxy(server, "", &[]) else { return };
    let mut neighbour = connect(address);
    let mut neighbours_server = accept(&accepted);
    const CLIENTS: usize = 4;
    const MESSAGES: usize = 20_000;
    let servers: Vec<(TcpStream, _)> = (0..CLIENTS)
        .map(|number| {
            let mut client = connect(address);
            let send = move || {
                for at in 0..MESSAGES {
                    // A pause, so that each is a message of its own to the proxy too.
                    thread::sleep(Duration::from_micros(1));
                    client.write_all(&[(number + at) as u8; 500]).expect("it is taken, or waits");
                }
            };
            (accept(&accepted), thread::spawn(send))
        })
        .collect();
    // No server reads yet.
    for round in 0..20 {
        thread::sleep(Duration::from_millis(100));
        neighbour.write_all(&[round]).unwrap();
        let mut answer = [0];
        neighbours_server.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [round]);
    }
    assert!(program.is_running());
    for (number, (mut server, client)) in servers.into_iter().enumerate() {
        for at in 0..MESSAGES {
            let mut message = [0; 500];
            server.read_exact(&mut message).unwrap();
            assert_eq!(message, [(number + at) as u8; 500], "client {number}");
        }
        client.join().unwrap();
    }
}

#[test]
fn a_client_may_send_a_byte_at_a_time() {
    let server = serve(echo);
    let Some((_program, address)) = proxy(server, "", &[]) else { return };
    let mut client = connect(address);
    let sent = pattern(1, 29_489);
    let sends = thread::spawn({
        let (mut client, sent) = (client.try_clone().unwrap(), sent.clone());
        move || sent.chunks(1).for_each(|byte| client.write_all(byte).unwrap())
    });
    let mut received = vec![0; sent.len()];
    client.read_exact(&mut received).unwrap();
    assert!(received == sent);
    sends.join().unwrap();
}

#[test]
fn clients_that_do_not_read_hold_up_nobody() {
    // Each kept the slots of its answer; with all slots gone, everybody stood still.
    let server = serve(answer);
    for arguments in [&["--slots", "16"][..], &["--slots", "1"]] {
        let Some((program, address)) = proxy(server, "", arguments) else { return };
        let mut neighbour = connect(address);
        neighbour.write_all(&[0]).unwrap();
        check_echo(&mut neighbour, 0, 10_000);
        let idle = program.descriptors();
        let mut stuck: Vec<TcpStream> = (1..=20).map(|_| connect(address)).collect();
        for (number, client) in (1..).zip(&mut stuck) {
            set_socket_recv_buffer_size(&*client, 1 << 16).unwrap();
            client.write_all(&[number]).unwrap();
        }
        thread::sleep(Duration::from_millis(300));
        for round in 0..10 {
            check_echo(&mut neighbour, round, 100_000);
            let mut late = connect(address);
            late.write_all(&[0]).unwrap();
            check_echo(&mut late, round, 1000);
        }
        // Half of them read after all, and half go.
        for (number, mut client) in (1..).zip(stuck) {
            if number % 2 == 0 {
                let mut answer = vec![0; ANSWER_BYTES];
                client.read_exact(&mut answer).unwrap();
                assert!(answer == answer_to(number), "client {number}");
            }
        }
        check_echo(&mut neighbour, 99, 100_000);
        program.until_descriptors(idle);
    }
}

#[test]
fn a_server_that_does_not_accept_holds_up_nobody_who_is_connected() {
    // The loop called a `connect` that blocked.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let Some((_program, address)) = proxy(to, "", &[]) else { return };
    let mut client = connect(address);
    thread::spawn({
        let server = listener.accept().unwrap().0;
        move || echo(server)
    });
    check_echo(&mut client, 0, 1000);
    // From here on the kernel drops what comes to the server: no answer, not even a refusal.
    rustix::net::listen(&listener, 0).unwrap();
    let waiting: Vec<TcpStream> = (0..6).map(|_| connect(address)).collect();
    thread::sleep(Duration::from_millis(200));
    for round in 0..20 {
        check_echo(&mut client, round, 1000);
    }
    drop(waiting);
}

#[test]
fn short_of_descriptors_clients_wait_and_nothing_crosses() {
    let server = serve(echo);
    let Some((program, address)) = proxy(server, "ulimit -n 64", &["--slots", "16"]) else {
        return;
    };
    let idle = program.descriptors();
    let clients: Vec<_> = (0..60)
        .map(|number| {
            thread::spawn(move || {
                let mut client = connect(address);
                for round in 0..5 {
                    check_echo(&mut client, number * 100 + round, 5000);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    program.until_descriptors(idle);
}

#[test]
fn a_connection_that_cannot_be_set_up_whole_is_not_set_up_at_all() {
    // Descriptors run out at every point of a set-up. The number of the half that stood was given
    // to the next connection, whose server got the bytes of both clients.
    let server = serve(echo);
    let Some((mut program, address)) = proxy(server, "", &[]) else { return };
    let mut first = connect(address);
    check_echo(&mut first, 0, 1000);
    let idle = program.descriptors();
    for room in (0..=9).rev() {
        program.leave_descriptors(room);
        let mut unlucky = connect(address);
        let bytes = pattern(1, 3000);
        let mut answer = vec![0; bytes.len()];
        // Served, refused, or waiting.
        unlucky.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let outcome = unlucky.write_all(&bytes).and_then(|()| unlucky.read_exact(&mut answer));
        assert!(outcome.is_err() || answer == bytes, "another client's bytes");
        check_echo(&mut first, 2, 1000);

        program.limit_descriptors(4096);
        let mut next = connect(address);
        check_echo(&mut next, 3, 1000);
        // An error means that it was refused.
        let _ = unlucky.write_all(&bytes);
        thread::sleep(Duration::from_millis(50));
        check_echo(&mut next, 4, 100_000);
        check_echo(&mut first, 5, 1000);
        drop((unlucky, next));
        program.until_descriptors(idle);
    }
    assert!(program.is_running());
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    let (server, accepted) = serve_here();
    let Some((program, address)) = proxy(server, "", &[]) else { return };
    let idle = program.descriptors();
    // By the client, by the server, and each time behind bytes.
    for from_client in [true, false] {
        let client = connect(address);
        let server = accept(&accepted);
        let (mut from, mut to) = if from_client { (client, server) } else { (server, client) };
        // A server that resets before the proxy has its connection is one that refuses.
        from.write_all(b"!").unwrap();
        to.read_exact(&mut [0]).unwrap();
        let sent = pattern(7, 3000);
        from.write_all(&sent).unwrap();
        reset(from);
        let (received, was_reset) = read_to_reset(&mut to);
        assert!(was_reset, "the end looked like a proper one");
        assert!(received == sent, "{} of {} bytes before the reset", received.len(), sent.len());
        drop(to);
        program.until_descriptors(idle);
    }
}

#[test]
fn a_reset_reaches_a_peer_that_does_not_read_and_frees_everything() {
    let (server, accepted) = serve_here();
    let Some((program, address)) = proxy(server, "", &["--slots", "8"]) else { return };
    let idle = program.descriptors();
    for from_client in [true, false] {
        let client = connect(address);
        let server = accept(&accepted);
        let (mut from, mut to) = if from_client { (client, server) } else { (server, client) };
        from.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        while from.write(&[7; 1 << 16]).is_ok() {}
        reset(from);
        // Nobody read or wrote on the other side, and yet the connection goes.
        program.until_descriptors(idle);
        assert!(read_to_reset(&mut to).1, "the end looked like a proper one");
    }
}

#[test]
fn a_reset_behind_a_half_close_is_passed_on() {
    let (server, accepted) = serve_here();
    let Some((program, address)) = proxy(server, "", &[]) else { return };
    let idle = program.descriptors();
    for from_client in [true, false] {
        let client = connect(address);
        let server = accept(&accepted);
        let (mut from, mut to) = if from_client { (client, server) } else { (server, client) };
        from.write_all(b"and out").unwrap();
        from.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_reset(&mut to), (b"and out".to_vec(), false));
        // Nothing is sent to it and nothing is received from it: nothing tells of its reset.
        reset(from);
        program.until_descriptors(idle);
        let until = Instant::now() + TIMEOUT;
        while to.write_all(b"still there?").is_ok() {
            assert!(Instant::now() < until, "the end looked like a proper one");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_half_close_is_passed_on_and_the_other_half_goes_on() {
    let (server, accepted) = serve_here();
    let Some((program, address)) = proxy(server, "", &[]) else { return };
    let idle = program.descriptors();
    for client_first in [true, false] {
        for first_bytes in [0, 200_000] {
            let client = connect(address);
            let server = accept(&accepted);
            let (mut first, mut last) =
                if client_first { (client, server) } else { (server, client) };
            let (question, answer) = (pattern(1, first_bytes), pattern(2, 1 << 20));
            first.write_all(&question).unwrap();
            first.shutdown(Shutdown::Write).unwrap();
            assert!(read_to_reset(&mut last) == (question, false));
            let sends = thread::spawn({
                let answer = answer.clone();
                move || last.write_all(&answer).unwrap()
            });
            assert!(read_to_reset(&mut first) == (answer, false));
            sends.join().unwrap();
            drop(first);
            program.until_descriptors(idle);
        }
    }
}

#[test]
fn a_server_that_refuses_is_a_reset_for_the_client_and_for_nobody_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let Some((mut program, address)) = proxy(to, "", &[]) else { return };
    let mut client = connect(address);
    thread::spawn({
        let server = listener.accept().unwrap().0;
        move || echo(server)
    });
    check_echo(&mut client, 0, 1000);
    let idle = program.descriptors();
    drop(listener);
    for _ in 0..3 {
        let (received, was_reset) = read_to_reset(&mut connect(address));
        assert!(was_reset && received.is_empty());
    }
    let line = program.error_line("a client was refused: ");
    assert!(line.contains("refused"), "{line}");
    check_echo(&mut client, 1, 1000);
    program.until_descriptors(idle);
}

#[test]
fn past_connections_leave_nothing_behind() {
    // Each left 80 bytes for ever.
    let server = serve(|mut socket| {
        let _ = socket.read(&mut [0]);
    });
    let Some((program, address)) = proxy(server, "", &[]) else { return };
    let come_and_go = |count, most_descriptors| {
        for number in 0..count {
            let mut client = connect(address);
            client.write_all(&[1]).unwrap();
            // A proper end of some, and a reset of the rest, so that few ports are kept waiting.
            if number % 16 == 0 {
                assert_eq!(read_to_reset(&mut client), (vec![], false));
            }
            reset(client);
        }
        program.until_descriptors(most_descriptors);
    };
    // The first connection may bring descriptors that stay.
    let idle = program.descriptors();
    come_and_go(1, idle + 2);
    let idle = program.descriptors();
    come_and_go(1500, idle);
    if keeps_freed_memory() {
        return;
    }
    let before = program.memory_kib();
    come_and_go(4000, idle);
    let grown = program.memory_kib().saturating_sub(before);
    assert!(grown < 160, "{grown} KiB for 4,000 connections that are over");
}

#[test]
fn a_burst_of_connections_finds_room_in_the_queue() {
    // The queue had 128 places. A client that finds it full is ignored, and knocks a second later.
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    if somaxconn.trim().parse::<usize>().unwrap() < 500 {
        return eprintln!("SKIPPED: this machine keeps queues shorter: {somaxconn}");
    }
    let server = serve(echo);
    let Some((program, address)) = proxy(server, "", &[]) else { return };
    program.stop();
    let second = Duration::from_secs(1);
    let mut clients: Vec<TcpStream> = (0..400)
        .map(|number| match TcpStream::connect_timeout(&address, second) {
            Ok(client) => with_watchdog(client),
            Err(error) => panic!("client {number}: {error}"),
        })
        .collect();
    program.go_on();
    for (seed, client) in clients.iter_mut().enumerate() {
        check_echo(client, seed, 100);
    }
}

#[test]
fn more_clients_than_asked_for_wait() {
    let server = serve(echo);
    let Some((program, address)) = proxy(server, "", &["--clients", "40"]) else { return };
    let idle = program.descriptors();
    let mut clients: Vec<TcpStream> = (0..40).map(|_| connect(address)).collect();
    let mut late = connect(address);
    for (seed, client) in clients.iter_mut().enumerate() {
        check_echo(client, seed, 2000);
    }
    // The 41st waits until one is gone.
    late.write_all(b"?").unwrap();
    late.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(late.read(&mut [0]).is_err(), "--clients holds");
    drop(clients.pop());
    late.set_read_timeout(Some(TIMEOUT)).unwrap();
    late.read_exact(&mut [0]).unwrap();
    drop((late, clients));
    program.until_descriptors(idle);
}

#[test]
fn the_proxy_verifies_itself() {
    for arguments in [
        &["--bytes", "0"][..],
        &["--bytes", "7", "--connections", "3"],
        &["--bytes", "3000000", "--slots", "1"],
        &["--bytes", "8M", "--slots", "3", "--slot-bytes", "100", "--connections", "50"],
        &["--bytes", "16M", "--zero-copy-from", "0"],
    ] {
        let output = succeed("proxy", arguments);
        assert!(output.contains("verified "), "{output}");
    }
}

#[test]
fn a_proxy_that_leads_to_itself_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = refuse("proxy", &["--listen", &address, "--to", &address]);
    assert!(error.contains("the proxy itself"), "{error}");
}
