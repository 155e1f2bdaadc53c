//! Small file systems of the test's own: full, read-only, or on a device that fails.
//!
//! They are mounted for the test's thread alone, so that nothing stays, however the test ends.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::TestFile;
use super::fuse::keep_mounts_to_this_thread;

/// A mounted file system. Its drop unmounts it.
pub struct Mounted {
    path: PathBuf,
}

impl Mounted {
    /// Mounts memory of `bytes` (tmpfs). Returns `None`, and prints the reason, where that is not
    /// allowed.
    pub fn memory(test: &str, bytes: usize) -> Option<Mounted> {
        Mounted::or_skip(test, || {
            keep_mounts_to_this_thread()?;
            let mounted = Mounted::folder("memory")?;
            let size = format!("size={bytes}");
            run(Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "none"])
                .arg(&mounted.path))?;
            Ok(mounted)
        })
    }

    /// Makes a file system of `bytes` (ext4 without a journal, or with one) in a file of `on`, and
    /// mounts it by a loop device. The file takes no room before the file system is written to.
    pub fn image(test: &str, on: &Mounted, bytes: usize, has_journal: bool) -> Option<Mounted> {
        Mounted::or_skip(test, || {
            let image = on.path.join("image");
            std::fs::File::create(&image)?.set_len(bytes as u64)?;
            let journal = if has_journal { "has_journal" } else { "^has_journal" };
            run(Command::new("mkfs.ext4").args(["-q", "-F", "-O", journal]).arg(&image))?;
            let mounted = Mounted::folder("image")?;
            let options = "loop,errors=remount-ro";
            run(Command::new("mount").args(["-o", options]).args([&image, &mounted.path]))?;
            Ok(mounted)
        })
    }

    fn or_skip(test: &str, mount: impl FnOnce() -> io::Result<Mounted>) -> Option<Mounted> {
        match mount() {
            Ok(mounted) => Some(mounted),
            Err(error) => {
                eprintln!("SKIPPED {test}: no file system of its own ({error})");
                None
            }
        }
    }

    fn folder(name: &str) -> io::Result<Mounted> {
        // The path stays when its `TestFile` is gone; `drop` removes it.
        let path = std::mem::ManuallyDrop::new(TestFile::path(name));
        let path = AsRef::<Path>::as_ref(&*path).to_owned();
        std::fs::create_dir(&path)?;
        Ok(Mounted { path })
    }

    /// Returns the path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes it read-only, which the kernel refuses while a file is open to be written.
    pub fn make_read_only(&self) -> io::Result<()> {
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.path))
    }

    /// Has the file system believe that it is damaged, on which it goes read-only at once.
    pub fn damage(&self) -> io::Result<()> {
        let mounts = std::fs::read_to_string("/proc/thread-self/mounts")?;
        let path = self.path.to_str().expect("a path of ours");
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(path));
        let device = line.and_then(|line| line.split(' ').next()?.strip_prefix("/dev/"));
        let device = device.ok_or(io::ErrorKind::NotFound)?;
        std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let target = CString::new(self.path.to_str().expect("a path of ours")).unwrap();
        // SAFETY: the string is live during the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// Runs a program to its end. Returns what it says if it fails.
fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}
