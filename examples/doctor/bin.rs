//! The example `doctor` as a program that is installed by `cargo install`.

#[cfg(target_os = "linux")]
#[path = "mod.rs"]
mod doctor;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    doctor::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("error: the doctor examines Linux; elsewhere the crate is its core alone");
    std::process::exit(3);
}
