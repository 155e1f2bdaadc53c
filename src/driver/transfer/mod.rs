//! The operations of a driver on files and sockets, and the entries of the program's.

mod complete;
mod entries;
mod memory;
mod transfer;
mod transfers;

pub(super) use entries::check_entry;
pub(super) use memory::{Memory, drop_memory};
pub(super) use transfer::{Action, Extent, Transfer};
pub(super) use transfers::{Found, Transfers};
