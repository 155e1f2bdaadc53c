//! Code that the examples share: the command line, test data, and output for a person.
#![allow(dead_code, unused_imports, reason = "each example uses its part")]

mod arguments;
mod data;
#[cfg(target_os = "linux")]
mod files;
mod machine;
#[cfg(feature = "io-uring")]
mod modes;
mod output;

pub use arguments::{
    CommandLine, count, listen, no_options, nonzero, ring_slots, size, slot_bytes,
};
pub use data::{Checksum, echo_message, file_content, fill_random, read_checksum};
#[cfg(target_os = "linux")]
pub use files::{UnnamedFile, path_of, reserve};
pub use machine::{MORE_ROOM, check_memory, check_slots};
#[cfg(target_os = "linux")]
pub use machine::{need_descriptors, raise_descriptors, thread_cpu};
pub(crate) use output::say;
pub use output::{
    Warning, check_all_free, cpu_per_gb, exact_bytes, mistake, print_line, progress, rate, run,
    time, warn,
};
#[cfg(feature = "io-uring")]
pub use {modes::mode_name, output::cpu_s_per_gb};
