//! The reader of what a server writes.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Snapshot;
use crate::snapshot::VERSION;

/// The time in which a snapshot must come.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest line that is read, in bytes.
const LINE_MAX: u64 = 64 << 20;

/// A reason why no snapshot was read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nobody can be connected to at the path.
    #[error(
        "no program serves {path:?} ({error}): start one that calls `uring_arena_top::serve`, or look at the path"
    )]
    Connect {
        /// The path.
        path: PathBuf,
        /// The error.
        #[source]
        error: io::Error,
    },
    /// The socket failed, or nothing came in five seconds.
    #[error("no snapshot came: {0}")]
    System(#[from] io::Error),
    /// The server has ended, or has as many clients as it takes (16).
    #[error("the server closed the connection: it has ended, or has too many clients")]
    Closed,
    /// The line is no snapshot.
    #[error("a line that is no snapshot: {0}")]
    Json(#[from] serde_json::Error),
    /// The line is of another version of the format.
    #[error(
        "the program has version {of} of the format, and this is version {VERSION}: use the same version of uring-arena-top on both sides"
    )]
    Version {
        /// The version.
        of: u32,
    },
}

/// A connection to a server.
///
/// The example of [`serve`](crate::serve) shows it.
#[derive(Debug)]
pub struct Client {
    lines: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// [`ReadError::Connect`] if nobody serves it.
    ///
    /// The example of [`serve`](crate::serve) shows it.
    pub fn connect(path: impl AsRef<Path>) -> Result<Client, ReadError> {
        let path = path.as_ref();
        let socket = UnixStream::connect(path)
            .map_err(|error| ReadError::Connect { path: path.to_owned(), error })?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(Client { lines: BufReader::new(socket) })
    }

    /// Waits for the next snapshot: five seconds at most.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: none came, or what came is none.
    ///
    /// The example of [`serve`](crate::serve) shows it.
    pub fn snapshot(&mut self) -> Result<Snapshot, ReadError> {
        let mut line = String::new();
        match (&mut self.lines).take(LINE_MAX).read_line(&mut line) {
            Ok(0) => Err(ReadError::Closed),
            Ok(_) if !line.ends_with('\n') => Err(ReadError::Closed),
            Ok(_) => Snapshot::from_json(&line),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "nothing for five seconds").into())
            }
            Err(error) => Err(error.into()),
        }
    }
}
