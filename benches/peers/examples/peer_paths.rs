//! The peers' core paths, for `scripts/atomics target/release/examples/peer_paths` to count.
//!
//! The same work as in `benches/instructions`, which counts ours.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Mutex;

use arena_alligator::{BuddyArena, BuddyGeometry, FixedArena};
use bytes::{BufMut, Bytes, BytesMut};
use crossbeam_queue::ArrayQueue;

const TIMES: usize = 1000;
const PAYLOAD: [u8; 64] = [7; 64];

fn nz(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("sizes here are above zero")
}

fn main() {
    let fixed = FixedArena::with_slot_capacity(nz(1024), nz(4096)).alignment(4096).build();
    let fixed = fixed.expect("the peer's arena builds");
    let geometry = BuddyGeometry::exact(nz(64 << 20), nz(256)).expect("powers of two");
    let buddy = BuddyArena::builder(geometry).build().expect("the peer's arena builds");
    let queue = ArrayQueue::new(1024);
    (0..1024_u32).for_each(|index| queue.push(index).expect("room for all"));
    let list = Mutex::new((0..1024_u32).collect());
    for _ in 0..2 {
        path_alligator_claim_drop(&fixed);
        path_alligator_put_freeze_bytes(&fixed);
        path_alligator_buddy_4096(&buddy);
        path_bytes_mut_put_freeze();
        path_bare_from_owner();
        path_queue_take_put_back(&queue);
        path_list_take_put_back(&list);
    }
}

macro_rules! paths {
    ($($name:ident($($argument:ident: $type:ty)?) $path:block)*) => {$(
        #[inline(never)]
        fn $name($($argument: &$type)?) {
            for _ in 0..TIMES $path
        }
    )*};
}

paths! {
    path_alligator_claim_drop(arena: FixedArena) {
        drop(black_box(arena.allocate()));
    }

    path_alligator_put_freeze_bytes(arena: FixedArena) {
        let mut buffer = arena.allocate().expect("a free slot");
        buffer.put_slice(black_box(&PAYLOAD));
        drop(black_box(buffer.freeze()));
    }

    path_alligator_buddy_4096(arena: BuddyArena) {
        drop(black_box(arena.allocate(nz(4096))));
    }

    path_bytes_mut_put_freeze() {
        let mut buffer = BytesMut::with_capacity(4096);
        buffer.put_slice(black_box(&PAYLOAD));
        drop(black_box(buffer.freeze()));
    }

    path_bare_from_owner() {
        drop(black_box(Bytes::from_owner(black_box(&PAYLOAD))));
    }

    path_queue_take_put_back(queue: ArrayQueue<u32>) {
        let index = black_box(queue.pop()).expect("never empty");
        queue.push(index).expect("never full");
    }

    path_list_take_put_back(list: Mutex<Vec<u32>>) {
        let index = black_box(list.lock().expect("not poisoned").pop()).expect("never empty");
        list.lock().expect("not poisoned").push(index);
    }
}
