//! The two shapes in which received bytes leave a ring.

use bytes::Bytes;

use crate::buffer::ArenaBytes;

/// How received bytes are handed out: [`Bytes`], which every library takes, or [`ArenaBytes`],
/// which allocates nothing.
///
/// Sealed: these two are all there are.
pub trait FromSlot: sealed::Sealed + Sized {
    /// The bytes in the slot that they arrived in.
    #[doc(hidden)]
    fn in_slot(bytes: ArenaBytes) -> Self;

    /// A copy on the heap, so that the slot is free at once.
    #[doc(hidden)]
    fn copied(bytes: &[u8]) -> Self;
}

impl FromSlot for Bytes {
    #[inline]
    fn in_slot(bytes: ArenaBytes) -> Bytes {
        bytes.into()
    }

    fn copied(bytes: &[u8]) -> Bytes {
        Bytes::copy_from_slice(bytes)
    }
}

impl FromSlot for ArenaBytes {
    #[inline]
    fn in_slot(bytes: ArenaBytes) -> ArenaBytes {
        bytes
    }

    fn copied(bytes: &[u8]) -> ArenaBytes {
        ArenaBytes::from_vector(bytes.to_vec(), 0)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for bytes::Bytes {}
    impl Sealed for crate::buffer::ArenaBytes {}
}
