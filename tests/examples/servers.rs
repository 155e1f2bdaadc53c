//! The servers on the driver: a DNS server, a log and a broker, with clients of somebody else's.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::is_available;
use crate::support::examples::{Program, refuse, succeed};
use crate::support::{TIMEOUT, TestFile, pattern};

#[test]
fn each_verifies_itself() {
    if !is_available() {
        return;
    }
    let output = succeed("dns_server", &["--queries", "5000", "--names", "50"]);
    assert!(output.contains("verified 5000 answers about 51 names"), "{output}");
    let output = succeed("broker", &["--subscribers", "50", "--messages", "40"]);
    assert!(output.contains("verified 2000 messages"), "{output}");
    // Messages that span slots, and slots with many messages.
    for bytes in ["100000", "1"] {
        let output =
            succeed("broker", &["--subscribers", "5", "--messages", "30", "--bytes", bytes]);
        assert!(output.contains("verified 150 messages"), "{output}");
    }
    for (example, arguments, named) in [
        ("dns_server", &["--listen", "nonsense"][..], "ADDRESS:PORT"),
        ("dns_server", &["--listen", "127.0.0.1:0", "--queries", "3"], "--queries"),
        ("dns_server", &["--listen", "192.0.2.1:53"], "192.0.2.1:53"),
        ("broker", &["--listen", "127.0.0.1:0", "--messages", "3"], "--messages"),
        ("broker", &["--bytes", "2M"], "at most 1048576"),
        ("broker", &["--listen", "192.0.2.1:7000"], "192.0.2.1:7000"),
        ("log_store", &["--record-bytes", "4077"], "at most 4076"),
        ("log_store", &["/no/such/folder/log"], "/no/such/folder/log"),
    ] {
        let error = refuse(example, arguments);
        assert!(error.contains(named), "{example} {arguments:?}: {error}");
    }
}

#[test]
fn a_log_survives_a_crash_at_every_point() {
    if !is_available() {
        return;
    }
    for arguments in
        [&["--records", "300"][..], &["--records", "3000", "--record-bytes", "90", "--depth", "7"]]
    {
        let output = succeed("log_store", &[&["--buffered"], arguments].concat());
        let crashes = output.split("the log after ").nth(1).and_then(|it| it.split(' ').next());
        assert!(crashes.unwrap().parse::<u64>().unwrap() > 100, "{output}");
    }
    let path = TestFile::path("log-store");
    let name = path.as_ref().to_str().unwrap();
    succeed("log_store", &["--records", "100", "--buffered", name]);
    assert!(path.open().metadata().unwrap().len() >= 100 * 20);
    // A disk without room.
    let error = refuse("log_store", &["--buffered", "--records", "10", "/dev/full"]);
    assert!(!error.contains("panicked"), "{error}");
}

/// Asks for an address. Returns the response code, and the last four bytes.
fn ask(client: &UdpSocket, server: &str, message: &[u8]) -> Option<(u8, Vec<u8>)> {
    client.send_to(message, server).unwrap();
    let mut answer = [0; 512];
    let bytes = client.recv(&mut answer).ok()?;
    assert_eq!(answer[..2], message[..2]);
    Some((answer[3] & 15, answer[bytes.saturating_sub(4)..bytes].to_vec()))
}

#[test]
fn a_dns_server_answers_strangers_and_survives_nonsense() {
    if !is_available() {
        return;
    }
    let mut program = Program::start("dns_server", &["--listen", "127.0.0.1:0"]);
    let address = program.line("listening on ");
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    let question = |name: &[u8], kind: u8| {
        let head = [7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&head[..], name, &[0, kind, 0, 1]].concat()
    };
    let known = b"\x03WWW\x07example\x04test\0";
    let expected = Some((0, vec![192, 0, 2, 1]));
    assert_eq!(ask(&client, &address, &question(known, 1)), expected);
    // Another type of a known name: no error, and no address.
    assert_eq!(ask(&client, &address, &question(known, 28)).unwrap().0, 0);
    assert_eq!(ask(&client, &address, &question(b"\x02no\0", 1)).unwrap().0, 3);
    // A name without an end, with a pointer, with labels that are too long; no question, two.
    for name in [&b"\x3fx"[..], b"\xc0\x0c", &[5; 300], b""] {
        let message = question(name, 1);
        assert_eq!(ask(&client, &address, &message[..message.len() - 4]).unwrap().0, 1);
    }
    let mut two = question(known, 1);
    two[5] = 2;
    assert_eq!(ask(&client, &address, &two).unwrap().0, 1);
    let mut update = question(known, 1);
    update[2] = 5 << 3;
    assert_eq!(ask(&client, &address, &update).unwrap().0, 4);
    // No answer to what is no question: nobody is to be flooded.
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    for message in [&[][..], &[1, 2, 3], &[7, 9, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        assert_eq!(ask(&client, &address, message), None);
    }
    for seed in 0..200 {
        client.send_to(&pattern(seed, seed * 7 % 900), &address).unwrap();
    }
    // What they were answered, if anything.
    while client.recv(&mut [0; 512]).is_ok() {}
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    assert_eq!(ask(&client, &address, &question(known, 1)), expected);
    let port = address.rsplit(':').next().unwrap();
    let dig =
        Command::new("dig").args(["@127.0.0.1", "-p", port, "+short", "h3.example.test"]).output();
    match dig {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "10.0.0.3"),
        Err(error) => eprintln!("SKIPPED dig: {error}"),
    }
}

fn client(address: &str, line: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    client.write_all(line.as_bytes()).unwrap();
    client
}

fn message(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text].concat()
}

#[test]
fn a_broker_keeps_topics_apart_and_drops_who_says_or_takes_nothing() {
    if !is_available() {
        return;
    }
    let mut program =
        Program::start("broker", &["--listen", "127.0.0.1:0", "--idle", "3", "--slots", "256"]);
    let address = program.line("listening on ");
    let mut news = client(&address, "SUB news\n");
    let mut other = client(&address, "SUB other\n");
    let mut never_reads = client(&address, "SUB news\n");
    let mut says_nothing = client(&address, "PUB news\n");
    let mut nonsense = client(&address, "GET / HTTP/1.1\r\n\r\n");
    let mut too_long = client(&address, "PUB news\n");
    too_long.write_all(&[0xFF; 4]).unwrap();
    let is_gone = |client: &mut TcpStream| match client.read(&mut [0]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    assert!(is_gone(&mut nonsense) && is_gone(&mut too_long));
    assert!(is_gone(&mut says_nothing), "nothing was said");
    // Two publishers, a byte at a time and all at once: messages do not mix.
    let mut slow = client(&address, "PUB ne");
    thread::sleep(Duration::from_millis(20));
    slow.write_all(b"ws\n").unwrap();
    let mut fast = client(&address, "PUB news\n");
    for byte in message(b"slowly") {
        slow.write_all(&[byte]).unwrap();
        fast.write_all(&message(b"fast")).unwrap();
        thread::sleep(Duration::from_millis(5));
    }
    let mut counts = [0; 2];
    while counts != [1, 10] {
        let mut head = [0; 4];
        news.read_exact(&mut head).unwrap();
        let mut text = vec![0; u32::from_be_bytes(head) as usize];
        news.read_exact(&mut text).unwrap();
        match &text[..] {
            b"slowly" => counts[0] += 1,
            b"fast" => counts[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    // One that reads gets everything while the other does not read, and is dropped.
    let mut whole = vec![0; 100_004];
    for seed in 0..200 {
        let published = message(&pattern(seed, 100_000));
        fast.write_all(&published).unwrap();
        news.read_exact(&mut whole).unwrap();
        assert!(whole == published);
    }
    // Looked at without reading: a byte that is taken would be progress.
    let until = Instant::now() + TIMEOUT;
    let has_ended = |client: &TcpStream| {
        let mut polled = [PollFd::new(client, PollFlags::empty())];
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
        polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    };
    while !has_ended(&never_reads) {
        assert!(Instant::now() < until, "it is not dropped");
        thread::sleep(Duration::from_millis(50));
    }
    let error = loop {
        if let Err(error) = never_reads.read(&mut [0; 1 << 16]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    news.shutdown(Shutdown::Both).unwrap();
    other.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert_eq!(other.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(program.is_running());
}
