//! An HTTP server on tokio and hyper that serves a file from the slots of an arena.
//!
//! Each part of the file is read into a slot, by io_uring where that is allowed, and given to hyper
//! as `Bytes`. The connections are streams of the pool, in place of sockets of tokio. There is no
//! copy in between.
//!
//! ```text
//! cargo run --release --features tokio --example tokio_http
//! ```

mod support;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use support::{UnnamedFile, Warning, check_all_free, exact_bytes, nonzero, say};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uring_arena::FixedArena;
use uring_arena::tokio::{File, Pool};

const HELP: &str = "\
Serves a file of 3 MiB to 16 HTTP clients from the slots of an arena, and compares the answers.
Takes no options.";

const CLIENTS: usize = 16;
const FILE_BYTES: usize = 3 << 20;
const SLOT_BYTES: u64 = 64 << 10;

/// The time until accepting is tried again after it failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    support::run(
        || support::no_options(HELP),
        |()| {
            support::need_descriptors(4 * CLIENTS as u64 + 64)?;
            tokio::runtime::Runtime::new()?.block_on(serve_file())
        },
    )
}

async fn serve_file() -> Result<(), Box<dyn Error>> {
    let arena = FixedArena::with_slot_capacity(nonzero(256)?, nonzero(SLOT_BYTES)?)
        .alignment(4096)
        .build()?;
    let pool = Pool::new(arena.clone())?;

    let content = support::file_content(FILE_BYTES);
    let made = UnnamedFile::temporary(&content)?;
    let file = Arc::new(pool.file(made.file().try_clone()?)?);

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(accept(listener, pool.clone(), file));

    let content = Arc::new(content);
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| tokio::spawn(check(address, Arc::clone(&content)))).collect();
    for client in clients {
        client.await??;
    }
    server.abort();
    let _ = server.await;
    let drained = pool.shutdown().await?;
    check_all_free(&arena, drained.in_flight)?;
    say!(
        "verified {} in {CLIENTS} answers, {} slots frozen",
        exact_bytes((CLIENTS * FILE_BYTES) as u64),
        arena.metrics().frozen
    );
    Ok(())
}

/// Accepts clients for ever. Nothing that goes wrong with one ends it for the others.
async fn accept(listener: TcpListener, pool: Pool, file: Arc<File>) {
    let mut warning = Warning::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, pool.clone(), Arc::clone(&file)));
            }
            // No descriptor is left, say. That passes when a client goes.
            Err(error) => {
                warning.print(format_args!("clients wait: {error}; {}", support::MORE_ROOM));
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, pool: Pool, file: Arc<File>) {
    let answer = |_request: Request<hyper::body::Incoming>| {
        let (pool, file) = (pool.clone(), Arc::clone(&file));
        async move {
            let parts = futures::stream::unfold(0, move |offset| {
                next_part(pool.clone(), Arc::clone(&file), offset)
            });
            let body = StreamBody::new(Box::pin(parts));
            let answer = Response::builder().header("content-length", FILE_BYTES).body(body);
            Ok::<_, Infallible>(answer.expect("a valid header"))
        }
    };
    let Ok(stream) = pool.stream(stream) else { return };
    // The error of a client that hangs up early is ignored.
    let connection = hyper::server::conn::http1::Builder::new();
    let _ = connection.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
}

/// Reads the part of the file at `offset` into a slot of its own.
///
/// Returns the part and the offset of the next one, or `None` at the end of the file.
async fn next_part(
    pool: Pool,
    file: Arc<File>,
    offset: u64,
) -> Option<(io::Result<Frame<Bytes>>, u64)> {
    // While every slot holds a part that hyper is still sending, this waits.
    let buffer = pool.allocate().await;
    match file.read_at(buffer, offset).await {
        Ok(buffer) if buffer.is_empty() => None,
        Ok(buffer) => {
            let part = buffer.freeze();
            let next = offset + part.len() as u64;
            Some((Ok(Frame::data(part)), next))
        }
        Err(error) => Some((Err(error), offset)),
    }
}

async fn check(address: std::net::SocketAddr, content: Arc<Vec<u8>>) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let head = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("an empty line ends the head");
    assert!(answer[head + 4..] == content[..], "the body is the file");
    Ok(())
}
