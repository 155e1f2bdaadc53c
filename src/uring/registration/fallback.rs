//! Registration by the first mode that works.
//!
//! | mode | needs | if it fails |
//! |---|---|---|
//! | cloned | a source that has the arena, Linux 6.12 | slots |
//! | slots | at most 16,384 equal slots of at most 1 GiB | regions |
//! | regions | locked memory for the whole arena | unregistered |
//! | unregistered | nothing | – |
//!
//! # Safety
//!
//! Unsafe here: handing the arena's memory to the kernel. The memory is the arena's own, readable
//! and writable while the arena lives. The kernel pins the pages: after the arena is gone they
//! stay, unused, until they are unregistered.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

use super::error::RegisterError;
use super::options::{RegisterOptions, Source};
use super::options::{RegistrationMode, RegistrationPolicy};
use super::table::TableRanges;
use super::table::{self, BufferTable, ENTRIES_MAX, ENTRY_BYTES_MAX};
use crate::lease::Handle;
use crate::uring::kernel::syscalls::{self, Cloned};
use crate::uring::kernel::{Feature, Memlock, Probe};

/// The result of a registration: the mode that was reached, and why no better one was.
pub(super) struct Outcome {
    pub(super) mode: RegistrationMode,
    pub(super) table: Option<BufferTable>,
    pub(super) refused: Vec<(RegistrationMode, RegisterError)>,
}

/// Registers the arena of `handle` in the best mode that the policy allows and that works.
///
/// The entries are allocated from `ranges`, if given, and otherwise stand where the options say.
pub(super) fn register(
    ring: RawFd,
    handle: &Handle,
    options: &RegisterOptions<'_>,
    ranges: Option<&mut TableRanges>,
    probe: Probe,
) -> Result<Outcome, RegisterError> {
    let mut attempt = Attempt { ring, handle, options, ranges, probe };
    if let RegistrationPolicy::Only(mode) = options.policy {
        let table = attempt.register_in_mode(mode)?;
        return Ok(Outcome { mode, table, refused: Vec::new() });
    }
    let mut refused = Vec::new();
    let cloned = options.source.map(|_| RegistrationMode::Cloned);
    for mode in cloned.into_iter().chain([RegistrationMode::Slots, RegistrationMode::Regions]) {
        match attempt.register_in_mode(mode) {
            Ok(table) => return Ok(Outcome { mode, table, refused }),
            Err(error) if is_callers_mistake(&error) => return Err(error),
            Err(error) => refused.push((mode, error)),
        }
    }
    Ok(Outcome { mode: RegistrationMode::Unregistered, table: None, refused })
}

/// Returns whether no other mode could succeed either: then falling back would hide the mistake.
fn is_callers_mistake(error: &RegisterError) -> bool {
    matches!(error, RegisterError::TableInUse | RegisterError::NoTable | RegisterError::WrongThread)
}

struct Attempt<'a> {
    ring: RawFd,
    handle: &'a Handle,
    options: &'a RegisterOptions<'a>,
    ranges: Option<&'a mut TableRanges>,
    probe: Probe,
}

impl Attempt<'_> {
    fn register_in_mode(
        &mut self,
        mode: RegistrationMode,
    ) -> Result<Option<BufferTable>, RegisterError> {
        let source = match mode {
            RegistrationMode::Cloned => Some(self.source()?),
            _ => None,
        };
        let (count, entry_bytes, what) = match (mode, &source) {
            (_, Some((_, from))) => (from.count, from.entry_bytes, "cloned entries"),
            (RegistrationMode::Slots, _) => {
                let count = self.handle.allocator.slot_count().ok_or(RegisterError::NoSlots)?;
                (count, self.checked_slot_bytes()?, "slots")
            }
            (RegistrationMode::Regions, _) => {
                // A buddy arena whose largest block is larger than an entry stays unregistered.
                let entry_bytes = table::region_bytes(self.checked_slot_bytes()?);
                (self.handle.region.len().div_ceil(entry_bytes), entry_bytes, "regions")
            }
            _ => return Ok(None),
        };
        let at = self.allocate(count, what)?;
        let table =
            BufferTable { first: at.unwrap_or(0), count, entry_bytes, is_whole: at.is_none() };
        let answer = match source {
            Some((ring, from)) => self.clone_from(ring, from, table),
            None => self.register(table),
        };
        if answer.is_err()
            && let Some(ranges) = &mut self.ranges
        {
            ranges.free(table.first, count);
        }
        answer.map(|()| Some(table))
    }

    /// Finds room for `count` entries. Returns the index to place them at, or `None` for a table of
    /// their own.
    fn allocate(&mut self, count: usize, what: &'static str) -> Result<Option<u32>, RegisterError> {
        let offset = if self.ranges.is_some() { 0 } else { self.options.at.unwrap_or(0) };
        if offset as usize + count > ENTRIES_MAX {
            let (needed, limit) = (count, ENTRIES_MAX);
            return Err(RegisterError::TooManyEntries { needed, offset, limit, what });
        }
        let Some(ranges) = &mut self.ranges else { return Ok(self.options.at) };
        let full = RegisterError::TableFull { needed: count, free: ranges.longest(), what };
        ranges.allocate(count).map(Some).ok_or(full)
    }

    fn checked_slot_bytes(&self) -> Result<usize, RegisterError> {
        let slot_bytes = self.handle.slot_bytes;
        if slot_bytes > ENTRY_BYTES_MAX {
            return Err(RegisterError::SlotTooLarge { slot_bytes, limit: ENTRY_BYTES_MAX });
        }
        Ok(slot_bytes)
    }

    /// Returns the ring to clone from and the arena's entries on it.
    fn source(&self) -> Result<(RawFd, BufferTable), RegisterError> {
        let Some(Source { ring, arena, table }) = self.options.source else {
            return Err(RegisterError::NoSource(
                "no ring to clone from was offered: offer one (RegisterOptions::clone_of)",
            ));
        };
        if !arena.is_some_and(|arena| arena.is_same(self.handle)) {
            return Err(RegisterError::NoSource(
                "the ring to clone from has another arena registered",
            ));
        }
        let table = table.ok_or(RegisterError::NoSource(
            "the ring to clone from has the arena, but not registered",
        ))?;
        Ok((ring, table))
    }

    fn clone_from(
        &self,
        from_ring: RawFd,
        from: BufferTable,
        table: BufferTable,
    ) -> Result<(), RegisterError> {
        self.probe.require(Feature::CloneBuffers)?;
        let whole = from.is_whole && table.is_whole;
        if !whole {
            self.probe.require(Feature::CloneInto)?;
        }
        let cloned = Cloned {
            from_ring,
            from_offset: from.first,
            to_offset: table.first,
            // 0 means all, and is the only form that the first kernels with cloning know.
            count: if whole { 0 } else { table.count as u32 },
            replace: !table.is_whole,
        };
        syscalls::clone_buffers(self.ring, &cloned)
            .map_err(|error| self.explain(error, "cloning", table, 0, 0))
    }

    fn register(&self, table: BufferTable) -> Result<(), RegisterError> {
        self.probe.require(Feature::FixedBuffers)?;
        let (start, len) = (self.handle.region.start(), self.handle.region.len());
        let BufferTable { count, entry_bytes, .. } = table;
        let entries: Vec<libc::iovec> = (0..count)
            .map(|index| libc::iovec {
                iov_base: start.as_ptr().wrapping_add(index * entry_bytes).cast(),
                iov_len: entry_bytes.min(len - index * entry_bytes),
            })
            .collect();
        let locked = table::locked_bytes(start.addr().get(), len, entry_bytes);
        if !table.is_whole {
            return self.place(table, &entries, locked);
        }
        // SAFETY: the entries cover the arena's own memory, and nothing else (see the head of this
        // file).
        unsafe { syscalls::register_buffers(self.ring, &entries) }
            .map_err(|error| self.explain(error, "registering", table, 0, locked))
    }

    /// Places entries into the ring's table: all, or none.
    ///
    /// An update that fails half-way returns the number of entries that it placed, and not the
    /// error. The next update begins with the entry that failed, and returns the error.
    fn place(
        &self,
        table: BufferTable,
        entries: &[libc::iovec],
        locked: u64,
    ) -> Result<(), RegisterError> {
        let at = table.first;
        self.probe.require(Feature::SparseTable)?;
        let mut placed = 0;
        while placed < entries.len() {
            // SAFETY: as in `register`.
            let answer = unsafe {
                syscalls::update_buffers(self.ring, at + placed as u32, &entries[placed..])
            };
            let error = match answer {
                Ok(more) if more > 0 => {
                    placed += more;
                    continue;
                }
                // The kernel placed nothing, and gave no reason.
                Ok(_) => io::Error::from_raw_os_error(libc::EIO),
                Err(error) => error,
            };
            self.remove_placed(at, placed);
            return Err(self.explain(error, "placing", table, placed, locked));
        }
        Ok(())
    }

    fn remove_placed(&self, at: u32, placed: usize) {
        if placed > 0 && syscalls::clear_buffers(self.ring, at, placed).is_err() {
            // Entries that stay registered stay pinned, and nothing uses them.
            tracing::warn!(
                at,
                placed,
                "entries of a table could not be emptied again after a failed placement"
            );
        }
    }

    /// Turns the kernel's error into a [`RegisterError`].
    fn explain(
        &self,
        error: io::Error,
        step: &'static str,
        table: BufferTable,
        entry: usize,
        locked: u64,
    ) -> RegisterError {
        let (needed, offset) = (table.count, table.first);
        match error.raw_os_error() {
            Some(libc::EBUSY) => RegisterError::TableInUse,
            Some(libc::ENXIO) if step == "cloning" => RegisterError::NoSource(
                "the ring to clone from has no table of registered buffers any more",
            ),
            Some(libc::ENXIO) => RegisterError::NoTable,
            Some(libc::EINVAL) if step == "placing" => {
                RegisterError::TableTooShort { needed, offset }
            }
            Some(libc::EFAULT) => RegisterError::MemoryRefused { entry },
            // The error is of this ring or of the source. If it is of this ring, the next mode
            // gets it too.
            Some(libc::EEXIST) if step == "cloning" => RegisterError::NoSource(
                "the ring to clone from was set up for a single issuer, on another thread: build it with \
                 `single_issuer(false)`, or clone on that thread",
            ),
            Some(libc::EEXIST) => RegisterError::WrongThread,
            Some(libc::ENOMEM) => {
                let memlock = Memlock::for_bytes(locked);
                if memlock.privileged || step == "cloning" {
                    RegisterError::OutOfMemory { bytes: self.handle.region.len(), entries: needed }
                } else {
                    RegisterError::Memlock(memlock)
                }
            }
            _ => RegisterError::system(step, &error),
        }
    }
}
