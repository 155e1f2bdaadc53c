//! One operation on a file or socket, or of an entry of the program's; and its memory.
//!
//! # Safety
//!
//! Unsafe here: telling memory how much the kernel wrote, on the caller's word.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;
use std::time::Instant;

use io_uring::{cqueue, opcode, squeue, types};

use crate::buffer::{Borrowed, Buffer, IoMemory, Payload, Span};
use crate::driver::arenas::Arenas;
use crate::driver::durability::Durability;
use crate::driver::files::{OpenFile, SendForm, Torn, Writes};
use crate::driver::{Event, OperationId, TransferError};
use crate::slab::Key;
use crate::sync::contain;
use crate::system::SendOptions;
use crate::uring::{Addressed, Descriptor, Operation};

/// The kind of a transfer.
///
/// | action     | memory                        | takes its turn    | a sync waits | event   |
/// |------------|-------------------------------|-------------------|--------------|---------|
/// | `Read`     | a buffer, or several          | no                | no           | `Read`  |
/// | `Write`    | a payload, or several         | on streams        | yes          | `Wrote` |
/// | `Send`     | a payload, several, addressed | but UDP           | no           | `Sent`  |
/// | `ShutDown` | none                          | yes               | no           | `Done`  |
/// | `Allocate` | none                          | no                | yes          | `Done`  |
/// | `Sync`     | none                          | behind all writes | yes          | `Done`  |
/// | `Entry`    | the program's                 | it has no file    | no           | several |
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    /// Reads this many bytes at most.
    Read(usize),
    Write,
    Send(SendOptions),
    /// Ends the sending direction.
    ShutDown,
    /// Reserves this many bytes.
    Allocate(u64),
    Sync(Extent),
    /// An entry of the program's.
    Entry(EntryState),
}

/// The part of a file that is to be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Bytes and metadata.
    All,
    /// Bytes, and what is needed to find them.
    Data,
    /// These many bytes, and nothing of the metadata.
    Range(u32),
}

/// The completions of an entry of the program's that have come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryState {
    /// The entry may have a notification behind its result.
    pub(super) is_zero_copy: bool,
    pub(super) has_result: bool,
    pub(super) has_notification: bool,
}

impl EntryState {
    /// The opcodes of zero-copy sends, which may have a notification behind their result.
    const ZERO_COPY: [u8; 2] = [opcode::SendZc::CODE, opcode::SendMsgZc::CODE];

    pub(crate) fn new(entry: &squeue::Entry) -> EntryState {
        let is_zero_copy =
            EntryState::ZERO_COPY.iter().any(|&of| u32::from(of) == entry.get_opcode());
        EntryState { is_zero_copy, has_result: false, has_notification: false }
    }

    /// Takes the flags of a completion in. Returns whether it is the last one of the entry.
    pub(super) fn is_last(&mut self, flags: u32) -> bool {
        if cqueue::notif(flags) {
            self.has_notification = true;
        } else if !cqueue::more(flags) {
            return true;
        } else {
            self.has_result = self.is_zero_copy;
        }
        self.has_result && self.has_notification
    }
}

/// The state of a transfer, with its memory.
///
/// | state       | the memory is                                 | goes on to                     |
/// |-------------|-----------------------------------------------|--------------------------------|
/// | `Queued`    | the driver's: to be pushed, or behind others  | `Running`, `Over`              |
/// | `Blocked`   | the driver's: the file is to be polled        | `Polling`, `Over`              |
/// | `Polling`   | the driver's: the kernel polls the file       | `Queued`, the event            |
/// | `Running`   | the kernel's, until the final completion      | `Queued`, `Blocked`, the event |
/// | `Pushed`    | the program's: the entry is the program's     | the last event                 |
/// | `Over`      | the driver's: the event tells the result      | the event                      |
/// | `Moving`    | on its way from one state to the next         | any                            |
pub(super) enum State {
    Queued(Memory),
    Blocked(Memory),
    Polling(Memory),
    Running(Operation<Memory>),
    Pushed,
    Over(Memory, Result<(), Failure>),
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
    /// An earlier sync of the file failed.
    NotDurable(i32),
}

impl Failure {
    pub(super) const CANCELLED: Failure = Failure::Errno(libc::ECANCELED);

    /// Returns the error number that a sync behind a write which failed so reports.
    fn errno(self) -> i32 {
        match self {
            Failure::Errno(errno) | Failure::NotDurable(errno) => errno,
            Failure::NoMore => libc::ENOSPC,
            Failure::Torn(_) => libc::EPIPE,
        }
    }

    fn into_error(self) -> io::Error {
        match self {
            Failure::Errno(errno) => io::Error::from_raw_os_error(errno),
            Failure::NoMore => io::Error::new(
                io::ErrorKind::WriteZero,
                "the file took a part of the bytes, and no more",
            ),
            Failure::Torn(Torn { done, len }) => TransferError::Torn { done, len }.into(),
            Failure::NotDurable(errno) => TransferError::NotDurable { errno }.into(),
        }
    }
}

/// The step after a try that the kernel has completed.
pub(super) enum Next {
    GoOn,
    Over(Result<(), Failure>),
}

/// One operation.
pub(crate) struct Transfer {
    /// The key of its file, if it has one.
    pub(super) file: Option<Key>,
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
    /// It was given up because its time was over.
    pub(super) timed_out: bool,
    /// It is an ordinary send: the kernel had no room for a zero-copy one, or would copy.
    pub(super) copies: bool,
    /// The times in a row that a socket took no message for now.
    pub(super) refusals: u8,
    /// The number of the program's. `None`: that of the file, as it is when the event is taken.
    pub(super) token: Option<u64>,
    /// The time when it is given up.
    pub(super) deadline: Option<Instant>,
    /// The number of the group of writes that it belongs to, if a sync waits for it.
    pub(super) group: u64,
}

impl Transfer {
    pub(crate) fn new(file: Option<Key>, action: Action, memory: Memory, offset: u64) -> Transfer {
        Transfer {
            file,
            position: 0,
            action,
            state: State::Queued(memory),
            offset,
            done: 0,
            copied: None,
            cancelled: false,
            timed_out: false,
            copies: false,
            refusals: 0,
            token: None,
            deadline: None,
            group: 0,
        }
    }

    #[inline]
    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self.state, State::Polling(_) | State::Running(_) | State::Pushed)
    }

    /// Returns whether the kernel has only to say that it is done with the memory: nothing hastens
    /// that but the end of the connection.
    pub(super) fn awaits_notification(&self) -> bool {
        match (self.action, &self.state) {
            (Action::Entry(entry), _) => entry.has_result,
            _ => self.result_so_far().is_some(),
        }
    }

    /// Ends a transfer, unless the kernel has it or it is over. Returns `true` if it did.
    pub(super) fn fail(&mut self, failure: Failure) -> bool {
        self.end_unpushed(Err(failure))
    }

    /// Ends a transfer as [`fail`](Self::fail) does, with a result.
    pub(super) fn end_unpushed(&mut self, result: Result<(), Failure>) -> bool {
        match self.state.take() {
            State::Queued(memory) | State::Blocked(memory) => {
                self.state = State::Over(memory, result);
                true
            }
            state => {
                self.state = state;
                false
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over(..))
    }

    /// Returns the result of a transfer that no completion ended.
    pub(super) fn result(&self) -> Option<Result<(), Failure>> {
        match self.state {
            State::Over(_, result) => Some(result),
            _ => None,
        }
    }

    /// Returns whether the transfer takes its turn in the queue of its file.
    pub(super) fn takes_turns(&self, file: &OpenFile) -> bool {
        match self.action {
            Action::Write => file.writes != Writes::AtOffsets,
            Action::Send(_) => file.writes != Writes::Datagrams,
            Action::ShutDown => true,
            Action::Read(_) | Action::Sync(_) | Action::Allocate(_) | Action::Entry(_) => false,
        }
    }

    /// Returns whether a sync that is asked for later waits for the transfer.
    pub(super) fn is_write(&self) -> bool {
        matches!(self.action, Action::Write | Action::Allocate(_))
    }

    /// Returns whether the transfer is a sync, or what syncs wait for.
    pub(super) fn is_ordered_by_syncs(&self) -> bool {
        self.is_write() || matches!(self.action, Action::Sync(_))
    }

    /// Leaves the order of writes and syncs of its file, with its result.
    pub(super) fn leave_order(
        &self,
        key: Key,
        result: Result<(), Failure>,
        durability: &mut Durability,
    ) {
        match self.action {
            Action::Write => durability.end_write(self.group, Transfer::errno_of(result)),
            // No bytes of it could be called durable.
            Action::Allocate(_) => durability.end_write(self.group, None),
            Action::Sync(_) => durability.forget_sync(key),
            _ => {}
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
        memory: Memory,
        file: &OpenFile,
        arenas: &Arenas,
    ) -> (squeue::Entry, Operation<Memory>) {
        let arena = arenas.at(memory.address());
        // The kernel refuses any offset in a pipe or socket but zero.
        let has_offset = file.has_offsets || file.writes == Writes::AtOffsets;
        let offset = self.offset + if has_offset { self.done as u64 } else { 0 };
        let len_max = file.direct.map_or(usize::MAX, |alignment| alignment.len_max());
        match self.action {
            Action::Read(limit) => {
                arena.read_into(descriptor, memory, offset, len_max.min(limit - self.done))
            }
            Action::Write => arena.write_from(descriptor, memory, offset, self.done, len_max),
            Action::Send(mut options) => {
                if file.refuses_zero_copy || self.copies {
                    options = options.copied();
                }
                options = match file.send_form {
                    SendForm::Whole => options.wait_all(),
                    SendForm::AtOnce => options.in_parts().at_once(),
                    SendForm::Plain => options.in_parts(),
                };
                arena.send_from(descriptor, memory, options, self.done)
            }
            Action::Sync(extent) => {
                (sync_entry(descriptor, extent, self.offset), Operation::of_nothing(memory))
            }
            Action::Allocate(bytes) => {
                let entry = on!(descriptor, fd => opcode::Fallocate::new(fd, bytes).offset(offset));
                (entry, Operation::of_nothing(memory))
            }
            Action::ShutDown | Action::Entry(_) => unreachable!("the driver builds no entry of it"),
        }
    }

    /// Returns the number of bytes to write or send.
    pub(super) fn len(&self) -> usize {
        match &self.state {
            State::Queued(memory)
            | State::Blocked(memory)
            | State::Polling(memory)
            | State::Over(memory, _) => memory.len(),
            State::Running(operation) => operation.memory().len(),
            State::Pushed | State::Moving => 0,
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
                self.refusals = 0;
                self.after_moving(moved, file)
            }
            Err(libc::EINTR) => Next::GoOn,
            Err(libc::EAGAIN) if !file.has_offsets => {
                let is_message = file.writes == Writes::Messages;
                self.refusals = self.refusals.saturating_add(u8::from(is_message));
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
            (Action::Read(limit), State::Queued(memory)) => {
                file.has_offsets && can_go_on && self.done < limit && memory.has_room()
            }
            (Action::Write | Action::Send(_), _) => self.done < self.len(),
            _ => false,
        };
        let is_message = file.keeps_messages();
        match (is_short, can_go_on && !is_message) {
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
            libc::EOPNOTSUPP | libc::EINVAL => {
                std::mem::replace(&mut file.send_form, SendForm::Plain) != SendForm::Plain
            }
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
    pub(super) fn into_memory(self) -> Memory {
        match self.state {
            State::Queued(memory) | State::Blocked(memory) | State::Over(memory, _) => memory,
            State::Polling(_) | State::Running(_) | State::Pushed | State::Moving => {
                unreachable!("the kernel has it")
            }
        }
    }

    /// Returns the failure as the program is told it: a transfer that was given up because its time
    /// was over says so.
    pub(super) fn told(&self, failure: Failure) -> Failure {
        match failure {
            Failure::CANCELLED if self.timed_out => Failure::Errno(libc::ETIMEDOUT),
            failure => failure,
        }
    }

    /// Returns the error number that a sync reports for a write that ended so.
    pub(super) fn errno_of(result: Result<(), Failure>) -> Option<i32> {
        result.err().map(Failure::errno)
    }

    /// Returns the event that ends a transfer which the kernel does not have.
    pub(super) fn into_event<B>(
        self,
        id: OperationId,
        token: u64,
        result: Result<(), Failure>,
    ) -> Event<B> {
        let (offset, action, copied, done) = (self.offset, self.action, self.copied, self.done);
        let result = result.map_err(|failure| self.told(failure).into_error());
        let moved = result.map(|()| done);
        match (action, self.into_memory()) {
            (Action::Read(_), Memory::Buffer(buffer)) => {
                Event::Read { id, token, offset, result: moved, buffer }
            }
            (Action::Read(_), Memory::Buffers(buffers)) => {
                Event::ReadVectored { id, token, offset, result: moved, buffers }
            }
            (Action::Write, Memory::Payload(payload)) => {
                Event::Wrote { id, token, offset, result: moved, written: done, payload }
            }
            (Action::Write, Memory::Pieces(pieces)) => {
                Event::WroteVectored { id, token, offset, result: moved, written: done, pieces }
            }
            (Action::Send(_), Memory::Payload(payload)) => {
                Event::Sent { id, token, result: moved, sent: done, payload, copied }
            }
            (Action::Send(_), Memory::Addressed(addressed)) => {
                let payload = addressed.into_memory();
                Event::Sent { id, token, result: moved, sent: done, payload, copied }
            }
            (Action::Send(_), Memory::Pieces(pieces)) => {
                Event::SentVectored { id, token, result: moved, sent: done, pieces, copied }
            }
            (Action::Sync(_) | Action::Allocate(_) | Action::ShutDown, _) => {
                Event::Done { id, token, result: moved.map(drop) }
            }
            (_, memory) => unreachable!("no transfer has such memory: {memory:?}"),
        }
    }
}

/// Builds the entry of a sync.
fn sync_entry(descriptor: Descriptor, extent: Extent, offset: u64) -> squeue::Entry {
    match extent {
        Extent::All => on!(descriptor, fd => opcode::Fsync::new(fd)),
        Extent::Data => {
            on!(descriptor, fd => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC))
        }
        Extent::Range(bytes) => {
            let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
                | libc::SYNC_FILE_RANGE_WRITE
                | libc::SYNC_FILE_RANGE_WAIT_AFTER;
            on!(descriptor, fd => opcode::SyncFileRange::new(fd, bytes)
                .offset(offset)
                .flags(flags))
        }
    }
}

/// The pauses before a message is tried again that its socket refused though it was ready.
static PAUSES: [types::Timespec; 6] = [
    types::Timespec::new().nsec(1_000_000),
    types::Timespec::new().nsec(2_000_000),
    types::Timespec::new().nsec(4_000_000),
    types::Timespec::new().nsec(8_000_000),
    types::Timespec::new().nsec(16_000_000),
    types::Timespec::new().nsec(32_000_000),
];

/// Builds the entry that waits until a descriptor which is set not to block is ready.
///
/// A Unix socket that is not connected counts as ready while the queue of the message's receiver is
/// full. After a second refusal in a row the entry is a pause.
pub(super) fn poll_entry(descriptor: Descriptor, action: Action, refusals: u8) -> squeue::Entry {
    if let Some(pause) = usize::from(refusals).checked_sub(2) {
        return opcode::Timeout::new(&PAUSES[pause.min(PAUSES.len() - 1)]).build();
    }
    let events = if let Action::Read(_) = action { libc::POLLIN } else { libc::POLLOUT } as u32;
    on!(descriptor, fd => opcode::PollAdd::new(fd, events))
}

/// Builds an entry for either kind of descriptor.
macro_rules! on {
    ($descriptor:expr, $fd:ident => $opcode:expr) => {
        match $descriptor {
            Descriptor::Fd(fd) => {
                let $fd = types::Fd(fd);
                $opcode.build()
            }
            Descriptor::Fixed(index) => {
                let $fd = types::Fixed(index);
                $opcode.build()
            }
        }
    };
}
use on;

/// The memory of one transfer.
#[derive(Debug)]
pub(crate) enum Memory {
    /// A sync and the like has none.
    Nothing,
    Buffer(Buffer),
    Buffers(Vec<Buffer>),
    Payload(Payload),
    Pieces(Vec<Payload>),
    /// A datagram, with the address that it goes to.
    Addressed(Addressed<Payload>),
}

impl Memory {
    /// Returns the address by which the arena of the memory is found.
    pub(super) fn address(&self) -> usize {
        match self {
            Memory::Nothing => 0,
            Memory::Buffer(buffer) => buffer.as_ptr().addr(),
            Memory::Buffers(buffers) => buffers.first().map_or(0, |first| first.as_ptr().addr()),
            Memory::Payload(payload) => payload.address(),
            Memory::Pieces(pieces) => pieces.first().map_or(0, Payload::address),
            Memory::Addressed(addressed) => addressed.memory().address(),
        }
    }

    /// Collects the addresses of its pieces, by which their slots are found.
    pub(super) fn addresses(&self) -> Vec<usize> {
        match self {
            Memory::Nothing => Vec::new(),
            Memory::Buffers(buffers) => buffers.iter().map(|one| one.as_ptr().addr()).collect(),
            Memory::Pieces(pieces) => pieces.iter().map(Payload::address).collect(),
            memory => vec![memory.address()],
        }
    }

    /// Returns the number of slots that the memory keeps.
    pub(super) fn slot_count(&self) -> usize {
        match self {
            Memory::Nothing => 0,
            Memory::Buffer(_) => 1,
            Memory::Buffers(buffers) => buffers.len(),
            Memory::Payload(payload) => payload.slot_count(),
            Memory::Pieces(pieces) => pieces.iter().map(Payload::slot_count).sum(),
            Memory::Addressed(addressed) => addressed.memory().slot_count(),
        }
    }

    /// Returns the number of written bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Memory::Payload(payload) => payload.as_ref().len(),
            Memory::Nothing => 0,
            memory => {
                let mut bytes = 0;
                memory.written(&mut |span: Span| bytes += span.len);
                bytes
            }
        }
    }

    /// Returns the number of pieces that are not empty.
    pub(crate) fn piece_count(&self) -> usize {
        let mut count = 0;
        self.written(&mut |span: Span| count += usize::from(span.len > 0));
        count
    }

    /// Returns whether a read has room left.
    pub(super) fn has_room(&self) -> bool {
        let has_room = |buffer: &Buffer| buffer.len() < buffer.capacity();
        match self {
            Memory::Buffer(buffer) => has_room(buffer),
            Memory::Buffers(buffers) => buffers.iter().any(has_room),
            _ => false,
        }
    }
}

/// Calls the method of the memory in its variant.
macro_rules! each {
    ($memory:expr, $inner:ident => $call:expr, $nothing:expr) => {
        match $memory {
            Memory::Nothing => $nothing,
            Memory::Buffer($inner) => $call,
            Memory::Buffers($inner) => $call,
            Memory::Payload($inner) => $call,
            Memory::Pieces($inner) => $call,
            Memory::Addressed($inner) => $call,
        }
    };
}

impl IoMemory for Memory {}

impl Borrowed for Memory {
    fn is_list(&self) -> bool {
        matches!(self, Memory::Buffers(_) | Memory::Pieces(_))
    }

    fn message(&mut self, span: Span) -> Option<NonNull<u8>> {
        match self {
            Memory::Addressed(addressed) => addressed.message(span),
            _ => None,
        }
    }

    fn written(&self, each: &mut dyn FnMut(Span)) {
        each!(self, memory => memory.written(each), ());
    }

    fn room(&mut self, len_max: usize, each: &mut dyn FnMut(Span)) {
        each!(self, memory => memory.room(len_max, each), ());
    }

    unsafe fn advance(&mut self, len: usize) {
        // SAFETY: the caller's promise, passed on.
        each!(self, memory => unsafe { memory.advance(len) }, ());
    }

    fn extent(&self) -> usize {
        each!(self, memory => memory.extent(), 0)
    }

    fn quarantine(self) {
        each!(self, memory => memory.quarantine(), ());
    }
}

/// Drops memory of the program's. Returns `false` if its owner panicked, or the waker of a claim
/// that got its slot: that harms nothing of ours.
pub(crate) fn drop_memory<M>(memory: M) -> bool {
    contain("the drop of a payload", || drop(memory))
}
