//! The ways to register an arena, best first, and the steps down.
//!
//! # Safety
//!
//! Unsafe here: handing the arena's memory to the kernel. It is the arena's own, readable and
//! writable while the arena lives, and pinned by the kernel from then on: after the arena is gone
//! the pages stay, unused, until they are unregistered.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

use super::register_options::RegisterOptions;
use super::syscall::{self, Cloned};
use super::table::{self, ENTRIES_MAX, ENTRY_BYTES_MAX, Table};
use super::table_ranges::TableRanges;
use super::{Feature, Memlock, Probe, RegistrationMode};
use crate::error::RegisterError;
use crate::lease::Handle;

/// Where the climb ended.
pub(super) struct Reached {
    pub(super) mode: RegistrationMode,
    pub(super) table: Option<Table>,
    pub(super) refused: Vec<(RegistrationMode, RegisterError)>,
}

/// Registers the arena of `handle` on the best mode that is asked for and works. Its entries are
/// allocated from `ranges`, if there are some.
pub(super) fn climb(
    ring: RawFd,
    handle: &Handle,
    options: &RegisterOptions<'_>,
    ranges: Option<&mut TableRanges>,
    probe: Probe,
) -> Result<Reached, RegisterError> {
    let mut climb = Climb { ring, handle, options, ranges, probe };
    if options.mode != RegistrationMode::Best {
        let table = climb.step(options.mode)?;
        return Ok(Reached { mode: options.mode, table, refused: Vec::new() });
    }
    let mut refused = Vec::new();
    let modes: &[RegistrationMode] = match options.source {
        Some(_) => &[RegistrationMode::Cloned, RegistrationMode::Slots, RegistrationMode::Regions],
        None => &[RegistrationMode::Slots, RegistrationMode::Regions],
    };
    for &mode in modes {
        match climb.step(mode) {
            Ok(table) => return Ok(Reached { mode, table, refused }),
            Err(error) if is_callers_mistake(&error) => return Err(error),
            Err(error) => refused.push((mode, error)),
        }
    }
    Ok(Reached { mode: RegistrationMode::Unregistered, table: None, refused })
}

/// What no lower mode could mend: stepping down would hide it.
fn is_callers_mistake(error: &RegisterError) -> bool {
    matches!(error, RegisterError::TableInUse | RegisterError::NoTable | RegisterError::WrongThread)
}

struct Climb<'a> {
    ring: RawFd,
    handle: &'a Handle,
    options: &'a RegisterOptions<'a>,
    ranges: Option<&'a mut TableRanges>,
    probe: Probe,
}

impl Climb<'_> {
    fn step(&mut self, mode: RegistrationMode) -> Result<Option<Table>, RegisterError> {
        let (count, entry_bytes, what) = match mode {
            RegistrationMode::Cloned => {
                let from = self.source_table()?;
                (from.count, from.entry_bytes, "cloned entries")
            }
            RegistrationMode::Slots => {
                let count = self.handle.allocator.slot_count().ok_or(RegisterError::NoSlots)?;
                (count, self.checked_slot_bytes()?, "slots")
            }
            RegistrationMode::Regions => {
                // A block of a buddy arena may be larger than an entry: it is used unregistered
                // then.
                let entry_bytes = table::region_bytes(self.checked_slot_bytes()?);
                (self.handle.region.len().div_ceil(entry_bytes), entry_bytes, "regions")
            }
            RegistrationMode::Unregistered | RegistrationMode::Best => return Ok(None),
        };
        let at = self.allocate(count, what)?;
        let table = Table { first: at.unwrap_or(0), count, entry_bytes, is_whole: at.is_none() };
        let answer = match mode {
            RegistrationMode::Cloned => self.clone(table),
            _ => self.register(table),
        };
        if answer.is_err()
            && let Some(ranges) = &mut self.ranges
        {
            ranges.free(table.first, count);
        }
        answer.map(|()| Some(table))
    }

    /// Finds room for `count` entries: the index to place them at, or `None` for a table of their
    /// own.
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

    fn source_table(&self) -> Result<Table, RegisterError> {
        let source = self
            .options
            .source
            .ok_or(RegisterError::NoSource("no ring to clone from was offered"))?;
        if !source.registered.is_of(self.handle) {
            return Err(RegisterError::NoSource(
                "the ring to clone from has another arena registered",
            ));
        }
        source.registered.table().ok_or(RegisterError::NoSource(
            "the ring to clone from has the arena, but not registered",
        ))
    }

    fn clone(&self, table: Table) -> Result<(), RegisterError> {
        let (from, from_ring) = match self.options.source {
            Some(source) => (self.source_table()?, source.ring),
            None => return Err(RegisterError::NoSource("no ring to clone from was offered")),
        };
        self.probe.require(Feature::CloneBuffers)?;
        let whole = from.is_whole && table.is_whole;
        if !whole {
            self.probe.require(Feature::CloneInto)?;
        }
        let cloned = Cloned {
            from_ring,
            from_offset: from.first,
            to_offset: table.first,
            // All of them, in the form that the first kernels with cloning know.
            count: if whole { 0 } else { table.count as u32 },
            replace: !table.is_whole,
        };
        syscall::clone_buffers(self.ring, &cloned)
            .map_err(|error| self.explain(error, "cloning", table, 0, 0))
    }

    fn register(&self, table: Table) -> Result<(), RegisterError> {
        self.probe.require(Feature::FixedBuffers)?;
        let (start, len) = (self.handle.region.start(), self.handle.region.len());
        let Table { count, entry_bytes, .. } = table;
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
        // SAFETY: the entries cover the arena's own memory, and nothing else (see the head of
        // this file).
        unsafe { syscall::register_buffers(self.ring, &entries) }
            .map_err(|error| self.explain(error, "registering", table, 0, locked))
    }

    /// Places entries into the ring's table: all, or none.
    ///
    /// An update that fails half-way says how many it placed, not why it stopped. The next one
    /// begins with the entry that failed, and so is told.
    fn place(
        &self,
        table: Table,
        entries: &[libc::iovec],
        locked: u64,
    ) -> Result<(), RegisterError> {
        let at = table.first;
        self.probe.require(Feature::SparseTable)?;
        let mut placed = 0;
        while placed < entries.len() {
            // SAFETY: as in `register`.
            let answer = unsafe {
                syscall::update_buffers(self.ring, at + placed as u32, &entries[placed..])
            };
            let error = match answer {
                Ok(more) if more > 0 => {
                    placed += more;
                    continue;
                }
                Ok(_) => io::Error::other("the kernel placed nothing"),
                Err(error) => error,
            };
            self.take_back(at, placed);
            return Err(self.explain(error, "placing", table, placed, locked));
        }
        Ok(())
    }

    fn take_back(&self, at: u32, placed: usize) {
        if placed > 0 && syscall::clear_buffers(self.ring, at, placed).is_err() {
            // What stays registered stays pinned, and is used by nobody.
            tracing::warn!(
                at,
                placed,
                "entries of a table could not be emptied again after a failed placement"
            );
        }
    }

    /// What the kernel's answer means here.
    fn explain(
        &self,
        error: io::Error,
        step: &'static str,
        table: Table,
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
            // This ring, or the one to clone from: if it is this one, the next mode down says so.
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
            _ => RegisterError::System { step, reason: error.to_string() },
        }
    }
}
