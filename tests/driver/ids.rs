//! Ids of the driver: each names one thing, and nothing afterwards.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::support::driver::{build, driver, finish, run};
use crate::support::{TIMEOUT, arena, assert_all_free, paged_arena};
use bytes::Bytes;
use io_uring::{opcode, types};
use uring_arena::{
    BufferRing, Driver, DriverError, Event, RegisterOptions, RegistrationMode, SendOptions,
    TransferError,
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
fn ids_of_another_driver_are_refused_by_each_call_of_a_server() {
    let (Some(mut theirs), Some(mut ours)) = (driver(), driver()) else { return };
    let arena = paged_arena(8, 4096);
    let options = BufferRing::options().entries(2);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let later = Instant::now() + TIMEOUT;
    // The same things at the same indices in both.
    let make = |driver: &mut Driver| {
        let ring = driver.register_buffer_ring(&arena, options).unwrap();
        let socket = driver.connect(ring, address, 0).unwrap();
        let file = driver.add_file(File::options().write(true).open("/dev/null").unwrap()).unwrap();
        let timer = driver.timer(later, 0).unwrap();
        // SAFETY: the entry names a time that outlives it.
        let pushed = unsafe { driver.push(opcode::Timeout::new(&FOREVER).build(), 0) }.unwrap();
        (ring, socket, file, timer, pushed)
    };
    let (ring, socket, file, timer, pushed) = make(&mut theirs);
    let own = make(&mut ours);
    assert_eq!(
        (socket.index(), file.index(), timer.index(), pushed.index()),
        (own.1.index(), own.2.index(), own.3.index(), own.4.index())
    );
    let before = ours.metrics().in_flight;
    assert_other(ours.connect(ring, address, 0));
    assert_other(ours.set_connect_deadline(socket, later));
    assert_other(ours.set_half_open(socket, true));
    assert_other(ours.set_idle_timeout(socket, None));
    assert_other(ours.shutdown_write(socket));
    assert_other(ours.shutdown_write(file));
    assert_other(ours.abort(socket));
    assert_other(ours.abort_file(file));
    assert_other(ours.set_token(socket, 1));
    assert_other(ours.set_token(file, 1));
    assert_other(ours.set_token(pushed, 1));
    assert_other(ours.set_deadline(pushed, later));
    assert_other(ours.cancel_operation(pushed));
    assert_other(ours.cancel_timer(timer));
    assert_other(ours.sync_all(file));
    assert_other(ours.sync_data(file));
    assert_other(ours.sync_range(file, 0, 1));
    assert_other(ours.allocate(file, 0, 1));
    let of_transfer = |error| match error {
        TransferError::Driver(error) => Err::<(), _>(error),
        other => panic!("{other}"),
    };
    let bytes = Bytes::new;
    assert_other(of_transfer(ours.send_to(socket, bytes(), address).unwrap_err().error));
    assert_other(of_transfer(ours.send_to(file, bytes(), address).unwrap_err().error));
    let sent = ours.send_vectored(socket, [bytes()], SendOptions::new());
    assert_other(of_transfer(sent.unwrap_err().error));
    assert_other(of_transfer(ours.write_vectored(file, [bytes()], 0).unwrap_err().error));
    let buffer = || arena.allocate().unwrap();
    assert_other(of_transfer(ours.read_vectored(file, vec![buffer()], 0).unwrap_err().error));
    assert_other(of_transfer(ours.read_at_most(file, buffer(), 0, 1).unwrap_err().error));
    assert_eq!(ours.metrics().in_flight, before, "nothing was begun");
    finish(ours);
    finish(theirs);
    assert_all_free(&arena);
}

/// A time that no test sees the end of.
static FOREVER: types::Timespec = types::Timespec::new().sec(1 << 30);

#[test]
fn ids_of_what_is_gone_are_refused_by_each_call_of_a_server() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(4, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(1)).unwrap();
    let now = Instant::now();
    let (ours, peer) = UnixStream::pair().unwrap();
    let socket = driver.receive(ring, ours).unwrap();
    let send = driver.send(socket, Bytes::from_static(b"x")).unwrap();
    run(&mut driver, |event| matches!(event, Event::Sent { .. }));
    for answer in
        [driver.set_token(send, 1), driver.set_deadline(send, now), driver.cancel_operation(send)]
    {
        assert_eq!(answer, Err(DriverError::UnknownOperation));
    }
    // It is closed, and its event is to be taken: it is sent on no more, and can be aborted.
    driver.close(socket).unwrap();
    let refused = driver.send(socket, Bytes::new()).unwrap_err();
    assert_eq!(refused.error, TransferError::Driver(DriverError::SocketEnded));
    assert_eq!(driver.shutdown_write(socket), Err(DriverError::SocketEnded));
    driver.abort(socket).unwrap();
    run(&mut driver, |event| matches!(event, Event::Closed { .. }));
    drop(peer);
    // The next one has its index.
    let again = driver.receive(ring, UnixStream::pair().unwrap().0).unwrap();
    assert_eq!(again.index(), socket.index());
    for answer in [
        driver.set_half_open(socket, true),
        driver.set_idle_timeout(socket, None),
        driver.set_connect_deadline(socket, now),
        driver.set_token(socket, 1),
        driver.abort(socket),
        driver.shutdown_write(socket).map(drop),
    ] {
        assert_eq!(answer, Err(DriverError::UnknownSocket));
    }
    let file = driver.add_file(File::open("/dev/null").unwrap()).unwrap();
    driver.close_file(file).unwrap();
    for answer in [
        driver.sync_all(file).map(drop),
        driver.sync_range(file, 0, 0).map(drop),
        driver.allocate(file, 0, 1).map(drop),
        driver.shutdown_write(file).map(drop),
        driver.set_token(file, 1),
        driver.abort_file(file),
    ] {
        assert_eq!(answer, Err(DriverError::UnknownFile));
    }
    let timer = driver.timer(now, 1).unwrap();
    run(&mut driver, |event| match event {
        // Its peer was dropped.
        Event::Closed { .. } => false,
        event => matches!(event, Event::Timer { .. }),
    });
    assert_eq!(driver.cancel_timer(timer), Err(DriverError::UnknownTimer));
    finish(driver);
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
