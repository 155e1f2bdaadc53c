//! Our driver: a slot per read, frozen to `Bytes` and dropped; no unsafe code in the program.

use std::io;
use std::path::Path;

use uring_arena::{Driver, Event, FileId, FixedArena};

use crate::disk::load::{Load, Places, Reader, open_direct};

use super::ours::arena;

struct OursDriver {
    driver: Driver,
    arena: FixedArena,
    file: FileId,
    load: Load,
    places: Places,
}

pub fn start(path: &Path, load: Load) -> io::Result<Box<dyn Reader>> {
    let (file, bytes) = open_direct(path)?;
    let arena = arena(load)?;
    let mut driver = Driver::builder().entries(256).build().map_err(io::Error::other)?;
    driver.register(&arena).map_err(io::Error::other)?;
    let file = driver.add_file(file).map_err(io::Error::other)?;
    Ok(Box::new(OursDriver { driver, arena, file, load, places: Places::new(bytes, load) }))
}

impl OursDriver {
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
                self.load.whole(result?)?;
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
