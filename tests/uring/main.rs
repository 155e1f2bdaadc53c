//! The pieces for a program's own ring, on the real kernel.
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

mod bulk;
mod conformance_receive;
mod datagrams;
mod forbidden;
mod fork;
mod operation_model;
mod probe;
mod read_write;
mod read_write_buddy;
mod reconcile;
mod registration;
mod send_zc;
mod trim;
mod zero;
