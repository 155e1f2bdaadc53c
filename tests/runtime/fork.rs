//! Forked children of a process with a runtime: the ring is the parent's.

#[cfg(feature = "compio")]
mod on_compio {
    use std::io::Write;
    use std::os::unix::net::UnixStream as StdStream;

    use bytes::Bytes;
    use compio::net::UnixStream;
    use uring_arena::BufferRing;
    use uring_arena::compio::{AttachError, ReceiveRing, Registered, drain};

    use crate::support::fork::in_child;
    use crate::support::runtimes::poll_once;
    use crate::support::{assert_all_free, paged_arena};

    #[test]
    fn a_child_leaves_the_parents_runtime_alone() {
        let arena = paged_arena(8, 4096);
        compio::runtime::Runtime::new().unwrap().block_on(async {
            let registered = Registered::new(&arena).unwrap();
            let options = BufferRing::options().entries(4);
            let ring = ReceiveRing::new(&arena, options).unwrap();
            let (near, mut far) = StdStream::pair().unwrap();
            let near = UnixStream::from_std(near).unwrap();
            let mut incoming = ring.receive(&near);
            // In flight at the fork.
            poll_once(incoming.try_next());
            let (silent, mut peer) = StdStream::pair().unwrap();
            let silent = UnixStream::from_std(silent).unwrap();
            let mut read = Box::pin(registered.read_at(&silent, arena.allocate().unwrap(), 0));
            poll_once(read.as_mut());
            let mut copies = Some((registered, ring, incoming, read));
            in_child(|| {
                let (registered, ring, mut incoming, read) = copies.take().unwrap();
                let refused = Registered::new(&arena).unwrap_err();
                assert_eq!(refused, AttachError::OtherProcess);
                let refused = ReceiveRing::new(&arena, options).unwrap_err();
                assert_eq!(refused, AttachError::OtherProcess);
                let error = now(incoming.try_next()).unwrap_err();
                assert!(error.to_string().contains("forked child"), "{error}");
                let begun = registered.read_at(&silent, arena.allocate().unwrap(), 0);
                let error = now(begun).0.unwrap_err();
                assert!(error.to_string().contains("forked child"), "{error}");
                now(drain());
                drop((incoming, read, ring));
                assert_eq!(registered.unregister().unwrap_err(), AttachError::OtherProcess);
            });
            let (registered, ring, mut incoming, read) = copies.unwrap();
            far.write_all(b"hello").unwrap();
            assert_eq!(incoming.try_next().await.unwrap().unwrap(), "hello");
            peer.write_all(b"read").unwrap();
            let (result, buffer) = read.await.into();
            assert_eq!((result.unwrap(), buffer.freeze()), (4, Bytes::from_static(b"read")));
            drop((incoming, ring));
            drain().await;
            registered.unregister().unwrap();
        });
        assert_all_free(&arena);
    }

    /// Polls a future that is ready at once.
    fn now<F: Future>(future: F) -> F::Output {
        futures::FutureExt::now_or_never(future).expect("ready at once")
    }
}

#[cfg(feature = "tokio-uring")]
mod on_tokio_uring {
    use std::io::Write;
    use std::os::unix::net::UnixStream as StdStream;
    use std::rc::Rc;

    use tokio_uring::net::UnixStream;
    use uring_arena::tokio_uring::{AttachError, Registered, drain, read};

    use crate::support::fork::in_child;
    use crate::support::runtimes::poll_once;
    use crate::support::{assert_all_free, paged_arena};

    #[test]
    fn a_child_leaves_the_parents_runtime_alone() {
        let arena = paged_arena(8, 4096);
        tokio_uring::start(async {
            let registered = Registered::new(&arena).unwrap();
            let (near, mut far) = StdStream::pair().unwrap();
            let near = Rc::new(UnixStream::from_std(near));
            let mut pending = Box::pin(registered.read(&near, arena.allocate().unwrap()));
            poll_once(pending.as_mut());
            let mut copies = Some((registered, pending));
            in_child(|| {
                let (registered, pending) = copies.take().unwrap();
                let refused = Registered::new(&arena).unwrap_err();
                assert!(matches!(refused, AttachError::OtherProcess), "{refused}");
                let refused = now(read(&near, arena.allocate().unwrap())).0.unwrap_err();
                assert!(refused.to_string().contains("forked child"), "{refused}");
                let begun = registered.read(&near, arena.allocate().unwrap());
                let refused = now(begun).0.unwrap_err();
                assert!(refused.to_string().contains("forked child"), "{refused}");
                now(drain());
                drop(pending);
                let refused = registered.unregister().unwrap_err();
                assert!(refused.to_string().contains("forked child"), "{refused}");
            });
            let (registered, pending) = copies.unwrap();
            far.write_all(b"hello").unwrap();
            let (result, buffer) = pending.await;
            assert_eq!((result.unwrap(), &buffer[..]), (5, &b"hello"[..]));
            drop(buffer);
            registered.unregister().unwrap();
            drain().await;
        });
        assert_all_free(&arena);
    }

    /// Polls a future that is ready at once.
    fn now<F: Future>(future: F) -> F::Output {
        futures::FutureExt::now_or_never(future).expect("ready at once")
    }
}

#[cfg(all(feature = "tokio", feature = "io-uring"))]
mod on_a_pool {
    use std::io::Write;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;
    use uring_arena::tokio::{Engine, Pool};

    use crate::support::fork::in_child;
    use crate::support::runtimes::Outcome;
    use crate::support::tokio::{narrow_pair, runtimes, until_all_free};
    use crate::support::{TIMEOUT, paged_arena};

    /// Polls a future that is ready at once, and fails in a forked child.
    fn assert_refused<T>(future: impl Future<Output = std::io::Result<T>>) {
        let result = futures::FutureExt::now_or_never(future).expect("ready at once");
        let Err(error) = result else { panic!("it works in the child") };
        assert!(error.to_string().contains("forked child"), "{error}");
    }

    /// A child that uses and drops its copies neither ends a connection of the parent's nor takes
    /// its descriptors from tokio.
    #[test]
    fn a_child_leaves_the_parents_connections_alone() -> Outcome {
        let engines = [Engine::Auto, Engine::Ring];
        for (runtime, engine) in
            engines.into_iter().flat_map(|engine| runtimes().map(|runtime| (runtime, engine)))
        {
            let arena = paged_arena(16, 4096);
            runtime.block_on(async {
                let pool = Pool::builder(arena.clone()).engine(engine).build()?;
                let (near, mut far) = narrow_pair().await;
                let (incoming, outgoing) = pool.split(near)?;
                let (idle_near, mut idle_far) = narrow_pair().await;
                let (idle_incoming, idle_outgoing) = pool.split(idle_near)?;
                // Under way at the fork.
                outgoing.send(Bytes::from(vec![1; 600_000])).await?;
                let (silent, mut peer) = std::os::unix::net::UnixStream::pair()?;
                let file = pool.file(silent)?;
                let mut copies =
                    Some((pool, incoming, outgoing, idle_incoming, idle_outgoing, file));
                in_child(|| {
                    let (pool, mut incoming, mut outgoing, idle_incoming, idle_outgoing, file) =
                        copies.take().unwrap();
                    assert_refused(incoming.try_next());
                    assert_refused(outgoing.send(Bytes::from_static(b"child")));
                    assert_refused(outgoing.reserve(1));
                    assert_refused(outgoing.flush());
                    assert_refused(outgoing.write(b"child"));
                    assert_refused(outgoing.shutdown());
                    assert_refused(file.write_at(Bytes::from_static(b"child"), 0));
                    outgoing.abort();
                    assert_refused(pool.clone().shutdown());
                    drop((incoming, outgoing, idle_incoming, idle_outgoing, file, pool));
                });
                let (pool, mut incoming, mut outgoing, idle_incoming, mut idle_outgoing, file) =
                    copies.unwrap();
                // The parent's connections go on, in both directions and by tokio's own watch.
                let mut received = vec![0; 600_000];
                timeout(TIMEOUT, far.read_exact(&mut received)).await??;
                let writing = async { outgoing.write_all(&[2; 300_000]).await };
                let mut received = vec![0; 300_000];
                let reading = async { far.read_exact(&mut received).await };
                let (wrote, read) =
                    tokio::join!(timeout(TIMEOUT, writing), timeout(TIMEOUT, reading));
                wrote??;
                read??;
                far.write_all(b"hello").await?;
                assert_eq!(timeout(TIMEOUT, incoming.try_next()).await??.unwrap(), "hello");
                idle_outgoing.write_all(b"idle").await?;
                timeout(TIMEOUT, idle_far.read_exact(&mut received[..4])).await??;
                peer.write_all(b"read")?;
                let read = timeout(TIMEOUT, file.read_at(pool.try_allocate()?, 0)).await??;
                assert_eq!(read[..], *b"read");
                drop((incoming, outgoing, idle_incoming, idle_outgoing, file));
                timeout(TIMEOUT, pool.shutdown()).await??;
                Ok::<_, Box<dyn std::error::Error>>(())
            })?;
            runtime.block_on(until_all_free(&arena));
        }
        Ok(())
    }

    /// Datagram sockets are the parent's as well.
    #[cfg(feature = "io-uring")]
    #[test]
    fn a_child_leaves_the_parents_datagram_sockets_alone() -> Outcome {
        use std::time::Duration;

        use tokio::net::UdpSocket;

        let engines = [Engine::Readiness, Engine::Ring];
        for (runtime, engine) in
            engines.into_iter().flat_map(|engine| runtimes().map(|runtime| (runtime, engine)))
        {
            let arena = paged_arena(16, 4096);
            runtime.block_on(async {
                let pool = Pool::builder(arena.clone()).engine(engine).build()?;
                let peer = UdpSocket::bind("127.0.0.1:0").await?;
                let mut datagrams = pool.datagrams(UdpSocket::bind("127.0.0.1:0").await?)?;
                let (ours, theirs) = (datagrams.local_addr()?, peer.local_addr()?);
                // Waiting at the fork.
                assert!(timeout(Duration::from_millis(5), datagrams.recv()).await.is_err());
                let mut copies = Some((pool, datagrams));
                in_child(|| {
                    let (pool, mut datagrams) = copies.take().unwrap();
                    let sender = datagrams.sender().clone();
                    assert_refused(datagrams.recv());
                    assert_refused(sender.send_to(Bytes::from_static(b"child"), theirs));
                    assert_refused(sender.writable());
                    assert_refused(async { sender.try_send_to(b"child", theirs) });
                    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                    assert!(pool.datagrams(socket).is_err());
                    drop((datagrams, pool, sender));
                });
                let (pool, mut datagrams) = copies.unwrap();
                for _ in 0..4 {
                    peer.send_to(b"parent", ours).await?;
                    let datagram = timeout(TIMEOUT, datagrams.recv()).await??;
                    assert_eq!(datagram.bytes, "parent");
                    timeout(TIMEOUT, datagrams.send_to(datagram.bytes, theirs)).await??;
                    assert_eq!(timeout(TIMEOUT, peer.recv(&mut [0; 8])).await??, 6);
                }
                drop(datagrams);
                timeout(TIMEOUT, pool.shutdown()).await??;
                Ok::<_, Box<dyn std::error::Error>>(())
            })?;
            runtime.block_on(until_all_free(&arena));
        }
        Ok(())
    }
}
