//! Helpers of the tests in which a limit of the process is low.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The seconds after which a process of a test is ended: it hangs.
const WATCHDOG: &str = "120";

/// Runs an ignored test of this binary in a process of its own, by `prlimit` with arguments.
///
/// The test ends by printing `helper finished`. Where a tool is missing, that is printed.
#[track_caller]
pub fn run_alone(test: &str, prlimit: &[&str]) {
    // Another user can reach this copy.
    let name = test.replace("::", "-");
    let copy = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let answer = Command::new("timeout")
        .args([WATCHDOG, "prlimit"])
        .args(prlimit)
        .arg(&copy)
        .args(["--ignored", "--exact", test, "--nocapture"])
        .current_dir("/")
        .output();
    std::fs::remove_file(&copy).unwrap();
    let output = match answer {
        Ok(output) => output,
        Err(error) => return eprintln!("SKIPPED {test}: no timeout(1) here ({error})"),
    };
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if ["setpriv:", "prlimit:", "timeout: failed"].iter().any(|tool| err.contains(tool)) {
        return eprintln!("SKIPPED {test}: {err}");
    }
    assert!(output.status.success() && out.contains("helper finished"), "{out}\n{err}");
}

/// Returns the arguments of `prlimit` for a process of another user, who may lock so many bytes.
///
/// Locked memory is counted by user, so each test has a user of its own: `number`.
pub fn as_user_with_memlock(bytes: u64, number: u32) -> Vec<String> {
    let user = 100_000 + 10 * (std::process::id() % 100_000) + number;
    let words = format!(
        "--memlock={bytes}:{bytes} setpriv --reuid={user} --regid={user} --clear-groups --inh-caps=-all --"
    );
    words.split(' ').map(str::to_owned).collect()
}

/// Leaves `count` descriptors to be opened in this process, by its limit. Returns the limit before.
pub fn leave_descriptors(count: usize) -> Rlimit {
    let open = |_| File::open("/dev/null").unwrap();
    // The free numbers need not be neighbours: the limit is the one after so many.
    let files: Vec<File> = (0..=count).map(open).collect();
    let limit = files[count].as_raw_fd() as u64;
    let before = getrlimit(Resource::Nofile);
    set_descriptors(Rlimit { current: Some(limit), ..before });
    before
}

pub fn set_descriptors(limit: Rlimit) {
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// The descriptors of this process, of which there are few.
pub struct FewDescriptors {
    before: Rlimit,
    taken: Vec<File>,
}

impl FewDescriptors {
    /// Lowers the limit of the process, until the value is dropped.
    pub fn new() -> FewDescriptors {
        FewDescriptors { before: leave_descriptors(64), taken: Vec::new() }
    }

    /// Takes all descriptors that are left but for `left`.
    pub fn take_all_but(&mut self, left: usize) {
        while let Ok(file) = File::open("/dev/null") {
            self.taken.push(file);
        }
        self.taken.truncate(self.taken.len() - left);
    }

    pub fn give_back(&mut self) {
        self.taken.clear();
    }
}

impl Drop for FewDescriptors {
    fn drop(&mut self) {
        set_descriptors(self.before);
    }
}
