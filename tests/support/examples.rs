//! Helpers of the tests of the examples: programs are built, started, watched and killed.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use super::TIMEOUT;

/// The features that this binary, and so the examples, are built with.
///
/// All of them, or Cargo builds the library and the examples a second time.
const FEATURES: &[(&str, bool)] = &[
    ("default", cfg!(feature = "default")),
    ("io-uring", cfg!(feature = "io-uring")),
    ("async-alloc", cfg!(feature = "async-alloc")),
    ("tokio", cfg!(feature = "tokio")),
    ("tokio-uring", cfg!(feature = "tokio-uring")),
    ("compio", cfg!(feature = "compio")),
    ("compio-polling", cfg!(feature = "compio-polling")),
    ("monoio", cfg!(feature = "monoio")),
    ("holders", cfg!(feature = "holders")),
    ("metrics", cfg!(feature = "metrics")),
    ("doctor", cfg!(feature = "doctor")),
];

/// Builds the examples, once, as this binary was built. Returns the folder that they are in.
fn folder() -> &'static Path {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BUILT.get_or_init(build) {
        Ok(folder) => folder,
        Err(error) => panic!("{error}"),
    }
}

fn build() -> Result<PathBuf, String> {
    let mut cargo = cargo_build();
    cargo.arg("--examples");
    let built = cargo.output().map_err(|error| format!("{cargo:?}: {error}"))?;
    match built.status.success() {
        true => Ok(profile_folder().join("examples")),
        false => Err(format!("{cargo:?}\n{}", text(&built.stderr))),
    }
}

/// Returns the folder of this binary's profile: TARGET[/TRIPLE]/PROFILE of .../deps/BINARY.
fn profile_folder() -> PathBuf {
    let binary = std::env::current_exe().unwrap();
    binary.parent().and_then(Path::parent).unwrap().to_owned()
}

/// Returns a command that builds as this binary was built.
fn cargo_build() -> Command {
    let profile = profile_folder();
    let above = profile.parent().unwrap();
    let name_of = |folder: &Path| folder.file_name().unwrap().to_str().unwrap().to_owned();
    let triple = Some(name_of(above)).filter(|name| name.matches('-').count() >= 2);
    let target = if triple.is_some() { above.parent().unwrap() } else { above };
    let name = name_of(&profile);
    let features: Vec<&str> =
        FEATURES.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();

    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "--locked", "--offline"]);
    cargo.args(["--no-default-features", "--features", &features.join(",")]);
    cargo.arg("--target-dir").arg(target);
    cargo.args(["--profile", if name == "debug" { "dev" } else { &name }]);
    if let Some(triple) = triple {
        cargo.args(["--target", &triple]);
    }
    cargo
}

/// Compiles a program that uses the library alone. Warnings are errors.
pub fn compile(program: &Path) -> Result<(), String> {
    // What the examples were built with: nothing is built here.
    folder();
    let mut cargo = cargo_build();
    cargo.args(["--examples", "--message-format", "json"]);
    let messages = text(&cargo.output().map_err(|error| format!("{cargo:?}: {error}"))?.stdout);
    let library = messages
        .split('"')
        .find(|text| text.contains("liburing_arena-") && text.ends_with(".rlib"))
        .ok_or_else(|| format!("{cargo:?} names no library: {messages}"))?;
    let mut rustc = Command::new(Path::new(env!("CARGO")).with_file_name("rustc"));
    rustc.current_dir(env!("CARGO_TARGET_TMPDIR")).arg(program);
    rustc.args(["--edition", "2024", "--emit", "metadata", "-D", "warnings"]);
    rustc.arg("--extern").arg(format!("uring_arena={library}"));
    // Built for a target by name, macros of dependencies lie apart, in the host's folder.
    let own = profile_folder();
    let hosts = own.file_name().map(|profile| own.join("../..").join(profile));
    for folder in [Some(own), hosts].into_iter().flatten().map(|folder| folder.join("deps")) {
        rustc.arg("-L").arg(format!("dependency={}", folder.display()));
    }
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    rustc.args(flags.split_whitespace());
    let compiled = rustc.output().map_err(|error| format!("{rustc:?}: {error}"))?;
    match compiled.status.success() {
        true => Ok(()),
        false => Err(format!("{rustc:?}\n{}", text(&compiled.stderr))),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An example that runs. It is killed when this is dropped.
pub struct Program {
    name: String,
    child: Child,
    output: Receiver<String>,
    errors: Receiver<String>,
}

/// The end of an example.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub output: String,
    pub errors: String,
}

/// Makes a command that runs an example.
///
/// `limits` are set by the shell first, as in `ulimit -n 64`. An interrupt ends the program, also
/// if it is ignored here, as in a job that a shell has put into the background.
pub fn command(name: &str, limits: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", "sh", "-c"]);
    command.arg(format!("{limits}\nexec \"$0\" \"$@\"")).arg(folder().join(name));
    command.args(arguments).stdin(Stdio::null());
    command
}

impl Program {
    pub fn start(name: &str, arguments: &[&str]) -> Program {
        Program::spawn(name, command(name, "", arguments))
    }

    pub fn spawn(name: &str, mut command: Command) -> Program {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = lines_of(child.stdout.take().unwrap());
        let errors = lines_of(child.stderr.take().unwrap());
        Program { name: name.into(), child, output, errors }
    }

    /// Waits for the line of output that begins with `start`. Returns the rest of it.
    pub fn line(&mut self, start: &str) -> String {
        let line = line_of(&self.output, start);
        line.unwrap_or_else(|| self.fail(&format!("did not print {start:?}")))
    }

    /// Waits for the line of errors that begins with `start`. Returns the rest of it.
    pub fn error_line(&mut self, start: &str) -> String {
        let line = line_of(&self.errors, start);
        line.unwrap_or_else(|| self.fail(&format!("did not warn {start:?}")))
    }

    fn fail(&mut self, what: &str) -> ! {
        let ended = self.collect();
        panic!("{} {what}: {ended:?}", self.name)
    }

    /// Waits for the end. A program that does not end is killed, and the test fails.
    pub fn wait(mut self) -> Ended {
        let until = Instant::now() + 3 * TIMEOUT;
        while self.child.try_wait().unwrap().is_none() {
            if Instant::now() > until {
                self.fail("hangs");
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.collect()
    }

    fn collect(&mut self) -> Ended {
        let _ = self.child.kill();
        let code = self.child.wait().unwrap().code();
        let join = |lines: &Receiver<String>| lines.iter().map(|line| line + "\n").collect();
        Ended { code, output: join(&self.output), errors: join(&self.errors) }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends the signal of Ctrl-C.
    pub fn interrupt(&self) {
        let _ = kill_process(self.pid(), Signal::INT);
    }

    /// Stops the program until [`go_on`](Self::go_on), as if it had much else to do.
    pub fn stop(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    pub fn go_on(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Counts the open descriptors.
    pub fn descriptors(&self) -> usize {
        self.descriptor_numbers().len()
    }

    /// Lists the open descriptors.
    pub fn descriptor_numbers(&self) -> Vec<u64> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
    }

    /// Waits until the program has at most so many descriptors.
    pub fn until_descriptors(&self, most: usize) {
        let until = Instant::now() + TIMEOUT;
        while self.descriptors() > most {
            let left = self.descriptors();
            assert!(Instant::now() < until, "{}: {left} descriptors, not {most}", self.name);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Lowers the limit of descriptors so that just `room` more can be opened.
    pub fn leave_descriptors(&self, room: usize) {
        let open = self.descriptor_numbers();
        let free = (0..).filter(|number| !open.contains(number));
        self.limit_descriptors(free.take(room + 1).last().unwrap());
    }

    /// Sets the limit of descriptors.
    pub fn limit_descriptors(&self, limit: u64) {
        let maximum = prlimit_of(self.pid()).maximum;
        let new = Rlimit { current: Some(limit), maximum };
        prlimit(Some(self.pid()), Resource::Nofile, new).unwrap();
    }

    /// Returns the resident memory in KiB.
    pub fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

fn prlimit_of(pid: Pid) -> Rlimit {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut words = line.split_whitespace().map(|word| word.parse().ok());
    Rlimit { current: words.next().unwrap(), maximum: words.next().unwrap() }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(from: impl Read + Send + 'static) -> Receiver<String> {
    let (lines, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn line_of(lines: &Receiver<String>, start: &str) -> Option<String> {
    let until = Instant::now() + TIMEOUT;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let line = lines.recv_timeout(left).ok()?;
        if let Some(rest) = line.strip_prefix(start) {
            return Some(rest.to_owned());
        }
    }
}

/// Returns whether memory that is freed stays with the programs, as the address sanitizer has it.
pub fn keeps_freed_memory() -> bool {
    let keeps = std::env::var_os("ASAN_OPTIONS").is_some();
    if keeps {
        eprintln!("SKIPPED: under the address sanitizer freed memory is not given back");
    }
    keeps
}

/// Runs an example to its end.
pub fn run(name: &str, arguments: &[&str]) -> Ended {
    Program::start(name, arguments).wait()
}

/// Runs an example that must succeed. Returns its output.
#[track_caller]
pub fn succeed(name: &str, arguments: &[&str]) -> String {
    let ended = run(name, arguments);
    assert_eq!(ended.code, Some(0), "{name} {arguments:?}: {ended:?}");
    ended.output
}

/// Runs an example that must fail with an error for a person. Returns the error.
#[track_caller]
pub fn refuse(name: &str, arguments: &[&str]) -> String {
    let ended = run(name, arguments);
    let (errors, code) = (ended.errors.clone(), ended.code);
    assert_eq!(code, Some(1), "{name} {arguments:?}: {ended:?}");
    assert!(errors.starts_with("error: "), "{name} {arguments:?}: {ended:?}");
    assert!(!errors.contains("panicked"), "{name} {arguments:?}: {ended:?}");
    errors
}
