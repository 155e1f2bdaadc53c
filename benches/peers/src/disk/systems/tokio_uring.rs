//! tokio-uring: fixed buffers from its registry, one per read in flight.

use std::io;
use std::path::Path;
use std::rc::Rc;

use tokio_uring::buf::fixed::{FixedBuf, FixedBufRegistry};
use tokio_uring::fs::File;
use tokio_uring::{Runtime, builder};

use crate::disk::plan::{Load, Places};

use super::aligned::Aligned;
use super::{Reader, Settings, open_direct, whole};

pub struct TokioUring {
    runtime: Runtime,
    registry: FixedBufRegistry<Aligned>,
    file: Rc<File>,
    places: Rc<Places>,
    load: Load,
}

impl TokioUring {
    pub fn start(path: &Path, load: Load, settings: Settings) -> io::Result<Self> {
        let (file, bytes) = open_direct(path)?;
        let mut ring = tokio_uring::uring_builder();
        ring.setup_coop_taskrun();
        let runtime = match settings {
            Settings::Best => Runtime::new(builder().entries(256).uring_builder(&ring))?,
            Settings::Default => Runtime::new(&builder())?,
        };
        let registry = FixedBufRegistry::new(Aligned::row(load.depth, load.block_bytes));
        let file = runtime.block_on(async {
            registry.register()?;
            io::Result::Ok(Rc::new(File::from_std(file)))
        })?;
        Ok(Self { runtime, registry, file, places: Rc::new(Places::new(bytes, load)), load })
    }
}

async fn read(
    file: Rc<File>,
    places: Rc<Places>,
    mut buffer: FixedBuf,
    load: Load,
) -> io::Result<()> {
    while let Some(place) = places.next() {
        let (result, back) = file.read_fixed_at(buffer, place).await;
        whole(result?, load)?;
        buffer = back;
    }
    Ok(())
}

impl Reader for TokioUring {
    fn read(&mut self, times: u64) -> io::Result<()> {
        self.places.allow(times);
        self.runtime.block_on(async {
            let reads = (0..self.load.depth).map(|slot| {
                let buffer = self.registry.check_out(slot).expect("nobody else has it");
                tokio_uring::spawn(read(self.file.clone(), self.places.clone(), buffer, self.load))
            });
            let reads: Vec<_> = reads.collect();
            for read in reads {
                read.await.map_err(io::Error::other)??;
            }
            Ok(())
        })
    }
}
