//! A table whose keys name one value each and nothing afterwards.

/// An index without an entry: the end of the list of vacant entries.
const NO_ENTRY: u32 = u32::MAX;

/// The name of one value in a [`Slab`].
///
/// Removing the value raises its entry's generation, so the key names nothing from then on. An
/// entry takes 2³² − 1 further values before a key of it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    index: u32,
    /// A number from 1 on: no key is all zeros.
    generation: u32,
}

impl Key {
    /// Assembles a key from its parts, as a completion or an id of the program's carries them.
    #[inline]
    pub(crate) fn from_parts(index: u32, generation: u32) -> Key {
        Key { index, generation }
    }

    /// Returns the index of the entry. It is below the most values that the table ever held at a
    /// time.
    #[inline]
    pub(crate) fn index(self) -> u32 {
        self.index
    }

    #[inline]
    pub(crate) fn generation(self) -> u32 {
        self.generation
    }
}

/// A generational table of at most `limit` values.
///
/// Vacant entries are used again, the last one first. So memory and iteration cost what the table
/// held at its peak, not what ever went through it.
//
// Invariants: 1. `len` entries have a value; the list from `first_vacant` on has all the others.
// 2. A key's generation is its entry's while its value is in the table, and lower afterwards.
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    first_vacant: u32,
    len: usize,
    limit: usize,
}

/// A value, or a link of the list of vacant entries.
///
/// The alignment keeps a small value within one cache line.
#[repr(align(32))]
struct Entry<T> {
    /// The generation of the value in here, or of the next one.
    generation: u32,
    next_vacant: u32,
    value: Option<T>,
}

impl<T> Entry<T> {
    #[inline]
    fn get(&self, generation: u32) -> Option<&T> {
        if self.generation == generation { self.value.as_ref() } else { None }
    }

    #[inline]
    fn get_mut(&mut self, generation: u32) -> Option<&mut T> {
        if self.generation == generation { self.value.as_mut() } else { None }
    }
}

impl<T> Slab<T> {
    /// The most values that any table can hold.
    pub(crate) const LIMIT_MAX: usize = NO_ENTRY as usize;

    /// Creates an empty table of at most `limit` values, and of [`LIMIT_MAX`](Self::LIMIT_MAX).
    ///
    /// The table allocates as it is used.
    pub(crate) fn new(limit: usize) -> Slab<T> {
        Slab {
            entries: Vec::new(),
            first_vacant: NO_ENTRY,
            len: 0,
            limit: limit.min(Self::LIMIT_MAX),
        }
    }

    /// Returns the number of values in the table.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the key that the next [`insert`](Self::insert) gives, or `None` if the table is
    /// full.
    pub(crate) fn vacant_key(&self) -> Option<Key> {
        if self.len >= self.limit {
            return None;
        }
        match self.entries.get(self.first_vacant as usize) {
            Some(entry) => Some(Key::from_parts(self.first_vacant, entry.generation)),
            None => Some(Key::from_parts(self.entries.len() as u32, 1)),
        }
    }

    /// Inserts a value. Returns its key, or the value if the table is full.
    pub(crate) fn insert(&mut self, value: T) -> Result<Key, T> {
        let Some(key) = self.vacant_key() else { return Err(value) };
        match self.entries.get_mut(key.index as usize) {
            Some(entry) => {
                debug_assert!(entry.value.is_none(), "an entry of the vacant list has a value");
                self.first_vacant = entry.next_vacant;
                entry.value = Some(value);
            }
            None => self.entries.push(Entry {
                generation: key.generation,
                next_vacant: NO_ENTRY,
                value: Some(value),
            }),
        }
        self.len += 1;
        Ok(key)
    }

    /// Removes a value. Returns `None` if the key names nothing (any more).
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.checked_add(1).unwrap_or(1);
        entry.next_vacant = self.first_vacant;
        self.first_vacant = key.index;
        self.len -= 1;
        Some(value)
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.entries.get(key.index as usize)?.get(key.generation)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.entries.get_mut(key.index as usize)?.get_mut(key.generation)
    }

    /// Finds the value at an index, of whatever generation: for a caller that knows it to be there.
    #[inline]
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)?.value.as_mut()
    }

    /// Iterates over the keys and the values, by index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let value = entry.value.as_ref()?;
            Some((Key::from_parts(index as u32, entry.generation), value))
        })
    }

    /// Iterates over the keys and the values, by index. The values can be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.entries.iter_mut().enumerate().filter_map(|(index, entry)| {
            let value = entry.value.as_mut()?;
            Some((Key::from_parts(index as u32, entry.generation), value))
        })
    }

    /// Collects the keys of all values, for a caller that changes the table on its way through it.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// An id with a small index that no other live id of the same table has.
#[cfg(all(feature = "tokio", feature = "io-uring", target_os = "linux"))]
pub(crate) trait Id: Copy + Eq {
    fn index(self) -> usize;
}

/// The values of the live ids of one table, by index.
///
/// The whole id is compared, so an id of another driver, or of an object that is gone, names
/// nothing.
#[cfg(all(feature = "tokio", feature = "io-uring", target_os = "linux"))]
pub(crate) struct IdMap<I, T> {
    entries: Vec<Option<(I, T)>>,
    len: usize,
}

#[cfg(all(feature = "tokio", feature = "io-uring", target_os = "linux"))]
impl<I: Id, T> IdMap<I, T> {
    pub(crate) fn new() -> IdMap<I, T> {
        IdMap { entries: Vec::new(), len: 0 }
    }

    /// Inserts the value of a new id. An older id with the same index names nothing from here on.
    pub(crate) fn insert(&mut self, id: I, value: T) {
        let index = id.index();
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
        }
        let known = self.entries[index].replace((id, value));
        self.len += usize::from(known.is_none());
    }

    /// Returns the number of values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, id: I) -> Option<&T> {
        let (known, value) = self.entries.get(id.index())?.as_ref()?;
        (*known == id).then_some(value)
    }

    pub(crate) fn get_mut(&mut self, id: I) -> Option<&mut T> {
        let (known, value) = self.entries.get_mut(id.index())?.as_mut()?;
        (*known == id).then_some(value)
    }

    pub(crate) fn remove(&mut self, id: I) -> Option<T> {
        let entry = self.entries.get_mut(id.index())?;
        let (_, value) = entry.take_if(|(known, _)| *known == id)?;
        self.len -= 1;
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().flatten().map(|(_, value)| value)
    }

    pub(crate) fn ids(&self) -> Vec<I> {
        self.entries.iter().flatten().map(|(id, _)| *id).collect()
    }

    /// Removes all values.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.len = 0;
        self.entries.drain(..).flatten().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_names_nothing_after_its_value_is_gone() {
        let mut slab = Slab::new(1);
        let first = slab.insert('a').unwrap();
        assert_eq!(slab.insert('b'), Err('b'), "the table is full");
        assert_eq!(slab.remove(first), Some('a'));
        assert_eq!(slab.remove(first), None);
        let second = slab.insert('c').unwrap();
        assert_eq!(second.index(), first.index());
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.get(second), Some(&'c'));
    }

    #[test]
    fn a_key_names_nothing_after_two_to_the_24_values() {
        let mut slab = Slab::new(4);
        let kept = slab.insert(0).unwrap();
        slab.remove(kept);
        for value in 0..1 << 24 {
            let key = slab.insert(value).unwrap();
            assert_ne!(key, kept);
            slab.remove(key);
        }
        slab.insert(0).unwrap();
        assert_eq!(slab.get(kept), None);
    }

    #[test]
    fn a_table_costs_what_it_held_at_its_peak() {
        let mut slab = Slab::new(usize::MAX);
        assert_eq!(slab.entries.capacity(), 0);
        for round in 0..50_000 {
            let key = slab.insert(round).unwrap();
            slab.remove(key);
        }
        assert_eq!(slab.entries.len(), 1);
    }

    #[test]
    fn a_small_value_shares_half_a_cache_line_with_its_generation() {
        assert_eq!(size_of::<Entry<[u32; 5]>>(), 32);
    }

    #[derive(Debug, Clone)]
    enum Action {
        Insert(u16),
        Remove(prop::sample::Index),
        Change(prop::sample::Index, u16),
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            4 => any::<u16>().prop_map(Action::Insert),
            3 => any::<prop::sample::Index>().prop_map(Action::Remove),
            1 => (any::<prop::sample::Index>(), any::<u16>())
                .prop_map(|(which, value)| Action::Change(which, value)),
        ]
    }

    proptest! {
        /// The properties: a key finds its value and no other, a key of the past finds nothing, a
        /// table with room never refuses, and the indices stay below the peak.
        #[test]
        fn a_slab_is_a_map_with_keys_of_its_own(
            limit in 1usize..12,
            actions in prop::collection::vec(action(), 0..200),
        ) {
            let mut slab = Slab::new(limit);
            let mut model: HashMap<Key, u16> = HashMap::new();
            let mut issued: Vec<Key> = Vec::new();
            let mut peak = 0;
            for action in actions {
                match action {
                    Action::Insert(value) => {
                        let promised = slab.vacant_key();
                        let inserted = slab.insert(value);
                        prop_assert_eq!(promised, inserted.ok());
                        prop_assert_eq!(inserted.is_ok(), model.len() < limit);
                        if let Ok(key) = inserted {
                            prop_assert!(model.insert(key, value).is_none());
                            prop_assert!(!issued.contains(&key), "{:?} was given out twice", key);
                            issued.push(key);
                        }
                    }
                    Action::Remove(which) if !issued.is_empty() => {
                        let key = *which.get(&issued);
                        prop_assert_eq!(slab.remove(key), model.remove(&key));
                    }
                    Action::Change(which, new) if !issued.is_empty() => {
                        let key = *which.get(&issued);
                        prop_assert_eq!(slab.get(key), model.get(&key));
                        if let Some(value) = slab.get_mut(key) {
                            *value = new;
                            model.insert(key, new);
                        }
                    }
                    Action::Remove(_) | Action::Change(..) => {}
                }
                peak = peak.max(model.len());
                prop_assert_eq!((slab.len(), slab.is_empty()), (model.len(), model.is_empty()));
                let found: HashMap<Key, u16> =
                    slab.iter().map(|(key, &value)| (key, value)).collect();
                prop_assert_eq!(&found, &model);
                prop_assert_eq!(slab.iter_mut().count(), model.len());
                prop_assert!(slab.keys().iter().all(|key| (key.index() as usize) < peak));
                for (&key, &value) in &model {
                    prop_assert_eq!(slab.at_mut(key.index()).copied(), Some(value));
                }
            }
        }
    }
}

#[cfg(all(test, feature = "tokio", feature = "io-uring", target_os = "linux"))]
mod id_map_tests {
    use super::*;

    /// An index, and what tells the ids of one index apart: the generation, or the driver.
    type TestId = (usize, u32);

    impl Id for TestId {
        fn index(self) -> usize {
            self.0
        }
    }

    #[test]
    fn an_id_of_something_gone_or_of_another_driver_names_nothing() {
        let mut map = IdMap::new();
        let (first, second, foreign) = ((3, 1), (3, 2), (3, 9));
        map.insert(first, 'a');
        assert_eq!((map.get(first), map.get(second)), (Some(&'a'), None));
        assert_eq!((map.remove(foreign), map.get((7, 1))), (None, None));
        assert_eq!(map.remove(first), Some('a'));
        assert_eq!(map.remove(first), None);
        map.insert(second, 'b');
        assert_eq!(map.get(first), None);
        assert_eq!(map.remove(first), None);
        assert_eq!(map.get(second), Some(&'b'));
        // The object of `second` ended unseen; its index is used again.
        map.insert((3, 3), 'c');
        assert_eq!(map.len(), 1);
        assert_eq!((map.get(second), map.get((3, 3))), (None, Some(&'c')));
        assert_eq!(map.drain().collect::<Vec<_>>(), ['c']);
    }
}
