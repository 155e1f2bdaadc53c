//! Ours: the safe driver; every message is handed out and dropped.

use std::net::TcpStream;
use std::num::NonZeroUsize;

use uring_arena::{BufferRing, Driver, Event, FixedArena};

use crate::{SLOT_BYTES, SLOTS, System};

/// How the messages are handed out.
#[derive(Clone, Copy)]
pub enum Shape {
    Bytes,
    InPlace,
}

pub struct Driven {
    driver: Driver,
    shape: Shape,
}

impl Driven {
    pub fn new(shape: Shape, sockets: Vec<TcpStream>) -> Driven {
        let nz = |n| NonZeroUsize::new(n).expect("a size");
        let arena = FixedArena::with_slot_capacity(nz(SLOTS), nz(SLOT_BYTES)).build().expect("an arena");
        let mut driver = Driver::builder().build().expect("a driver");
        let ring = driver.buffer_ring(&arena, BufferRing::options().entries(SLOTS)).expect("a ring");
        for socket in sockets {
            driver.receive(ring, socket).expect("room in the table");
        }
        Driven { driver, shape }
    }
}

impl System for Driven {
    fn name(&self) -> &'static str {
        match self.shape {
            Shape::Bytes => "driver, Bytes",
            Shape::InPlace => "driver, ArenaBytes",
        }
    }

    fn drain(&mut self, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            self.driver.wait().expect("waits");
            match self.shape {
                Shape::Bytes => {
                    while let Some(event) = self.driver.next() {
                        let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
                        left -= bytes.len();
                    }
                }
                Shape::InPlace => {
                    while let Some(event) = self.driver.next_in_place() {
                        let Event::Received { bytes, .. } = event else { panic!("a socket closed") };
                        left -= bytes.len();
                    }
                }
            }
        }
    }
}
