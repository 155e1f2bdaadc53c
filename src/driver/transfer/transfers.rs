//! The reads, writes and sends of a driver: asked for, and given to the kernel.
//!
//! # Safety
//!
//! Unsafe here: pushing entries. The table owns their memory, and the driver their file, until the
//! final completion; the memory of the program's own entries is the program's. And reading the
//! bytes of such an entry.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::net::Shutdown;
use std::time::Instant;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};

use super::transfer::{
    Action, EntryState, Failure, Memory, State, Transfer, drop_memory, poll_entry,
};
use crate::driver::arenas::Arenas;
use crate::driver::durability::Ready;
use crate::driver::files::{FileEnd, Files};
use crate::driver::ids::Tag;
use crate::driver::submitter::Submitter;
use crate::driver::{DriverError, Event, OperationId, SubmitError};
use crate::slab::{Key, Slab};
use crate::system::shut_down;

/// The operations of one driver on files and sockets, and the entries of the program's.
//
// Invariants: 1. Every entry of a transfer that the kernel has is of one in the table that is in
// flight, which owns the entry's memory; `in_flight` counts them. 2. A transfer keeps its file open
// until it leaves the table. 3. It leaves the table when its event is taken, not before, so that
// its id is not given out again. 4. The first transfer of a file's queue is in the table and not
// over.
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
    /// The transfer is over.
    Over(Key),
    /// A file, or a sending direction, is over.
    FileEnd(Key, FileEnd),
}

/// A thing that [`Transfers::next_event`] finds.
pub(crate) enum Found<B> {
    Event(Event<B>),
    /// The sending direction of a socket is over, with an error of the connection or without.
    SendingEnded(Key, Option<i32>),
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

    /// Takes a transfer in, and pushes it unless others of its file go before it.
    ///
    /// If the transfer cannot be taken its memory comes back with the reason.
    pub(crate) fn begin(
        &mut self,
        transfer: Transfer,
        files: &mut Files,
        arenas: &Arenas,
        submitter: &mut Submitter,
    ) -> Result<OperationId, SubmitError<Memory>> {
        let key = self.table.insert(transfer).ok().expect("the driver has room");
        if self.may_go(key, files)
            && let Err(error) = self.arm(key, files, arenas, submitter)
        {
            // Nothing was pushed: it goes back as it came.
            let transfer = self.remove(key, files, submitter, Ok(())).expect("just inserted");
            return Err(SubmitError::new(error, transfer.into_memory()));
        }
        Ok(OperationId::new(self.driver, key))
    }

    /// Enters a transfer with its file. Returns `true` if it may be pushed at once.
    ///
    /// A transfer behind a tear is over: its event tells so.
    fn may_go(&mut self, key: Key, files: &mut Files) -> bool {
        let file = self.table.get(key).and_then(|transfer| transfer.file);
        let (Some(transfer), Some(open)) =
            (self.table.get_mut(key), file.and_then(|file| files.get_mut(file)))
        else {
            unreachable!("the caller has looked the file up")
        };
        transfer.position = open.operations.len();
        open.operations.push(key);
        if transfer.is_write() {
            transfer.group = open.durability().begin_write();
        }
        if let Action::Sync(_) = transfer.action {
            open.durability().begin_sync(key);
            self.push_ready_sync(file, files);
            return false;
        }
        if !transfer.takes_turns(open) {
            return true;
        }
        if let Some(torn) = open.torn {
            transfer.fail(Failure::Torn(torn));
            self.pending_events.push_back(PendingEvent::Over(key));
            return false;
        }
        open.queue.push_back(key);
        open.queue.len() == 1 && !open.is_connecting
    }

    /// Has the next sync of a file pushed that need not wait any more; or ends it if a write or a
    /// sync before it failed.
    pub(super) fn push_ready_sync(&mut self, file: Option<Key>, files: &mut Files) {
        let Some(open) = file.and_then(|file| files.get(file)) else { return };
        let mut durability = open.durability();
        while let Some(ready @ Ready { sync, failed_write }) = durability.next_ready() {
            let transfer = self.table.get_mut(sync).filter(|transfer| !transfer.is_over());
            let Some(transfer) = transfer else {
                // It was given up.
                durability.skip(ready);
                continue;
            };
            let failure = match (failed_write, durability.failed()) {
                (Some(errno), _) => Failure::Errno(errno),
                (None, Some(errno)) => Failure::NotDurable(errno),
                (None, None) => {
                    self.to_rearm.push_back(sync);
                    return;
                }
            };
            durability.end_sync(None);
            transfer.fail(failure);
            self.pending_events.push_back(PendingEvent::Over(sync));
        }
    }

    /// Lets what waits for a connection go, now that it is made.
    pub(crate) fn connected(&mut self, file: Key, files: &mut Files) {
        let Some(open) = files.get_mut(file) else { return };
        open.is_connecting = false;
        self.to_rearm.extend(open.queue.front());
    }

    /// Pushes what is left of a transfer that the kernel does not have.
    fn arm(
        &mut self,
        key: Key,
        files: &mut Files,
        arenas: &Arenas,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        let Some(transfer) = self.table.get_mut(key) else { return Ok(()) };
        let Some(file) = transfer.file else { return Ok(()) };
        let Some(descriptor) = files.descriptor(file) else { return Ok(()) };
        let Some(open) = files.get_mut(file) else { return Ok(()) };
        if let (Action::ShutDown, Some(fd)) = (transfer.action, open.as_fd()) {
            let failure = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO);
            let result =
                shut_down(fd, Shutdown::Write).map_err(|error| Failure::Errno(failure(error)));
            open.is_shut_down = true;
            if transfer.end_unpushed(result) {
                self.pending_events.push_back(PendingEvent::Over(key));
                self.leave_queue(key, files);
            }
            return Ok(());
        }
        match transfer.state.take() {
            State::Queued(memory) => {
                if let Action::Send(options) = transfer.action {
                    transfer.copies |= open.takes_ordinary(options, || memory.len());
                }
                let (entry, operation) = transfer.build(descriptor, memory, open, arenas);
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
                let entry = poll_entry(descriptor, transfer.action, transfer.refusals);
                // SAFETY: the entry refers to no memory, or to what is never written, and the
                // driver owns the descriptor.
                let pushed = unsafe { submitter.push(Tag::transfer(key), entry) };
                transfer.state = match pushed {
                    Ok(()) => State::Polling(memory),
                    Err(_) => State::Blocked(memory),
                };
                pushed?;
            }
            // Pushed already, or over.
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
        files: &mut Files,
        arenas: &Arenas,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        while let Some(&key) = self.to_rearm.front() {
            self.arm(key, files, arenas, submitter)?;
            self.to_rearm.pop_front();
        }
        Ok(())
    }

    /// Sets the token of a transfer.
    pub(crate) fn set_token(&mut self, id: OperationId, token: u64) -> Result<(), DriverError> {
        self.by_id(id)?.1.token = Some(token);
        Ok(())
    }

    /// Sets the time when a transfer is given up. Returns its key.
    pub(crate) fn set_deadline(
        &mut self,
        id: OperationId,
        at: Option<Instant>,
    ) -> Result<Key, DriverError> {
        let (key, transfer) = self.by_id(id)?;
        transfer.deadline = at;
        Ok(key)
    }

    /// Returns whether a transfer is to be given up at this time.
    pub(crate) fn has_deadline(&self, key: Key, at: Instant) -> bool {
        self.table.get(key).is_some_and(|transfer| transfer.deadline == Some(at))
    }

    /// Gives a transfer up whose time is over. It is given up `again` if it still goes on then.
    pub(crate) fn expire(
        &mut self,
        key: Key,
        again: Instant,
        files: &mut Files,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        // One that the program gave up before ends by that.
        let is_given_up = |transfer: &Transfer| transfer.cancelled || transfer.is_over();
        let is_first = self.table.get(key).is_some_and(|transfer| !is_given_up(transfer));
        self.cancel_key(key, files, submitter)?;
        if let Some(transfer) = self.table.get_mut(key) {
            transfer.timed_out |= is_first;
            transfer.deadline = Some(again);
        }
        Ok(())
    }

    fn by_id(&mut self, id: OperationId) -> Result<(Key, &mut Transfer), DriverError> {
        let key = id.key_in(self.driver)?;
        let transfer = self.table.get_mut(key).ok_or(DriverError::UnknownOperation)?;
        Ok((key, transfer))
    }

    /// Gives a transfer up: at once if it waits its turn, else when the kernel says so.
    pub(crate) fn cancel(
        &mut self,
        id: OperationId,
        files: &mut Files,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        let (key, _) = self.by_id(id)?;
        self.cancel_key(key, files, submitter)
    }

    fn cancel_key(
        &mut self,
        key: Key,
        files: &mut Files,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        let Some(transfer) = self.table.get_mut(key) else { return Ok(()) };
        if transfer.is_in_flight() {
            transfer.cancelled = true;
            if transfer.moves_no_more() {
                self.leave_queue(key, files);
                return Ok(());
            }
            return submitter.cancel(Tag::transfer(key));
        }
        if transfer.fail(Failure::CANCELLED) {
            self.pending_events.push_back(PendingEvent::Over(key));
            if !self.leave_queue(key, files) {
                self.note_over_in_queue(key, files);
            }
        }
        Ok(())
    }

    /// Gives up every transfer of a file that was aborted, whatever it has moved.
    pub(crate) fn abort(
        &mut self,
        file: Key,
        files: &mut Files,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        let Some(open) = files.get_mut(file) else { return Ok(()) };
        // Nothing follows in the queue.
        (open.queue, open.over_in_queue) = (VecDeque::new(), 0);
        for &key in &open.operations {
            let Some(transfer) = self.table.get_mut(key) else { continue };
            if transfer.fail(Failure::CANCELLED) {
                self.pending_events.push_back(PendingEvent::Over(key));
            }
        }
        for &key in &open.operations {
            let Some(transfer) = self.table.get_mut(key) else { continue };
            if transfer.is_in_flight() {
                transfer.cancelled = true;
                if !transfer.awaits_notification() {
                    submitter.cancel(Tag::transfer(key))?;
                }
            }
        }
        self.close_if_idle(file, files, submitter);
        Ok(())
    }

    /// Ends the sending direction of a socket: when everything is sent, or at once.
    pub(crate) fn end_sending(
        &mut self,
        sending: Key,
        at_once: bool,
        files: &mut Files,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        files.begin_close(sending);
        if at_once {
            return self.abort(sending, files, submitter);
        }
        self.close_if_idle(sending, files, submitter);
        Ok(())
    }

    /// Closes a file that is to be closed if nothing names it.
    pub(crate) fn close_if_idle(&mut self, file: Key, files: &mut Files, submitter: &Submitter) {
        if let Some(end) = files.close_if_idle(file, submitter) {
            self.pending_events.push_back(PendingEvent::FileEnd(file, end));
        }
    }

    /// Takes a transfer that is over out of the queue of its file, if it is the first. Returns
    /// `true` if it was.
    ///
    /// If the transfer leaves a stream torn, all behind it fail: their bytes would be taken for the
    /// rest of it.
    pub(super) fn leave_queue(&mut self, key: Key, files: &mut Files) -> bool {
        let Some(transfer) = self.table.get(key) else { return false };
        let Some(file) = transfer.file else { return false };
        let Some(open) = files.get_mut(file) else { return false };
        if open.queue.front() != Some(&key) {
            return false;
        }
        let Some(torn) = transfer.tear(open) else {
            self.next_in_queue(key, file, files);
            return true;
        };
        open.torn = Some(torn);
        open.over_in_queue = 0;
        for behind in std::mem::take(&mut open.queue) {
            let behind_it = self.table.get_mut(behind).filter(|_| behind != key);
            if behind_it.is_some_and(|behind| behind.fail(Failure::Torn(torn))) {
                self.pending_events.push_back(PendingEvent::Over(behind));
            }
        }
        true
    }

    /// Notes that a transfer is over behind the first one of a queue, where it stays until it is
    /// met, or until most of the queue is over.
    fn note_over_in_queue(&mut self, key: Key, files: &mut Files) {
        let Some(transfer) = self.table.get(key) else { return };
        let Some(open) = transfer.file.and_then(|file| files.get_mut(file)) else { return };
        if !transfer.takes_turns(open) {
            return;
        }
        open.over_in_queue += 1;
        if open.over_in_queue * 2 > open.queue.len() {
            open.queue.retain(|&key| self.table.get(key).is_some_and(|it| !it.is_over()));
            open.over_in_queue = 0;
        }
    }

    /// Makes the next transfer the first one of its file, to be armed, if `key` is the first.
    pub(super) fn next_in_queue(&mut self, key: Key, file: Key, files: &mut Files) {
        let Some(open) = files.get_mut(file) else { return };
        if open.queue.front() != Some(&key) {
            return;
        }
        open.queue.pop_front();
        while let Some(&next) = open.queue.front() {
            if self.table.get(next).is_some_and(|next| !next.is_over()) {
                if !open.is_connecting {
                    self.to_rearm.push_back(next);
                }
                return;
            }
            open.queue.pop_front();
            open.over_in_queue = open.over_in_queue.saturating_sub(1);
        }
    }

    /// Removes a transfer that the kernel does not have, and that ended with this result.
    pub(super) fn remove(
        &mut self,
        key: Key,
        files: &mut Files,
        submitter: &Submitter,
        result: Result<(), Failure>,
    ) -> Option<Transfer> {
        let transfer = self.table.remove(key)?;
        let Some(file) = transfer.file else { return Some(transfer) };
        self.next_in_queue(key, file, files);
        if let Some(moved) = files.end_operation(file, transfer.position)
            && let Some(moved) = self.table.get_mut(moved)
        {
            moved.position = transfer.position;
        }
        if let Some(open) = files.get(file)
            && transfer.is_ordered_by_syncs()
        {
            transfer.leave_order(key, result, &mut open.durability());
            self.push_ready_sync(Some(file), files);
        }
        self.close_if_idle(file, files, submitter);
        Some(transfer)
    }

    /// Returns the token of a transfer: its own, or that of its file.
    pub(super) fn token_of(transfer: &Transfer, files: &Files) -> u64 {
        let of_file = || transfer.file.and_then(|file| files.get(file)).map(|open| open.token);
        transfer.token.or_else(of_file).unwrap_or(0)
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.pending_events.is_empty()
    }

    /// Takes the next event that no completion brings.
    pub(crate) fn next_event<B>(
        &mut self,
        files: &mut Files,
        submitter: &Submitter,
    ) -> Option<Found<B>> {
        while let Some(event) = self.pending_events.pop_front() {
            let key = match event {
                PendingEvent::Over(key) => key,
                PendingEvent::FileEnd(file, FileEnd::File) => {
                    let (id, token) = files.remove_closed(file);
                    return Some(Found::Event(Event::FileClosed { id, token }));
                }
                PendingEvent::FileEnd(_, FileEnd::Sending(socket, error)) => {
                    return Some(Found::SendingEnded(socket, error));
                }
            };
            let Some(transfer) = self.table.get(key) else { continue };
            let token = Transfers::token_of(transfer, files);
            let result = transfer.result().unwrap_or(Err(Failure::CANCELLED));
            if let Some(transfer) = self.remove(key, files, submitter, result) {
                let id = OperationId::new(self.driver, key);
                return Some(Found::Event(transfer.into_event(id, token, result)));
            }
        }
        None
    }

    /// Gives every transfer up, and removes those that the kernel does not have. Returns the number
    /// of payloads whose drop panicked.
    pub(crate) fn cancel_all(&mut self, files: &mut Files, submitter: &Submitter) -> u64 {
        let mut panics = 0;
        for key in self.table.keys() {
            let Some(transfer) = self.table.get_mut(key) else { continue };
            transfer.cancelled = true;
            if !transfer.is_in_flight()
                && let Some(transfer) = self.remove(key, files, submitter, Err(Failure::CANCELLED))
            {
                panics += u64::from(!drop_memory(transfer.into_memory()));
            }
        }
        self.to_rearm.clear();
        panics
    }

    /// Removes every transfer, at the end of the driver. Memory that the kernel has is quarantined.
    pub(crate) fn discard_all(&mut self) {
        for key in self.table.keys() {
            match self.table.remove(key).map(|transfer| transfer.state) {
                Some(State::Running(operation)) => drop(operation),
                Some(
                    State::Queued(memory)
                    | State::Blocked(memory)
                    | State::Polling(memory)
                    | State::Over(memory, _),
                ) => drop(drop_memory(memory)),
                Some(State::Pushed | State::Moving) | None => {}
            }
        }
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
        waiting.any(|(_, send)| {
            let open = send.file.and_then(|file| files.get(file));
            open.is_none_or(|open| !open.has_unsent_bytes())
        })
    }

    /// Returns the number of slots that the kernel has.
    pub(crate) fn slots_running(&self) -> usize {
        let slots = self.table.iter().map(|(_, transfer)| match &transfer.state {
            State::Running(operation) => operation.memory().slot_count(),
            _ => 0,
        });
        slots.sum()
    }

    /// Iterates over the addresses of the memory that the kernel has.
    pub(crate) fn addresses_running(&self) -> impl Iterator<Item = usize> {
        self.table.iter().flat_map(|(_, transfer)| match &transfer.state {
            State::Running(operation) => operation.memory().addresses(),
            _ => Vec::new(),
        })
    }

    /// Iterates over the addresses of the memory of transfers that are not over: what the kernel
    /// has, and what waits for its turn.
    #[cfg(feature = "holders")]
    pub(crate) fn addresses_given(&self) -> impl Iterator<Item = usize> {
        self.table.iter().flat_map(|(_, transfer)| match &transfer.state {
            State::Running(operation) => operation.memory().addresses(),
            State::Queued(memory) | State::Blocked(memory) | State::Polling(memory) => {
                memory.addresses()
            }
            State::Pushed | State::Over(..) | State::Moving => Vec::new(),
        })
    }

    /// Collects the tokens of the program's entries that the kernel has.
    pub(crate) fn tokens_left(&self) -> Vec<u64> {
        let pushed = |(_, transfer): (Key, &Transfer)| {
            matches!(transfer.state, State::Pushed).then_some(transfer.token.unwrap_or(0))
        };
        self.table.iter().filter_map(pushed).collect()
    }
}

/// The flags of an entry that the driver cannot live with, and their names.
const REFUSED: [(Flags, &str); 5] = [
    (Flags::SKIP_SUCCESS, "IOSQE_CQE_SKIP_SUCCESS: its completion would never come"),
    (Flags::IO_DRAIN, "IOSQE_IO_DRAIN: it would wait for every receive of the driver"),
    (Flags::IO_LINK, "IOSQE_IO_LINK: give linked entries to `push_linked`"),
    (Flags::IO_HARDLINK, "IOSQE_IO_HARDLINK: give linked entries to `push_linked`"),
    (Flags::FIXED_FILE, "IOSQE_FIXED_FILE: the table of files is the driver's"),
];

/// The offsets of the flags, of the flags of the operation, and of the buffer group in an entry, in
/// bytes.
const FLAGS_AT: usize = 1;
const OP_FLAGS_AT: usize = 28;
const GROUP_AT: usize = 40;

/// The flag of a splice that names the file it reads by an index (`SPLICE_F_FD_IN_FIXED`).
const SPLICE_FD_IN_FIXED: u32 = 1 << 31;

/// Returns a field of an entry, for which the io-uring crate has no getter.
///
/// # Safety
///
/// A `T` at this offset lies within the 64 bytes of the entry, and any bits are one.
unsafe fn field_at<T: Copy>(entry: &Entry, offset: usize) -> T {
    const { assert!(size_of::<Entry>() == 64) };
    // SAFETY: within the entry, by the caller's promise.
    let field = unsafe { std::ptr::from_ref(entry).cast::<u8>().add(offset) };
    // SAFETY: plain data inside the entry, by the caller's promise.
    unsafe { field.cast::<T>().read_unaligned() }
}

/// Returns the flags of an entry.
fn flags_of(entry: &Entry) -> Flags {
    // SAFETY: a byte of plain data within the entry.
    Flags::from_bits_retain(unsafe { field_at::<u8>(entry, FLAGS_AT) })
}

/// Returns the buffer group that the entry receives into, if it does; or an error if the driver
/// cannot take the entry.
pub(crate) fn check_entry(entry: &Entry) -> Result<Option<u16>, DriverError> {
    let flags = flags_of(entry);
    if let Some((_, flag)) = REFUSED.iter().find(|(refused, _)| flags.contains(*refused)) {
        return Err(DriverError::EntryFlag { flag });
    }
    let splices =
        [opcode::Splice::CODE, opcode::Tee::CODE].map(u32::from).contains(&entry.get_opcode());
    // SAFETY: a number of plain data within the entry.
    if splices && unsafe { field_at::<u32>(entry, OP_FLAGS_AT) } & SPLICE_FD_IN_FIXED != 0 {
        let flag = "SPLICE_F_FD_IN_FIXED: the table of files is the driver's";
        return Err(DriverError::EntryFlag { flag });
    }
    // SAFETY: a number of plain data within the entry.
    let group = unsafe { field_at::<u16>(entry, GROUP_AT) };
    Ok(flags.contains(Flags::BUFFER_SELECT).then_some(group))
}

impl Transfers {
    /// Pushes entries of the program's, all or none, the later ones linked to those before them.
    /// Returns their ids.
    ///
    /// # Safety
    ///
    /// The contract of [`Driver::push`](crate::Driver::push).
    pub(crate) unsafe fn push_entries(
        &mut self,
        entries: &[(Entry, u64)],
        submitter: &mut Submitter,
    ) -> Result<Vec<OperationId>, DriverError> {
        let mut keys = Vec::with_capacity(entries.len());
        let mut chain = Vec::with_capacity(entries.len());
        for (at, (entry, token)) in entries.iter().enumerate() {
            let action = Action::Entry(EntryState::new(entry));
            let mut transfer = Transfer::new(None, action, Memory::Nothing, 0);
            (transfer.state, transfer.token) = (State::Pushed, Some(*token));
            let key = self.table.insert(transfer).ok().expect("the driver has room");
            keys.push(key);
            let is_last = at + 1 == entries.len();
            let link = if is_last { Flags::empty() } else { Flags::IO_LINK };
            let entry = entry.clone().user_data(Tag::transfer(key).user_data());
            chain.push(entry.flags(flags_of(&entries[at].0) | link));
        }
        // SAFETY: the caller's promise.
        if let Err(error) = unsafe { submitter.push_chain(&chain) } {
            for key in keys {
                self.table.remove(key);
            }
            return Err(error);
        }
        self.in_flight += keys.len();
        self.pushed += keys.len() as u64;
        Ok(keys.into_iter().map(|key| OperationId::new(self.driver, key)).collect())
    }
}

#[cfg(test)]
mod tests {
    use io_uring::types;

    use super::*;

    #[test]
    fn the_flags_stand_where_the_crate_writes_them() {
        let nop = || opcode::Nop::new().build();
        assert!(check_entry(&nop()).is_ok());
        assert!(check_entry(&nop().flags(Flags::ASYNC)).is_ok());
        for (flag, text) in REFUSED {
            let error = check_entry(&nop().flags(flag)).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
        let fixed = opcode::Fsync::new(types::Fixed(3)).build();
        assert!(check_entry(&fixed).is_err());
        let splice = |from: types::Fd| opcode::Splice::new(from, -1, types::Fd(1), -1, 10);
        assert!(check_entry(&splice(types::Fd(0)).flags(1).build()).is_ok());
        let fixed = opcode::Splice::new(types::Fixed(3), -1, types::Fd(1), -1, 10).build();
        let error = check_entry(&fixed).unwrap_err();
        assert!(error.to_string().contains("SPLICE_F_FD_IN_FIXED"), "{error}");
    }

    #[test]
    fn the_last_completion_is_known_in_whatever_order_they_come() {
        const MORE: u32 = 2;
        const NOTIF: u32 = 8;
        let buffer = [0u8];
        let send = opcode::SendZc::new(types::Fd(0), buffer.as_ptr(), 1).build();
        let nop = opcode::Nop::new().build();
        for (entry, completions) in [
            (&nop, &[0][..]),
            (&nop, &[MORE, MORE, 0]),
            (&send, &[0]),
            (&send, &[MORE, NOTIF]),
            (&send, &[NOTIF, MORE]),
        ] {
            let mut state = EntryState::new(entry);
            let last: Vec<bool> = completions.iter().map(|&flags| state.is_last(flags)).collect();
            assert_eq!(last.iter().position(|&is| is), Some(completions.len() - 1));
        }
    }
}
