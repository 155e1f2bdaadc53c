//! Reads, writes and sends: asked for, and given to the kernel. What becomes of them is in
//! `settle`.
//!
//! # Safety
//!
//! Unsafe here: pushing entries, whose memory and file the driver owns until the final completion.
#![allow(unsafe_code)]

use io_uring::{opcode, squeue, types};

use super::files::FileId;
use super::key::Key;
use super::operation_table::Held;
use super::transfers::{Action, State, Transfer};
use super::{Driver, OperationId};
use crate::buffer::{Buffer, Payload};
use crate::error::{DriverError, SubmitError, TransferError};
use crate::uring::{Descriptor, Operation, SendOptions};

impl Driver {
    /// Reads from `offset` of a file into the room of `buffer`, behind what it holds: a new buffer
    /// is filled from its start.
    ///
    /// [`Event::Read`](super::Event::Read) brings the buffer back. A read of a file that comes
    /// short goes on until the room is full or the file ends; one of a pipe or socket brings what
    /// there is (`offset` 0).
    ///
    /// # Errors
    ///
    /// The buffer back, and a [`TransferError`]: an unknown file, a buffer without room, an offset,
    /// length or address that an `O_DIRECT` file does not take, too many operations.
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
    /// let file = driver.add_file(std::fs::File::open("/proc/self/exe")?)?;
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
    ) -> Result<OperationId, SubmitError<Buffer>> {
        if let Err(error) = self.check_read(file, &buffer, offset) {
            return Err(SubmitError { error, memory: buffer });
        }
        let refused = match self.begin(file, Action::Read, buffer.into(), offset) {
            Ok(id) => return Ok(id),
            Err(refused) => refused,
        };
        match refused.memory {
            Payload::Buffer(buffer) => Err(SubmitError { error: refused.error, memory: buffer }),
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

    /// Writes a buffer, [`ArenaBytes`](crate::ArenaBytes) or [`Bytes`](bytes::Bytes) to `offset` of
    /// a file, all of it.
    ///
    /// What lies in a registered arena, like bytes just received, is written from its slot, without
    /// a copy. [`Event::Wrote`](super::Event::Wrote) brings the memory back. Writes to pipes and
    /// sockets may come short; for sockets there is [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// The memory back, and a [`TransferError`], as for [`read`](Self::read).
    pub fn write(
        &mut self,
        file: FileId,
        memory: impl Into<Payload>,
        offset: u64,
    ) -> Result<OperationId, SubmitError<Payload>> {
        let memory = memory.into();
        let alignment = self
            .file_place(file)
            .and_then(|place| self.files.get(place))
            .and_then(|open| open.direct);
        if let Some(Err(error)) = alignment.map(|it| it.check_write(memory.as_ref(), offset)) {
            return Err(SubmitError { error: error.into(), memory });
        }
        self.begin(file, Action::Write, memory, offset)
    }

    /// Sends a buffer, [`ArenaBytes`](crate::ArenaBytes) or [`Bytes`](bytes::Bytes) on a connected
    /// socket, all of it, behind what was given to be sent before.
    ///
    /// What lies in a registered arena goes out from its slot, zero-copy from
    /// [`SendOptions::ZERO_COPY_FROM`] bytes on. [`Event::Sent`](super::Event::Sent) comes when the
    /// kernel is done with the memory, and brings it back.
    ///
    /// # Errors
    ///
    /// The memory back, and a [`TransferError`]: an unknown file, too many operations.
    pub fn send(
        &mut self,
        socket: FileId,
        memory: impl Into<Payload>,
    ) -> Result<OperationId, SubmitError<Payload>> {
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
    ) -> Result<OperationId, SubmitError<Payload>> {
        self.begin(socket, Action::Send(options.wait_all()), memory.into(), 0)
    }

    /// Asks the kernel to give a read, write or send up. Its event tells what came of it:
    /// `ECANCELED`, or that it was done already.
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
    ) -> Result<OperationId, SubmitError<Payload>> {
        let Some(file) = self.file_place(file) else {
            return Err(SubmitError { error: TransferError::UnknownFile, memory });
        };
        let transfer = Transfer::new(file, action, memory, offset);
        let number = self.transfers.insert(transfer);
        let limit = self.operations.limit();
        let Ok(key) = self.operations.insert(Held::Transfer(number)) else {
            let error = DriverError::TooManyOperations { limit }.into();
            return Err(SubmitError { error, memory: self.transfers.remove(number).into_memory() });
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
                Err(SubmitError { error: error.into(), memory })
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
        // SAFETY: the table owns the operation, which owns the memory; the driver owns the
        // descriptor.
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
                let refuses =
                    self.files.get(transfer.file).is_some_and(|open| open.refuses_zero_copy);
                let options = if refuses { options.zero_copy_from(usize::MAX) } else { options };
                registered.send_from(descriptor, memory, options, done)
            }
        }
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
