//! The server: one thread that writes snapshots to whoever connects.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::Snapshot;

/// The time from one snapshot to the next.
const EVERY: Duration = Duration::from_millis(500);

/// The time until a snapshot that was not there yet is asked for again.
const RETRY: Duration = Duration::from_millis(20);

/// The time that a client may take for one line.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// The most clients at one time. Further ones are turned away.
pub const CLIENTS_MAX: usize = 16;

/// A reason why a socket cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The path is no socket's address, or too long for one.
    #[error(
        "{path:?} cannot be a socket's address: a path has 107 bytes at most, and no zero byte; choose another"
    )]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// There is something at the path already that is no socket.
    #[error("{path:?} is there, and is no socket: remove it, or choose another path")]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// Another program serves the path.
    #[error("another program serves {path:?}: stop it, or choose another path")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// A call of the system failed.
    #[error("{path:?} cannot be served: {error}")]
    System {
        /// The path.
        path: PathBuf,
        /// The error.
        #[source]
        error: io::Error,
    },
}

/// Serves snapshots on a Unix socket that only this user can connect to (mode 0600).
///
/// A thread of its own calls `source` twice a second while somebody is connected, and sleeps
/// otherwise. Each client gets a line of JSON for each snapshot, and is never read from. A client
/// that does not read misses snapshots, and is dropped after ten seconds; others do not wait for
/// it. The drop of the [`Server`] ends the thread, and removes the socket.
///
/// `source` returns a snapshot, or an `Option` of one: `None` is asked again soon. A driver stays
/// on its thread: see [`Latest`].
///
/// A socket of the path that nobody serves any more is replaced.
///
/// # Errors
///
/// [`ServeError`] names the path and the remedy.
///
/// ```
/// use uring_arena::FixedArena;
/// use uring_arena_top::{Client, Snapshot, serve};
///
/// let arena = FixedArena::new(8, 64)?;
/// # let folder = std::env::temp_dir();
/// let path = folder.join(format!("uring-arena-top-{}", std::process::id()));
/// let served = arena.clone();
/// let server = serve(&path, move || Snapshot::new().arena("frames", &served))?;
///
/// let snapshot = Client::connect(&path)?.snapshot()?;
/// assert_eq!(snapshot.arenas[0].name, "frames");
/// drop(server);
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn serve<S: Into<Option<Snapshot>>>(
    path: impl AsRef<Path>,
    mut source: impl FnMut() -> S + Send + 'static,
) -> Result<Server, ServeError> {
    let path = path.as_ref();
    let system = |error: io::Error| ServeError::System { path: path.to_owned(), error };
    let listener = listen(path)?;
    let file = std::fs::symlink_metadata(path).map_err(system)?;
    let (end, ended) = UnixStream::pair().map_err(system)?;
    let mut clients = Clients { listener, ended, clients: Vec::new(), due: Instant::now() };
    let thread = std::thread::Builder::new()
        .name("uring-arena-top".into())
        .spawn(move || while clients.turn(&mut || source().into()) {})
        .map_err(|error| {
            let _ = std::fs::remove_file(path);
            system(error)
        })?;
    let inode = (file.dev(), file.ino());
    Ok(Server { path: path.to_owned(), inode, end: Some(end), thread: Some(thread) })
}

/// Makes the listener. Nobody can connect before the mode is set.
fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    let owned = || path.to_owned();
    let system = |error: io::Error| ServeError::System { path: path.to_owned(), error };
    let address = SocketAddrUnix::new(path).map_err(|_| ServeError::Path { path: owned() })?;
    if let Ok(file) = std::fs::symlink_metadata(path) {
        if !file.file_type().is_socket() {
            return Err(ServeError::NoSocket { path: owned() });
        }
        match UnixStream::connect(path) {
            // What nobody serves any more was left by a program that was killed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(system)?;
            }
            Ok(_) => return Err(ServeError::InUse { path: owned() }),
            Err(error) => return Err(system(error)),
        }
    }
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|error| system(error.into()))?;
    rustix::net::bind(&socket, &address).map_err(|error| match error {
        rustix::io::Errno::ADDRINUSE => ServeError::InUse { path: owned() },
        error => system(error.into()),
    })?;
    let listening = rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR)
        .and_then(|()| rustix::net::listen(&socket, CLIENTS_MAX as i32));
    listening.map_err(|error| {
        let _ = std::fs::remove_file(path);
        system(error.into())
    })?;
    Ok(socket.into())
}

/// A server that runs. Its drop ends it, and removes the socket.
pub struct Server {
    path: PathBuf,
    inode: (u64, u64),
    /// The end of a pair: its close wakes the thread, which ends.
    end: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Returns the path of the socket.
    ///
    /// ```
    /// # use uring_arena_top::{Snapshot, serve};
    /// # let path = std::env::temp_dir().join(format!("uring-arena-path-{}", std::process::id()));
    /// let server = serve(&path, Snapshot::new)?;
    /// assert_eq!(server.path(), path);
    /// # Ok::<(), uring_arena_top::ServeError>(())
    /// ```
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Removed first: whoever finds the socket finds a server. It may be another's by now.
        let file = std::fs::symlink_metadata(&self.path);
        if file.is_ok_and(|file| (file.dev(), file.ino()) == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the source was told already.
            let _ = thread.join();
        }
    }
}

/// The listener and its clients, on the server's thread.
struct Clients {
    listener: UnixListener,
    /// Closed on the other side when the server is to end.
    ended: UnixStream,
    clients: Vec<Client>,
    /// The time of the next snapshot.
    due: Instant,
}

/// A client, and what it has not taken yet.
struct Client {
    socket: OwnedFd,
    pending: Arc<[u8]>,
    sent: usize,
    since: Instant,
    is_gone: bool,
}

impl Client {
    fn is_idle(&self) -> bool {
        self.sent == self.pending.len()
    }

    /// Writes as much as the socket takes.
    fn write(&mut self) {
        while !self.is_idle() {
            // The socket does not block: `accept` made it so.
            match rustix::net::send(&self.socket, &self.pending[self.sent..], SendFlags::NOSIGNAL) {
                Ok(bytes) => self.sent += bytes,
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    self.is_gone = true;
                    return;
                }
            }
        }
    }
}

impl Clients {
    /// Waits for something to do, and does it. Returns `false` when the server is to end.
    fn turn(&mut self, source: &mut dyn FnMut() -> Option<Snapshot>) -> bool {
        let Ok(is_ended) = self.wait() else { return false };
        if is_ended {
            return false;
        }
        self.accept();
        let now = Instant::now();
        if now >= self.due && self.clients.iter().any(Client::is_idle) {
            self.due = now + EVERY;
            match source() {
                Some(snapshot) => self.hand_out(&snapshot, now),
                None => self.due = now + RETRY,
            }
        }
        for client in &mut self.clients {
            client.write();
            client.is_gone |= !client.is_idle() && now - client.since > CLIENT_TIMEOUT;
        }
        self.clients.retain(|client| !client.is_gone);
        true
    }

    /// Waits for clients, for room to write, or for the next snapshot. Returns whether the server
    /// is to end.
    fn wait(&mut self) -> io::Result<bool> {
        let timeout = (!self.clients.is_empty()).then(|| {
            let left = self.due.saturating_duration_since(Instant::now());
            // A client that does not read is looked at now and then.
            let left = left.clamp(Duration::from_millis(1), CLIENT_TIMEOUT);
            let are_busy = self.clients.iter().all(|client| !client.is_idle());
            let left = if are_busy { left.max(EVERY) } else { left };
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
        });
        let mut polled = vec![
            PollFd::from_borrowed_fd(self.ended.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
        ];
        polled.extend(self.clients.iter().map(|client| {
            // A client is never read from: its end comes whatever is asked for.
            let wanted = if client.is_idle() { PollFlags::empty() } else { PollFlags::OUT };
            PollFd::from_borrowed_fd(client.socket.as_fd(), wanted)
        }));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ends = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        let is_over = |polled: &PollFd<'_>| polled.revents().intersects(ends);
        let is_ended = polled[0].revents().contains(PollFlags::IN) || is_over(&polled[0]);
        let gone: Vec<bool> = polled[2..].iter().map(is_over).collect();
        for (client, is_gone) in self.clients.iter_mut().zip(gone) {
            client.is_gone |= is_gone;
        }
        Ok(is_ended)
    }

    /// Takes new clients in. One too many is closed, and sees no line.
    fn accept(&mut self) {
        self.clients.retain(|client| !client.is_gone);
        while let Ok((socket, _)) = self.listener.accept() {
            if self.clients.len() >= CLIENTS_MAX || socket.set_nonblocking(true).is_err() {
                continue;
            }
            let (pending, since) = (Arc::from([]), Instant::now());
            self.clients.push(Client {
                socket: socket.into(),
                pending,
                sent: 0,
                since,
                is_gone: false,
            });
            // A new client need not wait for the time of the others.
            self.due = since;
        }
    }

    /// Hands a snapshot to all clients that have taken the one before.
    fn hand_out(&mut self, snapshot: &Snapshot, now: Instant) {
        let line: Arc<[u8]> = format!("{}\n", snapshot.to_json()).into_bytes().into();
        for client in self.clients.iter_mut().filter(|client| client.is_idle()) {
            (client.pending, client.sent, client.since) = (Arc::clone(&line), 0, now);
        }
    }
}

/// The latest snapshot of what stays on its thread, such as a driver.
///
/// The thread makes a snapshot when one [is wanted](Self::is_wanted), and hands it over. So it pays
/// nothing while nobody watches.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let Ok(mut driver) = uring_arena::Driver::builder().build() else { return Ok(()) };
/// # let path = std::env::temp_dir().join(format!("uring-arena-latest-{}", std::process::id()));
/// use uring_arena_top::{Latest, Snapshot, serve};
///
/// let latest = Latest::new();
/// let (served, waker) = (latest.clone(), driver.waker()?);
/// let server = serve(&path, move || served.take(|| waker.wake_by_ref()))?;
/// // In the loop of the driver, after each turn:
/// if latest.is_wanted() {
///     latest.set(Snapshot::new().driver("io", &driver));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Latest(Arc<Mutex<LatestState>>);

#[derive(Debug, Default)]
struct LatestState {
    is_wanted: bool,
    snapshot: Option<Snapshot>,
}

impl Latest {
    /// Makes one without a snapshot.
    ///
    /// The example of [`Latest`] shows it.
    pub fn new() -> Latest {
        Latest::default()
    }

    /// Returns whether somebody waits for a snapshot.
    ///
    /// The example of [`Latest`] shows it.
    pub fn is_wanted(&self) -> bool {
        self.lock().is_wanted
    }

    /// Hands a snapshot over.
    ///
    /// The example of [`Latest`] shows it.
    pub fn set(&self, snapshot: Snapshot) {
        *self.lock() = LatestState { is_wanted: false, snapshot: Some(snapshot) };
    }

    /// Takes the snapshot that was set since the last call, or asks for one and calls `wake`.
    ///
    /// The example of [`Latest`] shows it.
    pub fn take(&self, wake: impl FnOnce()) -> Option<Snapshot> {
        let mut state = self.lock();
        let taken = state.snapshot.take();
        if taken.is_none() && !state.is_wanted {
            state.is_wanted = true;
            drop(state);
            wake();
        }
        taken
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LatestState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
