//! compio: registered reads into slots, or its own reads into one vector.

use std::io;
use std::path::Path;

use compio::fs::File;
use compio::io::AsyncReadAt;
use compio::runtime::Runtime;
use uring_arena::compio::Registered;

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
    let runtime = Runtime::new()?;
    let arena = arena()?;
    let (file, registered) = runtime.block_on(async {
        let file = File::open(path).await?;
        io::Result::Ok((file, Registered::new(&arena).map_err(io::Error::other)?))
    })?;
    let read = async move |place| {
        let slot = arena.allocate().map_err(io::Error::other)?;
        let (result, slot): (io::Result<usize>, _) =
            registered.read_at(&file, slot, place).await.into();
        drop(slot.freeze());
        result
    };
    Ok(Box::new(Reads { runtime, read }))
}

pub fn own(path: &Path) -> io::Result<Box<dyn Reader>> {
    let runtime = Runtime::new()?;
    let file = runtime.block_on(File::open(path))?;
    let mut kept = Some(Vec::with_capacity(READ_BYTES));
    let read = async move |place| {
        let mut buffer: Vec<u8> = kept.take().ok_or(io::ErrorKind::Other)?;
        buffer.clear();
        let (result, buffer): (io::Result<usize>, _) = file.read_at(buffer, place).await.into();
        kept = Some(buffer);
        result
    };
    Ok(Box::new(Reads { runtime, read }))
}
