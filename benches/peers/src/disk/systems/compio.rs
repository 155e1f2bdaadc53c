//! compio: ordinary reads into an aligned buffer; it has no registered ones.

use std::io;
use std::path::Path;
use std::rc::Rc;

use compio::driver::ProactorBuilder;
use compio::fs::{File, OpenOptions};
use compio::io::AsyncReadAt;
use compio::runtime::{Runtime, RuntimeBuilder};

use crate::disk::plan::{Load, Places};

use super::aligned::Aligned;
use super::{Reader, Settings, open_direct, whole};

pub struct Compio {
    runtime: Runtime,
    file: Rc<File>,
    places: Rc<Places>,
    buffers: Vec<Aligned>,
    load: Load,
}

impl Compio {
    pub fn start(path: &Path, load: Load, settings: Settings) -> io::Result<Self> {
        let (_, bytes) = open_direct(path)?;
        let mut proactor = ProactorBuilder::new();
        if settings == Settings::Best {
            proactor.capacity(256).single_issuer(true).defer_taskrun(true);
        }
        let runtime = RuntimeBuilder::new().with_proactor(proactor).build()?;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_DIRECT as _);
        let file = runtime.block_on(options.open(path))?;
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
        let (result, back) = file.read_at(buffer, place).await.into();
        whole(result?, load)?;
        buffer = back;
    }
    Ok(buffer)
}

impl Reader for Compio {
    fn read(&mut self, times: u64) -> io::Result<()> {
        self.places.allow(times);
        let (file, places, load) = (&self.file, &self.places, self.load);
        self.runtime.block_on(async {
            let reads = self.buffers.drain(..).map(|buffer| {
                compio::runtime::spawn(read(file.clone(), places.clone(), buffer, load))
            });
            let reads: Vec<_> = reads.collect();
            for read in reads {
                self.buffers
                    .push(read.await.map_err(|_| io::Error::other("a reading task has failed"))??);
            }
            Ok(())
        })
    }
}
