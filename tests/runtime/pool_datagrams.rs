//! Datagram sockets of a pool: what comes is told whole, what is sent goes out whole, and neither a
//! peer nor a dropped future harms another.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::runtimes::Outcome;
use crate::support::tokio::{
    rings, runtimes, settings, tcp_pair, turns_beside, until, until_all_free,
};
use crate::support::{Random, TIMEOUT, arena, paged_arena, paged_buddy_arena, pattern};
use bytes::{BufMut, Bytes};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sockopt};
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use uring_arena::tokio::{Datagrams, Engine, Pool};
use uring_arena::{BufferRing, Datagram, Destination, Driver, FixedArena};

const ANY: &str = "127.0.0.1:0";

/// Runs `body` with a pool of each engine on each kind of runtime. Every slot is free at the end.
fn on_all<F: Future<Output = Outcome>>(
    arena: impl Fn() -> FixedArena,
    body: impl Fn(Pool, FixedArena, Engine) -> F,
) -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            body(pool, arena.clone(), engine).await
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// Makes a name for a Unix socket that no other has.
fn unix_name() -> std::os::unix::net::SocketAddr {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    let number = NAMES.fetch_add(1, Ordering::SeqCst);
    let name = format!("uring-arena datagrams {} {number}", std::process::id());
    std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap()
}

async fn next(datagrams: &mut Datagrams) -> Datagram<Bytes> {
    timeout(TIMEOUT, datagrams.recv()).await.expect("a datagram in time").unwrap()
}

/// Takes a socket that is bound to a port of this host.
async fn bound(pool: &Pool) -> (Datagrams, SocketAddr) {
    let datagrams = pool.datagrams(UdpSocket::bind(ANY).await.unwrap()).unwrap();
    let address = datagrams.local_addr().unwrap();
    (datagrams, address)
}

#[test]
fn datagrams_of_every_length_come_whole_with_their_sender() -> Outcome {
    on_all(
        || paged_arena(16, 4096),
        |pool, _, engine| async move {
            let (mut datagrams, to) = bound(&pool).await;
            let clients = [UdpSocket::bind(ANY).await?, UdpSocket::bind(ANY).await?];
            // On a ring a header takes 304 bytes of the slot.
            let room = if engine == Engine::Ring { 4096 - 304 } else { 4096 };
            for (turn, len) in
                [0, 1, 2, 500, room - 1, room, room + 1, 9000, 0].into_iter().enumerate()
            {
                let client = &clients[turn % 2];
                let sent = pattern(turn, len);
                client.send_to(&sent, to).await?;
                let datagram = next(&mut datagrams).await;
                assert!(datagram.bytes == sent[..len.min(room)], "{len} bytes");
                assert_eq!(datagram.is_truncated, len > room, "{len} bytes");
                assert_eq!(datagram.from, Some(client.local_addr()?));
                assert_eq!(datagram.to(), Some(to.ip()));
                assert_eq!(datagram.ecn(), Some(0));
                assert_eq!(datagram.segment_bytes(), None);
            }
            Ok(())
        },
    )
}

#[test]
fn sockets_of_every_kind_are_taken() -> Outcome {
    on_all(
        || paged_arena(16, 2048),
        |pool, _, _| async move {
            for kind in 0..3 {
                let std = || std::net::UdpSocket::bind(ANY).unwrap();
                let mut datagrams = match kind {
                    0 => pool.datagrams(UdpSocket::bind(ANY).await?)?,
                    1 => pool.datagrams(std())?,
                    _ => pool.datagrams(OwnedFd::from(std()))?,
                };
                let client = UdpSocket::bind(ANY).await?;
                client.send_to(b"ip", datagrams.local_addr()?).await?;
                let datagram = next(&mut datagrams).await;
                assert_eq!(datagram.bytes, "ip");
                let answer = Destination::reply_to(&datagram).unwrap();
                timeout(TIMEOUT, datagrams.send_to(datagram.bytes, answer)).await??;
                let (_, from) = timeout(TIMEOUT, client.recv_from(&mut [0; 8])).await??;
                assert_eq!(from, datagrams.local_addr()?);
            }
            for kind in 0..3 {
                let (name, client_name) = (unix_name(), unix_name());
                let std = std::os::unix::net::UnixDatagram::bind_addr(&name)?;
                std.set_nonblocking(true)?;
                let mut datagrams = match kind {
                    0 => pool.datagrams(UnixDatagram::from_std(std)?)?,
                    1 => pool.datagrams(std)?,
                    _ => pool.datagrams(OwnedFd::from(std))?,
                };
                assert!(datagrams.local_addr().is_err(), "a Unix socket has no such address");
                let client = std::os::unix::net::UnixDatagram::bind_addr(&client_name)?;
                client.send_to_addr(b"unix", &name)?;
                let datagram = next(&mut datagrams).await;
                assert_eq!((&datagram.bytes[..], datagram.from), (&b"unix"[..], None));
                let answer = Destination::reply_to(&datagram).expect("its name");
                timeout(TIMEOUT, datagrams.send_to(datagram.bytes, answer)).await??;
                client.set_read_timeout(Some(TIMEOUT))?;
                assert_eq!(client.recv(&mut [0; 8])?, 4);
            }
            Ok(())
        },
    )
}

#[test]
fn what_is_no_datagram_socket_comes_back() -> Outcome {
    on_all(
        || paged_arena(16, 2048),
        |pool, _, _| async move {
            let (tcp, _far) = tcp_pair().await;
            let tcp = OwnedFd::from(tcp.into_std()?);
            let refused = pool.datagrams(tcp).unwrap_err();
            assert_eq!(refused.error.kind(), ErrorKind::InvalidInput);
            assert!(refused.to_string().contains("SOCK_DGRAM"), "{refused}");
            // In whatever type it is given.
            let refused = pool.datagrams(std::net::UdpSocket::from(refused.socket.unwrap()));
            let socket = refused.unwrap_err().socket.expect("it comes back");
            assert!(pool.stream(OwnedFd::from(socket)).is_ok(), "it is a stream as before");
            let file = OwnedFd::from(std::fs::File::open("/dev/null")?);
            assert!(pool.datagrams(file).unwrap_err().socket.is_some());
            assert_eq!(pool.metrics().datagram_sockets, 0);
            Ok(())
        },
    )
}

/// A ring that cannot receive datagrams, or has no room for one more, says so at once.
#[test]
fn a_ring_that_takes_no_datagrams_refuses_at_once() -> Outcome {
    for (runtime, engine) in rings() {
        runtime.block_on(async {
            let socket = || std::net::UdpSocket::bind(ANY).unwrap();
            let small = Pool::builder(arena(16, 304)).engine(engine).build()?;
            let refused = small.datagrams(socket()).unwrap_err();
            assert!(refused.to_string().contains("305"), "{refused}");
            assert!(refused.socket.is_some());
            let shared = BufferRing::options().incremental(true);
            let builder = Pool::builder(paged_arena(16, 4096)).engine(engine).ring(shared);
            // Where the kernel has no such rings the pool is not built.
            if let Ok(shared) = builder.build() {
                match shared.datagrams(socket()) {
                    Err(refused) => assert!(refused.socket.is_some()),
                    Ok(_) => println!("SKIPPED: no incremental rings"),
                }
            }
            let driver = Driver::builder().operations(2);
            let few = Pool::builder(paged_arena(16, 4096)).engine(engine).driver(driver).build()?;
            let (near, _far) = tcp_pair().await;
            let stream = few.stream(near)?;
            let datagrams = few.datagrams(socket())?;
            assert_eq!(few.metrics().datagram_sockets, 1);
            let refused = few.datagrams(socket()).unwrap_err();
            assert_eq!(refused.error.kind(), ErrorKind::QuotaExceeded, "{refused}");
            assert!(refused.socket.is_some());
            drop((datagrams, stream));
            until("the room is free", || few.datagrams(socket()).is_ok()).await;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
    }
    Ok(())
}

#[test]
fn a_socket_without_a_runtime_comes_back() -> Outcome {
    let pool = Pool::builder(arena(8, 2048)).engine(Engine::Readiness).build()?;
    let refused = pool.datagrams(std::net::UdpSocket::bind(ANY)?).unwrap_err();
    assert!(refused.socket.is_some(), "{refused}");
    Ok(())
}

/// A server that is bound to all addresses answers from the one that was asked, with the mark of
/// congestion that it chose.
#[test]
fn an_answer_comes_from_the_address_that_was_asked() -> Outcome {
    on_all(
        || paged_arena(16, 2048),
        |pool, _, _| async move {
            let mut servers =
                vec![(UdpSocket::bind("0.0.0.0:0").await?, vec!["127.0.0.1", "127.0.0.2"])];
            if let Ok(both) = UdpSocket::bind("[::]:0").await {
                servers.push((both, vec!["::1", "127.0.0.3"]));
            }
            for (server, asked) in servers {
                let port = server.local_addr()?.port();
                let mut server = pool.datagrams(server)?;
                for ip in asked {
                    let ip: IpAddr = ip.parse()?;
                    let client =
                        UdpSocket::bind(if ip.is_ipv4() { "127.0.0.9:0" } else { "[::1]:0" });
                    let mut client = pool.datagrams(client.await?)?;
                    let asked = SocketAddr::new(ip, port);
                    for bits in [2, 0, 1, 3] {
                        let to = Destination::from(asked).ecn(bits);
                        client.send_to(Bytes::from_static(b"who is it?"), to).await?;
                        let question = next(&mut server).await;
                        assert_eq!(question.to().unwrap().to_canonical(), ip);
                        assert_eq!(question.ecn(), Some(bits));
                        let to = Destination::reply_to(&question).unwrap().ecn(bits);
                        server.send_to(question.bytes, to).await?;
                        let answer = next(&mut client).await;
                        assert_eq!((answer.from, answer.ecn()), (Some(asked), Some(bits)));
                    }
                }
            }
            Ok(())
        },
    )
}

/// ICMP messages of datagrams that did not arrive are told to nobody who receives.
#[test]
fn pending_errors_do_not_end_the_receive() -> Outcome {
    on_all(
        || paged_arena(16, 2048),
        |pool, _, _| async move {
            for any in [ANY, "[::1]:0"] {
                let (Ok(ours), Ok(theirs)) =
                    (UdpSocket::bind(any).await, UdpSocket::bind(any).await)
                else {
                    println!("SKIPPED: no address {any}");
                    continue;
                };
                let (our_address, their_address) = (ours.local_addr()?, theirs.local_addr()?);
                ours.connect(their_address).await?;
                let mut ours = pool.datagrams(ours)?;
                drop(theirs);
                for _ in 0..20 {
                    // The second one may be told of the first one.
                    let sent = ours.send_to(Bytes::from_static(b"nobody"), their_address).await;
                    if let Err(error) = sent {
                        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                    }
                    let waiting = timeout(Duration::from_millis(1), ours.recv()).await;
                    assert!(waiting.is_err(), "{waiting:?}");
                }
                let theirs = UdpSocket::bind(their_address).await?;
                // An error between datagrams that wait.
                theirs.send_to(b"first", our_address).await?;
                drop(theirs);
                let _ = ours.send_to(Bytes::from_static(b"nobody"), their_address).await;
                let theirs = UdpSocket::bind(their_address).await?;
                theirs.send_to(b"second", our_address).await?;
                assert_eq!(next(&mut ours).await.bytes, "first");
                assert_eq!(next(&mut ours).await.bytes, "second");
            }
            Ok(())
        },
    )
}

/// A datagram that is refused fails alone, and each result is that of its datagram. Of Unix: the
/// network may lose some, and a Unix peer is waited for.
#[test]
fn a_batch_goes_out_but_for_what_is_refused() -> Outcome {
    on_all(
        // Room for all that come, which are kept, and for what lies ready.
        || paged_arena(256, 2048),
        |pool, _, _| async move {
            let name = unix_name();
            let peer = std::os::unix::net::UnixDatagram::bind_addr(&name)?;
            let ours = std::os::unix::net::UnixDatagram::unbound()?;
            ours.connect_addr(&name)?;
            let mut peer = pool.datagrams(peer)?;
            let sender = pool.datagrams(ours)?.sender().clone();
            let mut batch = Vec::new();
            for number in 0..100u32 {
                // Longer than a socket holds.
                let len = if number % 10 == 7 { 1 << 20 } else { 4 + number as usize };
                let mut bytes = vec![0; len];
                bytes[..4].copy_from_slice(&number.to_ne_bytes());
                batch.push((Bytes::from(bytes), name.clone()));
            }
            let sending = tokio::spawn(async move { sender.send_many(batch).await });
            let mut came = Vec::new();
            while came.len() < 90 {
                let before = came.len();
                let count = timeout(TIMEOUT, peer.recv_many(&mut came, 24)).await??;
                assert!((1..=24).contains(&count) && came.len() == before + count);
            }
            let sent = timeout(TIMEOUT, sending).await??;
            assert_eq!(sent.len(), 100);
            let numbers = |datagram: &Datagram<Bytes>| {
                let number = u32::from_ne_bytes(*datagram.bytes.first_chunk().unwrap());
                assert_eq!(datagram.bytes.len(), 4 + number as usize);
                number
            };
            let came: BTreeSet<u32> = came.iter().map(numbers).collect();
            for (number, result) in (0..).zip(sent) {
                assert_eq!(came.contains(&number), result.is_ok(), "{number}: {result:?}");
                if let Err(error) = result {
                    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
                }
            }
            assert_eq!(timeout(TIMEOUT, peer.recv_many(&mut Vec::new(), 0)).await??, 0);
            let none = Vec::<(Bytes, SocketAddr)>::new();
            assert!(peer.sender().send_many(none).await.is_empty());
            Ok(())
        },
    )
}

/// One block of a buddy arena goes out as many datagrams; slots with room for it take them as one.
#[test]
fn segments_of_a_block_come_alone_or_as_one() -> Outcome {
    for (runtime, engine) in settings() {
        let (blocks, large, small) =
            (paged_buddy_arena(1 << 20), paged_arena(8, 1 << 17), paged_arena(64, 4096));
        runtime.block_on(async {
            let builder = Pool::builder(large.clone()).engine(engine);
            let pool = builder.send_arena(blocks.clone()).build()?;
            let small_pool = Pool::builder(small.clone()).engine(engine).build()?;
            let (mut wide, wide_to) = bound(&pool).await;
            let (mut narrow, narrow_to) = bound(&small_pool).await;
            let expected = pattern(3, 40 * 1200 + 77);
            let mut block = blocks.allocate_bytes(expected.len())?;
            block.put_slice(&expected);
            let block = block.freeze();
            for to in [wide_to, narrow_to] {
                let to = Destination::from(to).segments(1200);
                let sent = timeout(TIMEOUT, wide.send_to(block.clone(), to)).await?;
                if let Err(error) = &sent
                    && error.raw_os_error() == Some(libc::EIO)
                {
                    println!("SKIPPED: no segmented sends here");
                    return Ok(());
                }
                sent?;
            }
            drop(block);
            let (mut received, mut messages) = (Vec::new(), 0);
            while received.len() < expected.len() {
                let datagram = next(&mut wide).await;
                assert!(!datagram.is_truncated);
                let of_each = datagram.segment_bytes().map_or(datagram.bytes.len(), usize::from);
                assert!(of_each == 1200 || datagram.bytes.len() == 77, "{of_each}");
                received.extend_from_slice(&datagram.bytes);
                messages += 1;
            }
            assert!(received == expected);
            println!("{messages} messages for 41 datagrams");
            for part in expected.chunks(1200) {
                let datagram = next(&mut narrow).await;
                assert!(datagram.bytes == part && datagram.segment_bytes().is_none());
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(async {
            until_all_free(&blocks).await;
            until_all_free(&large).await;
            until_all_free(&small).await;
        });
    }
    Ok(())
}

/// Without a free slot a datagram waits in the kernel. What gives up the wait stops no other.
#[test]
fn a_starved_socket_goes_on_when_a_slot_is_free() -> Outcome {
    on_all(
        || paged_arena(4, 2048),
        |pool, arena, _| async move {
            let (mut first, first_to) = bound(&pool).await;
            let (mut second, second_to) = bound(&pool).await;
            let client = UdpSocket::bind(ANY).await?;
            for turn in 0..20u8 {
                let mut held = Vec::new();
                let hold = async {
                    // A ring gives back what it had posted as messages come.
                    while held.len() < 4 {
                        match pool.try_allocate() {
                            Ok(mut slot) => {
                                slot.put_u8(0);
                                held.push(slot.freeze());
                            }
                            Err(_) => {
                                client.send_to(b"take a slot", first_to).await.unwrap();
                                held.push(next(&mut first).await.bytes);
                            }
                        }
                    }
                };
                timeout(TIMEOUT, hold).await?;
                client.send_to(&[turn], first_to).await?;
                client.send_to(&[turn], second_to).await?;
                assert!(timeout(Duration::from_millis(2), first.recv()).await.is_err());
                assert!(timeout(Duration::from_millis(2), second.recv()).await.is_err());
                held.pop();
                // The first one is not polled any more, and is first in line.
                let datagram = next(&mut second).await;
                assert_eq!(datagram.bytes[..], [turn]);
                drop(datagram);
                drop(held);
                assert_eq!(next(&mut first).await.bytes[..], [turn]);
            }
            drop(arena);
            Ok(())
        },
    )
}

/// Sockets that are flooded and not read leave slots to one that is.
#[test]
fn sockets_that_nobody_reads_stop_no_other() -> Outcome {
    on_all(
        || paged_arena(64, 4096),
        |pool, arena, _| async move {
            let client = UdpSocket::bind(ANY).await?;
            let mut unread = Vec::new();
            for number in 0..8 {
                let (mut datagrams, to) = bound(&pool).await;
                let flood = async {
                    for _ in 0..40 {
                        client.send_to(&pattern(number, 1500), to).await.unwrap();
                    }
                };
                flood.await;
                // So that batches are large where there are any.
                for _ in 0..8 {
                    drop(next(&mut datagrams).await);
                }
                flood_again(&client, to).await;
                unread.push(datagrams);
            }
            let (mut read, to) = bound(&pool).await;
            for turn in 0..200u8 {
                client.send_to(&[turn; 100], to).await?;
                assert_eq!(next(&mut read).await.bytes, [turn; 100][..]);
            }
            drop((unread, arena));
            Ok(())
        },
    )
}

async fn flood_again(client: &UdpSocket, to: SocketAddr) {
    for _ in 0..40 {
        client.send_to(&[7; 1500], to).await.unwrap();
    }
}

/// Short datagrams that nobody has asked for hold 64 KiB of slots a socket at most.
#[test]
fn short_datagrams_that_nobody_reads_hold_little() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(512, 16 << 10);
        runtime.block_on(async {
            let ring = BufferRing::options().entries(8);
            let pool = Pool::builder(arena.clone()).engine(engine).ring(ring).build()?;
            let client = UdpSocket::bind(ANY).await?;
            let mut unread = Vec::new();
            for _ in 0..16 {
                let (mut datagrams, to) = bound(&pool).await;
                for _ in 0..64 {
                    client.send_to(b"x", to).await?;
                }
                // The first datagrams make the batches large.
                for _ in 0..9 {
                    drop(next(&mut datagrams).await);
                }
                unread.push(datagrams);
            }
            let held = || arena.slot_count() - arena.slot_states().free;
            // Four slots of each socket, and those that lie ready.
            until("little is held", || held() <= 16 * 5 + 8).await;
            for datagrams in &mut unread {
                for _ in 9..64 {
                    assert_eq!(next(datagrams).await.bytes, "x");
                }
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// Receives that are dropped lose nothing and double nothing.
#[test]
fn receives_that_are_dropped_lose_no_datagram() -> Outcome {
    on_all(
        || paged_arena(64, 2048),
        |pool, _, engine| async move {
            let (mut datagrams, to) = bound(&pool).await;
            let client = UdpSocket::bind(ANY).await?;
            let mut random = Random::new(engine as u64);
            let (mut sent, mut received) = (0u32, 0u32);
            while received < 2000 {
                for _ in 0..random.below(20) {
                    // What is under way fits the socket.
                    if sent - received < 64 {
                        client.send_to(&sent.to_ne_bytes(), to).await?;
                        sent += 1;
                    }
                }
                let mut came = Vec::new();
                let receive = async {
                    if random.one_in(2) {
                        came.push(datagrams.recv().await?);
                    } else {
                        datagrams.recv_many(&mut came, 1 + random.below(40) as usize).await?;
                    }
                    Ok::<_, std::io::Error>(())
                };
                // Dropped after one poll, or when it is ready.
                tokio::select! {
                    biased;
                    result = receive => result?,
                    () = tokio::task::yield_now() => {}
                }
                for datagram in came {
                    assert_eq!(datagram.bytes[..], received.to_ne_bytes());
                    received += 1;
                }
            }
            Ok(())
        },
    )
}

/// Sends that are dropped at any poll send the datagram once or not at all, and keep no slot.
#[test]
fn sends_that_are_dropped_send_once_or_not_at_all() -> Outcome {
    on_all(
        || paged_arena(16, 2048),
        |pool, _, _| async move {
            let (mut peer, to) = bound(&pool).await;
            let (datagrams, _) = bound(&pool).await;
            for number in 0..200u32 {
                let mut slot = timeout(TIMEOUT, pool.allocate()).await?;
                slot.put_slice(&number.to_ne_bytes());
                let send = datagrams.send_to(slot, to);
                tokio::select! {
                    biased;
                    result = send => result?,
                    () = tokio::task::yield_now() => {}
                }
            }
            timeout(TIMEOUT, datagrams.send_to(Bytes::from_static(b"the last"), to)).await??;
            let mut last = None;
            loop {
                let datagram = next(&mut peer).await;
                if datagram.bytes == "the last" {
                    break;
                }
                let number = u32::from_ne_bytes(*datagram.bytes.first_chunk().unwrap());
                assert!(last.is_none_or(|last| number > last), "{number} after {last:?}");
                last = Some(number);
            }
            Ok(())
        },
    )
}

/// A peer that takes nothing makes sends wait, and only them. A send that gives up sends nothing
/// more, and the pool ends in time.
#[test]
fn a_peer_that_takes_nothing_makes_sends_wait() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(64, 4096);
        runtime.block_on(async {
            let builder = Pool::builder(arena.clone()).engine(engine).send_bytes_max(1 << 16);
            let pool = builder.build()?;
            let name = unix_name();
            let peer = std::os::unix::net::UnixDatagram::bind_addr(&name)?;
            peer.set_read_timeout(Some(TIMEOUT))?;
            let ours = std::os::unix::net::UnixDatagram::unbound()?;
            ours.connect_addr(&name)?;
            let datagrams = pool.datagrams(ours)?;
            let sender = datagrams.sender().clone();
            // More than the peer's queue takes.
            let mut queued = 0;
            let full = loop {
                match sender.try_send_to(&pattern(queued, 4096), &name) {
                    Ok(()) => queued += 1,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if timeout(Duration::from_millis(50), sender.writable()).await.is_err() {
                            break queued;
                        }
                    }
                    Err(error) => panic!("{error}"),
                }
                assert!(queued < 100_000, "it never fills");
            };
            let send = datagrams.send_to(Bytes::from_static(b"given up"), &name);
            assert!(
                timeout(Duration::from_millis(5), send).await.is_err() || engine == Engine::Ring
            );
            let (mut near, mut far) = tcp_pair().await;
            let mut other = pool.stream(tokio::net::TcpStream::from_std(near.into_std()?)?)?;
            tokio::io::AsyncWriteExt::write_all(&mut far, b"others go on").await?;
            assert_eq!(timeout(TIMEOUT, other.try_next()).await??.unwrap(), "others go on");
            // A peer that takes some sets the sends going, in their order.
            let reading = std::thread::spawn(move || {
                let mut room = vec![0; 8192];
                for number in 0..full {
                    let bytes = peer.recv(&mut room).unwrap();
                    let expected = pattern(number, 4096);
                    assert!(room[..bytes] == expected, "{number} of {full}: {bytes} bytes");
                }
                peer
            });
            timeout(TIMEOUT, sender.writable()).await??;
            until("all of them came", || reading.is_finished()).await;
            let _peer = reading.join().unwrap();
            // And stuck once more, at the end.
            while sender.try_send_to(&[7; 4096], &name).is_ok() {}
            let waiting = tokio::spawn(async move { sender.writable().await });
            tokio::task::yield_now().await;
            timeout(TIMEOUT, pool.shutdown()).await??;
            let waited = timeout(TIMEOUT, waiting).await??;
            println!("the one that waited: {waited:?}");
            let refused = timeout(TIMEOUT, datagrams.send_to(Bytes::new(), &name)).await?;
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::BrokenPipe);
            let refused = datagrams.sender().try_send_to(b"", &name).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
            near = far;
            drop((near, other));
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// The end of a pool is told to all that wait, and to all that ask later.
#[test]
fn a_pool_that_is_shut_down_tells_receivers() -> Outcome {
    on_all(
        || paged_arena(16, 2048),
        |pool, _, _| async move {
            let (mut datagrams, to) = bound(&pool).await;
            let client = UdpSocket::bind(ANY).await?;
            client.send_to(b"kept", to).await?;
            let kept = next(&mut datagrams).await;
            let waiting = tokio::spawn(async move {
                let error = datagrams.recv().await.unwrap_err();
                (datagrams, error)
            });
            tokio::task::yield_now().await;
            let again = pool.clone();
            let report = timeout(TIMEOUT, pool.shutdown()).await??;
            assert_eq!((report.in_flight, report.quarantined), (0, 0));
            let (mut datagrams, error) = timeout(TIMEOUT, waiting).await??;
            assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
            assert!(error.to_string().contains("shut down"), "{error}");
            for _ in 0..2 {
                let error = timeout(TIMEOUT, datagrams.recv()).await?.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
                let send = datagrams.send_to(Bytes::from_static(b"late"), to);
                assert_eq!(
                    timeout(TIMEOUT, send).await?.unwrap_err().kind(),
                    ErrorKind::BrokenPipe
                );
            }
            if let Ok(mut late) = again.datagrams(UdpSocket::bind(ANY).await?) {
                let error = timeout(TIMEOUT, late.recv()).await?.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
            }
            assert_eq!(kept.bytes, "kept");
            Ok(())
        },
    )
}

/// A socket is closed with the last of its sides, behind what is to be sent.
#[test]
fn a_sender_outlives_the_receiver_and_the_pool() -> Outcome {
    on_all(
        || paged_arena(16, 2048),
        |pool, arena, _| async move {
            let (datagrams, from) = bound(&pool).await;
            let peer = UdpSocket::bind(ANY).await?;
            let sender = datagrams.sender().clone();
            drop((datagrams, pool));
            // Nobody takes what comes, and it holds nothing.
            for _ in 0..100 {
                peer.send_to(&[7; 1000], from).await?;
            }
            for _ in 0..10 {
                timeout(TIMEOUT, sender.send_to(Bytes::from_static(b"hi"), peer.local_addr()?))
                    .await??;
                assert_eq!(timeout(TIMEOUT, peer.recv(&mut [0; 8])).await??, 2);
            }
            for _ in 0..10 {
                let _ = sender.try_send_to(b"last", peer.local_addr()?);
            }
            drop(sender);
            until("the port is free", || std::net::UdpSocket::bind(from).is_ok()).await;
            for _ in 0..10 {
                assert_eq!(timeout(TIMEOUT, peer.recv(&mut [0; 8])).await??, 4);
            }
            drop(arena);
            Ok(())
        },
    )
}

/// A runtime that ends is told to what lives on in another.
#[test]
fn a_runtime_that_ends_is_told() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(16, 2048);
        let (pool, mut datagrams) = runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (datagrams, _) = bound(&pool).await;
            Ok::<_, Box<dyn std::error::Error>>((pool, datagrams))
        })?;
        let is_thread =
            runtime.handle().runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread;
        drop(runtime);
        let other = other_runtime();
        other.block_on(async {
            // A ring on a thread of its own goes on.
            if !(engine == Engine::Ring && is_thread) {
                let error = timeout(TIMEOUT, datagrams.recv()).await?.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
            }
            drop((pool, datagrams));
            until_all_free(&arena).await;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
    }
    Ok(())
}

fn other_runtime() -> Runtime {
    let [one, _] = runtimes();
    one
}

/// A socket whose peers never stop lets the other tasks of its thread run.
#[test]
fn a_busy_socket_takes_part_in_the_budget_of_its_task() -> Outcome {
    on_all(
        || paged_arena(64, 2048),
        |pool, _, _| async move {
            // Of Unix: a flood of IP would have the kernel lose datagrams of other tests.
            let (ours, theirs) = std::os::unix::net::UnixDatagram::pair()?;
            let mut datagrams = pool.datagrams(ours)?;
            let flood = std::thread::spawn(move || while theirs.send(&[7; 100]).is_ok() {});
            let turns = turns_beside(async move {
                for _ in 0..20_000 {
                    datagrams.recv().await.unwrap();
                }
            })
            .await;
            assert!(turns >= 20, "{turns} turns beside 20,000 datagrams");
            flood.join().unwrap();
            Ok(())
        },
    )
}

/// Descriptors that a peer sends along do not stay open here.
#[test]
fn descriptors_that_come_along_are_closed() -> Outcome {
    on_all(
        || paged_arena(16, 2048),
        |pool, _, _| async move {
            let (ours, theirs) = std::os::unix::net::UnixDatagram::pair()?;
            let mut datagrams = pool.datagrams(ours)?;
            for _ in 0..4 {
                let (mut read, write) = std::io::pipe()?;
                let fds = [write.as_fd()];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
                let bytes = [std::io::IoSlice::new(b"with a pipe")];
                rustix::net::sendmsg(&theirs, &bytes, &mut control, SendFlags::empty())?;
                drop(write);
                assert_eq!(next(&mut datagrams).await.bytes, "with a pipe");
                // The last writer is gone.
                let end = tokio::task::spawn_blocking(move || {
                    std::io::Read::read(&mut read, &mut [0; 1])
                });
                assert_eq!(timeout(TIMEOUT, end).await???, 0);
            }
            Ok(())
        },
    )
}

/// Connections and datagram sockets of one pool do not mix, though a driver may give a number
/// again.
#[test]
fn sockets_come_and_go_beside_streams() -> Outcome {
    on_all(
        || paged_arena(64, 2048),
        |pool, _, _| async move {
            let mut random = Random::new(9);
            let client = UdpSocket::bind(ANY).await?;
            let mut open = Vec::new();
            for turn in 0..200u32 {
                let (mut datagrams, to) = bound(&pool).await;
                let (near, mut far) = tcp_pair().await;
                let mut stream = pool.stream(near)?;
                tokio::io::AsyncWriteExt::write_all(&mut far, &turn.to_ne_bytes()).await?;
                client.send_to(&turn.to_be_bytes(), to).await?;
                let bytes = timeout(TIMEOUT, stream.try_next()).await??.unwrap();
                assert_eq!(bytes[..], turn.to_ne_bytes());
                assert_eq!(next(&mut datagrams).await.bytes[..], turn.to_be_bytes());
                open.push((datagrams, stream, far));
                if random.one_in(2) {
                    open.swap_remove(random.below(open.len() as u64) as usize);
                }
            }
            let count = open.len();
            assert_eq!(pool.metrics().datagram_sockets, count);
            drop(open);
            until("all are closed", || pool.metrics().datagram_sockets == 0).await;
            Ok(())
        },
    )
}

/// A small socket buffer loses datagrams in the kernel, never in the pool.
#[test]
fn a_flood_loses_datagrams_only_in_the_kernel() -> Outcome {
    on_all(
        || paged_arena(16, 2048),
        |pool, _, _| async move {
            let socket = UdpSocket::bind(ANY).await?;
            sockopt::set_socket_recv_buffer_size(&socket, 4096)?;
            uring_arena::DatagramDetails::new().drops().enable(&socket)?;
            let to = socket.local_addr()?;
            let mut datagrams = pool.datagrams(socket)?;
            let client = std::net::UdpSocket::bind(ANY)?;
            let (mut came, mut dropped) = (0, 0);
            for _ in 0..50 {
                for _ in 0..40 {
                    client.send_to(&[7; 1000], to)?;
                }
                while let Ok(datagram) = timeout(Duration::from_millis(1), datagrams.recv()).await {
                    came += 1;
                    dropped = datagram?.dropped().unwrap_or(0);
                }
            }
            // One more tells the last count.
            loop {
                client.send_to(b"the last", to)?;
                came += 1;
                let datagram = next(&mut datagrams).await;
                dropped = dropped.max(datagram.dropped().unwrap_or(0));
                if datagram.bytes == "the last" {
                    break;
                }
            }
            assert_eq!(came + dropped, 50 * 40 + 1);
            std::io::stdout().flush()?;
            Ok(())
        },
    )
}
