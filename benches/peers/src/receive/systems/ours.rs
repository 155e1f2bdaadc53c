//! Our driver: multishot receive into the arena's buffer ring, `Bytes` or `ArenaBytes` out.

use std::io;
use std::net::TcpStream;
use std::num::NonZeroUsize;

use uring_arena::{BufferRing, BufferRingId, Driver, Event, FixedArena};

use crate::receive::Shape;
use crate::receive::lockstep::Receiver;

const SLOTS: usize = 1024;

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
}

impl Ours {
    pub fn start(sockets: Vec<TcpStream>, shape: Shape, handed_out: As) -> io::Result<Self> {
        let nz = |number| NonZeroUsize::new(number).ok_or(io::ErrorKind::InvalidInput);
        let builder = FixedArena::with_slot_capacity(nz(SLOTS)?, nz(shape.slot_bytes())?);
        let arena = builder.alignment(4096).build().map_err(io::Error::other)?;
        let builder = Driver::builder().entries(1024).completion_entries(4096);
        let mut driver = builder.build().map_err(io::Error::other)?;
        let options = BufferRing::options().entries(SLOTS);
        let ring = driver.buffer_ring(&arena, options).map_err(io::Error::other)?;
        for socket in sockets {
            driver.receive(ring, socket).map_err(io::Error::other)?;
        }
        Ok(Self { driver, ring, handed_out })
    }

    /// Takes all events there are; the bytes that came.
    #[inline]
    fn take(&mut self) -> io::Result<usize> {
        match self.handed_out {
            As::Bytes => take_all(|| self.driver.next()),
            As::ArenaBytes => take_all(|| self.driver.next_in_place()),
        }
    }
}

#[inline]
fn take_all<B: AsRef<[u8]>>(mut next: impl FnMut() -> Option<Event<B>>) -> io::Result<usize> {
    let mut got = 0;
    while let Some(event) = next() {
        match event {
            Event::Received { bytes, .. } => got += bytes.as_ref().len(),
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
