//! A fake kernel that uses a buffer ring as the real one does, and in ways that the real one only
//! might.
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

/// The kernel's side of a buffer ring.
pub(super) struct FakeKernel {
    entries: *mut RingEntry,
    pub(super) count: u16,
    pub(super) head: u16,
    incremental: bool,
    /// The buffers that worker threads of the kernel selected and did not complete yet.
    selected: Vec<Selected>,
    /// The number of buffers that were selected and named in no completion.
    pub(super) lost: u64,
    /// The byte that was written last.
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
            .map(|offset| {
                self.next = self.next.wrapping_add(1);
                // SAFETY: inside a posted slot, which the kernel may write.
                unsafe { address.wrapping_add(offset).write(self.next) };
                self.next
            })
            .collect()
    }

    /// Receives up to `len` bytes into one buffer, or into several. Returns the completion and the
    /// bytes.
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

    /// Selects a buffer as a worker thread does, before there are bytes to put there.
    pub(super) fn select(&mut self) {
        if self.posted() > 0 && !self.incremental {
            let entry = self.entry(self.head);
            // SAFETY: posted, so written by the ring before its tail.
            let RingEntry { address, id, .. } = unsafe { entry.read() };
            self.head = self.head.wrapping_add(1);
            self.selected.push(Selected { address: address as *mut u8, id });
        }
    }

    /// Cancels a worker thread whose completion then names no buffer. Returns whether there was
    /// one.
    pub(super) fn lose_selected(&mut self, which: usize) -> bool {
        if self.selected.is_empty() {
            return false;
        }
        self.selected.remove(which % self.selected.len());
        self.lost += 1;
        true
    }

    /// Completes a worker thread's receive, in any order, with bytes or without.
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
