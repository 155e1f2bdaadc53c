//! A file of our own file system: it answers reads and writes when the test says so, and no cancel
//! ends them before.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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

/// A request that was not answered yet.
struct Pending {
    number: u64,
    is_read: bool,
    bytes: u32,
}

/// A mounted file. Dropping it answers nothing any more: what waits fails.
pub struct StuckFile {
    path: PathBuf,
    device: ManuallyDrop<Arc<File>>,
    pending: Arc<Mutex<Vec<Pending>>>,
    server: Option<JoinHandle<()>>,
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
        let device = Arc::new(File::options().read(true).write(true).open("/dev/fuse")?);
        // The path stays when its `TestFile` is gone; `drop` removes it.
        let path = ManuallyDrop::new(TestFile::new("fuse", &[]));
        let path = AsRef::<std::path::Path>::as_ref(&*path).to_owned();
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
        let pending = Arc::default();
        let server = {
            let (device, pending) = (Arc::clone(&device), Arc::clone(&pending));
            std::thread::spawn(move || serve(&device, &pending))
        };
        let device = ManuallyDrop::new(device);
        Ok(StuckFile { path, device, pending, server: Some(server) })
    }

    pub fn open(&self) -> File {
        File::options().read(true).write(true).open(&self.path).unwrap()
    }

    /// Returns the number of reads and writes that wait for an answer.
    pub fn waiting(&self) -> usize {
        self.pending.lock().unwrap().len()
    }

    /// Answers everything: reads with `byte`, as many as were asked for.
    pub fn answer(&self, byte: u8) {
        for Pending { number, is_read, bytes } in self.pending.lock().unwrap().drain(..) {
            let body = match is_read {
                true => vec![byte; bytes as usize],
                false => [bytes, 0].map(u32::to_ne_bytes).concat(),
            };
            let _ = reply(&self.device, number, 0, &body);
        }
    }
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
        let target = CString::new(self.path.to_str().unwrap()).unwrap();
        // Aborts what waits, which ends the server too.
        // SAFETY: the string is live during the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_FORCE | libc::MNT_DETACH) };
        // SAFETY: not used again.
        unsafe { ManuallyDrop::drop(&mut self.device) };
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers what a mount and an open ask for. Keeps reads and writes.
fn serve(device: &File, pending: &Mutex<Vec<Pending>>) {
    let mut request = vec![0; 1 << 18];
    let until = Instant::now() + TIMEOUT;
    loop {
        // A thread that waits for an answer cannot be killed: after a while it gets one.
        if !is_readable(device, until) {
            for late in pending.lock().unwrap().drain(..) {
                let _ = reply(device, late.number, -libc::EIO, &[]);
            }
            continue;
        }
        match (&mut &*device).read(&mut request) {
            Ok(bytes) if bytes >= HEADER_BYTES => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The mount is gone.
            _ => return,
        }
        let number = u64::from_ne_bytes(request[8..16].try_into().unwrap());
        let field =
            |at: usize| u32::from_ne_bytes(request[HEADER_BYTES + at..][..4].try_into().unwrap());
        let opcode = u32::from_ne_bytes(request[4..8].try_into().unwrap());
        let answer = match opcode {
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
                let (is_read, bytes) = (opcode == FUSE_READ, field(16));
                pending.lock().unwrap().push(Pending { number, is_read, bytes });
                Ok(())
            }
            // The kernel asks to give up: this server does not.
            FUSE_INTERRUPT => Ok(()),
            _ => reply(device, number, -libc::ENOSYS, &[]),
        };
        if answer.is_err() {
            return;
        }
    }
}

/// Waits for a request. Returns `false` if the time is over and there is none.
fn is_readable(device: &File, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
    let mut poll = libc::pollfd { fd: device.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` is live during the call.
    unsafe { libc::poll(&mut poll, 1, left.as_millis() as i32) != 0 }
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

fn reply(mut device: &File, number: u64, error: i32, body: &[u8]) -> io::Result<()> {
    let mut whole = Vec::with_capacity(16 + body.len());
    whole.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
    whole.extend_from_slice(&error.to_ne_bytes());
    whole.extend_from_slice(&number.to_ne_bytes());
    whole.extend_from_slice(body);
    match device.write(&whole) {
        // Given up meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer.map(drop),
    }
}
