//! Files of an example's own.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::mistake;

/// A file without a name, which goes with its last descriptor.
///
/// So nothing stays behind, however the program ends: by its end, a panic, Ctrl-C or SIGKILL.
pub struct UnnamedFile(File);

impl UnnamedFile {
    /// Makes the file on the file system of `folder`.
    pub fn new_in(folder: &Path) -> io::Result<UnnamedFile> {
        let unnamed = File::options()
            .read(true)
            .write(true)
            .custom_flags(OFlags::TMPFILE.bits() as i32)
            .open(folder);
        match unnamed {
            Ok(file) => Ok(UnnamedFile(file)),
            // A file system that makes no files without a name: the name is removed at once.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Unsupported | io::ErrorKind::IsADirectory
                ) =>
            {
                let path = folder.join(format!(".uring-arena-{}.tmp", std::process::id()));
                let file = File::options().read(true).write(true).create_new(true).open(&path)?;
                std::fs::remove_file(&path)?;
                Ok(UnnamedFile(file))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a file with `content` in the folder for temporary files.
    pub fn temporary(content: &[u8]) -> Result<UnnamedFile, Box<dyn Error>> {
        let folder = std::env::temp_dir();
        let made = UnnamedFile::new_in(&folder).and_then(|made| {
            io::Write::write_all(&mut &made.0, content)?;
            Ok(made)
        });
        made.map_err(|error| {
            mistake(format!(
                "{}: no temporary file can be made: {error}; set TMPDIR to a folder with room",
                folder.display()
            ))
        })
    }

    /// Returns the file, whose offset is behind what was written last.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Returns a path that opens the file anew while this value lives.
    pub fn path(&self) -> PathBuf {
        path_of(&self.0)
    }

    /// Reserves room on the disk for `bytes` bytes.
    ///
    /// Returns an error if the disk has less. A file system that cannot reserve says nothing.
    pub fn reserve(&self, bytes: u64) -> io::Result<()> {
        reserve(&self.0, bytes)
    }
}

/// Reserves room on the disk for the first `bytes` bytes of a file.
///
/// Returns an error if the disk has less. A file system that cannot reserve says nothing.
pub fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::io::Errno;

    if bytes == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Err(error @ (Errno::NOSPC | Errno::FBIG | Errno::DQUOT)) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Returns a path that opens an open file anew, with flags and an offset of its own.
pub fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
