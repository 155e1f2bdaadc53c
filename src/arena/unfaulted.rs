//! An arena whose pages are not present yet.

use std::fmt;

use super::builder::AllocError;
use super::fixed::FixedArena;
use crate::buffer::Buffer;
use crate::lease::Handle;
use crate::region::PageSize;

/// An arena whose pages nothing has touched yet.
///
/// The thread that touches them decides about the NUMA node that they lie on (first touch).
///
/// ```
/// use uring_arena::FixedArena;
///
/// let unfaulted = FixedArena::with_sizes(16, 4096).build_unfaulted()?;
/// let arena = std::thread::spawn(move || {
///     // Pin this thread to the node that shall hold the memory, then:
///     unfaulted.fault_pages()
/// })
/// .join()
/// .unwrap();
/// # drop(arena);
/// # Ok::<(), uring_arena::BuildError>(())
/// ```
pub struct Unfaulted<A> {
    arena: A,
    handle: Handle,
    page_size: PageSize,
}

impl<A> Unfaulted<A> {
    pub(super) fn new(
        (handle, page_size): (Handle, PageSize),
        arena: impl FnOnce(Handle) -> A,
    ) -> Unfaulted<A> {
        Unfaulted { arena: arena(handle.clone()), handle, page_size }
    }

    /// Touches every page, the last one included, from this thread, and returns the arena.
    ///
    /// Touches nothing if the arena was built with [`PageSize::Unknown`], or over memory of the
    /// caller. The example of [`Unfaulted`] shows it.
    pub fn fault_pages(self) -> A {
        self.handle.region.fault_pages(self.page_size);
        self.arena
    }

    /// Returns the arena as it is; each page comes on first use.
    ///
    /// ```
    /// use uring_arena::FixedArena;
    ///
    /// let arena = FixedArena::with_sizes(16, 4096).build_unfaulted()?.into_inner();
    /// assert_eq!(arena.slot_count(), 16);
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn into_inner(self) -> A {
        self.arena
    }
}

impl Unfaulted<FixedArena> {
    /// Returns the arena as it is, with its first buffer.
    ///
    /// # Errors
    ///
    /// None in practice: a new arena has a free slot. The type is that of [`FixedArena::allocate`].
    ///
    /// ```
    /// use uring_arena::FixedArena;
    ///
    /// let (arena, buffer) = FixedArena::with_sizes(2, 4096).build_unfaulted()?.allocate()?;
    /// assert_eq!((arena.slot_states().free, buffer.capacity()), (1, 4096));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn allocate(self) -> Result<(FixedArena, Buffer), AllocError> {
        let arena = self.into_inner();
        let buffer = arena.allocate()?;
        Ok((arena, buffer))
    }
}

impl<A: fmt::Debug> fmt::Debug for Unfaulted<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unfaulted").field(&self.arena).finish()
    }
}
