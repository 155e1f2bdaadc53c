//! Completions of reads, writes and sends: a short one goes on, a finished one is an event.
//!
//! # Safety
//!
//! Unsafe here: handing a completion to the operation that the table says it belongs to.
#![allow(unsafe_code)]

use std::io;

use io_uring::cqueue;

use super::transfer::{Action, State};
use super::transfers::Transfers;
use crate::driver::files::Files;
use crate::driver::submitter::Submitter;
use crate::driver::{Event, OperationId};
use crate::slab::Key;
use crate::uring::Progress;

impl Transfers {
    /// Acts on a completion of a transfer that is in flight.
    #[inline]
    pub(crate) fn complete<B>(
        &mut self,
        key: Key,
        completion: &cqueue::Entry,
        files: &mut Files,
        submitter: &Submitter,
    ) -> Option<Event<B>> {
        let transfer = self.table.get_mut(key)?;
        let operation = match transfer.state.take() {
            State::Running(operation) => operation,
            State::Polling(memory) => {
                transfer.state = State::Queued(memory);
                self.in_flight -= 1;
                if transfer.cancelled {
                    return self.finish(key, Err(libc::ECANCELED), false, files, submitter);
                }
                self.to_rearm.push_back(key);
                return None;
            }
            _ => unreachable!("the kernel has it"),
        };
        let was_zero_copy = operation.is_zero_copy();
        // SAFETY: the tag's generation says that the completion is of this operation, and each
        // completion is taken from the queue once.
        match unsafe { operation.complete(completion) } {
            Progress::More(operation) => {
                let sent = operation.result_so_far();
                transfer.state = State::Running(operation);
                let (done, len, file) = (transfer.done, transfer.len(), transfer.file);
                if matches!(sent, Some(Ok(sent)) if done + sent == len) {
                    // All bytes are in the socket's queue: the next send may follow, before the
                    // notification.
                    self.next_send(key, file, files);
                }
                None
            }
            Progress::Done { result, buffer, copied } => {
                transfer.state = State::Queued(buffer);
                transfer.note_copied(copied);
                self.in_flight -= 1;
                let result = result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
                self.go_on_or_finish(key, result, was_zero_copy, files, submitter)
            }
        }
    }

    /// Goes on with a transfer that is short or was refused for now, or finishes it.
    fn go_on_or_finish<B>(
        &mut self,
        key: Key,
        result: Result<usize, i32>,
        was_zero_copy: bool,
        files: &mut Files,
        submitter: &Submitter,
    ) -> Option<Event<B>> {
        let transfer = self.table.get_mut(key)?;
        let Some(open) = files.get_mut(transfer.file) else {
            unreachable!("a transfer keeps its file")
        };
        let goes_on = match result {
            Ok(moved) => {
                transfer.done += moved;
                transfer.may_go_on(moved, open)
            }
            Err(libc::EINTR) => true,
            Err(libc::EAGAIN) if !open.has_offsets => {
                if let State::Queued(memory) = transfer.state.take() {
                    transfer.state = State::Blocked(memory);
                }
                true
            }
            // A socket that cannot: the next try, and all that follow, are ordinary sends.
            Err(libc::EOPNOTSUPP) if was_zero_copy => {
                open.refuses_zero_copy = true;
                true
            }
            Err(_) => false,
        };
        if goes_on && !transfer.cancelled {
            self.resumed += 1;
            self.to_rearm.push_back(key);
            return None;
        }
        let result = match result {
            Ok(_) => Ok(transfer.done),
            Err(_) if goes_on => Err(libc::ECANCELED),
            Err(errno) => Err(errno),
        };
        self.finish(key, result, was_zero_copy, files, submitter)
    }

    fn finish<B>(
        &mut self,
        key: Key,
        result: Result<usize, i32>,
        was_zero_copy: bool,
        files: &mut Files,
        submitter: &Submitter,
    ) -> Option<Event<B>> {
        let file = self.table.get(key)?.file;
        let was_aborted = files.get(file).is_some_and(|open| open.aborted);
        let transfer = self.remove(key, files, submitter)?;
        // The socket may have taken the bytes, but what it had to send was thrown away.
        let result = match transfer.action {
            Action::Send(_) if was_aborted => Err(libc::ECANCELED),
            _ => result,
        };
        if was_zero_copy {
            self.zero_copy_sends += 1;
            self.zero_copy_sends_copied += u64::from(transfer.copied == Some(true));
        }
        let result = result.map_err(io::Error::from_raw_os_error);
        Some(transfer.into_event(OperationId::new(self.driver, key), result))
    }
}
