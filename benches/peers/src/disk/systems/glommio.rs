//! glommio: aligned reads into its own registered region, large enough that it never falls back to
//! the heap.

use std::io;
use std::path::Path;
use std::rc::Rc;

use glommio::io::DmaFile;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use crate::disk::plan::{Load, Places};

use super::{Reader, Settings, open_direct, whole};

pub struct Glommio {
    executor: LocalExecutor,
    file: Rc<DmaFile>,
    places: Rc<Places>,
    load: Load,
}

impl Glommio {
    pub fn start(path: &Path, load: Load, settings: Settings) -> io::Result<Self> {
        let (_, bytes) = open_direct(path)?;
        let builder = LocalExecutorBuilder::new(Placement::Unbound);
        let builder = match settings {
            Settings::Best => builder.io_memory(64 << 20).ring_depth(256),
            Settings::Default => builder,
        };
        let executor = builder.make().map_err(|error| io::Error::other(error.to_string()))?;
        let file = executor
            .run(DmaFile::open(path))
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { executor, file: Rc::new(file), places: Rc::new(Places::new(bytes, load)), load })
    }
}

async fn read(file: Rc<DmaFile>, places: Rc<Places>, load: Load) -> io::Result<()> {
    while let Some(place) = places.next() {
        let result = file.read_at_aligned(place, load.block_bytes).await;
        let block = result.map_err(|error| io::Error::other(error.to_string()))?;
        whole(block.len(), load)?;
    }
    Ok(())
}

impl Reader for Glommio {
    fn read(&mut self, times: u64) -> io::Result<()> {
        self.places.allow(times);
        let (file, places, load) = (&self.file, &self.places, self.load);
        self.executor.run(async {
            let reads = (0..load.depth)
                .map(|_| glommio::spawn_local(read(file.clone(), places.clone(), load)));
            let reads: Vec<_> = reads.collect();
            for read in reads {
                read.await?;
            }
            Ok(())
        })
    }
}
