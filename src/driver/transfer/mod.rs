//! The reads, writes and sends of a driver.

mod complete;
mod transfer;
mod transfers;

pub(super) use transfer::{Action, Transfer, drop_memory};
pub(super) use transfers::Transfers;
