//! An arena registered with a compio runtime's ring.
//!
//! # Safety
//!
//! Unsafe here: registering, whose contract compio's driver and `Carried` keep: entries are
//! submitted to the runtime that the arena was registered with (checked), their descriptors stay
//! open, and completions come back to their operation.
#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;

use super::anchor::Anchor;
use super::{AttachError, Submitted};
use crate::buffer::{Buffer, IoMemory};
use crate::uring::{
    Descriptor, Feature, Probe, RegisterOptions, RegisteredArena, Registrable, RegistrationMode,
    SendOptions,
};

/// An arena registered with the ring of the compio runtime that it was made in.
///
/// Its operations take what compio opens (anything that is `AsFd` and whose clone keeps it open)
/// and give a [`BufResult`](compio_buf::BufResult).
///
/// Lives on its thread. It may outlive its runtime, but not be used in another.
///
/// ```
/// use std::num::NonZeroUsize;
/// use uring_arena::{FixedArena, compio::Registered};
///
/// let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
/// let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
/// let head = compio::runtime::Runtime::new()?.block_on(async {
///     let registered = Registered::new(&arena)?;
///     let file = compio::fs::File::open("Cargo.toml").await?;
///     let (result, buffer) = registered.read_at(&file, arena.allocate()?, 0).await.into();
///     let _read: usize = result?;
///     Ok::<_, Box<dyn std::error::Error>>(buffer.freeze().slice(..11))
/// })?;
/// assert_eq!(std::thread::spawn(move || head.to_vec()).join().unwrap(), b"[workspace]");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Registered {
    pieces: RegisteredArena,
    anchor: Rc<Anchor>,
}

impl Registered {
    /// Registers the arena with the ring of the runtime that this thread is in, in the best way
    /// that works: see [`mode`](Self::mode). compio registers nothing itself, so the table is free.
    ///
    /// # Errors
    ///
    /// [`AttachError`]: no runtime here, one that is not on io_uring, or a table that is taken.
    pub fn new(arena: &impl Registrable) -> Result<Registered, AttachError> {
        Registered::with(arena, RegisterOptions::new())
    }

    /// As [`new`](Self::new), with a mode that is demanded, a place in a table, or a ring to clone
    /// from.
    ///
    /// # Errors
    ///
    /// As for `new`, and if the mode that is demanded does not work.
    pub fn with(
        arena: &impl Registrable,
        options: RegisterOptions<'_>,
    ) -> Result<Registered, AttachError> {
        let anchor = Anchor::current()?;
        let probe = Probe::shared().unwrap_or(Probe::none());
        // compio negates every result below zero, and the report of a copied send is the one number
        // that has no negation.
        let options = options.probe(probe.without(Feature::SendZcUsage));
        // SAFETY: see the head of this file.
        let pieces = unsafe { RegisteredArena::register(&*anchor, arena, options)? };
        Ok(Registered { pieces, anchor })
    }

    /// How the ring knows the arena.
    pub fn mode(&self) -> RegistrationMode {
        self.pieces.mode()
    }

    /// Reads from `offset` of a file into the room behind what the buffer holds.
    ///
    /// # Panics
    ///
    /// Outside the runtime that the arena was registered with.
    pub fn read_at<D: AsFd + Clone + 'static>(
        &self,
        file: &D,
        buffer: Buffer,
        offset: u64,
    ) -> Submitted<Buffer, D> {
        self.submit(file, |file| self.pieces.read(file, buffer, offset))
    }

    /// Writes what the memory holds to `offset` of a file; maybe not all of it.
    ///
    /// # Panics
    ///
    /// Outside the runtime that the arena was registered with.
    pub fn write_at<M: IoMemory, D: AsFd + Clone + 'static>(
        &self,
        file: &D,
        memory: M,
        offset: u64,
    ) -> Submitted<M, D> {
        self.submit(file, |file| self.pieces.write(file, memory, offset))
    }

    /// Sends what the memory holds on a connected socket: zero-copy where that pays, and done when
    /// the kernel is done with the memory.
    ///
    /// # Panics
    ///
    /// Outside the runtime that the arena was registered with.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use bytes::BufMut;
    /// use uring_arena::{FixedArena, SendOptions, compio::Registered};
    /// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(65536).unwrap());
    ///
    /// let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// compio::runtime::Runtime::new()?.block_on(async {
    ///     let registered = Registered::new(&arena)?;
    ///     let listener = compio::net::TcpListener::bind("127.0.0.1:0").await?;
    ///     let stream = compio::net::TcpStream::connect(listener.local_addr()?).await?;
    ///     let mut buffer = arena.allocate()?;
    ///     buffer.put_bytes(7, 65536);
    ///     let (result, bytes) = registered.send(&stream, buffer.freeze(), SendOptions::new()).await.into();
    ///     let sent: usize = result?;
    ///     assert!(sent > 0 && sent <= bytes.len());
    ///     Ok::<_, Box<dyn std::error::Error>>(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send<M: IoMemory, D: AsFd + Clone + 'static>(
        &self,
        socket: &D,
        memory: M,
        options: SendOptions,
    ) -> Submitted<M, D> {
        self.submit(socket, |socket| self.pieces.send(socket, memory, options))
    }

    /// Takes the registration back.
    ///
    /// # Errors
    ///
    /// [`AttachError::NotInRuntime`] outside the runtime that the arena was registered with, or
    /// what the kernel answers.
    pub fn unregister(self) -> Result<(), AttachError> {
        if !self.anchor.is_here() {
            return Err(AttachError::NotInRuntime);
        }
        Ok(self.pieces.unregister(&Ring(self.anchor.as_raw_fd()))?)
    }

    fn submit<M: IoMemory, D: AsFd + Clone + 'static>(
        &self,
        descriptor: &D,
        build: impl FnOnce(Descriptor) -> (io_uring::squeue::Entry, crate::uring::Operation<M>),
    ) -> Submitted<M, D> {
        assert!(
            self.anchor.is_here(),
            "not in the compio runtime that the arena was registered with"
        );
        let descriptor = descriptor.clone();
        let number = Descriptor::Fd(descriptor.as_fd().as_raw_fd());
        Submitted::new(&self.anchor.session, descriptor, build(number))
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("pieces", &self.pieces).finish_non_exhaustive()
    }
}

/// A ring by its number.
struct Ring(RawFd);

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}
