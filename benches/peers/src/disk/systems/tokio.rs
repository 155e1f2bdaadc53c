//! tokio: each read is a job for the pool of blocking threads, as its `fs` does it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio::task::{LocalSet, spawn_blocking};

use crate::disk::plan::{Load, Places};

use super::aligned::Aligned;
use super::{Reader, open_direct, whole};

pub struct Tokio {
    runtime: Runtime,
    tasks: LocalSet,
    file: Arc<File>,
    places: Rc<Places>,
    buffers: Vec<Aligned>,
    load: Load,
}

impl Tokio {
    pub fn start(path: &Path, load: Load) -> io::Result<Self> {
        let (file, bytes) = open_direct(path)?;
        let runtime = Builder::new_current_thread().build()?;
        let places = Rc::new(Places::new(bytes, load));
        Ok(Self {
            runtime,
            tasks: LocalSet::new(),
            file: Arc::new(file),
            places,
            buffers: Aligned::row(load.depth, load.block_bytes),
            load,
        })
    }
}

async fn read(
    file: Arc<File>,
    places: Rc<Places>,
    mut buffer: Aligned,
    load: Load,
) -> io::Result<Aligned> {
    while let Some(place) = places.next() {
        let file = file.clone();
        let job = spawn_blocking(move || {
            let result = file.read_at(buffer.as_mut_slice(), place);
            (result, buffer)
        });
        let (result, back) = job.await.map_err(io::Error::other)?;
        whole(result?, load)?;
        buffer = back;
    }
    Ok(buffer)
}

impl Reader for Tokio {
    fn read(&mut self, times: u64) -> io::Result<()> {
        self.places.allow(times);
        let (file, places, load) = (&self.file, &self.places, self.load);
        self.tasks.block_on(&self.runtime, async {
            let reads = self.buffers.drain(..).map(|buffer| {
                tokio::task::spawn_local(read(file.clone(), places.clone(), buffer, load))
            });
            let reads: Vec<_> = reads.collect();
            for read in reads {
                self.buffers.push(read.await.map_err(io::Error::other)??);
            }
            Ok(())
        })
    }
}
