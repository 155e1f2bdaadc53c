//! Our memory on tokio-uring: its runtime and tasks, a new slot per read, frozen to `Bytes` and
//! dropped.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::rc::Rc;

use tokio_uring::fs::File;
use tokio_uring::{Runtime, builder};
use uring_arena::{Backing, FixedArena, tokio_uring::Registered};

use crate::disk::plan::{Load, Places};

use super::{Reader, open_direct, whole};

pub struct OursTokioUring {
    runtime: Runtime,
    shared: Rc<Shared>,
    load: Load,
}

struct Shared {
    arena: FixedArena,
    registered: Registered,
    file: Rc<File>,
    places: Places,
}

impl OursTokioUring {
    pub fn start(path: &Path, load: Load) -> io::Result<Self> {
        let (file, bytes) = open_direct(path)?;
        let nz = |number| NonZeroUsize::new(number).ok_or(io::ErrorKind::InvalidInput);
        let builder_of_arena =
            FixedArena::with_slot_capacity(nz(load.buffers())?, nz(load.block_bytes)?);
        let builder_of_arena = builder_of_arena.alignment(4096).backing(Backing::TransparentHuge);
        let arena = builder_of_arena.build().map_err(io::Error::other)?;
        let mut ring = tokio_uring::uring_builder();
        ring.setup_coop_taskrun();
        let runtime = Runtime::new(builder().entries(256).uring_builder(&ring))?;
        let shared = runtime.block_on(async {
            let registered = Registered::new(&arena).map_err(io::Error::other)?;
            let file = Rc::new(File::from_std(file));
            io::Result::Ok(Shared { arena, registered, file, places: Places::new(bytes, load) })
        })?;
        Ok(Self { runtime, shared: Rc::new(shared), load })
    }
}

async fn read(shared: Rc<Shared>, load: Load) -> io::Result<()> {
    while let Some(place) = shared.places.next() {
        let slot = shared.arena.allocate().map_err(io::Error::other)?;
        let (result, slot) = shared.registered.read_at(&shared.file, slot, place).await;
        whole(result?, load)?;
        drop(slot.freeze());
    }
    Ok(())
}

impl Reader for OursTokioUring {
    fn read(&mut self, times: u64) -> io::Result<()> {
        self.shared.places.allow(times);
        self.runtime.block_on(async {
            let reads = (0..self.load.depth)
                .map(|_| tokio_uring::spawn(read(self.shared.clone(), self.load)));
            let reads: Vec<_> = reads.collect();
            for read in reads {
                read.await.map_err(io::Error::other)??;
            }
            Ok(())
        })
    }
}
