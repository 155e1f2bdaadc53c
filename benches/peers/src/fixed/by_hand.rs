//! What programs build themselves: a block of memory, and a queue or a locked list of what is free.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

use super::pool::{Pool, Setup};

/// Slots that a program keeps by hand: a block of memory and some list of what is free.
pub struct Home<L> {
    start: NonNull<u8>,
    layout: Layout,
    slot_bytes: usize,
    free: L,
}

// SAFETY: the block is only touched through slots, and the list hands each index to one slot at a
// time.
unsafe impl<L: Send> Send for Home<L> {}
// SAFETY: as above; the list itself is `Sync`.
unsafe impl<L: Sync> Sync for Home<L> {}

impl<L: FreeList> Home<L> {
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
        let free = L::with_all(setup.slots);
        Self { start, layout, slot_bytes: setup.slot_bytes, free }
    }
}

impl<L> Drop for Home<L> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; no slot is left, each holds an `Arc` of
        // this.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Every slot is held.
#[derive(Debug)]
pub struct NoSlot;

/// A free list that a program might pick.
pub trait FreeList: Send + Sync + 'static {
    fn with_all(slots: usize) -> Self;
    fn take(&self) -> Option<u32>;
    fn put_back(&self, index: u32);
}

impl FreeList for ArrayQueue<u32> {
    fn with_all(slots: usize) -> Self {
        let queue = ArrayQueue::new(slots);
        for index in 0..slots as u32 {
            queue.push(index).expect("room for every slot");
        }
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
    fn with_all(slots: usize) -> Self {
        Mutex::new((0..slots as u32).rev().collect())
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

/// One slot of a `Home`; goes back when dropped, frozen or not.
pub struct HomeSlot<L: FreeList> {
    home: Arc<Home<L>>,
    index: u32,
    written: u32,
}

impl<L: FreeList> HomeSlot<L> {
    #[inline(always)]
    fn put(&mut self, payload: &[u8]) {
        let (at, end) = (self.written as usize, self.written as usize + payload.len());
        assert!(end <= self.home.slot_bytes, "the slot is full");
        let offset = self.index as usize * self.home.slot_bytes + at;
        // SAFETY: offset and length lie inside this slot, which nobody else holds.
        unsafe {
            let target = self.home.start.add(offset).as_ptr();
            target.copy_from_nonoverlapping(payload.as_ptr(), payload.len());
        }
        self.written = end as u32;
    }
}

impl<L: FreeList> AsRef<[u8]> for HomeSlot<L> {
    #[inline(always)]
    fn as_ref(&self) -> &[u8] {
        let offset = self.index as usize * self.home.slot_bytes;
        // SAFETY: `written` bytes of this slot are initialised, and nobody else holds it.
        unsafe {
            std::slice::from_raw_parts(self.home.start.add(offset).as_ptr(), self.written as usize)
        }
    }
}

impl<L: FreeList> Drop for HomeSlot<L> {
    #[inline(always)]
    fn drop(&mut self) {
        self.home.free.put_back(self.index);
    }
}

macro_rules! home_pool {
    ($pool:ident, $list:ty, $name:literal) => {
        #[doc = concat!($name, ": kept by hand, shared by `Arc`.")]
        #[derive(Clone)]
        pub struct $pool(Arc<Home<$list>>);

        impl Pool for $pool {
            type Slot = HomeSlot<$list>;
            type Frozen = Bytes;
            type Refused = NoSlot;

            const NAME: &'static str = $name;
            const NOTE: &'static str = "kept by hand; `Arc` per slot, `Bytes::from_owner`";

            fn new(setup: Setup) -> Self {
                Self(Arc::new(Home::new(setup)))
            }

            #[inline(always)]
            fn claim(&self) -> Result<Self::Slot, NoSlot> {
                let index = self.0.free.take().ok_or(NoSlot)?;
                let home = self.0.clone();
                Ok(HomeSlot { home, index, written: 0 })
            }

            #[inline(always)]
            fn put(slot: &mut Self::Slot, payload: &[u8]) {
                slot.put(payload);
            }

            #[inline(always)]
            fn put_number(slot: &mut Self::Slot, number: u32) {
                slot.put(&number.to_be_bytes());
            }

            #[inline(always)]
            fn freeze(slot: Self::Slot) -> Bytes {
                Bytes::from_owner(slot)
            }
        }
    };
}

home_pool!(Queue, ArrayQueue<u32>, "ArrayQueue of slots");
home_pool!(LockedList, Mutex<Vec<u32>>, "Mutex<Vec> of slots");
