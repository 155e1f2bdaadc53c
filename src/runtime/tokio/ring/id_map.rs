//! The values of the live ids of one table, by index.

use crate::driver::{OperationId, SocketId};

/// An id with a small index that no other live id of the same table has.
pub(super) trait Id: Copy + Eq {
    fn index(self) -> usize;
}

impl Id for SocketId {
    fn index(self) -> usize {
        SocketId::index(self)
    }
}

impl Id for OperationId {
    fn index(self) -> usize {
        OperationId::index(self)
    }
}

/// The values of the live ids of one table, by index.
///
/// The whole id is compared, so an id of another driver, or of an object that is gone, names
/// nothing.
pub(super) struct IdMap<I, T> {
    entries: Vec<Option<(I, T)>>,
    len: usize,
}

impl<I: Id, T> IdMap<I, T> {
    pub(super) fn new() -> IdMap<I, T> {
        IdMap { entries: Vec::new(), len: 0 }
    }

    /// Inserts the value of a new id. An older id with the same index names nothing from here on.
    pub(super) fn insert(&mut self, id: I, value: T) {
        let index = id.index();
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
        }
        let known = self.entries[index].replace((id, value));
        self.len += usize::from(known.is_none());
    }

    /// Returns the number of values.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, id: I) -> Option<&T> {
        let (known, value) = self.entries.get(id.index())?.as_ref()?;
        (*known == id).then_some(value)
    }

    pub(super) fn get_mut(&mut self, id: I) -> Option<&mut T> {
        let (known, value) = self.entries.get_mut(id.index())?.as_mut()?;
        (*known == id).then_some(value)
    }

    pub(super) fn remove(&mut self, id: I) -> Option<T> {
        let entry = self.entries.get_mut(id.index())?;
        let (_, value) = entry.take_if(|(known, _)| *known == id)?;
        self.len -= 1;
        Some(value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().flatten().map(|(_, value)| value)
    }

    pub(super) fn ids(&self) -> Vec<I> {
        self.entries.iter().flatten().map(|(id, _)| *id).collect()
    }

    /// Removes all values.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.len = 0;
        self.entries.drain(..).flatten().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
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
