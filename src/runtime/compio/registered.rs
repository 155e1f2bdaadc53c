//! An arena registered with a compio runtime's ring.
//!
//! # Safety
//!
//! Unsafe here: registering. compio's driver and [`Submitted`] keep its contract. Entries are
//! submitted to the runtime that the arena was registered with (checked when they are), their
//! descriptors stay open, and completions come back to their operation.
#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;

use super::guard::{AttachError, RuntimeGuard};
use super::submitted::{SendAll, Submitted};
use crate::buffer::{Buffer, IoMemory};
use crate::runtime::transfer::{check_offset, check_room};
use crate::system::SendOptions;
use crate::uring::{
    Descriptor, Feature, RegisterOptions, RegisteredArena, Registrable, RegistrationMode,
};

/// An arena registered with the ring of the compio runtime that it was made in.
///
/// Its operations take compio's files and sockets: anything that is `AsFd` and stays open with its
/// clone. They give a [`BufResult`](compio_buf::BufResult).
///
/// A registration stays on its thread. It may outlive its runtime, but not be used in another.
///
/// ```
/// use uring_arena::{FixedArena, compio::Registered};
///
/// let arena = FixedArena::new(8, 4096)?;
/// let head = compio::runtime::Runtime::new()?.block_on(async {
///     let registered = Registered::new(&arena)?;
///     let file = compio::fs::File::open("README.md").await?;
///     let (result, buffer) = registered.read_at(&file, arena.allocate()?, 0).await.into();
///     let _read: usize = result?;
///     Ok::<_, Box<dyn std::error::Error>>(buffer.freeze().slice(..13))
/// })?;
/// assert_eq!(std::thread::spawn(move || head.to_vec()).join().unwrap(), b"# uring-arena");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Registered {
    /// Of one owner: sends that go on know it weakly.
    pieces: Rc<RegisteredArena>,
    guard: Rc<RuntimeGuard>,
}

impl Registered {
    /// Registers the arena with the ring of the runtime that this thread is in, in the best
    /// [`mode`](Self::mode) that works. The table is free: compio itself registers
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`AttachError`]: no runtime here, a runtime that is not on io_uring, or a table that is
    /// taken.
    pub fn new(arena: &impl Registrable) -> Result<Registered, AttachError> {
        Registered::with(arena, RegisterOptions::new())
    }

    /// Registers as [`new`](Self::new) does, with a mode that is demanded, a place in a table, or a
    /// ring to clone from.
    ///
    /// # Errors
    ///
    /// As for `new`; [`AttachError::Register`] if the demanded mode does not work.
    ///
    /// ```
    /// use uring_arena::{FixedArena, RegisterOptions, compio::Registered};
    ///
    /// let arena = FixedArena::new(8, 4096)?;
    /// compio::runtime::Runtime::new()?.block_on(async {
    ///     let registered = Registered::with(&arena, RegisterOptions::new())?;
    ///     registered.unregister()?;
    ///     Ok::<_, Box<dyn std::error::Error>>(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with(
        arena: &impl Registrable,
        options: RegisterOptions<'_>,
    ) -> Result<Registered, AttachError> {
        let guard = RuntimeGuard::current()?;
        // compio negates every result below zero, and the report of a copied send is the one number
        // that has no negation.
        let options = options.without(Feature::SendZcUsage)?;
        // SAFETY: see the head of this file.
        let pieces = unsafe { RegisteredArena::register(&*guard, arena, options)? };
        Ok(Registered { pieces: Rc::new(pieces), guard })
    }

    /// Returns the way in which the arena is registered.
    ///
    /// ```
    /// use uring_arena::{FixedArena, RegistrationMode, compio::Registered};
    ///
    /// let arena = FixedArena::new(8, 4096)?;
    /// compio::runtime::Runtime::new()?.block_on(async {
    ///     let registered = Registered::new(&arena)?;
    ///     assert_eq!(registered.mode(), RegistrationMode::Slots);
    ///     Ok::<_, Box<dyn std::error::Error>>(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mode(&self) -> RegistrationMode {
        self.pieces.mode()
    }

    /// Reads from `offset` of a file into the room behind the buffer's bytes. Returns the number of
    /// bytes read, by which the buffer is longer. [`Registered`] has an example.
    ///
    /// # Errors
    ///
    /// The result is an error of kind [`InvalidInput`](std::io::ErrorKind::InvalidInput) if the
    /// buffer is full, or if offset and room together are larger than `i64::MAX`. Outside the
    /// runtime that the arena was registered with it is [`AttachError::NotInRuntime`]. The buffer
    /// comes back.
    pub fn read_at<D: AsFd + Clone + 'static>(
        &self,
        file: &D,
        buffer: Buffer,
        offset: u64,
    ) -> Submitted<Buffer, D> {
        let room = buffer.capacity() - buffer.len();
        match check_room(&buffer).and_then(|()| check_offset(offset, room)) {
            Ok(()) => self.submit(file, |file| self.pieces.read(file, buffer, offset)),
            Err(error) => Submitted::refused(error, buffer),
        }
    }

    /// Writes the bytes of `memory` to `offset` of a file. Returns their number, which may be less
    /// than there are.
    ///
    /// ```
    /// use bytes::BufMut;
    /// use uring_arena::{FixedArena, compio::Registered};
    ///
    /// let arena = FixedArena::new(8, 4096)?;
    /// let path = std::env::temp_dir().join(format!("uring-arena-compio-{}", std::process::id()));
    /// compio::runtime::Runtime::new()?.block_on(async {
    ///     let registered = Registered::new(&arena)?;
    ///     let file = compio::fs::File::create(&path).await?;
    ///     let mut buffer = arena.allocate()?;
    ///     buffer.put_slice(b"hello");
    ///     let (result, _) = registered.write_at(&file, buffer, 0).await.into();
    ///     let written: usize = result?;
    ///     assert_eq!(written, 5);
    ///     Ok::<_, Box<dyn std::error::Error>>(())
    /// })?;
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`read_at`](Self::read_at), but for a full buffer.
    pub fn write_at<M: IoMemory, D: AsFd + Clone + 'static>(
        &self,
        file: &D,
        memory: M,
        offset: u64,
    ) -> Submitted<M, D> {
        let mut len = 0;
        memory.written(&mut |span| len += span.len);
        match check_offset(offset, len) {
            Ok(()) => self.submit(file, |file| self.pieces.write(file, memory, offset)),
            Err(error) => Submitted::refused(error, memory),
        }
    }

    /// Sends the bytes of `memory` on a connected socket, zero-copy where that pays. Returns their
    /// number, which may be less than there are. The future is ready when the kernel is done with
    /// the memory.
    ///
    /// # Errors
    ///
    /// The result is the error of the socket, and [`AttachError::NotInRuntime`] outside the runtime
    /// that the arena was registered with. The memory comes back.
    ///
    /// ```
    /// use bytes::BufMut;
    /// use uring_arena::{FixedArena, SendOptions, compio::Registered};
    ///
    /// let arena = FixedArena::new(8, 65536)?;
    /// compio::runtime::Runtime::new()?.block_on(async {
    ///     let registered = Registered::new(&arena)?;
    ///     let listener = compio::net::TcpListener::bind("127.0.0.1:0").await?;
    ///     let stream = compio::net::TcpStream::connect(listener.local_addr()?).await?;
    ///     let mut buffer = arena.allocate()?;
    ///     buffer.put_bytes(7, 65536);
    ///     let sending = registered.send(&stream, buffer.freeze(), SendOptions::new());
    ///     let (result, bytes) = sending.await.into();
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

    /// Sends the bytes of `memory` on a connected socket, all of them, zero-copy where that pays.
    /// Returns their number. [`SendAll`] says what happens if the future is dropped.
    ///
    /// ```
    /// use bytes::BufMut;
    /// use uring_arena::{FixedArena, SendOptions, compio::Registered};
    ///
    /// let arena = FixedArena::new(8, 65536)?;
    /// compio::runtime::Runtime::new()?.block_on(async {
    ///     let registered = Registered::new(&arena)?;
    ///     let listener = compio::net::TcpListener::bind("127.0.0.1:0").await?;
    ///     let stream = compio::net::TcpStream::connect(listener.local_addr()?).await?;
    ///     let mut buffer = arena.allocate()?;
    ///     buffer.put_bytes(7, 65536);
    ///     let sending = registered.send_all(&stream, buffer.freeze(), SendOptions::new());
    ///     let (result, _) = sending.await.into();
    ///     let sent: usize = result?;
    ///     assert_eq!(sent, 65536);
    ///     Ok::<_, Box<dyn std::error::Error>>(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send). If a part was sent, the connection is reset.
    pub fn send_all<M: IoMemory + AsRef<[u8]>, D: AsFd + Clone + Unpin + 'static>(
        &self,
        socket: &D,
        memory: M,
        options: SendOptions,
    ) -> SendAll<M> {
        SendAll::new(&self.guard, socket, memory, options, Rc::downgrade(&self.pieces))
    }

    /// Unregisters the arena. [`with`](Self::with) has an example.
    ///
    /// # Errors
    ///
    /// [`AttachError::NotInRuntime`] outside the runtime that the arena was registered with;
    /// [`AttachError::Register`] if the kernel refuses.
    pub fn unregister(self) -> Result<(), AttachError> {
        if !self.guard.is_here() {
            return Err(self.guard.absence());
        }
        let Some(pieces) = Rc::into_inner(self.pieces) else {
            unreachable!("a send keeps it while it makes an operation only");
        };
        Ok(pieces.unregister(&*self.guard)?)
    }

    fn submit<M: IoMemory, D: AsFd + Clone + 'static>(
        &self,
        descriptor: &D,
        build: impl FnOnce(Descriptor) -> (io_uring::squeue::Entry, crate::uring::Operation<M>),
    ) -> Submitted<M, D> {
        let descriptor = descriptor.clone();
        let number = Descriptor::Fd(descriptor.as_fd().as_raw_fd());
        Submitted::new(&self.guard, descriptor, build(number))
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("pieces", &self.pieces).finish_non_exhaustive()
    }
}
