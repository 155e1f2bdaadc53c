//! The face of `ring` in a build without io_uring: nothing of it can be made.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::engine::{PoolError, PoolMetrics, ShutdownReport};
use super::send_queue::SendQueue;
use super::socket::{Socket, StreamError};
use crate::arena::{BuddyArena, FixedArena};
use crate::buffer::{Buffer, Payload};
use crate::sync::Arc;
use crate::system::SendOptions;

/// The build has no ring.
pub(super) const IS_BUILT: bool = false;

pub(super) fn check() -> Result<(), String> {
    Err(PoolError::NoRing.to_string())
}

/// An engine on a ring, of which there is none.
pub(super) enum EngineHandle {}

/// The options of a ring that is never started.
#[derive(Debug, Clone)]
pub(super) struct RingOptions {
    pub(super) own_thread: bool,
    pub(super) batch_scheduling: bool,
}

impl RingOptions {
    pub(super) fn new(_: FixedArena) -> RingOptions {
        RingOptions { own_thread: false, batch_scheduling: false }
    }

    pub(super) fn add_send_arena(&mut self, _: BuddyArena) {}

    pub(super) fn start(self) -> Result<EngineHandle, PoolError> {
        Err(PoolError::NoRing)
    }

    pub(super) fn start_anywhere(self) -> Result<EngineHandle, PoolError> {
        self.start()
    }
}

impl EngineHandle {
    pub(super) fn count(&self, _: &mut PoolMetrics) {
        match *self {}
    }

    pub(super) async fn shutdown(&self) -> io::Result<ShutdownReport> {
        match *self {}
    }
}

#[allow(clippy::result_large_err, reason = "as the ring's")]
pub(super) fn connect<S: Socket>(
    engine: &Arc<EngineHandle>,
    _: S,
    _: usize,
    _: usize,
) -> Result<(RingSource, RingSender), StreamError<S>> {
    match **engine {}
}

pub(super) fn receive(
    engine: &Arc<EngineHandle>,
    _: impl Socket,
    _: usize,
) -> io::Result<RingSource> {
    match **engine {}
}

/// The part of a stream of a ring, of which there is none.
pub(super) enum RingSource {}

impl RingSource {
    pub(super) fn is_of(&self, _: &SendQueue) -> bool {
        match *self {}
    }

    pub(super) async fn give_back(&mut self, _: &mut VecDeque<Bytes>) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn poll_messages(
        &mut self,
        _: &mut VecDeque<Bytes>,
        _: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        match *self {}
    }
}

/// The part of a half of a ring, of which there is none.
pub(super) enum RingSender {}

impl RingSender {
    pub(super) fn here(&self) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn queue(&self) -> &SendQueue {
        match *self {}
    }

    pub(super) fn push(&self, _: Payload, _: SendOptions, _: usize) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn poll_write(
        &self,
        _: &mut Context<'_>,
        _: &[u8],
        _: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match *self {}
    }
}

/// The part of a file of a ring, of which there is none.
pub(super) enum RingFile {}

impl RingFile {
    pub(super) fn new(engine: &Arc<EngineHandle>, _: OwnedFd) -> RingFile {
        match **engine {}
    }

    pub(super) async fn read_at(&self, _: Buffer, _: u64) -> io::Result<Buffer> {
        match *self {}
    }

    pub(super) async fn write_at(&self, _: Payload, _: u64) -> io::Result<()> {
        match *self {}
    }

    pub(super) async fn sync_data(&self) -> io::Result<()> {
        match *self {}
    }
}
