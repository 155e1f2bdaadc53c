//! A sender of frames of mixed sizes, which are built in the blocks of a buddy arena.
//!
//! Frames range from a 40-byte acknowledgement to 64 KiB. Each frame takes the smallest block that
//! holds it, waits in a queue, is sent over loopback, and then frees its block. The example prints
//! the state of the arena as it runs.
//!
//! ```text
//! cargo run --release --example buddy_sends
//! ```

mod support;

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::process::ExitCode;

use bytes::BufMut;
use support::{exact_bytes, mistake, nonzero, say};
use uring_arena::{AllocError, ArenaBytes, BuddyArena, BuddyGeometry};

const HELP: &str = "\
Builds 40,000 frames of mixed sizes in the blocks of a buddy arena, sends them over loopback, and
compares what arrives. Prints the state of the arena on the way. Takes no options.";

const FRAMES: u32 = 40_000;
const HEADER_BYTES: usize = 8;
const FRAME_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES;
const QUEUE_FRAMES: usize = 200;

fn main() -> ExitCode {
    support::run(|| support::no_options(HELP), |()| run())
}

fn run() -> Result<(), Box<dyn Error>> {
    // With `nearest`, the capacity of a buffer is the length that was asked for. So a frame that is
    // too long does not fit, even if its block is larger.
    let geometry = BuddyGeometry::nearest(nonzero(8 << 20)?, nonzero(256)?)?;
    let arena = BuddyArena::builder(geometry).build()?;

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let receiver = std::thread::spawn(move || receive(listener.accept()?.0));

    let mut socket = TcpStream::connect(address)?;
    let sent = send(&arena, &mut socket)?;
    drop(socket);
    let received = receiver.join().map_err(|_| mistake("the receiver panicked"))??;

    if received != sent {
        return Err(mistake(format!("sent {sent}, but received {received}")));
    }
    let metrics = arena.metrics();
    if metrics.bytes_live != 0 || metrics.largest_free_block != arena.total_size() {
        return Err(mistake(format!(
            "{} bytes still in use, the largest free block has {} of {} bytes",
            metrics.bytes_live,
            metrics.largest_free_block,
            arena.total_size()
        )));
    }
    say!("verified {sent}; the arena is one free block again");
    Ok(())
}

/// A sum over frames that does not depend on their order.
#[derive(Default, PartialEq, Eq)]
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

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames, {}, checksum {:016x}",
            self.frames,
            exact_bytes(self.bytes),
            self.checksum
        )
    }
}

fn send(arena: &BuddyArena, socket: &mut TcpStream) -> Result<Tally, Box<dyn Error>> {
    let mut tally = Tally::default();
    let mut queue = VecDeque::new();
    let mut random = 1;
    for number in 0..FRAMES {
        let body = body_bytes(&mut random);
        let frame = loop {
            match build(arena, number, body) {
                Ok(frame) => break frame,
                // No block of this size is free: sending the oldest frame frees its block.
                Err(AllocError::ArenaFull) => send_one(socket, &mut queue, 0)?,
                Err(error) => return Err(error.into()),
            }
        };
        tally.add(&frame);
        queue.push_back(frame);
        if queue.len() > QUEUE_FRAMES {
            // A random frame: blocks that are freed out of order are what fragments an arena.
            send_one(socket, &mut queue, (random >> 40) as usize % QUEUE_FRAMES)?;
        }
        if number % (FRAMES / 10) == 0 {
            print_state(arena, number);
        }
    }
    while !queue.is_empty() {
        send_one(socket, &mut queue, 0)?;
    }
    print_state(arena, FRAMES);
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

/// Sends the frame at `position` of the queue, and frees its block.
fn send_one(
    socket: &mut TcpStream,
    queue: &mut VecDeque<ArenaBytes>,
    position: usize,
) -> io::Result<()> {
    match queue.swap_remove_front(position) {
        Some(frame) => socket.write_all(&frame),
        None => Err(io::Error::other("the arena is full although no frame waits to be sent")),
    }
}

/// Draws the length of a frame's body: half are acknowledgements, a fifth are up to 64 KiB.
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

fn print_state(arena: &BuddyArena, frames: u32) {
    let metrics = arena.metrics();
    let free = metrics.bytes_reserved - metrics.bytes_live;
    let room = arena.free_blocks(NonZeroUsize::new(FRAME_BYTES_MAX).expect("not zero"));
    say!(
        "{frames:5} frames: {:4} KiB in use, largest free block {:4} KiB, room for {room:3} frames of 64 KiB ({:3} without fragmentation)",
        metrics.bytes_live >> 10,
        metrics.largest_free_block >> 10,
        free / FRAME_BYTES_MAX,
    );
}

fn receive(mut socket: TcpStream) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut memory = vec![0; FRAME_BYTES_MAX];
    while socket.read(&mut memory[..1])? > 0 {
        socket.read_exact(&mut memory[1..HEADER_BYTES])?;
        let body = u32::from_be_bytes([memory[4], memory[5], memory[6], memory[7]]) as usize;
        let Some(frame) = memory.get_mut(..HEADER_BYTES + body) else {
            return Err(io::Error::other(format!("the header says {body} bytes of body")));
        };
        socket.read_exact(&mut frame[HEADER_BYTES..])?;
        tally.add(frame);
    }
    Ok(tally)
}
