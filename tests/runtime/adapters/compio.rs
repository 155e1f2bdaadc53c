//! compio: a buffer ring for what is received, registered memory for the rest; by compio's own
//! `block_on`, and by ours.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::{Adapter, Arena, Limit};
use bytes::Bytes;
use compio::net::TcpStream;
use compio::runtime::Runtime;
use uring_arena::compio::{ReceiveRing, ReceiveStream, Registered, block_on, drain};
use uring_arena::{Buffer, BufferRing, SendOptions};

macro_rules! compio_adapter {
    ($name:ident, $block_on:expr) => {
        pub struct $name;

        impl Adapter for $name {
            type Connection = (ReceiveStream<TcpStream>, TcpStream, Self::Session);
            type File = (Rc<std::fs::File>, Self::Session);
            type Runtime = Runtime;
            type Session = (Rc<Registered>, ReceiveRing);

            const COLUMN: &'static str = "`compio` 0.19";
            const LIMITS: &'static [Limit] = &[];

            fn runtime() -> Runtime {
                Runtime::new().unwrap()
            }

            fn block_on<F: Future>(runtime: &mut Runtime, future: F) -> F::Output {
                $block_on(&*runtime, future)
            }

            fn attach(arena: &Arena) -> Self::Session {
                let ring = ReceiveRing::new(arena, BufferRing::options().entries(2)).unwrap();
                (Rc::new(Registered::new(&**arena).unwrap()), ring)
            }

            fn connection(session: &Self::Session, near: std::net::TcpStream) -> Self::Connection {
                let near = TcpStream::from_std(near).unwrap();
                (session.1.receive(&near), near, session.clone())
            }

            fn file(session: &Self::Session, file: std::fs::File) -> Self::File {
                (Rc::new(file), session.clone())
            }

            async fn receive((incoming, ..): &mut Self::Connection) -> io::Result<Option<Bytes>> {
                incoming.try_next().await
            }

            async fn send_all(to: &mut Self::Connection, bytes: Bytes) -> io::Result<()> {
                let (len, options) = (bytes.len(), SendOptions::new());
                assert_eq!(to.2.0.send_all(&to.1, bytes, options).await.0?, len);
                Ok(())
            }

            async fn read_at(file: &Self::File, buffer: Buffer, offset: u64) -> io::Result<Buffer> {
                let before = buffer.len();
                let (read, buffer) = file.1.0.read_at(&file.0, buffer, offset).await.into();
                let read: usize = read?;
                assert_eq!(before + read, buffer.len());
                Ok(buffer)
            }

            async fn write_at(file: &Self::File, bytes: Bytes, offset: u64) -> io::Result<()> {
                let len = bytes.len();
                assert_eq!(file.1.0.write_at(&file.0, bytes, offset).await.0?, len);
                Ok(())
            }

            async fn sleep(time: Duration) {
                compio::runtime::time::sleep(time).await;
            }

            fn spawn<F: Future<Output = ()> + 'static>(
                task: F,
            ) -> impl Future<Output = bool> + 'static {
                let task = compio::runtime::spawn(task);
                async move { task.await.is_ok() }
            }

            async fn drain(session: Self::Session) {
                drop(session);
                drain().await;
            }
        }
    };
}

compio_adapter!(Compio, Runtime::block_on);
compio_adapter!(CompioOurs, block_on);
