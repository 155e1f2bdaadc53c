//! The fixed arena against a plain model, under random lists of actions.
//!
//! No slot is handed out twice, none is lost, no byte is mixed up, and the counters agree. proptest
//! prints the seed of a failure and keeps it in `proptest-regressions/`.
//! `PROPTEST_CASES` sets the number of lists (256).

use std::num::NonZeroUsize;

use bytes::Bytes;
use proptest::prelude::*;
use uring_arena::{ArenaBytes, Buffer, FixedArena, InitPolicy};

const SLOTS: usize = 5;
const SLOT_BYTES: usize = 24;

#[derive(Debug, Clone)]
enum Action {
    Claim,
    ClaimMany(usize),
    Write { pick: usize, value: u8, len: usize },
    Truncate { pick: usize, len: usize },
    Prepend { pick: usize, value: u8 },
    Freeze(usize),
    FreezeInPlace(usize),
    Clone(usize),
    Slice { pick: usize, from: usize, to: usize },
    SplitTo { pick: usize, at: usize },
    SplitOff { pick: usize, at: usize },
    IntoBytes(usize),
    IntoBuffer(usize),
    DropBuffer(usize),
    DropFrozen(usize),
    CloneHandle,
    DropHandle,
}

fn action() -> impl Strategy<Value = Action> {
    let pick = 0..64usize;
    prop_oneof![
        4 => Just(Action::Claim),
        1 => (0..8usize).prop_map(Action::ClaimMany),
        4 => (pick.clone(), any::<u8>(), 0..SLOT_BYTES + 8)
            .prop_map(|(pick, value, len)| Action::Write { pick, value, len }),
        1 => (pick.clone(), 0..SLOT_BYTES).prop_map(|(pick, len)| Action::Truncate { pick, len }),
        1 => (pick.clone(), any::<u8>()).prop_map(|(pick, value)| Action::Prepend { pick, value }),
        2 => pick.clone().prop_map(Action::Freeze),
        3 => pick.clone().prop_map(Action::FreezeInPlace),
        2 => pick.clone().prop_map(Action::Clone),
        2 => (pick.clone(), 0..SLOT_BYTES, 0..SLOT_BYTES)
            .prop_map(|(pick, from, to)| Action::Slice { pick, from, to }),
        1 => (pick.clone(), 0..SLOT_BYTES).prop_map(|(pick, at)| Action::SplitTo { pick, at }),
        1 => (pick.clone(), 0..SLOT_BYTES).prop_map(|(pick, at)| Action::SplitOff { pick, at }),
        1 => pick.clone().prop_map(Action::IntoBytes),
        2 => pick.clone().prop_map(Action::IntoBuffer),
        2 => pick.clone().prop_map(Action::DropBuffer),
        4 => pick.prop_map(Action::DropFrozen),
        1 => Just(Action::CloneHandle),
        1 => Just(Action::DropHandle),
    ]
}

enum Frozen {
    Bytes(Bytes),
    InPlace(ArenaBytes),
}

impl Frozen {
    fn as_slice(&self) -> &[u8] {
        match self {
            Frozen::Bytes(bytes) => bytes,
            Frozen::InPlace(bytes) => bytes,
        }
    }
}

/// The live buffers and frozen bytes, each beside the content and the slot that it must keep.
#[derive(Default)]
struct World {
    buffers: Vec<(Buffer, Vec<u8>, Option<u32>)>,
    frozen: Vec<(Frozen, Vec<u8>, Option<u32>)>,
    spill: bool,
    claimed: u64,
    refused: u64,
    frozen_count: u64,
    spilled: u64,
}

impl World {
    fn live_slots(&self) -> usize {
        let mut slots: Vec<u32> = (self.buffers.iter().filter_map(|(_, _, slot)| *slot))
            .chain(self.frozen.iter().filter_map(|(_, _, slot)| *slot))
            .collect();
        slots.sort_unstable();
        slots.dedup();
        slots.len()
    }

    fn add(&mut self, buffer: Buffer) {
        let slot = buffer.slot_index();
        let taken = |owned: &Option<u32>| *owned == slot;
        assert!(
            !self.buffers.iter().any(|(_, _, slot)| taken(slot)),
            "slot {slot:?} has two owners"
        );
        assert!(
            !self.frozen.iter().any(|(_, _, slot)| taken(slot)),
            "slot {slot:?} has two owners"
        );
        self.buffers.push((buffer, Vec::new(), slot));
        self.claimed += 1;
    }

    fn freeze(&mut self, pick: usize, in_place: bool) {
        let (buffer, bytes, slot) = self.buffers.swap_remove(pick % self.buffers.len());
        self.frozen_count += u64::from(slot.is_some());
        let frozen = if in_place {
            Frozen::InPlace(buffer.freeze_in_place())
        } else {
            Frozen::Bytes(buffer.freeze())
        };
        // An empty `Bytes` frees its slot.
        let slot = if bytes.is_empty() && !in_place { None } else { slot };
        self.frozen.push((frozen, bytes, slot));
    }

    fn act(&mut self, arena: &FixedArena, action: Action) {
        use Action::*;
        match action {
            Claim => match arena.allocate() {
                Ok(buffer) => self.add(buffer),
                Err(_) => {
                    assert_eq!(self.live_slots(), SLOTS, "refused with a free slot");
                    self.refused += 1;
                }
            },
            ClaimMany(wanted) => {
                let free = SLOTS - self.live_slots();
                let mut got = Vec::new();
                assert_eq!(
                    arena.allocate_many(wanted, |buffer| got.push(buffer)),
                    wanted.min(free)
                );
                got.into_iter().for_each(|buffer| self.add(buffer));
            }
            Write { pick, value, len } if !self.buffers.is_empty() => {
                let at = pick % self.buffers.len();
                let (buffer, bytes, slot) = &mut self.buffers[at];
                let result = buffer.try_put_slice(&vec![value; len]);
                if result.is_ok() {
                    bytes.resize(bytes.len() + len, value);
                } else {
                    assert!(!self.spill);
                }
                if buffer.is_spilled() && slot.take().is_some() {
                    self.spilled += 1;
                }
            }
            Truncate { pick, len } if !self.buffers.is_empty() => {
                let at = pick % self.buffers.len();
                let (buffer, bytes, _) = &mut self.buffers[at];
                buffer.truncate(len);
                bytes.truncate(len);
            }
            Prepend { pick, value } if !self.buffers.is_empty() => {
                let at = pick % self.buffers.len();
                let (buffer, bytes, _) = &mut self.buffers[at];
                if buffer.is_empty() {
                    let _ = buffer.reserve_headroom(3);
                }
                if buffer.prepend(&[value; 2]).is_ok() {
                    bytes.splice(0..0, [value; 2]);
                }
            }
            Freeze(pick) if !self.buffers.is_empty() => self.freeze(pick, false),
            FreezeInPlace(pick) if !self.buffers.is_empty() => self.freeze(pick, true),
            Clone(pick) if !self.frozen.is_empty() && self.frozen.len() < 40 => {
                let (frozen, bytes, slot) = &self.frozen[pick % self.frozen.len()];
                let clone = match frozen {
                    Frozen::Bytes(bytes) => Frozen::Bytes(bytes.clone()),
                    Frozen::InPlace(bytes) => Frozen::InPlace(bytes.clone()),
                };
                self.frozen.push((clone, bytes.clone(), *slot));
            }
            Slice { pick, from, to } if !self.frozen.is_empty() && self.frozen.len() < 40 => {
                let (frozen, bytes, slot) = &self.frozen[pick % self.frozen.len()];
                let to = to.min(bytes.len());
                let from = from.min(to);
                let (slice, keeps) = match frozen {
                    // `Bytes` gives an empty slice that holds nothing.
                    Frozen::Bytes(bytes) => (Frozen::Bytes(bytes.slice(from..to)), from < to),
                    Frozen::InPlace(bytes) => (Frozen::InPlace(bytes.slice(from..to)), true),
                };
                self.frozen.push((slice, bytes[from..to].to_vec(), slot.filter(|_| keeps)));
            }
            SplitTo { pick, at } if !self.frozen.is_empty() => self.split(pick, at, true),
            SplitOff { pick, at } if !self.frozen.is_empty() => self.split(pick, at, false),
            IntoBytes(pick) if !self.frozen.is_empty() => {
                let (frozen, bytes, slot) = self.frozen.swap_remove(pick % self.frozen.len());
                let slot = slot.filter(|_| !bytes.is_empty() || matches!(frozen, Frozen::Bytes(_)));
                let frozen = match frozen {
                    Frozen::InPlace(in_place) => Frozen::Bytes(in_place.into()),
                    bytes => bytes,
                };
                self.frozen.push((frozen, bytes, slot));
            }
            IntoBuffer(pick) if !self.frozen.is_empty() => {
                let (frozen, bytes, slot) = self.frozen.swap_remove(pick % self.frozen.len());
                let shared =
                    self.frozen.iter().any(|(_, _, other)| slot.is_some() && *other == slot);
                match frozen {
                    Frozen::InPlace(in_place) => match in_place.try_into_buffer() {
                        Ok(buffer) => {
                            assert!(!shared && slot.is_some());
                            self.buffers.push((buffer, bytes, slot));
                        }
                        Err(in_place) => {
                            assert!(shared || slot.is_none());
                            self.frozen.push((Frozen::InPlace(in_place), bytes, slot));
                        }
                    },
                    other => self.frozen.push((other, bytes, slot)),
                }
            }
            DropBuffer(pick) if !self.buffers.is_empty() => {
                self.buffers.swap_remove(pick % self.buffers.len());
            }
            DropFrozen(pick) if !self.frozen.is_empty() => {
                self.frozen.swap_remove(pick % self.frozen.len());
            }
            _ => {}
        }
    }

    fn split(&mut self, pick: usize, at: usize, front: bool) {
        let pick = pick % self.frozen.len();
        let (frozen, bytes, slot) = &mut self.frozen[pick];
        let Frozen::InPlace(in_place) = frozen else { return };
        let at = at.min(bytes.len());
        let (part, part_bytes) = if front {
            let rest = bytes.split_off(at);
            (in_place.split_to(at), std::mem::replace(bytes, rest))
        } else {
            (in_place.split_off(at), bytes.split_off(at))
        };
        let slot = *slot;
        self.frozen.push((Frozen::InPlace(part), part_bytes, slot));
    }

    fn check(&self, arena: &FixedArena) {
        for (buffer, bytes, slot) in &self.buffers {
            assert_eq!((&buffer[..], buffer.slot_index()), (&bytes[..], *slot));
            assert!(buffer.capacity() >= buffer.len());
        }
        for (frozen, bytes, slot) in &self.frozen {
            assert_eq!(frozen.as_slice(), bytes);
            if let Some(slot) = slot.filter(|_| !bytes.is_empty()) {
                assert_eq!(
                    arena.locate(frozen.as_slice()).map(|place| place.slot_index),
                    Some(slot)
                );
            }
        }
        let metrics = arena.metrics();
        let live = self.live_slots();
        assert_eq!(metrics.bytes_live, live * SLOT_BYTES);
        assert_eq!(metrics.allocations_ok, self.claimed);
        assert_eq!(metrics.frees, self.claimed - live as u64);
        assert_eq!(metrics.allocations_failed, self.refused);
        assert_eq!((metrics.frozen, metrics.spills), (self.frozen_count, self.spilled));
    }
}

proptest! {
    #[test]
    fn any_list_of_actions_keeps_the_allocator_right(
        actions in prop::collection::vec(action(), 1..200),
        spill in any::<bool>(),
        zero in any::<bool>(),
    ) {
        let nz = |n| NonZeroUsize::new(n).unwrap();
        let mut builder = FixedArena::with_slot_capacity(nz(SLOTS), nz(SLOT_BYTES));
        if spill {
            builder = builder.auto_spill();
        }
        if zero {
            builder = builder.init_policy(InitPolicy::Zero);
        }
        let mut handles = vec![builder.build().unwrap()];
        let mut world = World { spill, ..World::default() };
        for action in actions {
            match action {
                Action::CloneHandle => handles.push(handles[0].clone()),
                Action::DropHandle if handles.len() > 1 => drop(handles.pop()),
                action => world.act(&handles[0], action),
            }
            world.check(&handles[0]);
        }
        let mut last_handle_first = handles.pop();
        if world.claimed.is_multiple_of(2) {
            last_handle_first = None;
            handles.clear();
        }
        // The bytes stay right to the end, in whatever order their owners are dropped.
        for (frozen, bytes, _) in world.frozen.drain(..) {
            assert_eq!(frozen.as_slice(), bytes);
        }
        world.buffers.clear();
        drop(last_handle_first);
    }
}
