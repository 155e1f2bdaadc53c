//! The other thread: takes over what a drain has laid aside, drops it, and says what that cost.
//!
//! In step with the receiver, so that neither waits for a lock or a line because of how the two
//! happen to meet; what stays is what a hand-over costs always: memory that the other core has
//! written, and must be taken over.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::harness::{Stopwatch, pin_to_core};

use super::outlet::{Message, Outlet};

pub struct Dropper {
    list: Rc<RefCell<Vec<Message>>>,
    lists: Sender<Vec<Message>>,
    /// The list, empty, and the processor time of dropping what was in it.
    dropped: Receiver<(Vec<Message>, Duration)>,
}

impl Dropper {
    pub fn start() -> Self {
        let (lists, taken) = channel::<Vec<Message>>();
        let (answer, dropped) = channel();
        thread::spawn(move || {
            pin_to_core(1);
            for mut list in taken {
                let begin = Stopwatch::thread();
                list.clear();
                let spent = begin.elapsed();
                if answer.send((list, spent)).is_err() {
                    return;
                }
            }
        });
        Self { list: Rc::default(), lists, dropped }
    }

    pub fn outlet(&self) -> Outlet {
        Outlet::to(self.list.clone())
    }

    /// Has all dropped that was laid aside; waits for it.
    pub fn drop_all(&self) -> Duration {
        self.lists.send(self.list.take()).expect("the thread lives as long as this");
        let (list, spent) = self.dropped.recv().expect("dropping does not panic");
        self.list.replace(list);
        spent
    }
}
