//! Transfers that are larger than one operation of the kernel, sockets that refuse a flag, and
//! offsets that no file has.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::support::driver::{driver, finish, run};
use crate::support::{TIMEOUT, TestFile, assert_all_free, filled, paged_arena, pattern, tcp_pair};
use bytes::Bytes;
use uring_arena::{DirectFile, Driver, Event, SendOptions, TransferError};

const GIB: usize = 1 << 30;

/// Returns the bytes of the system's memory that are free to be used.
fn memory_available() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<usize>().ok());
    kib.map_or(0, |kib| kib << 10)
}

/// Turns the driver until `done` says so. Fails if no byte was moved for [`TIMEOUT`]: `progress`
/// gives what changes while bytes move.
fn run_while_moving(
    driver: &mut Driver,
    progress: impl Fn() -> usize,
    mut done: impl FnMut(Event) -> bool,
) {
    let (mut seen, mut since) = (progress(), Instant::now());
    loop {
        while let Some(event) = driver.next() {
            if done(event) {
                return;
            }
        }
        driver.wait_timeout(Duration::from_millis(100)).unwrap();
        if progress() != seen {
            (seen, since) = (progress(), Instant::now());
        }
        assert!(since.elapsed() < TIMEOUT, "{seen} bytes moved, and then none: {driver:?}");
    }
}

/// The count of the bytes that came, and the last of them.
#[derive(Clone, Default)]
struct Came(std::sync::Arc<std::sync::Mutex<(usize, Vec<u8>)>>);

impl Came {
    fn count(&self) -> usize {
        self.0.lock().unwrap().0
    }

    fn tail(&self) -> Vec<u8> {
        self.0.lock().unwrap().1.clone()
    }

    /// Reads to the end, and keeps the last 200 bytes.
    fn read(self, mut from: TcpStream) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            let mut part = vec![0; 1 << 20];
            loop {
                let read = io::Read::read(&mut from, &mut part).unwrap();
                if read == 0 {
                    return;
                }
                let mut came = self.0.lock().unwrap();
                came.0 += read;
                came.1.extend_from_slice(&part[read.saturating_sub(200)..read]);
                let surplus = came.1.len().saturating_sub(200);
                came.1.drain(..surplus);
            }
        })
    }
}

/// Memory that nobody wrote is one page of zeros, however long: the send costs time only.
#[test]
fn a_send_of_more_than_the_kernel_takes_goes_out_whole_and_the_next_one_behind_it() {
    let Some(mut driver) = driver() else { return };
    let (ours, theirs) = tcp_pair();
    let socket = driver.add_file(ours).unwrap();
    let came = Came::default();
    let reader = came.clone().read(theirs);
    let len = GIB + 100;
    let large = driver.send(socket, Bytes::from(vec![0; len])).unwrap();
    let behind = driver.send(socket, Bytes::from_static(&[2; 100])).unwrap();
    driver.close_file(socket).unwrap();
    let mut over = Vec::new();
    run_while_moving(
        &mut driver,
        || came.count(),
        |event| {
            let Event::Sent { id, result, sent, .. } = event else { panic!("{event:?}") };
            over.push((id, result.unwrap(), sent));
            over.len() == 2
        },
    );
    reader.join().unwrap();
    assert_eq!(over, [(large, len, len), (behind, 100, 100)]);
    assert_eq!(came.count(), len + 100);
    assert_eq!(came.tail(), [[0; 100], [2; 100]].concat(), "behind all of it");
    finish(driver);
}

/// `/dev/null` counts like a file, and copies nothing.
#[test]
fn a_write_of_more_than_the_kernel_takes_is_written_whole() {
    let Some(mut driver) = driver() else { return };
    let file = driver.add_file(File::options().write(true).open("/dev/null").unwrap()).unwrap();
    for len in [2 * GIB - 4096, 2 * GIB - 4095, 2 * GIB + 100, 5 * GIB + 1] {
        let write = driver.write(file, Bytes::from(vec![0; len]), 0).unwrap();
        run(&mut driver, |event| {
            let Event::Wrote { id, result, written, .. } = event else { panic!("{event:?}") };
            assert_eq!((id, result.unwrap(), written), (write, len, len));
            true
        });
    }
    assert_eq!(driver.metrics().resumed, 4, "one more try, one, one, and two of three");
    finish(driver);
}

#[test]
fn a_read_of_more_than_the_kernel_takes_fills_its_buffer() {
    let len = 2 * GIB + 8192;
    if memory_available() < 3 * len {
        return eprintln!("SKIPPED: a read of {len} bytes needs that memory");
    }
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(1, len);
    let path = TestFile::new("whole", b"begin");
    // Holes but for marks: across the end of the first operation, and at the end of the file.
    let marks = [(2 * GIB - 4096 - 2, 4), (len - 4096, 3)];
    for (at, count) in marks {
        path.open().write_all_at(&vec![b'm'; count], at as u64).unwrap();
    }
    // Without O_DIRECT the holes would fill the page cache.
    let Ok(file) = DirectFile::open(&path) else { return eprintln!("SKIPPED: no O_DIRECT here") };
    let file = driver.add_file(file).unwrap();
    driver.read(file, arena.allocate().unwrap(), 0).unwrap();
    let mut read = None;
    run_while_moving(
        &mut driver,
        || 0,
        |event| {
            read = Some(event);
            true
        },
    );
    let Some(Event::Read { result, buffer, .. }) = read else { panic!("{read:?}") };
    assert_eq!((result.unwrap(), buffer.len()), (len - 4096 + 3, len - 4096 + 3));
    assert_eq!(buffer[..6], *b"begin\0");
    assert_eq!(buffer[marks[0].0 - 1..][..6], *b"\0mmmm\0");
    assert_eq!(buffer[marks[1].0 - 1..], *b"\0mmm");
    drop(buffer);
    finish(driver);
    assert_all_free(&arena);
}

/// The offsets from which so many bytes reach beyond the last offset of a file, or that mean
/// something else to the kernel (-1: the descriptor's own position).
const IMPOSSIBLE: [u64; 5] =
    [u64::MAX, u64::MAX - 1, u64::MAX - 4096, 1 << 63, i64::MAX as u64 - 4094];

#[test]
fn an_offset_that_no_file_has_is_refused_before_the_kernel() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(2, 4096);
    driver.register(&arena).unwrap();
    let path = TestFile::new("whole", b"as it was");
    let (reader, writer) = std::io::pipe().unwrap();
    let append = File::options().read(true).append(true).open(&path).unwrap();
    for file in [path.open().into(), append.into(), OwnedFd::from(reader), writer.into()] {
        let file = driver.add_file(file).unwrap();
        for offset in IMPOSSIBLE {
            let refused = driver.read(file, arena.allocate().unwrap(), offset).unwrap_err();
            let (limit, len) = (i64::MAX as u64, 4096);
            assert_eq!(refused.error, TransferError::Offset { offset, len, limit });
            let text = refused.to_string();
            assert!(text.contains(&offset.to_string()) && text.contains("4096 bytes"), "{text}");
            assert_eq!(refused.memory.capacity(), 4096);
            let bytes = Bytes::from(vec![1; 4096]);
            let refused = driver.write(file, bytes, offset).unwrap_err();
            assert_eq!(refused.error, TransferError::Offset { offset, len, limit });
            assert_eq!(io::Error::from(refused).kind(), io::ErrorKind::InvalidInput);
        }
    }
    // The last offsets that a file can have are the kernel's business.
    let file = driver.add_file(path.open()).unwrap();
    driver.read(file, arena.allocate().unwrap(), i64::MAX as u64 - 4096).unwrap();
    driver.write(file, Bytes::from_static(b"far away"), i64::MAX as u64 - 8).unwrap();
    let mut over = 0;
    run(&mut driver, |event| {
        match event {
            // Nothing stands there, or the file system has no such offsets.
            Event::Read { result, .. } => assert!(result.is_err() || result.unwrap() == 0),
            Event::Wrote { result, .. } => assert!(result.is_err()),
            other => panic!("{other:?}"),
        }
        over += 1;
        over == 2
    });
    assert_eq!(std::fs::read(&path).unwrap(), b"as it was");
    assert_eq!(driver.metrics().transfers, 2, "the others were not pushed");
    finish(driver);
    assert_all_free(&arena);
}

/// The keys of a connection with kernel TLS (`struct tls12_crypto_info_aes_gcm_128`).
#[repr(C)]
struct TlsKeys {
    version: u16,
    cipher: u16,
    iv: [u8; 8],
    key: [u8; 16],
    salt: [u8; 4],
    record: [u8; 8],
}

/// Turns kernel TLS on, for sending (1) or for receiving (2).
fn start_tls(socket: &TcpStream, direction: i32) -> io::Result<()> {
    const SOL_TLS: i32 = 282;
    const TLS_1_2: u16 = 0x0303;
    const AES_GCM_128: u16 = 51;
    let keys = TlsKeys {
        version: TLS_1_2,
        cipher: AES_GCM_128,
        iv: [1; 8],
        key: [2; 16],
        salt: [3; 4],
        record: [0; 8],
    };
    let set = |level, option, value: *const u8, bytes: usize| {
        let bytes = bytes as libc::socklen_t;
        // SAFETY: reads `bytes` bytes at `value`, which live during the call.
        match unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.cast(), bytes) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    set(libc::IPPROTO_TCP, libc::TCP_ULP, b"tls".as_ptr(), 3)?;
    set(SOL_TLS, direction, (&raw const keys).cast(), size_of::<TlsKeys>())
}

/// A socket with kernel TLS refuses zero-copy, and `MSG_WAITALL`. The unit test of the transfers
/// makes the refusals up where the kernel has no TLS.
#[test]
fn a_socket_with_kernel_tls_is_sent_to_like_any_other() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(4, 65_536);
    driver.register(&arena).unwrap();
    let (ours, theirs) = tcp_pair();
    if let Err(error) = start_tls(&ours, 1).and_then(|()| start_tls(&theirs, 2)) {
        return eprintln!("SKIPPED kernel TLS: the kernel has none ({error})");
    }
    let socket = driver.add_file(ours).unwrap();
    let content = pattern(1, 600_000);
    let expected = content.clone();
    let reader = std::thread::spawn(move || {
        let mut text = vec![0; expected.len()];
        io::Read::read_exact(&mut { theirs }, &mut text).unwrap();
        assert!(text == expected, "mixed or lost");
    });
    for part in content.chunks(60_000) {
        let options = SendOptions::new().zero_copy_from(1);
        let memory = arena.allocate();
        match memory {
            Ok(memory) => {
                let memory = crate::support::written(memory, part);
                driver.send_with(socket, memory, options).unwrap();
            }
            Err(_) => drop(driver.send(socket, Bytes::copy_from_slice(part)).unwrap()),
        }
    }
    let mut sent = 0;
    run(&mut driver, |event| {
        let Event::Sent { result, .. } = event else { panic!("{event:?}") };
        sent += result.unwrap();
        sent == content.len()
    });
    reader.join().unwrap();
    finish(driver);
    assert_all_free(&arena);
}

/// Makes both ends of a connection of multipath TCP, which refuses zero-copy.
fn multipath_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, getsockname, ipproto, listen};
    let make =
        || rustix::net::socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::MPTCP));
    let (listener, near) = (make()?, make()?);
    bind(&listener, &std::net::SocketAddr::from(([127, 0, 0, 1], 0)))?;
    listen(&listener, 1)?;
    connect(&near, &getsockname(&listener)?)?;
    Ok((near, rustix::net::accept(&listener)?))
}

/// Makes both ends of a connection of Unix sockets.
fn unix_pair(kind: rustix::net::SocketType) -> (OwnedFd, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, socketpair};
    socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

/// Each type of socket is sent to in the best form that it takes: registered memory or not, with
/// zero-copy asked for from the first byte on.
#[test]
fn sockets_of_every_type_are_sent_to() {
    use rustix::net::SocketType;
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(8, 65_536);
    driver.register(&arena).unwrap();
    let udp = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (near, far) = (udp(), udp());
    near.connect(far.local_addr().unwrap()).unwrap();
    let (tcp, tcp_peer) = tcp_pair();
    let mut pairs = vec![
        ("udp", OwnedFd::from(near), OwnedFd::from(far)),
        ("tcp", tcp.into(), tcp_peer.into()),
    ];
    for (name, kind) in [
        ("unix stream", SocketType::STREAM),
        ("unix datagram", SocketType::DGRAM),
        ("unix seqpacket", SocketType::SEQPACKET),
    ] {
        let (near, far) = unix_pair(kind);
        pairs.push((name, near, far));
    }
    match multipath_pair() {
        Ok((near, far)) => pairs.push(("multipath tcp", near, far)),
        Err(error) => eprintln!("SKIPPED multipath TCP: {error}"),
    }
    let options = SendOptions::new().zero_copy_from(1);
    for (name, near, far) in pairs {
        let socket = driver.add_file(near).unwrap();
        let content = pattern(3, 60_000);
        for round in 0..2 {
            driver.send_with(socket, filled(&arena, &content), options).unwrap();
            let rest = Bytes::from(content.clone());
            driver.send_with(socket, rest, options).unwrap();
            let mut came = Vec::new();
            let mut part = vec![0; 65_536];
            let mut ended = 0;
            let mut far = File::from(far.try_clone().unwrap());
            while came.len() < 2 * content.len() {
                // The queue of a Unix socket takes one of these, and no more.
                driver.wait_timeout(Duration::from_millis(1)).unwrap();
                while let Some(event) = driver.next() {
                    let Event::Sent { result, .. } = event else { panic!("{event:?}") };
                    assert_eq!(result.unwrap(), content.len(), "{name}, round {round}");
                    ended += 1;
                }
                let mut ready =
                    [libc::pollfd { fd: far.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
                // SAFETY: writes to the list, which is live, and of the length that is given.
                if unsafe { libc::poll(ready.as_mut_ptr(), 1, 0) } == 1 {
                    let read = io::Read::read(&mut far, &mut part).unwrap();
                    came.extend_from_slice(&part[..read]);
                }
            }
            assert!(came == [&content[..], &content].concat(), "{name}: mixed or lost");
            while ended < 2 {
                run(&mut driver, |event| {
                    assert!(matches!(event, Event::Sent { result: Ok(60_000), .. }), "{event:?}");
                    ended += 1;
                    true
                });
            }
        }
        driver.close_file(socket).unwrap();
    }
    finish(driver);
    assert_all_free(&arena);
}
