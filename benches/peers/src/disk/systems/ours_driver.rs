//! Our driver: a slot per read, frozen to `Bytes` and dropped; no unsafe code in the program.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;

use uring_arena::{Backing, Driver, Event, FileId, FixedArena};

use crate::disk::plan::{Load, Places};

use super::{Reader, open_direct, whole};

pub struct OursDriver {
    driver: Driver,
    arena: FixedArena,
    file: FileId,
    load: Load,
    places: Places,
}

impl OursDriver {
    pub fn start(path: &Path, load: Load) -> io::Result<Self> {
        let (file, bytes) = open_direct(path)?;
        let nz = |number| NonZeroUsize::new(number).ok_or(io::ErrorKind::InvalidInput);
        let builder = FixedArena::with_slot_capacity(nz(load.buffers())?, nz(load.block_bytes)?);
        let builder = builder.alignment(4096).backing(Backing::TransparentHuge);
        let arena = builder.build().map_err(io::Error::other)?;
        let mut driver = Driver::builder().entries(256).build().map_err(io::Error::other)?;
        driver.register(&arena).map_err(io::Error::other)?;
        let file = driver.add_file(file).map_err(io::Error::other)?;
        Ok(Self { driver, arena, file, load, places: Places::new(bytes, load) })
    }

    fn push(&mut self, place: u64) -> io::Result<()> {
        let slot = self.arena.allocate().map_err(io::Error::other)?;
        let begun = self.driver.read(self.file, slot, place);
        begun.map(drop).map_err(|refused| io::Error::other(refused.error))
    }
}

impl Reader for OursDriver {
    fn read(&mut self, times: u64) -> io::Result<()> {
        self.places.allow(times);
        let mut in_flight = 0;
        while in_flight < self.load.depth
            && let Some(place) = self.places.next()
        {
            self.push(place)?;
            in_flight += 1;
        }
        while in_flight > 0 {
            self.driver.wait().map_err(io::Error::other)?;
            while let Some(event) = self.driver.next() {
                let Event::Read { result, buffer, .. } = event else { continue };
                whole(result?, self.load)?;
                drop(buffer.freeze());
                match self.places.next() {
                    Some(place) => self.push(place)?,
                    None => in_flight -= 1,
                }
            }
        }
        Ok(())
    }
}
