//! Ids of the driver: each names one thing, and nothing afterwards.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use crate::support::driver::{build, driver, finish, run};
use crate::support::{arena, assert_all_free, paged_arena};
use bytes::Bytes;
use uring_arena::{
    BufferRing, Driver, DriverError, Event, RegisterOptions, RegistrationMode, TransferError,
};

/// Checks for the error that names the remedy.
fn assert_other<T: std::fmt::Debug>(answer: Result<T, DriverError>) {
    let error = answer.unwrap_err();
    assert!(matches!(error, DriverError::OtherDriver { .. }), "{error}");
    assert!(error.to_string().contains("use an id on the driver that gave it out"));
}

#[test]
fn ids_of_another_driver_are_refused_and_say_so() {
    let (Some(mut theirs), Some(mut ours)) = (driver(), driver()) else { return };
    let arena = paged_arena(8, 4096);
    let options = BufferRing::options().entries(2);
    // The same things at the same indices in both.
    let make = |driver: &mut Driver| {
        let ring = driver.register_buffer_ring(&arena, options).unwrap();
        let registered = driver.register(&arena).unwrap();
        let socket = driver.receive(ring, UnixStream::pair().unwrap().1).unwrap();
        let (end, peer) = UnixStream::pair().unwrap();
        let file = driver.add_file(end).unwrap();
        let read = driver.read(file, arena.allocate().unwrap(), 0).unwrap();
        (ring, registered, socket, file, read, peer)
    };
    let (ring, registered, socket, file, read, _peer) = make(&mut theirs);
    let own = make(&mut ours);
    assert_eq!((ring.index(), registered.index()), (own.0.index(), own.1.index()));
    assert_eq!(
        (socket.index(), file.index(), read.index()),
        (own.2.index(), own.3.index(), own.4.index())
    );
    assert_ne!((ring, registered, socket, file, read), (own.0, own.1, own.2, own.3, own.4));

    assert_other(
        ours.receive(ring, UnixStream::pair().unwrap().1).map_err(|refused| refused.error),
    );
    assert_other(ours.read_pipe(ring, std::io::pipe().unwrap().0).map_err(|refused| refused.error));
    let refused = ours.receive_datagrams(ring, UnixStream::pair().unwrap().1);
    assert_other(refused.map_err(|refused| refused.error));
    assert_other(ours.ring_metrics(ring));
    assert_other(ours.ring_is_incremental(ring));
    assert_other(ours.unregister_buffer_ring(ring));
    assert_other(ours.arena(registered).map(|_| ()));
    assert_other(ours.unregister_arena(registered));
    assert_other(ours.pause(socket));
    assert_other(ours.resume(socket));
    assert_other(ours.close(socket));
    assert!(ours.socket(socket).is_none());
    assert_other(ours.file(file).map(|_| ()));
    assert_other(ours.close_file(file));
    assert_other(ours.cancel_operation(read));
    let of_transfer = |error| match error {
        TransferError::Driver(error) => Err::<(), _>(error),
        other => panic!("{other}"),
    };
    let refused = ours.read(file, arena.allocate().unwrap(), 0).unwrap_err();
    assert_other(of_transfer(refused.error));
    assert_other(of_transfer(ours.write(file, refused.memory, 0).unwrap_err().error));
    assert_other(of_transfer(ours.send(file, Bytes::new()).unwrap_err().error));
    finish(ours);
    finish(theirs);
    assert_all_free(&arena);
}

#[test]
fn ids_of_what_is_gone_name_nothing_though_the_index_is_used_again() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(4, 4096);
    let options = BufferRing::options().entries(1);

    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    driver.unregister_buffer_ring(ring).unwrap();
    let again = driver.register_buffer_ring(&arena, options).unwrap();
    assert_eq!(again.index(), ring.index());
    assert_eq!(driver.ring_metrics(ring), Err(DriverError::UnknownRing));
    assert_eq!(driver.unregister_buffer_ring(ring), Err(DriverError::UnknownRing));

    let registered = driver.register(&arena).unwrap();
    driver.unregister_arena(registered).unwrap();
    assert_eq!(driver.register(&arena).unwrap().index(), registered.index());
    assert_eq!(driver.arena(registered).unwrap_err(), DriverError::UnknownArena);
    assert_eq!(driver.unregister_arena(registered), Err(DriverError::UnknownArena));

    let socket = driver.receive(again, UnixStream::pair().unwrap().1).unwrap();
    run(&mut driver, |event| matches!(event, Event::Closed { .. }));
    let listener = driver.accept(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    assert_eq!(listener.index(), socket.index());
    for answer in [driver.pause(socket), driver.resume(socket), driver.close(socket)] {
        assert_eq!(answer, Err(DriverError::UnknownSocket));
    }

    let file = driver.add_file(File::open("/dev/zero").unwrap()).unwrap();
    let read = driver.read(file, arena.allocate().unwrap(), 0).unwrap();
    run(&mut driver, |event| matches!(event, Event::Read { .. }));
    let next = driver.read(file, arena.allocate().unwrap(), 0).unwrap();
    assert_eq!(next.index(), read.index());
    assert_eq!(driver.cancel_operation(read), Err(DriverError::UnknownOperation));
    run(&mut driver, |event| matches!(event, Event::Read { .. }));
    driver.close_file(file).unwrap();
    assert_eq!(driver.add_file(File::open("/dev/zero").unwrap()).unwrap().index(), file.index());
    assert_eq!(driver.close_file(file), Err(DriverError::UnknownFile));
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn an_operations_id_is_not_given_out_before_its_event_was_taken() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(4, 4096);
    let (ours, _peer) = UnixStream::pair().unwrap();
    let socket = driver.add_file(ours).unwrap();
    // Larger than the socket's queue, and not read by the peer: the second send waits behind it.
    let first = driver.send(socket, Bytes::from(vec![0; 8 << 20])).unwrap();
    let second = driver.send(socket, Bytes::from_static(b"second")).unwrap();
    driver.cancel_operation(second).unwrap();
    let file = driver.add_file(File::open("/dev/zero").unwrap()).unwrap();
    driver.poll_now().unwrap();
    let read = driver.read(file, arena.allocate().unwrap(), 0).unwrap();
    assert!(read.index() != second.index() && read.index() != first.index());
    let (mut cancelled, mut is_read) = (0, false);
    run(&mut driver, |event| {
        match event {
            Event::Sent { id, result, .. } => {
                assert_eq!(
                    (id, result.unwrap_err().raw_os_error()),
                    (second, Some(libc::ECANCELED))
                );
                cancelled += 1;
            }
            Event::Read { id, .. } => is_read = id == read,
            other => panic!("{other:?}"),
        }
        cancelled == 1 && is_read
    });
    assert_eq!(driver.cancel_operation(second), Err(DriverError::UnknownOperation));
    // Both are free now.
    let reads = [0; 2].map(|_| driver.read(file, arena.allocate().unwrap(), 0).unwrap().index());
    assert!(reads.contains(&second.index()) && reads.contains(&read.index()));
    finish(driver);
    assert_all_free(&arena);
}

/// A driver's tables cost what they hold at their peak: a turn, a read and the choice of a group
/// look at every entry.
#[test]
fn fifty_thousand_rings_leave_nothing_behind_in_the_tables() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(2, 4096);
    for _ in 0..50_000 {
        let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(1)).unwrap();
        assert_eq!(ring.index(), 0);
        driver.unregister_buffer_ring(ring).unwrap();
    }
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn arenas_that_come_and_go_stay_on_their_first_mode() {
    let Some(mut driver) = driver() else { return };
    let (arena, other) = (paged_arena(1024, 4096), paged_arena(600, 4096));
    let kept = driver.register(&paged_arena(100, 4096)).unwrap();
    let first = driver.register(&arena).unwrap();
    let mode = driver.arena(first).unwrap().mode();
    driver.unregister_arena(first).unwrap();
    for round in 0..1000 {
        let id = driver.register(&arena).unwrap();
        assert_eq!(driver.arena(id).unwrap().mode(), mode, "in round {round}");
        if round % 10 == 0 {
            // Of another length, and unregistered in another order.
            let beside = driver.register(&other).unwrap();
            assert_eq!(driver.arena(beside).unwrap().mode(), mode, "in round {round}");
            driver.unregister_arena(id).unwrap();
            driver.unregister_arena(beside).unwrap();
        } else {
            driver.unregister_arena(id).unwrap();
        }
        assert!(id.index() <= 2, "in round {round}");
    }
    driver.unregister_arena(kept).unwrap();
    if mode == RegistrationMode::Slots {
        // The whole table is free again.
        let whole = paged_arena(16_384, 4096);
        let options = RegisterOptions::new().mode(RegistrationMode::Slots);
        driver.register_with(&whole, options).unwrap();
    }
    finish(driver);
}

#[test]
fn absurd_numbers_of_operations_are_refused_by_name() {
    for operations in [0, usize::MAX] {
        let refused = Driver::builder().operations(operations).build().unwrap_err();
        assert_eq!(refused, DriverError::Operations { operations, limit: 1 << 28 });
    }
}

#[test]
fn sockets_and_transfers_share_the_number_of_operations() {
    let Some(mut driver) = build(Driver::builder().operations(2)) else {
        return;
    };
    let arena = arena(4, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(2)).unwrap();
    let (mut sender, socket) = UnixStream::pair().unwrap();
    let (ours, _peer) = UnixStream::pair().unwrap();
    let file = driver.add_file(ours).unwrap();
    driver.receive(ring, socket).unwrap();
    driver.read(file, arena.allocate().unwrap(), 0).unwrap();
    let full = DriverError::TooManyOperations { limit: 2 };
    let refused = driver.receive(ring, UnixStream::pair().unwrap().1).unwrap_err();
    assert_eq!(refused.error, full);
    let refused = driver.read(file, arena.allocate().unwrap(), 0).unwrap_err();
    assert_eq!(refused.error, TransferError::Driver(full));
    drop(refused);
    sender.write_all(b"still here").unwrap();
    run(&mut driver, |event| matches!(event, Event::Received { .. }));
    finish(driver);
    assert_all_free(&arena);
}
