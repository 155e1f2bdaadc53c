//! The receive loop that serves clients of other programs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use uring_arena::Probe;

use crate::support::examples::{Program, command, keeps_freed_memory};
use crate::support::{TIMEOUT, pattern};

/// Starts a server. Returns `None` where io_uring is not available.
fn server(arguments: &[&str]) -> Option<(Program, String)> {
    if let Err(error) = Probe::shared() {
        eprintln!("SKIPPED: {error}");
        return None;
    }
    let arguments = [&["--listen", "127.0.0.1:0"], arguments].concat();
    let mut program = Program::spawn("recv_loop", command("recv_loop", "", &arguments));
    let address = program.line("listening on ");
    Some((program, address))
}

/// Sends bytes, and waits for the line with their checksum.
fn send(program: &mut Program, address: &str, bytes: &[u8]) {
    let mut client = TcpStream::connect(address).unwrap();
    let name = client.local_addr().unwrap().to_string();
    client.write_all(bytes).unwrap();
    drop(client);
    let line = program.line(&format!("{name}: "));
    assert!(line.contains(&format!("CRC-32C {:08x}", crc32c::crc32c(bytes))), "{line}");
}

#[test]
fn short_of_descriptors_clients_wait_and_the_server_goes_on() {
    let Some((mut program, address)) = server(&[]) else { return };
    send(&mut program, &address, &pattern(1, 10_000));
    let idle = program.descriptors();
    for room in 0..4 {
        program.leave_descriptors(room);
        let clients: Vec<TcpStream> =
            (0..6).map(|_| TcpStream::connect(&address).unwrap()).collect();
        thread::sleep(Duration::from_millis(200));
        assert!(program.is_running());
        drop(clients);
        program.limit_descriptors(4096);
        send(&mut program, &address, &pattern(2, 100_000));
        program.until_descriptors(idle);
    }
}

#[test]
fn past_connections_leave_nothing_behind() {
    let Some((program, address)) = server(&[]) else { return };
    let idle = program.descriptors();
    let come_and_go = |count| {
        for _ in 0..count {
            let client = TcpStream::connect(&address).unwrap();
            rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        }
        program.until_descriptors(idle);
    };
    come_and_go(1000);
    if keeps_freed_memory() {
        return;
    }
    let before = program.memory_kib();
    come_and_go(3000);
    let grown = program.memory_kib().saturating_sub(before);
    assert!(grown < 128, "{grown} KiB for 3,000 connections that are over");
}

#[test]
fn the_server_stops_after_as_many_connections_as_asked() {
    let Some((mut program, address)) = server(&["--connections", "2"]) else { return };
    let mut stays = TcpStream::connect(&address).unwrap();
    stays.set_read_timeout(Some(TIMEOUT)).unwrap();
    send(&mut program, &address, b"one");
    send(&mut program, &address, b"");
    assert_eq!(program.wait().code, Some(0));
    assert!(!matches!(stays.read(&mut [0]), Ok(1..)));
}

#[test]
fn the_output_names_the_work_and_compares_with_plain_reads() {
    if let Err(error) = Probe::shared() {
        return eprintln!("SKIPPED: {error}");
    }
    let arguments = ["--bytes", "64M", "--connections", "4", "--compare"];
    let output = command("recv_loop", "", &arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for words in [
        "work       4 connections, 16777216 bytes on each",
        "CPU s/GB (receiving thread)",
        "compare    plain read: ",
        "compare    tokio: ",
        "of its CPU",
        "a connection waited for its turn",
        "verified ",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
}
