//! Helpers of the tests on tokio.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};
use uring_arena::tokio::{Engine, PoolBuilder};

use super::{Countable, TIMEOUT, assert_all_free};

/// Builds a runtime of one thread and one of two: each test runs on both.
pub fn runtimes() -> [Runtime; 2] {
    let multi = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    [Builder::new_current_thread().enable_all().build().unwrap(), multi]
}

/// Returns whether this build has the engine.
pub fn is_built(engine: Engine) -> bool {
    engine != Engine::Ring || cfg!(all(feature = "io-uring", target_os = "linux"))
}

/// The options of a pool that only a ring has. A build without rings leaves them out.
pub trait RingsOnly: Sized {
    /// Sets the slots that lie ready for the kernel.
    fn entries(self, entries: u16) -> Self;

    /// Sets the same, and copies nothing while few slots are free.
    fn entries_without_copies(self, entries: u16) -> Self;

    /// Sets the most connections.
    fn operations(self, operations: usize) -> Self;
}

#[cfg(all(feature = "io-uring", target_os = "linux"))]
impl RingsOnly for PoolBuilder {
    fn entries(self, entries: u16) -> PoolBuilder {
        self.ring(uring_arena::BufferRing::options().entries(entries.into()))
    }

    fn entries_without_copies(self, entries: u16) -> PoolBuilder {
        let ring = uring_arena::BufferRing::options().entries(entries.into());
        self.ring(ring.copy_under_pressure(false))
    }

    fn operations(self, operations: usize) -> PoolBuilder {
        self.driver(uring_arena::Driver::builder().operations(operations))
    }
}

#[cfg(not(all(feature = "io-uring", target_os = "linux")))]
impl RingsOnly for PoolBuilder {
    fn entries(self, _: u16) -> PoolBuilder {
        self
    }

    fn entries_without_copies(self, _: u16) -> PoolBuilder {
        self
    }

    fn operations(self, _: usize) -> PoolBuilder {
        self
    }
}

/// Builds each kind of runtime for each engine of a pool that the build has: each test runs on all
/// four.
pub fn settings() -> impl Iterator<Item = (Runtime, Engine)> {
    [Engine::Ring, Engine::Readiness]
        .into_iter()
        .filter(|engine| is_built(*engine))
        .flat_map(|engine| runtimes().map(|runtime| (runtime, engine)))
        .inspect(|(runtime, engine)| {
            // Captured unless the test fails.
            println!("on {engine}, {:?}", runtime.handle().runtime_flavor());
        })
}

/// Builds each kind of runtime for the ring: for tests of what only a driver does.
pub fn rings() -> impl Iterator<Item = (Runtime, Engine)> {
    settings().filter(|(_, engine)| *engine == Engine::Ring)
}

pub async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
    (accepted.unwrap().0, connected.unwrap())
}

/// Waits until `is_so` returns `true`.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(TIMEOUT, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Runs `work` as a task beside another one that never rests. Returns how often that one ran.
pub async fn turns_beside(work: impl Future<Output = ()> + Send + 'static) -> usize {
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    });
    until("the other task runs", || turns.load(Ordering::SeqCst) > 0).await;
    let working = tokio::spawn(async move {
        let before = turns.load(Ordering::SeqCst);
        work.await;
        turns.load(Ordering::SeqCst) - before
    });
    let turns = timeout(TIMEOUT, working).await.expect("it hangs").unwrap();
    other.abort();
    turns
}

/// Waits until every slot is free again.
pub async fn until_all_free(arena: &impl Countable) {
    until("every slot is free", || arena.counts().bytes_live == 0).await;
    assert_all_free(arena);
}

/// Opens a connection that holds little in the kernel: a peer that does not read is felt soon.
pub async fn narrow_pair() -> (TcpStream, TcpStream) {
    let narrow = || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(4096).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket
    };
    let listening = narrow();
    listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listening.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, connected) = tokio::join!(listener.accept(), narrow().connect(address));
    (accepted.unwrap().0, connected.unwrap())
}

/// Reads until the end, or a reset. Returns what came before it, and whether it was a reset.
pub async fn read_to_the_end(mut from: TcpStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let read = timeout(TIMEOUT, from.read_to_end(&mut all)).await.expect("an end, or a reset");
    let was_reset = match read {
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
        Err(error) => panic!("{error}"),
    };
    (all, was_reset)
}
