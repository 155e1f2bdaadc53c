//! What is read: a file, and places in it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use uring_arena::DirectFile;

pub const DEPTH: usize = 32;
pub const BLOCK_BYTES: usize = 4096;

/// A file of whole blocks, which goes when this does.
pub struct TestFile {
    path: PathBuf,
    blocks: u64,
}

impl TestFile {
    pub fn make(bytes: u64) -> io::Result<TestFile> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let made = TestFile {
            path: folder.join(format!("disk-{}", std::process::id())),
            blocks: bytes / BLOCK_BYTES as u64,
        };
        let mut file = File::create(&made.path)?;
        let block: Vec<u8> =
            (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for _ in 0..bytes >> 20 {
            file.write_all(&block)?;
        }
        file.sync_all()?;
        Ok(made)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn open(&self) -> io::Result<File> {
        DirectFile::open(&self.path).map(DirectFile::into_file)
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Offsets of blocks, at random: the same ones for the same seed.
pub struct Places {
    state: u64,
    blocks: u64,
    left: u64,
}

impl Places {
    pub fn new(file: &TestFile, reads: u64, seed: u64) -> Places {
        Places { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, blocks: file.blocks, left: reads }
    }
}

impl Iterator for Places {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        Some((self.state >> 16) % self.blocks * BLOCK_BYTES as u64)
    }
}

/// A read that came short is not a read.
#[inline]
pub fn whole(result: io::Result<usize>) -> io::Result<()> {
    match result? {
        BLOCK_BYTES => Ok(()),
        read => Err(io::Error::other(format!("read {read} bytes of {BLOCK_BYTES}"))),
    }
}
