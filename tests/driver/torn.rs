//! Streams that were torn: a write or send that ended part-way lets nothing follow it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use crate::support::driver::{driver, finish, run};
use crate::support::limits::run_alone;
use crate::support::{TestFile, assert_all_free, filled, paged_arena, pattern, read_all, tcp_pair};
use bytes::Bytes;
use uring_arena::{Driver, Event, FileId, OperationId, Payload, SendOptions};

/// The end of a write or send.
struct End {
    id: OperationId,
    result: io::Result<usize>,
    /// The bytes that were moved, also before an error.
    moved: usize,
    payload: Payload,
}

impl End {
    fn of(event: Event) -> End {
        match event {
            Event::Sent { id, result, sent: moved, payload, .. }
            | Event::Wrote { id, result, written: moved, payload, .. } => {
                End { id, result, moved, payload }
            }
            other => panic!("{other:?}"),
        }
    }

    fn errno(&self) -> Option<i32> {
        self.result.as_ref().unwrap_err().raw_os_error()
    }

    #[track_caller]
    fn assert_refused_behind_a_tear(&self) {
        let error = self.result.as_ref().unwrap_err();
        assert_eq!((error.kind(), self.moved), (ErrorKind::BrokenPipe, 0));
        assert!(error.to_string().contains("ended after"), "{error}");
        assert!(!self.payload.as_ref().is_empty(), "the memory comes back");
    }
}

/// Takes the ends of `count` writes and sends, by the order of `ids`.
fn ends(driver: &mut Driver, ids: &[OperationId]) -> Vec<End> {
    let mut ends = Vec::new();
    run(driver, |event| {
        ends.push(End::of(event));
        ends.len() == ids.len()
    });
    ends.sort_by_key(|end| ids.iter().position(|id| *id == end.id).unwrap());
    ends
}

/// Turns the driver until the peer has bytes to read.
fn until_bytes_came(driver: &mut Driver, peer: &impl AsRawFd) {
    for _ in 0..10_000 {
        let mut bytes = 0i32;
        // SAFETY: writes one number, which is live.
        unsafe { libc::ioctl(peer.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
        if bytes > 0 {
            // Once more, so that the socket is full and the kernel has what is left.
            driver.wait_timeout(Duration::from_millis(20)).unwrap();
            return;
        }
        // A first try may have been refused: taking events begins the next one.
        assert!(driver.next().is_none());
        driver.wait_timeout(Duration::from_millis(2)).unwrap();
    }
    panic!("no byte came");
}

/// A stream with a reader that does not read yet.
struct Stream {
    name: &'static str,
    ours: OwnedFd,
    theirs: File,
}

fn streams() -> Vec<Stream> {
    let (tcp, tcp_peer) = tcp_pair();
    let (unblocking, unblocking_peer) = tcp_pair();
    unblocking.set_nonblocking(true).unwrap();
    let (unix, unix_peer) = UnixStream::pair().unwrap();
    let (pipe_reader, pipe) = std::io::pipe().unwrap();
    let file = |fd: OwnedFd| File::from(fd);
    vec![
        Stream { name: "tcp", ours: tcp.into(), theirs: file(tcp_peer.into()) },
        Stream {
            name: "not blocking",
            ours: unblocking.into(),
            theirs: file(unblocking_peer.into()),
        },
        Stream { name: "unix", ours: unix.into(), theirs: file(unix_peer.into()) },
        Stream { name: "pipe", ours: pipe.into(), theirs: file(pipe_reader.into()) },
    ]
}

/// The operation that puts bytes on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Put {
    Write,
    Send,
    SendZeroCopy,
}

impl Put {
    fn begin(self, driver: &mut Driver, file: FileId, memory: impl Into<Payload>) -> OperationId {
        let from = if self == Put::SendZeroCopy { 1 } else { usize::MAX };
        match self {
            Put::Write => driver.write(file, memory, 0).unwrap(),
            _ => {
                let options = SendOptions::new().zero_copy_from(from);
                driver.send_with(file, memory, options).unwrap()
            }
        }
    }
}

/// Runs `test` on each stream with each operation that it takes.
fn for_each_stream(mut test: impl FnMut(Driver, Stream, Put)) {
    for put in [Put::Write, Put::Send, Put::SendZeroCopy] {
        for stream in streams() {
            if stream.name == "pipe" && put != Put::Write {
                continue;
            }
            let Some(driver) = driver() else { return };
            eprintln!("{} {put:?}", stream.name);
            test(driver, stream, put);
        }
    }
}

#[test]
fn after_a_cancelled_part_nothing_follows_and_the_part_is_told() {
    for_each_stream(|mut driver, stream, put| {
        let arena = paged_arena(4, 16 << 20);
        driver.register(&arena).unwrap();
        let file = driver.add_file(stream.ours).unwrap();
        let content = pattern(1, 1 << 20).repeat(16);
        let first = put.begin(&mut driver, file, filled(&arena, &content));
        until_bytes_came(&mut driver, &stream.theirs);
        // These wait; they were taken before anybody knew of the tear.
        let behind = put.begin(&mut driver, file, filled(&arena, b"behind"));
        let mixed = if put == Put::Write { Put::Write } else { Put::Send };
        let mixed = mixed.begin(&mut driver, file, Bytes::from_static(b"mixed in"));
        driver.cancel_operation(first).unwrap();
        let mut ended = Vec::new();
        let mut take_until = |driver: &mut Driver, count: usize| {
            run(driver, |event| {
                ended.push(End::of(event));
                ended.iter().filter(|end| end.id != first).count() == count
            });
        };
        take_until(&mut driver, 2);
        // Nor does anything that comes later.
        let later = put.begin(&mut driver, file, Bytes::from_static(b"later"));
        take_until(&mut driver, 3);
        for end in ended.iter().filter(|end| end.id != first) {
            assert!([behind, mixed, later].contains(&end.id));
            end.assert_refused_behind_a_tear();
        }
        // A zero-copy send keeps its memory until the peer has what went out.
        driver.close_file(file).unwrap();
        let theirs = stream.theirs;
        let reader = std::thread::spawn(move || read_all(theirs));
        if !ended.iter().any(|end| end.id == first) {
            ended.extend(ends(&mut driver, &[first]));
        }
        let end = ended.iter().find(|end| end.id == first).unwrap();
        assert_eq!(end.errno(), Some(libc::ECANCELED));
        assert!(end.moved > 0 && end.moved < content.len(), "{}", end.moved);
        assert!(reader.join().unwrap() == content[..end.moved], "no more than was told");
        drop(ended);
        finish(driver);
        assert_all_free(&arena);
    });
}

#[test]
fn after_a_part_that_failed_nothing_follows() {
    for_each_stream(|mut driver, stream, put| {
        let file = driver.add_file(stream.ours).unwrap();
        let first = put.begin(&mut driver, file, Bytes::from(vec![7; 16 << 20]));
        until_bytes_came(&mut driver, &stream.theirs);
        let behind = put.begin(&mut driver, file, Bytes::from_static(b"behind"));
        // Closed with bytes that nobody read: the connection is reset, the pipe has no reader.
        drop(stream.theirs);
        let ends_of_all = ends(&mut driver, &[first, behind]);
        assert!(ends_of_all[0].result.is_err(), "{:?}", ends_of_all[0].result);
        assert!(ends_of_all[0].moved > 0 && ends_of_all[0].moved < 16 << 20);
        ends_of_all[1].assert_refused_behind_a_tear();
        finish(driver);
    });
}

/// A connection that the program shuts down in the middle of a send of its own.
#[test]
fn after_a_part_that_was_shut_down_nothing_follows() {
    for zero_copy_from in [1, usize::MAX] {
        let Some(mut driver) = driver() else { return };
        let (ours, theirs) = tcp_pair();
        let clone = ours.try_clone().unwrap();
        let file = driver.add_file(ours).unwrap();
        let options = SendOptions::new().zero_copy_from(zero_copy_from);
        let first = driver.send_with(file, Bytes::from(vec![7; 16 << 20]), options).unwrap();
        until_bytes_came(&mut driver, &theirs);
        let behind = driver.send(file, Bytes::from_static(b"behind")).unwrap();
        clone.shutdown(Shutdown::Write).unwrap();
        let reader = std::thread::spawn(move || read_all(theirs).len());
        let over = ends(&mut driver, &[first, behind]);
        assert!(over[0].result.is_err() && over[0].moved > 0, "{:?}", over[0].result);
        over[1].assert_refused_behind_a_tear();
        assert_eq!(reader.join().unwrap(), over[0].moved);
        finish(driver);
    }
}

/// The queue of a file that is being closed is refused too, and the file is closed then.
#[test]
fn a_file_that_closes_with_a_torn_queue_is_closed() {
    let Some(mut driver) = driver() else { return };
    let (ours, mut theirs) = tcp_pair();
    let file = driver.add_file(ours).unwrap();
    let first = driver.send(file, Bytes::from(vec![1; 16 << 20])).unwrap();
    until_bytes_came(&mut driver, &theirs);
    let mut ids = vec![first];
    ids.extend((0..50).map(|_| driver.send(file, Bytes::from_static(b"queued")).unwrap()));
    driver.close_file(file).unwrap();
    driver.cancel_operation(first).unwrap();
    let ends = ends(&mut driver, &ids);
    ends[1..].iter().for_each(End::assert_refused_behind_a_tear);
    // The descriptor is closed: the stream ends.
    let mut came = 0;
    let mut part = vec![0; 1 << 20];
    loop {
        match theirs.read(&mut part).unwrap() {
            0 => break,
            read => came += read,
        }
    }
    assert_eq!(came, ends[0].moved);
    finish(driver);
}

/// A send that was not begun tears nothing.
#[test]
fn after_a_send_that_was_cancelled_untouched_the_next_one_follows() {
    for_each_stream(|mut driver, stream, put| {
        let file = driver.add_file(stream.ours).unwrap();
        let first = put.begin(&mut driver, file, Bytes::from_static(b"first "));
        let second = put.begin(&mut driver, file, Bytes::from_static(b"second "));
        let third = put.begin(&mut driver, file, Bytes::from_static(b"third"));
        driver.cancel_operation(second).unwrap();
        let ends = ends(&mut driver, &[first, second, third]);
        assert_eq!(*ends[0].result.as_ref().unwrap(), 6);
        assert_eq!((ends[1].errno(), ends[1].moved), (Some(libc::ECANCELED), 0));
        assert_eq!(*ends[2].result.as_ref().unwrap(), 5);
        driver.close_file(file).unwrap();
        assert_eq!(read_all(stream.theirs), b"first third");
        finish(driver);
    });
}

/// A stream takes writes whole and in order, as it takes sends: a pipe, a socket, a file to append.
#[test]
fn writes_to_a_stream_arrive_whole_and_in_order() {
    for stream in streams() {
        let Some(mut driver) = driver() else { return };
        let file = driver.add_file(stream.ours).unwrap();
        let parts: Vec<Vec<u8>> = (0..12).map(|part| pattern(part, 200_000 + part)).collect();
        let expected = parts.concat();
        let theirs = stream.theirs;
        let reader = std::thread::spawn(move || read_all(theirs));
        let begin = |part: Vec<u8>| driver.write(file, Bytes::from(part), 0).unwrap();
        let ids: Vec<_> = parts.into_iter().map(begin).collect();
        for end in ends(&mut driver, &ids) {
            assert_eq!(end.result.unwrap(), end.payload.as_ref().len());
        }
        driver.close_file(file).unwrap();
        assert!(reader.join().unwrap() == expected, "{}: mixed or lost", stream.name);
        finish(driver);
    }
}

#[test]
fn writes_to_a_file_that_is_open_to_append_stand_in_order() {
    let Some(mut driver) = driver() else { return };
    let path = TestFile::new("torn", b"head ");
    let file = driver.add_file(File::options().append(true).open(&path).unwrap()).unwrap();
    let parts: Vec<Vec<u8>> = (0..40).map(|part| pattern(part, 5000)).collect();
    let expected = [b"head ".to_vec(), parts.concat()].concat();
    let begin = |part: Vec<u8>| driver.write(file, Bytes::from(part), 0).unwrap();
    let ids: Vec<_> = parts.into_iter().map(begin).collect();
    ends(&mut driver, &ids);
    assert!(std::fs::read(&path).unwrap() == expected);
    finish(driver);
}

/// A datagram goes out whole or not at all: one that fails tears nothing.
#[test]
fn after_a_datagram_that_failed_the_next_one_follows() {
    let Some(mut driver) = driver() else { return };
    let (ours, theirs) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    ours.connect(theirs.local_addr().unwrap()).unwrap();
    let file = driver.add_file(ours).unwrap();
    let large = driver.send(file, Bytes::from(vec![0; 100_000])).unwrap();
    let small = driver.send(file, Bytes::from_static(b"small")).unwrap();
    let over = ends(&mut driver, &[large, small]);
    assert_eq!((over[0].errno(), over[0].moved), (Some(libc::EMSGSIZE), 0));
    assert_eq!(*over[1].result.as_ref().unwrap(), 5);
    let mut text = [0; 10];
    assert_eq!(theirs.recv(&mut text).unwrap(), 5);
    // One that waits for room is cancelled, and the next one goes out.
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    while ours.send(&[1; 1000]).is_ok() {}
    let file = driver.add_file(ours).unwrap();
    let stuck = driver.send(file, Bytes::from_static(b"stuck")).unwrap();
    let next = driver.send(file, Bytes::from_static(b"next")).unwrap();
    driver.wait_timeout(Duration::from_millis(20)).unwrap();
    driver.cancel_operation(stuck).unwrap();
    let stuck_end = {
        let mut end = None;
        run(&mut driver, |event| {
            end = Some(End::of(event));
            true
        });
        end.unwrap()
    };
    assert_eq!((stuck_end.id, stuck_end.errno()), (stuck, Some(libc::ECANCELED)));
    let drained = std::thread::spawn(move || {
        let mut text = [0; 2000];
        loop {
            let read = theirs.recv(&mut text).unwrap();
            if read < 1000 {
                return text[..read].to_vec();
            }
        }
    });
    assert_eq!(*ends(&mut driver, &[next])[0].result.as_ref().unwrap(), 4);
    assert_eq!(drained.join().unwrap(), b"next");
    finish(driver);
}

/// A program that knows what went out sends the rest on the same socket, added anew.
#[test]
fn the_rest_of_a_torn_send_goes_out_on_the_socket_added_anew() {
    let Some(mut driver) = driver() else { return };
    let (ours, theirs) = tcp_pair();
    let again = ours.try_clone().unwrap();
    let file = driver.add_file(ours).unwrap();
    let content = Bytes::from(pattern(3, 1 << 20).repeat(16));
    let first = driver.send(file, content.clone()).unwrap();
    until_bytes_came(&mut driver, &theirs);
    driver.cancel_operation(first).unwrap();
    let moved = ends(&mut driver, &[first])[0].moved;
    driver.close_file(file).unwrap();
    let file = driver.add_file(again).unwrap();
    let reader = std::thread::spawn(move || read_all(theirs));
    let rest = driver.send(file, content.slice(moved..)).unwrap();
    assert_eq!(*ends(&mut driver, &[rest])[0].result.as_ref().unwrap(), content.len() - moved);
    driver.close_file(file).unwrap();
    assert!(reader.join().unwrap() == content);
    finish(driver);
}

#[test]
fn draining_ends_a_half_sent_send_and_the_queue_behind_it() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(12, 1 << 20);
    driver.register(&arena).unwrap();
    let (ours, theirs) = tcp_pair();
    let file = driver.add_file(ours).unwrap();
    driver.send(file, Bytes::from(vec![1; 16 << 20])).unwrap();
    until_bytes_came(&mut driver, &theirs);
    for _ in 0..12 {
        driver.send(file, filled(&arena, &[2; 1000])).unwrap();
    }
    finish(driver);
    assert_all_free(&arena);
    assert!(!read_all(theirs).contains(&2), "what waited did not go out");
}

/// Run by [`a_write_that_fails_after_a_part_tells_the_part`] with a limit on the size of files.
#[test]
#[ignore = "needs a small RLIMIT_FSIZE: run by another test"]
fn helper_with_short_files() {
    // SAFETY: ignores a signal, which has no handler of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let Some(mut driver) = driver() else { return println!("helper finished") };
    for append in [false, true] {
        let path = std::env::temp_dir().join(format!("short-{append}-{}", std::process::id()));
        let mut options = File::options();
        let open = options.create(true).append(append).write(true).open(&path).unwrap();
        let file = driver.add_file(open).unwrap();
        let whole = driver.write(file, Bytes::from(vec![1; 4000]), 0).unwrap();
        let part = driver.write(file, Bytes::from(vec![2; 10_000]), 4000).unwrap();
        let over = ends(&mut driver, &[whole, part]);
        assert_eq!((*over[0].result.as_ref().unwrap(), over[0].moved), (4000, 4000));
        assert_eq!((over[1].errno(), over[1].moved), (Some(libc::EFBIG), 8192 - 4000));
        // Offsets are independent; what is appended stands behind a part.
        let next = driver.write(file, Bytes::from_static(b"next"), 0).unwrap();
        let next = &ends(&mut driver, &[next])[0];
        match append {
            false => assert_eq!(*next.result.as_ref().unwrap(), 4),
            true => next.assert_refused_behind_a_tear(),
        }
        driver.close_file(file).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 8192);
        std::fs::remove_file(&path).unwrap();
    }
    finish(driver);
    println!("helper finished");
}

#[test]
fn a_write_that_fails_after_a_part_tells_the_part() {
    run_alone("torn::helper_with_short_files", &["--fsize=8192:8192"]);
}

#[test]
fn a_terminal_is_a_stream_too() {
    let Some(mut driver) = driver() else { return };
    // SAFETY: opens a descriptor; takes no memory of ours.
    let (Ok(mut master), Some(slave)) = open_terminal() else {
        return eprintln!("SKIPPED: no terminal here");
    };
    let file = driver.add_file(slave).unwrap();
    let begin =
        |number: usize| driver.write(file, Bytes::from(format!("line {number}\n")), 0).unwrap();
    let ids: Vec<_> = (0..20).map(begin).collect();
    ends(&mut driver, &ids);
    let mut text = Vec::new();
    while !text.ends_with(b"line 19\r\n") {
        let mut part = [0; 256];
        let read = master.read(&mut part).unwrap();
        text.extend_from_slice(&part[..read]);
    }
    let expected: String = (0..20).map(|number| format!("line {number}\r\n")).collect();
    assert_eq!(text, expected.as_bytes());
    finish(driver);
}

/// Opens a pseudo-terminal, and returns both ends.
fn open_terminal() -> (io::Result<File>, Option<File>) {
    let master = File::options().read(true).write(true).open("/dev/ptmx");
    let Ok(open) = &master else { return (master, None) };
    let (unlock, mut number) = (0i32, 0i32);
    // SAFETY: reads one number, which is live.
    unsafe { libc::ioctl(open.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) };
    // SAFETY: writes one number, which is live.
    unsafe { libc::ioctl(open.as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    let options = File::options().read(true).write(true).clone();
    let slave = options.open(format!("/dev/pts/{number}")).ok();
    (master, slave)
}
