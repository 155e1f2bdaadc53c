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
