//! Syncs behind writes, reserved room, parts of reads, and several pieces as one.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Instant;

use bytes::Bytes;
use uring_arena::{Buffer, Driver, DriverError, Event, Payload, SendOptions, TransferError};

use crate::support::driver::{build, done, driver, finish, run};
use crate::support::{
    TestFile, arena, assert_all_free, filled, paged_arena, pattern, tcp_pair, watched, written,
};

#[test]
fn a_sync_comes_after_the_writes_before_it() {
    let Some(mut driver) = driver() else { return };
    let path = TestFile::path("sync");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let file = driver.add_file(file).unwrap();
    let mut written = 0;
    let mut syncs = Vec::new();
    for round in 0..30 {
        for part in 0..4 {
            let offset = (4 * round + part) * 1000;
            driver.write(file, Bytes::from(pattern(1, 1000)), offset).unwrap();
        }
        syncs.push((
            4 * (round + 1),
            match round % 3 {
                0 => driver.sync_data(file).unwrap(),
                1 => driver.sync_all(file).unwrap(),
                _ => driver.sync_range(file, 0, 0).unwrap(),
            },
        ));
    }
    syncs.reverse();
    run(&mut driver, |event| {
        match event {
            Event::Wrote { result, .. } => written += u64::from(result.unwrap() == 1000),
            Event::Done { id, result, .. } => {
                result.unwrap();
                let (writes, sync) = syncs.pop().unwrap();
                assert_eq!(id, sync, "in order");
                assert!(written >= writes, "{written} writes are over, of {writes}");
            }
            other => panic!("{other:?}"),
        }
        syncs.is_empty()
    });
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 120_000);
    finish(driver);
}

#[test]
fn a_sync_tells_the_error_of_a_write_before_it_once() {
    let Some(mut driver) = driver() else { return };
    let path = TestFile::new("sync-read-only", b"content");
    let file = driver.add_file(File::open(&path).unwrap()).unwrap();
    driver.write(file, Bytes::from_static(b"refused"), 0).unwrap();
    let (told, silent) = (driver.sync_data(file).unwrap(), driver.sync_data(file).unwrap());
    assert_eq!(done(&mut driver, told).unwrap_err().raw_os_error(), Some(libc::EBADF));
    done(&mut driver, silent).unwrap();
    // A full disk.
    let full = driver.add_file(File::options().write(true).open("/dev/full").unwrap()).unwrap();
    driver.write(full, Bytes::from_static(b"no room"), 0).unwrap();
    let sync = driver.sync_all(full).unwrap();
    assert_eq!(done(&mut driver, sync).unwrap_err().kind(), ErrorKind::StorageFull);
    // A write that is given up is not there either.
    let (reader, writer) = std::io::pipe().unwrap();
    let pipe = driver.add_file(writer).unwrap();
    let write = driver.write(pipe, Bytes::from(vec![0; 1 << 20]), 0).unwrap();
    let sync = driver.sync_all(pipe).unwrap();
    driver.wait_timeout(std::time::Duration::from_millis(5)).unwrap();
    driver.cancel_operation(write).unwrap();
    assert_eq!(done(&mut driver, sync).unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    drop(reader);
    // A file that was removed is still one.
    let file = driver.add_file(path.open()).unwrap();
    drop(path);
    driver.write(file, Bytes::from_static(b"still"), 0).unwrap();
    let sync = driver.sync_all(file).unwrap();
    done(&mut driver, sync).unwrap();
    finish(driver);
}

#[test]
fn a_sync_that_is_given_up_hands_the_error_of_a_write_to_the_next() {
    let Some(mut driver) = driver() else { return };
    let (reader, writer) = std::io::pipe().unwrap();
    let pipe = driver.add_file(writer).unwrap();
    driver.write(pipe, Bytes::from(vec![0; 1 << 20]), 0).unwrap();
    let (given_up, next) = (driver.sync_all(pipe).unwrap(), driver.sync_all(pipe).unwrap());
    driver.cancel_operation(given_up).unwrap();
    assert_eq!(done(&mut driver, given_up).unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    drop(reader);
    assert_eq!(done(&mut driver, next).unwrap_err().kind(), ErrorKind::BrokenPipe);
    // A drain ends what waits for a write that never ends.
    let (_reader, writer) = std::io::pipe().unwrap();
    let pipe = driver.add_file(writer).unwrap();
    driver.write(pipe, Bytes::from(vec![0; 1 << 20]), 0).unwrap();
    driver.sync_all(pipe).unwrap();
    driver.close_file(pipe).unwrap();
    assert_eq!(driver.sync_all(pipe), Err(DriverError::UnknownFile));
    finish(driver);
}

/// A sync that need not wait is pushed with the next turn. One that is given up before must not
/// keep those behind it.
#[test]
fn a_sync_that_is_given_up_before_the_turn_keeps_no_other() {
    watched(|| {
        let Some(mut driver) = driver() else { return };
        let path = TestFile::new("sync-given-up", b"content");
        let file = driver.add_file(path.open()).unwrap();
        for round in 0..3 {
            let first = driver.sync_all(file).unwrap();
            let behind = driver.sync_data(file).unwrap();
            match round {
                0 => driver.cancel_operation(first).unwrap(),
                1 => driver.set_deadline(first, Instant::now()).unwrap(),
                // Both.
                _ => {
                    [first, behind].into_iter().for_each(|id| driver.cancel_operation(id).unwrap())
                }
            }
            let last = driver.sync_all(file).unwrap();
            let mut ended = Vec::new();
            run(&mut driver, |event| {
                let Event::Done { id, result, .. } = event else { panic!("{event:?}") };
                ended.push((id, result.is_ok()));
                ended.len() == 3
            });
            assert!(ended.contains(&(last, true)), "in round {round}: {ended:?}");
            assert!(ended.contains(&(behind, round < 2)), "in round {round}: {ended:?}");
        }
        finish(driver);
    });
}

/// The write behind a sync that was given up has failed already when its turn comes.
#[test]
fn the_error_of_a_write_outlives_a_sync_before_it_that_is_given_up() {
    let Some(mut driver) = driver() else { return };
    let path = TestFile::new("sync-handed-on", b"content");
    let read_only = driver.add_file(File::open(&path).unwrap()).unwrap();
    let file = driver.add_file(path.open()).unwrap();
    // Both are one file: the write that is slow, and the one that fails.
    let arena = paged_arena(1, 16 << 20);
    let slow = filled(&arena, &pattern(1, 16 << 20));
    driver.write(file, slow, 0).unwrap();
    let given_up = driver.sync_all(file).unwrap();
    driver.write(read_only, Bytes::from_static(b"refused"), 0).unwrap();
    let told = driver.sync_all(file).unwrap();
    driver.cancel_operation(given_up).unwrap();
    assert_eq!(done(&mut driver, given_up).unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    assert_eq!(done(&mut driver, told).unwrap_err().raw_os_error(), Some(libc::EBADF));
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn room_is_reserved_and_a_sync_waits_for_it() {
    let Some(mut driver) = driver() else { return };
    let path = TestFile::new("allocate", b"");
    let file = driver.add_file(path.open()).unwrap();
    let allocation = driver.allocate(file, 0, 1 << 20).unwrap();
    driver.sync_data(file).unwrap();
    let mut ended = Vec::new();
    run(&mut driver, |event| {
        let Event::Done { id, result, .. } = event else { panic!("{event:?}") };
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
        ended.push(id);
        ended.len() == 2
    });
    assert_eq!(ended[0], allocation);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
    let pipe = driver.add_file(std::io::pipe().unwrap().1).unwrap();
    let allocation = driver.allocate(pipe, 0, 10).unwrap();
    assert_eq!(done(&mut driver, allocation).unwrap_err().raw_os_error(), Some(libc::ESPIPE));
    finish(driver);
}

#[test]
fn a_read_of_a_part_stops_at_its_length() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(4, 8192);
    driver.register(&arena).unwrap();
    let content = pattern(4, 20_000);
    let path = TestFile::new("read-at-most", &content);
    let file = driver.add_file(path.open()).unwrap();
    for (offset, len, read) in [(0, 1, 1), (100, 5000, 5000), (19_990, 100, 10), (0, 1 << 40, 8192)]
    {
        driver.read_at_most(file, arena.allocate().unwrap(), offset, len).unwrap();
        run(&mut driver, |event| {
            let Event::Read { result, buffer, .. } = event else { panic!("{event:?}") };
            assert_eq!(result.unwrap(), read);
            assert_eq!(&buffer[..], &content[offset as usize..][..read]);
            true
        });
    }
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn several_buffers_and_pieces_are_one_read_write_and_send() {
    for is_registered in [true, false] {
        let Some(mut driver) = driver() else { return };
        let arena = paged_arena(16, 4096);
        if is_registered {
            driver.register(&arena).unwrap();
        }
        let path = TestFile::new("vectored", b"");
        let file = driver.add_file(path.open()).unwrap();
        // More pieces than one entry takes, empty ones among them.
        let whole = pattern(5, 3000);
        let pieces: Vec<Bytes> = whole.chunks(2).map(Bytes::copy_from_slice).collect();
        let pieces = pieces.into_iter().flat_map(|piece| [piece, Bytes::new()]);
        driver.write_vectored(file, pieces, 7).unwrap();
        run(&mut driver, |event| {
            let Event::WroteVectored { result, written, pieces, .. } = event else { panic!() };
            assert_eq!((result.unwrap(), written, pieces.len()), (3000, 3000, 3000));
            true
        });
        let (head, body) = (filled(&arena, &pattern(6, 100)), filled(&arena, &pattern(7, 4096)));
        let pieces = [Payload::from(head.freeze()), Payload::from(body)];
        driver.write_vectored(file, pieces, 5000).unwrap();
        run(&mut driver, |event| matches!(event, Event::WroteVectored { result: Ok(4196), .. }));
        let buffers: Vec<Buffer> = (0..3).map(|_| arena.allocate().unwrap()).collect();
        driver.read_vectored(file, buffers, 7).unwrap();
        run(&mut driver, |event| {
            let Event::ReadVectored { result, buffers, .. } = event else { panic!("{event:?}") };
            let read = [&buffers[0][..], &buffers[1], &buffers[2]].concat();
            assert_eq!(result.unwrap(), read.len());
            let mut expected = whole.clone();
            expected.resize(5000 - 7, 0);
            expected.extend(pattern(6, 100));
            expected.extend(pattern(7, 4096));
            assert!(read == expected);
            true
        });
        // By way of a pipe, which takes a part at a time.
        let (mut reader, writer) = std::io::pipe().unwrap();
        let pipe = driver.add_file(writer).unwrap();
        let parts = [pattern(8, 100_000), pattern(9, 1), pattern(10, 150_000)];
        let reads = std::thread::spawn(move || {
            let mut all = vec![0; 250_001];
            reader.read_exact(&mut all).unwrap();
            all
        });
        driver.write_vectored(pipe, parts.clone().map(Bytes::from), 0).unwrap();
        run(&mut driver, |event| matches!(event, Event::WroteVectored { result: Ok(250_001), .. }));
        assert!(reads.join().unwrap() == parts.concat());
        // And of a connection.
        let (ours, mut peer) = tcp_pair();
        let socket = driver.add_file(ours).unwrap();
        let parts = [pattern(11, 10), pattern(12, 6 << 20), pattern(13, 20)];
        let reads = std::thread::spawn(move || {
            let mut all = vec![0; (6 << 20) + 30];
            peer.read_exact(&mut all).unwrap();
            all
        });
        driver.send_vectored(socket, parts.clone().map(Bytes::from), SendOptions::new()).unwrap();
        run(&mut driver, |event| {
            let Event::SentVectored { result, pieces, .. } = event else { panic!("{event:?}") };
            assert_eq!((result.unwrap(), pieces.len()), ((6 << 20) + 30, 3));
            true
        });
        assert!(reads.join().unwrap() == parts.concat());
        finish(driver);
        assert_all_free(&arena);
    }
}

#[test]
fn pieces_of_a_registered_slot_go_out_zero_copy_and_come_back() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(16, 1 << 16);
    driver.register(&arena).unwrap();
    let (ours, mut peer) = tcp_pair();
    let socket = driver.add_file(ours).unwrap();
    let (head, body) = (pattern(1, 1 << 15), pattern(2, 1 << 16));
    let pieces = [filled(&arena, &head), filled(&arena, &body)];
    driver.send_vectored(socket, pieces, SendOptions::new().zero_copy_from(1)).unwrap();
    let mut all = vec![0; head.len() + body.len()];
    let reads = std::thread::spawn(move || {
        peer.read_exact(&mut all).unwrap();
        all
    });
    run(&mut driver, |event| {
        let Event::SentVectored { result, pieces, .. } = event else { panic!("{event:?}") };
        assert_eq!((result.unwrap(), pieces.len()), (head.len() + body.len(), 2));
        true
    });
    assert!(reads.join().unwrap() == [head, body].concat());
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn what_cannot_be_read_or_written_as_one_is_refused_and_comes_back() {
    let Some(mut driver) = build(Driver::builder().operations(1)) else { return };
    let arena = arena(8, 4096);
    let path = TestFile::new("vectored-refused", &pattern(1, 8192));
    let direct = File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path);
    let Ok(direct) = direct else { return eprintln!("SKIPPED: no O_DIRECT here") };
    let file = driver.add_file(direct).unwrap();
    let refused = driver.read_vectored(file, Vec::new(), 0).unwrap_err();
    assert_eq!(refused.error, TransferError::NoRoom { capacity: 0 });
    let odd = written(arena.allocate().unwrap(), b"odd");
    let refused = driver.read_vectored(file, vec![odd], 0).unwrap_err();
    assert!(matches!(refused.error, TransferError::Direct(_)), "{refused}");
    assert_eq!(refused.memory[0].len(), 3);
    drop(refused);
    let refused = driver.read_at_most(file, arena.allocate().unwrap(), 0, 100).unwrap_err();
    assert!(matches!(refused.error, TransferError::Direct(_)), "{refused}");
    drop(refused);
    let refused = driver.write_vectored(file, [Bytes::from_static(b"odd")], 0).unwrap_err();
    assert!(matches!(refused.error, TransferError::Direct(_)), "{refused}");
    assert_eq!(refused.memory.len(), 1);
    driver.sync_data(file).unwrap();
    let limit = DriverError::TooManyOperations { limit: 1 };
    assert_eq!(driver.sync_data(file), Err(limit));
    assert_eq!(driver.allocate(file, 0, 1), Err(limit));
    let memory = vec![refused.memory[0].as_ref().to_vec()];
    let refused =
        driver.send_vectored(file, memory.into_iter().map(Bytes::from), SendOptions::new());
    assert_eq!(refused.unwrap_err().memory.len(), 1);
    finish(driver);
    assert_all_free(&arena);
}
