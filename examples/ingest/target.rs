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
    /// The path, and whether a file there is replaced. `None` for a file without a name.
    path: Option<(PathBuf, bool)>,
    /// A file on the same file system.
    unnamed: UnnamedFile,
    buffered: bool,
}

impl Target {
    /// Checks that the file can be made and written.
    pub fn check(options: &Options) -> Result<Target, Box<dyn Error>> {
        let path = options.file.clone().map(|path| (path, options.force));
        if let Some((path, replaces)) = &path {
            match path.symlink_metadata() {
                Ok(_) if !replaces => return Err(exists(path)),
                Ok(_) if !path.metadata().is_ok_and(|found| found.is_file()) => {
                    let path = path.display();
                    return Err(mistake(format!("{path}: not a regular file; name another")));
                }
                _ => {}
            }
        }
        let folder = match path.as_ref().and_then(|(path, _)| path.parent()) {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let unnamed = UnnamedFile::new_in(folder).map_err(|error| {
            mistake(format!(
                "{}: no file can be made here: {error}; name a FILE in a folder that can be written",
                folder.display()
            ))
        })?;
        let target = Target { path, unnamed, buffered: options.buffered };
        target.open_at(&target.unnamed.path(), File::options().read(true).write(true))?;
        Ok(target)
    }

    /// Makes the file, or empties the one that is replaced.
    pub fn open(&self) -> Result<File, Box<dyn Error>> {
        let mut how = File::options();
        how.read(true).write(true);
        let file = match &self.path {
            None => self.open_at(&self.unnamed.path(), &how)?,
            Some((path, false)) => self.open_at(path, how.create_new(true))?,
            Some((path, true)) => self.open_at(path, how.create(true))?,
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
            Some((path, _)) => format!(
                "{} is left behind, with the first {} of the stream",
                path.display(),
                exact_bytes(len)
            ),
        }
    }
}

fn exists(path: &Path) -> Box<dyn Error> {
    let path = path.display();
    mistake(format!("{path}: there is such a file; add --force to replace it, or name another"))
}
