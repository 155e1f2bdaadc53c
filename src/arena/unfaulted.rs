//! An arena whose pages are not present yet.

use std::fmt;

use super::FixedArena;
use crate::buffer::Buffer;
use crate::error::AllocError;

/// An arena whose pages have not been touched yet, so that the thread that does decides where they
/// lie (NUMA first touch).
///
/// ```
/// use std::num::NonZeroUsize;
/// use uring_arena::FixedArena;
///
/// let (count, bytes) = (NonZeroUsize::new(16).unwrap(), NonZeroUsize::new(4096).unwrap());
/// let unfaulted = FixedArena::with_slot_capacity(count, bytes).build_unfaulted()?;
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
    fault: fn(&A, usize),
    page_bytes: Option<usize>,
}

impl<A> Unfaulted<A> {
    pub(super) fn new(arena: A, page_bytes: Option<usize>, fault: fn(&A, usize)) -> Unfaulted<A> {
        Unfaulted { arena, fault, page_bytes }
    }

    /// Touches every page, the last one included, from this thread. Does nothing for
    /// [`PageSize::Unknown`](crate::PageSize::Unknown).
    pub fn fault_pages(self) -> A {
        if let Some(page_bytes) = self.page_bytes {
            (self.fault)(&self.arena, page_bytes);
        }
        self.arena
    }

    /// The arena as it is; each page comes on first use.
    pub fn into_inner(self) -> A {
        self.arena
    }
}

impl Unfaulted<FixedArena> {
    /// The arena as it is, and its first buffer.
    ///
    /// # Errors
    ///
    /// None in practice: a new arena has a free slot. The type is that of [`FixedArena::allocate`].
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
