//! Reading a file and a socket on monoio straight into an arena, and checking the bytes on another
//! thread.
//!
//! `cargo run --example monoio_read --features monoio`

use std::error::Error;
use std::num::NonZeroUsize;

use bytes::Bytes;
use monoio::fs::File;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::UnixStream;
use uring_arena::FixedArena;
use uring_arena::monoio::{block_on, lend};

fn main() -> Result<(), Box<dyn Error>> {
    let (slots, bytes) = (NonZeroUsize::new(32).unwrap(), NonZeroUsize::new(16 << 10).unwrap());
    let arena = FixedArena::with_slot_capacity(slots, bytes).alignment(4096).build()?;
    let expected: Vec<u8> = (0..300_000usize).map(|at| (at * 31 + at / 251) as u8).collect();
    let path = std::env::temp_dir().join(format!("uring-arena-monoio-{}", std::process::id()));
    std::fs::write(&path, &expected)?;

    // Each part is checked, and its slot freed, on another thread than the one that read it.
    let (parts, incoming) = std::sync::mpsc::channel::<Bytes>();
    let checker = std::thread::spawn(move || {
        let received: Vec<u8> = incoming.into_iter().flatten().collect();
        assert!(received == [expected.clone(), expected].concat(), "the file, then the file again");
        received.len()
    });

    let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().build()?;
    block_on(&mut runtime, async {
        let file = File::open(&path).await?;
        let (mut near, mut far) = UnixStream::pair()?;

        // The file goes to the checker, and to a socket from the same slots.
        let copying = monoio::spawn({
            let (arena, parts) = (arena.clone(), parts.clone());
            async move {
                let mut offset = 0;
                loop {
                    let Ok(buffer) = arena.allocate() else {
                        std::thread::yield_now(); // the checker has them all
                        continue;
                    };
                    let (result, loan) = file.read_at(lend(buffer), offset).await;
                    let read = result?;
                    if read == 0 {
                        return Ok::<_, std::io::Error>(parts);
                    }
                    offset += read as u64;
                    let bytes = loan.freeze();
                    far.write_all(lend(bytes.clone())).await.0?;
                    parts.send(bytes).expect("the checker is listening");
                }
            }
        });

        // What comes through the socket waits here until the file itself is done.
        let mut through_socket = Vec::new();
        loop {
            let mut part = Vec::with_capacity(300_000);
            let Ok(buffer) = arena.allocate() else {
                std::thread::yield_now();
                continue;
            };
            let (result, loan) = near.read(lend(buffer)).await;
            if result? == 0 {
                break;
            }
            part.extend_from_slice(&loan);
            through_socket.push(Bytes::from(part));
        }
        let parts = copying.await?;
        for part in through_socket {
            parts.send(part)?;
        }
        Ok::<(), Box<dyn Error>>(())
    })?;
    drop(parts);

    let checked = checker.join().expect("the bytes are right");
    std::fs::remove_file(&path)?;
    let metrics = arena.metrics();
    assert_eq!((metrics.bytes_live, metrics.quarantined), (0, 0));
    println!("{checked} bytes read and checked on another thread; every slot came back");
    Ok(())
}
