//! Pushing entries: the one way into the kernel.
//!
//! # Safety
//!
//! Unsafe here: pushing entries. What an entry refers to is held in the table until its final
//! completion.
#![allow(unsafe_code)]

use io_uring::squeue;

use super::Driver;
use super::key::Key;
use super::operation_table::Held;
use crate::error::DriverError;

impl Driver {
    /// Takes a place in the table and pushes `entry`, whose `user_data` is filled in.
    ///
    /// If the operation cannot be taken it is given back with the reason.
    ///
    /// # Safety
    ///
    /// What the entry refers to is owned by `held`, or lives for ever: until the final completion.
    pub(super) unsafe fn start(
        &mut self,
        held: Held,
        entry: squeue::Entry,
    ) -> Result<Key, (Held, DriverError)> {
        let limit = self.operations.limit();
        let key = match self.operations.insert(held) {
            Ok(key) => key,
            Err(held) => return Err((held, DriverError::TooManyOperations { limit })),
        };
        // SAFETY: the table owns what the entry refers to (the caller's promise).
        match unsafe { self.push(key, entry) } {
            Ok(()) => Ok(key),
            Err(error) => Err((self.operations.remove(key).expect("just inserted"), error)),
        }
    }

    /// Pushes an entry for an operation in the table, which is in flight from here on.
    ///
    /// # Safety
    ///
    /// What the entry refers to is owned by the operation at `key`, or by the driver's rings, until
    /// the final completion.
    pub(super) unsafe fn push(
        &mut self,
        key: Key,
        entry: squeue::Entry,
    ) -> Result<(), DriverError> {
        if self.operations.get(key).is_none() {
            return Ok(());
        }
        let entry = entry.user_data(key.user_data());
        // SAFETY: the caller's promise.
        unsafe { self.push_entry(&entry) }?;
        self.operations.note_pushed(key);
        Ok(())
    }

    /// Pushes an entry, submitting what is in the way.
    ///
    /// # Safety
    ///
    /// What the entry refers to outlives the operation.
    pub(super) unsafe fn push_entry(&mut self, entry: &squeue::Entry) -> Result<(), DriverError> {
        // A queue that stays full after a submission is one that the kernel does not take from now.
        const TRIES: usize = 2;
        for _ in 0..TRIES {
            // SAFETY: the caller's promise.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.enter(true, None)?;
        }
        Err(DriverError::System { action: "submitting (the queue stays full)", errno: libc::EBUSY })
    }
}
