//! Serves snapshots of a program's memory, for the live view `uring-arena-top`.
//!
#![doc = include_str!("../README.md")]
#![cfg(unix)]

mod client;
mod server;
mod snapshot;

pub use client::{Client, ReadError};
pub use server::{CLIENTS_MAX, Latest, ServeError, Server, serve};
pub use snapshot::{
    Arena, ArenaView, BlocksView, GroupView, HolderView, HoldersView, PartView, Snapshot,
    SocketView, StatesView, VERSION,
};
