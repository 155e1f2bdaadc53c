//! Signals to one thread, whose handler is installed without `SA_RESTART`: each ends the system
//! call that the thread sleeps in.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::TIMEOUT;

static HANDLED: AtomicU64 = AtomicU64::new(0);

/// The waker that the handler of `SIGUSR2` calls.
static WAKER: OnceLock<Waker> = OnceLock::new();

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn wake(_: libc::c_int) {
    if let Some(waker) = WAKER.get() {
        waker.wake_by_ref();
    }
}

fn install(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: all zero is an action without flags and with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    // SAFETY: the handlers here only use atomics, and call `write`.
    let answer = unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    assert_eq!(answer, 0);
}

/// A thread of this process, to be signalled.
#[derive(Clone, Copy)]
pub struct Target(libc::pid_t);

impl Target {
    pub fn this_thread() -> Target {
        // SAFETY: asks only.
        Target(unsafe { libc::gettid() })
    }

    /// Finds the threads of this process by name.
    pub fn named(name: &str) -> Vec<Target> {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let ids = threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let has_name = |&id: &libc::pid_t| {
            std::fs::read_to_string(format!("/proc/self/task/{id}/comm"))
                .is_ok_and(|comm| comm.trim_end() == name)
        };
        ids.filter(has_name).map(Target).collect()
    }

    fn signal(self, signal: libc::c_int) {
        // SAFETY: a thread that has ended is not found, and nothing else happens.
        unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), self.0, signal) };
    }
}

/// A thread that signals others every other moment, until the value is dropped.
pub struct Signals {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    handled_before: u64,
}

impl Signals {
    pub fn to(targets: Vec<Target>) -> Signals {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| install(libc::SIGUSR1, count));
        let done = Arc::new(AtomicBool::new(false));
        let is_done = Arc::clone(&done);
        let thread = thread::spawn(move || {
            while !is_done.load(Ordering::Relaxed) {
                targets.iter().for_each(|target| target.signal(libc::SIGUSR1));
                thread::sleep(Duration::from_millis(1));
            }
        });
        let handled_before = HANDLED.load(Ordering::Relaxed);
        Signals { done, thread: Some(thread), handled_before }
    }

    /// Waits until a number of signals were handled since it began.
    pub fn wait_for(&self, signals: u64) {
        let begin = Instant::now();
        while HANDLED.load(Ordering::Relaxed) - self.handled_before < signals {
            assert!(begin.elapsed() < TIMEOUT, "no signal was handled");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Has `waker` called by a signal handler on `target`.
pub fn wake_by_signal(waker: &Waker, target: Target) {
    assert!(WAKER.set(waker.clone()).is_ok(), "one test only");
    install(libc::SIGUSR2, wake);
    target.signal(libc::SIGUSR2);
}
