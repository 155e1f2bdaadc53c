//! A made-up kernel that uses a buffer ring as the real one does, and in ways that the real one
//! only might.
//!
//! # Safety
//!
//! Unsafe here: reading the ring's entries and writing to slots that it has posted, as a kernel
//! would.
#![allow(unsafe_code)]

use super::entries::RingEntry;
use super::ring::BufferRing;

pub(super) const F_BUFFER: u32 = 1;
pub(super) const F_MORE: u32 = 2;
const F_BUF_MORE: u32 = 16;

/// What the kernel keeps of a buffer ring, and its way of using it.
pub(super) struct FakeKernel {
    entries: *mut RingEntry,
    pub(super) count: u16,
    pub(super) head: u16,
    incremental: bool,
    /// Selected by a worker thread of the kernel, not completed yet.
    selected: Vec<Selected>,
    /// Selected, and never told of.
    pub(super) lost: u64,
    /// What the next byte written will be.
    next: u8,
}

struct Selected {
    address: *mut u8,
    id: u16,
}

impl FakeKernel {
    pub(super) fn new(ring: &BufferRing) -> FakeKernel {
        FakeKernel {
            entries: ring.address() as *mut RingEntry,
            count: ring.count(),
            head: 0,
            incremental: ring.incremental,
            selected: Vec::new(),
            lost: 0,
            next: 0,
        }
    }

    fn entry(&self, position: u16) -> *mut RingEntry {
        // SAFETY: masked, so inside the array.
        unsafe { self.entries.add(usize::from(position % self.count)) }
    }

    pub(super) fn posted(&self) -> u16 {
        // SAFETY: the ring outlives the fake, and only this thread writes it.
        let tail = unsafe { (*self.entries).tail };
        let posted = tail.wrapping_sub(self.head);
        assert!(posted <= self.count, "posted over entries that were not consumed");
        posted
    }

    fn write(&mut self, address: *mut u8, len: usize) -> Vec<u8> {
        (0..len)
            .map(|place| {
                self.next = self.next.wrapping_add(1);
                // SAFETY: inside a posted slot: what the kernel may write.
                unsafe { address.wrapping_add(place).write(self.next) };
                self.next
            })
            .collect()
    }

    /// Receives up to `len` bytes into one buffer, or into several; the completion, and the bytes.
    pub(super) fn receive(&mut self, len: usize, bundle: bool) -> (i32, u32, Vec<u8>) {
        if self.posted() == 0 {
            return (-libc::ENOBUFS, 0, Vec::new());
        }
        // SAFETY: posted, so written by the ring before its tail.
        let first = unsafe { (*self.entry(self.head)).id };
        let (mut bytes, mut flags) = (Vec::new(), F_BUFFER | u32::from(first) << 16);
        while bytes.len() < len && self.posted() > 0 {
            let entry = self.entry(self.head);
            // SAFETY: as above.
            let RingEntry { address, bytes: room, .. } = unsafe { entry.read() };
            let (address, room) = (address as *mut u8, room as usize);
            let part = room.min(len - bytes.len());
            bytes.extend(self.write(address, part));
            if self.incremental && part < room {
                // SAFETY: the kernel writes the entries of an incremental ring.
                unsafe { (*entry).address += part as u64 };
                // SAFETY: as above.
                unsafe { (*entry).bytes -= part as u32 };
                flags |= F_BUF_MORE;
            } else {
                self.head = self.head.wrapping_add(1);
            }
            if !bundle {
                break;
            }
        }
        (bytes.len() as i32, flags, bytes)
    }

    /// A worker thread takes a buffer before it has anything to put there.
    pub(super) fn select(&mut self) {
        if self.posted() > 0 && !self.incremental {
            let entry = self.entry(self.head);
            // SAFETY: posted, so written by the ring before its tail.
            let RingEntry { address, id, .. } = unsafe { entry.read() };
            self.head = self.head.wrapping_add(1);
            self.selected.push(Selected { address: address as *mut u8, id });
        }
    }

    /// A worker thread is done, in any order, with bytes or without.
    /// A worker thread is cancelled, and its completion names no buffer. True if there was one.
    pub(super) fn lose_selected(&mut self, which: usize) -> bool {
        if self.selected.is_empty() {
            return false;
        }
        self.selected.remove(which % self.selected.len());
        self.lost += 1;
        true
    }

    pub(super) fn complete_selected(
        &mut self,
        which: usize,
        result: i32,
    ) -> Option<(i32, u32, Vec<u8>)> {
        if self.selected.is_empty() {
            return None;
        }
        let Selected { address, id } = self.selected.remove(which % self.selected.len());
        let bytes = self.write(address, result.max(0) as usize);
        Some((result, F_BUFFER | u32::from(id) << 16, bytes))
    }
}
