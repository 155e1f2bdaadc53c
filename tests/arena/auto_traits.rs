//! The types that may move to another thread, or be shared with one, as the compiler checks.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::AtomicUsize;

use uring_arena::{
    AllocError, ArenaBytes, BuddyArena, BuddyArenaBuilder, Buffer, BuildError, FixedArena,
    FixedArenaBuilder, FixedArenaMetrics, LocalArena, SlotStates, Unfaulted,
};

const fn may_move<T: Send>() {}
const fn may_be_shared<T: Sync>() {}

/// Fails to compile if `T` is `Send` in `stays!(T: Send)`: the call would have two candidates.
macro_rules! stays {
    ($type:ty: $rule:ident) => {{
        trait Candidates<Number> {
            fn one() {}
        }
        impl<T: ?Sized> Candidates<()> for T {}
        #[allow(dead_code, reason = "only there to be a second candidate")]
        struct Second;
        impl<T: ?Sized + $rule> Candidates<Second> for T {}
        <$type as Candidates<_>>::one();
    }};
}

#[test]
fn memory_goes_anywhere() {
    may_move::<FixedArena>();
    may_be_shared::<FixedArena>();
    may_move::<BuddyArena>();
    may_be_shared::<BuddyArena>();
    may_move::<Buffer>();
    may_be_shared::<Buffer>();
    may_move::<ArenaBytes>();
    may_be_shared::<ArenaBytes>();
    may_move::<SlotStates>();
    // A type that certainly is not `Send`.
    stays!(std::rc::Rc<u8>: Send);
    may_move::<AtomicUsize>();
}

const fn may_be_used_after_a_panic<T: UnwindSafe + RefUnwindSafe>() {}

#[test]
fn memory_may_be_used_after_a_panic() {
    may_be_used_after_a_panic::<FixedArena>();
    may_be_used_after_a_panic::<BuddyArena>();
    may_be_used_after_a_panic::<Unfaulted<FixedArena>>();
    may_be_used_after_a_panic::<Unfaulted<BuddyArena>>();
    may_be_used_after_a_panic::<FixedArenaBuilder>();
    may_be_used_after_a_panic::<BuddyArenaBuilder>();
    may_be_used_after_a_panic::<LocalArena>();
    may_be_used_after_a_panic::<Buffer>();
    may_be_used_after_a_panic::<ArenaBytes>();
    may_be_used_after_a_panic::<SlotStates>();
    may_be_used_after_a_panic::<FixedArenaMetrics>();
    may_be_used_after_a_panic::<AllocError>();
    may_be_used_after_a_panic::<BuildError>();
}

#[cfg(feature = "async-alloc")]
#[test]
fn arenas_whose_claims_wait_may_be_used_after_a_panic() {
    use uring_arena::{AsyncBuddyArena, AsyncFixedArena, NotifyRegistration, NotifyWaiters};

    may_be_used_after_a_panic::<AsyncFixedArena>();
    may_be_used_after_a_panic::<AsyncBuddyArena>();
    may_be_used_after_a_panic::<NotifyWaiters>();
    may_be_used_after_a_panic::<NotifyRegistration>();
}

/// An arena whose use panicked serves as before.
#[test]
fn an_arena_serves_after_a_panic() {
    let arena = FixedArena::new(2, 64).unwrap();
    let died = std::panic::catch_unwind(|| {
        let _held = arena.allocate().unwrap();
        arena.allocate_many(1, |_| panic!("in the middle of a batch"));
    });
    assert!(died.is_err());
    assert_eq!(arena.slot_states().free, 2);
    assert!(arena.allocate().is_ok());
}

#[cfg(all(feature = "io-uring", target_os = "linux"))]
#[test]
fn what_needs_a_ring_may_be_used_after_a_panic() {
    use uring_arena::{
        BufferRing, DriverBuilder, Operation, Payload, Probe, RegisterOptions, RegisteredArena,
    };

    may_be_used_after_a_panic::<RegisteredArena>();
    may_be_used_after_a_panic::<RegisterOptions<'_>>();
    may_be_used_after_a_panic::<BufferRing>();
    may_be_used_after_a_panic::<Operation>();
    may_be_used_after_a_panic::<Payload>();
    may_be_used_after_a_panic::<DriverBuilder>();
    may_be_used_after_a_panic::<Probe>();
}

#[test]
fn a_batch_stays_on_its_thread() {
    // Claims and frees there are plain accesses.
    stays!(LocalArena: Send);
    stays!(LocalArena: Sync);
}

#[cfg(all(feature = "io-uring", target_os = "linux"))]
#[test]
fn a_ring_stays_on_its_thread_and_what_it_needs_of_others_goes_there() {
    use uring_arena::{
        BufferRing, Datagram, DrainReport, Driver, DriverBuilder, Event, InFlight, Operation,
        Probe, RegisterOptions, RegisteredArena,
    };

    // The kernel runs completions for the thread that submits, and only that thread may register.
    stays!(Driver: Send);
    stays!(Driver: Sync);
    // The builder of a driver and its events may be on any thread.
    may_move::<DriverBuilder>();
    may_be_shared::<Probe>();
    may_move::<Event>();
    may_move::<Event<ArenaBytes>>();
    may_move::<Datagram<ArenaBytes>>();
    may_move::<DrainReport>();
    may_move::<std::task::Waker>();
    // Other threads clone a registration; pieces go where the ring of their user goes.
    may_be_shared::<RegisteredArena>();
    may_move::<RegisteredArena>();
    may_move::<RegisterOptions<'_>>();
    may_move::<BufferRing>();
    may_move::<Operation>();
    may_move::<Operation<ArenaBytes>>();
    may_move::<InFlight>();
}
