//! Reads in the runtimes, with their own memory and with ours: a task for each read in flight.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use compio::io::AsyncReadAt;
use tokio_uring::buf::fixed::FixedBufRegistry;

use crate::disk::load::{Load, Places, Reader, open_direct};
use crate::tasks::{self, Goal, Runtime, Settings};

use super::aligned::Aligned;
use super::ours::arena;

type Started = io::Result<Box<dyn Reader>>;

/// The tasks that read until no place is left; each takes a buffer and gives it back.
struct Tasks<R, B, F> {
    runtime: R,
    shared: Rc<Shared<B, F>>,
}

struct Shared<B, F> {
    load: Load,
    places: Places,
    buffers: RefCell<Vec<B>>,
    read: F,
    goal: Goal,
    failure: RefCell<Option<io::Error>>,
}

/// Starts tasks with these buffers; `read` reads one block at a place.
fn start<R, B, F>(runtime: R, (load, bytes): (Load, u64), buffers: Vec<B>, read: F) -> Started
where
    R: Runtime,
    B: 'static,
    F: AsyncFn(B, u64) -> (io::Result<usize>, B) + 'static,
{
    let (places, goal) = (Places::new(bytes, load), Goal::default());
    let (buffers, failure) = (RefCell::new(buffers), RefCell::default());
    let shared = Rc::new(Shared { load, places, buffers, read, goal, failure });
    Ok(Box::new(Tasks { runtime, shared }))
}

impl<R, B, F> Reader for Tasks<R, B, F>
where
    R: Runtime,
    B: 'static,
    F: AsyncFn(B, u64) -> (io::Result<usize>, B) + 'static,
{
    fn read(&mut self, times: u64) -> io::Result<()> {
        let Self { runtime, shared } = self;
        shared.places.allow(times);
        shared.goal.expect(shared.load.depth);
        runtime.block_on(async {
            (0..shared.load.depth).for_each(|_| R::spawn(shared.clone().task()));
            shared.goal.reached().await;
        });
        shared.failure.take().map_or(Ok(()), Err)
    }
}

impl<B, F: AsyncFn(B, u64) -> (io::Result<usize>, B)> Shared<B, F> {
    async fn task(self: Rc<Self>) {
        let mut buffer = self.buffers.borrow_mut().pop().expect("one for each task");
        while let Some(place) = self.places.next() {
            let (result, back) = (self.read)(buffer, place).await;
            buffer = back;
            if let Err(error) = result.and_then(|length| self.load.whole(length)) {
                self.failure.replace(Some(error));
                break;
            }
        }
        self.buffers.borrow_mut().push(buffer);
        self.goal.arrived(1);
    }
}

/// Starts tokio: each read is a job for the pool of blocking threads, as its `fs` does it.
pub fn tokio(path: &Path, load: Load) -> Started {
    let (file, bytes) = open_direct(path)?;
    let (file, buffers) = (Arc::new(file), Aligned::row(load.depth, load.block_bytes));
    start(tasks::tokio(false)?, (load, bytes), buffers, async move |mut buffer: Aligned, place| {
        let file = file.clone();
        let job = move || (file.read_at(buffer.as_mut_slice(), place), buffer);
        tokio::task::spawn_blocking(job).await.expect("a read does not panic")
    })
}

/// Starts tokio-uring with fixed buffers from its registry, one per read in flight.
pub fn tokio_uring(path: &Path, load: Load, settings: Settings) -> Started {
    let (file, bytes) = open_direct(path)?;
    let mut runtime = tasks::tokio_uring(settings)?;
    let registry = FixedBufRegistry::new(Aligned::row(load.depth, load.block_bytes));
    let file = Runtime::block_on(&mut runtime, async {
        registry.register()?;
        io::Result::Ok(tokio_uring::fs::File::from_std(file))
    })?;
    let buffers = (0..load.depth).filter_map(|slot| registry.check_out(slot)).collect();
    start(runtime, (load, bytes), buffers, async move |buffer, place| {
        // The registry lives as long as its buffers are used.
        let _ = &registry;
        file.read_fixed_at(buffer, place).await
    })
}

/// Starts our memory on tokio-uring: a new slot per read, frozen to `Bytes` and dropped.
pub fn ours_tokio_uring(path: &Path, load: Load) -> Started {
    let (file, bytes) = open_direct(path)?;
    let (mut runtime, arena) = (tasks::tokio_uring(Settings::Best(256))?, arena(load)?);
    let (registered, file) = Runtime::block_on(&mut runtime, async {
        let registered = uring_arena::tokio_uring::Registered::new(&arena);
        let file = Rc::new(tokio_uring::fs::File::from_std(file));
        io::Result::Ok((registered.map_err(io::Error::other)?, file))
    })?;
    start(runtime, (load, bytes), vec![(); load.depth], async move |(), place| {
        let slot = arena.allocate().expect("as many slots as reads in flight");
        let (result, slot) = registered.read_at(&file, slot, place).await;
        drop(slot.freeze());
        (result, ())
    })
}

/// Starts glommio: aligned reads into its own registered region, large enough that it never falls
/// back to the heap.
pub fn glommio(path: &Path, load: Load, settings: Settings) -> Started {
    let other = |error: glommio::GlommioError<()>| io::Error::other(error.to_string());
    let (_, bytes) = open_direct(path)?;
    let mut runtime = tasks::glommio(settings)?;
    let file = runtime.block_on(glommio::io::DmaFile::open(path)).map_err(other)?;
    let file = Rc::new(file);
    start(runtime, (load, bytes), vec![(); load.depth], async move |(), place| {
        let block = file.read_at_aligned(place, load.block_bytes).await;
        (block.map(|block| block.len()).map_err(other), ())
    })
}

/// Starts compio: ordinary reads into an aligned buffer; it has no registered ones.
pub fn compio(path: &Path, load: Load, settings: Settings) -> Started {
    let (_, bytes) = open_direct(path)?;
    let mut runtime = tasks::compio(settings, None)?;
    let mut options = compio::fs::OpenOptions::new();
    options.read(true).custom_flags(libc::O_DIRECT as _);
    let file = Runtime::block_on(&mut runtime, options.open(path))?;
    let buffers = Aligned::row(load.depth, load.block_bytes);
    start(runtime, (load, bytes), buffers, async move |buffer, place| {
        file.read_at(buffer, place).await.into()
    })
}

/// Starts monoio: ordinary reads into an aligned buffer; it has no registered ones.
pub fn monoio(path: &Path, load: Load, settings: Settings) -> Started {
    let (file, bytes) = open_direct(path)?;
    let mut runtime = tasks::monoio(settings)?;
    let file = Runtime::block_on(&mut runtime, async { monoio::fs::File::from_std(file) })?;
    let buffers = Aligned::row(load.depth, load.block_bytes);
    start(runtime, (load, bytes), buffers, async move |buffer, place| {
        file.read_at(buffer, place).await
    })
}
