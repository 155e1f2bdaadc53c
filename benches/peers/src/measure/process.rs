//! Facts about another process, read from outside: nothing of this is in its own time. And the
//! programs that measure what a clock cannot.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::clock::now;

/// The name of threads that make the load: their time and system calls are not the contender's.
const LOAD: &std::ffi::CStr = c"load";

/// Names the calling thread as one that makes the load. It must live as long as its process.
pub fn be_load() {
    // SAFETY: the name ends in a zero, within sixteen bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, LOAD.as_ptr()) };
}

/// Lists the threads of a process: only the load threads, or all others.
fn threads(process: u32, of_load: bool) -> io::Result<Vec<String>> {
    let mut list = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let entry = entry?;
        let name = fs::read(entry.path().join("comm"))?;
        if (name.trim_ascii() == LOAD.to_bytes()) == of_load {
            list.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(list)
}

/// Returns the processor time of a process so far, without the threads that make the load.
///
/// Both terms are the scheduler's nanoseconds: the process's clock, which keeps the threads that
/// have ended, less the `schedstat` of the load threads.
pub fn processor_time(process: u32) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: the pointer is to a live value of the right type.
    let error = unsafe { libc::clock_getcpuclockid(process as libc::pid_t, &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut load = 0;
    for thread in threads(process, true)? {
        let text = fs::read_to_string(format!("/proc/{process}/task/{thread}/schedstat"))?;
        let nanos = text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok());
        load += nanos.ok_or(io::ErrorKind::InvalidData)?;
    }
    Ok(now(clock).saturating_sub(Duration::from_nanos(load)))
}

/// A count of system calls at full speed: `perf stat` on the tracepoint of their entry.
pub struct Syscalls(Child);

impl Syscalls {
    /// Attaches to all threads of a process except load threads, and to later ones.
    pub fn attach(process: u32) -> io::Result<Self> {
        let threads = threads(process, false)?;
        let mut command = Command::new("perf");
        command.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-t", &threads.join(",")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut counter = Self(command.spawn()?);
        // It counts once it has a counter open for each thread.
        let opened = |path: fs::DirEntry| {
            fs::read_link(path.path()).is_ok_and(|link| link.ends_with("anon_inode:[perf_event]"))
        };
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end && counter.0.try_wait()?.is_none() {
            let open = fs::read_dir(format!("/proc/{}/fd", counter.0.id()))?.flatten();
            if open.filter_map(|entry| opened(entry).then_some(())).count() >= threads.len() {
                sleep(Duration::from_millis(20));
                return Ok(counter);
            }
            sleep(Duration::from_millis(2));
        }
        counter.stop()?;
        Err(io::Error::other("perf opened no counters"))
    }

    /// Detaches, and returns the count.
    pub fn stop(mut self) -> io::Result<u64> {
        // SAFETY: the child has not been waited for, so its number is still its own.
        unsafe { libc::kill(self.0.id() as libc::pid_t, libc::SIGINT) };
        let mut text = String::new();
        self.0.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?.read_to_string(&mut text)?;
        self.0.wait()?;
        let count = text.lines().find_map(|line| line.split(',').next()?.parse().ok());
        count.ok_or_else(|| io::Error::other(text.trim().replace('\n', "; ")))
    }
}

/// Returns how many buffers the kernel has registered with the rings of a process: the proof, as
/// what a program asked for is an intention.
pub fn registered_buffers(process: u32) -> f64 {
    let entries = fs::read_dir(format!("/proc/{process}/fdinfo")).into_iter().flatten().flatten();
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    // Lines under the heading are a number and a colon, indented; the next heading is a word.
    let in_ring = |text: String| {
        let table = text.lines().skip_while(|line| !line.starts_with("UserBufs:")).skip(1);
        let lines = table.take_while(|line| line.trim_start().starts_with(char::is_numeric));
        lines.filter(|line| !line.contains("<none>")).count()
    };
    texts.map(in_ring).sum::<usize>() as f64
}

/// Returns how much memory of a process lies on huge pages.
pub fn huge_mebibytes(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
    let kilobytes = line.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1024.0
}

/// Reports if a program can be started.
pub fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    let asked = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// Counts instructions inside the functions that `pattern` names, into the file `record`.
pub fn callgrind(pattern: &str, record: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--collect-atstart=no"]);
    command.arg(format!("--toggle-collect={pattern}"));
    command.arg(format!("--callgrind-out-file={}", record.display()));
    command
}

/// Returns the instructions that callgrind has counted.
pub fn callgrind_total(record: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(record)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.and_then(|total| total.split_whitespace().next()?.parse().ok());
    total.ok_or_else(|| io::Error::other("callgrind left no totals"))
}
