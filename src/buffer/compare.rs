//! Equality, order, hash and printing of `ArenaBytes`: by content, like those of `Bytes`.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use super::arena_bytes::ArenaBytes;

impl PartialEq for ArenaBytes {
    fn eq(&self, other: &ArenaBytes) -> bool {
        self[..] == other[..]
    }
}

impl Eq for ArenaBytes {}

impl PartialOrd for ArenaBytes {
    fn partial_cmp(&self, other: &ArenaBytes) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ArenaBytes {
    fn cmp(&self, other: &ArenaBytes) -> Ordering {
        self[..].cmp(&other[..])
    }
}

impl Hash for ArenaBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

impl Borrow<[u8]> for ArenaBytes {
    fn borrow(&self) -> &[u8] {
        self
    }
}

/// Implements equality with other kinds of bytes, both ways round.
macro_rules! equal_to {
    ($($other:ty),+ $(,)?) => {$(
        impl PartialEq<$other> for ArenaBytes {
            fn eq(&self, other: &$other) -> bool {
                let other: &[u8] = other.as_ref();
                self[..] == *other
            }
        }

        impl PartialEq<ArenaBytes> for $other {
            fn eq(&self, other: &ArenaBytes) -> bool {
                other == self
            }
        }
    )+};
}

equal_to!([u8], str, Vec<u8>, String, Bytes, &[u8], &str);

impl std::fmt::Debug for ArenaBytes {
    /// Prints a byte string: `b"key=\x00"`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}
