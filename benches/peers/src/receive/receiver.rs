//! The two sides of every system: a receiver, and an outlet for its messages.

use std::cell::RefCell;
use std::io;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::mpsc::{Receiver as Channel, Sender, channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use uring_arena::ArenaBytes;

use crate::measure::{Stopwatch, pin_to_core};
use crate::tasks::{Goal, Runtime};

/// A system that receives. Built with all connections, armed and ready.
pub trait Receiver {
    /// Receives until so many bytes have arrived, each message handed out as the system does, into
    /// its outlet.
    fn drain(&mut self, bytes: usize) -> io::Result<()>;

    /// Returns how often the kernel found no buffer.
    fn starved(&self) -> u64 {
        0
    }
}

/// A receiver made of tasks, one for each socket.
pub struct Tasks<R> {
    runtime: R,
    goal: Goal,
}

impl<R: Runtime> Tasks<R> {
    /// Builds everything inside the runtime: `prepare` gives the function that makes the task of a
    /// socket.
    pub fn start<P, T, F>(
        mut runtime: R,
        sockets: Vec<TcpStream>,
        prepare: P,
    ) -> io::Result<Box<dyn Receiver>>
    where
        P: FnOnce() -> io::Result<T>,
        T: FnMut(TcpStream, Goal) -> io::Result<F>,
        F: Future<Output = ()> + 'static,
    {
        let goal = Goal::default();
        runtime.block_on(async {
            let mut task = prepare()?;
            for socket in sockets {
                R::spawn(task(socket, goal.clone())?);
            }
            io::Result::Ok(())
        })?;
        Ok(Box::new(Self { runtime, goal }))
    }
}

impl<R: Runtime> Receiver for Tasks<R> {
    fn drain(&mut self, bytes: usize) -> io::Result<()> {
        self.goal.expect(bytes);
        self.runtime.block_on(self.goal.reached());
        Ok(())
    }

    fn starved(&self) -> u64 {
        self.goal.starved()
    }
}

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

/// The place where messages go. Every task of a system holds one; the default drops at once.
#[derive(Clone, Default)]
pub struct Outlet(Option<Rc<RefCell<Vec<Message>>>>);

impl Outlet {
    /// Takes a message. Inlined always, so that one that is dropped at once is not moved for it.
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

/// Another thread that takes over what a drain has laid aside, drops it, and says what that cost.
///
/// The thread is in step with the receiver, so that neither waits for a lock or a line because of
/// the moment at which they meet. What stays is what a hand-over costs always: memory that the
/// other core has written, and must be taken over.
pub struct Dropper {
    list: Rc<RefCell<Vec<Message>>>,
    lists: Sender<Vec<Message>>,
    /// The emptied list, and the processor time of dropping what was in it.
    dropped: Channel<(Vec<Message>, Duration)>,
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
                answer.send((list, begin.elapsed())).ok();
            }
        });
        Self { list: Rc::default(), lists, dropped }
    }

    /// Returns the outlet whose messages it will drop.
    pub fn outlet(&self) -> Outlet {
        Outlet(Some(self.list.clone()))
    }

    /// Has all dropped that was laid aside; waits for it.
    pub fn drop_all(&self) -> Duration {
        self.lists.send(self.list.take()).expect("the thread lives as long as this");
        let (list, spent) = self.dropped.recv().expect("dropping does not panic");
        self.list.replace(list);
        spent
    }
}
