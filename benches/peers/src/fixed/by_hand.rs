//! Pools that programs build themselves: a block of memory, and a queue or a locked list of the
//! free slots.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

use super::pool::{Pool, Setup};

/// A block of memory and some list of the free slots in it.
pub struct Block<L> {
    start: NonNull<u8>,
    layout: Layout,
    slot_bytes: usize,
    free: L,
}

// SAFETY: the block is only touched through slots, and the list hands each index to one slot at a
// time.
unsafe impl<L: Send> Send for Block<L> {}
// SAFETY: as above; the list itself is `Sync`.
unsafe impl<L: Sync> Sync for Block<L> {}

impl<L> Drop for Block<L> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; no slot is left, each holds an `Arc` of
        // this.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// An error: every slot is held.
#[derive(Debug)]
pub struct NoSlot;

/// A list of free slots that a program might pick.
pub trait FreeList: Send + Sync + 'static {
    const NAME: &'static str;

    fn with_all(slots: u32) -> Self;
    fn take(&self) -> Option<u32>;
    fn put_back(&self, index: u32);
}

impl FreeList for ArrayQueue<u32> {
    const NAME: &'static str = "ArrayQueue of slots";

    fn with_all(slots: u32) -> Self {
        let queue = ArrayQueue::new(slots as usize);
        (0..slots).for_each(|index| queue.push(index).expect("room for every slot"));
        queue
    }

    #[inline(always)]
    fn take(&self) -> Option<u32> {
        self.pop()
    }

    #[inline(always)]
    fn put_back(&self, index: u32) {
        self.push(index).expect("room for every slot");
    }
}

impl FreeList for Mutex<Vec<u32>> {
    const NAME: &'static str = "Mutex<Vec> of slots";

    fn with_all(slots: u32) -> Self {
        Mutex::new((0..slots).rev().collect())
    }

    #[inline(always)]
    fn take(&self) -> Option<u32> {
        self.lock().expect("not poisoned").pop()
    }

    #[inline(always)]
    fn put_back(&self, index: u32) {
        self.lock().expect("not poisoned").push(index);
    }
}

/// One slot of a block; goes back when dropped, frozen or not.
pub struct Slot<L: FreeList> {
    block: Arc<Block<L>>,
    index: u32,
    written: u32,
}

impl<L: FreeList> AsRef<[u8]> for Slot<L> {
    #[inline(always)]
    fn as_ref(&self) -> &[u8] {
        let offset = self.index as usize * self.block.slot_bytes;
        // SAFETY: `written` bytes of this slot are initialised, and nobody else holds it.
        unsafe {
            let start = self.block.start.add(offset).as_ptr();
            std::slice::from_raw_parts(start, self.written as usize)
        }
    }
}

impl<L: FreeList> Drop for Slot<L> {
    #[inline(always)]
    fn drop(&mut self) {
        self.block.free.put_back(self.index);
    }
}

/// A pool kept by hand, shared by `Arc`.
pub struct ByHand<L>(Arc<Block<L>>);

impl<L> Clone for ByHand<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L: FreeList> Pool for ByHand<L> {
    type Slot = Slot<L>;
    type Frozen = Bytes;
    type Refused = NoSlot;

    const NAME: &'static str = L::NAME;
    const NOTE: &'static str = "kept by hand; `Arc` per slot, `Bytes::from_owner`";
    const SPILLS: bool = false;
    const ZEROES: bool = false;

    fn new(setup: Setup) -> Self {
        let bytes = setup.slots * setup.slot_bytes;
        let layout = Layout::from_size_align(bytes, 4096).expect("a small block");
        // SAFETY: the size is above zero.
        let Some(start) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        for page in (0..bytes).step_by(4096) {
            // SAFETY: the offset lies inside the block.
            unsafe { start.add(page).write_volatile(0) };
        }
        let free = L::with_all(setup.slots as u32);
        Self(Arc::new(Block { start, layout, slot_bytes: setup.slot_bytes, free }))
    }

    #[inline(always)]
    fn claim(&self) -> Result<Slot<L>, NoSlot> {
        let index = self.0.free.take().ok_or(NoSlot)?;
        Ok(Slot { block: self.0.clone(), index, written: 0 })
    }

    #[inline(always)]
    fn put(slot: &mut Slot<L>, payload: &[u8]) {
        let (at, end) = (slot.written as usize, slot.written as usize + payload.len());
        assert!(end <= slot.block.slot_bytes, "the slot is full");
        let offset = slot.index as usize * slot.block.slot_bytes + at;
        // SAFETY: offset and length lie inside this slot, which nobody else holds.
        unsafe {
            let target = slot.block.start.add(offset).as_ptr();
            target.copy_from_nonoverlapping(payload.as_ptr(), payload.len());
        }
        slot.written = end as u32;
    }

    #[inline(always)]
    fn put_number(slot: &mut Slot<L>, number: u32) {
        Self::put(slot, &number.to_be_bytes());
    }

    #[inline(always)]
    fn freeze(slot: Slot<L>) -> Bytes {
        Bytes::from_owner(slot)
    }
}
