//! From completions to events.

use io_uring::cqueue;

use super::key::{Key, Kind};
use super::operation_table::Held;
use super::{Driver, Event, SocketId};
use crate::ArenaBytes;
use crate::uring::FromSlot;

impl Driver {
    /// The next thing that happened, until there is nothing more; then [`wait`](Self::wait) again.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would borrow the driver while the program uses it"
    )]
    pub fn next(&mut self) -> Option<Event> {
        self.next_as()
    }

    /// As [`next`](Self::next), with bytes that allocate nothing on the heap.
    pub fn next_arena_bytes(&mut self) -> Option<Event<ArenaBytes>> {
        self.next_as()
    }

    pub(super) fn next_as<B: FromSlot>(&mut self) -> Option<Event<B>> {
        loop {
            if self.unfolding.is_some() {
                if let Some(event) = self.unfold() {
                    return Some(event);
                }
                continue;
            }
            let Some(completion) = self.uring.completion().next() else {
                return self.next_told().map(Event::delivered);
            };
            self.metrics.completions += 1;
            let is_final = !cqueue::more(completion.flags());
            let key = Key::of(completion.user_data());
            let Some(held) = self.operations.note_completed(key, is_final) else {
                self.complete_without_place(key);
                continue;
            };
            if !is_final
                && let Some(Held::Receive(receive)) = held
                && let Some(bytes) = receive.take_fast(&mut self.rings, &completion)
            {
                return Some(Event::Received { id: SocketId(key), bytes });
            }
            let Some(kind) = held.as_ref().map(Held::kind) else { continue };
            if let Some(event) = self.complete(key, kind, &completion) {
                return Some(event);
            }
        }
    }

    /// The next event that no completion brings.
    fn next_told(&mut self) -> Option<Event<ArenaBytes>> {
        if let Some(event) = self.told.pop_front() {
            return Some(event);
        }
        while let Some((key, errno)) = self.closings.pop_front() {
            let closed = self.closed(key, errno);
            if closed.is_some() {
                return closed;
            }
        }
        None
    }

    /// Acts on a completion that is not a message like most.
    #[inline(never)]
    fn complete<B: FromSlot>(
        &mut self,
        key: Key,
        kind: Kind,
        completion: &cqueue::Entry,
    ) -> Option<Event<B>> {
        match kind {
            Kind::Receive => {
                self.received(key, completion);
                None
            }
            Kind::Accept => self.accepted(key, completion),
            Kind::Transfer => self.transferred(key, completion),
            Kind::Wake | Kind::Cancel => unreachable!("they have no place in the table"),
        }
    }

    #[cold]
    fn complete_without_place(&mut self, key: Key) {
        if key == Key::WAKE {
            self.woken();
        } else if !key.is_of_cancel() {
            self.metrics.unknown_completions += 1;
        }
    }
}
