//! Ours: filled from the socket, and written from the same slot past the page cache, while the next
//! one fills.

use std::error::Error;
use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use uring_arena::{DirectFile, Driver, Event, FixedArena};

use crate::harness::registered_buffers;

use super::stream::BLOCK_BYTES;
use super::systems::{Ingest, Room};

const SLOTS: usize = 8;

pub struct Ours {
    arena: FixedArena,
    room: Room,
    registered: f64,
}

impl Ours {
    pub fn new(room: Room) -> io::Result<Self> {
        let nz = |number| NonZeroUsize::new(number).ok_or(io::ErrorKind::InvalidInput);
        let builder = FixedArena::with_slot_capacity(nz(SLOTS)?, nz(BLOCK_BYTES)?).alignment(4096);
        Ok(Self { arena: builder.build().map_err(io::Error::other)?, room, registered: 0.0 })
    }
}

impl Ingest for Ours {
    fn ingest(
        &mut self,
        socket: TcpStream,
        path: &Path,
        bytes: usize,
    ) -> Result<(), Box<dyn Error>> {
        let mut how = File::options();
        how.write(true).create(true).truncate(true);
        let file = DirectFile::open_with(&how, path)?.into_file();
        self.room.make(&file, bytes)?;
        let mut driver = Driver::builder().build()?;
        driver.register(&self.arena)?;
        if self.registered == 0.0 {
            self.registered = registered_buffers();
        }
        let (socket, file) = (driver.add_file(socket)?, driver.add_file(file)?);
        let (mut received, mut offset, mut writes, mut is_reading) = (0, 0, 0, false);
        while received < bytes || writes > 0 {
            if !is_reading
                && received < bytes
                && let Ok(slot) = self.arena.allocate()
            {
                driver.read(socket, slot, 0)?;
                is_reading = true;
            }
            driver.wait()?;
            while let Some(event) = driver.next() {
                match event {
                    Event::Read { result, buffer, .. } => {
                        received += result?;
                        if buffer.len() < BLOCK_BYTES {
                            driver.read(socket, buffer, 0)?;
                            continue;
                        }
                        is_reading = false;
                        driver.write(file, buffer, offset)?;
                        offset += BLOCK_BYTES as u64;
                        writes += 1;
                    }
                    Event::Wrote { result, .. } => {
                        if result? != BLOCK_BYTES {
                            return Err("a write was shorter than asked".into());
                        }
                        writes -= 1;
                    }
                    _ => {}
                }
            }
        }
        driver.drain(Duration::from_secs(10))?;
        Ok(())
    }

    fn registered(&self) -> f64 {
        self.registered
    }
}
