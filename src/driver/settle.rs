//! What becomes of reads, writes and sends: gone on with when short, finished, or taken out.
//!
//! # Safety
//!
//! Unsafe here: handing completions to the operation that the table says they belong to.
#![allow(unsafe_code)]

use io_uring::cqueue;

use super::key::Key;
use super::operation_table::Held;
use super::transfers::{Action, State};
use super::{Driver, Event, OperationId};
use crate::buffer::Payload;
use crate::uring::Progress;

impl Driver {
    /// Acts on a completion of the transfer at `key`.
    #[inline]
    pub(super) fn transferred<B>(
        &mut self,
        key: Key,
        completion: &cqueue::Entry,
    ) -> Option<Event<B>> {
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
        // SAFETY: the table knows the operation by the completion's generation, and takes each
        // completion from the queue once.
        match unsafe { operation.complete(completion) } {
            Progress::More(operation) => {
                let sent = operation.result_so_far();
                transfer.state = State::Running(operation);
                if !self.operations.is_in_flight(key) {
                    // The notification overtook the result: there is one more to come.
                    self.operations.note_pushed(key);
                }
                let is_all =
                    matches!(sent, Some(Ok(sent)) if transfer.done + sent == transfer.len());
                if is_all {
                    // Its bytes are in the socket's queue: the next one may follow, before the
                    // notification.
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
    pub(super) fn finish_transfer<B>(
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
