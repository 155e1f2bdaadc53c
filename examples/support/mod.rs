//! Code that the examples share: the command line, test data, and output for a person.
#![allow(dead_code, unused_imports, reason = "each example uses its part")]

mod arguments;
mod data;
mod machine;
mod output;

pub use arguments::{help_or_mistake, listen, no_options, nonzero, size, size_within};
pub use data::{Checksum, echo_message, file_content, fill_random, read_checksum, temporary_path};
pub use machine::check_memory;
#[cfg(target_os = "linux")]
pub use machine::{need_descriptors, thread_cpu};
#[cfg(feature = "io-uring")]
pub use output::mode_name;
pub use output::{
    announce, check_all_free, cpu_per_gb, exact_bytes, gb_per_s, mistake, progress, run, time,
};
