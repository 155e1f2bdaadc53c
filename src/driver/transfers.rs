//! The reads, writes and sends of a driver: what each needs besides its place in the table, kept
//! apart so that receives stay small.

use super::files::OpenFile;
use crate::buffer::Payload;
use crate::uring::{Operation, SendOptions};

/// What is done with the memory.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    Read,
    Write,
    Send(SendOptions),
}

/// Who has the memory.
pub(super) enum State {
    /// The driver: it waits to be pushed.
    Idle(Payload),
    /// The kernel, from the push to the final completion.
    Running(Operation<Payload>),
    /// On its way from one to the other.
    Moving,
}

impl State {
    pub(super) fn take(&mut self) -> State {
        std::mem::replace(self, State::Moving)
    }
}

/// One read, write or send.
pub(super) struct Transfer {
    /// The place of its file.
    pub(super) file: u32,
    pub(super) action: Action,
    pub(super) state: State,
    /// Where in the file it began, in bytes.
    pub(super) offset: u64,
    /// Bytes moved so far.
    pub(super) done: usize,
    /// Bytes that the read under way asked for.
    pub(super) requested: usize,
    pub(super) copied: Option<bool>,
    /// The file is set not to block: the next entry polls it.
    pub(super) wants_poll: bool,
    pub(super) polling: bool,
    pub(super) cancelled: bool,
}

impl Transfer {
    pub(super) fn new(file: u32, action: Action, memory: Payload, offset: u64) -> Transfer {
        Transfer {
            file,
            action,
            state: State::Idle(memory),
            offset,
            done: 0,
            requested: 0,
            copied: None,
            wants_poll: false,
            polling: false,
            cancelled: false,
        }
    }

    /// Bytes to write or send.
    pub(super) fn len(&self) -> usize {
        match &self.state {
            State::Idle(memory) => memory.as_ref().len(),
            State::Running(operation) => self.done + operation.requested(),
            State::Moving => 0,
        }
    }

    /// Whether there is more to move, after `moved` bytes came of the last try.
    pub(super) fn may_go_on(&self, moved: usize, file: &OpenFile) -> bool {
        if self.cancelled || moved == 0 {
            return false;
        }
        let is_aligned = file.direct.is_none_or(|alignment| alignment.may_go_on(moved));
        match self.action {
            Action::Read => {
                let has_room = matches!(&self.state, State::Idle(Payload::Buffer(buffer)) if buffer.len() < buffer.capacity());
                file.has_offsets && has_room && is_aligned
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

    /// The memory of a transfer that the kernel does not have.
    pub(super) fn into_memory(self) -> Payload {
        match self.state {
            State::Idle(memory) => memory,
            State::Running(_) | State::Moving => unreachable!("the kernel has it"),
        }
    }
}

/// All of them. Places are used again, so that in the steady state none is allocated.
#[derive(Default)]
pub(super) struct Transfers {
    places: Vec<Option<Transfer>>,
    free: Vec<u32>,
}

impl Transfers {
    pub(super) fn insert(&mut self, transfer: Transfer) -> u32 {
        if let Some(number) = self.free.pop() {
            self.places[number as usize] = Some(transfer);
            return number;
        }
        self.places.push(Some(transfer));
        self.places.len() as u32 - 1
    }

    /// The transfer of an operation in the table.
    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> &mut Transfer {
        self.places[number as usize].as_mut().expect("the table names only transfers that exist")
    }

    pub(super) fn remove(&mut self, number: u32) -> Transfer {
        let transfer = self.places[number as usize].take().expect("removed once");
        self.free.push(number);
        transfer
    }

    /// Where the memory of each begins that the kernel has.
    pub(super) fn addresses_running(&self) -> impl Iterator<Item = usize> {
        self.places.iter().flatten().filter_map(|transfer| match &transfer.state {
            State::Running(operation) => Some(operation.address()),
            State::Idle(_) | State::Moving => None,
        })
    }

    /// Those whose memory the kernel has.
    pub(super) fn running(&self) -> usize {
        let is_running = |transfer: &&Transfer| matches!(transfer.state, State::Running(_));
        self.places.iter().flatten().filter(is_running).count()
    }
}
