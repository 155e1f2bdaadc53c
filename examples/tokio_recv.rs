//! A key-value server on tokio that keeps each value in the slot that it was received into.
//!
//! The protocol has one line per command:
//!
//! ```text
//! SET key value   → OK          GET key → VALUE value | NONE          QUIT
//! ```
//!
//! ```text
//! cargo run --release --features tokio --example tokio_recv
//! ```

mod support;

use std::collections::HashMap;
use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use support::{check_all_free, nonzero, say};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use uring_arena::FixedArena;
use uring_arena::tokio::{Pool, RecvStream, SendHalf};

const HELP: &str = "\
Serves 64 clients, each of which sets and gets 50 keys, on tokio. Takes no options.";

const CLIENTS: usize = 64;
const KEYS: usize = 50;
const SLOT_BYTES: u64 = 4096;

type Store = Arc<Mutex<HashMap<Bytes, Bytes>>>;

fn main() -> ExitCode {
    support::run(
        || support::no_options(HELP),
        |()| tokio::runtime::Runtime::new()?.block_on(serve_clients()),
    )
}

async fn serve_clients() -> Result<(), Box<dyn Error>> {
    let arena = FixedArena::with_slot_capacity(nonzero(8192)?, nonzero(SLOT_BYTES)?)
        .alignment(4096)
        .build()?;
    let pool = Pool::new(arena.clone())?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let store = Store::default();
    tokio::spawn({
        let (pool, store) = (pool.clone(), Arc::clone(&store));
        async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok((incoming, outgoing)) = pool.split(stream) else { return };
                tokio::spawn(serve(incoming, outgoing, Arc::clone(&store)));
            }
        }
    });

    let clients: Vec<_> = (0..CLIENTS).map(|id| tokio::spawn(check(address, id))).collect();
    for client in clients {
        client.await?.map_err(|error| error.to_string())?;
    }
    say!("values     {}", store.lock().expect("not poisoned").len());
    say!(
        "slots      {} in use, including those posted in the buffer ring",
        arena.metrics().bytes_live as u64 / SLOT_BYTES
    );

    store.lock().expect("not poisoned").clear();
    let drained = pool.shutdown().await?;
    check_all_free(&arena, drained.in_flight)?;
    say!("verified {CLIENTS} clients; every slot is free again");
    Ok(())
}

/// Serves one connection. A line that arrives in one piece is not copied.
async fn serve(
    mut incoming: RecvStream,
    mut outgoing: SendHalf,
    store: Store,
) -> std::io::Result<()> {
    let mut rest = Bytes::new();
    while let Some(bytes) = incoming.try_next().await? {
        let mut bytes = if rest.is_empty() { bytes } else { [rest, bytes].concat().into() };
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let line = bytes.split_to(end);
            bytes = bytes.slice(1..);
            let Some(answer) = answer(&line, &store) else { return outgoing.shutdown().await };
            outgoing.write_all(&answer).await?;
        }
        rest = bytes;
    }
    Ok(())
}

/// Executes a line. Returns the answer, or `None` if the connection ends.
fn answer(line: &Bytes, store: &Store) -> Option<Bytes> {
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let mut store = store.lock().expect("not poisoned");
    Some(match (words.next()?, words.next(), words.next()) {
        (b"SET", Some(key), Some(value)) => {
            // Both are parts of the slot that the line was received into. The slot is free when the
            // last of its parts is dropped.
            store.insert(line.slice_ref(key), line.slice_ref(value));
            Bytes::from_static(b"OK\n")
        }
        (b"GET", Some(key), None) => match store.get(key) {
            Some(value) => [b"VALUE ", &value[..], b"\n"].concat().into(),
            None => Bytes::from_static(b"NONE\n"),
        },
        (b"QUIT", None, None) => return None,
        _ => Bytes::from_static(b"WHAT\n"),
    })
}

async fn check(address: std::net::SocketAddr, id: usize) -> std::io::Result<()> {
    let (reader, mut writer) = TcpStream::connect(address).await?.into_split();
    let mut lines = BufReader::new(reader).lines();
    for key in 0..KEYS {
        let value = "v".repeat(1 + (id * 131 + key * 17) % 1000);
        writer
            .write_all(
                format!("SET {id}-{key} {value}\nGET {id}-{key}\nGET {id}-x\nHM\n").as_bytes(),
            )
            .await?;
        for expected in ["OK", &format!("VALUE {value}"), "NONE", "WHAT"] {
            assert_eq!(
                lines.next_line().await?.as_deref(),
                Some(expected),
                "client {id}, key {key}"
            );
        }
    }
    writer.write_all(b"QUIT\n").await?;
    assert_eq!(lines.next_line().await?, None);
    Ok(())
}
