//! Reads, writes and sends: begun, gone on with when short, finished.
//!
//! # Safety
//!
//! Unsafe here: pushing entries, whose memory and file the driver owns until the final completion; and handing completions to the
//! operation that the table says they belong to.
#![allow(unsafe_code)]

use io_uring::{cqueue, opcode, squeue, types};

use super::files::FileId;
use super::key::Key;
use super::operation_table::Held;
use super::transfers::{Action, State, Transfer};
use super::{Driver, Event, OperationId};
use crate::buffer::Buffer;
use crate::error::{DriverError, Refused, TransferError};
use crate::uring::{Descriptor, Operation, Payload, Progress, SendOptions};

impl Driver {
    /// Reads from `offset` of a file into the room of `buffer`, behind what it holds: a new buffer is filled from its start.
    ///
    /// [`Event::Read`] brings the buffer back. A read of a file that comes short goes on until the room is full or the file ends; one of a pipe or socket
    /// brings what there is (`offset` 0).
    ///
    /// # Errors
    ///
    /// The buffer back, and a [`TransferError`]: an unknown file, a buffer without room, an offset, length or address that an `O_DIRECT` file does not take, too many
    /// operations.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// # let mut driver = match Driver::builder().build() {
    /// #     Err(error) => { eprintln!("skipped: {error}"); return Ok(()) }
    /// #     Ok(driver) => driver,
    /// # };
    /// driver.register(&arena)?;
    /// let file = driver.file(std::fs::File::open("/proc/self/exe")?)?;
    /// let read = driver.read(file, arena.allocate()?, 0)?;
    /// let bytes = loop {
    ///     driver.wait()?;
    ///     if let Some(Event::Read { id, result, buffer, .. }) = driver.next() {
    ///         assert_eq!((id, result?), (read, 4096));
    ///         break buffer.freeze();
    ///     }
    /// };
    /// assert_eq!(bytes[..4], *b"\x7fELF");
    /// # Ok(())
    /// # }
    /// ```
    pub fn read(
        &mut self,
        file: FileId,
        buffer: Buffer,
        offset: u64,
    ) -> Result<OperationId, Refused<Buffer>> {
        if let Err(error) = self.check_read(file, &buffer, offset) {
            return Err(Refused { error, memory: buffer });
        }
        let refused = match self.begin(file, Action::Read, buffer.into(), offset) {
            Ok(id) => return Ok(id),
            Err(refused) => refused,
        };
        match refused.memory {
            Payload::Buffer(buffer) => Err(Refused { error: refused.error, memory: buffer }),
            _ => unreachable!("a buffer was given"),
        }
    }

    fn check_read(&self, file: FileId, buffer: &Buffer, offset: u64) -> Result<(), TransferError> {
        let place = self.file_place(file).ok_or(TransferError::UnknownFile)?;
        if buffer.len() == buffer.capacity() {
            return Err(TransferError::NoRoom { capacity: buffer.capacity() });
        }
        match self.files.get(place).and_then(|open| open.direct) {
            Some(alignment) => Ok(alignment.check_read(buffer, offset)?),
            None => Ok(()),
        }
    }

    /// Writes a buffer, [`ArenaBytes`](crate::ArenaBytes) or [`Bytes`](bytes::Bytes) to `offset` of a file, all of it.
    ///
    /// What lies in a registered arena, like bytes just received, is written from its slot, without a copy. [`Event::Wrote`] brings the memory
    /// back. Writes to pipes and sockets may come short; for sockets there is [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// The memory back, and a [`TransferError`], as for [`read`](Self::read).
    pub fn write(
        &mut self,
        file: FileId,
        memory: impl Into<Payload>,
        offset: u64,
    ) -> Result<OperationId, Refused<Payload>> {
        let memory = memory.into();
        let alignment =
            self.file_place(file).and_then(|place| self.files.get(place)).and_then(|open| open.direct);
        if let Some(Err(error)) = alignment.map(|it| it.check_write(memory.as_ref(), offset)) {
            return Err(Refused { error: error.into(), memory });
        }
        self.begin(file, Action::Write, memory, offset)
    }

    /// Sends a buffer, [`ArenaBytes`](crate::ArenaBytes) or [`Bytes`](bytes::Bytes) on a connected socket, all of it, behind what was given to be sent before.
    ///
    /// What lies in a registered arena goes out from its slot, zero-copy from [`SendOptions::ZERO_COPY_FROM`] bytes on.
    /// [`Event::Sent`] comes when the kernel is done with the memory, and brings it back.
    ///
    /// # Errors
    ///
    /// The memory back, and a [`TransferError`]: an unknown file, too many operations.
    pub fn send(
        &mut self,
        socket: FileId,
        memory: impl Into<Payload>,
    ) -> Result<OperationId, Refused<Payload>> {
        self.send_with(socket, memory, SendOptions::new())
    }

    /// As [`send`](Self::send), with another threshold.
    ///
    /// # Errors
    ///
    /// As for `send`.
    pub fn send_with(
        &mut self,
        socket: FileId,
        memory: impl Into<Payload>,
        options: SendOptions,
    ) -> Result<OperationId, Refused<Payload>> {
        self.begin(socket, Action::Send(options.wait_all()), memory.into(), 0)
    }

    /// Asks the kernel to give a read, write or send up. Its event tells what came of it: `ECANCELED`, or that it was done already.
    ///
    /// A disk that has begun an operation finishes it.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownOperation`] if it is over.
    pub fn cancel_operation(&mut self, id: OperationId) -> Result<(), DriverError> {
        let key = id.0;
        let Some(Held::Transfer(number)) = self.operations.get(key) else {
            return Err(DriverError::UnknownOperation);
        };
        let number = *number;
        self.transfers.get_mut(number).cancelled = true;
        if self.operations.is_in_flight(key) {
            return self.cancel(key);
        }
        // Waiting its turn: armed on the next one, which finds it cancelled.
        if !self.ended.contains(&key) {
            self.ended.push_back(key);
        }
        Ok(())
    }

    fn begin(
        &mut self,
        file: FileId,
        action: Action,
        memory: Payload,
        offset: u64,
    ) -> Result<OperationId, Refused<Payload>> {
        let Some(file) = self.file_place(file) else {
            return Err(Refused { error: TransferError::UnknownFile, memory });
        };
        let transfer = Transfer::new(file, action, memory, offset);
        let number = self.transfers.insert(transfer);
        let limit = self.operations.limit();
        let Ok(key) = self.operations.insert(Held::Transfer(number)) else {
            let error = DriverError::TooManyOperations { limit }.into();
            return Err(Refused { error, memory: self.transfers.remove(number).into_memory() });
        };
        let Some(open) = self.files.get_mut(file) else { unreachable!("looked up above") };
        open.operations += 1;
        if let Action::Send(_) = action {
            open.sends.push_back(key);
            if open.sends.len() > 1 {
                return Ok(OperationId(key));
            }
        }
        match self.arm_transfer(key) {
            Ok(()) => Ok(OperationId(key)),
            Err(error) => {
                // Nothing was pushed: it goes back as it came.
                let memory = self.forget_transfer(key).expect("just inserted");
                Err(Refused { error: error.into(), memory })
            }
        }
    }

    /// Pushes what is left of a transfer that is not in flight.
    pub(super) fn arm_transfer(&mut self, key: Key) -> Result<(), DriverError> {
        let Some(Held::Transfer(number)) = self.operations.get(key) else { return Ok(()) };
        let number = *number;
        let transfer = self.transfers.get_mut(number);
        let file = transfer.file;
        let Some(descriptor) = self.files.descriptor(file) else { return Ok(()) };
        if transfer.cancelled {
            let result = Err(std::io::Error::from_raw_os_error(libc::ECANCELED));
            let told = self.finish_transfer(key, result, None);
            self.told.extend(told);
            return Ok(());
        }
        if transfer.wants_poll {
            transfer.wants_poll = false;
            transfer.polling = true;
            let entry = poll_entry(descriptor, transfer.action);
            // SAFETY: the entry refers to no memory, and the driver owns the descriptor.
            return unsafe { self.push(key, entry) };
        }
        let State::Idle(memory) = transfer.state.take() else { return Ok(()) };
        let (entry, operation) = self.build(number, descriptor, memory);
        self.transfers.get_mut(number).state = State::Running(operation);
        self.metrics.transfers += 1;
        // SAFETY: the table owns the operation, which owns the memory; the driver owns the descriptor.
        let pushed = unsafe { self.push(key, entry) };
        if pushed.is_err() {
            let state = &mut self.transfers.get_mut(number).state;
            if let State::Running(operation) = state.take() {
                // SAFETY: the entry was not pushed.
                *state = State::Idle(unsafe { operation.not_submitted() });
            }
        }
        pushed
    }

    fn build(
        &mut self,
        number: u32,
        descriptor: Descriptor,
        memory: Payload,
    ) -> (squeue::Entry, Operation<Payload>) {
        let transfer = self.transfers.get_mut(number);
        let (done, offset) = (transfer.done, transfer.offset);
        match transfer.action {
            Action::Read => {
                let registered = self.arenas.of(memory.address());
                let (entry, operation) =
                    registered.read_into(descriptor, memory, offset + done as u64, usize::MAX);
                transfer.requested = operation.requested();
                (entry, operation)
            }
            Action::Write => {
                let registered = self.arenas.of(memory.address());
                registered.write_from(descriptor, memory, offset + done as u64, done)
            }
            Action::Send(options) => {
                let registered = self.arenas.of(memory.address());
                let refuses = self.files.get(transfer.file).is_some_and(|open| open.refuses_zero_copy);
                let options = if refuses { options.zero_copy_from(usize::MAX) } else { options };
                registered.send_from(descriptor, memory, options, done)
            }
        }
    }

    /// Acts on a completion of the transfer at `key`.
    #[inline]
    pub(super) fn transferred<B>(&mut self, key: Key, completion: &cqueue::Entry) -> Option<Event<B>> {
        let Some(Held::Transfer(number)) = self.operations.get(key) else { return None };
        let number = *number;
        let transfer = self.transfers.get_mut(number);
        if transfer.polling {
            transfer.polling = false;
            self.ended.push_back(key);
            return None;
        }
        let State::Running(operation) = transfer.state.take() else { return None };
        let was_zero_copy = operation.is_zero_copy();
        // SAFETY: the table knows the operation by the completion's generation, and takes each completion from the queue once.
        match unsafe { operation.complete(completion) } {
            Progress::More(operation) => {
                let sent = operation.result_so_far();
                transfer.state = State::Running(operation);
                if !self.operations.is_in_flight(key) {
                    // The notification overtook the result: there is one more to come.
                    self.operations.note_pushed(key);
                }
                let is_all = matches!(sent, Some(Ok(sent)) if transfer.done + sent == transfer.len());
                if is_all {
                    // Its bytes are in the socket's queue: the next one may follow, before the notification.
                    self.next_send(key, number);
                }
                None
            }
            Progress::Done { result, buffer, copied } => {
                transfer.state = State::Idle(buffer);
                transfer.note_copied(copied);
                self.settle_transfer(key, number, result, was_zero_copy)
            }
        }
    }

    /// Goes on with what is short, or finishes.
    fn settle_transfer<B>(
        &mut self,
        key: Key,
        number: u32,
        result: std::io::Result<usize>,
        was_zero_copy: bool,
    ) -> Option<Event<B>> {
        let transfer = self.transfers.get_mut(number);
        let Some(open) = self.files.get_mut(transfer.file) else {
            unreachable!("an operation keeps its file")
        };
        let again = match &result {
            Ok(moved) => {
                transfer.done += moved;
                transfer.may_go_on(*moved, open)
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => true,
                Some(libc::EAGAIN) if !open.has_offsets => {
                    transfer.wants_poll = true;
                    true
                }
                // Sockets that cannot: the next try, and all that follow, are ordinary sends.
                Some(libc::EOPNOTSUPP) if was_zero_copy => {
                    open.refuses_zero_copy = true;
                    true
                }
                _ => false,
            },
        };
        if again && !self.draining {
            self.metrics.resumed += 1;
            self.ended.push_back(key);
            return None;
        }
        let done = transfer.done;
        self.finish_transfer(key, result.map(|_| done), Some(was_zero_copy))
    }

    /// Ends a transfer that is not in flight.
    fn finish_transfer<B>(
        &mut self,
        key: Key,
        result: std::io::Result<usize>,
        was_zero_copy: Option<bool>,
    ) -> Option<Event<B>> {
        let Some(Held::Transfer(number)) = self.operations.get(key) else { return None };
        let number = *number;
        self.next_send(key, number);
        self.operations.remove(key);
        let transfer = self.transfers.remove(number);
        let (id, offset, action, copied) =
            (OperationId(key), transfer.offset, transfer.action, transfer.copied);
        self.leave_file(transfer.file);
        let payload = transfer.into_memory();
        if was_zero_copy == Some(true) {
            self.metrics.zero_copy_sends += 1;
            self.metrics.zero_copy_sends_copied += u64::from(copied == Some(true));
        }
        Some(match (action, payload) {
            (Action::Read, Payload::Buffer(buffer)) => Event::Read { id, offset, result, buffer },
            (Action::Read, _) => unreachable!("reads have buffers"),
            (Action::Write, payload) => Event::Wrote { id, offset, result, payload },
            (Action::Send(_), payload) => Event::Sent { id, result, payload, copied },
        })
    }

    /// If `key` is the first of its socket's sends, the next one becomes the first, and is armed.
    fn next_send(&mut self, key: Key, number: u32) {
        let file = self.transfers.get_mut(number).file;
        let Some(open) = self.files.get_mut(file) else { return };
        if open.sends.front() == Some(&key) {
            open.sends.pop_front();
            if let Some(next) = open.sends.front() {
                self.ended.push_back(*next);
            }
        } else {
            open.sends.retain(|other| *other != key);
        }
    }

    /// Takes out a transfer that is not in flight, with its memory.
    pub(super) fn forget_transfer(&mut self, key: Key) -> Option<Payload> {
        let Some(Held::Transfer(number)) = self.operations.get(key) else { return None };
        let number = *number;
        self.next_send(key, number);
        self.operations.remove(key);
        let transfer = self.transfers.remove(number);
        self.leave_file(transfer.file);
        Some(transfer.into_memory())
    }
}

/// Waits until the descriptor, which is set not to block, is ready.
fn poll_entry(descriptor: Descriptor, action: Action) -> squeue::Entry {
    let events = if let Action::Read = action { libc::POLLIN } else { libc::POLLOUT } as u32;
    match descriptor {
        Descriptor::Fd(fd) => opcode::PollAdd::new(types::Fd(fd), events).build(),
        Descriptor::Fixed(index) => opcode::PollAdd::new(types::Fixed(index), events).build(),
    }
}
