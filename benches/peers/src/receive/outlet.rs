//! Where a system's messages go: dropped at once, or laid aside for the thread that drops them.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use uring_arena::ArenaBytes;

/// A message that may leave its thread.
#[expect(dead_code, reason = "held only to be dropped")]
pub enum Message {
    Bytes(Bytes),
    InArena(ArenaBytes),
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<ArenaBytes> for Message {
    fn from(bytes: ArenaBytes) -> Self {
        Self::InArena(bytes)
    }
}

/// Every task of a system holds one. The default drops at once.
#[derive(Clone, Default)]
pub struct Outlet(Option<Rc<RefCell<Vec<Message>>>>);

impl Outlet {
    /// Lays aside on this list.
    pub fn to(list: Rc<RefCell<Vec<Message>>>) -> Self {
        Self(Some(list))
    }

    #[inline]
    pub fn take(&self, message: impl Into<Message>) {
        match &self.0 {
            None => drop(message),
            Some(list) => list.borrow_mut().push(message.into()),
        }
    }
}
