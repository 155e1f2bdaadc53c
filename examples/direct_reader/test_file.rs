//! A file of random bytes without a name.

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;

use crate::support::{self, UnnamedFile, exact_bytes, mistake};

/// Makes a file of `len` bytes on the file system of the current folder.
pub fn make(len: u64) -> Result<UnnamedFile, Box<dyn Error>> {
    let made = UnnamedFile::new_in(Path::new(".")).map_err(|error| {
        mistake(format!("no file can be made here: {error}; name a FILE to read instead"))
    })?;
    made.reserve(len).and_then(|()| fill(&made, len)).map_err(|error| {
        mistake(format!("no room for {}: {error}; use a lower --bytes", exact_bytes(len)))
    })?;
    Ok(made)
}

fn fill(made: &UnnamedFile, len: u64) -> io::Result<()> {
    let bar = support::progress(len);
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut block = vec![0; 1 << 20];
    let mut left = len;
    while left > 0 {
        support::fill_random(&mut state, &mut block);
        let part = left.min(block.len() as u64);
        made.file().write_all(&block[..part as usize])?;
        left -= part;
        bar.inc(part);
    }
    bar.finish_and_clear();
    made.file().sync_all()
}
