//! The reads, writes and sends of a driver: asked for, and given to the kernel.
//!
//! # Safety
//!
//! Unsafe here: pushing entries. The table owns their memory, and the driver their file, until the
//! final completion.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;

use super::transfer::{Action, State, Transfer, poll_entry};
use crate::buffer::Payload;
use crate::driver::arenas::Arenas;
use crate::driver::files::Files;
use crate::driver::ids::Tag;
use crate::driver::submitter::Submitter;
use crate::driver::{DriverError, Event, OperationId, SubmitError};
use crate::slab::{Key, Slab};

/// The reads, writes and sends of one driver.
//
// Invariants: 1. Every entry of a transfer that the kernel has is of one in the table that is in
// flight, which owns the entry's memory; `in_flight` counts them. 2. A transfer keeps its file open
// until it leaves the table. 3. It leaves the table when its event is taken, not before, so that
// its id is not given out again. 4. The first send of a file's queue is in the table and not
// cancelled.
pub(crate) struct Transfers {
    pub(super) driver: u32,
    pub(super) table: Slab<Transfer>,
    pub(crate) in_flight: usize,
    /// Transfers that are pushed on the next turn.
    pub(crate) to_rearm: VecDeque<Key>,
    /// Events that no completion brings.
    pending_events: VecDeque<PendingEvent>,
    /// The transfers pushed: first tries and further ones.
    pub(crate) pushed: u64,
    /// The transfers that went on after a short or vain try.
    pub(crate) resumed: u64,
    pub(crate) zero_copy_sends: u64,
    pub(crate) zero_copy_sends_copied: u64,
}

/// An event that no completion brings.
enum PendingEvent {
    /// The transfer is cancelled.
    Cancelled(Key),
    /// The file is closed.
    FileClosed(Key),
}

impl Transfers {
    pub(crate) fn new(driver: u32) -> Transfers {
        Transfers {
            driver,
            table: Slab::new(Tag::INDICES),
            in_flight: 0,
            to_rearm: VecDeque::new(),
            pending_events: VecDeque::new(),
            pushed: 0,
            resumed: 0,
            zero_copy_sends: 0,
            zero_copy_sends_copied: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    #[inline]
    pub(crate) fn is_in_flight(&self, key: Key) -> bool {
        self.table.get(key).is_some_and(Transfer::is_in_flight)
    }

    /// Takes a transfer in, and pushes it unless it is a send behind another one.
    ///
    /// If the transfer cannot be taken its memory comes back with the reason.
    pub(crate) fn begin(
        &mut self,
        mut transfer: Transfer,
        files: &mut Files,
        arenas: &Arenas,
        submitter: &mut Submitter,
    ) -> Result<OperationId, SubmitError<Payload>> {
        let (file, is_send) = (transfer.file, matches!(transfer.action, Action::Send(_)));
        transfer.position = files.next_position(file);
        let key = self.table.insert(transfer).ok().expect("the driver has room");
        let waits = files.begin_operation(file, key, is_send);
        if !waits && let Err(error) = self.arm(key, files, arenas, submitter) {
            // Nothing was pushed: it goes back as it came.
            let transfer = self.remove(key, files, submitter).expect("just inserted");
            return Err(SubmitError::new(error, transfer.into_memory()));
        }
        Ok(OperationId::new(self.driver, key))
    }

    /// Pushes what is left of a transfer that the kernel does not have.
    fn arm(
        &mut self,
        key: Key,
        files: &Files,
        arenas: &Arenas,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        let Some(transfer) = self.table.get_mut(key) else { return Ok(()) };
        let Some(descriptor) = files.descriptor(transfer.file) else { return Ok(()) };
        match transfer.state.take() {
            State::Queued(memory) => {
                let refuses = files.get(transfer.file).is_some_and(|open| open.refuses_zero_copy);
                let (entry, operation) = transfer.build(descriptor, memory, refuses, arenas);
                self.pushed += 1;
                // SAFETY: the table owns the operation, which owns the memory; the driver owns the
                // descriptor.
                let pushed = unsafe { submitter.push(Tag::transfer(key), entry) };
                transfer.state = match pushed {
                    Ok(()) => State::Running(operation),
                    // SAFETY: the entry was not pushed.
                    Err(_) => State::Queued(unsafe { operation.not_submitted() }),
                };
                pushed?;
            }
            State::Blocked(memory) => {
                let entry = poll_entry(descriptor, transfer.action);
                // SAFETY: the entry refers to no memory, and the driver owns the descriptor.
                let pushed = unsafe { submitter.push(Tag::transfer(key), entry) };
                transfer.state = match pushed {
                    Ok(()) => State::Polling(memory),
                    Err(_) => State::Blocked(memory),
                };
                pushed?;
            }
            // Pushed already, or cancelled meanwhile.
            state => {
                transfer.state = state;
                return Ok(());
            }
        }
        self.in_flight += 1;
        Ok(())
    }

    /// Pushes what is to go on since the last turn.
    pub(crate) fn rearm(
        &mut self,
        files: &Files,
        arenas: &Arenas,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        while let Some(&key) = self.to_rearm.front() {
            self.arm(key, files, arenas, submitter)?;
            self.to_rearm.pop_front();
        }
        Ok(())
    }

    /// Gives a transfer up: at once if it waits its turn, else when the kernel says so.
    pub(crate) fn cancel(
        &mut self,
        id: OperationId,
        files: &mut Files,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        let key = id.key_in(self.driver)?;
        self.give_up(key, files, submitter)
    }

    /// Gives up every transfer of a file.
    pub(crate) fn abort(
        &mut self,
        file: Key,
        files: &mut Files,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        let keys = files.get(file).map_or_else(Vec::new, |open| open.operations.clone());
        for key in keys {
            self.give_up(key, files, submitter)?;
        }
        self.close_if_idle(file, files, submitter);
        Ok(())
    }

    /// Closes a file that is to be closed if nothing names it.
    pub(crate) fn close_if_idle(&mut self, file: Key, files: &mut Files, submitter: &Submitter) {
        if files.close_if_idle(file, submitter) {
            self.pending_events.push_back(PendingEvent::FileClosed(file));
        }
    }

    fn give_up(
        &mut self,
        key: Key,
        files: &mut Files,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        let transfer = self.table.get_mut(key).ok_or(DriverError::UnknownOperation)?;
        if transfer.is_in_flight() {
            transfer.cancelled = true;
            let can_end = !transfer.awaits_notification();
            return if can_end { submitter.cancel(Tag::transfer(key)) } else { Ok(()) };
        }
        match transfer.state.take() {
            State::Queued(memory) | State::Blocked(memory) => {
                transfer.state = State::Cancelled(memory);
                let file = transfer.file;
                self.pending_events.push_back(PendingEvent::Cancelled(key));
                self.next_send(key, file, files);
            }
            state => transfer.state = state,
        }
        Ok(())
    }

    /// Makes the next send the first of its file, to be armed, if `key` is the first.
    pub(super) fn next_send(&mut self, key: Key, file: Key, files: &mut Files) {
        let Some(open) = files.get_mut(file) else { return };
        if open.sends.front() != Some(&key) {
            return;
        }
        open.sends.pop_front();
        // Sends that were cancelled behind the first one stand in the queue until they are met.
        while let Some(&next) = open.sends.front() {
            let transfer = self.table.get(next);
            if transfer.is_some_and(|next| !matches!(next.state, State::Cancelled(_))) {
                self.to_rearm.push_back(next);
                return;
            }
            open.sends.pop_front();
        }
    }

    /// Removes a transfer that the kernel does not have.
    pub(super) fn remove(
        &mut self,
        key: Key,
        files: &mut Files,
        submitter: &Submitter,
    ) -> Option<Transfer> {
        let transfer = self.table.remove(key)?;
        self.next_send(key, transfer.file, files);
        if let Some(moved) = files.end_operation(transfer.file, transfer.position)
            && let Some(moved) = self.table.get_mut(moved)
        {
            moved.position = transfer.position;
        }
        self.close_if_idle(transfer.file, files, submitter);
        Some(transfer)
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.pending_events.is_empty()
    }

    /// Takes the next event that no completion brings.
    pub(crate) fn next_event<B>(
        &mut self,
        files: &mut Files,
        submitter: &Submitter,
    ) -> Option<Event<B>> {
        while let Some(event) = self.pending_events.pop_front() {
            let key = match event {
                PendingEvent::Cancelled(key) => key,
                PendingEvent::FileClosed(key) => {
                    return Some(Event::FileClosed { id: files.remove_closed(key) });
                }
            };
            if let Some(transfer) = self.remove(key, files, submitter) {
                let result = Err(io::Error::from_raw_os_error(libc::ECANCELED));
                return Some(transfer.into_event(OperationId::new(self.driver, key), result));
            }
        }
        None
    }

    /// Gives every transfer up, and removes those that the kernel does not have.
    pub(crate) fn cancel_all(&mut self, files: &mut Files, submitter: &Submitter) {
        for key in self.table.keys() {
            let Some(transfer) = self.table.get_mut(key) else { continue };
            transfer.cancelled = true;
            if !transfer.is_in_flight() {
                self.remove(key, files, submitter);
            }
        }
        self.to_rearm.clear();
    }

    /// Collects the tags of the operations that the kernel has, and can end.
    pub(crate) fn tags_to_cancel(&self) -> impl Iterator<Item = Tag> {
        let is_wanted =
            |transfer: &Transfer| transfer.is_in_flight() && !transfer.awaits_notification();
        let wanted = self.table.iter().filter(move |(_, transfer)| is_wanted(transfer));
        wanted.map(|(key, _)| Tag::transfer(key))
    }

    /// Returns whether the notification of a send is to be expected within a moment. That of a send
    /// whose bytes the peer does not let out of the socket is not.
    pub(crate) fn await_notifications(&self, files: &Files) -> bool {
        let mut waiting = self.table.iter().filter(|(_, transfer)| transfer.awaits_notification());
        waiting.any(|(_, send)| files.get(send.file).is_none_or(|open| !open.has_unsent_bytes()))
    }

    /// Iterates over the addresses of the memory that the kernel has.
    pub(crate) fn addresses_running(&self) -> impl Iterator<Item = usize> {
        self.table.iter().filter_map(|(_, transfer)| match &transfer.state {
            State::Running(operation) => Some(operation.address()),
            _ => None,
        })
    }
}
