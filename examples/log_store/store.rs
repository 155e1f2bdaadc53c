//! The store: records are appended to a batch, and a batch is one write and one sync.

use std::error::Error;
use std::fs::File;
use std::num::{NonZeroUsize, TryFromIntError};

use bytes::BufMut;
use uring_arena::{Buffer, Driver, Event, FileId, FixedArena};

use super::log::{BLOCK, HEADER, Step, put_record};

/// The store: one batch fills while the disk works on another.
pub struct Store {
    pub driver: Driver,
    pub arena: FixedArena,
    file: FileId,
    batch: Buffer,
    /// The records of the batch, and all before it.
    batched: usize,
    appended: u64,
    pub durable: u64,
    pub end: u64,
    is_committing: bool,
    pub commits: u64,
    /// The first steps.
    pub trace: Vec<Step>,
}

fn size(number: usize) -> Result<NonZeroUsize, TryFromIntError> {
    number.try_into()
}

/// The first bytes of the log, whose steps are recorded.
const TRACED: u64 = 1 << 19;

impl Store {
    pub fn new(file: File, depth: usize) -> Result<Store, Box<dyn Error>> {
        let arena = FixedArena::with_slot_capacity(size(4)?, size(depth * BLOCK as usize)?);
        let arena = arena.alignment(BLOCK as usize).build()?;
        let mut driver = Driver::builder().build()?;
        driver.register(&arena)?;
        let file = driver.add_file(file)?;
        let batch = arena.allocate()?;
        let (batched, appended, durable, end, commits) = (0, 0, 0, 0, 0);
        Ok(Store {
            driver,
            arena,
            file,
            batch,
            batched,
            appended,
            durable,
            end,
            is_committing: false,
            commits,
            trace: Vec::new(),
        })
    }

    /// Appends a record. It is durable when `durable` has passed its number.
    pub fn append(&mut self, payload: &[u8], depth: usize) -> Result<(), Box<dyn Error>> {
        // A record does not cross into the next block.
        let left = BLOCK as usize - self.batch.len() % BLOCK as usize;
        if left < BLOCK as usize && left < HEADER as usize + payload.len() {
            self.batch.put_bytes(0, left);
        }
        while self.batched == depth
            || self.batch.len() + HEADER as usize + payload.len() > self.batch.capacity()
        {
            self.wait()?;
        }
        put_record(&mut self.batch, self.appended, payload);
        (self.batched, self.appended) = (self.batched + 1, self.appended + 1);
        self.commit_if_idle()
    }

    /// Writes and syncs the batch, unless the disk still has one.
    fn commit_if_idle(&mut self) -> Result<(), Box<dyn Error>> {
        if self.is_committing || self.batched == 0 {
            return Ok(());
        }
        let len = self.batch.len().next_multiple_of(BLOCK as usize);
        self.batch.put_bytes(0, len - self.batch.len());
        let batch = std::mem::replace(&mut self.batch, self.arena.allocate()?);
        if self.end < TRACED {
            self.trace.push(Step::Write { offset: self.end, bytes: batch.to_vec() });
        }
        self.driver.write(self.file, batch, self.end)?;
        let sync = self.driver.sync_data(self.file)?;
        self.driver.set_token(sync, self.appended)?;
        self.end += len as u64;
        (self.batched, self.is_committing) = (0, true);
        Ok(())
    }

    /// Waits for the disk, and gives it the next batch.
    pub fn wait(&mut self) -> Result<(), Box<dyn Error>> {
        match self.driver.wait_event()? {
            Event::Wrote { result, .. } => drop(result?),
            // A sync that fails is the end: what was before it may be lost.
            Event::Done { token, result, .. } => {
                result?;
                (self.durable, self.is_committing) = (token, false);
                self.commits += 1;
                if let Some(Step::Write { .. }) = self.trace.last() {
                    self.trace.push(Step::Synced { records: token });
                }
                self.commit_if_idle()?;
            }
            other => return Err(format!("unexpected: {other:?}").into()),
        }
        Ok(())
    }

    /// Reserves room, so that writes need not grow the file.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), Box<dyn Error>> {
        self.driver.allocate(self.file, 0, bytes)?;
        match self.driver.wait_event()? {
            Event::Done { result: Err(error), .. }
                if error.kind() == std::io::ErrorKind::Unsupported => {}
            Event::Done { result, .. } => result?,
            other => return Err(format!("unexpected: {other:?}").into()),
        }
        Ok(())
    }

    /// Reads the block of a record by its place.
    pub fn read(&mut self, at: usize) -> Result<Buffer, Box<dyn Error>> {
        let (buffer, block) = (self.arena.allocate()?, at as u64 / BLOCK * BLOCK);
        self.driver.read_at_most(self.file, buffer, block, BLOCK as usize)?;
        loop {
            if let Event::Read { result, buffer, .. } = self.driver.wait_event()? {
                result?;
                return Ok(buffer);
            }
        }
    }
}
