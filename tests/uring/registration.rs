//! Registration and its fallback on the real kernel: modes, entries, and the text of each refusal.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;

use crate::support::limits::{as_user_with_memlock, run_alone};
use crate::support::ring::{push, register, ring, run};
use crate::support::seccomp;
use crate::support::{TestFile, assert_all_free, nz, paged_arena, pattern};
use bytes::BufMut;
use io_uring::IoUring;
use uring_arena::{
    BuddyArena, BuddyGeometry, Feature, FixedArena, Memlock, PageSize, Probe, RegisterError,
    RegisterOptions, RegisteredArena, Registrable, RegistrationMode, RegistrationPolicy, ring_info,
};

/// Counts the entries of the ring's table, as the kernel shows them.
fn table_len(ring: &IoUring) -> usize {
    let info = ring_info(ring.as_raw_fd()).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("UserBufs:")).unwrap();
    line.trim().parse().unwrap()
}

fn try_register(
    ring: &IoUring,
    arena: &impl Registrable,
    options: RegisterOptions<'_>,
) -> Result<RegisteredArena, RegisterError> {
    // SAFETY: as in `support::ring::register`.
    unsafe { RegisteredArena::register(ring, arena, options) }
}

#[test]
fn the_kernel_shows_one_entry_per_slot() {
    let Some(ring) = ring("one entry per slot") else { return };
    let arena = paged_arena(17, 4096);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    assert_eq!(registered.mode(), RegistrationMode::Slots);
    assert_eq!(registered.entries(), Some((0, 17)));
    assert_eq!(table_len(&ring), 17);
    let mut buffers = Vec::new();
    while let Ok(mut buffer) = arena.allocate() {
        buffer.put_u8(1);
        assert_eq!(registered.buffer_index(&buffer).map(u32::from), buffer.slot_index());
        buffers.push(buffer);
    }
    assert_eq!(buffers.len(), 17);
    registered.unregister(&ring).unwrap();
    assert_eq!(table_len(&ring), 0);
    drop(buffers);
    assert_all_free(&arena);
}

#[test]
fn the_region_mode_is_one_entry_for_many_slots() {
    let Some(ring) = ring("region mode") else { return };
    let arena = paged_arena(1000, 4096);
    let registered = register(&ring, &arena, RegistrationMode::Regions);
    assert_eq!(
        (registered.mode(), registered.entries()),
        (RegistrationMode::Regions, Some((0, 1)))
    );
    assert_eq!(table_len(&ring), 1);
    let mut buffer = arena.allocate().unwrap();
    buffer.put_u8(1);
    assert_eq!(registered.buffer_index(&buffer), Some(0));
    assert_eq!(registered.buffer_index(b"not ours"), None);
}

#[test]
fn more_slots_than_a_table_has_go_by_regions_and_say_why() {
    let Some(ring) = ring("table full") else { return };
    let arena = paged_arena(16_385, 4096);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    assert_eq!(registered.mode(), RegistrationMode::Regions);
    let why =
        registered.refused().iter().find(|(mode, _)| *mode == RegistrationMode::Slots).unwrap();
    assert!(
        matches!(why.1, RegisterError::TooManyEntries { needed: 16_385, limit: 16_384, .. }),
        "{why:?}"
    );
    drop(registered);
    let demanded = try_register(&ring, &arena, RegistrationMode::Slots.into()).unwrap_err();
    assert!(demanded.to_string().contains("16385 slots"), "{demanded}");
}

#[test]
fn a_full_table_of_slots_is_registered() {
    let Some(ring) = ring("16,384 slots") else { return };
    let arena = paged_arena(16_384, 512);
    let registered = register(&ring, &arena, RegistrationMode::Slots);
    assert_eq!(table_len(&ring), 16_384);
    registered.unregister(&ring).unwrap();
}

#[test]
fn whatever_derefs_to_an_arena_is_registered() {
    let Some(first) = ring("deref") else { return };
    let shared = std::sync::Arc::new(paged_arena(4, 4096));
    let registered = try_register(&first, &shared, RegistrationPolicy::Best.into()).unwrap();
    assert_eq!(registered.entries(), Some((0, 4)));
    #[cfg(feature = "async-alloc")]
    {
        let waiting = FixedArena::with_slot_capacity(nz(4), nz(4096)).build_async().unwrap();
        let second = ring("deref").unwrap();
        let registered = try_register(&second, &waiting, RegistrationMode::Slots.into()).unwrap();
        assert_eq!(registered.entries(), Some((0, 4)));
    }
}

/// An error that `main` returns is printed by `Debug`: that is the text with the remedy.
#[test]
fn the_debug_form_of_an_error_is_its_text() {
    let errors = [
        RegisterError::NoSlots,
        RegisterError::TableFull { needed: 1024, free: 512, what: "slots" },
        RegisterError::TableTooShort { needed: 8, offset: 1 },
        RegisterError::MemoryRefused { entry: 5 },
    ];
    for error in errors {
        let text = format!("{error:?}");
        assert_eq!(text, error.to_string());
        assert!(text.contains(": ") && !text.contains("  "), "{text}");
    }
}

#[test]
fn a_buddy_arena_goes_by_regions() {
    let Some(mut ring) = ring("buddy") else { return };
    let geometry = BuddyGeometry::exact(nz(1 << 20), nz(4096)).unwrap();
    let arena = BuddyArena::builder(geometry).build().unwrap();
    let registered = try_register(&ring, &arena, RegistrationPolicy::Best.into()).unwrap();
    assert_eq!(registered.mode(), RegistrationMode::Regions);
    assert!(registered.refused().contains(&(RegistrationMode::Slots, RegisterError::NoSlots)));
    let file = TestFile::new("buddy", &[]);
    let handle = file.open();
    let mut block = arena.allocate(nz(100_000)).unwrap();
    block.put_slice(&pattern(0, 100_000));
    let (entry, operation) = registered.write(&handle, block.freeze(), 0);
    assert_eq!(operation.buffer_index(), Some(0));
    let outcome = run(&mut ring, (entry, operation));
    assert_eq!(outcome.result.unwrap(), 100_000);
    assert_eq!(std::fs::read(&file).unwrap(), pattern(0, 100_000));
    drop(outcome.buffer);
    assert_eq!(arena.metrics().bytes_live, 0);
}

#[test]
fn a_region_of_more_than_a_gibibyte_is_two_entries() {
    let Some(ring) = ring("2 GiB") else { return };
    let bytes = (1usize << 30) + (64 << 20);
    let arena = FixedArena::with_slot_capacity(nz(bytes >> 20), nz(1 << 20))
        .alignment(4096)
        .page_size(PageSize::Unknown)
        .build()
        .unwrap();
    let registered = match try_register(&ring, &arena, RegistrationMode::Regions.into()) {
        Ok(registered) => registered,
        Err(error) => return eprintln!("SKIPPED 2 GiB: {error}"),
    };
    assert_eq!(registered.entries(), Some((0, 2)));
    let mut indices = std::collections::BTreeSet::new();
    let mut buffers = Vec::new();
    while let Ok(mut buffer) = arena.allocate() {
        buffer.put_u8(1);
        indices.insert(registered.buffer_index(&buffer).unwrap());
        buffers.push(buffer);
    }
    assert_eq!(indices.into_iter().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn several_arenas_share_one_table() {
    let Some(mut ring) = ring("several arenas") else { return };
    ring.submitter().register_buffers_sparse(64).unwrap();
    let (first, second) = (paged_arena(8, 4096), paged_arena(16, 8192));
    let on_first = try_register(&ring, &first, RegisterOptions::new().at(4)).unwrap();
    let on_second = try_register(&ring, &second, RegisterOptions::new().at(32)).unwrap();
    assert_eq!((on_first.entries(), on_second.entries()), (Some((4, 8)), Some((32, 16))));
    let file = TestFile::new("several", &pattern(0, 10_000)).open();
    for (registered, arena, from) in [(&on_first, &first, 4), (&on_second, &second, 32)] {
        let buffer = arena.allocate().unwrap();
        let slot = buffer.slot_index().unwrap() as u16;
        let (entry, operation) = registered.read(&file, buffer, 0);
        assert_eq!(operation.buffer_index(), Some(from + slot));
        let outcome = run(&mut ring, (entry, operation));
        let len = outcome.result.unwrap();
        assert_eq!(outcome.buffer[..], pattern(0, 10_000)[..len]);
    }
    // Memory of one goes by an ordinary operation through the other.
    let (entry, operation) = on_first.read(&file, second.allocate().unwrap(), 0);
    assert_eq!(operation.buffer_index(), None);
    assert_eq!(run(&mut ring, (entry, operation)).result.unwrap(), 8192);
    on_first.unregister(&ring).unwrap();
    assert_eq!(table_len(&ring), 64);
    assert_all_free(&first);
    assert_all_free(&second);
}

#[test]
fn a_table_that_is_too_short_is_left_as_it_was() {
    let Some(ring) = ring("short table") else { return };
    ring.submitter().register_buffers_sparse(8).unwrap();
    let arena = paged_arena(8, 4096);
    let error =
        try_register(&ring, &arena, RegisterOptions::new().mode(RegistrationMode::Slots).at(1))
            .unwrap_err();
    assert_eq!(error, RegisterError::TableTooShort { needed: 8, offset: 1 });
    // By regions it fits.
    let registered = try_register(&ring, &arena, RegisterOptions::new().at(1)).unwrap();
    assert_eq!(
        (registered.mode(), registered.entries()),
        (RegistrationMode::Regions, Some((1, 1)))
    );
}

/// The kernel places entry after entry and reports how many it placed. The placed ones are taken
/// back.
#[test]
fn a_placement_that_fails_half_way_is_taken_back_and_names_the_entry() {
    let Some(ring) = ring("partial placement") else { return };
    ring.submitter().register_buffers_sparse(16).unwrap();
    let bytes = 8 * 4096;
    // SAFETY: asks for memory of its own, at any place.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(memory, libc::MAP_FAILED);
    // SAFETY: mapped just now, never unmapped, and used by the arena alone.
    let builder = unsafe {
        FixedArena::from_raw(
            memory.cast(),
            bytes,
            uring_arena::SlotSpec::Size(nz(4096)),
            uring_arena::NoDealloc,
        )
    };
    let arena = builder.build().unwrap();
    let last_three = memory.wrapping_byte_add(5 * 4096);
    // SAFETY: pages of the mapping; nobody writes them meanwhile.
    assert_eq!(unsafe { libc::mprotect(last_three, 3 * 4096, libc::PROT_READ) }, 0);
    let options = RegisterOptions::new().at(4);
    let error = try_register(&ring, &arena, options.mode(RegistrationMode::Slots)).unwrap_err();
    assert_eq!(error, RegisterError::MemoryRefused { entry: 5 });
    assert!(error.to_string().contains("it must be writable"), "{error}");
    let is_empty = |index: u32| {
        let info = ring_info(ring.as_raw_fd()).unwrap();
        let entry = info.lines().find(|line| line.trim_start().starts_with(&format!("{index}: ")));
        entry.is_none_or(|entry| entry.contains("<none>"))
    };
    assert!((0..16).all(is_empty), "{}", ring_info(ring.as_raw_fd()).unwrap());
    // With the best mode asked for, both modes tell why they failed.
    let registered = try_register(&ring, &arena, options).unwrap();
    assert_eq!(registered.mode(), RegistrationMode::Unregistered);
    let refused = [5, 0].map(|entry| RegisterError::MemoryRefused { entry });
    assert_eq!(
        registered.refused().iter().map(|(_, error)| error.clone()).collect::<Vec<_>>(),
        refused
    );
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: as above. Then everything is registered as if nothing had been.
    assert_eq!(unsafe { libc::mprotect(last_three, 3 * 4096, writable) }, 0);
    assert_eq!(try_register(&ring, &arena, options).unwrap().entries(), Some((4, 8)));
    assert!(!is_empty(4), "{}", ring_info(ring.as_raw_fd()).unwrap());
}

#[test]
fn mistakes_are_errors_not_lower_modes() {
    let Some(ring) = ring("mistakes") else { return };
    let arena = paged_arena(4, 4096);
    let error = try_register(&ring, &arena, RegisterOptions::new().at(0)).unwrap_err();
    assert_eq!(error, RegisterError::NoTable);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let error = try_register(&ring, &arena, RegisterOptions::new()).unwrap_err();
    assert_eq!(error, RegisterError::TableInUse);
    let too_far = RegisterOptions::new().mode(RegistrationMode::Regions).at(16_384);
    let error = try_register(&ring, &arena, too_far).unwrap_err();
    assert!(matches!(error, RegisterError::TooManyEntries { offset: 16_384, .. }), "{error:?}");
    registered.unregister(&ring).unwrap();
    let error = register_and_unregister_elsewhere(&ring, &arena);
    assert_eq!(error, RegisterError::NoTable);
}

fn register_and_unregister_elsewhere(ring: &IoUring, arena: &FixedArena) -> RegisterError {
    let registered = register(ring, arena, RegistrationMode::Slots);
    let other = IoUring::new(4).unwrap();
    registered.unregister(&other).unwrap_err()
}

#[test]
fn a_ring_of_another_thread_is_refused() {
    let Some(_) = ring("single issuer") else { return };
    let single: IoUring = match IoUring::builder().setup_single_issuer().build(4) {
        Ok(single) => single,
        Err(error) => return eprintln!("SKIPPED single issuer: {error}"),
    };
    let arena = paged_arena(4, 4096);
    let error = std::thread::scope(|scope| {
        scope
            .spawn(|| try_register(&single, &arena, RegistrationPolicy::Best.into()).unwrap_err())
            .join()
            .unwrap()
    });
    assert_eq!(error, RegisterError::WrongThread);
}

#[test]
fn rings_share_one_registration_by_cloning() {
    let Some(ring) = ring("clone") else { return };
    if !Probe::shared().unwrap().has(Feature::CloneBuffers) {
        return eprintln!("SKIPPED clone: the kernel cannot");
    }
    let arena = paged_arena(64, 4096);
    let first = register(&ring, &arena, RegistrationMode::Slots);
    let mut second_ring = IoUring::new(8).unwrap();
    let options = RegisterOptions::new().clone_of(&first, &ring);
    let second = try_register(&second_ring, &arena, options).unwrap();
    assert_eq!((second.mode(), second.entries()), (RegistrationMode::Cloned, Some((0, 64))));
    // The clone outlives its source.
    first.unregister(&ring).unwrap();
    drop(ring);
    let file = TestFile::new("clone", &pattern(0, 4096)).open();
    let (entry, operation) = second.read(&file, arena.allocate().unwrap(), 0);
    assert!(operation.buffer_index().is_some());
    let outcome = run(&mut second_ring, (entry, operation));
    assert_eq!(outcome.result.unwrap(), 4096);
    assert_eq!(outcome.buffer[..], pattern(0, 4096));

    // Into a table, at an index.
    if Probe::shared().unwrap().has(Feature::CloneInto) {
        let third_ring = IoUring::new(8).unwrap();
        third_ring.submitter().register_buffers_sparse(100).unwrap();
        let options = RegisterOptions::new().clone_of(&second, &second_ring).at(20);
        let third = try_register(&third_ring, &arena, options).unwrap();
        assert_eq!((third.mode(), third.entries()), (RegistrationMode::Cloned, Some((20, 64))));
        third.unregister(&third_ring).unwrap();
        assert_eq!(table_len(&third_ring), 100);
    }
    drop(outcome.buffer);
    assert_all_free(&arena);
}

#[test]
fn a_clone_of_another_arena_is_refused_and_the_next_mode_taken() {
    let Some(ring) = ring("clone of another") else { return };
    let (ours, other) = (paged_arena(4, 4096), paged_arena(4, 4096));
    let on_other = register(&ring, &other, RegistrationMode::Slots);
    let second_ring = IoUring::new(8).unwrap();
    let options = RegisterOptions::new().clone_of(&on_other, &ring);
    let registered = try_register(&second_ring, &ours, options).unwrap();
    assert_eq!(registered.mode(), RegistrationMode::Slots);
    assert!(matches!(
        registered.refused()[0],
        (RegistrationMode::Cloned, RegisterError::NoSource(_))
    ));
}

#[test]
fn an_older_kernel_gets_the_older_way() {
    let Some(ring) = ring("older kernel") else { return };
    let arena = paged_arena(4, 4096);
    let nothing = RegisterOptions::new().probe(Probe::none());
    let registered = try_register(&ring, &arena, nothing).unwrap();
    assert_eq!(registered.mode(), RegistrationMode::Unregistered);
    assert!(registered.refused().iter().any(|(mode, error)| {
        *mode == RegistrationMode::Slots
            && error.to_string().contains("fixed buffers needs Linux 5.1")
    }));
    let error = try_register(&ring, &arena, nothing.mode(RegistrationMode::Regions)).unwrap_err();
    assert!(
        matches!(error, RegisterError::Missing(missing) if missing.feature == Feature::FixedBuffers)
    );
    // The registration was dropped, not unregistered: nothing is left to undo.
    registered.unregister(&ring).unwrap();
}

#[test]
fn each_feature_can_be_taken_away() {
    let Some(_) = ring("features") else { return };
    let probe = Probe::shared().unwrap();
    for feature in Feature::ALL {
        let without = probe.without(feature);
        let error = without.require(feature).unwrap_err();
        assert!(error.to_string().contains(feature.since()), "{error}");
        assert!(without.with(feature).has(feature));
    }
}

/// Registration, arena and ring are dropped in every order. No memory in use is freed, and all
/// other memory is.
#[test]
fn memory_outlives_what_is_dropped_first() {
    let Some(mut ring) = ring("drop order") else { return };
    let arena = paged_arena(4, 4096);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let file = TestFile::new("order", &pattern(0, 4096)).open();
    let (entry, operation) = registered.read(&file, arena.allocate().unwrap(), 0);
    push(&mut ring, &entry);
    drop(registered);
    drop(arena);
    ring.submit_and_wait(1).unwrap();
    let cqe = ring.completion().next().unwrap();
    // SAFETY: its completion.
    let uring_arena::Progress::Done { buffer, .. } = (unsafe { operation.complete(&cqe) }) else {
        panic!()
    };
    drop(ring);
    assert_eq!(buffer.freeze()[..], pattern(0, 4096));
}

/// Run by [`too_little_lockable_memory_is_told_in_numbers`] as another user with a limit of 1 MiB.
#[test]
#[ignore = "needs a small RLIMIT_MEMLOCK and no CAP_IPC_LOCK: run by another test"]
fn helper_without_lockable_memory() {
    let ring = IoUring::new(4).unwrap();
    let arena = paged_arena(1024, 4096);
    let memlock = Memlock::for_bytes(4 << 20);
    assert!(!memlock.privileged && !memlock.suffices(), "{memlock:?}");
    let error = try_register(&ring, &arena, RegistrationMode::Slots.into()).unwrap_err();
    let RegisterError::Memlock(told) = &error else { panic!("{error:?}") };
    assert_eq!((told.needed, told.soft), (4 << 20, Some(1 << 20)));
    assert!(error.to_string().contains("LimitMEMLOCK=4194304"), "{error}");
    let registered = try_register(&ring, &arena, RegistrationPolicy::Best.into()).unwrap();
    assert_eq!(registered.mode(), RegistrationMode::Unregistered);
    assert_eq!(registered.refused().len(), 2);
    // Everything works, only slower.
    let mut ring = ring;
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let outcome = run(&mut ring, registered.read(&file, arena.allocate().unwrap(), 0));
    assert_eq!(outcome.result.unwrap(), 4096);
    // A smaller arena is registered; a clone costs nothing more.
    let small = paged_arena(128, 4096);
    let first = register(&ring, &small, RegistrationMode::Slots);
    let second_ring = IoUring::new(4).unwrap();
    let too_much =
        try_register(&second_ring, &paged_arena(200, 4096), RegistrationMode::Slots.into())
            .unwrap_err();
    assert!(too_much.to_string().contains("other rings and processes"), "{too_much}");
    let options = RegisterOptions::new().clone_of(&first, &ring);
    assert_eq!(
        try_register(&second_ring, &small, options).unwrap().mode(),
        RegistrationMode::Cloned
    );
    println!("helper finished");
}

#[test]
fn too_little_lockable_memory_is_told_in_numbers() {
    let Some(_) = ring("memlock") else { return };
    let prlimit = as_user_with_memlock(1_048_576, 0);
    let prlimit: Vec<&str> = prlimit.iter().map(String::as_str).collect();
    run_alone("registration::helper_without_lockable_memory", &prlimit);
}

#[test]
fn a_sandbox_that_forbids_io_uring_is_named_with_its_remedy() {
    let Some(_) = ring("forbidden") else { return };
    let forbidden = std::thread::spawn(|| {
        seccomp::fail_calls_on_this_thread(libc::SYS_io_uring_setup, libc::EPERM)?;
        Ok::<_, std::io::Error>((Probe::new(), uring_arena::Driver::builder().build().err()))
    });
    match forbidden.join().unwrap() {
        Ok((probe, driver)) => {
            let error = probe.unwrap_err();
            assert_eq!(error, uring_arena::UnavailableError::Forbidden);
            assert!(error.to_string().contains("seccomp"), "{error}");
            let error = driver.unwrap();
            assert!(matches!(error, uring_arena::DriverError::Forbidden { .. }), "{error:?}");
        }
        Err(error) => eprintln!("SKIPPED forbidden: no seccomp here: {error}"),
    }
}
