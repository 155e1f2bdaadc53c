//! One read, write or send.

use std::io;

use io_uring::{opcode, squeue, types};

use crate::buffer::Payload;
use crate::driver::arenas::Arenas;
use crate::driver::files::{OpenFile, Torn, Writes};
use crate::driver::{Event, OperationId, TransferError};
use crate::slab::Key;
use crate::sync::contain;
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
/// | `Queued`    | the driver's: to be pushed, or behind others  | `Running`, `Over`              |
/// | `Blocked`   | the driver's: the file is to be polled        | `Polling`, `Over`              |
/// | `Polling`   | the driver's: the kernel polls the file       | `Queued`, the event            |
/// | `Running`   | the kernel's, until the final completion      | `Queued`, `Blocked`, the event |
/// | `Over`      | the driver's: the event tells the failure     | the event                      |
/// | `Moving`    | on its way from one state to the next         | any                            |
pub(super) enum State {
    Queued(Payload),
    Blocked(Payload),
    Polling(Payload),
    Running(Operation<Payload>),
    Over(Payload, Failure),
    Moving,
}

impl State {
    pub(super) fn take(&mut self) -> State {
        std::mem::replace(self, State::Moving)
    }
}

/// The reason why a transfer did not move all of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Errno(i32),
    /// The file took no more bytes, and gave no error.
    NoMore,
    /// An earlier transfer tore the stream.
    Torn(Torn),
}

impl Failure {
    pub(super) const CANCELLED: Failure = Failure::Errno(libc::ECANCELED);

    fn into_error(self) -> io::Error {
        match self {
            Failure::Errno(errno) => io::Error::from_raw_os_error(errno),
            Failure::NoMore => io::Error::new(
                io::ErrorKind::WriteZero,
                "the file took a part of the bytes, and no more",
            ),
            Failure::Torn(Torn { done, len }) => TransferError::Torn { done, len }.into(),
        }
    }
}

/// The step after a try that the kernel has completed.
pub(super) enum Next {
    GoOn,
    Over(Result<(), Failure>),
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
    /// The kernel had no room for a zero-copy send of it: it goes on as an ordinary one.
    copies: bool,
}

impl Transfer {
    pub(crate) fn new(file: Key, action: Action, memory: Payload, offset: u64) -> Transfer {
        let state = State::Queued(memory);
        let (done, copied) = (0, None);
        Transfer {
            file,
            position: 0,
            action,
            state,
            offset,
            done,
            copied,
            cancelled: false,
            copies: false,
        }
    }

    #[inline]
    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self.state, State::Polling(_) | State::Running(_))
    }

    /// Returns whether the kernel has only to say that it is done with the memory: nothing hastens
    /// that but the end of the connection.
    pub(super) fn awaits_notification(&self) -> bool {
        self.result_so_far().is_some()
    }

    /// Ends a transfer, unless the kernel has it or it is over. Returns `true` if it did.
    pub(super) fn fail(&mut self, failure: Failure) -> bool {
        match self.state.take() {
            State::Queued(memory) | State::Blocked(memory) => {
                self.state = State::Over(memory, failure);
                true
            }
            state => {
                self.state = state;
                false
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.failure().is_some()
    }

    /// Returns the reason why a transfer is over that no completion ended.
    pub(super) fn failure(&self) -> Option<Failure> {
        match self.state {
            State::Over(_, failure) => Some(failure),
            _ => None,
        }
    }

    /// Returns whether the transfer takes its turn in the queue of its file.
    pub(super) fn takes_turns(&self, file: &OpenFile) -> bool {
        match self.action {
            Action::Read => false,
            Action::Write => file.writes != Writes::AtOffsets,
            Action::Send(_) => true,
        }
    }

    /// Returns whether the kernel has the result of a zero-copy send, and no further try follows:
    /// all bytes are in the socket's queue, or the send was given up.
    pub(super) fn moves_no_more(&self) -> bool {
        match self.result_so_far() {
            Some(Ok(sent)) => self.cancelled || self.done + sent == self.len(),
            Some(Err(_)) => self.cancelled,
            None => false,
        }
    }

    /// Returns the result of a zero-copy send whose notification is to come.
    fn result_so_far(&self) -> Option<io::Result<usize>> {
        match &self.state {
            State::Running(operation) => operation.result_so_far(),
            _ => None,
        }
    }

    /// Returns the tear that the transfer leaves behind if it ends now.
    pub(super) fn tear(&self, file: &OpenFile) -> Option<Torn> {
        let so_far = self.result_so_far().and_then(Result::ok).unwrap_or(0);
        let (done, len) = (self.done + so_far, self.len());
        let is_part = self.takes_turns(file) && 0 < done && done < len;
        (is_part && file.writes == Writes::Stream).then_some(Torn { done, len })
    }

    /// Builds the entry that moves what is left, or as much as one entry can.
    pub(super) fn build(
        &self,
        descriptor: Descriptor,
        memory: Payload,
        file: &OpenFile,
        arenas: &Arenas,
    ) -> (squeue::Entry, Operation<Payload>) {
        let arena = arenas.at(memory.address());
        // The kernel refuses any offset in a pipe or socket but zero.
        let has_offset = file.has_offsets || file.writes == Writes::AtOffsets;
        let offset = self.offset + if has_offset { self.done as u64 } else { 0 };
        let len_max = file.direct.map_or(usize::MAX, |alignment| alignment.len_max());
        match self.action {
            Action::Read => arena.read_into(descriptor, memory, offset, len_max),
            Action::Write => arena.write_from(descriptor, memory, offset, self.done, len_max),
            Action::Send(mut options) => {
                if file.refuses_zero_copy || self.copies {
                    options = options.zero_copy_from(usize::MAX);
                }
                options = match file.refuses_wait_all {
                    true => options.in_parts(),
                    false => options.wait_all(),
                };
                arena.send_from(descriptor, memory, options, self.done)
            }
        }
    }

    /// Returns the number of bytes to write or send.
    pub(super) fn len(&self) -> usize {
        match &self.state {
            State::Queued(memory)
            | State::Blocked(memory)
            | State::Polling(memory)
            | State::Over(memory, _) => memory.as_ref().len(),
            State::Running(operation) => operation.memory().as_ref().len(),
            State::Moving => 0,
        }
    }

    /// Takes in the result of a try, whose memory is back, and decides what follows.
    pub(super) fn after_try(
        &mut self,
        result: Result<usize, i32>,
        was_zero_copy: bool,
        file: &mut OpenFile,
    ) -> Next {
        match result {
            Ok(moved) => {
                self.done += moved;
                self.after_moving(moved, file)
            }
            Err(libc::EINTR) => Next::GoOn,
            Err(libc::EAGAIN) if !file.has_offsets => {
                if let State::Queued(memory) = self.state.take() {
                    self.state = State::Blocked(memory);
                }
                Next::GoOn
            }
            Err(errno) if self.gives_way(errno, was_zero_copy, file) => Next::GoOn,
            Err(errno) => Next::Over(Err(Failure::Errno(errno))),
        }
    }

    /// Decides what follows a try that moved `moved` bytes.
    fn after_moving(&self, moved: usize, file: &OpenFile) -> Next {
        let can_go_on = moved > 0 && file.direct.is_none_or(|alignment| alignment.may_go_on(moved));
        let is_short = match (self.action, &self.state) {
            // Only a file brings less than there is room for and more after that.
            (Action::Read, State::Queued(Payload::Buffer(buffer))) => {
                file.has_offsets && can_go_on && buffer.len() < buffer.capacity()
            }
            (Action::Read, _) => false,
            (Action::Write | Action::Send(_), _) => self.done < self.len(),
        };
        match (is_short, can_go_on && file.writes != Writes::Messages) {
            (false, _) => Next::Over(Ok(())),
            (true, true) => Next::GoOn,
            (true, false) => Next::Over(Err(Failure::NoMore)),
        }
    }

    /// Decides whether a simpler form of a send is tried after a refusal of this one.
    ///
    /// A socket that does not know a form is sent to without it from then on.
    fn gives_way(&mut self, errno: i32, was_zero_copy: bool, file: &mut OpenFile) -> bool {
        let Action::Send(_) = self.action else { return false };
        match errno {
            libc::EOPNOTSUPP | libc::EINVAL if was_zero_copy => {
                file.refuses_zero_copy = true;
                true
            }
            // As `tls_sw_sendmsg` of the kernel answers a flag that it does not know.
            libc::EOPNOTSUPP | libc::EINVAL => !std::mem::replace(&mut file.refuses_wait_all, true),
            // Room that an ordinary send does not need, or pages that make no datagram.
            libc::ENOMEM | libc::ENOBUFS | libc::EMSGSIZE if was_zero_copy => {
                self.copies = true;
                true
            }
            _ => false,
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
            State::Queued(memory) | State::Blocked(memory) | State::Over(memory, _) => memory,
            State::Polling(_) | State::Running(_) | State::Moving => {
                unreachable!("the kernel has it")
            }
        }
    }

    /// Returns the event that ends a transfer which the kernel does not have.
    pub(super) fn into_event<B>(self, id: OperationId, result: Result<(), Failure>) -> Event<B> {
        let (offset, action, copied, done) = (self.offset, self.action, self.copied, self.done);
        let result = result.map(|()| done).map_err(Failure::into_error);
        match (action, self.into_memory()) {
            (Action::Read, Payload::Buffer(buffer)) => Event::Read { id, offset, result, buffer },
            (Action::Read, _) => unreachable!("reads have buffers"),
            (Action::Write, payload) => Event::Wrote { id, offset, result, written: done, payload },
            (Action::Send(_), payload) => Event::Sent { id, result, sent: done, payload, copied },
        }
    }
}

/// Drops memory of the program's. Returns `false` if its owner panicked, or the waker of a claim
/// that got its slot: that harms nothing of ours.
pub(crate) fn drop_memory<M>(memory: M) -> bool {
    contain("the drop of a payload", || drop(memory))
}

/// Builds the entry that waits until a descriptor which is set not to block is ready.
pub(super) fn poll_entry(descriptor: Descriptor, action: Action) -> squeue::Entry {
    let events = if let Action::Read = action { libc::POLLIN } else { libc::POLLOUT } as u32;
    match descriptor {
        Descriptor::Fd(fd) => opcode::PollAdd::new(types::Fd(fd), events).build(),
        Descriptor::Fixed(index) => opcode::PollAdd::new(types::Fixed(index), events).build(),
    }
}
