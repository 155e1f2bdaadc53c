//! The parts that all proofs share: each runs with either engine on either kind of runtime, and
//! every slot is free at the end.

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};
use uring_arena::FixedArena;
use uring_arena::tokio::{Engine, Pool, Stream};

/// The time after which a proof hangs. Generous: others may load the machine.
pub const TIMEOUT: Duration = Duration::from_secs(60);

pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Few and small slots: messages are cut, and wait for slots.
const SLOTS: usize = 64;
const SLOT_BYTES: usize = 2048;

fn runtimes() -> [Runtime; 2] {
    let many = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    [Builder::new_current_thread().enable_all().build().unwrap(), many]
}

/// Runs `proof` with a pool of each engine on each kind of runtime. Fails unless every slot is free
/// when it is over and the pool shut down.
pub fn on_all<F: Future<Output = Outcome>>(proof: impl Fn(Pool) -> F) -> Outcome {
    on_all_with(|| FixedArena::new(SLOTS, SLOT_BYTES).unwrap(), proof)
}

/// Runs `proof` as [`on_all`] does, with an arena of its own.
pub fn on_all_with<F: Future<Output = Outcome>>(
    arena: impl Fn() -> FixedArena,
    proof: impl Fn(Pool) -> F,
) -> Outcome {
    for engine in [Engine::Ring, Engine::Readiness] {
        for runtime in runtimes() {
            // Captured unless the test fails.
            println!("on {engine}, {:?}", runtime.handle().runtime_flavor());
            let arena = arena();
            runtime.block_on(async {
                let pool = match Pool::builder(arena.clone()).engine(engine).build() {
                    Ok(pool) => pool,
                    Err(error) if engine == Engine::Ring => {
                        println!("SKIPPED on a ring: {error}");
                        return Ok(());
                    }
                    Err(error) => return Err(error.into()),
                };
                timeout(TIMEOUT, proof(pool.clone())).await??;
                let report = timeout(TIMEOUT, pool.shutdown()).await??;
                assert_eq!((report.in_flight, report.quarantined), (0, 0));
                let is_free = async {
                    while arena.metrics().bytes_live > 0 {
                        sleep(Duration::from_millis(1)).await;
                    }
                };
                timeout(TIMEOUT, is_free).await.map_err(|_| "slots are not free at the end")?;
                Outcome::Ok(())
            })?;
            assert_eq!(arena.metrics().quarantined, 0);
        }
    }
    Ok(())
}

/// A listener whose connections are streams of a pool.
pub struct Listener {
    listener: TcpListener,
    pool: Pool,
}

impl Listener {
    pub async fn bind(pool: &Pool) -> Listener {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Listener { listener, pool: pool.clone() }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub async fn accept(&self) -> Stream {
        let (socket, _) = self.listener.accept().await.unwrap();
        self.pool.stream(socket).unwrap()
    }
}

/// Connects to an address by a stream of a pool.
pub async fn connect(pool: &Pool, address: SocketAddr) -> Stream {
    pool.stream(TcpStream::connect(address).await.unwrap()).unwrap()
}

/// Makes bytes in which a misplaced part shows.
pub fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251 + seed * 7) as u8).collect()
}
