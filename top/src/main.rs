//! The program `uring-arena-top`: a live view of a program's memory, in a terminal.

#[cfg(unix)]
mod demo;
#[cfg(unix)]
mod screen;
#[cfg(unix)]
mod view;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    view::main()
}

#[cfg(not(unix))]
fn main() {
    eprintln!("uring-arena-top needs Unix sockets");
    std::process::exit(1);
}
