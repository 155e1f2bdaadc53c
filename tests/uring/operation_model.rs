//! A made-up kernel: completions in every order, with every error, late, twice and forged.
//!
//! After each step the counters of the arena equal those of a plain model.
#![allow(unsafe_code)]

use crate::support::paged_arena;
use crate::support::ring::{register, ring};
use bytes::{BufMut, Bytes};
use io_uring::IoUring;
use proptest::prelude::*;
use uring_arena::{
    ArenaBytes, Buffer, Completion, FixedArena, InFlight, Payload, RegisteredArena,
    RegistrationMode, SendOptions,
};

const SLOTS: usize = 6;
const SLOT_BYTES: usize = 4096;

/// `IORING_CQE_F_MORE` and `IORING_CQE_F_NOTIF`.
const MORE: u32 = 2;
const NOTIFICATION: u32 = 8;

#[derive(Debug, Clone)]
enum Step {
    /// Claims a buffer and begins a read into it.
    Read,
    /// Freezes a new buffer and keeps it.
    Freeze,
    /// Writes or sends a piece of the kept bytes.
    Write {
        kept: usize,
    },
    Send {
        kept: usize,
        zero_copy: bool,
    },
    /// Drops one of the kept bytes.
    Forget {
        kept: usize,
    },
    /// Completes an operation with this many bytes, or this error.
    Complete {
        which: usize,
        result: i32,
    },
    /// Completes an operation that is over, or with another generation, index or tag.
    Forge {
        which: usize,
        flip: u32,
    },
    /// Reports that an entry was never pushed.
    NotSubmitted {
        which: usize,
    },
    /// Drops the whole table.
    DropTable,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let result = prop_oneof![
        0..=SLOT_BYTES as i32 + 100,
        prop_oneof![
            Just(-libc::ECANCELED),
            Just(-libc::EFAULT),
            Just(-libc::EIO),
            Just(-libc::EOPNOTSUPP),
            Just(i32::MIN)
        ],
    ];
    let step = prop_oneof![
        3 => Just(Step::Read),
        2 => Just(Step::Freeze),
        2 => any::<usize>().prop_map(|kept| Step::Write { kept }),
        3 => (any::<usize>(), any::<bool>())
            .prop_map(|(kept, zero_copy)| Step::Send { kept, zero_copy }),
        2 => any::<usize>().prop_map(|kept| Step::Forget { kept }),
        8 => (any::<usize>(), result).prop_map(|(which, result)| Step::Complete { which, result }),
        2 => (any::<usize>(), 0..64u32).prop_map(|(which, flip)| Step::Forge { which, flip }),
        1 => any::<usize>().prop_map(|which| Step::NotSubmitted { which }),
        1 => Just(Step::DropTable),
    ];
    prop::collection::vec(step, 0..80)
}

/// An operation as the made-up kernel knows it.
struct Pending {
    user_data: u64,
    slot: u32,
    zero_copy: bool,
    /// The result was given, with the promise of a notification.
    promised: bool,
}

struct World {
    arena: FixedArena,
    registered: RegisteredArena,
    in_flight: InFlight,
    pending: Vec<Pending>,
    kept: Vec<(u32, Bytes)>,
    lost: std::collections::BTreeSet<u32>,
}

impl World {
    fn new(ring: &IoUring) -> World {
        let arena = paged_arena(SLOTS, SLOT_BYTES);
        let registered = register(ring, &arena, RegistrationMode::Slots);
        World {
            arena,
            registered,
            in_flight: InFlight::new(7),
            pending: vec![],
            kept: vec![],
            lost: Default::default(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Read => {
                let Ok(buffer) = self.arena.allocate() else { return };
                let slot = buffer.slot_index().unwrap();
                let (entry, operation) = self.registered.read(io_uring::types::Fd(-1), buffer, 0);
                let entry = self.in_flight.begin(entry, operation);
                self.note(entry.get_user_data(), slot, false);
            }
            Step::Freeze => {
                let Ok(mut buffer) = self.arena.allocate() else { return };
                let slot = buffer.slot_index().unwrap();
                buffer.put_bytes(slot as u8, 1000);
                self.kept.push((slot, buffer.freeze()));
            }
            Step::Write { kept } => {
                let Some((slot, bytes)) = pick(&self.kept, kept) else { return };
                let (slot, piece) = (*slot, bytes.slice(..kept % 1000));
                let is_empty = piece.is_empty();
                let (entry, operation) = self.registered.write(io_uring::types::Fd(-1), piece, 0);
                let entry = self.in_flight.begin(entry, operation);
                // An empty piece holds no slot.
                self.note(entry.get_user_data(), if is_empty { u32::MAX } else { slot }, false);
            }
            Step::Send { kept, zero_copy } => {
                let Some((slot, bytes)) = pick(&self.kept, kept) else { return };
                let (slot, bytes) = (*slot, bytes.clone());
                let options =
                    SendOptions::new().zero_copy_from(if zero_copy { 1 } else { usize::MAX });
                let (entry, operation) =
                    self.registered.send(io_uring::types::Fd(-1), bytes, options);
                let zero_copy = operation.is_zero_copy();
                let entry = self.in_flight.begin(entry, operation);
                self.note(entry.get_user_data(), slot, zero_copy);
            }
            Step::Forget { kept } => {
                if !self.kept.is_empty() {
                    self.kept.swap_remove(kept % self.kept.len());
                }
            }
            Step::Complete { which, result } => self.complete(which, result),
            Step::Forge { which, flip } => {
                let Some(user_data) = pick(&self.pending, which).map(|pending| pending.user_data)
                else {
                    return;
                };
                let forged = user_data ^ 1 << flip;
                if self.pending.iter().any(|pending| pending.user_data == forged) {
                    return;
                }
                // SAFETY: names nothing that is in flight.
                let completion = unsafe { self.in_flight.complete_with(forged, 100, 0) };
                assert!(
                    matches!(completion, Completion::Stale | Completion::Foreign),
                    "{completion:?}"
                );
            }
            Step::NotSubmitted { which } => {
                if self.pending.is_empty() {
                    return;
                }
                let pending = self.pending.swap_remove(which % self.pending.len());
                let entry = io_uring::opcode::Nop::new().build().user_data(pending.user_data);
                // SAFETY: no entry is ever pushed here.
                assert!(unsafe { self.in_flight.not_submitted(&entry) }.is_some());
            }
            Step::DropTable => {
                let lost = self.pending.drain(..).map(|pending| pending.slot);
                self.lost.extend(lost.filter(|slot| *slot != u32::MAX));
                self.in_flight = InFlight::new(7);
            }
        }
    }

    fn note(&mut self, user_data: u64, slot: u32, zero_copy: bool) {
        assert!(
            self.pending.iter().all(|pending| pending.user_data != user_data),
            "two of one name"
        );
        self.pending.push(Pending { user_data, slot, zero_copy, promised: false });
    }

    fn complete(&mut self, which: usize, result: i32) {
        if self.pending.is_empty() {
            return;
        }
        let at = which % self.pending.len();
        let pending = &mut self.pending[at];
        let user_data = pending.user_data;
        // Half of the zero-copy sends promise a notification with their result, errors too. The
        // notification is next then.
        let promises = pending.zero_copy && !pending.promised && which.is_multiple_of(2);
        let (result, flags) = match (promises, pending.promised) {
            (true, _) => (result, MORE),
            (_, true) => (if which.is_multiple_of(3) { i32::MIN } else { 0 }, NOTIFICATION),
            _ => (result, 0),
        };
        // SAFETY: the made-up kernel completes what is in flight, as a kernel would.
        let completion = unsafe { self.in_flight.complete_with(user_data, result, flags) };
        if promises {
            pending.promised = true;
            assert!(matches!(completion, Completion::More), "{completion:?}");
            return;
        }
        let Completion::Done { payload, .. } = completion else { panic!("{completion:?}") };
        if let Payload::Buffer(buffer) = &payload {
            assert_eq!(buffer.len() as i32, result.clamp(0, SLOT_BYTES as i32));
        }
        self.pending.swap_remove(at);
        drop(payload);
        // SAFETY: it is over, and so names nothing.
        let again = unsafe { self.in_flight.complete_with(user_data, 0, 0) };
        assert!(matches!(again, Completion::Stale), "{again:?}");
    }

    /// Checks that every slot has an owner in the model, or is free.
    fn check(&self) {
        let mut owned = self.lost.clone();
        owned.extend(
            self.pending.iter().map(|pending| pending.slot).filter(|slot| *slot != u32::MAX),
        );
        owned.extend(self.kept.iter().map(|(slot, _)| *slot));
        let metrics = self.arena.metrics();
        assert_eq!(metrics.bytes_live, owned.len() * SLOT_BYTES);
        assert_eq!(metrics.quarantined, self.lost.len() as u64);
        assert_eq!(self.in_flight.len(), self.pending.len());
        for (slot, bytes) in &self.kept {
            assert!(
                bytes.iter().all(|byte| *byte == *slot as u8),
                "somebody else wrote to slot {slot}"
            );
        }
    }
}

fn pick<T>(among: &[T], which: usize) -> Option<&T> {
    among.get(which.checked_rem(among.len())?)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn ownership_adds_up_whatever_the_kernel_answers(steps in steps()) {
        let Some(ring) = ring("made-up kernel") else { return Ok(()) };
        let mut world = World::new(&ring);
        for step in &steps {
            world.take(step);
            world.check();
        }
    }
}

#[test]
fn a_notification_that_overtakes_its_result_is_kept() {
    let Some(ring) = ring("overtaking") else { return };
    let arena = paged_arena(1, SLOT_BYTES);
    let registered = register(&ring, &arena, RegistrationMode::Slots);
    let mut buffer: Buffer = arena.allocate().unwrap();
    buffer.put_bytes(1, 100);
    let bytes: ArenaBytes = buffer.freeze_in_place();
    let (entry, operation) =
        registered.send(io_uring::types::Fd(-1), bytes, SendOptions::new().zero_copy_from(1));
    if !operation.is_zero_copy() {
        return eprintln!("SKIPPED overtaking: this kernel has no zero-copy send");
    }
    let mut in_flight = InFlight::new(1);
    let key = in_flight.begin(entry, operation).get_user_data();
    // SAFETY: completions as a kernel might give them.
    assert!(matches!(unsafe { in_flight.complete_with(key, 0, NOTIFICATION) }, Completion::More));
    assert!(arena.allocate().is_err());
    // SAFETY: as above.
    let done = unsafe { in_flight.complete_with(key, 100, MORE) };
    assert!(matches!(done, Completion::Done { result: Ok(100), .. }), "{done:?}");
    drop(done);
    assert!(arena.allocate().is_ok());
}
