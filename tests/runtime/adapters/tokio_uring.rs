//! tokio-uring: reads and writes of the library, on registered memory.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::{Adapter, Arena, Limit};
use bytes::Bytes;
use tokio_uring::fs::File;
use tokio_uring::net::TcpStream;
use tokio_uring::{Runtime, builder};
use uring_arena::Buffer;
use uring_arena::tokio_uring::{Registered, drain, send_all};

pub struct TokioUring;

impl Adapter for TokioUring {
    type Connection = (Rc<TcpStream>, Self::Session);
    type File = (Rc<File>, Self::Session);
    type Runtime = Runtime;
    type Session = (Rc<Registered>, Arena);

    const COLUMN: &'static str = "`tokio-uring` 0.5";
    const LIMITS: &'static [Limit] =
        &[Limit::DroppedReadsSwallow, Limit::DroppedReadsWaitForThePeer];

    fn runtime() -> Runtime {
        Runtime::new(&builder()).unwrap()
    }

    fn block_on<F: Future>(runtime: &mut Runtime, future: F) -> F::Output {
        runtime.block_on(future)
    }

    fn attach(arena: &Arena) -> Self::Session {
        (Rc::new(Registered::new(arena).unwrap()), arena.clone())
    }

    fn connection(session: &Self::Session, near: std::net::TcpStream) -> Self::Connection {
        (Rc::new(TcpStream::from_std(near)), session.clone())
    }

    fn file(session: &Self::Session, file: std::fs::File) -> Self::File {
        (Rc::new(File::from_std(file)), session.clone())
    }

    async fn receive((near, session): &mut Self::Connection) -> io::Result<Option<Bytes>> {
        let buffer = session.1.allocate_async().await;
        let (read, buffer) = session.0.read(near, buffer).await;
        Ok((read? > 0).then(|| buffer.freeze()))
    }

    async fn send_all((near, _): &mut Self::Connection, bytes: Bytes) -> io::Result<()> {
        let (len, sent) = (bytes.len(), send_all(near, bytes).await.0?);
        assert_eq!(sent, len);
        Ok(())
    }

    async fn read_at(file: &Self::File, buffer: Buffer, offset: u64) -> io::Result<Buffer> {
        let before = buffer.len();
        let (read, buffer) = file.1.0.read_at(&file.0, buffer, offset).await;
        assert_eq!(before + read?, buffer.len());
        Ok(buffer)
    }

    async fn write_at(file: &Self::File, bytes: Bytes, offset: u64) -> io::Result<()> {
        let len = bytes.len();
        assert_eq!(file.1.0.write_at(&file.0, bytes, offset).await.0?, len);
        Ok(())
    }

    async fn sleep(time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn spawn<F: Future<Output = ()> + 'static>(task: F) -> impl Future<Output = bool> + 'static {
        let task = tokio_uring::spawn(task);
        async move { task.await.is_ok() }
    }

    async fn drain(session: Self::Session) {
        drop(session);
        drain().await;
    }
}
