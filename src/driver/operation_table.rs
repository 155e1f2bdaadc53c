//! Who is under way: a table made once, so that an operation allocates nothing.

use super::accept::Accept;
use super::key::{Generation, Key, Kind, Mark};
use super::receive::Receive;

/// What an operation needs until its final completion.
pub(super) enum Held {
    /// A socket that is received from.
    Receive(Receive),
    /// A listener that is accepted from.
    Accept(Accept),
    /// The number of a read, write or send.
    Transfer(u32),
}

impl Held {
    #[inline]
    pub(super) fn kind(&self) -> Kind {
        match self {
            Held::Receive(_) => Kind::Receive,
            Held::Accept(_) => Kind::Accept,
            Held::Transfer(_) => Kind::Transfer,
        }
    }
}

/// One place of the table: half a cache line, so that a completion touches one.
#[repr(align(32))]
struct Place {
    generation: Generation,
    /// Of the operation that is here.
    mark: Mark,
    /// The same while the kernel has it, from the push to the final completion: so one comparison
    /// recognises those.
    in_flight: Mark,
    held: Option<Held>,
    next_free: u32,
}

/// The end of the list of free places.
const NONE: u32 = u32::MAX;

/// The operations of one driver.
///
/// Invariants: a place has a mark while it is full. `in_flight` counts the places whose mark is in
/// flight, and only full places have one.
pub(super) struct OperationTable {
    places: Vec<Place>,
    free: u32,
    count: usize,
    in_flight: usize,
    limit: usize,
}

impl OperationTable {
    /// A table for `limit` operations.
    pub(super) fn new(limit: usize) -> OperationTable {
        // Reserved, not touched: a table that is never full costs no memory.
        OperationTable {
            places: Vec::with_capacity(limit),
            free: NONE,
            count: 0,
            in_flight: 0,
            limit,
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Operations in the table.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Operations that the kernel has.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Takes a place; gives the operation back if there is none.
    pub(super) fn insert(&mut self, held: Held) -> Result<Key, Held> {
        let place = match self.free {
            NONE if self.places.len() == self.limit => return Err(held),
            NONE => {
                self.places.push(Place {
                    generation: Generation::default(),
                    mark: Mark::NONE,
                    in_flight: Mark::NONE,
                    held: None,
                    next_free: NONE,
                });
                self.places.len() as u32 - 1
            }
            place => place,
        };
        let entry = &mut self.places[place as usize];
        self.free = std::mem::replace(&mut entry.next_free, NONE);
        debug_assert!(entry.held.is_none() && entry.in_flight == Mark::NONE);
        let key = Key::new(held.kind(), entry.generation, place);
        entry.mark = key.mark();
        entry.held = Some(held);
        self.count += 1;
        Ok(key)
    }

    #[inline]
    fn place(&self, key: Key) -> Option<&Place> {
        self.places.get(key.place() as usize).filter(|place| place.mark == key.mark())
    }

    #[inline]
    fn place_mut(&mut self, key: Key) -> Option<&mut Place> {
        self.places.get_mut(key.place() as usize).filter(|place| place.mark == key.mark())
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Held> {
        self.place_mut(key)?.held.as_mut()
    }

    pub(super) fn get(&self, key: Key) -> Option<&Held> {
        self.place(key)?.held.as_ref()
    }

    /// The receive with this key.
    #[inline]
    pub(super) fn receive_mut(&mut self, key: Key) -> Option<&mut Receive> {
        match self.get_mut(key)? {
            Held::Receive(receive) => Some(receive),
            _ => None,
        }
    }

    pub(super) fn is_in_flight(&self, key: Key) -> bool {
        self.place(key).is_some_and(|place| place.in_flight != Mark::NONE)
    }

    /// Notes that the operation was pushed.
    pub(super) fn note_pushed(&mut self, key: Key) {
        if let Some(place) = self.place_mut(key) {
            debug_assert!(place.in_flight == Mark::NONE && place.held.is_some());
            place.in_flight = key.mark();
            self.in_flight += 1;
        }
    }

    /// Recognises a completion: its operation, which is no longer in flight if this was the final
    /// one. `None` if nothing of that kind and generation is in flight.
    #[inline]
    pub(super) fn note_completed(&mut self, key: Key, is_final: bool) -> Option<&mut Option<Held>> {
        let place = self.places.get_mut(key.place() as usize)?;
        if place.in_flight != key.mark() || key.mark() == Mark::NONE {
            return None;
        }
        if is_final {
            place.in_flight = Mark::NONE;
            self.in_flight -= 1;
        }
        Some(&mut place.held)
    }

    /// Gives a place back. The operation must not be in flight.
    pub(super) fn remove(&mut self, key: Key) -> Option<Held> {
        let free = self.free;
        let place = self.place_mut(key)?;
        debug_assert!(place.in_flight == Mark::NONE, "removed while the kernel has it");
        let held = place.held.take()?;
        place.generation = place.generation.next();
        place.mark = Mark::NONE;
        place.next_free = free;
        self.free = key.place();
        self.count -= 1;
        Some(held)
    }

    /// The keys of all operations.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.places.iter().enumerate().filter_map(|(place, entry)| {
            let kind = entry.held.as_ref()?.kind();
            Some(Key::new(kind, entry.generation, place as u32))
        })
    }
}

const _: () = assert!(size_of::<Place>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> Held {
        Held::Accept(Accept::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap().into(), true))
    }

    #[test]
    fn a_completion_that_names_no_kind_is_not_recognised() {
        let mut table = OperationTable::new(1);
        let key = table.insert(listener()).ok().unwrap();
        assert!(table.note_completed(Key::of(key.place().into()), true).is_none());
        assert_eq!(table.in_flight(), 0);
    }

    #[test]
    fn a_late_completion_of_an_earlier_operation_is_not_recognised() {
        let mut table = OperationTable::new(1);
        let first = table.insert(listener()).ok().unwrap();
        table.note_pushed(first);
        assert!(table.note_completed(first, true).is_some());
        assert!(table.remove(first).is_some());
        let second = table.insert(listener()).ok().unwrap();
        table.note_pushed(second);
        assert_eq!(second.place(), first.place());
        assert!(table.note_completed(first, true).is_none());
        assert!(table.note_completed(second.of_cancel(), true).is_none());
        assert_eq!(table.in_flight(), 1);
        assert!(table.note_completed(second, true).is_some());
        assert!(table.note_completed(second, true).is_none());
        assert_eq!(table.in_flight(), 0);
    }

    #[test]
    fn a_full_table_gives_the_operation_back() {
        let mut table = OperationTable::new(2);
        let first = table.insert(listener()).ok().unwrap();
        assert!(table.insert(listener()).is_ok());
        assert!(matches!(table.insert(listener()), Err(Held::Accept(_))));
        table.remove(first);
        assert!(table.insert(listener()).is_ok());
        assert_eq!(table.count(), 2);
    }
}
