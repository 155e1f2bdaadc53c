//! The queue of one ring's sockets that found no slot.

use std::collections::VecDeque;

use crate::slab::Key;

/// The sockets of one ring that wait for slots.
///
/// The queues are two, so that no socket is passed over for ever: a socket that was armed and got
/// nothing goes before one that was served. Keys of sockets that were closed meanwhile stay in the
/// queues until they are met; `count` is exact.
#[derive(Default)]
pub(crate) struct Starved {
    unserved: VecDeque<Key>,
    served: VecDeque<Key>,
    count: usize,
}

impl Starved {
    pub(crate) fn push(&mut self, socket: Key, was_served: bool) {
        if was_served { &mut self.served } else { &mut self.unserved }.push_back(socket);
        self.count += 1;
    }

    /// Notes that a socket in the queues waits no more.
    pub(crate) fn forget_one(&mut self) {
        self.count -= 1;
    }

    /// Puts a socket back that was taken out in vain.
    pub(crate) fn push_front(&mut self, socket: Key) {
        self.unserved.push_front(socket);
        self.count += 1;
    }

    /// Takes the next socket out that `is_starved` confirms.
    pub(crate) fn pop(&mut self, mut is_starved: impl FnMut(Key) -> bool) -> Option<Key> {
        while let Some(socket) = self.unserved.pop_front().or_else(|| self.served.pop_front()) {
            if is_starved(socket) {
                self.count -= 1;
                return Some(socket);
            }
        }
        debug_assert_eq!(self.count, 0);
        None
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }
}
