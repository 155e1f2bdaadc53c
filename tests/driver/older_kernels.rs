//! Kernels without each feature, one at a time, and without any.
//!
//! A program that uses everything fares the same, or is told the missing feature and its version.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};

use crate::support::driver::{build, finish, run};
use crate::support::{assert_all_free, filled, paged_arena, pattern, read_all, tcp_pair};
use uring_arena::{
    BufferRing, BufferRingId, Driver, DriverError, Event, Feature, FixedArena, Probe, RingError,
    SendOptions,
};

/// Uses everything that a driver can do, as on a kernel of `probe`.
fn do_everything(probe: Probe) {
    let Some(mut driver) = build(Driver::builder().probe(probe)) else { return };
    let arena = paged_arena(64, 4096);
    let registered = driver.register(&arena).unwrap();
    assert_eq!(
        driver.arena(registered).unwrap().entries().is_some(),
        probe.has(Feature::FixedBuffers)
    );
    files(&mut driver, &arena);
    sends(&mut driver, &arena);
    accepts(&mut driver);
    let options = BufferRing::options().entries(16).incremental(true).bundles(true);
    match driver.register_buffer_ring(&arena, options) {
        Ok(ring) => {
            assert_eq!(
                driver.ring_is_incremental(ring),
                Ok(probe.has(Feature::IncrementalBuffers))
            );
            streams(&mut driver, ring);
            pipes(&mut driver, ring);
        }
        Err(error) => {
            assert!(!probe.has(Feature::BufferRing));
            assert_eq!(
                error,
                RingError::Unsupported { what: "provided-buffer rings", since: "5.19" }
            );
        }
    }
    if let Ok(ring) = driver.register_buffer_ring(&arena, BufferRing::options().entries(8)) {
        datagrams(&mut driver, ring, probe);
    }
    let states = driver.slot_states(&arena);
    assert_eq!((states.free + states.published, states.total()), (64, 64), "{states:?}");
    finish(driver);
    assert_all_free(&arena);
}

fn files(driver: &mut Driver, arena: &FixedArena) {
    let file = driver.add_file(File::open("/proc/self/exe").unwrap()).unwrap();
    driver.read(file, arena.allocate().unwrap(), 0).unwrap();
    run(driver, |event| {
        let Event::Read { result, buffer, .. } = event else { panic!("{event:?}") };
        assert_eq!((result.unwrap(), &buffer[..4]), (4096, &b"\x7fELF"[..]));
        true
    });
    driver.close_file(file).unwrap();
}

fn sends(driver: &mut Driver, arena: &FixedArena) {
    let (ours, theirs) = tcp_pair();
    let socket = driver.add_file(ours).unwrap();
    let mut copied = Vec::new();
    for part in 0..4 {
        let options = SendOptions::new().zero_copy_from(if part % 2 == 0 { 1 } else { usize::MAX });
        driver.send_with(socket, filled(arena, &pattern(part, 4096)), options).unwrap();
    }
    run(driver, |event| {
        let Event::Sent { result, copied: of_this, .. } = event else { panic!("{event:?}") };
        assert_eq!(result.unwrap(), 4096);
        copied.push(of_this);
        copied.len() == 4
    });
    driver.close_file(socket).unwrap();
    assert_eq!(read_all(theirs), (0..4).flat_map(|part| pattern(part, 4096)).collect::<Vec<u8>>());
}

fn accepts(driver: &mut Driver) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let id = driver.accept(listener).unwrap();
    for _ in 0..3 {
        let _client = TcpStream::connect(address).unwrap();
        run(driver, |event| matches!(event, Event::Accepted { id: from, .. } if from == id));
    }
    driver.close(id).unwrap();
    run(
        driver,
        |event| matches!(event, Event::Closed { id: closed, error: None, .. } if closed == id),
    );
}

fn streams(driver: &mut Driver, ring: BufferRingId) {
    let mut all = HashMap::new();
    let mut threads = Vec::new();
    for stream in 0..4 {
        let (mut sender, socket) = tcp_pair();
        threads
            .push(std::thread::spawn(move || sender.write_all(&pattern(stream, 100_000)).unwrap()));
        all.insert(driver.receive(ring, socket).unwrap(), (stream, Vec::new()));
    }
    let mut open = all.len();
    run(driver, |event| {
        match event {
            Event::Received { id, bytes, .. } => {
                all.get_mut(&id).unwrap().1.extend_from_slice(&bytes)
            }
            Event::Closed { error: None, .. } => open -= 1,
            other => panic!("{other:?}"),
        }
        open == 0
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(all.into_values().all(|(stream, bytes)| bytes == pattern(stream, 100_000)));
}

fn pipes(driver: &mut Driver, ring: BufferRingId) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    driver.read_pipe(ring, reader).unwrap();
    let mut read = Vec::new();
    for _ in 0..3 {
        writer.write_all(b"through a pipe").unwrap();
        run(driver, |event| {
            let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
            read.extend_from_slice(&bytes);
            true
        });
    }
    drop(writer);
    run(driver, |event| matches!(event, Event::Closed { error: None, .. }));
    assert_eq!(read, b"through a pipe".repeat(3));
}

fn datagrams(driver: &mut Driver, ring: BufferRingId, probe: Probe) {
    let (ours, theirs) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = ours.local_addr().unwrap();
    let id = match driver.receive_datagrams(ring, ours) {
        Ok(id) => id,
        Err(refused) => {
            assert!(!probe.has(Feature::RecvMultishot));
            let error = refused.error;
            assert!(matches!(error, DriverError::Unsupported { since: "6.0", .. }), "{error:?}");
            return;
        }
    };
    theirs.send_to(b"ping", address).unwrap();
    run(driver, |event| {
        let Event::Datagram { datagram, .. } = event else { panic!("{event:?}") };
        assert_eq!((datagram.bytes, datagram.from), ("ping".into(), theirs.local_addr().ok()));
        true
    });
    driver.close(id).unwrap();
    run(driver, |event| matches!(event, Event::Closed { .. }));
}

#[test]
fn a_kernel_without_one_feature_does_the_same() {
    let Ok(probe) = Probe::shared() else { return eprintln!("SKIPPED: no io_uring") };
    for feature in Feature::ALL {
        println!("without {feature}");
        do_everything(probe.without(feature));
    }
}

#[test]
fn a_kernel_with_all_and_one_with_nothing_but_io_uring_do_the_same() {
    let Ok(probe) = Probe::shared() else { return eprintln!("SKIPPED: no io_uring") };
    do_everything(probe);
    do_everything(Probe::none());
    // This kernel has buffer rings and nothing later.
    do_everything(
        Probe::none()
            .with(Feature::FixedBuffers)
            .with(Feature::SparseTable)
            .with(Feature::BufferRing),
    );
}
