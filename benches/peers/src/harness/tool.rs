//! Programs from outside that measure what a clock cannot.

use std::path::Path;
use std::process::{Command, Stdio};

/// What a child may be run under, or compared with.
#[derive(Clone, Copy, Debug)]
pub enum Tool {
    Callgrind,
    Fio,
}

impl Tool {
    fn program(self) -> &'static str {
        match self {
            Self::Callgrind => "valgrind",
            Self::Fio => "fio",
        }
    }

    pub fn is_installed(self) -> bool {
        let mut command = Command::new(self.program());
        let asked = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    }

    /// Counts instructions inside the functions that `pattern` names, into the file `record`.
    pub fn command(self, pattern: &str, record: &Path) -> Command {
        let mut command = Command::new(self.program());
        command.args(["--tool=callgrind", "--collect-atstart=no"]);
        command.arg(format!("--toggle-collect={pattern}"));
        command.arg(format!("--callgrind-out-file={}", record.display()));
        command
    }
}
