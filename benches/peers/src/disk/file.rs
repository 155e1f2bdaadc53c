//! The file that is read: made beside the build, removed at the end.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const PREFIX: &str = "peers-";
const SUFFIX: &str = ".data";

/// Removed when dropped.
pub struct TestFile {
    path: PathBuf,
    bytes: u64,
}

impl TestFile {
    /// Written, not only reserved: reading what was never written does not reach the disk.
    pub fn create(folder: &Path, bytes: u64) -> io::Result<Self> {
        remove_abandoned(folder)?;
        let path = folder.join(format!("{PREFIX}{}{SUFFIX}", std::process::id()));
        let file = Self { path, bytes };
        let mut target = File::create(&file.path)?;
        let mut chunk = vec![0_u8; 1 << 20];
        for index in 0..bytes >> 20 {
            chunk.iter_mut().zip(index as u8..=255).for_each(|(byte, value)| *byte = value);
            target.write_all(&chunk)?;
        }
        target.sync_all()?;
        Ok(file)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size and filesystem; no path.
    pub fn describe(&self) -> String {
        format!("The file has {} MiB and lies on {}.", self.bytes >> 20, self.filesystem())
    }

    fn filesystem(&self) -> String {
        // SAFETY: integers only: all zeros is a value.
        let mut status: libc::statfs = unsafe { std::mem::zeroed() };
        let Ok(path) = std::ffi::CString::new(self.path.as_os_str().as_bytes()) else {
            return "an unknown filesystem".into();
        };
        // SAFETY: the string ends in a zero, the other pointer is to a live value of the right
        // type.
        unsafe { libc::statfs(path.as_ptr(), &mut status) };
        match status.f_type {
            0xEF53 => "ext4".into(),
            0x5846_5342 => "xfs".into(),
            0x9123_683E => "btrfs".into(),
            0x0102_1994 => "tmpfs".into(),
            other => format!("a filesystem of type {other:#x}"),
        }
    }
}

/// Removes the files of runs that were ended before they could do so themselves.
fn remove_abandoned(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
        let Some(Ok(process)) = process.map(str::parse::<u32>) else { continue };
        if !Path::new("/proc").join(process.to_string()).exists() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

impl Drop for TestFile {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}
