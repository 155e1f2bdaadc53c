//! One face of the four adapters, for the list of cases that each of them passes.

#[cfg(feature = "compio")]
mod compio;
#[cfg(feature = "monoio")]
mod monoio;
#[cfg(feature = "tokio")]
mod tokio;
#[cfg(feature = "tokio-uring")]
mod tokio_uring;

use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpStream;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::support::TIMEOUT;
use bytes::Bytes;
use futures_util::future::{Either, select};
use uring_arena::{AsyncFixedArena, Buffer};

#[cfg(feature = "compio")]
pub use compio::{Compio, CompioOurs};
#[cfg(feature = "monoio")]
pub use monoio::Monoio;
#[cfg(feature = "tokio")]
pub use tokio::{TokioReadiness, TokioTask, TokioThread, TokioWorkers};
#[cfg(feature = "tokio-uring")]
pub use tokio_uring::TokioUring;

/// A limit of an adapter. Each is a row of the table in docs/integrations.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// A read that is dropped may swallow the bytes that arrive first.
    DroppedReadsSwallow,
    /// The slot of a dropped read is in use until the peer sends or finishes, or until `drain`.
    DroppedReadsWaitForThePeer,
    /// A send that is dropped part-way is cut.
    DroppedSendsAreCut,
    /// A read overwrites its buffer.
    ReadsOverwrite,
    /// A task that panics ends the call of `block_on`.
    PanicsEndTheRuntime,
    /// A runtime may leave operations behind whose slots are neither freed nor counted.
    TasksOutliveTheRuntime,
}

impl Limit {
    /// All of them, with the row of the table that states each.
    pub const ROWS: [(Limit, &str); 6] = [
        (Limit::DroppedReadsSwallow, "a dropped read loses no bytes"),
        (Limit::DroppedReadsWaitForThePeer, "the slot of a dropped read comes back by itself"),
        (Limit::DroppedSendsAreCut, "a dropped `send_all` goes out whole"),
        (Limit::ReadsOverwrite, "a read appends, and a full buffer is an error"),
        (Limit::PanicsEndTheRuntime, "a task that panics harms itself alone"),
        (Limit::TasksOutliveTheRuntime, "a runtime that ends frees or counts every slot"),
    ];
}

/// The arena of a case: its claims can wait.
pub type Arena = AsyncFixedArena;

/// A runtime, and what the library adds to it.
///
/// Everything but `runtime` and `block_on` is called inside the runtime.
#[allow(async_fn_in_trait, reason = "each runtime of the tests keeps to its thread")]
pub trait Adapter: Sized + 'static {
    type Runtime;
    /// The runtime with an arena attached.
    type Session: Clone + 'static;
    /// A TCP connection, which is received from and sent on.
    type Connection: 'static;
    type File: 'static;

    /// The name of the column in docs/integrations.md.
    const COLUMN: &'static str;
    const LIMITS: &'static [Limit];
    /// The pool of tokio has tests of its own for offsets, and for sends that its end cuts.
    const IS_POOL: bool = false;

    fn runtime() -> Self::Runtime;
    fn block_on<F: Future>(runtime: &mut Self::Runtime, future: F) -> F::Output;

    /// Attaches an arena. A ring of received bytes keeps at most two slots ready.
    fn attach(arena: &Arena) -> Self::Session;
    fn connection(session: &Self::Session, near: TcpStream) -> Self::Connection;
    fn file(session: &Self::Session, file: std::fs::File) -> Self::File;

    /// Returns the next bytes, or `None` at the end.
    async fn receive(connection: &mut Self::Connection) -> io::Result<Option<Bytes>>;
    async fn send_all(connection: &mut Self::Connection, bytes: Bytes) -> io::Result<()>;
    async fn read_at(file: &Self::File, buffer: Buffer, offset: u64) -> io::Result<Buffer>;
    async fn write_at(file: &Self::File, bytes: Bytes, offset: u64) -> io::Result<()>;

    async fn sleep(time: Duration);
    /// Spawns a task. The result tells whether it ended without a panic.
    fn spawn<F: Future<Output = ()> + 'static>(task: F) -> impl Future<Output = bool> + 'static;
    /// Waits until the kernel uses no slot.
    async fn drain(session: Self::Session);

    fn has(limit: Limit) -> bool {
        Self::LIMITS.contains(&limit)
    }
}

/// Waits for a future, or until the time is over.
pub async fn timeout<A: Adapter, F: Future>(time: Duration, future: F) -> Option<F::Output> {
    match select(pin!(future), pin!(A::sleep(time))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

/// Waits until `is_so` returns `true`.
pub async fn until<A: Adapter>(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            A::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout::<A, _>(TIMEOUT, wait).await.unwrap_or_else(|| panic!("never: {what}"));
}

/// Joins a thread while the runtime goes on: some close their sockets in a turn of theirs.
pub async fn join<A: Adapter, T>(thread: std::thread::JoinHandle<T>) -> T {
    until::<A>("a thread ends", || thread.is_finished()).await;
    thread.join().unwrap()
}

/// Polls a future when it is woken, `polls` times at most, and drops it then.
///
/// Returns its output if it became ready before.
pub async fn dropped_after<A: Adapter, F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polled = 0;
    let polling = poll_fn(|context| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polled == polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    timeout::<A, _>(TIMEOUT, polling).await.expect("a future that is never woken")
}
