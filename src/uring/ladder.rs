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
use super::{Feature, Memlock, Probe, RegistrationMode};
use crate::error::RegisterError;
use crate::lease::Handle;

/// Where the climb ended.
pub(super) struct Reached {
    pub(super) mode: RegistrationMode,
    pub(super) table: Option<Table>,
    pub(super) refused: Vec<(RegistrationMode, RegisterError)>,
}

/// Registers the arena of `handle` on the best mode that is asked for and works.
pub(super) fn climb(
    ring: RawFd,
    handle: &Handle,
    options: &RegisterOptions<'_>,
    probe: Probe,
) -> Result<Reached, RegisterError> {
    let climb = Climb { ring, handle, options, probe };
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
    probe: Probe,
}

impl Climb<'_> {
    fn step(&self, mode: RegistrationMode) -> Result<Option<Table>, RegisterError> {
        match mode {
            RegistrationMode::Cloned => self.clone().map(Some),
            RegistrationMode::Slots => self.slots().map(Some),
            RegistrationMode::Regions => self.regions().map(Some),
            RegistrationMode::Unregistered | RegistrationMode::Best => Ok(None),
        }
    }

    fn clone(&self) -> Result<Table, RegisterError> {
        let source = self
            .options
            .source
            .ok_or(RegisterError::NoSource("no ring to clone from was offered"))?;
        if !source.registered.is_of(self.handle) {
            return Err(RegisterError::NoSource(
                "the ring to clone from has another arena registered",
            ));
        }
        let from = source.registered.table().ok_or(RegisterError::NoSource(
            "the ring to clone from has the arena, but not registered",
        ))?;
        self.probe.require(Feature::CloneBuffers)?;
        let whole = from.is_whole && self.options.at.is_none();
        if !whole {
            self.probe.require(Feature::CloneInto)?;
        }
        let table = Table {
            first: self.options.at.unwrap_or(0),
            is_whole: self.options.at.is_none(),
            ..from
        };
        self.check_room(table.count, "cloned entries")?;
        let cloned = Cloned {
            from_ring: source.ring,
            from_offset: from.first,
            to_offset: table.first,
            // All of them, in the form that the first kernels with cloning know.
            count: if whole { 0 } else { table.count as u32 },
            replace: self.options.at.is_some(),
        };
        syscall::clone_buffers(self.ring, &cloned)
            .map_err(|error| self.explain(error, "cloning", table.count, 0, 0))?;
        Ok(table)
    }

    fn slots(&self) -> Result<Table, RegisterError> {
        let count = self.handle.allocator.slot_count().ok_or(RegisterError::NoSlots)?;
        let slot_bytes = self.handle.slot_bytes;
        if slot_bytes > ENTRY_BYTES_MAX {
            return Err(RegisterError::SlotTooLarge { slot_bytes, limit: ENTRY_BYTES_MAX });
        }
        self.check_room(count, "slots")?;
        self.register(count, slot_bytes)
    }

    fn regions(&self) -> Result<Table, RegisterError> {
        // A block of a buddy arena may be larger than an entry: it is used unregistered then.
        let slot_bytes = self.handle.slot_bytes;
        if slot_bytes > ENTRY_BYTES_MAX {
            return Err(RegisterError::SlotTooLarge { slot_bytes, limit: ENTRY_BYTES_MAX });
        }
        let entry_bytes = table::region_bytes(slot_bytes);
        let count = self.handle.region.len().div_ceil(entry_bytes);
        self.check_room(count, "regions")?;
        self.register(count, entry_bytes)
    }

    fn check_room(&self, needed: usize, what: &'static str) -> Result<(), RegisterError> {
        let offset = self.options.at.unwrap_or(0);
        if offset as usize + needed > ENTRIES_MAX {
            return Err(RegisterError::TooManyEntries { needed, offset, limit: ENTRIES_MAX, what });
        }
        Ok(())
    }

    fn register(&self, count: usize, entry_bytes: usize) -> Result<Table, RegisterError> {
        self.probe.require(Feature::FixedBuffers)?;
        let (start, len) = (self.handle.region.start(), self.handle.region.len());
        let entries: Vec<libc::iovec> = (0..count)
            .map(|index| libc::iovec {
                iov_base: start.as_ptr().wrapping_add(index * entry_bytes).cast(),
                iov_len: entry_bytes.min(len - index * entry_bytes),
            })
            .collect();
        let locked = table::locked_bytes(start.addr().get(), len, entry_bytes);
        match self.options.at {
            Some(at) => self.place(at, &entries, locked)?,
            // SAFETY: the entries cover the arena's own memory, and nothing else (see the head of
            // this file).
            None => unsafe { syscall::register_buffers(self.ring, &entries) }
                .map_err(|error| self.explain(error, "registering", count, 0, locked))?,
        }
        Ok(Table {
            first: self.options.at.unwrap_or(0),
            count,
            entry_bytes,
            is_whole: self.options.at.is_none(),
        })
    }

    /// Places entries into the ring's table: all, or none.
    ///
    /// An update that fails half-way says how many it placed, not why it stopped. The next one
    /// begins with the entry that failed, and so is told.
    fn place(&self, at: u32, entries: &[libc::iovec], locked: u64) -> Result<(), RegisterError> {
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
            return Err(self.explain(error, "placing", entries.len(), placed, locked));
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
        needed: usize,
        entry: usize,
        locked: u64,
    ) -> RegisterError {
        let offset = self.options.at.unwrap_or(0);
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
