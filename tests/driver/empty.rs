//! Transfers of no bytes: each is done at once, in its turn, and touches no memory.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use crate::support::driver::{driver, finish, run};
use crate::support::{TestFile, assert_all_free, filled, paged_arena, read_all, tcp_pair};
use bytes::Bytes;
use uring_arena::{DirectFile, Driver, Event, FixedArena, Payload, SendOptions, TransferError};

/// Makes memory without written bytes, of every kind.
fn empty_memory(arena: &FixedArena) -> Vec<(&'static str, Payload)> {
    let in_slot = filled(arena, b"some").freeze_in_place();
    let frozen = filled(arena, b"some").freeze();
    let mut trimmed = filled(arena, b"some");
    trimmed.truncate(0);
    vec![
        ("a buffer", arena.allocate().unwrap().into()),
        ("a trimmed buffer", trimmed.into()),
        ("an empty buffer, frozen", arena.allocate().unwrap().freeze_in_place().into()),
        ("a slice of arena bytes", in_slot.slice(2..2).into()),
        ("the end of arena bytes", in_slot.slice(4..).into()),
        ("a slice of bytes", frozen.slice(4..4).into()),
        ("no bytes", Bytes::new().into()),
        ("bytes of an empty vector", Bytes::from(Vec::new()).into()),
        ("bytes of an owner", Bytes::from_owner([0u8; 0]).into()),
    ]
}

/// Takes the next end of a write or send: the bytes moved.
fn next_moved(driver: &mut Driver) -> usize {
    let mut moved = None;
    run(driver, |event| {
        let (Event::Wrote { result, written: moved_so_far, .. }
        | Event::Sent { result, sent: moved_so_far, .. }) = event
        else {
            panic!("{event:?}")
        };
        assert_eq!(result.unwrap(), moved_so_far);
        moved = Some(moved_so_far);
        true
    });
    moved.unwrap()
}

/// Runs `test` with an arena that is registered, and with one that is not.
fn registered_or_not(mut test: impl FnMut(&mut Driver, &FixedArena)) {
    for register in [true, false] {
        let Some(mut driver) = driver() else { return };
        let arena = paged_arena(16, 4096);
        if register {
            driver.register(&arena).unwrap();
        }
        test(&mut driver, &arena);
        finish(driver);
        assert_all_free(&arena);
    }
}

#[test]
fn nothing_is_sent_between_two_messages() {
    registered_or_not(|driver, arena| {
        let (unix, unix_peer) = UnixStream::pair().unwrap();
        let (tcp, tcp_peer) = tcp_pair();
        for (ours, theirs) in [
            (OwnedFd::from(tcp), OwnedFd::from(tcp_peer)),
            (OwnedFd::from(unix), OwnedFd::from(unix_peer)),
        ] {
            let socket = driver.add_file(ours).unwrap();
            for zero_copy_from in [0, 1, usize::MAX] {
                let options = SendOptions::new().zero_copy_from(zero_copy_from);
                for (what, memory) in empty_memory(arena) {
                    driver.send(socket, Bytes::from_static(b"<")).unwrap();
                    driver.send_with(socket, memory, options).expect(what);
                    driver.send(socket, Bytes::from_static(b">")).unwrap();
                    let moved: Vec<_> = (0..3).map(|_| next_moved(driver)).collect();
                    assert_eq!(moved, [1, 0, 1], "{what}");
                }
            }
            driver.close_file(socket).unwrap();
            assert_eq!(read_all(File::from(theirs)), b"<>".repeat(3 * 9));
        }
    });
}

/// A datagram without bytes is a datagram: the peer gets it.
#[test]
fn an_empty_datagram_is_received() {
    registered_or_not(|driver, arena| {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (ours, theirs) = (bind(), bind());
        ours.connect(theirs.local_addr().unwrap()).unwrap();
        let socket = driver.add_file(ours).unwrap();
        let options = SendOptions::new().zero_copy_from(0);
        for (what, memory) in empty_memory(arena) {
            driver.send_with(socket, memory, options).expect(what);
            assert_eq!(next_moved(driver), 0, "{what}");
            assert_eq!(theirs.recv(&mut [0; 8]).unwrap(), 0, "{what}");
        }
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let socket = driver.add_file(ours).unwrap();
        for (what, memory) in empty_memory(arena) {
            driver.send(socket, memory).expect(what);
            assert_eq!(next_moved(driver), 0, "{what}");
            assert_eq!(theirs.recv(&mut [0; 8]).unwrap(), 0, "{what}");
        }
    });
}

#[test]
fn nothing_is_written_to_files_and_streams() {
    registered_or_not(|driver, arena| {
        let path = TestFile::new("empty", b"as it was");
        let append = File::options().append(true).open(&path).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let (tcp, tcp_peer) = tcp_pair();
        let null = File::options().write(true).open("/dev/null").unwrap();
        let mut files: Vec<(&str, OwnedFd)> = vec![
            ("a file", path.open().into()),
            ("a file to append", append.into()),
            ("a pipe", writer.into()),
            ("a socket", tcp.into()),
            ("a device", null.into()),
        ];
        let options = File::options().read(true).write(true).clone();
        match DirectFile::open_with(&options, &path) {
            Ok(direct) => files.push(("a direct file", direct.into())),
            Err(error) => eprintln!("SKIPPED a direct file: {error}"),
        }
        for (name, file) in files {
            let file = driver.add_file(file).unwrap();
            // No offset is aligned, or not, of no bytes.
            let offsets: &[u64] = if name.contains("file") { &[0, 3, 9, 1 << 40] } else { &[0] };
            for &offset in offsets {
                for (what, memory) in empty_memory(arena) {
                    driver.write(file, memory, offset).expect(what);
                    assert_eq!(next_moved(driver), 0, "{what} to {name} at {offset}");
                }
            }
            driver.close_file(file).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"as it was");
        assert!(read_all(reader).is_empty());
        assert!(read_all(tcp_peer).is_empty());
    });
}

/// A read needs room: a buffer without any is refused with its size, and comes back.
#[test]
fn a_read_into_no_room_is_refused_with_the_remedy() {
    registered_or_not(|driver, arena| {
        let file = driver.add_file(File::open("/dev/zero").unwrap()).unwrap();
        let refused = driver.read(file, filled(arena, &[1; 4096]), 0).unwrap_err();
        assert_eq!(refused.error, TransferError::NoRoom { capacity: 4096 });
        assert!(refused.to_string().contains("clear it"), "{refused}");
        let mut buffer = refused.memory;
        buffer.clear();
        driver.read(file, buffer, 0).unwrap();
        run(driver, |event| matches!(event, Event::Read { result: Ok(4096), .. }));
    });
}

/// A read at the end of a file, and of an empty file, brings nothing, and is no error.
#[test]
fn a_read_of_an_empty_file_brings_nothing() {
    registered_or_not(|driver, arena| {
        let path = TestFile::new("empty", b"");
        let mut files: Vec<OwnedFd> =
            vec![path.open().into(), File::open("/dev/null").unwrap().into()];
        files.extend(DirectFile::open(&path).map(OwnedFd::from));
        for file in files {
            let file = driver.add_file(file).unwrap();
            driver.read(file, arena.allocate().unwrap(), 0).unwrap();
            run(driver, |event| {
                let Event::Read { result, buffer, .. } = event else { panic!("{event:?}") };
                assert_eq!((result.unwrap(), buffer.len()), (0, 0));
                true
            });
        }
    });
}
