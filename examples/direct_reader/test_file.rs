//! A file of random bytes, which is removed when it is dropped.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::support::{self, mistake};

pub struct TestFile {
    path: PathBuf,
}

impl TestFile {
    /// Makes a file of `len` bytes in the current directory.
    pub fn make(len: u64) -> Result<TestFile, Box<dyn Error>> {
        let name = format!("direct_reader-{}.tmp", std::process::id());
        let path = std::env::current_dir()?.join(name);
        let file = File::create_new(&path).map_err(|error| {
            mistake(format!("{}: {error}; name a FILE to read instead", path.display()))
        })?;
        let made = TestFile { path };
        fill(file, len).map_err(|error| {
            mistake(format!("{}: {error}; ask for less by --bytes", made.path.display()))
        })?;
        Ok(made)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn fill(mut file: File, len: u64) -> std::io::Result<()> {
    let bar = support::progress(len);
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut block = vec![0; 1 << 20];
    let mut left = len;
    while left > 0 {
        support::fill_random(&mut state, &mut block);
        let part = left.min(block.len() as u64);
        file.write_all(&block[..part as usize])?;
        left -= part;
        bar.inc(part);
    }
    bar.finish_and_clear();
    file.sync_all()
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
