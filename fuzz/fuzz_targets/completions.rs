//! Forged, reordered and repeated completions, given to a buffer ring and to operations.
//!
//! The kernel receives nothing: each completion is made up. So whatever the library makes of them,
//! nothing writes behind its back. Held after each: nothing panics, bytes handed out lie in slots,
//! every slot is free, the ring's, an operation's or held, and at the end all are free.
#![no_main]

use std::sync::OnceLock;

use bytes::BufMut;
use io_uring::{IoUring, cqueue};
use libfuzzer_sys::fuzz_target;
use uring_arena::{
    ArenaBytes, BufferRing, FixedArena, InitPolicy, Operation, Payload, Progress, RegisterOptions,
    RegisteredArena, RegistrationMode,
};

const SLOTS: usize = 16;
const SLOT_BYTES: usize = 128;

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// Makes a result: lengths around those of slots, errors, and numbers without sense.
    fn result(&mut self) -> Option<i32> {
        let value = i32::from(self.next()?);
        Some(match self.next()? % 6 {
            0 => -value,
            1 => value,
            2 => value * 16,
            3 => [-105, -125, -104, -4, -11, 0][value as usize % 6],
            4 => i32::MAX - value,
            _ => i32::MIN + value,
        })
    }
}

fn completion(user_data: u64, result: i32, flags: u32) -> cqueue::Entry {
    let words = [user_data, u64::from(result as u32) | u64::from(flags) << 32];
    // SAFETY: an entry is the kernel's struct of 16 bytes: user data, result, flags.
    unsafe { std::mem::transmute::<[u64; 2], cqueue::Entry>(words) }
}

fn ring() -> Option<&'static IoUring> {
    static RING: OnceLock<Option<IoUring>> = OnceLock::new();
    RING.get_or_init(|| IoUring::new(8).ok()).as_ref()
}

fn held_is_sane(bytes: &ArenaBytes, arena: &FixedArena) {
    assert!(bytes.len() <= SLOT_BYTES);
    // Reads each byte, for the address sanitizer.
    std::hint::black_box(bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>());
    assert!(bytes.slot_index().is_none() || bytes.is_empty() || arena.locate(bytes).is_some());
}

fuzz_target!(|data: &[u8]| {
    let Some(uring) = ring() else { return };
    let mut input = Input(data);
    let Some(kind) = input.next() else { return };
    let mut builder = FixedArena::with_sizes(SLOTS, SLOT_BYTES);
    if kind & 1 != 0 {
        builder = builder.init_policy(InitPolicy::Zero);
    }
    let arena = builder.build().unwrap();
    let options = BufferRing::options()
        .entries(8)
        .group(7)
        .incremental(kind & 2 != 0)
        .bundles(kind & 4 != 0)
        .copy_below(usize::from(kind >> 4));
    // SAFETY: nothing receives into the group.
    let Ok(mut buffers) = (unsafe { BufferRing::register(uring, &arena, options) }) else { return };
    let options = RegisterOptions::from(RegistrationMode::Unregistered);
    // SAFETY: nothing is submitted.
    let registered = unsafe { RegisteredArena::register(uring, &arena, options) }.unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let mut held: Vec<ArenaBytes> = Vec::new();
    let mut operations: Vec<Operation<Payload>> = Vec::new();
    while let Some(action) = input.next() {
        match action % 8 {
            0 | 1 | 2 => {
                let (Some(result), Some(flags), Some(id)) =
                    (input.result(), input.next(), input.next())
                else {
                    break;
                };
                let flags = u32::from(flags & 0x1F) | u32::from(id % 24) << 16;
                let entry = completion(u64::from(action), result, flags);
                if action % 8 == 2 {
                    // SAFETY: nothing writes to the slots, which are initialised.
                    let received = unsafe { buffers.complete_datagram::<ArenaBytes>(&entry) };
                    held.extend(received.into_iter().map(|datagram| datagram.bytes));
                } else {
                    // SAFETY: as above.
                    let received = unsafe { buffers.complete::<ArenaBytes>(&entry) };
                    held.extend(received);
                }
            }
            3 => _ = buffers.refill(),
            // SAFETY: the ring is the one that it was registered on.
            4 => _ = unsafe { buffers.reconcile(uring) },
            5 if !held.is_empty() => {
                let which = usize::from(input.next().unwrap_or(0)) % held.len();
                drop(held.swap_remove(which));
            }
            6 if operations.len() < 6 => {
                let Ok(mut buffer) = arena.allocate() else { continue };
                buffer.put_bytes(7, usize::from(action) % SLOT_BYTES);
                let (_, operation) = if action & 8 != 0 {
                    registered.read(&file, buffer, 0)
                } else {
                    registered.write(&file, buffer, 0)
                };
                operations.push(operation.into_any());
            }
            7 if !operations.is_empty() => {
                let (Some(which), Some(result), Some(flags)) =
                    (input.next(), input.result(), input.next())
                else {
                    break;
                };
                let operation = operations.swap_remove(usize::from(which) % operations.len());
                // SAFETY: nothing was submitted, so nothing uses the memory.
                match unsafe { operation.complete_with(result, u32::from(flags & 0x1F)) } {
                    Progress::Done { buffer, .. } => drop(buffer),
                    Progress::More(operation) => operations.push(operation),
                }
            }
            _ => {}
        }
        held.iter().for_each(|bytes| held_is_sane(bytes, &arena));
        let states = arena.slot_states();
        assert_eq!((states.total(), states.quarantined), (SLOTS, 0));
        assert!(held.len() < 4096);
    }
    for operation in operations {
        // SAFETY: never submitted.
        drop(unsafe { operation.not_submitted() });
    }
    drop(held);
    // SAFETY: nothing receives into the ring.
    unsafe { buffers.unregister(uring) }.unwrap();
    drop(buffers);
    assert_eq!(arena.slot_states().free, SLOTS, "a slot is lost");
});
