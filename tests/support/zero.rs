//! Random histories of buffers under `InitPolicy::Zero`: nobody finds a byte of an earlier owner.
#![allow(unsafe_code)]

use bytes::{Buf, BufMut, Bytes};
use proptest::prelude::*;
use uring_arena::{ArenaBytes, BuddyArena, Buffer, FixedArena, InitPolicy};

const SLOT_BYTES: usize = 256;

/// The byte that the histories write.
const MARK: u8 = 0xA5;

/// A step of the life of a buffer. Sizes are taken modulo what the buffer allows.
#[derive(Debug, Clone)]
pub enum Step {
    Put(usize),
    /// Puts more than fits: a spill, if the arena allows it.
    Overflow,
    Chunk(usize),
    /// Writes all spare room, and makes some of it count.
    Spare(usize),
    /// Writes all of the buffer by its address, and makes some of it count.
    Address(usize),
    SetLenDown(usize),
    Truncate(usize),
    Clear,
    Headroom(usize),
    Prepend(usize),
    Thaw(Cut),
    /// Reads from a file, up to so many bytes.
    Read(usize),
}

/// A way to shorten frozen bytes.
#[derive(Debug, Clone)]
pub enum Cut {
    Advance(usize),
    SplitTo(usize),
    SplitOff(usize),
    Slice(usize, usize),
    Nothing,
}

/// The end of a buffer.
#[derive(Debug, Clone)]
pub enum End {
    Drop,
    Freeze,
    FreezeRange(usize),
    InPlace(Cut),
    Bytes(Cut),
}

fn cut() -> impl Strategy<Value = Cut> {
    let at = || 0usize..SLOT_BYTES;
    prop_oneof![
        at().prop_map(Cut::Advance),
        at().prop_map(Cut::SplitTo),
        at().prop_map(Cut::SplitOff),
        (at(), at()).prop_map(|(start, end)| Cut::Slice(start, end)),
        Just(Cut::Nothing),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let size = || 0usize..SLOT_BYTES;
    prop_oneof![
        4 => size().prop_map(Step::Put),
        1 => Just(Step::Overflow),
        1 => size().prop_map(Step::Chunk),
        1 => size().prop_map(Step::Spare),
        1 => size().prop_map(Step::Address),
        2 => size().prop_map(Step::SetLenDown),
        1 => size().prop_map(Step::Truncate),
        1 => Just(Step::Clear),
        2 => size().prop_map(Step::Headroom),
        2 => size().prop_map(Step::Prepend),
        4 => cut().prop_map(Step::Thaw),
        2 => size().prop_map(Step::Read),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        Just(End::Drop),
        Just(End::Freeze),
        (0usize..SLOT_BYTES).prop_map(End::FreezeRange),
        cut().prop_map(End::InPlace),
        cut().prop_map(End::Bytes),
    ]
}

/// Makes the steps and the end of one buffer.
pub fn life() -> impl Strategy<Value = (Vec<Step>, End)> {
    (prop::collection::vec(step(), 0..12), end())
}

/// An arena of either kind.
pub enum Arena {
    Fixed(FixedArena),
    Buddy(BuddyArena),
}

impl Arena {
    /// Builds both kinds, with `InitPolicy::Zero`.
    pub fn both(spill: bool) -> [Arena; 2] {
        let mut fixed = FixedArena::with_sizes(2, SLOT_BYTES).init_policy(InitPolicy::Zero);
        let mut buddy = BuddyArena::with_sizes(4 * SLOT_BYTES, 64).init_policy(InitPolicy::Zero);
        if spill {
            (fixed, buddy) = (fixed.auto_spill(), buddy.auto_spill());
        }
        [Arena::Fixed(fixed.build().unwrap()), Arena::Buddy(buddy.build().unwrap())]
    }

    pub fn claim(&self, len: usize) -> Buffer {
        match self {
            Arena::Fixed(arena) => arena.allocate().unwrap(),
            Arena::Buddy(arena) => arena.allocate_bytes(len.max(1)).unwrap(),
        }
    }

    /// Claims everything, and fails unless it is all zeros.
    pub fn assert_clean(&self) {
        let sizes = [SLOT_BYTES, SLOT_BYTES].into_iter().chain([2 * SLOT_BYTES]);
        let everything: Vec<Buffer> = match self {
            Arena::Fixed(_) => sizes.take(2).map(|len| self.claim(len)).collect(),
            Arena::Buddy(_) => sizes.map(|len| self.claim(len)).collect(),
        };
        for mut buffer in everything {
            let capacity = buffer.capacity();
            // SAFETY: the memory of a mapping is initialised, and the policy is that it is zero.
            unsafe { buffer.set_len(capacity) };
            let left = buffer.iter().filter(|&&byte| byte != 0).count();
            assert_eq!(left, 0, "{left} bytes of an earlier owner in {buffer:?}");
        }
    }
}

fn shortened(mut bytes: ArenaBytes, cut: &Cut) -> ArenaBytes {
    let within = |at: usize| at % (bytes.len() + 1);
    match *cut {
        Cut::Advance(at) => {
            let at = within(at);
            bytes.advance(at);
        }
        Cut::SplitTo(at) => drop(bytes.split_to(within(at))),
        Cut::SplitOff(at) => drop(bytes.split_off(within(at))),
        Cut::Slice(start, end) => {
            let (start, end) = (within(start), within(end));
            bytes = bytes.slice(start.min(end)..start.max(end));
        }
        Cut::Nothing => {}
    }
    bytes
}

/// Takes a step. `read` reads up to so many bytes into the room of a buffer, as the kernel does.
fn take(mut buffer: Buffer, step: &Step, read: &mut dyn FnMut(Buffer, usize) -> Buffer) -> Buffer {
    let room = buffer.capacity() - buffer.len();
    match *step {
        Step::Put(count) => buffer.put_bytes(MARK, count % (room + 1)),
        Step::Overflow if buffer.will_fit(room + 1) => buffer.put_bytes(MARK, room + 1),
        Step::Overflow => buffer.put_bytes(MARK, room),
        Step::Chunk(count) if room > 0 => {
            let count = count % (room + 1);
            let chunk = buffer.chunk_mut();
            (0..room).for_each(|at| chunk.write_byte(at, MARK));
            // SAFETY: written just now, and more than that.
            unsafe { buffer.advance_mut(count) };
        }
        Step::Spare(count) => {
            let len = buffer.len() + count % (room + 1);
            buffer.spare_capacity_mut().iter_mut().for_each(|byte| _ = byte.write(MARK));
            // SAFETY: all of the buffer is written.
            unsafe { buffer.set_len(len) };
        }
        Step::Address(count) => {
            let capacity = buffer.capacity();
            // SAFETY: the buffer has so many bytes.
            unsafe { buffer.as_mut_ptr().write_bytes(MARK, capacity) };
            // SAFETY: written just now.
            unsafe { buffer.set_len(count % (capacity + 1)) };
        }
        Step::SetLenDown(len) => {
            let len = len % (buffer.len() + 1);
            // SAFETY: not more than was written.
            unsafe { buffer.set_len(len) };
        }
        Step::Truncate(len) => buffer.truncate(len % (buffer.len() + 1)),
        Step::Clear => buffer.clear(),
        Step::Headroom(bytes) => _ = buffer.reserve_headroom(bytes),
        Step::Prepend(bytes) => _ = buffer.prepend(&vec![MARK; bytes % (buffer.headroom() + 1)]),
        Step::Thaw(ref cut) if !buffer.is_spilled() => {
            let frozen = shortened(buffer.freeze_in_place(), cut);
            return frozen.try_into_buffer().expect("the only owner");
        }
        Step::Read(count) => return read(buffer, count),
        Step::Chunk(_) | Step::Thaw(_) => {}
    }
    buffer
}

fn finish(buffer: Buffer, end: &End) {
    match end {
        End::Drop => drop(buffer),
        End::Freeze => drop(buffer.freeze()),
        End::FreezeRange(at) => {
            let at = at % (buffer.len() + 1);
            drop(buffer.freeze_range(at..));
        }
        End::InPlace(cut) => drop(shortened(buffer.freeze_in_place(), cut)),
        End::Bytes(cut) => drop(Bytes::from(shortened(buffer.freeze_in_place(), cut))),
    }
}

/// Plays the life of one buffer, and checks that it leaves nothing behind.
pub fn check(
    arena: &Arena,
    steps: &[Step],
    end: &End,
    read: &mut dyn FnMut(Buffer, usize) -> Buffer,
) {
    for len in [SLOT_BYTES, 100] {
        let buffer = arena.claim(len);
        finish(steps.iter().fold(buffer, |buffer, step| take(buffer, step, read)), end);
        arena.assert_clean();
    }
}
