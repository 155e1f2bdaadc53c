//! Page sizes, for touching memory before it is needed.

use std::num::NonZeroUsize;

/// How the pages of an arena are made present when it is built.
///
/// ```
/// use std::num::NonZeroUsize;
/// use uring_arena::{FixedArena, PageSize};
///
/// let (count, bytes) = (NonZeroUsize::new(16).unwrap(), NonZeroUsize::new(4096).unwrap());
/// // Touch nothing now; the kernel brings each page in on first use.
/// let arena = FixedArena::with_slot_capacity(count, bytes)
///     .page_size(PageSize::Unknown)
///     .build()?;
/// # drop(arena);
/// # Ok::<(), uring_arena::BuildError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PageSize {
    /// No page is touched when the arena is built.
    Unknown,
    /// The system's page size (`sysconf(_SC_PAGESIZE)`), in one kernel call where there is one
    /// (`MADV_POPULATE_WRITE`, Linux 5.14). The default.
    #[default]
    Auto,
    /// Pages of this many bytes.
    Size(NonZeroUsize),
}

impl PageSize {
    /// Bytes between two touches, or `None` for no touching.
    pub(crate) fn bytes(self) -> Option<usize> {
        match self {
            PageSize::Unknown => None,
            PageSize::Auto => Some(system_page_bytes()),
            PageSize::Size(bytes) => Some(bytes.get()),
        }
    }
}

/// The size of an ordinary page in bytes.
#[cfg(target_os = "linux")]
pub(crate) fn system_page_bytes() -> usize {
    super::mapping::system_page_bytes()
}

/// The size of an ordinary page in bytes: the smallest in use anywhere.
#[cfg(not(target_os = "linux"))]
pub(crate) fn system_page_bytes() -> usize {
    4096
}
