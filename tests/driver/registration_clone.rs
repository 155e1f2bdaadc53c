//! One registration for the rings of several threads: the rings that may be cloned from, and the
//! errors of the others.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::support::driver::{driver, finish, run};
use crate::support::{assert_all_free, nz, paged_arena, paged_buddy_arena};
use io_uring::IoUring;
use uring_arena::{
    ArenaId, Driver, Event, Feature, FixedArena, Probe, Progress, RegisterError, RegisterOptions,
    RegisteredArena, RegistrationMode,
};

pub fn kernel_clones(feature: Feature) -> bool {
    let can = Probe::shared().is_ok_and(|probe| probe.has(feature));
    if !can {
        eprintln!("SKIPPED: {feature} needs Linux {}", feature.since());
    }
    can
}

/// Runs `code` with a driver on a thread of its own, and with options that clone the registration
/// of the arena from a ring which another thread alone may use.
pub fn beside_another_threads_ring(
    arena: &FixedArena,
    code: impl FnOnce(Driver, RegisterOptions<'_>) + Send,
) {
    let mut source = Driver::builder().build().unwrap();
    let id = source.register(arena).unwrap();
    let (registered, ring) = (source.arena(id).unwrap(), source.as_raw_fd());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let driver = Driver::builder().build().unwrap();
            code(driver, RegisterOptions::new().clone_of(registered, &ring));
        });
    });
    finish(source);
}

/// Reads the start of a file through the registered memory of the arena.
fn read_through(driver: &mut Driver, arena: &FixedArena) {
    let file = driver.add_file(File::open("/proc/self/exe").unwrap()).unwrap();
    driver.read(file, arena.allocate().unwrap(), 0).unwrap();
    run(driver, |event| {
        let Event::Read { result, buffer, .. } = event else { panic!("{event:?}") };
        assert_eq!((result.unwrap(), &buffer[..4]), (4096, &b"\x7fELF"[..]));
        true
    });
}

fn entries(driver: &Driver, id: ArenaId) -> (RegistrationMode, Option<(u32, usize)>) {
    let registered = driver.arena(id).unwrap();
    (registered.mode(), registered.entries())
}

#[test]
fn drivers_of_many_threads_share_the_registration_of_one_that_has_several_issuers() {
    if !kernel_clones(Feature::CloneInto) {
        return;
    }
    let arena = paged_arena(64, 4096);
    let mut source = Driver::builder().single_issuer(false).build().unwrap();
    let id = source.register(&arena).unwrap();
    let (registered, ring) = (source.arena(id).unwrap(), source.as_raw_fd());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut driver = Driver::builder().build().unwrap();
                let options = RegisterOptions::new()
                    .clone_of(registered, &ring)
                    .mode(RegistrationMode::Cloned);
                let id = driver.register_with(&arena, options).unwrap();
                assert_eq!(entries(&driver, id), (RegistrationMode::Cloned, Some((0, 64))));
                for _ in 0..100 {
                    read_through(&mut driver, &arena);
                }
                finish(driver);
            });
        }
    });
    // The source still works.
    read_through(&mut source, &arena);
    finish(source);
    assert_all_free(&arena);
}

#[test]
fn a_clone_outlives_the_driver_that_it_came_from() {
    if !kernel_clones(Feature::CloneInto) {
        return;
    }
    let (arena, mut first) = (paged_arena(64, 4096), Driver::builder().build().unwrap());
    let id = first.register(&arena).unwrap();
    let mut second = Driver::builder().build().unwrap();
    let options = RegisterOptions::new().clone_of(first.arena(id).unwrap(), &first);
    // On one thread, rings of a single issuer can be cloned.
    let cloned = second.register_with(&arena, options).unwrap();
    assert_eq!(entries(&second, cloned).0, RegistrationMode::Cloned);
    finish(first);
    read_through(&mut second, &arena);
    finish(second);
    assert_all_free(&arena);
}

#[test]
fn the_ring_of_another_threads_single_issuer_is_not_cloned_from_and_the_remedy_is_told() {
    if !kernel_clones(Feature::CloneInto) {
        return;
    }
    let arena = paged_arena(64, 4096);
    beside_another_threads_ring(&arena, |mut driver, options| {
        let error =
            driver.register_with(&arena, options.mode(RegistrationMode::Cloned)).unwrap_err();
        assert!(matches!(error, RegisterError::NoSource(_)), "{error:?}");
        assert!(error.to_string().contains("single_issuer(false)"), "{error}");
        // With the best mode asked for, the ring pins the memory once more, and tells why.
        let id = driver.register_with(&arena, options).unwrap();
        assert_eq!(entries(&driver, id), (RegistrationMode::Slots, Some((0, 64))));
        assert_eq!(driver.arena(id).unwrap().refused(), [(RegistrationMode::Cloned, error)]);
        read_through(&mut driver, &arena);
        finish(driver);
    });
    assert_all_free(&arena);
}

/// The clone is made on the thread of the source, and its ring is handed to another thread.
#[test]
fn a_ring_with_a_clone_may_be_handed_to_another_thread() {
    if !kernel_clones(Feature::CloneBuffers) {
        return;
    }
    let (arena, mut source) = (paged_arena(64, 4096), Driver::builder().build().unwrap());
    let id = source.register(&arena).unwrap();
    let ring = IoUring::new(8).unwrap();
    let options = RegisterOptions::new().clone_of(source.arena(id).unwrap(), &source);
    // SAFETY: its entries go to this ring, and each completion to its operation, once.
    let cloned = match unsafe { RegisteredArena::register(&ring, &arena, options) } {
        Ok(cloned) => cloned,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(cloned.mode(), RegistrationMode::Cloned);
    let from = arena.clone();
    let reading = std::thread::spawn(move || {
        let mut ring = ring;
        let file = File::open("/proc/self/exe").unwrap();
        let (entry, operation) = cloned.read(&file, from.allocate().unwrap(), 0);
        assert!(operation.buffer_index().is_some());
        // SAFETY: the operation keeps the memory, and the file stays open until it is over.
        unsafe { ring.submission().push(&entry) }.unwrap();
        ring.submit_and_wait(1).unwrap();
        let completion = ring.completion().next().unwrap();
        // SAFETY: its only completion.
        let Progress::Done { result, .. } = (unsafe { operation.complete(&completion) }) else {
            panic!()
        };
        assert_eq!(result.unwrap(), 4096);
        cloned.unregister(&ring).unwrap();
    });
    reading.join().unwrap();
    finish(source);
    assert_all_free(&arena);
}

/// Several arenas of both modes are on several rings, each cloned. All memory is found on every
/// ring.
#[test]
fn several_arenas_on_several_rings_are_all_found() {
    if !kernel_clones(Feature::CloneInto) {
        return;
    }
    let Some(mut first) = driver() else { return };
    let mut second = Driver::builder().build().unwrap();
    let (slots, more) = (paged_arena(64, 4096), paged_arena(64, 4096));
    let blocks = paged_buddy_arena(1 << 20);
    let of_first = [first.register(&slots), first.register(&blocks), first.register(&more)]
        .map(Result::unwrap);
    let clone_of = |index: usize| {
        RegisterOptions::new().clone_of(first.arena(of_first[index]).unwrap(), &first)
    };
    let of_second = [
        second.register_with(&more, clone_of(2)).unwrap(),
        second.register_with(&blocks, clone_of(1)).unwrap(),
        // A mode may be demanded for one and cloned for another.
        second
            .register_with(&slots, RegisterOptions::new().mode(RegistrationMode::Regions))
            .unwrap(),
    ];
    assert_eq!(
        of_first.map(|id| entries(&first, id).1),
        [Some((0, 64)), Some((64, 1)), Some((65, 64))]
    );
    assert_eq!(
        of_second.map(|id| entries(&second, id)),
        [
            (RegistrationMode::Cloned, Some((0, 64))),
            (RegistrationMode::Cloned, Some((64, 1))),
            (RegistrationMode::Regions, Some((65, 1)))
        ]
    );
    for (driver, ids) in [(&mut first, of_first), (&mut second, of_second)] {
        let buffers = [&slots, &more].map(|arena| arena.allocate().unwrap());
        let block = blocks.allocate(nz(4096)).unwrap();
        let file = driver.add_file(File::open("/proc/self/exe").unwrap()).unwrap();
        for buffer in buffers.into_iter().chain([block]) {
            // Registered memory is found by its address alone.
            let address = [buffer.as_ptr()];
            let known = ids.iter().filter(|id| {
                let registered = driver.arena(**id).unwrap();
                // SAFETY: one byte inside the buffer; only its address is looked at.
                let byte = unsafe { std::slice::from_raw_parts(address[0], 1) };
                registered.buffer_index(byte).is_some()
            });
            assert_eq!(known.count(), 1);
            driver.read(file, buffer, 0).unwrap();
            run(driver, |event| matches!(event, Event::Read { result: Ok(4096), .. }));
        }
    }
    finish(first);
    finish(second);
    assert_all_free(&slots);
    assert_all_free(&more);
    assert_all_free(&blocks);
}
