//! Who waits for a slot to come back.
//!
//! A waiter takes its place in the queue, asks every word to tell of frees, looks once more, and sleeps. A free that sees the
//! request wakes the first in the queue. Nothing here is touched while nobody waits.

use event_listener::{Event, EventListener, IntoNotification};

use super::core::{Books, Core};

/// The queue of waiters, first come first woken.
pub(crate) struct Waiters {
    event: Event,
}

impl Waiters {
    pub(super) fn new() -> Waiters {
        Waiters { event: Event::new() }
    }
}

impl Core {
    /// Takes a place in the queue. The caller looks for a free slot after this, and sleeps only if there is none.
    pub(crate) fn listen(&self) -> EventListener {
        let listener = self.waiters.event.listen();
        self.books.set_waiters();
        listener
    }

    /// Wakes the first waiter: one slot came back. Takes the words' requests back when nobody is left.
    ///
    /// A block may serve several waiters, or only one far behind in the queue: then all look.
    pub(super) fn wake(&self) {
        let woken = match self.books {
            Books::Slots(_) => self.waiters.event.notify(1.additional()),
            Books::Blocks(_) => self.waiters.event.notify(usize::MAX),
        };
        if woken > 0 {
            return;
        }
        self.books.clear_waiters();
        // A waiter that came in between asked before the words were cleared: ask again, and wake it to look.
        if self.waiters.event.total_listeners() > 0 {
            self.books.set_waiters();
            self.waiters.event.notify(1.additional());
        }
    }
}
