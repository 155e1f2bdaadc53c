//! The safe driver on the real kernel.
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

mod bulk;
mod cancel;
mod datagrams;
mod empty;
mod ends;
mod errors;
mod faults;
mod fork;
mod give_back;
mod ids;
mod older_kernels;
mod panics;
mod receive;
mod receive_forms;
mod registration_clone;
mod resources;
mod signals;
mod slot_states;
mod starved;
mod torn;
mod transfer;
mod wakes;
mod whole;
