//! tokio-uring: registered reads into slots, or its own reads into one vector.

use std::io;
use std::path::Path;
use std::rc::Rc;

use tokio_uring::fs::File;
use tokio_uring::{Runtime, builder};
use uring_arena::tokio_uring::Registered;

use super::{READ_BYTES, Reader, arena};

/// `read` takes the place, and gives back how many bytes came.
struct Reads<F> {
    runtime: Runtime,
    read: F,
}

impl<F: AsyncFnMut(u64) -> io::Result<usize>> Reader for Reads<F> {
    fn read(&mut self, blocks: usize) -> io::Result<()> {
        self.runtime.block_on(async {
            let mut place = 0;
            while place < blocks * READ_BYTES {
                place += (self.read)(place as u64).await?;
            }
            Ok(())
        })
    }
}

pub fn ours(path: &Path) -> io::Result<Box<dyn Reader>> {
    let runtime = Runtime::new(&builder())?;
    let arena = arena()?;
    let (file, registered) = runtime.block_on(async {
        let file = Rc::new(File::open(path).await?);
        io::Result::Ok((file, Registered::new(&arena).map_err(io::Error::other)?))
    })?;
    let read = async move |place| {
        let slot = arena.allocate().map_err(io::Error::other)?;
        let (result, slot) = registered.read_at(&file, slot, place).await;
        drop(slot.freeze());
        result
    };
    Ok(Box::new(Reads { runtime, read }))
}

pub fn own(path: &Path) -> io::Result<Box<dyn Reader>> {
    let runtime = Runtime::new(&builder())?;
    let file = runtime.block_on(File::open(path))?;
    let mut kept = Some(Vec::with_capacity(READ_BYTES));
    let read = async move |place| {
        let buffer: Vec<u8> = kept.take().ok_or(io::ErrorKind::Other)?;
        let (result, buffer) = file.read_at(buffer, place).await;
        kept = Some(buffer);
        result
    };
    Ok(Box::new(Reads { runtime, read }))
}
