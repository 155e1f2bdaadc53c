//! monoio: loans in its own methods, by our `block_on`.

use std::future::Future;
use std::io;
use std::time::Duration;

use super::{Adapter, Arena, Limit};
use bytes::Bytes;
use monoio::fs::File;
use monoio::io::AsyncReadRent;
use monoio::net::TcpStream;
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};
use uring_arena::Buffer;
use uring_arena::monoio::{block_on, lend, send_all};

pub struct Monoio;

impl Adapter for Monoio {
    type Connection = (TcpStream, Arena);
    type File = File;
    type Runtime = Runtime<TimeDriver<IoUringDriver>>;
    type Session = Arena;

    const COLUMN: &'static str = "`monoio` 0.2";
    const LIMITS: &'static [Limit] = &[
        Limit::DroppedReadsSwallow,
        Limit::DroppedSendsAreCut,
        Limit::ReadsOverwrite,
        Limit::PanicsEndTheRuntime,
        Limit::TasksOutliveTheRuntime,
    ];

    fn runtime() -> Self::Runtime {
        RuntimeBuilder::<IoUringDriver>::new().enable_timer().build().unwrap()
    }

    fn block_on<F: Future>(runtime: &mut Self::Runtime, future: F) -> F::Output {
        block_on(runtime, future)
    }

    fn attach(arena: &Arena) -> Arena {
        arena.clone()
    }

    fn connection(arena: &Arena, near: std::net::TcpStream) -> Self::Connection {
        (TcpStream::from_std(near).unwrap(), arena.clone())
    }

    fn file(_: &Arena, file: std::fs::File) -> File {
        File::from_std(file).unwrap()
    }

    async fn receive((near, arena): &mut Self::Connection) -> io::Result<Option<Bytes>> {
        let buffer = arena.allocate_async().await;
        let (read, loan) = near.read(lend(buffer)).await;
        Ok((read? > 0).then(|| loan.freeze()))
    }

    async fn send_all((near, _): &mut Self::Connection, bytes: Bytes) -> io::Result<()> {
        let (len, sent) = (bytes.len(), send_all(near, bytes).await.0?);
        assert_eq!(sent, len);
        Ok(())
    }

    async fn read_at(file: &File, buffer: Buffer, offset: u64) -> io::Result<Buffer> {
        let (read, loan) = file.read_at(lend(buffer), offset).await;
        let buffer = loan.take_back();
        assert_eq!(read?, buffer.len());
        Ok(buffer)
    }

    async fn write_at(file: &File, bytes: Bytes, offset: u64) -> io::Result<()> {
        file.write_all_at(lend(bytes), offset).await.0
    }

    async fn sleep(time: Duration) {
        monoio::time::sleep(time).await;
    }

    fn spawn<F: Future<Output = ()> + 'static>(task: F) -> impl Future<Output = bool> + 'static {
        let task = monoio::spawn(task);
        async move {
            task.await;
            true
        }
    }

    async fn drain(arena: Arena) {
        // Dropped operations are cancelled, and their slots come back in some turns.
        super::until::<Monoio>("every slot is free", || arena.metrics().bytes_live == 0).await;
    }
}
