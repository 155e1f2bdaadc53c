//! Operations of no bytes on each runtime: they complete with 0, and touch no memory. A read into
//! no room of an operation of ours is refused.
#![cfg_attr(
    not(any(feature = "compio", feature = "monoio", feature = "tokio", feature = "tokio-uring")),
    allow(unused)
)]

#[cfg(any(feature = "compio", feature = "tokio-uring", feature = "monoio"))]
use crate::support::assert_all_free;
use crate::support::runtimes::Outcome;
use crate::support::{TestFile, filled, paged_arena};
use bytes::Bytes;
use uring_arena::{ArenaBytes, Buffer, FixedArena};

/// The forms of memory without written bytes.
struct Empty {
    buffer: Buffer,
    /// A buffer whose slot is all head room, so that it has no room either.
    roomless: Buffer,
    arena_bytes: ArenaBytes,
    slice: Bytes,
    bytes: Bytes,
}

impl Empty {
    fn of(arena: &FixedArena) -> Empty {
        let mut roomless = arena.allocate().unwrap();
        roomless.reserve_headroom(roomless.capacity()).unwrap();
        assert_eq!(roomless.capacity(), 0);
        let some = filled(arena, b"some").freeze_in_place();
        let slice = Bytes::from(some.clone()).slice(2..2);
        let buffer = arena.allocate().unwrap();
        Empty { buffer, roomless, arena_bytes: some.slice(4..), slice, bytes: Bytes::new() }
    }
}

/// Runs `$body` for each form, under the name `$memory`.
macro_rules! for_each_form {
    ($arena:expr, $memory:ident => $body:expr) => {{
        let Empty { buffer, roomless, arena_bytes, slice, bytes } = Empty::of($arena);
        {
            let $memory = buffer;
            $body;
        }
        {
            let $memory = roomless;
            $body;
        }
        {
            let $memory = arena_bytes;
            $body;
        }
        {
            let $memory = slice;
            $body;
        }
        {
            let $memory = bytes;
            $body;
        }
    }};
}

fn roomless(arena: &FixedArena) -> Buffer {
    Empty::of(arena).roomless
}

#[cfg(feature = "tokio")]
#[test]
fn on_a_tokio_pool() -> Outcome {
    use crate::support::TIMEOUT;
    use crate::support::tokio::{runtimes, tcp_pair, until_all_free};
    use tokio::io::AsyncReadExt;
    use tokio::time::timeout;
    use uring_arena::SendOptions;
    use uring_arena::tokio::Pool;

    for runtime in runtimes() {
        let arena = paged_arena(32, 4096);
        runtime.block_on(async {
            let pool = Pool::new(arena.clone())?;
            let path = TestFile::new("empty", b"as it was");
            let file = pool.file(path.open())?;
            for_each_form!(&arena, memory => timeout(TIMEOUT, file.write_at(memory, 3)).await??);
            let refused = timeout(TIMEOUT, file.read_at(roomless(&arena), 0)).await?;
            assert!(refused.unwrap_err().to_string().contains("no room"));
            for (near, mut far) in [tcp_pair().await, tcp_pair().await] {
                let (_incoming, outgoing) = pool.split(near)?;
                let options = SendOptions::new().zero_copy_from(0);
                for_each_form!(&arena, memory => {
                    timeout(TIMEOUT, outgoing.send_with(memory, options)).await??
                });
                timeout(TIMEOUT, outgoing.send(Bytes::from_static(b"end"))).await??;
                drop((outgoing, _incoming));
                let mut text = Vec::new();
                timeout(TIMEOUT, far.read_to_end(&mut text)).await??;
                assert_eq!(text, b"end");
            }
            assert_eq!(std::fs::read(&path)?, b"as it was");
            drop(file);
            pool.shutdown().await?;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[cfg(feature = "compio")]
#[test]
fn on_compio() -> Outcome {
    use compio::io::{AsyncReadAt, AsyncWrite, AsyncWriteAt};
    use uring_arena::SendOptions;
    use uring_arena::compio::{Registered, block_on, drain, lend};

    let arena = paged_arena(32, 4096);
    let path = TestFile::new("empty", b"as it was");
    let runtime = compio::runtime::Runtime::new()?;
    block_on(&runtime, async {
        let registered = Registered::new(&arena)?;
        let mut file = compio::fs::OpenOptions::new().read(true).write(true).open(&path).await?;
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        let mut socket = compio::net::UnixStream::from_std(near)?;
        let options = SendOptions::new().zero_copy_from(0);
        for_each_form!(&arena, memory => {
            let done = registered.write_at(&file, memory, 3).await;
            assert_eq!(done.0?, 0);
        });
        for_each_form!(&arena, memory => {
            assert_eq!(registered.send(&socket, memory, options).await.0?, 0);
        });
        for_each_form!(&arena, memory => {
            let done = file.write_at(lend(memory), 3).await;
            assert_eq!(done.0?, 0);
            done.1.take_back();
        });
        for_each_form!(&arena, memory => {
            let done = socket.write(lend(memory)).await;
            assert_eq!(done.0?, 0);
            done.1.take_back();
        });
        let done = registered.read_at(&file, roomless(&arena), 0).await;
        assert!(done.0.unwrap_err().to_string().contains("no room"));
        let done = file.read_at(lend(roomless(&arena)), 0).await;
        assert_eq!((done.0?, done.1.take_back().len()), (0, 0));
        // An offset that no file has is refused here too.
        for offset in [u64::MAX, 1 << 63] {
            let done = registered.write_at(&file, filled(&arena, b"not here"), offset).await;
            assert_eq!(done.0.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
            let done = registered.read_at(&file, arena.allocate()?, offset).await;
            assert_eq!(done.0.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        }
        drop((socket, far, file, registered));
        drain().await;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    assert_eq!(std::fs::read(&path)?, b"as it was");
    assert_all_free(&arena);
    Ok(())
}

#[cfg(feature = "tokio-uring")]
#[test]
fn on_tokio_uring() -> Outcome {
    use std::rc::Rc;
    use tokio_uring::buf::BoundedBuf;
    use uring_arena::tokio_uring::{Registered, drain, lend, read_at, write, write_at};

    let arena = paged_arena(32, 4096);
    let path = TestFile::new("empty", b"as it was");
    tokio_uring::start(async {
        let registered = Registered::new(&arena)?;
        let file = Rc::new(tokio_uring::fs::File::from_std(path.open()));
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        let socket = Rc::new(tokio_uring::net::UnixStream::from_std(near));
        for_each_form!(&arena, memory => {
            assert_eq!(registered.write_at(&file, memory, 3).await.0?, 0);
        });
        for_each_form!(&arena, memory => {
            assert_eq!(registered.write(&socket, memory).await.0?, 0);
        });
        for_each_form!(&arena, memory => assert_eq!(write_at(&file, memory, 3).await.0?, 0));
        for_each_form!(&arena, memory => assert_eq!(write(&socket, memory).await.0?, 0));
        for_each_form!(&arena, memory => {
            let loan = lend(memory);
            let (done, loan) = file.write_at(loan.slice_full(), 3).submit().await;
            assert_eq!(done?, 0);
            loan.into_inner().take_back();
        });
        let (read, _) = registered.read_at(&file, roomless(&arena), 0).await;
        assert!(read.unwrap_err().to_string().contains("no room"));
        let (read, _) = read_at(&file, roomless(&arena), 0).await;
        assert!(read.unwrap_err().to_string().contains("no room"));
        let (read, loan) = file.read_at(lend(roomless(&arena)), 0).await;
        assert_eq!((read?, loan.take_back().len()), (0, 0));
        for offset in [u64::MAX, 1 << 63] {
            let kind = |done: std::io::Result<usize>| done.unwrap_err().kind();
            let done = registered.write_at(&file, filled(&arena, b"no"), offset).await.0;
            assert_eq!(kind(done), std::io::ErrorKind::InvalidInput);
            let done = write_at(&file, filled(&arena, b"no"), offset).await.0;
            assert_eq!(kind(done), std::io::ErrorKind::InvalidInput);
            let done = registered.read_at(&file, arena.allocate()?, offset).await.0;
            assert_eq!(kind(done), std::io::ErrorKind::InvalidInput);
            let done = read_at(&file, arena.allocate()?, offset).await.0;
            assert_eq!(kind(done), std::io::ErrorKind::InvalidInput);
        }
        registered.unregister()?;
        drop((socket, far, file));
        drain().await;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    assert_eq!(std::fs::read(&path)?, b"as it was");
    assert_all_free(&arena);
    Ok(())
}

#[cfg(feature = "monoio")]
#[test]
fn on_monoio() -> Outcome {
    use monoio::io::AsyncWriteRent;
    use uring_arena::monoio::{block_on, lend};

    let arena = paged_arena(32, 4096);
    let path = TestFile::new("empty", b"as it was");
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build()?;
    block_on(&mut runtime, async {
        let file = monoio::fs::File::from_std(path.open())?;
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        near.set_nonblocking(true)?;
        let mut socket = monoio::net::UnixStream::from_std(near)?;
        for_each_form!(&arena, memory => {
            let (done, loan) = file.write_at(lend(memory), 3).await;
            assert_eq!(done?, 0);
            loan.take_back();
        });
        for_each_form!(&arena, memory => {
            let (done, loan) = socket.write(lend(memory)).await;
            assert_eq!(done?, 0);
            loan.take_back();
        });
        let (read, loan) = file.read_at(lend(roomless(&arena)), 0).await;
        assert_eq!((read?, loan.take_back().len()), (0, 0));
        drop(far);
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    assert_eq!(std::fs::read(&path)?, b"as it was");
    assert_all_free(&arena);
    Ok(())
}
