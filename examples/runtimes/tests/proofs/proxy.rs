//! A proxy whose clients read slowly: it holds little, loses nothing, and serves the others.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use uring_arena::tokio::{Pool, RecvStream, SendHalf, Stream};

use crate::support::{Listener, Outcome, connect, on_all, pattern};

/// The bytes that go each way.
const BYTES: usize = 1 << 20;

/// The ways in which bytes are carried from one side to the other.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// tokio's own copy loop, by reads and writes.
    Copied,
    /// The slots themselves, by `try_next` and `send`.
    Carried,
}

async fn carry(mut from: RecvStream, mut to: SendHalf) {
    while let Some(bytes) = from.try_next().await.unwrap() {
        to.send(bytes).await.unwrap();
    }
    to.shutdown().await.unwrap();
}

async fn proxy(mut client: Stream, mut server: Stream, way: Way) {
    match way {
        Way::Copied => {
            copy_bidirectional(&mut client, &mut server).await.unwrap();
        }
        Way::Carried => {
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::join!(carry(from_client, to_server), carry(from_server, to_client));
        }
    }
}

/// Sends a pattern and its end, and reads one meanwhile, slowly or not.
async fn exchange(socket: TcpStream, sends: usize, reads: usize, is_slow: bool) -> Outcome {
    let (mut read, mut write) = socket.into_split();
    let sending = tokio::spawn(async move {
        write.write_all(&pattern(sends, BYTES)).await?;
        write.shutdown().await
    });
    let (mut received, mut room) = (Vec::new(), vec![0; 32 << 10]);
    loop {
        if is_slow {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        match read.read(&mut room).await? {
            0 => break,
            bytes => received.extend_from_slice(&room[..bytes]),
        }
    }
    assert!(received == pattern(reads, BYTES), "{} bytes", received.len());
    sending.await??;
    Ok(())
}

async fn proxied(pool: Pool, way: Way) -> Outcome {
    const CLIENTS: usize = 6;
    let listener = Listener::bind(&pool).await;
    let address = listener.address();
    let server = TcpListener::bind("127.0.0.1:0").await?;
    let server_address = server.local_addr()?;
    let serving = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        for _ in 0..CLIENTS {
            let (mut socket, _) = server.accept().await?;
            connections.spawn(async move {
                // The client says who it is.
                let id = usize::from(socket.read_u8().await?);
                exchange(socket, id + 100, id, false).await
            });
        }
        while let Some(served) = connections.join_next().await {
            served??;
        }
        Outcome::Ok(())
    });
    let between = pool.clone();
    let proxying = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        for _ in 0..CLIENTS {
            let client = listener.accept().await;
            let server = connect(&between, server_address).await;
            connections.spawn(proxy(client, server, way));
        }
        while let Some(served) = connections.join_next().await {
            served.unwrap();
        }
    });
    let mut clients = JoinSet::new();
    for id in 0..CLIENTS {
        clients.spawn(async move {
            let mut socket = TcpStream::connect(address).await?;
            socket.write_u8(id as u8).await?;
            exchange(socket, id, id + 100, id % 2 == 0).await
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    serving.await??;
    proxying.await?;
    Ok(())
}

#[test]
fn slow_readers_behind_a_proxy_that_copies_get_everything() -> Outcome {
    on_all(|pool| proxied(pool, Way::Copied))
}

#[test]
fn slow_readers_behind_a_proxy_that_carries_slots_get_everything() -> Outcome {
    on_all(|pool| proxied(pool, Way::Carried))
}
