//! A small server of the protocol of Redis: PING, SET, GET; and one of HTTP/1, by hyper.
//!
//! One task a connection. The answers to all requests that came together go out by one write. The
//! code is the same for all contenders but for the source of the bytes.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use uring_arena::FixedArena;
use uring_arena::tokio::{Engine, Pool};

/// The size of a read, and of a slot.
pub(super) const READ_BYTES: usize = 4096;
pub(super) const SLOTS: usize = 1024;

pub(super) type Table = Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>;

/// Runs the server of a name until the process is killed. Prints the port.
pub fn run(kind: &str, threads: &str) -> io::Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    serve_on(listener, kind, threads)
}

/// Runs the server of a name on a listener until the process is killed.
pub fn serve_on(listener: std::net::TcpListener, kind: &str, threads: &str) -> io::Result<()> {
    if kind == "driver" {
        return super::driver::run(listener);
    }
    let runtime = runtime(threads)?;
    let kind = kind.to_owned();
    listener.set_nonblocking(true)?;
    runtime.block_on(async move {
        let listener = TcpListener::from_std(listener)?;
        let pool = pool(&kind)?;
        let table = Table::default();
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let table = Arc::clone(&table);
            match (kind.as_str(), &pool) {
                ("http-plain", _) => drop(tokio::spawn(http(socket))),
                (kind, Some(pool)) if kind.starts_with("http-") => {
                    drop(tokio::spawn(http(pool.stream(socket)?)));
                }
                ("plain", _) => drop(tokio::spawn(plain(socket, table))),
                (kind, Some(pool)) if kind.ends_with("-read") => {
                    let stream = pool.stream(socket)?;
                    drop(tokio::spawn(read(stream, table)));
                }
                (_, Some(pool)) => drop(tokio::spawn(pooled(pool.stream(socket)?, table))),
                _ => return Err(io::Error::other(format!("no server is called {kind}"))),
            }
        }
    })
}

fn runtime(threads: &str) -> io::Result<Runtime> {
    match threads.parse().ok().and_then(NonZeroUsize::new) {
        None => Builder::new_current_thread().enable_all().build(),
        Some(threads) => {
            Builder::new_multi_thread().worker_threads(threads.get()).enable_all().build()
        }
    }
}

fn pool(kind: &str) -> io::Result<Option<Pool>> {
    let engine = match kind.trim_end_matches("-read").trim_start_matches("http-") {
        "plain" => return Ok(None),
        "ring" => Engine::Ring,
        "readiness" => Engine::Readiness,
        _ => Engine::Auto,
    };
    let arena = FixedArena::new(SLOTS, READ_BYTES).map_err(io::Error::other)?;
    Ok(Some(Pool::builder(arena).engine(engine).build()?))
}

/// Serves HTTP/1 by hyper: a short answer to each request.
async fn http(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<()> {
    let answer = async |_: Request<Incoming>| {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(&[b'x'; 64]))))
    };
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
    serving.await.map_err(io::Error::other)
}

/// Reads as programs on tokio do: into room that is reserved, four KiB at a time.
async fn plain(socket: TcpStream, table: Table) -> io::Result<()> {
    read(socket, table).await
}

async fn read(mut stream: impl AsyncReadExt + AsyncWrite + Unpin, table: Table) -> io::Result<()> {
    let mut unread = BytesMut::with_capacity(READ_BYTES);
    let mut answers = Vec::new();
    loop {
        unread.reserve(READ_BYTES);
        if stream.read_buf(&mut unread).await? == 0 {
            return Ok(());
        }
        while let Served::Whole(used) = serve(&unread, &table, &mut answers)? {
            unread.advance(used);
        }
        if !answers.is_empty() {
            stream.write_all(&answers).await?;
            answers.clear();
        }
    }
}

/// Takes the bytes in their slots. Only a request that is cut is copied, and the rest of a long one
/// is received where it belongs.
async fn pooled(mut stream: uring_arena::tokio::Stream, table: Table) -> io::Result<()> {
    let mut cut = BytesMut::new();
    let mut answers = Vec::new();
    while let Some(mut bytes) = stream.try_next().await? {
        if cut.is_empty() {
            while let Served::Whole(used) = serve(&bytes, &table, &mut answers)? {
                bytes.advance(used);
            }
        }
        cut.extend_from_slice(&bytes);
        drop::<Bytes>(bytes);
        while !cut.is_empty() {
            match serve(&cut, &table, &mut answers)? {
                Served::Whole(used) => cut.advance(used),
                Served::Needs(bytes) if bytes < cut.len() + READ_BYTES => break,
                Served::Needs(bytes) => {
                    cut.reserve(bytes - cut.len());
                    if stream.read_buf(&mut cut).await? == 0 {
                        return Ok(());
                    }
                }
            }
        }
        if !answers.is_empty() {
            stream.write_all(&answers).await?;
            answers.clear();
        }
    }
    Ok(())
}

/// The first request of some bytes.
pub(super) enum Served {
    /// It was answered, and is so long.
    Whole(usize),
    /// It has so many bytes at least.
    Needs(usize),
}

/// Answers the first request in `bytes`, if it is whole.
pub(super) fn serve(bytes: &[u8], table: &Table, answers: &mut impl Write) -> io::Result<Served> {
    let mut parser = Parser { bytes, at: 0, needs: bytes.len() + 1 };
    let Some(count) = parser.number(b'*')? else { return Ok(Served::Needs(parser.needs)) };
    let mut words = [&[][..]; 8];
    if count > words.len() {
        return Err(io::Error::other("a request has too many words"));
    }
    for word in &mut words[..count] {
        let Some(bytes) = parser.word()? else { return Ok(Served::Needs(parser.needs)) };
        *word = bytes;
    }
    match (&words[0].to_ascii_uppercase()[..], count) {
        (b"PING", 1) => answers.write_all(b"+PONG\r\n")?,
        (b"SET", 3) => {
            let mut table = table.lock().expect("no holder panics");
            match table.get_mut(words[1]) {
                Some(value) => {
                    value.clear();
                    value.extend_from_slice(words[2]);
                }
                None => drop(table.insert(words[1].to_vec(), words[2].to_vec())),
            }
            answers.write_all(b"+OK\r\n")?;
        }
        (b"GET", 2) => match table.lock().expect("no holder panics").get(words[1]) {
            Some(value) => {
                write!(answers, "${}\r\n", value.len())?;
                answers.write_all(value)?;
                answers.write_all(b"\r\n")?;
            }
            None => answers.write_all(b"$-1\r\n")?,
        },
        _ => answers.write_all(b"-ERR unknown command\r\n")?,
    }
    Ok(Served::Whole(parser.at))
}

/// A SET of which the value has not come whole.
pub(super) struct LongSet<'a> {
    pub(super) key: &'a [u8],
    /// The place where the value begins, and its length.
    pub(super) value_at: usize,
    pub(super) value_bytes: usize,
}

/// Reads the head of a SET whose value has not come whole.
pub(super) fn long_set(bytes: &[u8]) -> io::Result<Option<LongSet<'_>>> {
    let mut parser = Parser { bytes, at: 0, needs: 0 };
    if parser.number(b'*')? != Some(3) || parser.word()? != Some(b"SET") {
        return Ok(None);
    }
    let Some(key) = parser.word()? else { return Ok(None) };
    let value_bytes = parser.number(b'$')?;
    Ok(value_bytes.map(|value_bytes| LongSet { key, value_at: parser.at, value_bytes }))
}

/// A request that is read from its start.
struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The bytes that the request has at least.
    needs: usize,
}

impl<'a> Parser<'a> {
    /// Reads a line that is a number behind `kind`.
    fn number(&mut self, kind: u8) -> io::Result<Option<usize>> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.iter().take(32).position(|&byte| byte == b'\n') else {
            return if rest.len() < 32 { Ok(None) } else { Err(io::Error::other("no number")) };
        };
        let digits = rest[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(&[kind]));
        let digits = digits.ok_or_else(|| io::Error::other("no number"))?;
        self.at += end + 1;
        let number = |number, &digit: &u8| number * 10 + usize::from(digit - b'0');
        Ok(Some(digits.iter().fold(0, number)))
    }

    /// Reads a word of a given length.
    fn word(&mut self) -> io::Result<Option<&'a [u8]>> {
        let Some(len) = self.number(b'$')? else { return Ok(None) };
        let word = self.bytes.get(self.at..self.at + len);
        if self.bytes.len() < self.at + len + 2 {
            self.needs = self.at + len + 2;
            return Ok(None);
        }
        self.at += len + 2;
        Ok(word)
    }
}
