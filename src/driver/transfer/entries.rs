//! Entries of the program's: pushed as they are, and completed as the kernel completes them.
//!
//! # Safety
//!
//! Unsafe here: pushing entries, on the program's word; and reading the bytes of one.
#![allow(unsafe_code)]

use io_uring::squeue::{Entry, Flags};

use super::memory::Memory;
use super::transfer::{Action, EntryState, State, Transfer};
use super::transfers::Transfers;
use crate::driver::ids::Tag;
use crate::driver::submitter::Submitter;
use crate::driver::{DriverError, OperationId};

/// The flags of an entry that the driver cannot live with, and their names.
const REFUSED: [(Flags, &str); 5] = [
    (Flags::SKIP_SUCCESS, "IOSQE_CQE_SKIP_SUCCESS: its completion would never come"),
    (Flags::IO_DRAIN, "IOSQE_IO_DRAIN: it would wait for every receive of the driver"),
    (Flags::IO_LINK, "IOSQE_IO_LINK: give linked entries to `push_linked`"),
    (Flags::IO_HARDLINK, "IOSQE_IO_HARDLINK: give linked entries to `push_linked`"),
    (Flags::FIXED_FILE, "IOSQE_FIXED_FILE: the table of files is the driver's"),
];

/// The offsets of the flags and of the buffer group in an entry, in bytes.
const FLAGS_AT: usize = 1;
const GROUP_AT: usize = 40;

/// Returns the flags of an entry, for which the io-uring crate has no getter.
fn flags_of(entry: &Entry) -> Flags {
    const { assert!(size_of::<Entry>() == 64) };
    // SAFETY: within the 64 bytes of the entry.
    let field = unsafe { std::ptr::from_ref(entry).cast::<u8>().add(FLAGS_AT) };
    // SAFETY: a byte of plain data inside the entry.
    Flags::from_bits_retain(unsafe { field.read() })
}

/// Returns the buffer group that the entry receives into, if it does; or an error if the driver
/// cannot take the entry.
pub(crate) fn check_entry(entry: &Entry) -> Result<Option<u16>, DriverError> {
    let flags = flags_of(entry);
    if let Some((_, flag)) = REFUSED.iter().find(|(refused, _)| flags.contains(*refused)) {
        return Err(DriverError::EntryFlag { flag });
    }
    // SAFETY: within the 64 bytes of the entry.
    let field = unsafe { std::ptr::from_ref(entry).cast::<u8>().add(GROUP_AT) };
    // SAFETY: two bytes of plain data inside the entry.
    let group = unsafe { field.cast::<u16>().read_unaligned() };
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
    use io_uring::{opcode, types};

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
