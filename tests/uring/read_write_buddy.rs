//! Blocks of a buddy arena in reads and writes: single and vectored, of buffers and frozen bytes.
#![allow(unsafe_code)]

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use crate::support::ring::{register, ring, run};
use crate::support::{TestFile, assert_all_free, nz, paged_buddy_arena, pattern, written};
use bytes::Bytes;
use uring_arena::{
    BuddyArena, Buffer, DirectFile, Feature, Payload, Probe, RegistrationMode, RegistrationPolicy,
    SendOptions,
};

fn filled(arena: &BuddyArena, len: usize, bytes: &[u8]) -> Buffer {
    written(arena.allocate(nz(len)).unwrap(), bytes)
}

fn has_vectored() -> bool {
    Probe::shared().unwrap().has(Feature::VectoredFixed)
}

#[test]
fn where_a_slice_lies_is_the_index_that_an_operation_names() {
    let Some(ring) = ring("locate") else { return };
    let arena = paged_buddy_arena(1 << 20);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    assert_eq!(registered.mode(), RegistrationMode::Regions);
    let first = registered.entries().unwrap().0;
    for len in [1, 4096, 5000, 100_000] {
        let bytes = filled(&arena, len, &pattern(0, len)).freeze();
        for slice in [bytes.slice(..), bytes.slice(len / 2..), bytes.slice(len - 1..)] {
            let location = arena.locate(&slice).unwrap();
            assert_eq!(
                registered.buffer_index(&slice),
                Some((first + location.region_index) as u16)
            );
        }
    }
    assert_eq!((arena.locate(b"not ours"), registered.buffer_index(b"not ours")), (None, None));
    assert_all_free(&arena);
}

#[test]
fn blocks_of_several_sizes_go_in_one_operation() {
    let Some(mut ring) = ring("vectored blocks") else { return };
    let arena = paged_buddy_arena(1 << 20);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let file = TestFile::new("blocks", &[]);
    let handle = file.open();
    let frozen = filled(&arena, 40_000, &pattern(0, 40_000)).freeze();
    let pieces: Vec<Payload> = vec![
        filled(&arena, 4096, &pattern(0, 1000)).into(),
        frozen.slice(30_000..).into(),
        filled(&arena, 9000, &pattern(0, 9000)).freeze_in_place().into(),
        frozen.slice(..100).into(),
    ];
    let written = registered.writev(&handle, pieces, 0);
    assert_eq!(written.1.buffer_index().is_some(), has_vectored());
    let outcome = run(&mut ring, written);
    assert_eq!(outcome.result.unwrap(), 20_100);
    drop((outcome.buffer, frozen));
    let whole = pattern(0, 40_000);
    let content =
        [&pattern(0, 1000)[..], &whole[30_000..], &pattern(0, 9000), &whole[..100]].concat();
    assert_eq!(std::fs::read(&file).unwrap(), content);
    // With bytes outside of the arena among them, the write is an ordinary vectored one.
    let mixed: Vec<Payload> =
        vec![filled(&arena, 64, b"ours").into(), Bytes::from_static(b"theirs").into()];
    let written = registered.writev(&handle, mixed, 20_100);
    assert_eq!(written.1.buffer_index(), None);
    assert_eq!(run(&mut ring, written).result.unwrap(), 10);

    let buffers = vec![arena.allocate(nz(4096)).unwrap(), arena.allocate(nz(65_536)).unwrap()];
    let read = registered.readv(&handle, buffers, 0);
    assert_eq!(read.1.buffer_index().is_some(), has_vectored());
    let outcome = run(&mut ring, read);
    assert_eq!(outcome.result.unwrap(), 20_110);
    assert_eq!(outcome.buffer[0][..], content[..4096]);
    assert_eq!(outcome.buffer[1][..], [&content[4096..], &b"ourstheirs"[..]].concat());
    drop(outcome.buffer);
    registered.unregister(&ring).unwrap();
    assert_all_free(&arena);
}

#[test]
fn blocks_are_read_and_written_with_o_direct() {
    let Some(mut ring) = ring("direct blocks") else { return };
    let arena = paged_buddy_arena(1 << 20);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let file = TestFile::new("direct-blocks", &pattern(0, 65_536));
    let Ok(direct) = DirectFile::open(&file) else {
        return eprintln!("SKIPPED: no O_DIRECT here");
    };
    // Blocks begin on their alignment, so every size meets the alignment of the file.
    for len in [4096, 16_384, 65_536] {
        let block = arena.allocate(nz(len)).unwrap();
        direct.alignment().check_read(&block, 0).unwrap();
        let read = registered.read(&direct, block, 0);
        assert!(read.1.buffer_index().is_some());
        let outcome = run(&mut ring, read);
        assert_eq!(outcome.result.unwrap(), len);
        assert_eq!(outcome.buffer[..], pattern(0, 65_536)[..len]);
    }
    assert_all_free(&arena);
}

#[test]
fn blocks_and_their_slices_are_sent_without_copy() {
    let Some(mut ring) = ring("blocks sent") else { return };
    if !Probe::shared().unwrap().has(Feature::SendZc) {
        return eprintln!("SKIPPED: no zero-copy send");
    }
    let arena = paged_buddy_arena(1 << 20);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let bytes = filled(&arena, 40_000, &pattern(0, 40_000)).freeze();
    let always = SendOptions::new().zero_copy_from(1).wait_all();
    let sent = registered.send(&ours, bytes.slice(10_000..30_000), always);
    assert!(sent.1.is_zero_copy());
    let outcome = run(&mut ring, sent);
    assert_eq!((outcome.result.unwrap(), outcome.completions), (20_000, 2));
    // The kernel reports that loopback copied.
    assert_eq!(outcome.copied, Probe::shared().unwrap().has(Feature::SendZcUsage).then_some(true));
    drop(outcome.buffer);
    let list: Vec<Payload> = vec![bytes.slice(..10_000).into(), filled(&arena, 64, b"end").into()];
    let sent = registered.send(&ours, list, always);
    assert_eq!(sent.1.is_zero_copy(), has_vectored());
    let outcome = run(&mut ring, sent);
    assert_eq!(outcome.result.unwrap(), 10_003);
    drop((outcome.buffer, bytes));
    let mut received = vec![0; 30_003];
    peer.read_exact(&mut received).unwrap();
    let whole = pattern(0, 40_000);
    assert!(received == [&whole[10_000..30_000], &whole[..10_000], b"end"].concat());
    assert_all_free(&arena);
}
