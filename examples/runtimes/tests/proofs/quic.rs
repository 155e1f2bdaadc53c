//! quinn on datagram sockets of a pool: files both ways, and many streams at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use uring_arena::FixedArena;
use uring_arena::tokio::Pool;

use crate::support::{Outcome, on_all_with, pattern};

#[path = "../../examples/tokio_quic/certificate.rs"]
pub mod certificate;
#[path = "../../examples/tokio_quic/socket.rs"]
mod socket;

async fn endpoint(pool: &Pool, server: Option<quinn::ServerConfig>) -> Endpoint {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let datagrams = pool.datagrams(UdpSocket::bind(local).await.unwrap()).unwrap();
    let slot_bytes = pool.arena().slot_capacity();
    let socket = Arc::new(socket::PoolSocket::new(datagrams, slot_bytes).unwrap());
    let (config, runtime) = (EndpointConfig::default(), Arc::new(TokioRuntime));
    Endpoint::new_with_abstract_socket(config, server, socket, runtime).unwrap()
}

async fn echo(server: Endpoint) {
    let connection = server.accept().await.unwrap().await.unwrap();
    let mut streams = JoinSet::new();
    while let Ok((mut sending, mut receiving)) = connection.accept_bi().await {
        streams.spawn(async move {
            while let Some(part) = receiving.read_chunk(1 << 16, true).await.unwrap() {
                sending.write_chunk(part.bytes).await.unwrap();
            }
            sending.finish().unwrap();
            let _ = sending.stopped().await;
        });
    }
    while let Some(stream) = streams.join_next().await {
        stream.unwrap();
    }
}

async fn files_come_back(pool: Pool) -> Outcome {
    let (server_config, client_config) = certificate::settings().map_err(|it| it.to_string())?;
    let server = endpoint(&pool, Some(server_config)).await;
    let mut client = endpoint(&pool, None).await;
    client.set_default_client_config(client_config);
    let address = server.local_addr()?;
    let serving = tokio::spawn(echo(server.clone()));
    let connection = client.connect(address, certificate::NAME)?.await?;
    let mut streams = JoinSet::new();
    for (seed, len) in [0, 1, 1200, 70_000, 1 << 20, 300_000].into_iter().enumerate() {
        let (mut sending, mut receiving) = connection.open_bi().await?;
        streams.spawn(async move {
            let sent = Bytes::from(pattern(seed, len));
            let copy = sent.clone();
            let send = tokio::spawn(async move {
                sending.write_all(&copy).await.unwrap();
                sending.finish().unwrap();
                let _ = sending.stopped().await;
            });
            let received = receiving.read_to_end(2 << 20).await?;
            assert!(received == sent, "{len} bytes");
            send.await?;
            Outcome::Ok(())
        });
    }
    while let Some(stream) = streams.join_next().await {
        stream??;
    }
    connection.close(0u32.into(), b"done");
    client.wait_idle().await;
    serving.await?;
    server.close(0u32.into(), b"done");
    server.wait_idle().await;
    Ok(())
}

#[test]
fn files_come_back_in_slots_of_one_datagram() -> Outcome {
    on_all_with(|| FixedArena::new(256, 2048).unwrap(), files_come_back)
}

#[test]
fn files_come_back_in_slots_of_many_datagrams() -> Outcome {
    on_all_with(|| FixedArena::new(64, (64 << 10) + 4096).unwrap(), files_come_back)
}
