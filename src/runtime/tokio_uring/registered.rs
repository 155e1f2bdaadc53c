//! An arena registered with tokio-uring's ring.
//!
//! # Safety
//!
//! Unsafe here: telling tokio-uring's registry where the arena's memory lies. Each token keeps an
//! arena handle, so the memory outlives its registration; the registry is private and nothing is
//! ever checked out of it, so it gives no second way to the bytes.
#![allow(unsafe_code)]

use std::io;
use std::rc::Rc;

use ::tokio_uring::buf::fixed::FixedBufRegistry;
use ::tokio_uring::buf::{IoBuf, IoBufMut};
use ::tokio_uring::fs::File;

use super::operation::{Descriptor, OWN_POSITION, Operation, Place};
use super::reaper::Reaper;
use crate::arena::FixedArena;
use crate::buffer::{Buffer, IoMemory};

/// Entries that tokio-uring registers; it leaves further ones out without a word.
const ENTRIES_MAX: usize = 1024;

/// Bytes that the kernel takes in one entry.
const ENTRY_BYTES_MAX: usize = 1 << 30;

/// An arena that could not be registered with tokio-uring's ring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The runtime has registered buffers already: it has one table.
    #[error("this tokio-uring runtime has registered buffers already: register one arena, once")]
    TableTaken,
    /// The arena is larger than 1024 entries of 1 GiB.
    #[error(
        "{bytes} bytes do not fit in the 1024 entries of 1 GiB that tokio-uring registers: use several runtimes"
    )]
    TooLarge {
        /// Bytes of the arena.
        bytes: usize,
    },
    /// The kernel may not pin this much memory.
    #[error(
        "the kernel will not pin {bytes} bytes for this process: raise RLIMIT_MEMLOCK (`ulimit -l`), or go on unregistered"
    )]
    MemoryLocked {
        /// Bytes of the arena.
        bytes: usize,
    },
    /// The kernel refused for another reason.
    #[error("the kernel refused to register the arena")]
    Kernel(#[from] io::Error),
}

/// An arena registered with the ring of the tokio-uring runtime that it was made in.
///
/// Reads into its buffers and writes from its bytes, frozen or not, use the registered memory: the
/// kernel need not pin pages for each operation, which pays for `O_DIRECT`. Memory from elsewhere
/// goes the unregistered way. Up to 1024 slots each have an entry of their own, whose number is the
/// slot's index; of more slots several share one entry.
///
/// Lives on its thread, and in its runtime: used in another, its operations go the unregistered
/// way. The registration lasts until [`unregister`](Registered::unregister) or the end of the
/// runtime.
///
/// ```
/// # use std::num::NonZeroUsize;
/// # use std::rc::Rc;
/// use bytes::BufMut;
/// use uring_arena::{FixedArena, tokio_uring::Registered};
/// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
///
/// let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
/// let path = std::env::temp_dir().join(format!("uring-arena-{}", std::process::id()));
/// tokio_uring::start(async {
///     let registered = Registered::new(&arena)?;
///     let file = Rc::new(tokio_uring::fs::File::create(&path).await?);
///     let mut buffer = arena.allocate()?;
///     buffer.put_slice(b"hello");
///     let (written, _) = registered.write_at(&file, buffer.freeze(), 0).await;
///     assert_eq!(written?, 5);
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// assert_eq!(std::fs::read(&path)?, b"hello");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Registered {
    arena: FixedArena,
    slots_per_entry: usize,
    registry: FixedBufRegistry<Token>,
    reaper: Rc<Reaper>,
}

impl Registered {
    /// Registers all of the arena's memory with the ring of the runtime that this thread is in.
    ///
    /// # Errors
    ///
    /// [`AttachError`]: the runtime's table is taken, the arena is too large for it, or the kernel
    /// will not pin the memory.
    ///
    /// # Panics
    ///
    /// Outside a tokio-uring runtime.
    pub fn new(arena: &FixedArena) -> Result<Registered, AttachError> {
        let reaper = Reaper::current();
        let bytes = arena.handle().region.len();
        let slots_per_entry = arena.slot_count().div_ceil(ENTRIES_MAX);
        if slots_per_entry > 1 && slots_per_entry * arena.slot_capacity() > ENTRY_BYTES_MAX
            || arena.slot_capacity() > ENTRY_BYTES_MAX
        {
            return Err(AttachError::TooLarge { bytes });
        }
        let tokens = Token::cut(arena, slots_per_entry);
        // Not left to tokio-uring, which would register the first 1024 and say nothing.
        assert!(tokens.len() <= ENTRIES_MAX, "{} entries, at most {ENTRIES_MAX}", tokens.len());
        let registry = FixedBufRegistry::new(tokens);
        registry.register().map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => AttachError::TableTaken,
            Some(libc::ENOMEM) => AttachError::MemoryLocked { bytes },
            _ => AttachError::Kernel(error),
        })?;
        Ok(Registered { arena: arena.clone(), slots_per_entry, registry, reaper })
    }

    /// Slots that share one entry of the kernel's table: 1 means that a slot's index is its
    /// registered-buffer index.
    pub fn slots_per_entry(&self) -> usize {
        self.slots_per_entry
    }

    /// Reads from a file at `offset` into the buffer; its length becomes the number of bytes read.
    ///
    /// # Panics
    ///
    /// Outside a tokio-uring runtime.
    pub fn read_at(&self, file: &Rc<File>, buffer: Buffer, offset: u64) -> Operation<Buffer> {
        let place = self.place_of(&buffer);
        Operation::read(place, file, buffer, offset)
    }

    /// Reads from a socket, or from a file at its own position, into the buffer.
    ///
    /// # Panics
    ///
    /// Outside a tokio-uring runtime.
    pub fn read<D: Descriptor>(&self, from: &Rc<D>, buffer: Buffer) -> Operation<Buffer> {
        let place = self.place_of(&buffer);
        Operation::read(place, from, buffer, OWN_POSITION)
    }

    /// Writes a buffer's bytes, or frozen ones, to a file at `offset`; maybe not all of them.
    ///
    /// # Panics
    ///
    /// Outside a tokio-uring runtime.
    pub fn write_at<B: IoMemory + AsRef<[u8]>>(
        &self,
        file: &Rc<File>,
        item: B,
        offset: u64,
    ) -> Operation<B> {
        let place = self.place_of(&item);
        Operation::write(place, file, item, offset)
    }

    /// Writes a buffer's bytes, or frozen ones, to a socket, or to a file at its own position.
    ///
    /// # Panics
    ///
    /// Outside a tokio-uring runtime.
    pub fn write<D: Descriptor, B: IoMemory + AsRef<[u8]>>(
        &self,
        to: &Rc<D>,
        item: B,
    ) -> Operation<B> {
        let place = self.place_of(&item);
        Operation::write(place, to, item, OWN_POSITION)
    }

    /// Takes the registration back. The kernel finishes what is under way with the registered
    /// memory first.
    ///
    /// # Errors
    ///
    /// If the runtime that this thread is in is not the one that the arena was registered with.
    ///
    /// # Panics
    ///
    /// Outside a tokio-uring runtime.
    pub fn unregister(self) -> io::Result<()> {
        self.registry.unregister()
    }

    /// The runtime that this thread is in, and the entry of its table that holds `item`: none if
    /// the arena is registered with another, or if `item` is of another arena.
    fn place_of<B: IoMemory + AsRef<[u8]>>(&self, item: &B) -> Place {
        let reaper = Reaper::current();
        let index = match Rc::ptr_eq(&reaper, &self.reaper) {
            // At most `ENTRIES_MAX`: it fits.
            true => self.slot_of(item).map(|slot| (slot as usize / self.slots_per_entry) as u16),
            false => None,
        };
        Place { reaper, index }
    }

    /// The slot that holds `item`. `None` if `item` is of another arena, or has no byte at all.
    fn slot_of<B: IoMemory + AsRef<[u8]>>(&self, item: &B) -> Option<u32> {
        let address = item.as_ref().as_ptr().addr();
        if item.extent() == 0 { None } else { self.arena.handle().index_of_address(address) }
    }
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registered")
            .field("arena", &self.arena)
            .field("slots_per_entry", &self.slots_per_entry)
            .finish_non_exhaustive()
    }
}

/// One entry of the table: a run of slots, and what keeps them alive while they are registered.
struct Token {
    start: *mut u8,
    len: usize,
    _arena: FixedArena,
}

impl Token {
    fn cut(arena: &FixedArena, slots_per_entry: usize) -> Vec<Token> {
        let start = arena.handle().region.start();
        let (slots, slot_bytes) = (arena.slot_count(), arena.slot_capacity());
        (0..slots)
            .step_by(slots_per_entry)
            .map(|first| Token {
                start: start.as_ptr().wrapping_add(first * slot_bytes),
                len: slots_per_entry.min(slots - first) * slot_bytes,
                _arena: arena.clone(),
            })
            .collect()
    }
}

// SAFETY: memory of the arena, which the handle beside it keeps where it is; nothing is claimed to
// be initialised.
unsafe impl IoBuf for Token {
    fn stable_ptr(&self) -> *const u8 {
        self.start
    }

    fn bytes_init(&self) -> usize {
        0
    }

    fn bytes_total(&self) -> usize {
        self.len
    }
}

// SAFETY: as above; writes go only through operations whose buffers own the bytes.
unsafe impl IoBufMut for Token {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.start
    }

    unsafe fn set_init(&mut self, _: usize) {}
}
