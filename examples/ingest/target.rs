//! The file that is written.

use std::error::Error;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use uring_arena::DirectFile;

use crate::options::Options;
use crate::support::{self, UnnamedFile, exact_bytes, mistake};

/// The file that is to be written, which is neither made nor emptied yet.
pub struct Target {
    /// The path. `None` for a file without a name.
    path: Option<PathBuf>,
    /// The file, unless it is made when a sender has come.
    file: Option<File>,
    buffered: bool,
}

impl Target {
    /// Checks that the file can be made and written.
    pub fn check(options: &Options) -> Result<Target, Box<dyn Error>> {
        let path = options.file.clone();
        let mut target = Target { path, file: None, buffered: options.buffered };
        let mut how = File::options();
        how.read(true).write(true);
        let Some(path) = &target.path else {
            target.file = Some(target.open_at(&unnamed_in(Path::new("."))?.path(), &how)?);
            return Ok(target);
        };
        let is_there = path.symlink_metadata().is_ok();
        if is_there && !options.force {
            return Err(exists(path));
        }
        if is_there {
            if !path.metadata().is_ok_and(|found| found.is_file()) {
                let path = path.display();
                return Err(mistake(format!("{path}: not a regular file; name another")));
            }
            target.file = Some(target.open_at(path, &how)?);
        } else {
            let folder = path.parent().filter(|folder| *folder != Path::new(""));
            let unnamed = unnamed_in(folder.unwrap_or(Path::new(".")))?;
            target.open_at(&unnamed.path(), &how)?;
        }
        Ok(target)
    }

    /// Makes the file, or empties the one that is replaced.
    pub fn open(&mut self) -> Result<File, Box<dyn Error>> {
        let file = match (self.file.take(), &self.path) {
            (None, Some(path)) => {
                self.open_at(path, File::options().read(true).write(true).create_new(true))?
            }
            (file, _) => file.ok_or_else(|| mistake("the file is open already"))?,
        };
        file.set_len(0)?;
        Ok(file)
    }

    fn open_at(&self, path: &Path, how: &std::fs::OpenOptions) -> Result<File, Box<dyn Error>> {
        let opened = match self.buffered {
            true => how.open(path),
            false => DirectFile::open_with(how, path).map(DirectFile::into_file),
        };
        opened.map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported => {
                mistake("this file system refuses O_DIRECT: add --buffered, or name another FILE")
            }
            io::ErrorKind::AlreadyExists => exists(path),
            _ => mistake(format!("{}: {error}", path.display())),
        })
    }

    /// Reserves room for `bytes` bytes.
    pub fn reserve(&self, file: &File, bytes: u64) -> Result<(), Box<dyn Error>> {
        support::reserve(file, bytes).map_err(|error| {
            let left = self.left_behind(0);
            mistake(format!(
                "no room for {}: {error}; use a lower --bytes; {left}",
                exact_bytes(bytes)
            ))
        })
    }

    /// Says what a failure leaves behind.
    pub fn left_behind(&self, len: u64) -> String {
        match &self.path {
            None => "nothing is left behind".into(),
            Some(path) => format!(
                "{} is left behind, with the first {} of the stream",
                path.display(),
                exact_bytes(len)
            ),
        }
    }
}

fn unnamed_in(folder: &Path) -> Result<UnnamedFile, Box<dyn Error>> {
    UnnamedFile::new_in(folder).map_err(|error| {
        mistake(format!(
            "{}: no file can be made here: {error}; name a FILE in a folder that can be written",
            folder.display()
        ))
    })
}

fn exists(path: &Path) -> Box<dyn Error> {
    let path = path.display();
    mistake(format!("{path}: there is such a file; add --force to replace it, or name another"))
}
