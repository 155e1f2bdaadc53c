//! Zeroing that the optimiser cannot leave out.
//!
//! # Safety
//!
//! Unsafe here: one write through a raw pointer, and an empty assembly block that makes the write
//! observable.
#![allow(unsafe_code)]

use std::ptr::NonNull;

/// Zeroes `len` bytes from `start`, whatever the compiler thinks of their future.
///
/// # Safety
///
/// The bytes lie in one live allocation and the caller owns them alone.
pub(crate) unsafe fn scrub(start: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { start.as_ptr().write_bytes(0, len) };
    keep_writes(start);
}

/// Makes all writes before it observable: the compiler must assume that the block reads the memory.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
fn keep_writes(start: NonNull<u8>) {
    // SAFETY: the block is empty; without `nomem` it counts as a read of all memory.
    unsafe {
        std::arch::asm!("/* {0} */", in(reg) start.as_ptr(), options(nostack, preserves_flags));
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
fn keep_writes(start: NonNull<u8>) {
    std::hint::black_box(start);
}
