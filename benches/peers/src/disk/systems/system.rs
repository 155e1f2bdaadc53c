//! The list of systems: what each is called, how it is set up, and which file does it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::disk::plan::Load;
use crate::harness::Effort;
use crate::report::OURS;

use super::{
    bare, compio, glommio, monoio, ours, ours_driver, ours_tokio_uring, tokio, tokio_uring,
};

/// How a peer's runtime is set up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Settings {
    /// The best that its documentation names.
    Best,
    /// As it comes.
    Default,
}

/// Reads so many blocks, always `depth` of them in flight.
pub trait Reader {
    fn read(&mut self, times: u64) -> io::Result<()>;
}

/// One line of the tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum System {
    Ours,
    OursDriver,
    OursTokioUring,
    Bare,
    TokioUring,
    TokioUringDefault,
    Glommio,
    GlommioDefault,
    Compio,
    CompioDefault,
    Monoio,
    MonoioDefault,
    Tokio,
}

impl System {
    pub const ALL: [Self; 13] = [
        Self::Ours,
        Self::OursDriver,
        Self::OursTokioUring,
        Self::Bare,
        Self::TokioUring,
        Self::TokioUringDefault,
        Self::Glommio,
        Self::GlommioDefault,
        Self::Compio,
        Self::CompioDefault,
        Self::Monoio,
        Self::MonoioDefault,
        Self::Tokio,
    ];

    /// Under `--quick` only what has no better line.
    pub fn measured_with(effort: Effort) -> Vec<Self> {
        let defaults = [
            Self::TokioUringDefault,
            Self::GlommioDefault,
            Self::CompioDefault,
            Self::MonoioDefault,
        ];
        let is_wanted = |system: &Self| !(effort.quick && defaults.contains(system));
        Self::ALL.into_iter().filter(is_wanted).collect()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => OURS,
            Self::OursDriver => "uring-arena, Driver",
            Self::OursTokioUring => "uring-arena on tokio-uring",
            Self::Bare => "bare io_uring",
            Self::TokioUring => "tokio-uring read_fixed_at",
            Self::TokioUringDefault => "tokio-uring read_fixed_at, defaults",
            Self::Glommio => "glommio read_at_aligned",
            Self::GlommioDefault => "glommio read_at_aligned, defaults",
            Self::Compio => "compio read_at",
            Self::CompioDefault => "compio read_at, defaults",
            Self::Monoio => "monoio read_at",
            Self::MonoioDefault => "monoio read_at, defaults",
            Self::Tokio => "tokio spawn_blocking",
        }
    }

    pub fn note(self) -> &'static str {
        match self {
            Self::Ours => {
                "`RegisteredArena` and `InFlight` on an own ring; a new slot per read, frozen and dropped"
            }
            Self::OursDriver => "`Driver`, safe code only; a new slot per read, frozen and dropped",
            Self::OursTokioUring => {
                "`Registered` on its runtime; a new slot per read, frozen and dropped"
            }
            Self::Bare => "READ_FIXED, registered file, DEFER_TASKRUN; hands nothing out",
            Self::TokioUring => "a `FixedBuf` per read in flight, used again in place",
            Self::Glommio => "its own registered region; the result stays on the thread",
            Self::Compio => {
                "DEFER_TASKRUN; an aligned buffer per read in flight, used again in place"
            }
            Self::Monoio => "an aligned buffer per read in flight, used again in place",
            Self::TokioUringDefault
            | Self::GlommioDefault
            | Self::CompioDefault
            | Self::MonoioDefault => "the same with the runtime as its `new` or `default` makes it",
            Self::Tokio => "`pread` on the pool of blocking threads, all on the same core",
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
            Self::OursDriver => Box::new(ours_driver::OursDriver::start(path, load)?),
            Self::OursTokioUring => Box::new(ours_tokio_uring::OursTokioUring::start(path, load)?),
            Self::Bare => Box::new(bare::Bare::start(path, load)?),
            Self::TokioUring => {
                Box::new(tokio_uring::TokioUring::start(path, load, Settings::Best)?)
            }
            Self::TokioUringDefault => {
                Box::new(tokio_uring::TokioUring::start(path, load, Settings::Default)?)
            }
            Self::Glommio => Box::new(glommio::Glommio::start(path, load, Settings::Best)?),
            Self::GlommioDefault => {
                Box::new(glommio::Glommio::start(path, load, Settings::Default)?)
            }
            Self::Compio => Box::new(compio::Compio::start(path, load, Settings::Best)?),
            Self::CompioDefault => Box::new(compio::Compio::start(path, load, Settings::Default)?),
            Self::Monoio => Box::new(monoio::Monoio::start(path, load, Settings::Best)?),
            Self::MonoioDefault => Box::new(monoio::Monoio::start(path, load, Settings::Default)?),
            Self::Tokio => Box::new(tokio::Tokio::start(path, load)?),
        })
    }
}

/// The file past the page cache, and its length.
pub fn open_direct(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// A read shorter than asked would make the work smaller.
pub fn whole(length: usize, load: Load) -> io::Result<()> {
    if length == load.block_bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
