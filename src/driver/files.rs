//! The files and sockets that a driver reads, writes and sends on: it owns them, so that a number
//! is not given to another file while an operation that names it is under way.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;

use super::Driver;
use super::key::{Generation, Key};
use crate::error::{DriverError, FileError};
use crate::uring::{Descriptor, DirectAlignment};

/// Files that are put into the ring's table, where the kernel finds them without counting
/// references. Further ones work too.
const REGISTERED_MAX: u32 = 1024;

/// A file or socket of a [`Driver`], for reading, writing and sending.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    driver: u32,
    place: u32,
    generation: Generation,
}

impl FileId {
    /// A small number that no other open file of the driver has: for a table of your own. Given out
    /// again after it is closed.
    pub fn index(self) -> usize {
        self.place as usize
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileId({})", self.place)
    }
}

/// An open file.
pub(super) struct OpenFile {
    file: File,
    /// It stands in the ring's table of files, at its place.
    registered: bool,
    /// Operations have a place of their own in it: what is short goes on where it ended. Streams
    /// have none.
    pub(super) has_offsets: bool,
    /// What it asks of operations, if it is open with `O_DIRECT`.
    pub(super) direct: Option<DirectAlignment>,
    /// The socket refused a zero-copy send.
    pub(super) refuses_zero_copy: bool,
    /// Sends, in order. The first one is under way: two at a time could mix on a stream.
    pub(super) sends: VecDeque<Key>,
    /// Operations that name it.
    pub(super) operations: usize,
    closing: bool,
}

#[derive(Default)]
struct Place {
    generation: Generation,
    open: Option<OpenFile>,
}

/// The files of one driver.
#[derive(Default)]
pub(super) struct Files {
    places: Vec<Place>,
    free: Vec<u32>,
    /// The ring has a table of files.
    table: Option<bool>,
}

impl Files {
    #[inline]
    pub(super) fn get(&self, place: u32) -> Option<&OpenFile> {
        self.places.get(place as usize)?.open.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut OpenFile> {
        self.places.get_mut(place as usize)?.open.as_mut()
    }

    /// How an entry names the file.
    #[inline]
    pub(super) fn descriptor(&self, place: u32) -> Option<Descriptor> {
        let open = self.get(place)?;
        Some(if open.registered { Descriptor::Fixed(place) } else { Descriptor::from(&open.file) })
    }
}

impl OpenFile {
    fn new(file: File) -> std::io::Result<OpenFile> {
        let kind = file.metadata()?.file_type();
        let has_offsets = kind.is_file() || kind.is_block_device();
        let direct = if has_offsets { DirectAlignment::in_force(&file)? } else { None };
        Ok(OpenFile {
            file,
            registered: false,
            has_offsets,
            direct,
            refuses_zero_copy: false,
            sends: VecDeque::new(),
            operations: 0,
            closing: false,
        })
    }
}

impl Driver {
    /// Gives the driver a file or a socket to read, write or send on. It owns it until
    /// [`close_file`](Self::close_file), or its own end: keep a clone (`try_clone`) of what you go
    /// on using.
    ///
    /// What an `O_DIRECT` file asks of operations is looked up once, here.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the kernel does not say what it is.
    ///
    /// ```
    /// # use uring_arena::Driver;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut driver = match Driver::builder().build() {
    /// #     Err(error) => { eprintln!("skipped: {error}"); return Ok(()) }
    /// #     Ok(driver) => driver,
    /// # };
    /// let id = driver.add_file(std::fs::File::open("/proc/self/exe")?)?;
    /// driver.close_file(id)?;
    /// assert!(driver.close_file(id).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn add_file(&mut self, file: impl Into<OwnedFd>) -> Result<FileId, FileError> {
        let mut open =
            OpenFile::new(File::from(file.into())).map_err(|reason| FileError { reason })?;
        let place = self.files.free.pop().unwrap_or(self.files.places.len() as u32);
        open.registered = self.enter_in_table(place, open.file.as_raw_fd());
        if place as usize == self.files.places.len() {
            self.files.places.push(Place::default());
        }
        let entry = &mut self.files.places[place as usize];
        entry.open = Some(open);
        Ok(FileId { driver: self.number, place, generation: entry.generation })
    }

    /// Puts a descriptor into the ring's table of files, or takes it out (-1). False where it does
    /// not fit or the kernel cannot.
    fn enter_in_table(&mut self, place: u32, fd: i32) -> bool {
        if place >= REGISTERED_MAX {
            return false;
        }
        let submitter = self.uring.submitter();
        let table = *self
            .files
            .table
            .get_or_insert_with(|| submitter.register_files_sparse(REGISTERED_MAX).is_ok());
        table && submitter.register_files_update(place, &[fd]).is_ok_and(|updated| updated == 1)
    }

    /// The file behind an id, for its length and the like.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownFile`] if it is not one of this driver's, or was closed.
    pub fn file(&self, id: FileId) -> Result<BorrowedFd<'_>, DriverError> {
        let place = self.file_place(id).ok_or(DriverError::UnknownFile)?;
        self.files.get(place).map(|open| open.file.as_fd()).ok_or(DriverError::UnknownFile)
    }

    /// Closes a file. Operations on it that are under way finish first; sends that wait their turn
    /// are sent.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownFile`] if it is not one of this driver's, or was closed.
    pub fn close_file(&mut self, id: FileId) -> Result<(), DriverError> {
        let place = self.file_place(id).ok_or(DriverError::UnknownFile)?;
        // The id names nothing from here on, whenever the file goes.
        let entry = &mut self.files.places[place as usize];
        entry.generation = entry.generation.next();
        if let Some(open) = &mut entry.open {
            open.closing = true;
        }
        self.close_if_idle(place);
        Ok(())
    }

    /// The place of a file that is open.
    pub(super) fn file_place(&self, id: FileId) -> Option<u32> {
        let place = self.files.places.get(id.place as usize)?;
        let is_it =
            id.driver == self.number && place.generation == id.generation && place.open.is_some();
        is_it.then_some(id.place)
    }

    /// Notes that an operation on the file is over.
    pub(super) fn leave_file(&mut self, place: u32) {
        if let Some(open) = self.files.get_mut(place) {
            open.operations -= 1;
        }
        self.close_if_idle(place);
    }

    fn close_if_idle(&mut self, place: u32) {
        let is_over = |open: &OpenFile| open.closing && open.operations == 0;
        if !self.files.get(place).is_some_and(is_over) {
            return;
        }
        let Some(open) = self.files.places[place as usize].open.take() else { return };
        if open.registered && !self.enter_in_table(place, -1) {
            // The table keeps the file open; the place is not used again, so no other file is meant
            // by it.
            tracing::warn!(place, "a closed file stays in the ring's table");
            return;
        }
        self.files.free.push(place);
    }
}
