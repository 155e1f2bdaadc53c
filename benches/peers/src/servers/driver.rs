//! The server on `Driver`: one thread, a message in its slot, answers by `send`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::TcpListener;

use bytes::BytesMut;
use uring_arena::{ArenaBytes, Buffer, BufferRing, Driver, Event, FixedArena, Payload, SocketId};

use super::resp::{LongSet, READ_BYTES, SLOTS, Served, Table, long_set, serve};

/// The slots for answers. Longer ones go to the heap.
const ANSWERS: usize = 1024;

/// The part of a request that has come.
enum Cut {
    /// The bytes, and the number of bytes that the request has at least.
    Short(BytesMut, usize),
    /// A key, the bytes of its value, and the bytes that are missing: an end of line among them.
    Value(Vec<u8>, Vec<u8>, usize),
}

struct Server {
    driver: Driver,
    answers: FixedArena,
    table: Table,
    /// The cut requests of the connections.
    cuts: HashMap<SocketId, Cut>,
}

pub(super) fn run(listener: TcpListener) -> io::Result<()> {
    let arena = FixedArena::new(SLOTS, READ_BYTES).map_err(io::Error::other)?;
    let answers = FixedArena::new(ANSWERS, READ_BYTES).map_err(io::Error::other)?;
    let mut driver = Driver::builder().build()?;
    let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    driver.accept(listener)?;
    let mut server = Server { driver, answers, table: Table::default(), cuts: HashMap::new() };
    loop {
        server.driver.wait()?;
        while let Some(event) = server.driver.next_arena_bytes() {
            match event {
                Event::Accepted { socket, .. } => {
                    let socket = std::net::TcpStream::from(socket);
                    socket.set_nodelay(true)?;
                    server.driver.receive(ring, socket)?;
                }
                Event::Received { id, bytes, .. } => server.received(id, &bytes)?,
                Event::Closed { id, .. } => drop(server.cuts.remove(&id)),
                _ => {}
            }
        }
    }
}

impl Server {
    fn received(&mut self, id: SocketId, bytes: &ArenaBytes) -> io::Result<()> {
        let mut answers = self.answers.allocate().map_err(io::Error::other)?;
        let mut rest = &bytes[..];
        if !self.cuts.is_empty()
            && let Some(cut) = self.cuts.remove(&id)
        {
            rest = self.go_on(id, cut, rest, &mut answers)?;
        }
        self.serve_all(id, rest, &mut answers)?;
        // A connection that is over says so by an event.
        if !answers.is_empty() {
            drop(self.driver.send(id, Payload::from(answers)));
        }
        Ok(())
    }

    /// Serves whole requests, and keeps one that is cut.
    fn serve_all(&mut self, id: SocketId, mut bytes: &[u8], to: &mut Buffer) -> io::Result<()> {
        while !bytes.is_empty() {
            match serve(bytes, &self.table, to)? {
                Served::Whole(used) => bytes = &bytes[used..],
                Served::Needs(needs) => {
                    let cut = match long_set(bytes)? {
                        Some(set) if set.value_bytes > READ_BYTES => self.begin(&set, bytes),
                        _ => Cut::Short(bytes.into(), needs),
                    };
                    self.cuts.insert(id, cut);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Begins a long value where it is to stay: in the memory of the one that it takes the place
    /// of.
    fn begin(&self, set: &LongSet<'_>, bytes: &[u8]) -> Cut {
        let old = self.table.lock().expect("no holder panics").remove(set.key);
        let mut value = old.unwrap_or_default();
        value.clear();
        value.reserve(set.value_bytes + 2);
        value.extend_from_slice(&bytes[set.value_at..]);
        let missing = set.value_bytes + 2 - value.len();
        Cut::Value(set.key.to_vec(), value, missing)
    }

    /// Goes on with a cut request. Returns the bytes behind it.
    fn go_on<'a>(
        &mut self,
        id: SocketId,
        cut: Cut,
        bytes: &'a [u8],
        to: &mut Buffer,
    ) -> io::Result<&'a [u8]> {
        match cut {
            Cut::Value(key, mut value, missing) => {
                let (part, rest) = bytes.split_at(missing.min(bytes.len()));
                value.extend_from_slice(part);
                if part.len() < missing {
                    self.cuts.insert(id, Cut::Value(key, value, missing - part.len()));
                    return Ok(rest);
                }
                value.truncate(value.len() - 2);
                self.table.lock().expect("no holder panics").insert(key, value);
                to.write_all(b"+OK\r\n")?;
                Ok(rest)
            }
            Cut::Short(mut whole, needs) => {
                whole.extend_from_slice(bytes);
                match whole.len() < needs {
                    true => drop(self.cuts.insert(id, Cut::Short(whole, needs))),
                    false => self.serve_all(id, &whole, to)?,
                }
                Ok(&[])
            }
        }
    }
}
