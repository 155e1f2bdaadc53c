//! The safe driver: a slot for each read, frozen to `Bytes`, dropped.

use std::io;

use uring_arena::{Driver, Event, FileId, FixedArena};

use crate::System;
use crate::plan::{BLOCK_BYTES, DEPTH, Places, TestFile, whole};

pub struct Driven {
    driver: Driver,
    arena: FixedArena,
    file: FileId,
}

impl Driven {
    pub fn start(test_file: &TestFile) -> io::Result<Driven> {
        let mut driver = Driver::builder().build().map_err(io::Error::other)?;
        let arena = FixedArena::with_slot_capacity(
            DEPTH.try_into().map_err(io::Error::other)?,
            BLOCK_BYTES.try_into().map_err(io::Error::other)?,
        );
        let arena = arena.alignment(4096).build().map_err(io::Error::other)?;
        driver.register(&arena).map_err(io::Error::other)?;
        let file = driver.file(test_file.open()?).map_err(io::Error::other)?;
        Ok(Driven { driver, arena, file })
    }

    fn push(&mut self, place: u64) -> io::Result<()> {
        let buffer = self.arena.allocate().map_err(io::Error::other)?;
        self.driver
            .read(self.file, buffer, place)
            .map(drop)
            .map_err(|refused| io::Error::other(refused.error))
    }
}

impl System for Driven {
    fn name(&self) -> &'static str {
        "driver, Bytes out"
    }

    fn read(&mut self, places: &mut Places) -> io::Result<()> {
        let mut in_flight = 0;
        while in_flight < DEPTH
            && let Some(place) = places.next()
        {
            self.push(place)?;
            in_flight += 1;
        }
        while in_flight > 0 {
            self.driver.wait().map_err(io::Error::other)?;
            while let Some(event) = self.driver.next() {
                let Event::Read { result, buffer, .. } = event else { continue };
                whole(result)?;
                drop(std::hint::black_box(buffer.freeze()));
                match places.next() {
                    Some(place) => self.push(place)?,
                    None => in_flight -= 1,
                }
            }
        }
        Ok(())
    }
}
