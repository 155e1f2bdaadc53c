//! Our driver: multishot receive into the arena's buffer ring, `Bytes` or `ArenaBytes` out.

use std::io;
use std::net::TcpStream;
use std::num::NonZeroUsize;

use uring_arena::{BufferRing, BufferRingId, Driver, Event, FixedArena};

use crate::receive::Shape;
use crate::receive::lockstep::Receiver;
use crate::receive::outlet::{Message, Outlet};

pub const SLOTS: usize = 1024;

/// The memory of all our lines.
pub fn arena(shape: Shape) -> io::Result<FixedArena> {
    let nz = |number| NonZeroUsize::new(number).ok_or(io::ErrorKind::InvalidInput);
    let builder = FixedArena::with_slot_capacity(nz(SLOTS)?, nz(shape.slot_bytes())?);
    builder.alignment(4096).build().map_err(io::Error::other)
}

/// What a message is handed out as.
#[derive(Clone, Copy)]
pub enum As {
    Bytes,
    ArenaBytes,
}

pub struct Ours {
    driver: Driver,
    ring: BufferRingId,
    handed_out: As,
    outlet: Outlet,
}

impl Ours {
    pub fn start(
        sockets: Vec<TcpStream>,
        shape: Shape,
        handed_out: As,
        outlet: Outlet,
    ) -> io::Result<Self> {
        let arena = arena(shape)?;
        let builder = Driver::builder().entries(1024).completion_entries(4096);
        let mut driver = builder.build().map_err(io::Error::other)?;
        let options = BufferRing::options().entries(SLOTS);
        let ring = driver.register_buffer_ring(&arena, options).map_err(io::Error::other)?;
        for socket in sockets {
            driver.receive(ring, socket).map_err(io::Error::other)?;
        }
        Ok(Self { driver, ring, handed_out, outlet })
    }

    /// Takes all events there are; the bytes that came.
    #[inline]
    fn take(&mut self) -> io::Result<usize> {
        match self.handed_out {
            As::Bytes => take_all(|| self.driver.next(), &self.outlet),
            As::ArenaBytes => take_all(|| self.driver.next_arena_bytes(), &self.outlet),
        }
    }
}

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
            got += self.take()?;
        }
        Ok(())
    }

    fn starved(&self) -> u64 {
        self.driver.ring_metrics(self.ring).map_or(0, |metrics| metrics.starved)
    }
}
