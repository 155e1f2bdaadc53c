//! The error of a pool that could not be made.

use std::io;

use crate::driver::DriverError;
use crate::uring::{RegisterError, RingError};

/// An error of [`PoolBuilder::build`](super::PoolBuilder::build).
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The system gave no io_uring.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The kernel did not take the arena for receiving.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The kernel did not register the arena.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The system gave no descriptor, or tokio did not watch the descriptor.
    #[error(
        "no event descriptor for the pool ({0}): raise the limit of descriptors (`ulimit -n`), or build the pool with `own_thread`"
    )]
    Event(io::Error),
    /// The system did not start the pool's thread.
    #[error(
        "the pool's thread did not start ({0}): raise the limit of threads (`ulimit -u`), or build the pool inside a one-thread runtime"
    )]
    Thread(io::Error),
}

debug_is_display!(PoolError);
