//! The core paths, for callgrind to count their instructions.
//!
//! `scripts/instructions` runs this program. callgrind writes one dump for each call of a function
//! whose name begins with `path_`. Each function is called twice, warm the second time: the script
//! reads the second dump.

mod paths;

use std::hint::black_box;

fn main() {
    let fixed = paths::fixed();
    let full = paths::full();
    let held = paths::nearly_full();
    let buddy = paths::buddy();
    for _ in 0..2 {
        paths::path_claim_drop(&fixed);
        paths::path_put_bytes_drop(&fixed);
        paths::path_put_freeze_bytes(&fixed);
        paths::path_put_freeze_in_place(&fixed);
        paths::path_64_put_u32(&fixed);
        paths::path_clone_drop_in_place(&fixed);
        paths::path_slice_drop_in_place(&fixed);
        paths::path_locate(&fixed);
        paths::path_claim_32_drop_32(&fixed);
        paths::path_claim_refused(&full.0);
        paths::path_claim_nearly_full(&held.0);
        paths::path_buddy_256(&buddy);
        paths::path_buddy_4096(&buddy);
        paths::path_buddy_65536(&buddy);
    }
    #[cfg(feature = "holders")]
    {
        let sampled = paths::tracked(uring_arena::TrackHolders::Sampled(64));
        let all = paths::tracked(uring_arena::TrackHolders::All);
        for _ in 0..2 {
            paths::path_claim_drop_sampled(&sampled);
            paths::path_claim_drop_all(&all);
        }
    }
    black_box((full, held));
    paths::receive();
}
