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
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use support::{Warning, check_all_free, nonzero, say};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use uring_arena::FixedArena;
use uring_arena::tokio::{Pool, RecvStream, SendHalf};

const HELP: &str = "\
Serves 64 clients, each of which sets and gets 50 keys, on tokio. Takes no options.";

const CLIENTS: usize = 64;
const KEYS: usize = 50;
const SLOTS: u64 = 8192;
const SLOT_BYTES: u64 = 4096;

/// The most slots that values keep. The others stay for messages to come.
const SLOTS_KEPT_MAX: u64 = SLOTS / 2;

/// The longest line. A client that sends a longer one is told so, and sent away.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The time until accepting is tried again after it failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

type SharedStore = Arc<Mutex<Store>>;

/// The values by key.
#[derive(Default)]
struct Store {
    values: HashMap<Bytes, Value>,
    slots_kept: u64,
}

struct Value {
    bytes: Bytes,
    /// The value keeps the slot that it was received into.
    keeps_slot: bool,
}

impl Store {
    /// Sets a value, in its slot while not too many slots are kept, else as a copy.
    ///
    /// The key is copied: it would keep its slot even after its value was replaced.
    fn set(&mut self, key: &[u8], value: Bytes) {
        let keeps_slot = self.slots_kept < SLOTS_KEPT_MAX;
        let bytes = if keeps_slot { value } else { Bytes::copy_from_slice(&value) };
        let value = Value { bytes, keeps_slot };
        self.slots_kept += u64::from(keeps_slot);
        if let Some(old) = self.values.insert(Bytes::copy_from_slice(key), value) {
            self.slots_kept -= u64::from(old.keeps_slot);
        }
    }
}

fn main() -> ExitCode {
    support::run(
        || support::no_options(HELP),
        |()| {
            support::need_descriptors(4 * CLIENTS as u64 + 64)?;
            tokio::runtime::Runtime::new()?.block_on(serve_clients())
        },
    )
}

async fn serve_clients() -> Result<(), Box<dyn Error>> {
    let arena = FixedArena::with_slot_capacity(nonzero(SLOTS)?, nonzero(SLOT_BYTES)?)
        .alignment(4096)
        .build()?;
    let pool = Pool::new(arena.clone())?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let store = SharedStore::default();
    let server = tokio::spawn(accept(listener, pool.clone(), Arc::clone(&store)));

    let clients: Vec<_> = (0..CLIENTS).map(|id| tokio::spawn(check(address, id))).collect();
    for client in clients {
        client.await?.map_err(|error| error.to_string())?;
    }
    say!("values     {}", store.lock().expect("not poisoned").values.len());
    say!(
        "slots      {} in use, including those posted in the buffer ring",
        arena.metrics().bytes_live as u64 / SLOT_BYTES
    );

    server.abort();
    *store.lock().expect("not poisoned") = Store::default();
    let drained = pool.shutdown().await?;
    check_all_free(&arena, drained.in_flight)?;
    say!("verified {CLIENTS} clients; every slot is free again");
    Ok(())
}

/// Accepts clients for ever. Nothing that goes wrong with one ends it for the others.
async fn accept(listener: TcpListener, pool: Pool, store: SharedStore) {
    let mut warning = Warning::default();
    loop {
        let split = match listener.accept().await {
            Ok((stream, _)) => pool.split(stream),
            // No descriptor is left, say. That passes when a client goes.
            Err(error) => {
                warning.print(format_args!("clients wait: {error}; {}", support::MORE_ROOM));
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        match split {
            Ok((incoming, outgoing)) => {
                tokio::spawn(serve(incoming, outgoing, Arc::clone(&store)));
            }
            Err(error) => warning.print(format_args!("a client was refused: {error}")),
        }
    }
}

/// Serves one connection. A line that arrives in one piece is not copied.
async fn serve(
    mut incoming: RecvStream,
    mut outgoing: SendHalf,
    store: SharedStore,
) -> std::io::Result<()> {
    // The start of a line is copied: a client that sends no more of it keeps no slot.
    let mut rest = BytesMut::new();
    while let Some(mut bytes) = incoming.try_next().await? {
        if !rest.is_empty() {
            rest.extend_from_slice(&bytes);
            bytes = rest.split().freeze();
        }
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let line = bytes.split_to(end);
            bytes = bytes.slice(1..);
            let Some(answer) = answer(&line, &store) else { return outgoing.shutdown().await };
            outgoing.write_all(&answer).await?;
        }
        if bytes.len() > LINE_BYTES_MAX {
            outgoing.write_all(b"TOO LONG\n").await?;
            return outgoing.shutdown().await;
        }
        rest.extend_from_slice(&bytes);
    }
    Ok(())
}

/// Executes a line. Returns the answer, or `None` if the connection ends.
fn answer(line: &Bytes, store: &Mutex<Store>) -> Option<Bytes> {
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let mut store = store.lock().expect("not poisoned");
    Some(match (words.next()?, words.next(), words.next()) {
        (b"SET", Some(key), Some(value)) => {
            // The value is a part of the slot that the line was received into. The slot is free
            // when the last of its parts is dropped.
            store.set(key, line.slice_ref(value));
            Bytes::from_static(b"OK\n")
        }
        (b"GET", Some(key), None) => match store.values.get(key) {
            Some(value) => [b"VALUE ", &value.bytes[..], b"\n"].concat().into(),
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
