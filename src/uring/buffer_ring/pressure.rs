//! The pressure on an arena: below it, short messages are copied out, so that they hold no slot.

use crate::lease::Handle;

/// The part of the slots below which free ones are few: an eighth.
const FEW: usize = 8;

/// The part of a slot below which a message is short: a quarter.
const SHORT: usize = 4;

/// The bytes of the smallest slots whose short messages are copied: a copy of fewer bytes takes as
/// much memory as it frees.
const SLOT_BYTES_MIN: usize = 512;

/// The bytes of copies that may live by default, however small the arena is.
const COPIED_MIN: usize = 64 << 10;

/// The pressure on the arena of one ring, looked at once in a while.
pub(super) struct Pressure {
    /// The bytes below which messages are copied while there is pressure; 0 if that is off.
    copy_below: usize,
    /// The number of free slots below which there is pressure.
    few: usize,
    /// The slots that lie ready may be used up before the next look, and few are free besides.
    is_near: bool,
    /// The slots that were free at the last look.
    free: usize,
    /// The slots that the ring claims before it looks again.
    until_look: u32,
    /// The bytes of all copies of the arena that may live at one time.
    pub(super) copied_max: usize,
}

/// The slots that a ring owns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owned {
    /// The slots that lie ready for the kernel.
    pub(super) posted: usize,
    /// The others.
    pub(super) spare: usize,
}

impl Pressure {
    /// Creates the pressure of a ring. `copied_max` is in bytes; by default it is a quarter of the
    /// arena, and [`COPIED_MIN`] at least.
    pub(super) fn new(is_enabled: bool, copied_max: Option<usize>, arena: &Handle) -> Pressure {
        let slot_bytes = arena.slot_bytes;
        let copies = is_enabled && slot_bytes >= SLOT_BYTES_MIN;
        Pressure {
            copy_below: if copies { slot_bytes / SHORT } else { 0 },
            few: arena.allocator.slots().slot_count() / FEW,
            is_near: false,
            free: 0,
            until_look: 0,
            copied_max: copied_max.unwrap_or(COPIED_MIN.max(arena.region.len() / 4)),
        }
    }

    /// Returns the bytes below which messages may have to be copied before the next look.
    pub(super) fn copy_below_at_most(&self) -> usize {
        if self.is_near { self.copy_below } else { 0 }
    }

    /// Returns the bytes below which messages are copied now that `posted` slots lie ready.
    #[inline]
    pub(super) fn copy_below(&self, posted: usize) -> usize {
        if self.is_near && self.free + posted < self.few { self.copy_below } else { 0 }
    }

    /// Notes that the ring claimed slots. `is_short` says that it found no more. Returns whether to
    /// look.
    ///
    /// Counting the free slots of an arena reads all of its words. So the ring counts again only
    /// when it has claimed a sixteenth of the slots since, or found none.
    #[inline]
    pub(super) fn is_due(&mut self, claimed: u32, is_short: bool) -> bool {
        self.until_look = self.until_look.saturating_sub(claimed);
        (self.until_look == 0 || is_short) && self.copy_below > 0
    }

    /// Counts the free slots, while the ring has `owned` ones that no message has. Returns whether
    /// the pressure came near, or went.
    ///
    /// All that lies ready may become messages before the next look. So pressure is near as soon as
    /// few slots are free besides, and messages hold as many.
    #[cold]
    pub(super) fn look(&mut self, arena: &Handle, owned: Owned) -> bool {
        let slots = arena.allocator.slots();
        let count = slots.slot_count();
        let live = slots.live();
        arena.note_live_count(live);
        self.until_look = (count / (2 * FEW)) as u32;
        self.free = count - live + owned.spare;
        let held = live.saturating_sub(owned.posted + owned.spare);
        let is_near = self.free < self.few && held >= self.few;
        let was_near = std::mem::replace(&mut self.is_near, is_near);
        was_near != is_near
    }
}
