//! The safe driver on the real kernel.
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod ids;
mod older_kernels;
mod receive;
mod receive_forms;
mod registration_clone;
mod resources;
mod signals;
mod slot_states;
mod starved;
mod transfer;
mod wakes;
