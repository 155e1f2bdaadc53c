//! One read, write or send.

use std::io;

use io_uring::{opcode, squeue, types};

use crate::buffer::Payload;
use crate::driver::arenas::Arenas;
use crate::driver::files::OpenFile;
use crate::driver::{Event, OperationId};
use crate::slab::Key;
use crate::uring::{Descriptor, Operation, SendOptions};

/// The kind of a transfer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Read,
    Write,
    Send(SendOptions),
}

/// The state of a transfer, with its memory.
///
/// | state       | the memory is                                 | goes on to                     |
/// |-------------|-----------------------------------------------|--------------------------------|
/// | `Queued`    | the driver's: to be pushed, or behind a send  | `Running`, `Cancelled`         |
/// | `Blocked`   | the driver's: the file is to be polled        | `Polling`, `Cancelled`         |
/// | `Polling`   | the driver's: the kernel polls the file       | `Queued`                       |
/// | `Running`   | the kernel's, until the final completion      | `Queued`, `Blocked`, the event |
/// | `Cancelled` | the driver's: the event says `ECANCELED`      | the event                      |
/// | `Moving`    | on its way from one state to the next         | any                            |
pub(super) enum State {
    Queued(Payload),
    Blocked(Payload),
    Polling(Payload),
    Running(Operation<Payload>),
    Cancelled(Payload),
    Moving,
}

impl State {
    pub(super) fn take(&mut self) -> State {
        std::mem::replace(self, State::Moving)
    }
}

/// One read, write or send.
pub(crate) struct Transfer {
    /// The key of its file.
    pub(super) file: Key,
    /// The position among the operations of its file.
    pub(super) position: usize,
    pub(super) action: Action,
    pub(super) state: State,
    /// The offset in the file where it began, in bytes.
    pub(super) offset: u64,
    /// The bytes moved so far.
    pub(super) done: usize,
    pub(super) copied: Option<bool>,
    /// The program gave it up while the kernel had it: it does not go on.
    pub(super) cancelled: bool,
}

impl Transfer {
    pub(crate) fn new(file: Key, action: Action, memory: Payload, offset: u64) -> Transfer {
        Transfer {
            file,
            position: 0,
            action,
            state: State::Queued(memory),
            offset,
            done: 0,
            copied: None,
            cancelled: false,
        }
    }

    #[inline]
    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self.state, State::Polling(_) | State::Running(_))
    }

    /// Returns whether the kernel has only to say that it is done with the memory: nothing hastens
    /// that but the end of the connection.
    pub(super) fn awaits_notification(&self) -> bool {
        matches!(&self.state, State::Running(operation) if operation.result_so_far().is_some())
    }

    /// Builds the entry that moves what is left.
    pub(super) fn build(
        &self,
        descriptor: Descriptor,
        memory: Payload,
        refuses_zero_copy: bool,
        arenas: &Arenas,
    ) -> (squeue::Entry, Operation<Payload>) {
        let arena = arenas.at(memory.address());
        let offset = self.offset + self.done as u64;
        match self.action {
            Action::Read => arena.read_into(descriptor, memory, offset, usize::MAX),
            Action::Write => arena.write_from(descriptor, memory, offset, self.done),
            Action::Send(options) if refuses_zero_copy => {
                let options = options.zero_copy_from(usize::MAX);
                arena.send_from(descriptor, memory, options, self.done)
            }
            Action::Send(options) => arena.send_from(descriptor, memory, options, self.done),
        }
    }

    /// Returns the number of bytes to write or send.
    pub(super) fn len(&self) -> usize {
        match &self.state {
            State::Queued(memory) => memory.as_ref().len(),
            State::Running(operation) => self.done + operation.requested(),
            _ => 0,
        }
    }

    /// Returns whether there is more to move, after `moved` bytes came of the last try.
    pub(super) fn may_go_on(&self, moved: usize, file: &OpenFile) -> bool {
        if self.cancelled || moved == 0 {
            return false;
        }
        let is_aligned = file.direct.is_none_or(|alignment| alignment.may_go_on(moved));
        match self.action {
            Action::Read => {
                let State::Queued(Payload::Buffer(buffer)) = &self.state else { return false };
                file.has_offsets && buffer.len() < buffer.capacity() && is_aligned
            }
            Action::Write => file.has_offsets && self.done < self.len() && is_aligned,
            Action::Send(_) => self.done < self.len(),
        }
    }

    pub(super) fn note_copied(&mut self, copied: Option<bool>) {
        if let Some(copied) = copied {
            self.copied = Some(copied || self.copied == Some(true));
        }
    }

    /// Returns the memory of a transfer that the kernel does not have.
    pub(super) fn into_memory(self) -> Payload {
        match self.state {
            State::Queued(memory) | State::Blocked(memory) | State::Cancelled(memory) => memory,
            State::Polling(_) | State::Running(_) | State::Moving => {
                unreachable!("the kernel has it")
            }
        }
    }

    /// Returns the event that ends a transfer which the kernel does not have.
    pub(super) fn into_event<B>(self, id: OperationId, result: io::Result<usize>) -> Event<B> {
        let (offset, action, copied) = (self.offset, self.action, self.copied);
        match (action, self.into_memory()) {
            (Action::Read, Payload::Buffer(buffer)) => Event::Read { id, offset, result, buffer },
            (Action::Read, _) => unreachable!("reads have buffers"),
            (Action::Write, payload) => Event::Wrote { id, offset, result, payload },
            (Action::Send(_), payload) => Event::Sent { id, result, payload, copied },
        }
    }
}

/// Builds the entry that waits until a descriptor which is set not to block is ready.
pub(super) fn poll_entry(descriptor: Descriptor, action: Action) -> squeue::Entry {
    let events = if let Action::Read = action { libc::POLLIN } else { libc::POLLOUT } as u32;
    match descriptor {
        Descriptor::Fd(fd) => opcode::PollAdd::new(types::Fd(fd), events).build(),
        Descriptor::Fixed(index) => opcode::PollAdd::new(types::Fixed(index), events).build(),
    }
}
