//! A small line protocol server on ordinary tokio, its input received into an arena: it stores
//! values in the slots where they arrived.
//!
//! ```text
//! SET key value   → OK          GET key → VALUE value | NONE          QUIT
//! ```
//!
//! `cargo run --example tokio_recv --features tokio`

use std::collections::HashMap;
use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use uring_arena::FixedArena;
use uring_arena::tokio::{Pool, RecvStream, SendHalf};

const CLIENTS: usize = 64;
const KEYS: usize = 50;

type Store = Arc<Mutex<HashMap<Bytes, Bytes>>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (slots, bytes) = (NonZeroUsize::new(8192).unwrap(), NonZeroUsize::new(4096).unwrap());
    let arena = FixedArena::with_slot_capacity(slots, bytes).alignment(4096).build()?;
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
    let held = store.lock().expect("nobody panicked").len();
    println!(
        "{CLIENTS} clients served; {held} values held, {} slots in use, those of the ring included",
        arena.metrics().bytes_live / 4096
    );

    store.lock().expect("nobody panicked").clear();
    let drained = pool.shutdown().await?;
    let metrics = arena.metrics();
    assert_eq!((drained.in_flight, metrics.bytes_live, metrics.quarantined), (0, 0, 0));
    println!("verified; every slot came back");
    Ok(())
}

/// One connection: lines out of the bytes that come, without copying those that come whole.
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

/// What is said to a line; `None` ends the connection.
fn answer(line: &Bytes, store: &Store) -> Option<Bytes> {
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let mut store = store.lock().expect("nobody panicked");
    Some(match (words.next()?, words.next(), words.next()) {
        (b"SET", Some(key), Some(value)) => {
            // Parts of the slot that the line arrived in: it is free when the last of them goes.
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
