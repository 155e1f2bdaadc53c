//! Frames of mixed sizes, built in blocks of a buddy arena and sent over loopback.
//!
//! From a 40-byte acknowledgement to a 64 KiB frame: each takes the smallest block that holds it,
//! waits its turn in a queue, and frees the block once it is sent. The state of the arena is shown
//! as it runs.
//!
//! `cargo run --release --example buddy_sends`

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;

use bytes::BufMut;
use uring_arena::{AllocError, ArenaBytes, BuddyArena, BuddyGeometry};

const FRAMES: u32 = 40_000;
const HEADER_BYTES: usize = 8;
const BODY_BYTES_MAX: usize = (64 << 10) - HEADER_BYTES;
const QUEUE_FRAMES: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bytes = |n| NonZeroUsize::new(n).expect("a size is not zero");
    // `nearest`: a frame's buffer holds what was asked for, so that a wrong length cannot hide in a
    // larger block.
    let geometry = BuddyGeometry::nearest(bytes(8 << 20), bytes(256))?;
    let arena = BuddyArena::builder(geometry).build()?;

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let receiver = std::thread::spawn(move || receive(listener.accept()?.0));

    let mut socket = TcpStream::connect(address)?;
    let sent = send(&arena, &mut socket)?;
    drop(socket);
    let received = receiver.join().map_err(|_| "the receiver panicked")??;

    let metrics = arena.metrics();
    let is_whole = metrics.bytes_live == 0 && metrics.largest_free_block == arena.total_size();
    if received != sent || !is_whole {
        return Err(
            format!("sent {sent:?}, received {received:?}, arena whole again: {is_whole}").into()
        );
    }
    println!(
        "verified: {} frames, {} bytes, checksum {:016x}; the arena is whole again",
        sent.frames, sent.bytes, sent.checksum
    );
    Ok(())
}

/// What both sides must agree on, in whatever order the frames went.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    frames: u32,
    bytes: u64,
    checksum: u64,
}

impl Tally {
    fn add(&mut self, frame: &[u8]) {
        let hash = frame.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        self.frames += 1;
        self.bytes += frame.len() as u64;
        self.checksum = self.checksum.wrapping_add(hash);
    }
}

fn send(arena: &BuddyArena, socket: &mut TcpStream) -> Result<Tally, Box<dyn std::error::Error>> {
    let mut tally = Tally::default();
    let mut queue = VecDeque::new();
    let mut random = 1;
    for number in 0..FRAMES {
        let body = body_bytes(&mut random);
        let frame = loop {
            match build(arena, number, body) {
                Ok(frame) => break frame,
                // No block of this size now: sending older frames frees theirs.
                Err(AllocError::ArenaFull) => send_one(socket, &mut queue, 0)?,
                Err(error) => return Err(error.into()),
            }
        };
        tally.add(&frame);
        queue.push_back(frame);
        if queue.len() > QUEUE_FRAMES {
            // Not the oldest: blocks come home in another order than they went, which is what
            // fragments an arena.
            send_one(socket, &mut queue, (random >> 40) as usize % QUEUE_FRAMES)?;
        }
        if number % (FRAMES / 10) == 0 {
            show(arena, number);
        }
    }
    while !queue.is_empty() {
        send_one(socket, &mut queue, 0)?;
    }
    show(arena, FRAMES);
    Ok(tally)
}

fn build(arena: &BuddyArena, number: u32, body: usize) -> Result<ArenaBytes, AllocError> {
    let total = NonZeroUsize::new(HEADER_BYTES + body).expect("a header is not empty");
    let mut buffer = arena.allocate(total)?;
    buffer.put_u32(number);
    buffer.put_u32(body as u32);
    buffer.put_bytes(number as u8, body);
    Ok(buffer.freeze_in_place())
}

fn send_one(
    socket: &mut TcpStream,
    queue: &mut VecDeque<ArenaBytes>,
    position: usize,
) -> io::Result<()> {
    // The block is free again when the frame is dropped here.
    match queue.swap_remove_front(position) {
        Some(frame) => socket.write_all(&frame),
        None => Err(io::Error::other("the arena is full though nothing waits to be sent")),
    }
}

/// Mostly small, sometimes large: acknowledgements, messages, and frames of up to 64 KiB.
fn body_bytes(random: &mut u64) -> usize {
    *random =
        random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let roll = (*random >> 33) as usize;
    match roll % 10 {
        0..5 => 32,
        5..8 => 200 + roll % 4000,
        _ => 8192 + roll % (BODY_BYTES_MAX - 8191),
    }
}

fn show(arena: &BuddyArena, frames: u32) {
    let metrics = arena.metrics();
    let free = metrics.bytes_reserved - metrics.bytes_live;
    let room = arena.free_blocks(NonZeroUsize::new(64 << 10).expect("a size is not zero"));
    println!(
        "{frames:5} frames: {:4} KiB in use, largest free block {:4} KiB, room for {room:3} frames of 64 KiB ({:3} if nothing were fragmented)",
        metrics.bytes_live >> 10,
        metrics.largest_free_block >> 10,
        free / (64 << 10),
    );
}

fn receive(mut socket: TcpStream) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut memory = vec![0; HEADER_BYTES + BODY_BYTES_MAX];
    while socket.read(&mut memory[..1])? > 0 {
        socket.read_exact(&mut memory[1..HEADER_BYTES])?;
        let body = u32::from_be_bytes([memory[4], memory[5], memory[6], memory[7]]) as usize;
        let Some(frame) = memory.get_mut(..HEADER_BYTES + body) else {
            return Err(io::Error::other(format!("a frame says it has {body} bytes")));
        };
        socket.read_exact(&mut frame[HEADER_BYTES..])?;
        tally.add(frame);
    }
    Ok(tally)
}
