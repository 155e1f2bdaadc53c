//! The order of writes and syncs of one file: a sync is pushed when every write before it is over,
//! and says nothing is durable that is not.

use std::collections::VecDeque;

use crate::slab::Key;

/// The writes of a file, in groups that syncs divide.
//
// Invariants: 1. The last group has no sync; each other one has, and is waited for in order. 2. At
// most one sync of the file is with the kernel: two at a time could share one error, which the
// kernel tells once.
#[derive(Default)]
pub(super) struct Durability {
    groups: VecDeque<Group>,
    /// The number of the first group.
    first: u64,
    /// The sync that is under way: with the kernel, or about to be.
    syncing: Option<Key>,
    /// The error of a sync that failed. The kernel may have dropped what it could not write, and
    /// would call the next sync a success.
    failed: Option<i32>,
}

/// The writes between two syncs.
#[derive(Default)]
struct Group {
    writes_left: usize,
    /// The error of a write that failed.
    failed: Option<i32>,
    /// The sync that waits for the group.
    sync: Option<Key>,
}

/// A sync whose writes are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) sync: Key,
    /// The error of a write before it, if one failed: the sync fails with it.
    pub(super) failed_write: Option<i32>,
}

impl Durability {
    fn last(&mut self) -> &mut Group {
        if self.groups.is_empty() {
            self.groups.push_back(Group::default());
        }
        self.groups.back_mut().expect("just made")
    }

    /// Takes a write in. Returns the number of its group.
    pub(super) fn begin_write(&mut self) -> u64 {
        self.last().writes_left += 1;
        self.first + self.groups.len() as u64 - 1
    }

    /// Notes that a write of a group is over, with an error or without.
    pub(super) fn end_write(&mut self, group: u64, failed: Option<i32>) {
        let Some(group) = self.groups.get_mut((group - self.first) as usize) else { return };
        group.writes_left -= 1;
        group.failed = group.failed.or(failed);
    }

    /// Takes a sync in, which waits for the writes so far.
    pub(super) fn begin_sync(&mut self, sync: Key) {
        self.last().sync = Some(sync);
        self.groups.push_back(Group::default());
    }

    /// Returns the next sync that need not wait any more. It is under way from then on.
    pub(super) fn next_ready(&mut self) -> Option<Ready> {
        let first = self.groups.front()?;
        let sync = first.sync.filter(|_| first.writes_left == 0 && self.syncing.is_none())?;
        let failed_write = self.groups.pop_front().and_then(|group| group.failed);
        (self.first, self.syncing) = (self.first + 1, Some(sync));
        Some(Ready { sync, failed_write })
    }

    /// Notes that a sync did not happen: the next one tells the error of the write.
    pub(super) fn skip(&mut self, ready: Ready) {
        self.syncing = None;
        let next = self.groups.front_mut().expect("a group stands behind each sync");
        next.failed = ready.failed_write.or(next.failed);
    }

    /// Notes that a sync has left the table. The next one need not wait for it.
    pub(super) fn forget_sync(&mut self, sync: Key) {
        if self.syncing == Some(sync) {
            self.syncing = None;
        }
    }

    /// Notes that the sync under way is over. `failed` is the error of the kernel.
    pub(super) fn end_sync(&mut self, failed: Option<i32>) {
        self.syncing = None;
        // These say that there is nothing to sync, or that nothing was tried. `EROFS` is not one of
        // them: a file system that was damaged goes read-only, and drops what it had to write.
        let is_of_call = |errno: &i32| {
            let of_call = [libc::EINVAL, libc::EBADF, libc::EOPNOTSUPP];
            of_call.contains(errno) || [libc::EINTR, libc::ECANCELED].contains(errno)
        };
        self.failed = self.failed.or(failed.filter(|errno| !is_of_call(errno)));
    }

    /// Returns the error of an earlier sync.
    pub(super) fn failed(&self) -> Option<i32> {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> Key {
        Key::from_parts(index, 1)
    }

    #[test]
    fn a_sync_waits_for_the_writes_before_it_alone() {
        let mut order = Durability::default();
        let (first, second) = (order.begin_write(), order.begin_write());
        order.begin_sync(key(7));
        let behind = order.begin_write();
        assert_eq!((first, second, behind), (0, 0, 1));
        order.end_write(behind, None);
        order.end_write(second, None);
        assert_eq!(order.next_ready(), None);
        order.end_write(first, None);
        assert_eq!(order.next_ready(), Some(Ready { sync: key(7), failed_write: None }));
        assert_eq!(order.next_ready(), None);
        order.end_sync(None);
        order.begin_sync(key(8));
        assert_eq!(order.next_ready(), Some(Ready { sync: key(8), failed_write: None }));
    }

    #[test]
    fn the_error_of_a_write_is_told_by_one_sync() {
        let mut order = Durability::default();
        let write = order.begin_write();
        order.begin_sync(key(1));
        order.begin_sync(key(2));
        order.begin_sync(key(3));
        order.end_write(write, Some(libc::ENOSPC));
        let ready = order.next_ready().unwrap();
        assert_eq!(ready.failed_write, Some(libc::ENOSPC));
        // Given up meanwhile: the next one tells it.
        order.skip(ready);
        let ready = order.next_ready().unwrap();
        assert_eq!(ready, Ready { sync: key(2), failed_write: Some(libc::ENOSPC) });
        assert_eq!(order.next_ready(), None, "one at a time");
        order.end_sync(None);
        assert_eq!(order.next_ready().unwrap().failed_write, None);
    }

    #[test]
    fn an_error_behind_a_sync_that_is_given_up_is_told_by_the_next() {
        let mut order = Durability::default();
        let slow = order.begin_write();
        order.begin_sync(key(1));
        let failing = order.begin_write();
        order.begin_sync(key(2));
        order.end_write(failing, Some(libc::EIO));
        order.end_write(slow, None);
        let ready = order.next_ready().unwrap();
        order.skip(ready);
        let ready = order.next_ready().unwrap();
        assert_eq!(ready, Ready { sync: key(2), failed_write: Some(libc::EIO) });
        // One that has left the table meanwhile keeps no other.
        order.begin_sync(key(3));
        assert_eq!(order.next_ready(), None);
        order.forget_sync(key(2));
        assert_eq!(order.next_ready(), Some(Ready { sync: key(3), failed_write: None }));
    }
}
