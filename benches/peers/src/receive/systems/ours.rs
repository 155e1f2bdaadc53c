//! Our driver: multishot receive into the arena's buffer ring, `Bytes` or `ArenaBytes` out.

use std::io;
use std::net::TcpStream;
use std::num::NonZeroUsize;

use uring_arena::{BufferRing, BufferRingId, Driver, Event, FixedArena};

use crate::receive::receiver::{Message, Outlet, Receiver};
use crate::receive::wire::Shape;

pub const SLOTS: usize = 1024;

/// Builds the memory of all our lines.
pub fn arena(shape: Shape) -> io::Result<FixedArena> {
    let nz = |number| NonZeroUsize::new(number).ok_or(io::ErrorKind::InvalidInput);
    let builder = FixedArena::with_slot_capacity(nz(SLOTS)?, nz(shape.slot_bytes())?);
    builder.alignment(4096).build().map_err(io::Error::other)
}

struct Ours {
    driver: Driver,
    ring: BufferRingId,
    in_arena: bool,
    outlet: Outlet,
}

/// Starts with messages handed out as `ArenaBytes`, or as `Bytes`.
pub fn start(
    sockets: Vec<TcpStream>,
    shape: Shape,
    outlet: Outlet,
    in_arena: bool,
) -> io::Result<Box<dyn Receiver>> {
    let builder = Driver::builder().entries(1024).completion_entries(4096);
    let mut driver = builder.build().map_err(io::Error::other)?;
    let options = BufferRing::options().entries(SLOTS);
    let ring = driver.register_buffer_ring(&arena(shape)?, options).map_err(io::Error::other)?;
    for socket in sockets {
        driver.receive(ring, socket).map_err(io::Error::other)?;
    }
    Ok(Box::new(Ours { driver, ring, in_arena, outlet }))
}

/// Takes all events there are; returns the bytes that came.
#[inline]
fn take_all<B>(mut next: impl FnMut() -> Option<Event<B>>, outlet: &Outlet) -> io::Result<usize>
where
    B: AsRef<[u8]> + Into<Message>,
{
    let mut got = 0;
    while let Some(event) = next() {
        match event {
            Event::Received { bytes, .. } => {
                got += bytes.as_ref().len();
                outlet.take(bytes);
            }
            Event::Closed { .. } => return Err(io::ErrorKind::ConnectionReset.into()),
            _ => {}
        }
    }
    Ok(got)
}

impl Receiver for Ours {
    fn drain(&mut self, bytes: usize) -> io::Result<()> {
        let mut got = 0;
        while got < bytes {
            self.driver.wait().map_err(io::Error::other)?;
            got += match self.in_arena {
                true => take_all(|| self.driver.next_arena_bytes(), &self.outlet)?,
                false => take_all(|| self.driver.next(), &self.outlet)?,
            };
        }
        Ok(())
    }

    fn starved(&self) -> u64 {
        self.driver.ring_metrics(self.ring).map_or(0, |metrics| metrics.starved)
    }
}
