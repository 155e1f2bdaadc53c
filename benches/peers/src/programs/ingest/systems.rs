//! The programs that ingest, each with a file that grows and with one whose room is reserved.

use std::error::Error;
use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::report::OURS;

use super::{ours, tokio};

/// Brings so many bytes from the socket into a new file.
pub trait Ingest {
    fn ingest(
        &mut self,
        socket: TcpStream,
        path: &Path,
        bytes: usize,
    ) -> Result<(), Box<dyn Error>>;

    /// Buffers that were registered meanwhile.
    fn registered(&self) -> f64 {
        0.0
    }
}

/// Whether the file's blocks are there beforehand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Room {
    Reserved,
    Growing,
}

impl Room {
    /// A write that grows a file takes the inode's lock alone, and io_uring's workers spin for it.
    pub fn make(self, file: &File, bytes: usize) -> io::Result<()> {
        if self == Self::Growing {
            return Ok(());
        }
        // SAFETY: plain numbers, and a descriptor that is open.
        match unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes as libc::off_t) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// One line of the tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum System {
    Ours,
    OursGrowing,
    Tokio,
    TokioReserved,
}

impl System {
    pub const ALL: [Self; 4] = [Self::Ours, Self::OursGrowing, Self::Tokio, Self::TokioReserved];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => OURS,
            Self::OursGrowing => "uring-arena, file grows",
            Self::Tokio => "tokio + tokio::fs",
            Self::TokioReserved => "tokio + tokio::fs, room reserved",
        }
    }

    pub fn note(self) -> &'static str {
        match self {
            Self::Ours => "`Driver`, registered slots, `O_DIRECT`, room reserved by `fallocate`",
            Self::OursGrowing => "the same without `fallocate`",
            Self::Tokio => {
                "current-thread runtime, `read_buf` into `BytesMut`, `write_all`; page cache"
            }
            Self::TokioReserved => "the same after `fallocate`",
        }
    }

    pub fn key(self) -> String {
        format!("{self:?}")
    }

    pub fn parse(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|system| system.key() == key)
    }

    pub fn start(self) -> io::Result<Box<dyn Ingest>> {
        Ok(match self {
            Self::Ours => Box::new(ours::Ours::new(Room::Reserved)?),
            Self::OursGrowing => Box::new(ours::Ours::new(Room::Growing)?),
            Self::Tokio => Box::new(tokio::Tokio::new(Room::Growing)?),
            Self::TokioReserved => Box::new(tokio::Tokio::new(Room::Reserved)?),
        })
    }
}
