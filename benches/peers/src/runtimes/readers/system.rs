//! The list of systems, and what all of them are.

use std::io;
use std::path::Path;

use super::{compio, tokio_uring};

pub const READ_BYTES: usize = 4096;

/// Reads so many blocks from the start of its file.
pub trait Reader {
    fn read(&mut self, blocks: usize) -> io::Result<()>;
}

/// One line of the tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum System {
    OursTokioUring,
    TokioUring,
    OursCompio,
    Compio,
}

impl System {
    /// Ours, and the runtime's own.
    pub const PAIRS: [[Self; 2]; 2] =
        [[Self::OursTokioUring, Self::TokioUring], [Self::OursCompio, Self::Compio]];

    pub fn name(self) -> &'static str {
        match self {
            Self::OursTokioUring => "uring-arena on tokio-uring",
            Self::TokioUring => "tokio-uring read_at",
            Self::OursCompio => "uring-arena on compio",
            Self::Compio => "compio read_at",
        }
    }

    pub fn note(self) -> &'static str {
        match self {
            Self::OursTokioUring | Self::OursCompio => {
                "`Registered`; a new slot per read, frozen to `Bytes` and dropped"
            }
            Self::TokioUring | Self::Compio => {
                "one `Vec`, used again in place; default settings on both sides"
            }
        }
    }

    /// The key of the table that it is in.
    pub fn table(self) -> &'static str {
        match self {
            Self::OursTokioUring | Self::TokioUring => "reads-tokio-uring",
            Self::OursCompio | Self::Compio => "reads-compio",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::OursTokioUring | Self::TokioUring => {
                "tokio-uring, 4 KiB reads from the page cache"
            }
            Self::OursCompio | Self::Compio => "compio, 4 KiB reads from the page cache",
        }
    }

    pub fn key(self) -> String {
        format!("{self:?}")
    }

    pub fn parse(key: &str) -> Option<Self> {
        Self::PAIRS.into_iter().flatten().find(|system| system.key() == key)
    }

    pub fn start(self, path: &Path) -> io::Result<Box<dyn Reader>> {
        match self {
            Self::OursTokioUring => tokio_uring::ours(path),
            Self::TokioUring => tokio_uring::own(path),
            Self::OursCompio => compio::ours(path),
            Self::Compio => compio::own(path),
        }
    }
}

/// Slots of the same number and size in both runtimes.
pub fn arena() -> io::Result<uring_arena::FixedArena> {
    let nz = |number| std::num::NonZeroUsize::new(number).ok_or(io::ErrorKind::InvalidInput);
    let builder = uring_arena::FixedArena::with_slot_capacity(nz(1024)?, nz(READ_BYTES)?);
    builder.alignment(4096).build().map_err(io::Error::other)
}
