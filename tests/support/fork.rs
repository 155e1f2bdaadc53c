//! Forked children of a test.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use super::TIMEOUT;

/// The children that may hang. Another test's thread may hold a lock of the standard library or of
/// `tracing` at the moment of a fork, which no child gets then.
const TRIES: usize = 3;

/// Runs `body` in a forked child, which has this thread only.
///
/// Panics if `body` does, or if a signal ends the child. A child that hangs is ended, and another
/// one is tried.
#[track_caller]
pub fn in_child(body: impl FnOnce()) {
    let mut body = Some(body);
    for _ in 0..TRIES {
        // SAFETY: the child runs `body` alone and leaves by `_exit`. glibc's allocator works in it.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
        if child == 0 {
            be_the_child(body.take().expect("the parent keeps it"));
        }
        let Some(status) = status_of(child) else { continue };
        let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
        assert_eq!(signal, None, "a signal ended the child");
        assert_eq!(libc::WEXITSTATUS(status), 0, "the child panicked");
        return;
    }
    panic!("{TRIES} children hung");
}

fn be_the_child(body: impl FnOnce()) -> ! {
    // The locks of the standard streams may be held by threads that the child does not have.
    std::panic::set_hook(Box::new(|info| {
        let text = format!("in the child: {info}\n");
        // SAFETY: writes live bytes.
        unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    }));
    let end = catch_unwind(AssertUnwindSafe(body));
    // SAFETY: ends the child at once.
    unsafe { libc::_exit(i32::from(end.is_err())) };
}

/// Waits for a child. Returns `None` if it hung and was ended.
fn status_of(child: libc::pid_t) -> Option<libc::c_int> {
    let (begin, mut hung, mut status) = (Instant::now(), false, 0);
    // SAFETY: asks for our own child.
    while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
        if begin.elapsed() > TIMEOUT {
            hung = true;
            // SAFETY: ends our own child, which nobody has waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        thread::sleep(Duration::from_millis(1));
    }
    (!hung).then_some(status)
}

/// A page that is mapped at a place where a forked child has none: a later mapping of the child
/// may come to lie there.
pub struct Settler(*mut u8);

/// The byte that a settler writes.
const SETTLED: u8 = 0x5E;

impl Settler {
    /// Maps a page at `address`. Returns `None` if something lies there.
    pub fn at(address: usize) -> Option<Settler> {
        // SAFETY: maps new memory, and over nothing (`MAP_FIXED_NOREPLACE`).
        let page = unsafe {
            libc::mmap(
                std::ptr::without_provenance_mut(address),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED || page.addr() != address {
            return None;
        }
        let page = page.cast::<u8>();
        // SAFETY: mapped above.
        unsafe { page.write(SETTLED) };
        Some(Settler(page))
    }

    /// Fails if the page is gone, or was written to.
    pub fn check(&self) {
        let mut present = 0u8;
        // SAFETY: asks about one page.
        let answer = unsafe { libc::mincore(self.0.cast(), 4096, &raw mut present) };
        assert_eq!(answer, 0, "something else was unmapped");
        // SAFETY: mapped, as was asked just now.
        assert_eq!(unsafe { self.0.read() }, SETTLED, "something else was written to");
    }
}

/// Returns the addresses of the mappings of this process whose line in `/proc/self/maps` ends so.
pub fn mappings(end: &str) -> Vec<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let lines = maps.lines().filter(|line| line.ends_with(end));
    lines.map(|line| usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap()).collect()
}
