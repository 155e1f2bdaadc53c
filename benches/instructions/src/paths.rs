//! The paths: each in a function of its own that is never inlined, so that callgrind sees it.

use std::hint::black_box;
use std::io::Write;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;

use bytes::BufMut;
use uring_arena::{
    BuddyArena, BuddyGeometry, Buffer, BufferRing, Driver, Event, FixedArena, PageSize,
};

/// The number of times that one call goes through its path.
pub const TIMES: usize = 1000;

const SLOTS: usize = 1024;
const PAYLOAD: [u8; 64] = [7; 64];

fn nz(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("sizes here are above zero")
}

pub fn fixed() -> FixedArena {
    FixedArena::with_slot_capacity(nz(SLOTS), nz(4096))
        .alignment(4096)
        .build()
        .expect("the arena builds")
}

/// Makes an arena with no slot left, and its slots.
pub fn full() -> (FixedArena, Vec<Buffer>) {
    let arena = fixed();
    let held = (0..SLOTS).map(|_| arena.allocate().expect("a free slot")).collect();
    (arena, held)
}

/// Makes an arena with 24 free slots, scattered.
pub fn nearly_full() -> (FixedArena, Vec<Buffer>) {
    let (arena, mut held) = full();
    (0..24).for_each(|index| drop(held.swap_remove(index * 40)));
    (arena, held)
}

pub fn buddy() -> BuddyArena {
    let geometry = BuddyGeometry::exact(nz(64 << 20), nz(256)).expect("powers of two");
    BuddyArena::builder(geometry).page_size(PageSize::Unknown).build().expect("the arena builds")
}

fn written(arena: &FixedArena) -> Buffer {
    let mut buffer = arena.allocate().expect("a free slot");
    buffer.put_slice(black_box(&PAYLOAD));
    buffer
}

macro_rules! paths {
    ($($name:ident($arena:ident: $type:ty) $path:block)*) => {$(
        #[inline(never)]
        pub fn $name($arena: &$type) {
            for _ in 0..TIMES $path
        }
    )*};
}

paths! {
    path_claim_drop(arena: FixedArena) {
        drop(black_box(arena.allocate()));
    }

    path_put_bytes_drop(arena: FixedArena) {
        drop(black_box(written(arena)));
    }

    path_put_freeze_bytes(arena: FixedArena) {
        drop(black_box(written(arena).freeze()));
    }

    path_put_freeze_in_place(arena: FixedArena) {
        drop(black_box(written(arena).freeze_in_place()));
    }

    path_64_put_u32(arena: FixedArena) {
        let mut buffer = arena.allocate().expect("a free slot");
        for number in 0..64 {
            buffer.put_u32(black_box(number));
        }
        drop(black_box(buffer));
    }

    path_claim_refused(arena: FixedArena) {
        assert!(black_box(arena.allocate()).is_err());
    }

    // Not the words of `path_claim_drop`: the compiler would make one function of the two.
    path_claim_nearly_full(arena: FixedArena) {
        drop(black_box(arena.allocate().ok()));
    }

    path_buddy_256(arena: BuddyArena) {
        drop(black_box(arena.allocate(nz(256))));
    }

    path_buddy_4096(arena: BuddyArena) {
        drop(black_box(arena.allocate(nz(4096))));
    }

    path_buddy_65536(arena: BuddyArena) {
        drop(black_box(arena.allocate(nz(65536))));
    }
}

/// Makes an arena that records some claims, or all.
#[cfg(feature = "holders")]
pub fn tracked(track: uring_arena::TrackHolders) -> FixedArena {
    let builder = FixedArena::with_slot_capacity(nz(SLOTS), nz(4096)).alignment(4096);
    builder.track_holders(track).build().expect("the arena builds")
}

#[cfg(feature = "holders")]
#[inline(never)]
pub fn path_claim_drop_sampled(arena: &FixedArena) {
    for _ in 0..TIMES {
        drop(black_box(arena.allocate()));
    }
}

#[cfg(feature = "holders")]
#[inline(never)]
pub fn path_claim_drop_all(arena: &FixedArena) {
    for _ in 0..TIMES {
        drop(black_box(arena.allocate().ok()));
    }
}

#[inline(never)]
pub fn path_clone_drop_in_place(arena: &FixedArena) {
    let bytes = written(arena).freeze_in_place();
    for _ in 0..TIMES {
        drop(black_box(bytes.clone()));
    }
}

#[inline(never)]
pub fn path_slice_drop_in_place(arena: &FixedArena) {
    let bytes = written(arena).freeze_in_place();
    for _ in 0..TIMES {
        drop(black_box(bytes.slice(8..16)));
    }
}

#[inline(never)]
pub fn path_locate(arena: &FixedArena) {
    let bytes = written(arena).freeze();
    for _ in 0..TIMES {
        black_box(arena.locate(black_box(&bytes)));
    }
}

/// Claims and frees `TIMES` slots, 32 at a time: counted per slot.
#[inline(never)]
pub fn path_claim_32_drop_32(arena: &FixedArena) {
    let mut batch = Vec::with_capacity(32);
    for _ in 0..TIMES / 32 {
        arena.allocate_many(32, |buffer| batch.push(buffer));
        batch.clear();
    }
}

/// Receives messages of 512 B through the driver, one at a time, from the wait to the dropped
/// `Bytes`. Says so if there is no io_uring here.
pub fn receive() {
    let (mut sender, receiver) = UnixStream::pair().expect("a pair of sockets");
    let arena = fixed();
    let armed = Driver::builder().build().ok().and_then(|mut driver| {
        let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(64)).ok()?;
        driver.receive(ring, receiver).ok()?;
        Some(driver)
    });
    let Some(mut driver) = armed else {
        eprintln!("left out: path_receive_message: no io_uring here");
        return;
    };
    // Each message is a call of its own, and a dump; the last ones are warm.
    for _ in 0..8 {
        sender.write_all(&[7; 512]).expect("room in the socket");
        path_receive_message(&mut driver);
    }
}

/// Receives one message: counted per call.
#[inline(never)]
pub fn path_receive_message(driver: &mut Driver) {
    loop {
        driver.wait().expect("the ring works");
        while let Some(event) = driver.next() {
            if let Event::Received { bytes, .. } = event {
                return drop(black_box(bytes));
            }
        }
    }
}
