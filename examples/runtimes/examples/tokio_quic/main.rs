//! A file over QUIC: quinn's endpoints on the datagram sockets of a pool.
//!
//! The server reads the file into slots and sends it on a stream of quinn's. The client receives it
//! and compares it with the file. Both receive datagrams into slots of an arena.
//!
//! ```text
//! cargo run --release -p uring-arena-runtimes --example tokio_quic -- --bytes 64MiB
//! ```

mod certificate;
mod socket;
#[path = "../../../support/mod.rs"]
mod support;

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use socket::PoolSocket;
use support::{
    Checksum, CommandLine, UnnamedFile, check_all_free, exact_bytes, mistake, nonzero, rate, say,
    size,
};
use tokio::net::UdpSocket;
use uring_arena::FixedArena;
use uring_arena::tokio::{Engine, File, Pool};

const HELP: &str = "\
Sends a file over QUIC, on datagram sockets of a pool, and compares what arrives.

  --bytes BYTES    length of the file (default 16MiB)
  --engine ENGINE  auto, readiness or ring (default auto)";

/// Slots with room for the largest message: several datagrams of one sender come as one.
const SLOT_BYTES: u64 = (64 << 10) + 4096;

/// Slots of the arena: half of them lie ready for datagrams on a ring.
const SLOTS: u64 = 256;

struct Options {
    bytes: u64,
    engine: Engine,
}

fn main() -> ExitCode {
    support::run(options, |options| tokio::runtime::Runtime::new()?.block_on(transfer(options)))
}

fn options() -> Result<Option<Options>, Box<dyn Error>> {
    let line =
        CommandLine { help: HELP, options: &["--bytes", "--engine"], flags: &[], operands: &[] };
    let mut options = Options { bytes: 16 << 20, engine: Engine::Auto };
    let given = line.parse(|option, value| {
        match option {
            "--bytes" => options.bytes = size(option, value)?,
            _ => {
                options.engine = match value.to_str() {
                    Some("auto") => Engine::Auto,
                    Some("readiness") => Engine::Readiness,
                    Some("ring") => Engine::Ring,
                    _ => return Err(mistake("--engine takes auto, readiness or ring")),
                }
            }
        }
        Ok(())
    })?;
    Ok(given.map(|_| options))
}

/// Makes an endpoint on a datagram socket of the pool.
async fn endpoint(
    pool: &Pool,
    server: Option<quinn::ServerConfig>,
) -> Result<Endpoint, Box<dyn Error>> {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let datagrams = pool.datagrams(UdpSocket::bind(local).await?)?;
    let socket = Arc::new(PoolSocket::new(datagrams, pool.arena().slot_capacity())?);
    let (config, runtime) = (EndpointConfig::default(), Arc::new(TokioRuntime));
    Ok(Endpoint::new_with_abstract_socket(config, server, socket, runtime)?)
}

async fn transfer(options: &Options) -> Result<(), Box<dyn Error>> {
    let arena = FixedArena::with_slot_capacity(nonzero(SLOTS)?, nonzero(SLOT_BYTES)?)
        .alignment(4096)
        .build()?;
    let pool = Pool::builder(arena.clone()).engine(options.engine).build()?;
    let (server_config, client_config) = certificate::settings()?;
    let server = endpoint(&pool, Some(server_config)).await?;
    let mut client = endpoint(&pool, None).await?;
    client.set_default_client_config(client_config);

    let content = support::file_content(usize::try_from(options.bytes)?);
    let made = UnnamedFile::temporary(&content)?;
    let file = pool.file(made.file().try_clone()?)?;
    let mut expected = Checksum::default();
    expected.append(&content);

    let address = server.local_addr()?;
    let serving = tokio::spawn(serve(server.clone(), pool.clone(), file));
    let began = Instant::now();
    let connection = client.connect(address, certificate::NAME)?.await?;
    let (mut request, mut answer) = connection.open_bi().await?;
    request.write_all(b"the file").await?;
    request.finish()?;
    let mut received = Checksum::default();
    while let Some(part) = answer.read_chunk(1 << 16, true).await? {
        received.append(&part.bytes);
    }
    let took = began.elapsed();
    if received != expected {
        return Err(mistake(format!("received {received}, and the file is {expected}")));
    }
    connection.close(0u32.into(), b"done");
    client.wait_idle().await;
    serving.await?.map_err(|error| mistake(error.to_string()))?;
    let choice = pool.engine().connections;
    drop((client, server, answer, request, connection));
    let drained = pool.shutdown().await?;
    check_all_free(&arena, drained.in_flight)?;
    say!(
        "verified {} over QUIC by {choice}, {}",
        exact_bytes(received.bytes),
        rate(received.bytes, took)
    );
    Ok(())
}

/// Serves one client: the file, read into a slot at a time.
async fn serve(
    server: Endpoint,
    pool: Pool,
    file: File,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let incoming = server.accept().await.ok_or("the endpoint was closed")?;
    let connection = incoming.await?;
    let (mut answer, mut request) = connection.accept_bi().await?;
    request.read_to_end(64).await?;
    let mut offset = 0;
    loop {
        let part = file.read_at(pool.allocate().await, offset).await?.freeze();
        if part.is_empty() {
            break;
        }
        offset += part.len() as u64;
        answer.write_chunk(part).await?;
    }
    answer.finish()?;
    // The client closes the connection when it has everything.
    connection.closed().await;
    server.close(0u32.into(), b"done");
    server.wait_idle().await;
    Ok(())
}
