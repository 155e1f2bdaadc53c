//! A report of what this kernel and this user can do with io_uring, and of the settings to use.
//!
//! ```text
//! cargo run --release --example doctor
//! cargo run --release --example doctor -- --slots 16384 --slot-bytes 64K --json
//! cargo install uring-arena --features doctor && uring-arena-doctor
//! ```
//!
//! The exit code is the verdict: 0 if all is well, 2 if something of use is missing, 3 if io_uring
//! is. 1 is a mistake on the command line.

#[path = "doctor/mod.rs"]
mod doctor;

use std::process::ExitCode;

fn main() -> ExitCode {
    doctor::main()
}
