//! Reads on monoio, of a file and of a socket, straight into the slots of an arena.
//!
//! The parts of the file are sent through a socket from the slots that they were read into.
//! Another thread compares them, and its drops free the slots.
//!
//! ```text
//! cargo run --release --features monoio --example monoio_read
//! ```

mod support;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use monoio::fs::File;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::UnixStream;
use support::{UnnamedFile, check_all_free, exact_bytes, mistake, nonzero, say};
use uring_arena::monoio::{block_on, lend};
use uring_arena::{Buffer, FixedArena};

const HELP: &str = "\
Reads a file of 300,000 bytes and a socket on monoio into the slots of an arena, and compares the
bytes on another thread. Takes no options.";

const FILE_BYTES: usize = 300_000;

fn main() -> ExitCode {
    support::run(|| support::no_options(HELP), |()| run())
}

fn run() -> Result<(), Box<dyn Error>> {
    support::need_descriptors(32)?;
    let arena =
        FixedArena::with_slot_capacity(nonzero(32)?, nonzero(16 << 10)?).alignment(4096).build()?;
    let expected = support::file_content(FILE_BYTES);
    let made = UnnamedFile::temporary(&expected)?;

    // The checker's drops free the slots, on another thread than the reads.
    let (parts, incoming) = std::sync::mpsc::channel::<Bytes>();
    let checker = std::thread::spawn(move || {
        let received: Vec<u8> = incoming.into_iter().flatten().collect();
        let is_right = received == [expected.clone(), expected].concat();
        is_right.then_some(received.len())
    });

    let mut runtime =
        monoio::RuntimeBuilder::<monoio::FusionDriver>::new().enable_timer().build()?;
    block_on(&mut runtime, async {
        let file = File::open(made.path()).await?;
        let (mut near, mut far) = UnixStream::pair()?;

        // Each part of the file goes to the checker and, from the same slot, to the socket.
        let copying = monoio::spawn({
            let (arena, parts) = (arena.clone(), parts.clone());
            async move {
                let mut offset = 0;
                loop {
                    let buffer = claim(&arena).await;
                    let (result, loan) = file.read_at(lend(buffer), offset).await;
                    let read = result?;
                    if read == 0 {
                        return Ok::<_, std::io::Error>(parts);
                    }
                    offset += read as u64;
                    let bytes = loan.freeze();
                    far.write_all(lend(bytes.clone())).await.0?;
                    parts.send(bytes).expect("the checker is running");
                }
            }
        });

        // The bytes of the socket are kept here until the checker has the whole file.
        let mut through_socket = Vec::new();
        loop {
            let (result, loan) = near.read(lend(claim(&arena).await)).await;
            if result? == 0 {
                break;
            }
            through_socket.push(Bytes::copy_from_slice(&loan));
        }
        let parts = copying.await?;
        for part in through_socket {
            parts.send(part)?;
        }
        Ok::<(), Box<dyn Error>>(())
    })?;
    drop(parts);

    let checked = checker.join().map_err(|_| mistake("the checker panicked"))?;
    let checked = checked.ok_or_else(|| mistake("read other bytes than the file, twice"))?;
    check_all_free(&arena, 0)?;
    say!("verified {} on another thread; every slot is free again", exact_bytes(checked as u64));
    Ok(())
}

/// Claims a slot as soon as one is free. While none is, the checker has them all.
async fn claim(arena: &FixedArena) -> Buffer {
    loop {
        match arena.allocate() {
            Ok(buffer) => return buffer,
            Err(_) => monoio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}
