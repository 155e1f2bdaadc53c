//! Lists of operations on both arenas against a plain model: claims, frees, waits, writing, cutting,
//! freezing and thawing.
//!
//! Held after each operation: no two owners overlap, nobody finds bytes of another, a claim is served
//! exactly if a free aligned run exists (while nobody waits), nobody waits for what is free, and a
//! waiter is woken exactly when it is served. At the end everything is free.
#![no_main]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::BufMut;
use libfuzzer_sys::fuzz_target;
use uring_arena::{
    AllocError, ArenaBytes, AsyncBuddyArena, AsyncFixedArena, BuddyArena, BuddyGeometry, Buffer,
    FixedArena, InitPolicy,
};

const UNITS: usize = 32;
const UNIT_BYTES: usize = 64;

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn below(&mut self, limit: usize) -> Option<usize> {
        Some(usize::from(self.next()?) % limit.max(1))
    }
}

/// An arena of either kind.
enum Arena {
    Fixed(AsyncFixedArena),
    Buddy(AsyncBuddyArena),
}

type Claim<'a> = Pin<Box<dyn Future<Output = Result<Buffer, AllocError>> + 'a>>;

impl Arena {
    fn new(is_buddy: bool, spill: bool, zero: bool) -> Arena {
        let policy = if zero { InitPolicy::Zero } else { InitPolicy::Uninit };
        if is_buddy {
            let size = |bytes: usize| bytes.try_into().unwrap();
            let geometry = BuddyGeometry::exact(size(UNITS * UNIT_BYTES), size(UNIT_BYTES));
            let mut builder = BuddyArena::builder(geometry.unwrap()).init_policy(policy);
            if spill {
                builder = builder.auto_spill();
            }
            return Arena::Buddy(builder.build_async().unwrap());
        }
        let mut builder = FixedArena::with_sizes(UNITS, UNIT_BYTES).init_policy(policy);
        if spill {
            builder = builder.auto_spill();
        }
        Arena::Fixed(builder.build_async().unwrap())
    }

    /// Claims `1 << order` units; slots are of one.
    fn claim(&self, order: usize) -> Result<Buffer, AllocError> {
        match self {
            Arena::Fixed(arena) => arena.allocate(),
            Arena::Buddy(arena) => arena.allocate_bytes(UNIT_BYTES << order),
        }
    }

    fn wait(&self, order: usize) -> Claim<'_> {
        match self {
            Arena::Fixed(arena) => Box::pin(async { Ok(arena.allocate_async().await) }),
            Arena::Buddy(arena) => Box::pin(arena.allocate_bytes_async(UNIT_BYTES << order)),
        }
    }

    fn free_units(&self) -> usize {
        match self {
            Arena::Fixed(arena) => arena.slot_states().free,
            Arena::Buddy(arena) => arena.slot_states().free,
        }
    }

    /// Counts the blocks of an order that could be claimed.
    fn could_claim(&self, order: usize) -> bool {
        match self {
            Arena::Fixed(arena) => arena.slot_states().free > 0,
            Arena::Buddy(arena) => arena.free_blocks((UNIT_BYTES << order).try_into().unwrap()) > 0,
        }
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Waiting<'a> {
    claim: Claim<'a>,
    wakes: Arc<Wakes>,
    order: usize,
}

/// A buffer or its bytes, and what is written in them.
enum Owner {
    Buffer(Buffer, Vec<u8>),
    Bytes(ArenaBytes, Vec<u8>),
}

struct World<'a> {
    arena: &'a Arena,
    is_zero: bool,
    owners: Vec<Owner>,
    waiting: Vec<Waiting<'a>>,
    stamp: u8,
}

impl<'a> World<'a> {
    fn add(&mut self, mut buffer: Buffer) {
        if self.is_zero {
            let room = buffer.spare_capacity_mut();
            // SAFETY: the memory of a mapping is initialised.
            assert!(room.iter().all(|byte| unsafe { byte.assume_init() } == 0), "an old byte");
        }
        assert!(buffer.is_empty());
        self.owners.push(Owner::Buffer(buffer, Vec::new()));
    }

    fn claim(&mut self, order: usize) {
        let could = self.arena.could_claim(order);
        match self.arena.claim(order) {
            Ok(buffer) => {
                assert!(could);
                self.add(buffer);
            }
            Err(error) => assert!(!could && error == AllocError::ArenaFull),
        }
    }

    fn wait(&mut self, order: usize) {
        let (mut claim, wakes) = (self.arena.wait(order), Arc::<Wakes>::default());
        let waker = Waker::from(wakes.clone());
        match claim.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(buffer) => self.add(buffer.unwrap()),
            Poll::Pending => self.waiting.push(Waiting { claim, wakes, order }),
        }
    }

    fn poll(&mut self, which: usize) {
        let Waiting { claim, wakes, .. } = &mut self.waiting[which];
        let waker = Waker::from(wakes.clone());
        let polled = claim.as_mut().poll(&mut Context::from_waker(&waker));
        assert_eq!(polled.is_ready(), wakes.0.load(Ordering::SeqCst) == 1);
        if let Poll::Ready(buffer) = polled {
            self.waiting.remove(which);
            self.add(buffer.unwrap());
        }
    }

    fn write(&mut self, which: usize, count: usize) {
        self.stamp = self.stamp.wrapping_add(1);
        if let Owner::Buffer(buffer, content) = &mut self.owners[which]
            && buffer.will_fit(count)
        {
            buffer.put_bytes(self.stamp, count);
            content.extend(std::iter::repeat_n(self.stamp, count));
        }
    }

    /// Changes one owner by value.
    fn change(&mut self, which: usize, how: usize, at: usize) {
        let owner = self.owners.swap_remove(which);
        let changed = match (owner, how) {
            (Owner::Buffer(mut buffer, mut content), 0) => {
                let len = at % (content.len() + 1);
                buffer.truncate(len);
                content.truncate(len);
                Owner::Buffer(buffer, content)
            }
            (Owner::Buffer(mut buffer, content), 1) => {
                let _ = buffer.reserve_headroom(at);
                Owner::Buffer(buffer, content)
            }
            (Owner::Buffer(mut buffer, mut content), 2) => {
                let added = vec![0xEE; at % (buffer.headroom() + 1)];
                buffer.prepend(&added).unwrap();
                content.splice(..0, added);
                Owner::Buffer(buffer, content)
            }
            (Owner::Buffer(buffer, content), _) => Owner::Bytes(buffer.freeze_in_place(), content),
            (Owner::Bytes(bytes, content), 0) => {
                let at = at % (content.len() + 1);
                Owner::Bytes(bytes.slice(at..), content[at..].to_vec())
            }
            (Owner::Bytes(mut bytes, mut content), 1) => {
                let rest = content.split_off(at % (content.len() + 1));
                let behind = bytes.split_off(content.len());
                self.owners.push(Owner::Bytes(behind, rest));
                Owner::Bytes(bytes, content)
            }
            (Owner::Bytes(bytes, content), 2) => {
                self.owners.push(Owner::Bytes(bytes.clone(), content.clone()));
                Owner::Bytes(bytes, content)
            }
            (Owner::Bytes(bytes, content), _) => match bytes.try_into_buffer() {
                Ok(buffer) => Owner::Buffer(buffer, content),
                Err(bytes) => Owner::Bytes(bytes, content),
            },
        };
        self.owners.push(changed);
    }

    fn check(&self) {
        for owner in &self.owners {
            match owner {
                Owner::Buffer(buffer, content) => assert_eq!(buffer[..], content[..]),
                Owner::Bytes(bytes, content) => assert_eq!(bytes[..], content[..]),
            }
        }
        for waiting in &self.waiting {
            let wakes = waiting.wakes.0.load(Ordering::SeqCst);
            assert!(wakes <= 1, "woken for nothing");
            assert!(wakes == 1 || !self.arena.could_claim(waiting.order), "waits for what is free");
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let Some(kind) = input.next() else { return };
    let arena = Arena::new(kind & 1 != 0, kind & 2 != 0, kind & 4 != 0);
    let mut world = World {
        arena: &arena,
        is_zero: kind & 4 != 0,
        owners: Vec::new(),
        waiting: Vec::new(),
        stamp: 0,
    };
    while let Some(action) = input.next() {
        let owners = world.owners.len();
        let Some(which) = input.below(owners) else { break };
        match action % 8 {
            0 | 1 => world.claim(which % 6),
            2 if world.waiting.len() < 64 => world.wait(which % 6),
            3 if !world.waiting.is_empty() => world.poll(which % world.waiting.len()),
            4 if !world.waiting.is_empty() => {
                drop(world.waiting.remove(which % world.waiting.len()));
            }
            5 if owners > 0 => drop(world.owners.swap_remove(which)),
            6 if owners > 0 => {
                let Some(count) = input.below(200) else { break };
                world.write(which, count);
            }
            7 if owners > 0 => {
                let (Some(how), Some(at)) = (input.below(4), input.below(256)) else { break };
                world.change(which, how, at);
            }
            _ => {}
        }
        world.check();
    }
    drop(world);
    assert_eq!(arena.free_units(), UNITS, "lost");
    if let Arena::Buddy(arena) = &arena {
        assert_eq!(arena.metrics().largest_free_block, UNITS * UNIT_BYTES);
    }
});
