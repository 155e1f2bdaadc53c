//! Snapshots over a socket: what is served, to whom, and that nobody is held up.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BufMut;
use uring_arena::{BuddyArena, Driver, FixedArena, TrackHolders};
use uring_arena_top::{CLIENTS_MAX, Client, Latest, ReadError, ServeError, Snapshot, serve};

/// The time in which everything must happen, however busy the machine is.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns a path of a socket that no other test has.
fn path() -> PathBuf {
    static PATHS: AtomicUsize = AtomicUsize::new(0);
    let number = PATHS.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("uring-arena-top-test-{}-{number}", std::process::id()))
}

fn tracked(slots: usize) -> FixedArena {
    FixedArena::with_sizes(slots, 64).track_holders(TrackHolders::All).build().unwrap()
}

#[test]
fn a_snapshot_is_the_same_after_a_trip_through_json() {
    let (arena, blocks) = (tracked(8), BuddyArena::new(4096, 256).unwrap());
    let mut held = arena.allocate().unwrap();
    held.label("a \"label\"\n");
    held.put_slice(b"bytes");
    let frozen = held.freeze();
    let block = blocks.allocate_bytes(1000).unwrap();
    let snapshot =
        Snapshot::new().arena("frames", &arena).arena("blocks", &blocks).part("again", &arena);
    let line = snapshot.to_json();
    assert!(!line.contains('\n'));
    assert_eq!(Snapshot::from_json(&line).unwrap(), snapshot);

    let frames = &snapshot.arenas[0];
    assert_eq!((frames.slots, frames.slot_bytes, frames.states.frozen), (8, 64, 1));
    assert_eq!((frames.map.matches('f').count(), frames.map.matches('.').count()), (1, 7));
    let holders = frames.holders.as_ref().unwrap();
    assert!(holders.summary.contains("serve.rs"), "{}", holders.summary);
    let oldest = &holders.oldest[0];
    assert_eq!((oldest.label.as_deref(), oldest.used_bytes), (Some("a \"label\"\n"), Some(5)));
    let blocks_view = &snapshot.arenas[1];
    assert!(blocks_view.holders.is_none(), "that arena tracks nobody");
    let used: Vec<_> = blocks_view.blocks.iter().filter(|of| of.claimed > 0).collect();
    assert_eq!((used.len(), used[0].bytes, used[0].claimed), (1, 1024, 1));
    assert_eq!(snapshot.parts[0].sum("uring_arena_reserved_bytes"), 512);
    drop((frozen, block));
}

#[test]
fn a_line_that_is_no_snapshot_is_refused_with_its_reason() {
    assert!(matches!(Snapshot::from_json("{"), Err(ReadError::Json(_))));
    let error = Snapshot::from_json("{\"version\":99}").unwrap_err();
    assert!(error.to_string().contains("version 99"), "{error}");
    // A field that this version does not know is no matter.
    let with_more = Snapshot::new().to_json().replacen('{', "{\"more\":1,", 1);
    Snapshot::from_json(&with_more).unwrap();
}

#[test]
fn the_socket_is_of_its_user_alone_and_goes_with_the_server() {
    let (path, arena) = (path(), tracked(8));
    let server = serve(&path, move || Snapshot::new().arena("frames", &arena)).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = Client::connect(&path).unwrap();
    let (one, two) = (client.snapshot().unwrap(), client.snapshot().unwrap());
    assert_eq!(one.process, std::process::id());
    assert!(two.time_ms >= one.time_ms);
    drop(server);
    assert!(!path.exists());
    // What was on its way may still come; then the end.
    let end = (0..3).find_map(|_| client.snapshot().err()).unwrap();
    assert!(matches!(end, ReadError::Closed | ReadError::System(_)), "{end}");
    assert!(matches!(Client::connect(&path), Err(ReadError::Connect { .. })));
}

#[test]
fn a_path_that_cannot_be_served_is_named_with_the_remedy() {
    let long = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
    let error = serve(&long, Snapshot::new).unwrap_err();
    assert!(matches!(error, ServeError::Path { .. }) && error.to_string().contains("107"));
    let missing = serve("/no/such/folder/socket", Snapshot::new).unwrap_err();
    assert!(matches!(missing, ServeError::System { .. }), "{missing}");

    let path = path();
    std::fs::write(&path, "a file").unwrap();
    let error = serve(&path, Snapshot::new).unwrap_err();
    assert!(matches!(error, ServeError::NoSocket { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"a file", "it is left alone");
    std::fs::remove_file(&path).unwrap();

    let server = serve(&path, Snapshot::new).unwrap();
    let error = serve(&path, Snapshot::new).unwrap_err();
    assert!(matches!(error, ServeError::InUse { .. }), "{error}");
    drop(server);
    // A socket that a program left behind is replaced.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = serve(&path, Snapshot::new).unwrap();
    Client::connect(&path).unwrap().snapshot().unwrap();
    drop(server);
}

#[test]
fn a_client_that_stalls_holds_up_neither_the_others_nor_the_end() {
    let (path, arena) = (path(), tracked(4096));
    let held: Vec<_> = (0..4096).map(|_| arena.allocate().unwrap()).collect();
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    // A line that is longer than the socket takes.
    let source = move || {
        count.fetch_add(1, Ordering::Relaxed);
        let snapshot = Snapshot::new();
        (0..40).fold(snapshot, |all, number| all.arena(&number.to_string(), &arena))
    };
    let server = serve(&path, source).unwrap();
    let mut stalled = UnixStream::connect(&path).unwrap();
    let mut writes = UnixStream::connect(&path).unwrap();
    let mut client = Client::connect(&path).unwrap();
    for _ in 0..4 {
        // What a client writes is never read, and harms nobody.
        let _ = writes.write(&[7; 4096]);
        assert_eq!(client.snapshot().unwrap().arenas.len(), 40);
    }
    // The one that stalled finds a whole line.
    stalled.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut line = String::new();
    BufReader::new(&mut stalled).read_line(&mut line).unwrap();
    assert_eq!(Snapshot::from_json(&line).unwrap().arenas.len(), 40);
    let begin = Instant::now();
    drop(server);
    assert!(begin.elapsed() < TIMEOUT);
    assert!(made.load(Ordering::Relaxed) >= 4);
    drop(held);
}

#[test]
fn nobody_is_asked_while_nobody_watches() {
    let path = path();
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let source = move || {
        count.fetch_add(1, Ordering::Relaxed);
        Snapshot::new()
    };
    let server = serve(&path, source).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(made.load(Ordering::Relaxed), 0);
    let mut client = Client::connect(&path).unwrap();
    client.snapshot().unwrap();
    drop(client);
    drop(server);
}

#[test]
fn a_client_too_many_is_turned_away_and_there_is_room_when_one_is_gone() {
    let path = path();
    let server = serve(&path, Snapshot::new).unwrap();
    let mut clients: Vec<Client> =
        (0..CLIENTS_MAX).map(|_| Client::connect(&path).unwrap()).collect();
    clients.iter_mut().for_each(|client| drop(client.snapshot().unwrap()));
    let error = Client::connect(&path).unwrap().snapshot().unwrap_err();
    assert!(matches!(error, ReadError::Closed | ReadError::System(_)), "{error}");
    clients.pop();
    let begin = Instant::now();
    while Client::connect(&path).unwrap().snapshot().is_err() {
        assert!(begin.elapsed() < TIMEOUT, "no room");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(server);
}

#[test]
fn a_driver_hands_a_snapshot_over_when_one_is_wanted() {
    let Ok(mut driver) = Driver::builder().build() else {
        eprintln!("SKIPPED: io_uring is not to be had");
        return;
    };
    let (path, arena) = (path(), tracked(16));
    let options = uring_arena::BufferRing::options().entries(4);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    let (_peer, socket) = UnixStream::pair().unwrap();
    driver.receive_with(ring, socket, 7).unwrap();
    let latest = Latest::new();
    let (source, waker) = (latest.clone(), driver.waker().unwrap());
    let server = serve(&path, move || source.take(|| waker.wake_by_ref())).unwrap();
    let asked = path.clone();
    let client = std::thread::spawn(move || {
        let mut client = Client::connect(&asked).unwrap();
        (client.snapshot().unwrap(), client.snapshot().unwrap())
    });
    // The waker ends each wait: nothing else would.
    let (begin, mut handed) = (Instant::now(), 0);
    while handed < 2 {
        assert!(begin.elapsed() < TIMEOUT, "nobody wants a second snapshot");
        driver.wait_timeout(TIMEOUT).unwrap();
        if latest.is_wanted() {
            latest.set(Snapshot::new().arena_of(&driver, "frames", &arena).driver("io", &driver));
            handed += 1;
        }
    }
    let (_, snapshot) = client.join().unwrap();
    assert_eq!((snapshot.arenas[0].states.ready, snapshot.arenas[0].states.free), (4, 12));
    let socket = &snapshot.sockets[0];
    assert_eq!((socket.connection, socket.state.as_str()), (7, "open"));
    assert_eq!(snapshot.parts[0].parts[0].kind, "ring");
    drop(server);
}

#[test]
fn a_source_that_panics_ends_the_server_and_not_the_program() {
    let path = path();
    let server = serve(&path, || -> Snapshot { panic!("of the source") }).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut all = Vec::new();
    assert_eq!(client.read_to_end(&mut all).unwrap_or(0), 0);
    drop(server);
    assert!(!path.exists());
}
