//! Reads and writes from registered memory, on real files: lengths, refusals, lost operations.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use crate::support::ring::{push, register, ring, run};
use crate::support::{TestFile, assert_all_free, filled, nz, paged_arena, pattern};
use bytes::{BufMut, Bytes};
use io_uring::{IoUring, types};
use uring_arena::{
    Completion, DirectError, DirectFile, Feature, FixedArena, InFlight, InitPolicy, Payload, Probe,
    Progress, RegisterOptions, RegisteredArena, RegistrationMode, RegistrationPolicy,
};

const MODES: [RegistrationMode; 3] =
    [RegistrationMode::Slots, RegistrationMode::Regions, RegistrationMode::Unregistered];

fn direct(file: &TestFile, test: &str) -> Option<DirectFile> {
    match DirectFile::open_with(File::options().read(true).write(true), file) {
        Ok(direct) => Some(direct),
        Err(error) => {
            eprintln!("SKIPPED {test}: {error}");
            None
        }
    }
}

/// Reads a whole `O_DIRECT` file of unknown length, a slot at a time.
fn read_direct(
    ring: &mut IoUring,
    registered: &RegisteredArena,
    arena: &FixedArena,
    file: &DirectFile,
) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let buffer = arena.allocate().unwrap();
        let (offset, asked) = (content.len() as u64, buffer.capacity());
        file.alignment().check_read(&buffer, offset).unwrap();
        let outcome = run(ring, registered.read(file, buffer, offset));
        let read = outcome.result.unwrap();
        content.extend_from_slice(&outcome.buffer);
        if read < asked && !file.alignment().may_go_on(read) {
            return content;
        }
    }
}

#[test]
fn bytes_go_to_a_file_and_come_back_in_every_mode() {
    let Some(mut ring) = ring("round trip") else { return };
    for mode in MODES {
        let arena = paged_arena(8, 8192);
        let registered = register(&ring, &arena, mode);
        let file = TestFile::new("round-trip", &[]);
        let handle = file.open();
        let content = pattern(0, 5000);
        // The memory is a buffer, frozen bytes, `Bytes` inside the arena, and `Bytes` outside of
        // it.
        let wrote = run(&mut ring, registered.write(&handle, filled(&arena, &content), 0));
        assert_eq!((wrote.result.unwrap(), wrote.buffer.len()), (5000, 5000));
        let frozen = wrote.buffer.freeze_in_place();
        let sent = registered.write(&handle, frozen.slice(1000..), 5000);
        assert_eq!(sent.1.buffer_index().is_some(), mode.is_registered());
        assert_eq!(run(&mut ring, sent).result.unwrap(), 4000);
        let bytes = Bytes::from(frozen);
        let sent = registered.write(&handle, bytes.slice(10..20), 9000);
        assert_eq!(sent.1.buffer_index().is_some(), mode.is_registered());
        assert_eq!(run(&mut ring, sent).result.unwrap(), 10);
        let sent = registered.write(&handle, Bytes::from_static(b"end"), 9010);
        assert_eq!(sent.1.buffer_index(), None);
        assert_eq!(run(&mut ring, sent).result.unwrap(), 3);
        drop(bytes);
        let expected = [&content[..], &content[1000..], &content[10..20], b"end"].concat();
        assert_eq!(std::fs::read(&file).unwrap(), expected);

        let read = run(&mut ring, registered.read(&handle, arena.allocate().unwrap(), 100));
        assert_eq!((read.result.unwrap(), read.buffer.len()), (8192, 8192));
        assert_eq!(read.buffer[..], expected[100..8292]);
        // A read appends to the content of its buffer, up to the capacity.
        let mut buffer = read.buffer;
        buffer.truncate(4);
        let read = run(&mut ring, registered.read_at_most(&handle, buffer, 9010, 2));
        assert_eq!(read.result.unwrap(), 2);
        assert_eq!(read.buffer[..], [&expected[100..104], b"en"].concat());
        drop(read.buffer);
        if mode.is_registered() {
            registered.unregister(&ring).unwrap();
        }
        assert_all_free(&arena);
    }
}

#[test]
fn direct_files_of_any_length_are_read_whole() {
    let Some(mut ring) = ring("O_DIRECT lengths") else { return };
    let arena = paged_arena(4, 8192);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    for len in [0, 1, 511, 512, 4095, 4096, 5000, 8192, 8193, 16_384, 20_000] {
        let content = pattern(0, len);
        let file = TestFile::new("lengths", &content);
        let Some(direct) = direct(&file, "O_DIRECT lengths") else { return };
        assert_eq!(read_direct(&mut ring, &registered, &arena, &direct), content, "length {len}");
    }
    assert_all_free(&arena);
}

#[test]
fn a_file_that_shrinks_gives_what_is_left() {
    let Some(mut ring) = ring("shrinking") else { return };
    let arena = paged_arena(4, 8192);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let file = TestFile::new("shrinking", &pattern(0, 30_000));
    let Some(direct) = direct(&file, "shrinking") else { return };
    let first = run(&mut ring, registered.read(&direct, arena.allocate().unwrap(), 0));
    assert_eq!(first.result.unwrap(), 8192);
    file.open().set_len(9000).unwrap();
    let second = run(&mut ring, registered.read(&direct, arena.allocate().unwrap(), 8192));
    let read = second.result.unwrap();
    assert_eq!((read, direct.alignment().may_go_on(read)), (808, false));
    assert_eq!(second.buffer[..], pattern(0, 30_000)[8192..9000]);
    let third = run(&mut ring, registered.read(&direct, arena.allocate().unwrap(), 16_384));
    assert_eq!((third.result.unwrap(), third.buffer.len()), (0, 0));
}

#[test]
fn unaligned_direct_operations_are_refused_by_name_before_the_kernel_sees_them() {
    let Some(mut ring) = ring("alignment") else { return };
    let arena = paged_arena(4, 8192);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let file = TestFile::new("alignment", &pattern(0, 20_000));
    let Some(direct) = direct(&file, "alignment") else { return };
    let alignment = direct.alignment();
    let step = alignment.offset;
    let buffer = arena.allocate().unwrap();
    let error = alignment.check_read(&buffer, 100).unwrap_err();
    assert_eq!(error, DirectError::Offset { offset: 100, required: step });
    assert!(error.to_string().contains(&format!("multiples of {step} bytes: 100 is not")));
    let error = alignment.check_write(&buffer[..0], 0);
    assert!(error.is_ok());
    let mut buffer = buffer;
    buffer.put_slice(b"abc");
    assert!(matches!(alignment.check_write(&buffer, 0), Err(DirectError::Length { len: 3, .. })));
    assert!(matches!(alignment.check_read(&buffer, 0), Err(DirectError::Length { len: 8189, .. })));
    // The kernel refuses the same offsets as the check, with an error, and the slot is free again.
    let outcome =
        run(&mut ring, registered.read_at_most(&direct, arena.allocate().unwrap(), 100, 4096));
    assert_eq!(outcome.result.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    drop((outcome.buffer, buffer));
    assert_all_free(&arena);
}

#[test]
fn a_file_system_without_direct_io_says_so_or_works() {
    let Some(mut ring) = ring("tmpfs") else { return };
    let path = std::path::Path::new("/dev/shm").join(format!("uring-arena-{}", std::process::id()));
    if let Err(error) = std::fs::write(&path, pattern(0, 10_000)) {
        return eprintln!("SKIPPED tmpfs: {error}");
    }
    let opened = DirectFile::open(&path);
    std::fs::remove_file(&path).unwrap();
    match opened {
        // Newer kernels pretend to support O_DIRECT on tmpfs.
        Ok(file) => {
            let arena = paged_arena(4, 4096);
            let registered = register(&ring, &arena, RegistrationPolicy::Best);
            assert_eq!(read_direct(&mut ring, &registered, &arena, &file), pattern(0, 10_000));
        }
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
            assert!(error.to_string().contains("buffered"), "{error}");
        }
    }
    let missing = DirectFile::open("/no/such/file").unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn several_buffers_go_in_one_operation() {
    let Some(mut ring) = ring("vectored") else { return };
    let has_vectored = Probe::shared().unwrap().has(Feature::VectoredFixed);
    for mode in MODES {
        let arena = paged_arena(8, 4096);
        let registered = register(&ring, &arena, mode);
        let file = TestFile::new("vectored", &[]);
        let handle = file.open();
        let pieces: Vec<Payload> = vec![
            filled(&arena, &pattern(0, 1000)).into(),
            Bytes::new().into(),
            filled(&arena, &pattern(0, 2000)).freeze().into(),
            filled(&arena, &pattern(0, 300)).freeze_in_place().into(),
        ];
        let sent = registered.writev(&handle, pieces, 0);
        assert_eq!(
            sent.1.buffer_index().is_some(),
            mode == RegistrationMode::Regions && has_vectored,
            "{mode:?}"
        );
        let outcome = run(&mut ring, sent);
        assert_eq!((outcome.result.unwrap(), outcome.buffer.len()), (3300, 4));
        drop(outcome.buffer);
        let content = [pattern(0, 1000), pattern(0, 2000), pattern(0, 300)].concat();
        assert_eq!(std::fs::read(&file).unwrap(), content);
        // Slices of one slot share its index on every mode.
        let frozen = filled(&arena, &pattern(0, 4000)).freeze_in_place();
        let sent =
            registered.writev(&handle, vec![frozen.slice(100..200), frozen.slice(..50)], 3300);
        assert_eq!(sent.1.buffer_index().is_some(), mode.is_registered() && has_vectored);
        assert_eq!(run(&mut ring, sent).result.unwrap(), 150);
        drop(frozen);

        let mut first = filled(&arena, b"kept");
        first.truncate(4);
        let buffers = vec![first, arena.allocate().unwrap()];
        let outcome = run(&mut ring, registered.readv(&handle, buffers, 0));
        assert_eq!(outcome.result.unwrap(), 3450);
        assert_eq!(outcome.buffer[0][..4], *b"kept");
        assert_eq!((outcome.buffer[0].len(), outcome.buffer[1].len()), (3454, 0));
        let outcome = run(&mut ring, registered.readv(&handle, outcome.buffer, 0));
        let (first, second) = (&outcome.buffer[0], &outcome.buffer[1]);
        assert_eq!((first.len(), second.len()), (4096, 3450 - (4096 - 3454)));
        drop(outcome.buffer);
        if mode.is_registered() {
            registered.unregister(&ring).unwrap();
        }
        assert_all_free(&arena);
    }
}

#[test]
fn a_closed_descriptor_and_an_emptied_table_are_errors() {
    let Some(mut ring) = ring("closed fd") else { return };
    let arena = paged_arena(4, 4096);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    // A number that no descriptor of this process reaches: closing one would race with other tests.
    let outcome =
        run(&mut ring, registered.read(types::Fd(1_000_000), arena.allocate().unwrap(), 0));
    assert_eq!(outcome.result.unwrap_err().raw_os_error(), Some(libc::EBADF));
    assert_eq!(outcome.buffer.len(), 0);
    drop(outcome.buffer);
    let pipe: (OwnedFd, OwnedFd) = {
        let (reader, writer) = std::io::pipe().unwrap();
        (reader.into(), writer.into())
    };
    // A write end cannot be read.
    let outcome = run(&mut ring, registered.read(&pipe.1, arena.allocate().unwrap(), 0));
    assert_eq!(outcome.result.unwrap_err().raw_os_error(), Some(libc::EBADF));
    drop(outcome.buffer);
    // The table is unregistered before the entry is issued, which is when the kernel uses the
    // index.
    let file = TestFile::new("emptied", &pattern(0, 4096)).open();
    let (entry, operation) = registered.read(&file, arena.allocate().unwrap(), 0);
    registered.unregister(&ring).unwrap();
    let outcome = run(&mut ring, (entry, operation));
    assert_eq!(outcome.result.unwrap_err().raw_os_error(), Some(libc::EFAULT));
    drop(outcome.buffer);
    assert_all_free(&arena);
}

#[test]
fn entries_that_were_pushed_before_their_arena_goes_are_done() {
    let Some(mut ring) = ring("pushed before") else { return };
    let arena = paged_arena(32, 4096);
    let file = TestFile::new("pushed", &pattern(0, 4096)).open();
    for mode in [RegistrationMode::Slots, RegistrationMode::Regions] {
        let registered = register(&ring, &arena, mode);
        let mut operations: Vec<_> = (0..32)
            .map(|number| {
                let (entry, operation) = registered.read(&file, arena.allocate().unwrap(), 0);
                push(&mut ring, &entry.user_data(number));
                Some(operation)
            })
            .collect();
        registered.unregister(&ring).unwrap();
        ring.submit_and_wait(32).unwrap();
        for completion in ring.completion() {
            let operation = operations[completion.user_data() as usize].take().unwrap();
            // SAFETY: the completion of this operation, by its number, handed in once.
            let done = unsafe { operation.complete(&completion) };
            let Progress::Done { result, buffer, .. } = done else { panic!("{done:?}") };
            assert_eq!((result.unwrap(), &buffer[..]), (4096, &pattern(0, 4096)[..]));
        }
    }
    assert_all_free(&arena);
}

#[test]
fn full_and_empty_buffers_do_nothing() {
    let Some(mut ring) = ring("wrong lengths") else { return };
    let arena = paged_arena(4, 4096);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let file = TestFile::new("lengths", &pattern(0, 100)).open();
    let full = filled(&arena, &pattern(0, 4096));
    let outcome = run(&mut ring, registered.read(&file, full, 0));
    assert_eq!((outcome.result.unwrap(), outcome.buffer.len()), (0, 4096));
    drop(outcome.buffer);
    let outcome = run(&mut ring, registered.write(&file, arena.allocate().unwrap(), 0));
    assert_eq!(outcome.result.unwrap(), 0);
    let outcome = run(&mut ring, registered.read_at_most(&file, arena.allocate().unwrap(), 0, 0));
    assert_eq!(outcome.result.unwrap(), 0);
    let outcome = run(&mut ring, registered.readv(&file, Vec::new(), 0));
    assert_eq!(outcome.result.unwrap(), 0);
}

#[test]
fn the_zero_policy_scrubs_what_the_kernel_wrote() {
    let Some(mut ring) = ring("zero policy") else { return };
    let arena = FixedArena::with_slot_capacity(nz(1), nz(4096))
        .alignment(4096)
        .init_policy(InitPolicy::Zero)
        .build()
        .unwrap();
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let file = TestFile::new("zero", &[0xFF; 4096]).open();
    let mut buffer = run(&mut ring, registered.read(&file, arena.allocate().unwrap(), 0)).buffer;
    buffer.clear();
    drop(buffer);
    let mut buffer = arena.allocate().unwrap();
    assert!(buffer.spare_capacity_mut().len() == 4096);
    let start = buffer.as_ptr();
    // SAFETY: the kernel and the scrubbing have initialised every byte.
    let bytes = unsafe { std::slice::from_raw_parts(start, 4096) };
    assert!(bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn operations_lost_at_every_point_are_quarantined_and_counted() {
    let Some(mut ring) = ring("lost operations") else { return };
    let arena = paged_arena(8, 4096);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let quarantined = || arena.metrics().quarantined;
    // An entry was never pushed and is reported so: nothing is lost.
    let (_, operation) = registered.read(&reader, arena.allocate().unwrap(), 0);
    // SAFETY: the entry was not pushed.
    drop(unsafe { operation.not_submitted() });
    assert_eq!((quarantined(), arena.metrics().bytes_live), (0, 0));
    // An entry was never pushed, but its operation is dropped: its slot is quarantined.
    drop(registered.read(&reader, arena.allocate().unwrap(), 0));
    assert_eq!(quarantined(), 1);
    // An operation is in the kernel and waits for data.
    let (entry, operation) = registered.read(&reader, arena.allocate().unwrap(), 0);
    push(&mut ring, &entry);
    ring.submit().unwrap();
    drop(operation);
    assert_eq!(quarantined(), 2);
    // An operation has finished, but its completion was never handed in.
    writer.write_all(b"late").unwrap();
    ring.submit_and_wait(1).unwrap();
    assert_eq!(ring.completion().next().unwrap().result(), 4);
    assert_eq!(quarantined(), 2);
    // Two operations on shares of one slot lose one slot.
    let bytes = Bytes::from(filled(&arena, &pattern(0, 100)));
    drop(registered.write(&writer, bytes.slice(..50), 0));
    drop(registered.write(&writer, bytes.slice(50..), 0));
    drop(bytes);
    assert_eq!(quarantined(), 3);
    // An empty slice of it, and bytes outside of every arena, lose no slot.
    drop(registered.write(&writer, Bytes::new(), 0));
    drop(registered.write(&writer, Bytes::from_static(b"static"), 0));
    drop(registered.writev(&writer, vec![filled(&arena, b"a").freeze_in_place()], 0));
    assert_eq!(quarantined(), 4);
    // Leaking is allowed too; the slot stays claimed.
    std::mem::forget(registered.read(&reader, arena.allocate().unwrap(), 0));
    assert_eq!(arena.metrics().bytes_live, 5 * 4096);
    let left: Vec<_> = std::iter::from_fn(|| arena.allocate().ok()).collect();
    assert_eq!(left.len(), 3);
}

#[test]
fn a_ring_dropped_with_reads_in_flight_frees_nothing_early() {
    let Some(mut ring) = ring("dropped ring") else { return };
    let arena = paged_arena(4, 4096);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut in_flight = InFlight::new(1);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    for _ in 0..3 {
        let (entry, operation) = registered.read(&reader, arena.allocate().unwrap(), 0);
        push(&mut ring, &in_flight.begin(entry, operation));
    }
    ring.submit().unwrap();
    drop(ring);
    assert_eq!((in_flight.len(), arena.metrics().bytes_live), (3, 3 * 4096));
    drop(in_flight);
    drop(registered);
    let metrics = arena.metrics();
    assert_eq!((metrics.quarantined, metrics.bytes_live), (3, 3 * 4096));
    // One slot is left, and it works.
    let mut buffer = arena.allocate().unwrap();
    assert!(arena.allocate().is_err());
    buffer.put_slice(&pattern(0, 4096));
    let _ = writer.write(b"too late");
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(buffer[..], pattern(0, 4096));
}

#[test]
fn a_table_in_flight_recognises_what_is_not_its_own() {
    let Some(mut ring) = ring("in flight") else { return };
    let arena = paged_arena(4, 4096);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let file = TestFile::new("table", &pattern(0, 4096)).open();
    let mut in_flight = InFlight::new(9);
    let (entry, operation) = registered.read(&file, arena.allocate().unwrap(), 0);
    let entry = in_flight.begin(entry, operation);
    let kept = entry.get_user_data();
    push(&mut ring, &entry);
    // Two operations on one slot's shared bytes at a time.
    let bytes = filled(&arena, &pattern(0, 100)).freeze();
    for part in [bytes.slice(..50), bytes.slice(50..)] {
        let (entry, operation) = registered.write(&file, part, 5000);
        push(&mut ring, &in_flight.begin(entry, operation));
    }
    drop(bytes);
    assert_eq!(in_flight.len(), 3);
    ring.submit_and_wait(3).unwrap();
    let cqes: Vec<_> = ring.completion().collect();
    for cqe in &cqes {
        let mut forged = cqe.clone();
        forged.set_user_data(cqe.user_data() ^ 1 << 56);
        // SAFETY: the table is told what came from its ring, and completions that name nothing in
        // flight.
        assert!(matches!(unsafe { in_flight.complete(&forged) }, Completion::Foreign));
        forged.set_user_data(cqe.user_data() ^ 1 << 31);
        // SAFETY: as above.
        assert!(matches!(unsafe { in_flight.complete(&forged) }, Completion::Stale));
        forged.set_user_data(cqe.user_data() ^ 1 << 55);
        // SAFETY: as above.
        assert!(matches!(unsafe { in_flight.complete(&forged) }, Completion::Stale));
    }
    let mut read = None;
    for cqe in &cqes {
        // SAFETY: reaped from the ring.
        match unsafe { in_flight.complete(cqe) } {
            Completion::Done { result, payload: Payload::Buffer(buffer), .. } => {
                assert_eq!(result.unwrap(), 4096);
                read = Some(buffer);
            }
            Completion::Done { result, .. } => assert_eq!(result.unwrap(), 50),
            other => panic!("{other:?}"),
        }
        // SAFETY: reaped from the ring; that it came before is recognised.
        assert!(matches!(unsafe { in_flight.complete(cqe) }, Completion::Stale));
    }
    assert!(in_flight.is_empty());
    // The same entry of the table again has another generation.
    let mut buffer = read.unwrap();
    buffer.clear();
    let (entry, operation) = registered.read(&file, buffer, 0);
    let entry = in_flight.begin(entry, operation);
    assert_ne!(entry.get_user_data(), kept);
    // SAFETY: as above.
    assert!(matches!(unsafe { in_flight.complete(&cqes[0]) }, Completion::Stale));
    // SAFETY: the entry was not pushed.
    assert!(unsafe { in_flight.not_submitted(&entry) }.is_some());
    assert_all_free(&arena);
}

#[test]
fn a_cancelled_read_gives_its_buffer_back_by_its_own_completion() {
    let Some(mut ring) = ring("cancelled") else { return };
    let arena = paged_arena(1, 4096);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let (reader, _writer) = std::io::pipe().unwrap();
    let (entry, operation) = registered.read(&reader, arena.allocate().unwrap(), 0);
    push(&mut ring, &entry.user_data(5));
    ring.submit().unwrap();
    push(&mut ring, &io_uring::opcode::AsyncCancel::new(5).build().user_data(6));
    let mut operation = Some(operation);
    while operation.is_some() {
        ring.submit_and_wait(1).unwrap();
        for cqe in ring.completion().filter(|cqe| cqe.user_data() == 5) {
            // SAFETY: its only completion.
            let progress = unsafe { operation.take().unwrap().complete(&cqe) };
            let Progress::Done { result, buffer, .. } = progress else { panic!() };
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
            drop(buffer);
        }
    }
    assert_all_free(&arena);
}

#[test]
fn spilled_buffers_and_strangers_go_by_ordinary_operations() {
    let Some(mut ring) = ring("spilled") else { return };
    let arena = FixedArena::with_slot_capacity(nz(2), nz(64)).auto_spill().build().unwrap();
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let file = TestFile::new("spilled", &[]);
    let handle = file.open();
    let spilled = filled(&arena, &pattern(0, 1000));
    assert!(spilled.is_spilled());
    let sent = registered.write(&handle, spilled, 0);
    assert_eq!(sent.1.buffer_index(), None);
    let outcome = run(&mut ring, sent);
    assert_eq!(outcome.result.unwrap(), 1000);
    let mut buffer = outcome.buffer;
    buffer.truncate(10);
    let outcome = run(&mut ring, registered.read_at_most(&handle, buffer, 0, 20));
    assert_eq!(outcome.result.unwrap(), 20);
    assert_eq!(outcome.buffer[..], [&pattern(0, 10)[..], &pattern(0, 20)[..]].concat());
    // A lost operation without a slot is leaked, and not counted.
    drop(registered.write(&handle, outcome.buffer, 0));
    assert_all_free(&arena);
}

#[test]
fn the_older_way_reads_and_writes_the_same() {
    let Some(mut ring) = ring("older way") else { return };
    let arena = paged_arena(4, 4096);
    let probe = Probe::shared().unwrap().without(Feature::VectoredFixed);
    let options = RegisterOptions::new().mode(RegistrationMode::Regions).probe(probe);
    // SAFETY: as in `support::ring::register`.
    let registered = unsafe { RegisteredArena::register(&ring, &arena, options) }.unwrap();
    let file = TestFile::new("older", &[]);
    let handle = file.open();
    let pieces = vec![filled(&arena, &pattern(0, 100)), filled(&arena, &pattern(0, 200))];
    let sent = registered.writev(&handle, pieces, 0);
    assert_eq!(sent.1.buffer_index(), None);
    assert_eq!(run(&mut ring, sent).result.unwrap(), 300);
    assert_eq!(std::fs::read(&file).unwrap(), [pattern(0, 100), pattern(0, 200)].concat());
}

/// Offsets beyond the last one of any file: -1 would mean the descriptor's own position.
#[test]
fn an_offset_that_no_file_has_is_refused_and_touches_nothing() {
    let Some(mut ring) = ring("offsets") else { return };
    for mode in MODES {
        let arena = paged_arena(4, 4096);
        let registered = register(&ring, &arena, mode);
        let path = TestFile::new("offsets", b"as it was");
        let append = File::options().read(true).append(true).open(&path).unwrap();
        for file in [path.open(), append] {
            for offset in [u64::MAX, u64::MAX - 1, 1 << 63, i64::MAX as u64] {
                let errno = |result: std::io::Result<usize>| result.unwrap_err().raw_os_error();
                let read = registered.read(&file, arena.allocate().unwrap(), offset);
                assert_eq!(errno(run(&mut ring, read).result), Some(libc::EINVAL), "{offset}");
                let buffers = vec![arena.allocate().unwrap(), arena.allocate().unwrap()];
                let read = registered.readv(&file, buffers, offset);
                assert_eq!(errno(run(&mut ring, read).result), Some(libc::EINVAL), "{offset}");
                let write = registered.write(&file, filled(&arena, b"not here"), offset);
                assert_eq!(errno(run(&mut ring, write).result), Some(libc::EINVAL), "{offset}");
                let pieces = vec![filled(&arena, b"nor"), filled(&arena, b"here")];
                let write = registered.writev(&file, pieces, offset);
                assert_eq!(errno(run(&mut ring, write).result), Some(libc::EINVAL), "{offset}");
            }
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"as it was");
        registered.unregister(&ring).unwrap();
        assert_all_free(&arena);
    }
}

/// Operations of no bytes complete with 0, in every mode: the kernel refuses an empty range of a
/// registered buffer, so they name none.
#[test]
fn operations_of_no_bytes_complete_with_none() {
    let Some(mut ring) = ring("empty") else { return };
    for mode in MODES {
        let arena = paged_arena(8, 4096);
        let registered = register(&ring, &arena, mode);
        let path = TestFile::new("empty", b"as it was");
        let file = path.open();
        let some = filled(&arena, b"some").freeze_in_place();
        let empties = || -> Vec<Payload> {
            vec![
                arena.allocate().unwrap().into(),
                some.slice(2..2).into(),
                some.slice(4..).into(),
                Bytes::new().into(),
                Bytes::from(some.clone()).slice(1..1).into(),
            ]
        };
        for payload in empties() {
            let outcome = run(&mut ring, registered.write(&file, payload, 3));
            assert_eq!(outcome.result.unwrap(), 0);
        }
        for pieces in [empties(), Vec::new()] {
            let outcome = run(&mut ring, registered.writev(&file, pieces, 3));
            assert_eq!(outcome.result.unwrap(), 0);
        }
        let full = || filled(&arena, &[7; 4096]);
        for read in [
            registered.read(&file, full(), 0),
            registered.read_at_most(&file, full(), 0, 0),
            registered.read_at_most(&file, arena.allocate().unwrap(), 0, 0),
        ] {
            let outcome = run(&mut ring, read);
            assert_eq!((outcome.result.unwrap(), outcome.buffer.len() % 4096), (0, 0));
        }
        for buffers in [vec![], vec![full(), full()]] {
            let outcome = run(&mut ring, registered.readv(&file, buffers, 0));
            assert_eq!(outcome.result.unwrap(), 0);
        }
        // Among others an empty one takes no part.
        let pieces = vec![Payload::from(Bytes::new()), Bytes::from_static(b"at").into()];
        assert_eq!(run(&mut ring, registered.writev(&file, pieces, 0)).result.unwrap(), 2);
        let buffers = vec![full(), arena.allocate().unwrap()];
        let outcome = run(&mut ring, registered.readv(&file, buffers, 0));
        assert_eq!((outcome.result.unwrap(), &outcome.buffer[1][..]), (9, &b"at it was"[..]));
        drop((outcome.buffer, some));
        registered.unregister(&ring).unwrap();
        assert_all_free(&arena);
    }
}
