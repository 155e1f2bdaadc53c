//! The datagram sockets of a driver: what they receive goes to their queues, and what is to be sent
//! waits here until the driver takes it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use ::tokio::sync::{OwnedSemaphorePermit, oneshot};
use bytes::{BufMut, Bytes};

use super::stream_queue::StreamQueue;
use crate::arena::{BuddyArena, FixedArena};
use crate::buffer::Payload;
use crate::driver::{BufferRingId, Driver, DriverError, OperationId, SocketId, SubmitError};
use crate::runtime::tokio::engine::{EngineEnd, log_refusal};
use crate::runtime::tokio::send_queue::drop_contained;
use crate::slab::{Id, IdMap};
use crate::sync::{Arc, contain};
use crate::uring::{Datagram, Destination};

/// The most datagrams of one socket that the driver has at a time. More wait for these.
const SENDS_AHEAD: usize = 64;

type Queue = StreamQueue<Datagram<Bytes>>;

/// One request of a task about a datagram socket, which its queue stands for.
pub(crate) enum DatagramCommand {
    Open {
        socket: OwnedFd,
        queue: Arc<Queue>,
    },
    /// Stops receiving, because the receiving side is gone.
    Pause {
        queue: Arc<Queue>,
    },
    Resume {
        queue: Arc<Queue>,
    },
    Send {
        queue: Arc<Queue>,
        outgoing: Box<Outgoing>,
    },
    /// Closes the socket, behind what is to be sent.
    Close {
        queue: Arc<Queue>,
    },
}

/// A datagram to be sent.
pub(crate) struct Outgoing {
    pub(crate) payload: Payload,
    pub(crate) destination: Destination,
    /// The task that waits for the result, if one does.
    pub(crate) answer: Option<oneshot::Sender<io::Result<()>>>,
    /// The room among what is to be sent on the socket.
    pub(crate) room: OwnedSemaphorePermit,
}

impl Outgoing {
    /// Drops the datagram unsent, and tells the task why.
    fn fail(self, error: io::Error) {
        let Outgoing { payload, answer, room, .. } = self;
        drop_contained(payload);
        drop(room);
        tell(answer, Err(error));
    }
}

impl DatagramCommand {
    /// Drops the command undone, because the pool has ended.
    pub(super) fn cancel(self, error: &io::Error) {
        match self {
            DatagramCommand::Open { queue, .. } => queue.end(Err(clone_of(error))),
            DatagramCommand::Send { outgoing, .. } => outgoing.fail(clone_of(error)),
            _ => {}
        }
    }
}

/// A datagram socket of the driver.
struct Socket {
    queue: Arc<Queue>,
    /// The datagrams that the driver has not taken yet.
    waiting: VecDeque<Outgoing>,
    /// The sends that the driver has.
    under_way: usize,
    /// Both sides are gone: the socket is closed when nothing waits.
    is_released: bool,
}

/// A send that the driver has.
struct Sending {
    socket: SocketId,
    answer: Option<oneshot::Sender<io::Result<()>>>,
    _room: OwnedSemaphorePermit,
}

/// The datagram sockets of a dispatcher.
pub(super) struct DatagramSockets {
    sockets: IdMap<SocketId, Socket>,
    sends: IdMap<OperationId, Sending>,
    /// Sockets whose next datagram the driver could not take for now.
    stalled: Vec<SocketId>,
}

impl DatagramSockets {
    pub(super) fn new() -> DatagramSockets {
        DatagramSockets { sockets: IdMap::new(), sends: IdMap::new(), stalled: Vec::new() }
    }

    /// Returns the number of sockets.
    pub(super) fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Returns the number of sends that the driver has.
    pub(super) fn under_way(&self) -> usize {
        self.sends.len()
    }

    /// Returns whether nothing is left to be sent.
    pub(super) fn is_sent(&self) -> bool {
        self.sends.len() == 0 && self.sockets.iter().all(|socket| socket.waiting.is_empty())
    }

    /// Carries a command out. The sockets may have `ahead` sends under way together, besides one
    /// each. Returns the socket that was opened, if one was.
    pub(super) fn on_command(
        &mut self,
        driver: &mut Driver,
        ring: BufferRingId,
        command: DatagramCommand,
        ahead: usize,
    ) -> Option<SocketId> {
        match command {
            DatagramCommand::Open { socket, queue } => {
                match driver.receive_datagrams(ring, socket) {
                    Ok(id) => {
                        self.opened(driver, id, queue);
                        return Some(id);
                    }
                    Err(refused) => queue.end(Err(refused.error.into())),
                }
            }
            DatagramCommand::Pause { queue } => change(&queue, |id| driver.pause(id)),
            DatagramCommand::Resume { queue } => change(&queue, |id| driver.resume(id)),
            DatagramCommand::Send { queue, outgoing } => {
                let socket = queue.socket().and_then(|id| Some((id, self.sockets.get_mut(id)?)));
                let Some((id, socket)) = socket else {
                    let text = "the driver has closed the datagram socket, or has not taken it: its receiver is told why";
                    outgoing.fail(io::Error::new(io::ErrorKind::NotConnected, text));
                    return None;
                };
                socket.waiting.push_back(*outgoing);
                self.send_waiting(driver, id, ahead);
            }
            DatagramCommand::Close { queue } => {
                let id = queue.socket()?;
                if let Some(socket) = self.sockets.get_mut(id) {
                    socket.is_released = true;
                }
                self.close_if_done(driver, id);
            }
        }
        None
    }

    fn opened(&mut self, driver: &mut Driver, id: SocketId, queue: Arc<Queue>) {
        let is_wanted = queue.attach(id);
        let waiting = VecDeque::new();
        self.sockets.insert(id, Socket { queue, waiting, under_way: 0, is_released: false });
        if !is_wanted {
            log_refusal(driver.pause(id));
        }
    }

    /// Takes a datagram in. Returns whether it was copied out of its slot.
    pub(super) fn received(
        &mut self,
        driver: &mut Driver,
        id: SocketId,
        datagram: Datagram<Bytes>,
    ) -> bool {
        let Some(socket) = self.sockets.get(id) else {
            drop_contained(datagram);
            return false;
        };
        let pushed = socket.queue.push(datagram);
        if pushed.must_pause {
            log_refusal(driver.pause(id));
        }
        pushed.is_copied
    }

    pub(super) fn on_sent(
        &mut self,
        driver: &mut Driver,
        id: OperationId,
        result: io::Result<()>,
        ahead: usize,
    ) {
        let Some(Sending { socket: id, answer, _room }) = self.sends.remove(id) else { return };
        drop(_room);
        tell(answer, result);
        if let Some(socket) = self.sockets.get_mut(id) {
            socket.under_way -= 1;
            self.send_waiting(driver, id, ahead);
        }
    }

    pub(super) fn on_closed(&mut self, id: SocketId, error: Option<io::Error>) {
        let Some(socket) = self.sockets.remove(id) else { return };
        let closed = || io::Error::new(io::ErrorKind::NotConnected, "the socket was closed");
        for outgoing in socket.waiting {
            outgoing.fail(error.as_ref().map_or_else(closed, clone_of));
        }
        socket.queue.end(Err(error.unwrap_or_else(closed)));
    }

    /// Tries again what the driver could not take.
    pub(super) fn send_stalled(&mut self, driver: &mut Driver, ahead: usize) {
        for id in std::mem::take(&mut self.stalled) {
            self.send_waiting(driver, id, ahead);
        }
    }

    /// Gives the driver what waits on a socket, as far as the share of operations goes.
    fn send_waiting(&mut self, driver: &mut Driver, id: SocketId, ahead: usize) {
        while let Some(socket) = self.sockets.get_mut(id) {
            // Each socket may have one send under way: none waits for the peers of others.
            let may_send = match socket.under_way {
                0 => true,
                under_way => under_way < SENDS_AHEAD && self.sends.len() < ahead,
            };
            if !may_send {
                return;
            }
            let Some(outgoing) = socket.waiting.pop_front() else {
                return self.close_if_done(driver, id);
            };
            let Outgoing { payload, destination, answer, room } = outgoing;
            match driver.send_to(id, payload, destination.clone()) {
                Ok(operation) => {
                    socket.under_way += 1;
                    self.sends.insert(operation, Sending { socket: id, answer, _room: room });
                }
                Err(SubmitError { error, memory: payload, .. }) => {
                    let outgoing = Outgoing { payload, destination, answer, room };
                    if !error.is_passing() {
                        outgoing.fail(error.into());
                        continue;
                    }
                    socket.waiting.push_front(outgoing);
                    self.stalled.push(id);
                    return;
                }
            }
        }
    }

    /// Closes a socket whose sides are gone and that has nothing waiting. The driver closes it
    /// behind the sends that it has.
    fn close_if_done(&mut self, driver: &mut Driver, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(id)
            && socket.waiting.is_empty()
            && std::mem::take(&mut socket.is_released)
        {
            log_refusal(driver.close(id));
        }
    }

    /// Ends every socket and cancels every send, because the pool ends.
    pub(super) fn close_all(&mut self, driver: &mut Driver, error: &io::Error) {
        for id in self.sockets.ids() {
            let waiting = self.sockets.get_mut(id).map(|it| std::mem::take(&mut it.waiting));
            for outgoing in waiting.into_iter().flatten() {
                outgoing.fail(clone_of(error));
            }
            log_refusal(driver.close(id));
        }
        for id in self.sends.ids() {
            log_refusal(driver.cancel_operation(id));
        }
    }

    /// Tells every task that the engine has ended.
    pub(super) fn end_all(&mut self, end: EngineEnd) {
        for socket in self.sockets.drain() {
            socket.queue.end(Err(end.error()));
            socket.waiting.into_iter().for_each(|outgoing| outgoing.fail(end.error()));
        }
        self.sends.drain().for_each(|sending| tell(sending.answer, Err(end.error())));
    }
}

/// Changes the socket of a queue, if the driver has it.
fn change(queue: &Queue, change: impl FnOnce(SocketId) -> Result<(), DriverError>) {
    if let Some(id) = queue.socket() {
        log_refusal(change(id));
    }
}

/// Tells a task the result of its send.
fn tell(answer: Option<oneshot::Sender<io::Result<()>>>, result: io::Result<()>) {
    if let Some(answer) = answer {
        contain("an answer", || drop(answer.send(result)));
    } else if let Err(error) = result {
        tracing::debug!(%error, "a datagram was not sent");
    }
}

/// Returns an error that says the same.
fn clone_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// The memory that bytes are copied to, if they are only lent for a send.
#[derive(Debug, Clone)]
pub(crate) struct SendMemory {
    pub(super) blocks: Vec<BuddyArena>,
    pub(super) slots: FixedArena,
}

impl SendMemory {
    /// Copies bytes: to a block or a slot that is free, or else to the heap.
    pub(crate) fn copy(&self, bytes: &[u8]) -> Payload {
        let block = self.blocks.iter().find_map(|arena| arena.allocate_bytes(bytes.len()).ok());
        let slot = || match bytes.len() <= self.slots.slot_capacity() {
            true => self.slots.allocate().ok(),
            false => None,
        };
        match block.or_else(slot) {
            Some(mut buffer) => {
                buffer.put_slice(bytes);
                buffer.into()
            }
            None => Bytes::copy_from_slice(bytes).into(),
        }
    }
}

impl Id for SocketId {
    fn index(self) -> usize {
        SocketId::index(self)
    }
}

impl Id for OperationId {
    fn index(self) -> usize {
        OperationId::index(self)
    }
}
