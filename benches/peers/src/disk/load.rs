//! The load: a file, and the places, sizes and depth of reads in it.

use std::cell::Cell;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::run::Effort;

/// The size of transparent huge pages.
pub const HUGE_PAGE: usize = 2 << 20;

/// A system that reads blocks, always `depth` of them in flight.
pub trait Reader {
    fn read(&mut self, times: u64) -> io::Result<()>;
}

/// The pattern of reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    pub random: bool,
    pub block_bytes: usize,
    pub depth: usize,
}

impl Load {
    /// Returns as many buffers as are in flight, and never less than a huge page in all.
    pub fn buffers(self) -> usize {
        self.depth.max(HUGE_PAGE / self.block_bytes)
    }

    /// Checks that a read was not shorter than asked: that would make the work smaller.
    pub fn whole(self, length: usize) -> io::Result<()> {
        match length == self.block_bytes {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A source of places in the file, scattered evenly, or one after the other and round again.
pub struct Places {
    blocks: u64,
    load: Load,
    state: Cell<u64>,
    left: Cell<u64>,
}

impl Places {
    pub fn new(file_bytes: u64, load: Load) -> Self {
        let state = Cell::new(if load.random { 0x9E37_79B9_7F4A_7C15 } else { 0 });
        Self { blocks: file_bytes / load.block_bytes as u64, load, state, left: Cell::new(0) }
    }

    /// Allows so many more to be taken.
    pub fn allow(&self, reads: u64) {
        self.left.set(reads);
    }

    #[inline]
    pub fn next(&self) -> Option<u64> {
        self.left.set(self.left.get().checked_sub(1)?);
        let mut state = self.state.get();
        if self.load.random {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
        } else {
            state += 1;
        }
        self.state.set(state);
        Some(state % self.blocks * self.load.block_bytes as u64)
    }
}

pub fn file(scratch: &Path) -> PathBuf {
    scratch.join("reads")
}

/// Opens the file past the page cache; returns its length too.
pub fn open_direct(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// Writes the file, not only reserves it: reading what was never written does not reach the disk.
pub fn write_file(scratch: &Path, effort: Effort) -> io::Result<Vec<String>> {
    let (path, mebibytes) = (file(scratch), effort.choose(256, 1024));
    let mut target = File::create(&path)?;
    let mut chunk = vec![0_u8; 1 << 20];
    for index in 0..mebibytes {
        chunk.iter_mut().zip(index as u8..=255).for_each(|(byte, value)| *byte = value);
        target.write_all(&chunk)?;
    }
    target.sync_all()?;
    Ok(vec![format!("The file has {mebibytes} MiB and lies on {}.", filesystem(&path))])
}

fn filesystem(path: &Path) -> String {
    // SAFETY: integers only: all zeros is a value.
    let mut status: libc::statfs = unsafe { std::mem::zeroed() };
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return "an unknown filesystem".into();
    };
    // SAFETY: the string ends in a zero, the other pointer is to a live value of the right type.
    unsafe { libc::statfs(path.as_ptr(), &mut status) };
    match status.f_type {
        0xEF53 => "ext4".into(),
        0x5846_5342 => "xfs".into(),
        0x9123_683E => "btrfs".into(),
        0x0102_1994 => "tmpfs".into(),
        other => format!("a filesystem of type {other:#x}"),
    }
}
