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

    /// Inlined always, so that a message that is dropped at once is not moved for it.
    #[inline(always)]
    pub fn take(&self, message: impl Into<Message>) {
        match &self.0 {
            None => drop(message),
            Some(list) => lay_aside(list, message.into()),
        }
    }
}

#[inline(never)]
fn lay_aside(list: &RefCell<Vec<Message>>, message: Message) {
    list.borrow_mut().push(message);
}
