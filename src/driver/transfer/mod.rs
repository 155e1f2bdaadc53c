//! The operations of a driver on files and sockets, and the entries of the program's.

mod complete;
mod transfer;
mod transfers;

pub(super) use transfer::{Action, Extent, Memory, Transfer, drop_memory};
pub(super) use transfers::{Found, Transfers, check_entry};
