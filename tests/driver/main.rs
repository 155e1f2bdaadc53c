//! The safe driver on the real kernel.
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

mod bulk;
mod cancel;
mod connect;
mod datagrams;
mod details;
mod disks;
mod empty;
mod ends;
mod errors;
mod events;
mod faults;
mod fork;
mod give_back;
mod ids;
#[cfg(feature = "holders")]
mod leaks;
mod metrics;
mod older_kernels;
mod one_id;
mod panics;
mod push;
mod receive;
mod receive_forms;
mod registration_clone;
mod resources;
mod signals;
mod slot_states;
mod starved;
mod syncs;
mod times;
mod torn;
mod transfer;
mod trim;
mod wakes;
mod whole;
