//! Ordinary tokio: the ring as a task of a one-thread runtime and on a thread of its own, and the
//! reactor on one thread and on two.

use std::future::Future;
use std::io;
use std::net::TcpStream;
use std::time::Duration;

use super::{Adapter, Arena, Limit};
use crate::support::tokio::RingsOnly;
use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use uring_arena::Buffer;
use uring_arena::tokio::{Engine, File, Pool, RecvStream, SendHalf};

macro_rules! tokio_adapter {
    ($name:ident, $engine:expr, $builder:expr) => {
        pub struct $name;

        impl Adapter for $name {
            type Connection = (RecvStream, SendHalf);
            type File = File;
            type Runtime = (LocalSet, Runtime);
            type Session = Pool;

            const COLUMN: &'static str = "`tokio`";
            const IS_POOL: bool = true;
            const LIMITS: &'static [Limit] = &[];

            fn runtime() -> (LocalSet, Runtime) {
                (LocalSet::new(), $builder.enable_all().build().unwrap())
            }

            fn block_on<F: Future>((tasks, runtime): &mut (LocalSet, Runtime), f: F) -> F::Output {
                tasks.block_on(runtime, f)
            }

            fn attach(arena: &Arena) -> Pool {
                Pool::builder((**arena).clone()).engine($engine).entries(2).build().unwrap()
            }

            fn connection(pool: &Pool, near: TcpStream) -> (RecvStream, SendHalf) {
                near.set_nonblocking(true).unwrap();
                pool.split(tokio::net::TcpStream::from_std(near).unwrap()).unwrap()
            }

            fn file(pool: &Pool, file: std::fs::File) -> File {
                pool.file(file).unwrap()
            }

            async fn receive(
                (incoming, _): &mut (RecvStream, SendHalf),
            ) -> io::Result<Option<Bytes>> {
                incoming.try_next().await
            }

            async fn send_all(
                (_, outgoing): &mut (RecvStream, SendHalf),
                bytes: Bytes,
            ) -> io::Result<()> {
                outgoing.send(bytes).await
            }

            async fn read_at(file: &File, buffer: Buffer, offset: u64) -> io::Result<Buffer> {
                file.read_at(buffer, offset).await
            }

            async fn write_at(file: &File, bytes: Bytes, offset: u64) -> io::Result<()> {
                file.write_at(bytes, offset).await
            }

            async fn sleep(time: Duration) {
                tokio::time::sleep(time).await;
            }

            fn spawn<F: Future<Output = ()> + 'static>(
                task: F,
            ) -> impl Future<Output = bool> + 'static {
                let task = tokio::task::spawn_local(task);
                async move { task.await.is_ok() }
            }

            async fn drain(pool: Pool) {
                let drained = pool.shutdown().await.unwrap();
                assert_eq!((drained.in_flight, drained.quarantined), (0, 0));
            }
        }
    };
}

tokio_adapter!(TokioTask, Engine::Ring, Builder::new_current_thread());
tokio_adapter!(TokioThread, Engine::Ring, Builder::new_multi_thread().worker_threads(2));
tokio_adapter!(TokioReadiness, Engine::Readiness, Builder::new_current_thread());
tokio_adapter!(TokioWorkers, Engine::Readiness, Builder::new_multi_thread().worker_threads(2));
