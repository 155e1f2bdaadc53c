//! Atomics that count the cache lines which a machine with many cores would move: each thread is a
//! core, and each core has a cache without end.
//!
//! An access to a line that the core has is free. A read of any other line, and a write to a line
//! that another core has too, moves it. What is accessed without atomics is not seen: the bytes of
//! a slot, the heap, and the plain fields of a header.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

pub(crate) use std::sync::atomic::{Ordering, fence};

const LINE_BYTES: usize = 64;

/// The cores that have a line, as bits.
static LINES: Mutex<Option<HashMap<usize, u128>>> = Mutex::new(None);

thread_local! {
    static CORE: Cell<Option<u32>> = const { Cell::new(None) };
    static MOVED: Cell<u64> = const { Cell::new(0) };
}

/// Makes this thread a core, below 128. Other threads are not counted.
pub(crate) fn be_core(number: u32) {
    CORE.with(|core| core.set(Some(number)));
}

/// Returns the number of lines that this core has taken over.
pub(crate) fn moved() -> u64 {
    MOVED.with(Cell::get)
}

fn touch(address: usize, writes: bool) {
    let Ok(Some(core)) = CORE.try_with(Cell::get) else { return };
    let own = 1_u128 << core;
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let sharers = lines.get_or_insert_default().entry(address / LINE_BYTES).or_insert(0);
    // A line that nobody has comes from memory: the first touch moves nothing between cores.
    let is_moved = if writes { *sharers & !own != 0 } else { *sharers != 0 && *sharers & own == 0 };
    *sharers = if writes { own } else { *sharers | own };
    if is_moved {
        MOVED.with(|moved| moved.set(moved.get() + 1));
    }
}

/// An atomic of the standard library that counts.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Counted<A>(A);

pub(crate) type AtomicPtr<T> = Counted<std::sync::atomic::AtomicPtr<T>>;
pub(crate) type AtomicU8 = Counted<std::sync::atomic::AtomicU8>;
pub(crate) type AtomicU16 = Counted<std::sync::atomic::AtomicU16>;
pub(crate) type AtomicU32 = Counted<std::sync::atomic::AtomicU32>;
pub(crate) type AtomicU64 = Counted<std::sync::atomic::AtomicU64>;
pub(crate) type AtomicUsize = Counted<std::sync::atomic::AtomicUsize>;

macro_rules! counted {
    ($(
        $name:ident $(<$generic:ident>)? = $value:ty {
            $($method:ident($($argument:ident: $type:ty),*);)*
        }
    )*) => {$(
        #[allow(dead_code, reason = "as the atomics of the standard library")]
        impl $(<$generic>)? Counted<std::sync::atomic::$name $(<$generic>)?> {
            pub(crate) const fn new(value: $value) -> Self {
                Self(std::sync::atomic::$name::new(value))
            }

            fn touch(&self, writes: bool) {
                touch(std::ptr::from_ref(self).addr(), writes);
            }

            pub(crate) fn get_mut(&mut self) -> &mut $value {
                self.0.get_mut()
            }

            pub(crate) fn into_inner(self) -> $value {
                self.0.into_inner()
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                self.touch(false);
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                self.touch(true);
                self.0.store(value, order);
            }

            pub(crate) fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.touch(true);
                self.0.compare_exchange(old, new, success, failure)
            }

            pub(crate) fn compare_exchange_weak(
                &self,
                old: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(old, new, success, failure)
            }

            pub(crate) fn fetch_update(
                &self,
                success: Ordering,
                failure: Ordering,
                change: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                self.touch(true);
                self.0.fetch_update(success, failure, change)
            }

            $(pub(crate) fn $method(&self, $($argument: $type,)* order: Ordering) -> $value {
                self.touch(true);
                self.0.$method($($argument,)* order)
            })*
        }
    )*};
}

macro_rules! numbers {
    ($($name:ident = $value:ty;)*) => {
        counted! {$(
            $name = $value {
                swap(value: $value);
                fetch_add(value: $value);
                fetch_sub(value: $value);
                fetch_or(value: $value);
                fetch_and(value: $value);
                fetch_xor(value: $value);
                fetch_max(value: $value);
                fetch_min(value: $value);
            }
        )*}
    };
}

numbers! {
    AtomicU8 = u8;
    AtomicU16 = u16;
    AtomicU32 = u32;
    AtomicU64 = u64;
    AtomicUsize = usize;
}

counted! {
    AtomicPtr<T> = *mut T {
        swap(value: *mut T);
    }
}
