//! The doctor: looks at this machine, and says what to do.
//!
//! It is also a program of its own, which has none of the crates of the other examples.

mod arguments;
mod examine;
mod machine;
#[path = "../support/modes.rs"]
mod modes;
mod report;

use std::io::{self, Write};
use std::process::ExitCode;

/// Runs the doctor. The exit code is the verdict.
pub fn main() -> ExitCode {
    let question = match arguments::parse() {
        Ok(Some(question)) => question,
        Ok(None) => return print(arguments::HELP),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let report = examine::examine(&question);
    let text = if question.json { report.to_json() } else { report.to_text() };
    match print(&text) {
        ExitCode::SUCCESS => ExitCode::from(report.verdict.code()),
        failed => failed,
    }
}

/// Prints a text to standard output. A reader that has gone is told nothing.
fn print(text: &str) -> ExitCode {
    let mut output = io::stdout().lock();
    match writeln!(output, "{}", text.trim_end()).and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.kind() != io::ErrorKind::BrokenPipe {
                let _ = writeln!(io::stderr(), "error: standard output: {error}");
            }
            ExitCode::FAILURE
        }
    }
}
