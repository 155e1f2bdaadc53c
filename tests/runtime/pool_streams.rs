//! A connection as one value: every way of reading and writing, splitting, and giving it back.

use std::io::{ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::Pin;
use std::time::Duration;

use crate::support::runtimes::Outcome;
use crate::support::tokio::{
    RingsOnly, narrow_pair, read_to_the_end, rings, settings, tcp_pair, until, until_all_free,
};
use crate::support::{Random, TIMEOUT, message_pair, paged_arena, pattern};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use uring_arena::tokio::{Engine, Pool, Stream};

/// The bytes come whole and in order, whatever way of reading each of them comes by.
#[test]
fn all_ways_of_reading_mix() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(16, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, mut far) = tcp_pair().await;
            let mut stream = pool.stream(near)?;
            let expected = pattern(1, 500_000);
            let message = expected.clone();
            let sending = tokio::spawn(async move {
                for piece in message.chunks(7919) {
                    far.write_all(piece).await.unwrap();
                }
            });
            let (mut received, mut random) = (Vec::new(), Random::new(1));
            loop {
                let before = received.len();
                let read = async {
                    match random.below(4) {
                        0 => received.extend_from_slice(
                            &stream.try_next().await?.unwrap_or_else(Bytes::new),
                        ),
                        1 => {
                            let bytes = stream.next().await.transpose()?;
                            received.extend_from_slice(&bytes.unwrap_or_else(Bytes::new));
                        }
                        2 => {
                            let mut room = vec![0; 1 + random.below(10_000) as usize];
                            let bytes = stream.read(&mut room).await?;
                            received.extend_from_slice(&room[..bytes]);
                        }
                        _ => {
                            let bytes = stream.fill_buf().await?;
                            let used = bytes.len().min(1 + random.below(5000) as usize);
                            received.extend_from_slice(&bytes[..used]);
                            stream.consume(used);
                        }
                    }
                    Ok::<_, std::io::Error>(())
                };
                timeout(TIMEOUT, read).await??;
                if received.len() == before {
                    break;
                }
            }
            assert!(received == expected);
            // The end stays the end, by each.
            assert!(stream.try_next().await?.is_none());
            assert_eq!(stream.read(&mut [0; 8]).await?, 0);
            assert!(stream.fill_buf().await?.is_empty());
            assert!(stream.next().await.is_none());
            sending.await?;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn writes_of_all_kinds_and_sends_go_out_in_order() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(16, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, far) = tcp_pair().await;
            let mut stream = pool.stream(near)?;
            let reading = tokio::spawn(read_to_the_end(far));
            let expected = pattern(2, 1_000_000);
            let mut rest = &expected[..];
            let mut turn = 0;
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(rest.len().min(30_011));
                turn += 1;
                rest = match turn % 3 {
                    0 => {
                        timeout(TIMEOUT, stream.send(Bytes::copy_from_slice(piece))).await??;
                        behind
                    }
                    1 => {
                        timeout(TIMEOUT, stream.write_all(piece)).await??;
                        behind
                    }
                    _ => {
                        let (first, second) = piece.split_at(piece.len() / 2);
                        let pieces = [IoSlice::new(first), IoSlice::new(second)];
                        let written = timeout(TIMEOUT, stream.write_vectored(&pieces)).await??;
                        &rest[written..]
                    }
                };
            }
            assert!(Pin::new(&mut stream).is_write_vectored());
            timeout(TIMEOUT, stream.shutdown()).await??;
            let (received, was_reset) = timeout(TIMEOUT, reading).await??;
            assert!(received == expected && !was_reset);
            assert_eq!(stream.write(b"late").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// More pieces than the system takes by one call: a write that is short because of that leaves the
/// socket writable.
#[test]
fn a_write_of_very_many_pieces_is_followed_by_others() -> Outcome {
    for (runtime, engine) in settings() {
        runtime.block_on(async {
            let pool = Pool::builder(paged_arena(16, 4096)).engine(engine).build()?;
            let (near, far) = tcp_pair().await;
            let mut stream = pool.stream(near)?;
            let reading = tokio::spawn(read_to_the_end(far));
            let pieces = vec![IoSlice::new(b"piece"); 3000];
            for _ in 0..20 {
                let written = timeout(TIMEOUT, stream.write_vectored(&pieces)).await??;
                assert_eq!(written % 5, 0);
                timeout(TIMEOUT, stream.write_all(b"and so")).await??;
            }
            timeout(TIMEOUT, stream.shutdown()).await??;
            timeout(TIMEOUT, reading).await??;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
    }
    Ok(())
}

/// Halves end their own direction; both of one stream make it again, and no others do.
#[test]
fn a_stream_is_split_and_reunited() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(16, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, mut far) = tcp_pair().await;
            let (other, _other_far) = tcp_pair().await;
            let (read, write) = pool.stream(near)?.into_split();
            let (other_read, other_write) = pool.stream(other)?.into_split();
            let refused = Stream::reunite(read, other_write).unwrap_err();
            assert!(refused.to_string().contains("same stream"), "{refused}");
            assert!(Stream::reunite(other_read, refused.write).is_ok());
            let mut stream = Stream::reunite(refused.read, write)?;
            far.write_all(b"ping").await?;
            assert_eq!(timeout(TIMEOUT, stream.try_next()).await??.unwrap(), "ping");
            // Half-closed: the peer sees the end, and goes on to send.
            let (mut read, mut write) = stream.into_split();
            write.write_all(b"pong").await?;
            drop(write);
            let mut answer = String::new();
            timeout(TIMEOUT, far.read_to_string(&mut answer)).await??;
            assert_eq!(answer, "pong");
            far.write_all(b"more").await?;
            assert_eq!(timeout(TIMEOUT, read.try_next()).await??.unwrap(), "more");
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// Each kind of socket serves, by the addresses that it has; what is none comes back.
#[test]
fn sockets_of_every_kind_are_taken_and_others_come_back() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(16, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            for kind in 0..3 {
                let (near, mut far) = tcp_pair().await;
                let (ours, theirs) = (near.local_addr()?, near.peer_addr()?);
                let mut stream = match kind {
                    0 => pool.stream(near)?,
                    1 => pool.stream(blocking(near)?)?,
                    _ => pool.stream(OwnedFd::from(blocking(near)?))?,
                };
                assert_eq!((stream.local_addr()?, stream.peer_addr()?), (ours, theirs));
                stream.set_nodelay(true)?;
                assert!(rustix::net::sockopt::tcp_nodelay(stream.as_fd())?);
                far.write_all(b"tcp").await?;
                assert_eq!(timeout(TIMEOUT, stream.try_next()).await??.unwrap(), "tcp");
            }
            for kind in 0..3 {
                let (near, far) = std::os::unix::net::UnixStream::pair()?;
                let mut stream = match kind {
                    0 => {
                        near.set_nonblocking(true)?;
                        pool.stream(UnixStream::from_std(near)?)?
                    }
                    1 => pool.stream(near)?,
                    _ => pool.stream(OwnedFd::from(near))?,
                };
                assert!(stream.peer_addr().is_err(), "a Unix socket has no such address");
                std::io::Write::write_all(&mut &far, b"unix")?;
                assert_eq!(timeout(TIMEOUT, stream.try_next()).await??.unwrap(), "unix");
            }
            let (messages, _far) = message_pair();
            let refused = pool.stream(messages).unwrap_err();
            assert_eq!(refused.error.kind(), ErrorKind::InvalidInput);
            assert!(refused.to_string().contains("SOCK_STREAM"), "{refused}");
            assert!(refused.socket.is_some(), "it comes back");
            let file = OwnedFd::from(std::fs::File::open("/dev/null")?);
            assert!(pool.stream(file).unwrap_err().socket.is_some());
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

fn blocking(socket: TcpStream) -> std::io::Result<std::net::TcpStream> {
    let socket = socket.into_std()?;
    socket.set_nonblocking(false)?;
    Ok(socket)
}

/// A socket that is given back is open in both directions, with what was received and not read.
#[test]
fn a_stream_gives_its_socket_back_with_what_is_unread() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(16, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, mut far) = tcp_pair().await;
            let mut stream = pool.stream(near)?;
            far.write_all(b"line\nrest").await?;
            let mut line = String::new();
            timeout(TIMEOUT, stream.read_line(&mut line)).await??;
            // Sends that are over hinder nothing.
            stream.send(Bytes::from_static(b"sent")).await?;
            timeout(TIMEOUT, stream.write_half().flush()).await??;
            let (socket, unread) = timeout(TIMEOUT, stream.into_inner()).await??;
            assert_eq!((&line[..], unread.concat()), ("line\n", b"rest".to_vec()));
            assert_eq!(pool.metrics().connections, 0);
            let mut socket = TcpStream::from_std(socket.into())?;
            far.write_all(b"later").await?;
            let mut later = [0; 5];
            timeout(TIMEOUT, socket.read_exact(&mut later)).await??;
            socket.write_all(&later).await?;
            let mut both = [0; 9];
            timeout(TIMEOUT, far.read_exact(&mut both)).await??;
            assert_eq!(&both, b"sentlater");
            // With sends queued the connection ends behind them.
            let stream = pool.stream(socket)?;
            stream.send(Bytes::from(vec![7; 900_000])).await?;
            stream.send(Bytes::from(vec![8; 100_000])).await?;
            // Or all of it is out already.
            if let Err(error) = timeout(TIMEOUT, stream.into_inner()).await? {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
            }
            let (received, was_reset) = read_to_the_end(far).await;
            assert_eq!((received.len(), was_reset), (1_000_000, false));
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// A socket is given back by a stream in any state: not read, at its end, paused, starved, of a
/// pool that was shut down. Nothing that the peer sent is lost.
#[test]
fn a_socket_comes_back_from_a_stream_in_any_state() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(8, 4096);
        runtime.block_on(async {
            let builder = Pool::builder(arena.clone()).engine(engine).entries(4);
            let pool = builder.messages_max(2).build()?;
            for len in [0, 1, 5_000, 100_000] {
                for is_finished in [false, true] {
                    let (near, mut far) = tcp_pair().await;
                    let mut stream = pool.stream(near)?;
                    let sending = tokio::spawn(async move {
                        far.write_all(&vec![7; len]).await?;
                        if is_finished {
                            far.shutdown().await?;
                        }
                        Ok::<_, std::io::Error>(far)
                    });
                    let mut all = Vec::new();
                    if len > 0 {
                        all.extend(timeout(TIMEOUT, stream.try_next()).await??.unwrap());
                    }
                    // Some arrive meanwhile, and stop the socket of a ring.
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    let (socket, unread) = timeout(TIMEOUT, stream.into_inner()).await??;
                    all.extend(unread.concat());
                    drop(unread);
                    let mut socket = TcpStream::from_std(socket.into())?;
                    while all.len() < len {
                        let mut more = [0; 4096];
                        match timeout(TIMEOUT, socket.read(&mut more)).await?? {
                            0 => panic!("{} of {len} bytes came", all.len()),
                            read => all.extend(&more[..read]),
                        }
                    }
                    assert!(all.len() == len && all.iter().all(|&byte| byte == 7));
                    let mut far = timeout(TIMEOUT, sending).await???;
                    socket.write_all(b"still open").await?;
                    let mut text = [0; 10];
                    timeout(TIMEOUT, far.read_exact(&mut text)).await??;
                }
            }
            let (near, _far) = tcp_pair().await;
            let stream = pool.stream(near)?;
            timeout(TIMEOUT, pool.shutdown()).await??;
            if let Err(error) = timeout(TIMEOUT, stream.into_inner()).await? {
                assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// As a sink a stream sends items in order with its other sends, waits for room, and loses none.
#[test]
fn a_stream_is_a_sink_of_bytes() -> Outcome {
    use futures_util::{FutureExt, SinkExt};

    for (runtime, engine) in settings() {
        let arena = paged_arena(16, 4096);
        runtime.block_on(async {
            let builder = Pool::builder(arena.clone()).engine(engine);
            let pool = builder.send_bytes_max(1000).build()?;
            // More than the bound at a time, and less; sends and writes between.
            let (near, far) = tcp_pair().await;
            let reading = tokio::spawn(read_to_the_end(far));
            let mut stream = pool.stream(near)?;
            let mut expected = Vec::new();
            for number in 0..200u8 {
                let item = vec![number; usize::from(number) * 50];
                expected.extend(&item);
                match number % 4 {
                    0 => timeout(TIMEOUT, stream.send(Bytes::from(item))).await??,
                    1 => timeout(TIMEOUT, SinkExt::send(&mut stream, item.into())).await??,
                    2 => timeout(TIMEOUT, stream.write_all(&item)).await??,
                    _ => timeout(TIMEOUT, stream.feed(item.into())).await??,
                }
            }
            timeout(TIMEOUT, SinkExt::<Bytes>::close(&mut stream)).await??;
            assert_eq!(timeout(TIMEOUT, reading).await??, (expected, false));
            let error = stream.feed(Bytes::from_static(b"late")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            // An item that waits for room goes out, whatever is dropped.
            let (near, far) = narrow_pair().await;
            let mut stream = pool.stream(near)?;
            let mut fed = 0;
            while let Some(done) = stream.feed(Bytes::from(vec![7; 700])).now_or_never() {
                done?;
                fed += 700;
                tokio::task::yield_now().await;
            }
            drop(stream);
            assert_eq!(read_to_the_end(far).await, (vec![7; fed], false));
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// Connections of a ring are counted where they are made, of whatever kind: the one too many is
/// refused at once, with the number, and there is room again when one is gone.
#[test]
fn a_connection_too_many_is_refused_at_once() -> Outcome {
    for (runtime, engine) in rings() {
        let arena = paged_arena(16, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).operations(4).build()?;
            let mut far_ends = Vec::new();
            let mut near_end = || {
                let (near, far) = UnixStream::pair().unwrap();
                far_ends.push(far);
                near
            };
            for _ in 0..3 {
                // Those of the round before are closed soon.
                let streams = [
                    once_there_is_room(|| Ok(pool.stream(near_end())?)).await,
                    once_there_is_room(|| Ok(pool.stream(near_end())?)).await,
                ];
                let receivers = [
                    once_there_is_room(|| pool.recv_stream(near_end())).await,
                    once_there_is_room(|| pool.recv_stream(near_end())).await,
                ];
                let refused = pool.stream(near_end()).unwrap_err();
                assert_eq!(refused.error.kind(), ErrorKind::QuotaExceeded);
                assert!(refused.to_string().contains("4 operations"), "{refused}");
                assert!(refused.socket.is_some(), "it comes back");
                let refused = pool.recv_stream(near_end()).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::QuotaExceeded);
                // A half alone keeps the place, and so does a stream that has ended.
                let halves = streams.map(|stream| stream.into_split().1);
                tokio::time::sleep(Duration::from_millis(5)).await;
                assert!(pool.stream(near_end()).is_err());
                drop(receivers);
                let more = once_there_is_room(|| pool.recv_stream(near_end())).await;
                drop((halves, more));
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// Tries until there is room.
async fn once_there_is_room<T>(mut make: impl FnMut() -> std::io::Result<T>) -> T {
    let tries = async {
        loop {
            match make() {
                Ok(made) => break made,
                Err(error) => assert_eq!(error.kind(), ErrorKind::QuotaExceeded),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(TIMEOUT, tries).await.expect("room")
}

/// A connection has two descriptors at most, also when it has sent; one on readiness.
#[test]
fn a_connection_has_few_descriptors() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(16, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, mut far) = tcp_pair().await;
            let name = descriptor_name(near.as_fd());
            let mut stream = pool.stream(near)?;
            stream.send(Bytes::from_static(b"sent")).await?;
            stream.write_all(b"written").await?;
            far.write_all(b"came").await?;
            assert_eq!(timeout(TIMEOUT, stream.try_next()).await??.unwrap(), "came");
            let mut all = [0; 11];
            timeout(TIMEOUT, far.read_exact(&mut all)).await??;
            let most = if engine == Engine::Ring { 2 } else { 1 };
            let count = descriptors_named(&name);
            assert!(count <= most, "{count} descriptors on {engine}");
            drop(stream);
            until("all are closed", || descriptors_named(&name) == 0).await;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// Returns the name that the system gives what lies behind a descriptor, such as `socket:[123]`.
fn descriptor_name(socket: impl AsRawFd) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap()
}

/// Counts the descriptors of this process with such a name.
fn descriptors_named(name: &std::path::Path) -> usize {
    let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    all.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|it| it == name)).count()
}

/// Outside of a runtime there is no reactor: the socket comes back.
#[test]
fn a_stream_outside_of_a_runtime_is_refused() -> Outcome {
    let pool = Pool::builder(paged_arena(4, 4096)).engine(Engine::Readiness).build()?;
    let (near, _far) = std::os::unix::net::UnixStream::pair()?;
    let refused = pool.stream(near).unwrap_err();
    assert!(refused.socket.is_some() && refused.to_string().contains("runtime"), "{refused}");
    Ok(())
}

/// Codecs work on a stream as on a socket.
#[test]
fn a_codec_frames_a_stream() -> Outcome {
    use futures_util::TryStreamExt;
    use tokio_util::codec::{FramedRead, LinesCodec};

    for (runtime, engine) in settings() {
        let arena = paged_arena(16, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, mut far) = tcp_pair().await;
            let text: String = (0..5000).map(|number| format!("line {number}\n")).collect();
            let sending = tokio::spawn(async move { far.write_all(text.as_bytes()).await });
            let mut lines = FramedRead::new(pool.stream(near)?, LinesCodec::new());
            let mut count = 0;
            while let Some(line) = timeout(TIMEOUT, lines.try_next()).await?? {
                assert_eq!(line, format!("line {count}"));
                count += 1;
            }
            assert_eq!(count, 5000);
            sending.await??;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// Short messages that nobody reads pin few slots of a ring: 64 KiB a stream.
#[test]
fn short_messages_that_nobody_reads_pin_little() -> Outcome {
    const STREAMS: usize = 16;
    const SLOT: usize = 16 << 10;
    for (runtime, engine) in settings() {
        let arena = paged_arena(1024, SLOT);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).entries(16).build()?;
            let mut streams = Vec::new();
            for _ in 0..STREAMS {
                let (near, far) = UnixStream::pair()?;
                streams.push((pool.stream(near)?, far));
            }
            for number in 0..60u8 {
                for (_, far) in &mut streams {
                    far.write_all(&[number]).await?;
                }
                // Each is received by itself.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let pinned = arena.metrics().bytes_live;
            assert!(pinned <= STREAMS * (64 << 10) + 16 * SLOT, "{pinned} bytes");
            for (stream, _) in &mut streams {
                let mut all = [0; 60];
                timeout(TIMEOUT, stream.read_exact(&mut all)).await??;
                assert!(all.iter().copied().eq(0..60));
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// However many streams nobody reads, however much their peers send: one that is read is served.
#[test]
fn streams_that_nobody_reads_leave_slots_for_one_that_is_read() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(64, 4096);
        runtime.block_on(async {
            let builder = Pool::builder(arena.clone()).engine(engine).entries(8);
            let pool = builder.messages_max(64).build()?;
            let mut unread = Vec::new();
            for _ in 0..8 {
                let (near, far) = std::os::unix::net::UnixStream::pair()?;
                let stream = pool.stream(near)?;
                let sending = std::thread::spawn(move || {
                    while std::io::Write::write_all(&mut &far, &[7; 4096]).is_ok() {}
                });
                unread.push((stream, sending));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            let (near, mut far) = UnixStream::pair()?;
            let mut stream = pool.stream(near)?;
            for number in 0..100u8 {
                far.write_all(&[number; 4096]).await?;
                let mut all = [0; 4096];
                timeout(TIMEOUT, stream.read_exact(&mut all)).await??;
                assert_eq!(all, [number; 4096]);
            }
            for (stream, sending) in unread {
                drop(stream);
                tokio::task::spawn_blocking(|| sending.join()).await?.unwrap();
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// The ring of a pool has the settings of a driver's: bulk comes in pieces of many slots.
#[test]
fn bulk_comes_in_pieces_of_many_slots() -> Outcome {
    for (runtime, engine) in rings() {
        let arena = paged_arena(1024, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, mut far) = tcp_pair().await;
            let mut stream = pool.stream(near)?;
            let expected = pattern(3, 8 << 20);
            let message = expected.clone();
            let sending = tokio::spawn(async move { far.write_all(&message).await.unwrap() });
            let (mut at, mut long) = (0, 0);
            while let Some(bytes) = timeout(TIMEOUT, stream.try_next()).await?? {
                assert!(expected[at..].starts_with(&bytes), "differs at {at}");
                at += bytes.len();
                long += usize::from(bytes.len() > 8 * 4096);
            }
            assert_eq!(at, expected.len());
            assert!(long > 20, "{long} long pieces");
            sending.await?;
            drop((stream, pool));
            until_all_free(&arena).await;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
    }
    Ok(())
}
