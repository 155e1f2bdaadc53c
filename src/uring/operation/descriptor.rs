//! The file or socket of an operation.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use io_uring::types;

/// The file or socket of an operation: a descriptor of the process, or an index in the ring's table
/// of files.
///
/// The program that pushes the entry keeps the file open until the operation is submitted.
///
/// ```
/// use io_uring::types;
/// use uring_arena::Descriptor;
///
/// let file = std::fs::File::open("/dev/zero")?;
/// assert!(matches!(Descriptor::from(&file), Descriptor::Fd(_)));
/// assert_eq!(Descriptor::from(types::Fixed(3)), Descriptor::Fixed(3));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Descriptor {
    /// A descriptor of the process.
    Fd(RawFd),
    /// An index in the ring's table of files.
    Fixed(u32),
}

impl From<types::Fd> for Descriptor {
    fn from(fd: types::Fd) -> Descriptor {
        Descriptor::Fd(fd.0)
    }
}

impl From<types::Fixed> for Descriptor {
    fn from(fixed: types::Fixed) -> Descriptor {
        Descriptor::Fixed(fixed.0)
    }
}

impl<T: AsFd> From<&T> for Descriptor {
    fn from(file: &T) -> Descriptor {
        Descriptor::Fd(file.as_fd().as_raw_fd())
    }
}

/// Builds an entry for either kind of descriptor.
macro_rules! build {
    ($descriptor:expr, $fd:ident => $opcode:expr) => {
        match $descriptor {
            $crate::uring::operation::descriptor::Descriptor::Fd(fd) => {
                let $fd = io_uring::types::Fd(fd);
                $opcode.build()
            }
            $crate::uring::operation::descriptor::Descriptor::Fixed(index) => {
                let $fd = io_uring::types::Fixed(index);
                $opcode.build()
            }
        }
    };
}
pub(super) use build;
