//! A file served over HTTP by hyper: its bodies are slots of an arena, read with io_uring and given
//! to hyper as `Bytes`, never copied in between.
//!
//! `cargo run --example tokio_http --features tokio`

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uring_arena::FixedArena;
use uring_arena::tokio::{File, Pool};

const CLIENTS: usize = 16;
const FILE_BYTES: usize = 3 << 20;
const SLOT_BYTES: usize = 64 << 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (slots, bytes) = (NonZeroUsize::new(256).unwrap(), NonZeroUsize::new(SLOT_BYTES).unwrap());
    let arena = FixedArena::with_slot_capacity(slots, bytes).alignment(4096).build()?;
    let pool = Pool::new(arena.clone())?;

    let content: Vec<u8> = (0..FILE_BYTES).map(|at| (at * 31 + at / 251) as u8).collect();
    let path = std::env::temp_dir().join(format!("uring-arena-http-{}", std::process::id()));
    std::fs::write(&path, &content)?;
    let file = Arc::new(pool.file(std::fs::File::open(&path)?)?);

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn({
        let pool = pool.clone();
        async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, pool.clone(), Arc::clone(&file)));
            }
        }
    });

    let content = Arc::new(content);
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| tokio::spawn(check(address, Arc::clone(&content)))).collect();
    for client in clients {
        client.await??;
    }
    server.abort();
    let _ = server.await;
    std::fs::remove_file(&path)?;
    let drained = pool.shutdown().await?;
    assert_eq!((drained.in_flight, arena.metrics().quarantined), (0, 0));
    println!(
        "verified {} MiB in {CLIENTS} answers of {} bodies",
        (CLIENTS * FILE_BYTES) >> 20,
        arena.metrics().frozen
    );
    Ok(())
}

async fn serve(stream: TcpStream, pool: Pool, file: Arc<File>) {
    let answer = |_request: Request<hyper::body::Incoming>| {
        let (pool, file) = (pool.clone(), Arc::clone(&file));
        async move {
            let parts = futures_util::stream::unfold(0, move |offset| {
                next_part(pool.clone(), Arc::clone(&file), offset)
            });
            let body = StreamBody::new(Box::pin(parts));
            let answer = Response::builder().header("content-length", FILE_BYTES).body(body);
            Ok::<_, Infallible>(answer.expect("a valid header"))
        }
    };
    // A client that hangs up early is no news.
    let connection = hyper::server::conn::http1::Builder::new();
    let _ = connection.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
}

/// The part of the file at `offset`, in a slot of its own, and where the next one begins.
async fn next_part(
    pool: Pool,
    file: Arc<File>,
    offset: u64,
) -> Option<(io::Result<Frame<Bytes>>, u64)> {
    let buffer = loop {
        match pool.allocate() {
            Ok(buffer) => break buffer,
            // Every slot is on its way to a client.
            Err(_) => tokio::task::yield_now().await,
        }
    };
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
