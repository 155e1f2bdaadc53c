//! An arena registered with tokio-uring's ring.
//!
//! # Safety
//!
//! Unsafe here: telling tokio-uring's registry where the arena's memory lies. Each token keeps an
//! arena handle, so the memory outlives its registration. The registry is private and nothing is
//! ever checked out of it, so it gives no second way to the bytes.
#![allow(unsafe_code)]

use std::io;
use std::rc::Rc;

use ::tokio_uring::buf::fixed::FixedBufRegistry;
use ::tokio_uring::buf::{IoBuf, IoBufMut};
use ::tokio_uring::fs::File;

use super::guard::{AttachError, RuntimeGuard, in_runtime};
use super::submitted::{Descriptor, Submitted, Target};
use crate::arena::FixedArena;
use crate::buffer::{Buffer, IoMemory};
use crate::lease::Trim;

/// The most entries that tokio-uring registers; it leaves further ones out without an error.
const ENTRIES_MAX: usize = 1024;

/// The most bytes that the kernel takes in one entry.
const ENTRY_BYTES_MAX: usize = 1 << 30;

/// An arena registered with the ring of the tokio-uring runtime that it was made in.
///
/// Reads into the arena's buffers and writes from its bytes, frozen or not, use the registered
/// memory. The kernel need not pin pages for each operation, which pays for `O_DIRECT`. Operations
/// on other memory are unregistered ones. Up to 1024 slots have an entry each, with the slot's
/// index as its number; of more slots several share one entry.
///
/// A registration stays on its thread, and in its runtime: in another runtime its operations are
/// unregistered ones. It lasts until [`unregister`](Registered::unregister) or the end of the
/// runtime.
///
/// ```
/// # use std::rc::Rc;
/// use bytes::BufMut;
/// use uring_arena::{FixedArena, tokio_uring::Registered};
///
/// let arena = FixedArena::new(8, 4096)?;
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
    guard: Rc<RuntimeGuard>,
}

impl Registered {
    /// Registers all of the arena's memory with the ring of the runtime that this thread is in:
    /// [`Registered`] has an example.
    ///
    /// # Errors
    ///
    /// [`AttachError`]: no runtime here, the runtime's table is taken, the arena is too large for
    /// it, or the kernel will not pin the memory.
    pub fn new(arena: &FixedArena) -> Result<Registered, AttachError> {
        let guard = RuntimeGuard::current()?;
        let bytes = arena.handle().region.len();
        let slots_per_entry = arena.slot_count().div_ceil(ENTRIES_MAX);
        if slots_per_entry > 1 && slots_per_entry * arena.slot_capacity() > ENTRY_BYTES_MAX
            || arena.slot_capacity() > ENTRY_BYTES_MAX
        {
            return Err(AttachError::TooLarge { bytes });
        }
        let tokens = Token::cut(arena, slots_per_entry);
        // Not left to tokio-uring, which would register the first 1024 and say nothing.
        debug_assert!(tokens.len() <= ENTRIES_MAX, "{} entries", tokens.len());
        let registry = FixedBufRegistry::new(tokens);
        // No page is given back to the system from here on: the runtime keeps the registration.
        Trim(arena.handle()).pin();
        let registered = in_runtime(|| registry.register()).and_then(|registered| {
            registered.map_err(|error| match error.raw_os_error() {
                Some(libc::EBUSY) => AttachError::TableTaken,
                Some(libc::ENOMEM) => AttachError::MemoryLocked { bytes },
                _ => AttachError::Kernel(error),
            })
        });
        registered.inspect_err(|_| Trim(arena.handle()).unpin())?;
        Ok(Registered { arena: arena.clone(), slots_per_entry, registry, guard })
    }

    /// Returns the number of slots that share one entry of the kernel's table. With 1, a slot's
    /// index is its registered-buffer index.
    ///
    /// ```
    /// use uring_arena::{FixedArena, tokio_uring::Registered};
    ///
    /// tokio_uring::start(async {
    ///     let registered = Registered::new(&FixedArena::new(2048, 4096)?)?;
    ///     assert_eq!(registered.slots_per_entry(), 2);
    ///     Ok::<(), Box<dyn std::error::Error>>(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn slots_per_entry(&self) -> usize {
        self.slots_per_entry
    }

    /// Reads from a file at `offset` into the room behind the buffer's bytes.
    ///
    /// Results and errors are those of [`read_at`](super::read_at()).
    ///
    /// ```
    /// # use std::rc::Rc;
    /// use uring_arena::{FixedArena, tokio_uring::Registered};
    ///
    /// let arena = FixedArena::new(8, 4096)?;
    /// tokio_uring::start(async {
    ///     let registered = Registered::new(&arena)?;
    ///     let file = Rc::new(tokio_uring::fs::File::open("README.md").await?);
    ///     let (read, buffer) = registered.read_at(&file, arena.allocate()?, 0).await;
    ///     assert_eq!(read?, buffer.len());
    ///     Ok::<(), Box<dyn std::error::Error>>(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_at(&self, file: &Rc<File>, buffer: Buffer, offset: u64) -> Submitted<Buffer> {
        let target = self.target_of(&buffer);
        Submitted::read(target, file, buffer, Some(offset))
    }

    /// Reads from a socket, or from a file at its own position, into the room behind the buffer's
    /// bytes.
    ///
    /// Results and errors are those of [`read`](super::read()).
    ///
    /// ```
    /// # use std::rc::Rc;
    /// use uring_arena::{FixedArena, tokio_uring::Registered};
    ///
    /// let arena = FixedArena::new(8, 4096)?;
    /// tokio_uring::start(async {
    ///     let registered = Registered::new(&arena)?;
    ///     let (mut far, near) = std::os::unix::net::UnixStream::pair()?;
    ///     let near = Rc::new(tokio_uring::net::UnixStream::from_std(near));
    ///     std::io::Write::write_all(&mut far, b"hello")?;
    ///     let (read, buffer) = registered.read(&near, arena.allocate()?).await;
    ///     assert_eq!((read?, &buffer[..]), (5, &b"hello"[..]));
    ///     Ok::<(), Box<dyn std::error::Error>>(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read<D: Descriptor>(&self, from: &Rc<D>, buffer: Buffer) -> Submitted<Buffer> {
        let target = self.target_of(&buffer);
        Submitted::read(target, from, buffer, None)
    }

    /// Writes a buffer's bytes, or frozen ones, to a file at `offset`. Returns their number, which
    /// may be less than there are. [`Registered`] has an example.
    ///
    /// Errors are those of [`write_at`](super::write_at()).
    pub fn write_at<B: IoMemory + AsRef<[u8]>>(
        &self,
        file: &Rc<File>,
        item: B,
        offset: u64,
    ) -> Submitted<B> {
        let target = self.target_of(&item);
        Submitted::write(target, file, item, Some(offset))
    }

    /// Writes a buffer's bytes, or frozen ones, to a socket, or to a file at its own position.
    /// Returns their number, which may be less than there are. To send all, call
    /// [`send_all`](super::send_all).
    ///
    /// ```
    /// # use std::rc::Rc;
    /// use uring_arena::{FixedArena, tokio_uring::Registered};
    ///
    /// let arena = FixedArena::new(8, 4096)?;
    /// tokio_uring::start(async {
    ///     let registered = Registered::new(&arena)?;
    ///     let (mut far, near) = std::os::unix::net::UnixStream::pair()?;
    ///     let near = Rc::new(tokio_uring::net::UnixStream::from_std(near));
    ///     let (written, _) = registered.write(&near, bytes::Bytes::from_static(b"hello")).await;
    ///     assert_eq!(written?, 5);
    ///     std::io::Read::read_exact(&mut far, &mut [0; 5])?;
    ///     Ok::<(), Box<dyn std::error::Error>>(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write<D: Descriptor, B: IoMemory + AsRef<[u8]>>(
        &self,
        to: &Rc<D>,
        item: B,
    ) -> Submitted<B> {
        let target = self.target_of(&item);
        Submitted::write(target, to, item, None)
    }

    /// Unregisters the arena. The kernel finishes the operations in flight on the registered memory
    /// first.
    ///
    /// # Errors
    ///
    /// An [`io::Error`] if this thread is not in the runtime that the arena was registered with
    /// ([`AttachError::NotInRuntime`] outside any), or if the kernel refuses.
    ///
    /// ```
    /// use uring_arena::{FixedArena, tokio_uring::Registered};
    ///
    /// let arena = FixedArena::new(8, 4096)?;
    /// tokio_uring::start(async {
    ///     Registered::new(&arena)?.unregister()?;
    ///     let again = Registered::new(&arena)?; // the table is free
    ///     Ok::<(), Box<dyn std::error::Error>>(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unregister(self) -> io::Result<()> {
        RuntimeGuard::current()?;
        in_runtime(|| self.registry.unregister())??;
        Trim(self.arena.handle()).unpin();
        Ok(())
    }

    /// Finds the runtime that this thread is in, and the entry of its table that holds `memory`.
    ///
    /// The entry is `None` if the arena is registered with another runtime, or if `memory` lies in
    /// another arena or has no byte at all.
    fn target_of<B: IoMemory + AsRef<[u8]>>(&self, memory: &B) -> Target {
        let guard = RuntimeGuard::current();
        let is_ours = |guard: &Rc<RuntimeGuard>| Rc::ptr_eq(guard, &self.guard);
        let is_here = guard.as_ref().is_ok_and(is_ours) && memory.extent() > 0;
        let address = memory.as_ref().as_ptr().addr();
        let slot = if is_here { self.arena.handle().index_of_address(address) } else { None };
        // At most `ENTRIES_MAX`: it fits.
        let buffer_index = slot.map(|slot| (slot as usize / self.slots_per_entry) as u16);
        Target { guard, buffer_index }
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

/// One entry of the table: a run of slots, and the arena handle that keeps them alive while they
/// are registered.
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

// SAFETY: as above; writes go only through operations, and their buffers own the bytes.
unsafe impl IoBufMut for Token {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.start
    }

    unsafe fn set_init(&mut self, _: usize) {}
}
