//! monoio: ordinary reads into an aligned buffer; it has no registered ones.

use std::io;
use std::path::Path;
use std::rc::Rc;

use monoio::fs::File;
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};

use crate::disk::plan::{Load, Places};

use super::aligned::Aligned;
use super::{Reader, Settings, open_direct, whole};

pub struct Monoio {
    runtime: Runtime<IoUringDriver>,
    file: Rc<File>,
    places: Rc<Places>,
    buffers: Vec<Aligned>,
    load: Load,
}

impl Monoio {
    pub fn start(path: &Path, load: Load, settings: Settings) -> io::Result<Self> {
        let (file, bytes) = open_direct(path)?;
        // monoio takes a builder of the older io-uring crate, which tokio-uring hands out as well.
        let mut ring = tokio_uring::uring_builder();
        ring.setup_coop_taskrun();
        let builder = RuntimeBuilder::<IoUringDriver>::new();
        let builder = match settings {
            Settings::Best => builder.with_entries(256).uring_builder(ring),
            Settings::Default => builder,
        };
        let mut runtime = builder.build()?;
        let file = runtime.block_on(async { File::from_std(file) })?;
        Ok(Self {
            runtime,
            file: Rc::new(file),
            places: Rc::new(Places::new(bytes, load)),
            buffers: Aligned::row(load.depth, load.block_bytes),
            load,
        })
    }
}

async fn read(
    file: Rc<File>,
    places: Rc<Places>,
    mut buffer: Aligned,
    load: Load,
) -> io::Result<Aligned> {
    while let Some(place) = places.next() {
        let (result, back) = file.read_at(buffer, place).await;
        whole(result?, load)?;
        buffer = back;
    }
    Ok(buffer)
}

impl Reader for Monoio {
    fn read(&mut self, times: u64) -> io::Result<()> {
        self.places.allow(times);
        let (file, places, load) = (&self.file, &self.places, self.load);
        self.runtime.block_on(async {
            let reads = self
                .buffers
                .drain(..)
                .map(|buffer| monoio::spawn(read(file.clone(), places.clone(), buffer, load)));
            let reads: Vec<_> = reads.collect();
            for read in reads {
                self.buffers.push(read.await?);
            }
            Ok(())
        })
    }
}
