//! The systems that read, one file each.

mod aligned;
mod bare;
mod compio;
mod glommio;
mod monoio;
mod ours;
mod ours_tokio_uring;
mod tokio;
mod tokio_uring;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::report::OURS;

use super::plan::Load;

/// Reads so many blocks, always `depth` of them in flight.
pub trait Reader {
    fn read(&mut self, times: u64) -> io::Result<()>;
}

/// One line of the tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum System {
    Ours,
    OursTokioUring,
    Bare,
    TokioUring,
    Glommio,
    Compio,
    Monoio,
    Tokio,
}

impl System {
    pub const ALL: [Self; 8] = [
        Self::Ours,
        Self::OursTokioUring,
        Self::Bare,
        Self::TokioUring,
        Self::Glommio,
        Self::Compio,
        Self::Monoio,
        Self::Tokio,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => OURS,
            Self::OursTokioUring => "uring-arena on tokio-uring",
            Self::Bare => "bare io_uring",
            Self::TokioUring => "tokio-uring read_fixed_at",
            Self::Glommio => "glommio read_at_aligned",
            Self::Compio => "compio read_at",
            Self::Monoio => "monoio read_at",
            Self::Tokio => "tokio spawn_blocking",
        }
    }

    pub fn note(self) -> &'static str {
        match self {
            Self::Ours => {
                "`RegisteredArena` and `InFlight` on an own ring; a new slot per read, frozen and dropped"
            }
            Self::OursTokioUring => "`Registered` on its runtime; a new slot per read, frozen and dropped",
            Self::Bare => "READ_FIXED, registered file, DEFER_TASKRUN; hands nothing out",
            Self::TokioUring => "a `FixedBuf` per read in flight, used again in place",
            Self::Glommio => "its own registered region; the result stays on the thread",
            Self::Compio => "DEFER_TASKRUN; an aligned buffer per read in flight, used again in place",
            Self::Monoio => "an aligned buffer per read in flight, used again in place",
            Self::Tokio => "`pread` on the pool of blocking threads",
        }
    }

    pub fn key(self) -> String {
        format!("{self:?}")
    }

    pub fn parse(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|system| system.key() == key)
    }

    pub fn start(self, path: &Path, load: Load) -> io::Result<Box<dyn Reader>> {
        Ok(match self {
            Self::Ours => Box::new(ours::Ours::start(path, load)?),
            Self::OursTokioUring => Box::new(ours_tokio_uring::OursTokioUring::start(path, load)?),
            Self::Bare => Box::new(bare::Bare::start(path, load)?),
            Self::TokioUring => Box::new(tokio_uring::TokioUring::start(path, load)?),
            Self::Glommio => Box::new(glommio::Glommio::start(path, load)?),
            Self::Compio => Box::new(compio::Compio::start(path, load)?),
            Self::Monoio => Box::new(monoio::Monoio::start(path, load)?),
            Self::Tokio => Box::new(tokio::Tokio::start(path, load)?),
        })
    }
}

/// The file past the page cache, and its length.
fn open_direct(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// A read shorter than asked would make the work smaller.
fn whole(length: usize, load: Load) -> io::Result<()> {
    if length == load.block_bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
