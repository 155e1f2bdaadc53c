//! A datagram socket that tokio's reactor watches: each datagram that comes takes a slot.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::Interest;
use ::tokio::runtime::Handle;
use bytes::Bytes;

use super::shared::{Ahead, EndWatch, Shared, Ticket};
use crate::buffer::{Buffer, Payload};
use crate::runtime::tokio::engine::{EngineEnd, is_worth_a_copy};
use crate::runtime::tokio::socket::datagram::WatchedDatagrams;
use crate::sync::Arc;
use crate::uring::{
    Addressed, DATAGRAMS_MAX, Datagram, Destination, Inbox, Status, send_datagram, send_datagrams,
};

/// A datagram socket of a pool, as its two sides share it.
pub(crate) struct DatagramLink {
    shared: Arc<Shared>,
    /// The socket, and the runtime whose reactor watches it. `None` once the link is dropped.
    watched: Option<(WatchedDatagrams, Handle)>,
    _counted: Arc<()>,
}

impl DatagramLink {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        socket: WatchedDatagrams,
        runtime: Handle,
    ) -> DatagramLink {
        let (shared, counted) = (Arc::clone(shared), shared.datagram_socket());
        DatagramLink { shared, watched: Some((socket, runtime)), _counted: counted }
    }

    fn watched(&self) -> &(WatchedDatagrams, Handle) {
        self.watched.as_ref().expect("there until the drop")
    }

    fn socket(&self) -> &WatchedDatagrams {
        &self.watched().0
    }

    fn is_unix(&self) -> bool {
        matches!(self.socket(), WatchedDatagrams::Unix(_))
    }

    /// Fails if the pool was shut down, or in a forked child.
    pub(crate) fn check_open(&self) -> io::Result<()> {
        self.shared.check_open()
    }

    /// Sends a datagram, if the socket takes it now.
    pub(crate) fn try_send(&self, bytes: &[u8], destination: &Destination) -> io::Result<()> {
        self.check_open()?;
        let attempt = |socket: BorrowedFd<'_>| send_datagram(socket, bytes, destination);
        self.socket().try_io(Interest::WRITABLE, attempt)
    }

    /// Sends the first datagrams of `batch`, as many as the socket takes now. Returns their number.
    fn try_send_several(&self, batch: &mut [Addressed<Payload>]) -> io::Result<usize> {
        self.check_open()?;
        let attempt = |socket: BorrowedFd<'_>| send_datagrams(socket, batch);
        self.socket().try_io(Interest::WRITABLE, attempt)
    }

    /// Sends a datagram, once the socket takes it.
    pub(crate) async fn send(&self, bytes: &[u8], destination: &Destination) -> io::Result<()> {
        loop {
            match self.try_send(bytes, destination) {
                Err(error) if is_passing(&error) => self.writable().await?,
                sent => return sent,
            }
        }
    }

    /// Sends each datagram of a batch, whatever becomes of the others. Returns a result for each.
    pub(crate) async fn send_all(&self, mut batch: Vec<Addressed<Payload>>) -> Vec<io::Result<()>> {
        let mut results = Vec::with_capacity(batch.len());
        while results.len() < batch.len() {
            match self.try_send_several(&mut batch[results.len()..]) {
                Ok(sent) => results.extend((0..sent).map(|_| Ok(()))),
                Err(error) if is_passing(&error) => {
                    if let Err(error) = self.writable().await {
                        results.push(Err(error));
                    }
                }
                Err(error) => results.push(Err(error)),
            }
        }
        results
    }

    /// Waits until the socket may take a datagram.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.check_open()?;
        let mut end = EndWatch::new(&self.shared);
        let mut writable = pin!(self.socket().writable());
        poll_fn(|context| {
            end.register(context)?;
            writable.as_mut().poll(context).map_err(|_| EngineEnd::Runtime.error())
        })
        .await
    }
}

impl AsFd for DatagramLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl Drop for DatagramLink {
    fn drop(&mut self) {
        if !self.shared.is_here() {
            // tokio's watch is the parent's.
            std::mem::forget(self.watched.take());
        }
    }
}

/// Returns whether an attempt is made again, once the socket is ready.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The receiving side of a datagram socket.
pub(crate) struct ReceivingDatagrams {
    link: Arc<DatagramLink>,
    inbox: Inbox,
    /// The place in the line of those that found no slot.
    ticket: Ticket,
    /// The slots that the next receive takes.
    run: usize,
    /// The slots of a receive; empty between receives.
    slots: Vec<Buffer>,
    /// The share of the slots that were received ahead.
    ahead: Option<Ahead>,
    end: EndWatch,
}

impl ReceivingDatagrams {
    pub(crate) fn new(link: Arc<DatagramLink>) -> ReceivingDatagrams {
        let end = EndWatch::new(&link.shared);
        ReceivingDatagrams {
            inbox: Inbox::new(!link.is_unix()),
            link,
            ticket: None,
            run: 1,
            slots: Vec::new(),
            ahead: None,
            end,
        }
    }

    /// Receives datagrams into `taken`: at least one, and up to `limit`.
    ///
    /// With `keeps` the caller hands out one of them now and the others later: these count as
    /// received ahead until the next call, and short ones are copied beyond a bound.
    pub(crate) fn poll_receive(
        &mut self,
        taken: &mut VecDeque<Datagram<Bytes>>,
        limit: usize,
        keeps: bool,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.ahead = None;
        let polled = self.poll_batch(taken, limit, keeps, context);
        if polled.is_pending() {
            self.end.register(context)?;
        }
        polled
    }

    fn poll_batch(
        &mut self,
        taken: &mut VecDeque<Datagram<Bytes>>,
        limit: usize,
        keeps: bool,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            self.link.check_open()?;
            let ready = ready!(self.link.socket().poll_read_ready(context));
            // tokio's only error is that of a runtime that ends.
            ready.map_err(|_| EngineEnd::Runtime.error())?;
            let first = match self.link.shared.try_claim() {
                Some(slot) => slot,
                None => ready!(self.poll_slot(context)),
            };
            match self.receive(first, limit) {
                Ok(came) => {
                    self.hand_out(came, taken, keeps);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if is_passing(&error) => self.run = 1,
                Err(error) => self.after_failure(error)?,
            }
        }
    }

    /// Receives into the first slot, and into others as far as the last receive promises to fill
    /// them. Returns the number of datagrams.
    fn receive(&mut self, first: Buffer, limit: usize) -> io::Result<usize> {
        self.slots.push(first);
        let wanted = self.run.min(limit).saturating_sub(1);
        if wanted > 0 {
            self.ahead = Some(self.link.shared.claim_ahead(wanted, &mut self.slots));
        }
        let (inbox, slots) = (&mut self.inbox, &mut self.slots);
        let attempt = |socket: BorrowedFd<'_>| inbox.receive(socket, slots);
        let received = self.link.socket().try_io(Interest::READABLE, attempt);
        let came = *received.as_ref().unwrap_or(&0);
        if came == self.slots.len() {
            self.run = (2 * came).min(DATAGRAMS_MAX);
        } else {
            self.run = came.max(1);
            self.slots.truncate(came);
        }
        received
    }

    /// Makes datagrams of the slots that were filled.
    fn hand_out(&mut self, came: usize, taken: &mut VecDeque<Datagram<Bytes>>, keeps: bool) {
        let mut kept = 0;
        for (index, slot) in self.slots.drain(..).enumerate() {
            let is_ahead = keeps && index > 0;
            let bytes = if slot.is_empty() {
                Bytes::new()
            } else if is_ahead && is_worth_a_copy(slot.len(), slot.capacity(), kept) {
                Bytes::copy_from_slice(&slot)
            } else {
                kept += usize::from(is_ahead);
                slot.freeze()
            };
            taken.push_back(self.inbox.datagram(index, bytes));
        }
        debug_assert!(came > 0);
        match &mut self.ahead {
            Some(ahead) if keeps => ahead.keep(kept),
            ahead => *ahead = None,
        }
    }

    /// Decides what follows an error: one of an earlier datagram is gone with this attempt.
    fn after_failure(&mut self, error: io::Error) -> io::Result<()> {
        let errno = error.raw_os_error().unwrap_or(0);
        match (Status::Failed { errno }).is_pending_error_of(&*self.link) {
            true => Ok(()),
            false => Err(error),
        }
    }

    #[cold]
    fn poll_slot(&mut self, context: &mut Context<'_>) -> Poll<Buffer> {
        let DatagramLink { shared, .. } = &*self.link;
        let (_, runtime) = self.link.watched();
        shared.line().poll_slot(runtime, &mut self.ticket, context)
    }
}

impl Drop for ReceivingDatagrams {
    fn drop(&mut self) {
        if self.link.shared.is_here() {
            self.link.shared.line().leave(&mut self.ticket);
        }
    }
}
