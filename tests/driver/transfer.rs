//! Reads, writes and sends of the driver on the real kernel: one test for each promise.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::support::driver::{build, driver, finish, run};
use crate::support::{TestFile, assert_all_free, filled, paged_arena, pattern, read_all, tcp_pair};
use bytes::{BufMut, Bytes};
use uring_arena::{
    Buffer, BufferRing, DirectFile, Driver, DriverError, Event, Feature, Payload, Probe,
    RegistrationMode, SendOptions, TransferError,
};

/// Waits for the end of the next read, write or send.
fn next_done(driver: &mut Driver) -> Event {
    let mut done = None;
    run(driver, |event| {
        done = Some(event);
        true
    });
    done.unwrap()
}

fn read_result(event: Event) -> (std::io::Result<usize>, Buffer) {
    match event {
        Event::Read { result, buffer, .. } => (result, buffer),
        other => panic!("{other:?}"),
    }
}

fn sent_result(event: Event) -> (std::io::Result<usize>, Payload) {
    match event {
        Event::Sent { result, payload, .. } => (result, payload),
        other => panic!("{other:?}"),
    }
}

#[test]
fn blocks_are_written_and_read_back_registered_or_not() {
    for register in [true, false] {
        let Some(mut driver) = driver() else { return };
        let arena = paged_arena(8, 8192);
        if register {
            let id = driver.register(&arena).unwrap();
            assert_eq!(driver.arena(id).unwrap().mode(), RegistrationMode::Slots);
        }
        let path = TestFile::new("transfer", &[]);
        let file = driver.add_file(path.open()).unwrap();
        let content = pattern(3, 20_000);
        let mut writes = 0;
        for (at, part) in content.chunks(7000).enumerate() {
            let offset = at as u64 * 7000;
            match at {
                0 => driver.write(file, filled(&arena, part), offset).unwrap(),
                1 => driver.write(file, filled(&arena, part).freeze_in_place(), offset).unwrap(),
                _ => driver.write(file, filled(&arena, part).freeze(), offset).unwrap(),
            };
            writes += 1;
        }
        while writes > 0 {
            let Event::Wrote { offset, result, payload, .. } = next_done(&mut driver) else {
                panic!()
            };
            assert_eq!(result.unwrap(), payload.as_ref().len());
            assert_eq!(*payload.as_ref(), content[offset as usize..][..payload.as_ref().len()]);
            writes -= 1;
        }
        assert_eq!(std::fs::read(&path).unwrap(), content);
        let mut reads = Vec::new();
        for at in 0..3 {
            reads.push(driver.read(file, arena.allocate().unwrap(), at * 8192).unwrap());
        }
        for _ in 0..3 {
            let Event::Read { id, offset, result, buffer, .. } = next_done(&mut driver) else {
                panic!()
            };
            assert!(reads.contains(&id));
            assert_eq!(result.unwrap(), buffer.len());
            let end = content.len().min(offset as usize + 8192);
            assert_eq!(buffer[..], content[offset as usize..end]);
        }
        driver.close_file(file).unwrap();
        finish(driver);
        assert_all_free(&arena);
    }
}

#[test]
fn direct_files_are_read_whole_and_mistakes_refused_before_the_kernel() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(4, 8192);
    driver.register(&arena).unwrap();
    let content = pattern(1, 20_001);
    let path = TestFile::new("transfer", &content);
    let direct = match DirectFile::open_with(File::options().read(true).write(true), &path) {
        Ok(direct) => direct,
        Err(error) => return eprintln!("SKIPPED direct files: {error}"),
    };
    let file = driver.add_file(direct.into_file()).unwrap();
    let mut read = Vec::new();
    loop {
        driver.read(file, arena.allocate().unwrap(), read.len() as u64).unwrap();
        let (result, buffer) = read_result(next_done(&mut driver));
        read.extend_from_slice(&buffer);
        if result.unwrap() < 8192 {
            break;
        }
    }
    assert_eq!(read, content);
    let refused = driver.read(file, arena.allocate().unwrap(), 100).unwrap_err();
    assert!(matches!(refused.error, TransferError::Direct(_)), "{refused}");
    assert!(refused.to_string().contains("multiples of"), "{refused}");
    assert_eq!(refused.memory.capacity(), 8192);
    drop(refused);
    let refused = driver.write(file, filled(&arena, b"odd"), 0).unwrap_err();
    assert!(refused.to_string().contains("3 is not"), "{refused}");
    drop(refused);
    let refused = driver.read(file, filled(&arena, &pattern(2, 8192)), 0).unwrap_err();
    assert_eq!(refused.error, TransferError::NoRoom { capacity: 8192 });
    drop(refused);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn ids_of_others_and_of_the_closed_are_refused() {
    let (Some(mut driver), Some(mut other)) = (driver(), driver()) else {
        return;
    };
    let arena = paged_arena(2, 4096);
    let file = driver.add_file(File::open("/dev/zero").unwrap()).unwrap();
    let refused = other.read(file, arena.allocate().unwrap(), 0).unwrap_err();
    let is_other = |error| matches!(error, DriverError::OtherDriver { .. });
    assert!(matches!(refused.error, TransferError::Driver(error) if is_other(error)));
    let id = driver.register(&arena).unwrap();
    assert!(is_other(other.arena(id).unwrap_err()));
    let read = driver.read(file, refused.memory, 0).unwrap();
    // The file is closed while a read is under way: the read ends first.
    driver.close_file(file).unwrap();
    assert_eq!(driver.close_file(file), Err(DriverError::UnknownFile));
    let (result, buffer) = read_result(next_done(&mut driver));
    assert_eq!((result.unwrap(), &buffer[..]), (4096, &[0; 4096][..]));
    assert_eq!(driver.cancel_operation(read), Err(DriverError::UnknownOperation));
    assert!(driver.read(file, arena.allocate().unwrap(), 0).is_err());
    // Its entry is given out again, under another id.
    let again = driver.add_file(File::open("/dev/zero").unwrap()).unwrap();
    assert_eq!(again.index(), file.index());
    assert_ne!(again, file);
    driver.unregister_arena(id).unwrap();
    assert_eq!(driver.unregister_arena(id), Err(DriverError::UnknownArena));
    drop(buffer);
    finish(driver);
    finish(other);
    assert_all_free(&arena);
}

#[test]
fn several_arenas_are_registered_and_each_is_found() {
    let Some(mut driver) = driver() else { return };
    let arenas = [paged_arena(3, 4096), paged_arena(5, 8192), paged_arena(20_000, 4096)];
    let modes: Vec<_> = arenas
        .iter()
        .map(|arena| {
            let id = driver.register(arena).unwrap();
            driver.arena(id).unwrap().mode()
        })
        .collect();
    assert_eq!(
        modes,
        [RegistrationMode::Slots, RegistrationMode::Slots, RegistrationMode::Regions]
    );
    let content = pattern(9, 8192);
    let path = TestFile::new("transfer", &content);
    let file = driver.add_file(path.open()).unwrap();
    for arena in &arenas {
        driver.read(file, arena.allocate().unwrap(), 0).unwrap();
        let (result, buffer) = read_result(next_done(&mut driver));
        assert_eq!(buffer[..], content[..result.unwrap()]);
    }
    finish(driver);
    arenas.iter().for_each(assert_all_free);
}

/// Reads all bytes, slowly at first, so that sends come short.
fn slow_reader(
    mut peer: impl Read + Send + 'static,
    len: usize,
) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut part = vec![0; 10_000];
        while all.len() < len {
            if all.len() < 100_000 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let read = peer.read(&mut part).unwrap();
            all.extend_from_slice(&part[..read]);
        }
        all
    })
}

#[test]
fn sends_arrive_whole_and_in_order_however_small_the_sockets_queue() {
    for zero_copy_from in [1, usize::MAX] {
        let Some(mut driver) = driver() else { return };
        let arena = paged_arena(8, 65536);
        driver.register(&arena).unwrap();
        let (ours, theirs) = tcp_pair();
        let socket = driver.add_file(ours).unwrap();
        let parts: Vec<_> = (0..40).map(|part| pattern(part, 50_000 + part)).collect();
        let expected = parts.concat();
        let reader = slow_reader(theirs, expected.len());
        let options = SendOptions::new().zero_copy_from(zero_copy_from);
        let mut unsent = parts.iter();
        let (mut under_way, mut order) = (0, Vec::new());
        loop {
            while under_way < 8 {
                let Some(part) = unsent.next() else { break };
                driver.send_with(socket, filled(&arena, part).freeze(), options).unwrap();
                under_way += 1;
            }
            if under_way == 0 {
                break;
            }
            let (result, payload) = sent_result(next_done(&mut driver));
            assert_eq!(result.unwrap(), payload.as_ref().len());
            order.push(payload.as_ref().len());
            under_way -= 1;
        }
        assert_eq!(order.len(), 40);
        assert!(reader.join().unwrap() == expected, "mixed or lost");
        let metrics = driver.metrics();
        assert_eq!(metrics.zero_copy_sends > 0, zero_copy_from == 1);
        finish(driver);
        assert_all_free(&arena);
    }
}

/// Loopback copies in any case, and reports it.
#[test]
fn a_socket_whose_bytes_the_kernel_copies_is_sent_to_without_zero_copy() {
    let Some(mut driver) = driver() else { return };
    if !Probe::shared().is_ok_and(|probe| probe.has(Feature::SendZcUsage)) {
        return eprintln!("SKIPPED: the kernel reports no copies");
    }
    let arena = paged_arena(8, 65536);
    driver.register(&arena).unwrap();
    let (ours, theirs) = tcp_pair();
    let socket = driver.add_file(ours).unwrap();
    let sends = 2200;
    let reader = std::thread::spawn(move || std::io::copy(&mut &theirs, &mut std::io::sink()));
    let send = |driver: &mut Driver, options| {
        driver.send_with(socket, filled(&arena, &[7; 20_000]), options).unwrap();
        sent_result(next_done(driver)).0.unwrap();
        driver.metrics().zero_copy_sends
    };
    assert_eq!(send(&mut driver, SendOptions::new()), 1);
    assert_eq!(driver.metrics().zero_copy_sends_copied, 1);
    for _ in 1..1000 {
        assert_eq!(send(&mut driver, SendOptions::new()), 1, "it only costs");
    }
    // Who asks for it gets it.
    assert_eq!(send(&mut driver, SendOptions::new().zero_copy_from(1)), 2);
    // It is tried again now and then.
    let again = (1000..sends).any(|_| send(&mut driver, SendOptions::new()) > 2);
    assert!(again, "never tried again");
    driver.close_file(socket).unwrap();
    finish(driver);
    reader.join().unwrap().unwrap();
    assert_all_free(&arena);
}

#[test]
fn a_socket_set_not_to_block_is_waited_for() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(4, 65536);
    driver.register(&arena).unwrap();
    let (ours, theirs) = tcp_pair();
    ours.set_nonblocking(true).unwrap();
    let socket = driver.add_file(ours).unwrap();
    let content = pattern(4, 3 << 20);
    let reader = slow_reader(theirs, content.len());
    // Transfers are counted by events: between two tries a transfer is with the driver, and not in
    // flight.
    let mut unsent = content.len().div_ceil(60_000);
    for part in content.chunks(60_000) {
        let buffer = loop {
            match arena.allocate() {
                Ok(buffer) => break buffer,
                Err(_) => {
                    sent_result(next_done(&mut driver)).0.unwrap();
                    unsent -= 1;
                }
            }
        };
        let mut buffer = buffer;
        buffer.put_slice(part);
        driver.send(socket, buffer).unwrap();
    }
    for _ in 0..unsent {
        sent_result(next_done(&mut driver)).0.unwrap();
    }
    assert!(reader.join().unwrap() == content);
    finish(driver);
    assert_all_free(&arena);
}

/// A Unix socket refuses zero-copy: the driver sends the ordinary way, and remembers.
#[test]
fn a_socket_that_refuses_zero_copy_is_sent_to_all_the_same() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(4, 65536);
    driver.register(&arena).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let socket = driver.add_file(ours).unwrap();
    let content = pattern(5, 130_000);
    let reader = slow_reader(theirs, content.len());
    for part in content.chunks(65_000) {
        driver.send(socket, filled(&arena, part).freeze()).unwrap();
    }
    for _ in 0..2 {
        let (result, _) = sent_result(next_done(&mut driver));
        assert_eq!(result.unwrap(), 65_000);
    }
    assert!(reader.join().unwrap() == content);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn what_arrives_on_a_socket_goes_to_a_file_and_another_socket_from_its_slot() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(32, 16_384);
    driver.register(&arena).unwrap();
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(16)).unwrap();
    let ((mut sender, incoming), (outgoing, receiver)) = (tcp_pair(), tcp_pair());
    let path = TestFile::new("transfer", &[]);
    let (file, socket) =
        (driver.add_file(path.open()).unwrap(), driver.add_file(outgoing).unwrap());
    let id = driver.receive(ring, incoming).unwrap();
    let content = pattern(6, 2 << 20);
    let reader = slow_reader(receiver, content.len());
    let sent = content.clone();
    let writer = std::thread::spawn(move || sender.write_all(&sent).unwrap());
    let (mut offset, mut wrote, mut passed_on, mut closed) = (0, 0, 0, false);
    while !closed || wrote < content.len() || passed_on < content.len() {
        match next_done(&mut driver) {
            Event::Received { bytes, .. } => {
                driver.write(file, bytes.clone(), offset).unwrap();
                offset += bytes.len() as u64;
                driver.send_with(socket, bytes, SendOptions::new().zero_copy_from(4096)).unwrap();
            }
            Event::Wrote { result, .. } => wrote += result.unwrap(),
            Event::Sent { result, .. } => passed_on += result.unwrap(),
            Event::Closed { id: from, error, .. } => {
                assert!(from == id && error.is_none(), "{error:?}");
                closed = true;
            }
            other => panic!("{other:?}"),
        }
    }
    writer.join().unwrap();
    assert!(std::fs::read(&path).unwrap() == content);
    assert!(reader.join().unwrap() == content);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_cancelled_operation_tells_so_and_gives_its_memory_back() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(4, 4096);
    driver.register(&arena).unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let pipe = driver.add_file(reader).unwrap();
    let read = driver.read(pipe, arena.allocate().unwrap(), 0).unwrap();
    driver.wait_timeout(Duration::ZERO).unwrap();
    driver.cancel_operation(read).unwrap();
    let (result, buffer) = read_result(next_done(&mut driver));
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    drop(buffer);
    // A send that waits behind another.
    let (ours, theirs) = tcp_pair();
    let socket = driver.add_file(ours).unwrap();
    let first = driver.send(socket, filled(&arena, b"first")).unwrap();
    let second = driver.send(socket, filled(&arena, b"second")).unwrap();
    let third = driver.send(socket, filled(&arena, b"third")).unwrap();
    driver.cancel_operation(second).unwrap();
    let mut over = Vec::new();
    while over.len() < 3 {
        let Event::Sent { id, result, .. } = next_done(&mut driver) else { panic!() };
        over.push((id, result.map_err(|error| error.raw_os_error())));
    }
    over.sort_by_key(|(id, _)| [first, second, third].iter().position(|it| it == id));
    assert_eq!(over, [(first, Ok(5)), (second, Err(Some(libc::ECANCELED))), (third, Ok(5))]);
    driver.close_file(socket).unwrap();
    assert_eq!(read_all(theirs), b"firstthird");
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_broken_connection_ends_every_send_with_an_error() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(8, 65536);
    driver.register(&arena).unwrap();
    let (ours, theirs) = tcp_pair();
    let socket = driver.add_file(ours).unwrap();
    drop(theirs);
    for part in 0..6 {
        driver.send(socket, filled(&arena, &pattern(part, 65536))).unwrap();
    }
    let mut failed = 0;
    for _ in 0..6 {
        failed += usize::from(sent_result(next_done(&mut driver)).0.is_err());
    }
    assert!(failed >= 4, "{failed}");
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn draining_ends_what_is_under_way_and_what_waits() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(16, 65536);
    driver.register(&arena).unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let pipe = driver.add_file(reader).unwrap();
    for _ in 0..4 {
        driver.read(pipe, arena.allocate().unwrap(), 0).unwrap();
    }
    let (ours, _theirs) = tcp_pair();
    let socket = driver.add_file(ours).unwrap();
    // There are more bytes than the sockets take: some sends are under way, some wait.
    for part in 0..10 {
        driver.send(socket, filled(&arena, &pattern(part, 65536))).unwrap();
    }
    driver.wait_timeout(Duration::from_millis(10)).unwrap();
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_full_table_gives_the_memory_back() {
    let Some(mut driver) = build(Driver::builder().operations(2)) else {
        return;
    };
    let arena = paged_arena(4, 4096);
    let (reader, _writer) = std::io::pipe().unwrap();
    let pipe = driver.add_file(reader).unwrap();
    for _ in 0..2 {
        driver.read(pipe, arena.allocate().unwrap(), 0).unwrap();
    }
    let refused = driver.read(pipe, arena.allocate().unwrap(), 0).unwrap_err();
    assert_eq!(refused.error, TransferError::Driver(DriverError::TooManyOperations { limit: 2 }));
    let refused = driver.write(pipe, Bytes::from_static(b"x"), 0).unwrap_err();
    assert_eq!(refused.memory.as_ref(), b"x");
    drop(refused);
    finish(driver);
}

#[test]
fn dropping_the_driver_with_reads_under_way_frees_nothing_early_and_loses_nothing() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(16, 1 << 20);
    driver.register(&arena).unwrap();
    let content = pattern(8, 16 << 20);
    let path = TestFile::new("transfer", &content);
    let Ok(direct) = DirectFile::open(&path) else {
        return eprintln!("SKIPPED: no O_DIRECT here");
    };
    let file = driver.add_file(direct.into_file()).unwrap();
    for at in 0..16 {
        driver.read(file, arena.allocate().unwrap(), at << 20).unwrap();
    }
    driver.wait_timeout(Duration::ZERO).unwrap();
    // The drain waits for the disk.
    drop(driver);
    assert_all_free(&arena);
}

#[test]
fn bytes_read_outlive_driver_and_arena() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(2, 4096);
    driver.register(&arena).unwrap();
    let path = TestFile::new("transfer", &pattern(2, 4096));
    let file = driver.add_file(path.open()).unwrap();
    driver.read(file, arena.allocate().unwrap(), 0).unwrap();
    let (_, buffer) = read_result(next_done(&mut driver));
    let bytes = buffer.freeze();
    finish(driver);
    drop(arena);
    assert_eq!(bytes[..], pattern(2, 4096));
}

#[test]
fn more_files_than_the_ring_registers_work_too() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(4, 4096);
    let first = File::open("/dev/zero").unwrap();
    let mut files = Vec::new();
    for _ in 0..1100 {
        match first.try_clone() {
            Ok(clone) => files.push(driver.add_file(clone).unwrap()),
            Err(error) => {
                eprintln!("SKIPPED beyond {} files: {error}", files.len());
                break;
            }
        }
    }
    for file in [files[0], files[files.len() - 1]] {
        driver.read(file, arena.allocate().unwrap(), 0).unwrap();
        assert_eq!(read_result(next_done(&mut driver)).0.unwrap(), 4096);
    }
    for file in files {
        driver.close_file(file).unwrap();
    }
    finish(driver);
    assert_all_free(&arena);
}
