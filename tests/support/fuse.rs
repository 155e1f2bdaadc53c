//! A file of our own file system: it answers reads and writes when the test says so, and no cancel
//! ends them before.
//!
//! The server is a child process with an alarm. A thread that waits for an answer cannot be killed;
//! when the server ends, however it does, the kernel ends the wait.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{TIMEOUT, TestFile};

// Of linux/fuse.h.
const FUSE_GETATTR: u32 = 3;
const FUSE_OPEN: u32 = 14;
const FUSE_READ: u32 = 15;
const FUSE_WRITE: u32 = 16;
const FUSE_RELEASE: u32 = 18;
const FUSE_FLUSH: u32 = 25;
const FUSE_INIT: u32 = 26;
const FUSE_INTERRUPT: u32 = 36;

/// Bytes of a request's header.
const HEADER_BYTES: usize = 40;

/// The command that asks for the number of requests that wait.
const COUNT: u8 = 0;

/// The command that has them answered.
const ANSWER: u8 = 1;

/// A request that was not answered yet.
struct Pending {
    number: u64,
    is_read: bool,
    bytes: u32,
}

/// A mounted file. Dropping it ends the server: what waits then fails.
pub struct StuckFile {
    path: PathBuf,
    server: libc::pid_t,
    control: UnixStream,
}

impl StuckFile {
    /// Mounts the file. Returns `None`, and prints the reason, where that is not allowed.
    pub fn mount(test: &str) -> Option<StuckFile> {
        match StuckFile::try_mount() {
            Ok(file) => Some(file),
            Err(error) => {
                eprintln!("SKIPPED {test}: no file system of its own ({error})");
                None
            }
        }
    }

    fn try_mount() -> io::Result<StuckFile> {
        keep_mounts_to_this_thread()?;
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        // The path stays when its `TestFile` is gone; `drop` removes it.
        let path = std::mem::ManuallyDrop::new(TestFile::new("fuse", &[]));
        let path = AsRef::<Path>::as_ref(&*path).to_owned();
        let text = |text: &str| CString::new(text).unwrap();
        let options = format!("fd={},rootmode=100600,user_id=0,group_id=0", device.as_raw_fd());
        let (target, options) = (text(path.to_str().unwrap()), text(&options));
        let (name, kind) = (text("uring-arena-test"), text("fuse"));
        // SAFETY: five strings that are live during the call.
        let answer = unsafe {
            libc::mount(name.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast())
        };
        if answer != 0 {
            let error = io::Error::last_os_error();
            fs::remove_file(&path)?;
            return Err(error);
        }
        let (control, of_server) = UnixStream::pair()?;
        // SAFETY: the child serves alone and never returns. glibc's allocator works in it.
        let server = unsafe { libc::fork() };
        if server == 0 {
            serve(&device, &of_server);
        }
        assert!(server > 0, "fork: {}", io::Error::last_os_error());
        Ok(StuckFile { path, server, control })
    }

    pub fn open(&self) -> File {
        File::options().read(true).write(true).open(&self.path).unwrap()
    }

    /// Returns the number of reads and writes that wait for an answer.
    pub fn waiting(&self) -> usize {
        self.command(COUNT, 0)
    }

    /// Answers everything: reads with `byte`, as many as were asked for.
    pub fn answer(&self, byte: u8) {
        self.command(ANSWER, byte);
    }

    fn command(&self, command: u8, byte: u8) -> usize {
        (&self.control).write_all(&[command, byte]).unwrap();
        let mut count = [0];
        (&self.control).read_exact(&mut count).expect("the server is there");
        count[0].into()
    }
}

/// Gives this thread mounts of its own, which are gone when it ends.
pub fn keep_mounts_to_this_thread() -> io::Result<()> {
    // SAFETY: takes a number, and affects this thread only.
    let mut answer = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    if answer == 0 {
        let (nothing, flags) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
        // SAFETY: one string that is live during the call, and no other memory.
        answer = unsafe { libc::mount(nothing, c"/".as_ptr(), nothing, flags, nothing.cast()) };
    }
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until workers of the kernel sleep for this thread, so deep that only an answer wakes them.
pub fn until_workers_are_stuck(count: usize, mut meanwhile: impl FnMut()) {
    let name = format!("iou-wrk-{}", rustix::thread::gettid().as_raw_nonzero());
    let is_stuck = |task: &fs::DirEntry| {
        let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        read("comm").trim() == name && read("stat").contains(") D ")
    };
    let until = Instant::now() + TIMEOUT;
    loop {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        if tasks.filter(is_stuck).count() >= count {
            return;
        }
        assert!(Instant::now() < until, "nothing waits for an answer");
        meanwhile();
    }
}

impl Drop for StuckFile {
    fn drop(&mut self) {
        // SAFETY: ends our own child, which nobody has waited for.
        unsafe { libc::kill(self.server, libc::SIGKILL) };
        // SAFETY: waits for our own child, and passes no memory.
        unsafe { libc::waitpid(self.server, std::ptr::null_mut(), 0) };
        let target = CString::new(self.path.to_str().unwrap()).unwrap();
        // SAFETY: the string is live during the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_FORCE | libc::MNT_DETACH) };
        let _ = fs::remove_file(&self.path);
    }
}

/// Serves the file, in the child. Ends with the mount, with the test, or with the alarm.
fn serve(device: &File, control: &UnixStream) -> ! {
    // SAFETY: takes a number. The signal ends the child.
    unsafe { libc::alarm(2 * TIMEOUT.as_secs() as u32) };
    let mut pending = Vec::new();
    let mut request = vec![0; 1 << 18];
    let poll = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    loop {
        let mut both = [poll(device.as_raw_fd()), poll(control.as_raw_fd())];
        // SAFETY: `both` is live during the call.
        unsafe { libc::poll(both.as_mut_ptr(), 2, -1) };
        let is_served = (both[1].revents == 0 || obey(device, control, &mut pending).is_some())
            && (both[0].revents == 0 || serve_one(device, &mut request, &mut pending).is_some());
        if !is_served {
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) };
        }
    }
}

/// Carries out a command of the test. Returns `None` if there will be no more.
fn obey(device: &File, mut control: &UnixStream, pending: &mut Vec<Pending>) -> Option<()> {
    let mut command = [0; 2];
    control.read_exact(&mut command).ok()?;
    let count = pending.len() as u8;
    if let [ANSWER, byte] = command {
        for Pending { number, is_read, bytes } in pending.drain(..) {
            let body = match is_read {
                true => vec![byte; bytes as usize],
                false => [bytes, 0].map(u32::to_ne_bytes).concat(),
            };
            reply(device, number, 0, &body)?;
        }
    }
    control.write_all(&[count]).ok()
}

/// Answers what a mount and an open ask for. Keeps reads and writes.
fn serve_one(mut device: &File, request: &mut [u8], pending: &mut Vec<Pending>) -> Option<()> {
    match device.read(request) {
        Ok(bytes) if bytes >= HEADER_BYTES => {}
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Some(()),
        // The mount is gone.
        _ => return None,
    }
    let number = u64::from_ne_bytes(*request[8..].first_chunk()?);
    let opcode = u32::from_ne_bytes(*request[4..].first_chunk()?);
    match opcode {
        // Version 7.31, `FUSE_ASYNC_READ`, and 64 KiB a write.
        FUSE_INIT => {
            let mut body = vec![0; 64];
            for (at, value) in [(0, 7u32), (4, 31), (8, 4096), (12, 1), (20, 1 << 16)] {
                body[at..at + 4].copy_from_slice(&value.to_ne_bytes());
            }
            reply(device, number, 0, &body)
        }
        // Through the page cache: a read of it waits in a worker thread of the kernel.
        FUSE_OPEN => reply(device, number, 0, &[0; 16]),
        FUSE_GETATTR => reply(device, number, 0, &attributes()),
        FUSE_RELEASE | FUSE_FLUSH => reply(device, number, 0, &[]),
        FUSE_READ | FUSE_WRITE => {
            let bytes = u32::from_ne_bytes(*request[HEADER_BYTES + 16..].first_chunk()?);
            pending.push(Pending { number, is_read: opcode == FUSE_READ, bytes });
            Some(())
        }
        // The kernel asks to give up: this server does not.
        FUSE_INTERRUPT => Some(()),
        _ => reply(device, number, -libc::ENOSYS, &[]),
    }
}

/// Builds the attributes of a file of one GiB.
fn attributes() -> Vec<u8> {
    let mut body = vec![0; 104];
    body[16..24].copy_from_slice(&1u64.to_ne_bytes());
    body[24..32].copy_from_slice(&(1u64 << 30).to_ne_bytes());
    body[76..80].copy_from_slice(&(libc::S_IFREG | 0o600).to_ne_bytes());
    body[80..84].copy_from_slice(&1u32.to_ne_bytes());
    body
}

fn reply(mut device: &File, number: u64, error: i32, body: &[u8]) -> Option<()> {
    let mut whole = Vec::with_capacity(16 + body.len());
    whole.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
    whole.extend_from_slice(&error.to_ne_bytes());
    whole.extend_from_slice(&number.to_ne_bytes());
    whole.extend_from_slice(body);
    match device.write(&whole) {
        // Given up meanwhile.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Some(()),
        answer => answer.ok().map(drop),
    }
}
