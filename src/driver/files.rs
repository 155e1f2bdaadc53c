//! The files and sockets that a driver reads, writes and sends on. The driver owns them, so that a
//! number is not given to another file while an operation that names it is under way.
//!
//! # Safety
//!
//! Unsafe here: asking for the flags of a descriptor, which is open meanwhile.
#![allow(unsafe_code)]

use std::cell::{RefCell, RefMut};
use std::collections::{HashMap, VecDeque};
use std::fs::{File, FileType};
use std::io::{self, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::rc::{Rc, Weak};

use super::durability::Durability;
use super::submitter::Submitter;
use super::wakeup::Wakeup;
use super::{DriverError, FileError, FileId};
use crate::slab::{Key, Slab};
use crate::system::{DirectAlignment, SendOptions, socket_type};
use crate::uring::{
    Descriptor, QuickClose, descriptors_max, has_unsent_bytes, is_of_ip, reset_connection,
};

/// Returns whether a descriptor is an event descriptor, or may be one because `/proc` does not say.
pub(super) fn is_event_fd(fd: BorrowedFd<'_>) -> bool {
    let target = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    target.map_or(true, |target| target.as_os_str() == "anon_inode:[eventfd]")
}

/// Files that are put into the ring's table, where the kernel finds them without counting
/// references. Further ones work too.
const REGISTERED_MAX: u32 = 1024;

/// The way in which a file takes what is written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    /// Each write has an offset of its own: several may be under way.
    AtOffsets,
    /// Bytes stand behind one another, and a part of a write shifts what follows: a stream socket,
    /// a pipe, a terminal, a file open to append.
    Stream,
    /// Messages stand behind one another, each whole or not there: a socket of another type.
    Messages,
    /// Messages have no order: an IP socket of datagrams. Several may be under way.
    Datagrams,
}

/// The form of the sends of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendForm {
    /// Over when all bytes are sent (`MSG_WAITALL`).
    Whole,
    /// Refused if the socket is full (`MSG_DONTWAIT`): messages. A Unix socket copies a message
    /// before it finds out that the peer's queue is full, and a kernel that tries the same entry
    /// again then sends an empty one.
    AtOnce,
    /// Without flags: the socket refused them, as one with kernel TLS does.
    Plain,
}

impl SendForm {
    fn of(writes: Writes) -> SendForm {
        match writes {
            Writes::Messages => SendForm::AtOnce,
            Writes::AtOffsets | Writes::Stream | Writes::Datagrams => SendForm::Whole,
        }
    }
}

impl Writes {
    fn of_socket(socket: BorrowedFd<'_>) -> Writes {
        match socket_type(socket) {
            Some(libc::SOCK_STREAM) => Writes::Stream,
            Some(libc::SOCK_DGRAM | libc::SOCK_RAW) if is_of_ip(socket) => Writes::Datagrams,
            _ => Writes::Messages,
        }
    }

    fn of(file: &File, kind: FileType) -> io::Result<Writes> {
        if kind.is_socket() {
            return Ok(Writes::of_socket(file.as_fd()));
        }
        let cannot_seek = |mut file: &File| {
            let position = file.stream_position();
            position.is_err_and(|error| error.raw_os_error() == Some(libc::ESPIPE))
        };
        let is_stream = kind.is_fifo()
            || kind.is_char_device() && cannot_seek(file)
            || kind.is_file() && status_flags(file)? & libc::O_APPEND != 0;
        Ok(if is_stream { Writes::Stream } else { Writes::AtOffsets })
    }
}

/// Returns the status flags of an open file (`F_GETFL`).
fn status_flags(file: &File) -> io::Result<i32> {
    // SAFETY: reads flags only; the descriptor is open while it is borrowed.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 { Err(io::Error::last_os_error()) } else { Ok(flags) }
}

/// The sends behind one that the kernel copied until zero-copy is tried again: routes change.
const ORDINARY_SENDS: u16 = 1024;

/// The place at which a stream was torn: a write or send of it ended part-way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Torn {
    /// The bytes that went out.
    pub(super) done: usize,
    /// The bytes that were to go out.
    pub(super) len: usize,
}

/// An open file or socket; or a closed one, until the event that says so was taken.
pub(super) struct OpenFile {
    /// The descriptor, until the file is closed. A socket that is received from shares its own.
    fd: Option<Rc<QuickClose>>,
    /// The socket whose sending direction this is, if it is received from too.
    pub(super) socket: Option<Key>,
    /// The number of the program's for the file.
    pub(super) token: u64,
    /// The file stands in the ring's table of files, at the index of its key.
    registered: bool,
    /// Operations have an offset of their own in the file, and a short read goes on where it ended.
    /// Streams have none.
    pub(super) has_offsets: bool,
    /// The file is of none of the kinds that a file system has: an event descriptor, say.
    is_nameless: bool,
    /// The alignment that the file demands, if it is open with `O_DIRECT`.
    pub(super) direct: Option<DirectAlignment>,
    /// The way in which the file takes writes and sends.
    pub(super) writes: Writes,
    /// The socket refused a zero-copy send.
    pub(super) refuses_zero_copy: bool,
    /// The sends that are ordinary ones, because the kernel copied the bytes of a zero-copy send.
    ordinary_sends: u16,
    /// The operations that name the file. Each has its position in here.
    pub(super) operations: Vec<Key>,
    /// The form in which the socket takes sends.
    pub(super) send_form: SendForm,
    /// Sends, and writes to a stream, in order. The first one is under way: two at a time could mix
    /// on a stream.
    pub(super) queue: VecDeque<Key>,
    /// The operations of the queue behind the first one that are over already.
    pub(super) over_in_queue: usize,
    /// The stream ended in the middle of what was written. What follows is refused.
    pub(super) torn: Option<Torn>,
    /// The error of the connection that a send has met. The kernel tells it once, to the send or to
    /// the receive.
    pub(super) connection_error: Option<i32>,
    /// The program has ended the sending direction: a send behind it fails, and nothing is wrong.
    pub(super) is_shut_down: bool,
    /// The socket is not connected yet: nothing is pushed on it.
    pub(super) is_connecting: bool,
    /// The writes that syncs wait for, shared by all files of one inode: the kernel tells an error
    /// once for all duplicates of a descriptor.
    durability: Rc<RefCell<Durability>>,
    /// The device and the number of the inode, if the file has offsets.
    inode: Option<Inode>,
    /// The program has closed the file: it goes when its operations are over.
    closing: bool,
    /// The program has thrown away what was to be sent.
    pub(super) aborted: bool,
}

/// The end of a file, as it is to be told.
#[derive(Debug, Clone, Copy)]
pub(super) enum FileEnd {
    /// The file is closed.
    File,
    /// The sending direction of this socket is over, with an error of the connection or without.
    Sending(Key, Option<i32>),
}

/// The device and the number of an inode.
type Inode = (u64, u64);

/// The files of one driver.
pub(super) struct Files {
    driver: u32,
    table: Slab<OpenFile>,
    /// The order of writes and syncs of each inode that is open.
    durabilities: HashMap<Inode, Weak<RefCell<Durability>>>,
    /// Each file that is closed has an event, not aborted ones alone.
    has_events_of_all: bool,
    /// The entries of the ring's table of files: none if the kernel has no such table. `None` until
    /// the kernel has made one, or refused it for good.
    ring_table: Option<u32>,
}

impl OpenFile {
    fn new(file: OwnedFd) -> Result<OpenFile, FileError> {
        let file = File::from(file);
        let kind = match FileKind::of(&file) {
            Ok(kind) => kind,
            Err(reason) => return Err(FileError { reason, file: file.into() }),
        };
        let FileKind { has_offsets, is_nameless, direct, writes, inode } = kind;
        let fd = Rc::new(QuickClose::new(file.into()));
        let open = OpenFile::of(fd, writes);
        Ok(OpenFile { has_offsets, is_nameless, direct, inode, ..open })
    }

    /// Makes a file without offsets.
    fn of(fd: Rc<QuickClose>, writes: Writes) -> OpenFile {
        OpenFile {
            fd: Some(fd),
            socket: None,
            token: 0,
            registered: false,
            has_offsets: false,
            is_nameless: false,
            direct: None,
            writes,
            refuses_zero_copy: false,
            ordinary_sends: 0,
            send_form: SendForm::of(writes),
            queue: VecDeque::new(),
            over_in_queue: 0,
            torn: None,
            operations: Vec::new(),
            connection_error: None,
            is_shut_down: false,
            is_connecting: false,
            durability: Rc::default(),
            inode: None,
            closing: false,
            aborted: false,
        }
    }

    /// Returns whether the file keeps the boundaries of messages.
    pub(super) fn keeps_messages(&self) -> bool {
        matches!(self.writes, Writes::Messages | Writes::Datagrams)
    }

    /// Notes that the kernel copied the bytes of a zero-copy send: the next ones would only cost.
    pub(super) fn note_copied(&mut self) {
        self.ordinary_sends = ORDINARY_SENDS;
    }

    /// Returns whether the next send, of so many bytes, is to be an ordinary one, and counts it.
    pub(super) fn takes_ordinary(
        &mut self,
        options: SendOptions,
        bytes: impl FnOnce() -> usize,
    ) -> bool {
        let is_ordinary =
            self.ordinary_sends > 0 && options.is_adaptive() && options.asks_for_zero_copy(bytes());
        self.ordinary_sends -= u16::from(is_ordinary);
        is_ordinary
    }

    /// Returns the order of writes and syncs.
    pub(super) fn durability(&self) -> RefMut<'_, Durability> {
        self.durability.borrow_mut()
    }

    /// Returns the descriptor of a file that is not closed.
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(|fd| fd.as_fd())
    }

    /// Keeps the error of a send if it says that the connection is over.
    pub(super) fn note_connection_error(&mut self, errno: i32) {
        let is_of_connection = matches!(
            errno,
            // What stands for a reset that was told already.
            libc::EPIPE
                | libc::ECONNRESET
                | libc::ECONNABORTED
                | libc::ETIMEDOUT
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ENETDOWN
        );
        if is_of_connection && self.writes == Writes::Stream && !self.is_shut_down {
            self.connection_error = self.connection_error.or(Some(errno));
        }
    }

    /// Returns whether the socket has bytes that it may not send yet.
    pub(super) fn has_unsent_bytes(&self) -> bool {
        self.as_fd().is_some_and(has_unsent_bytes)
    }
}

/// The properties of a file that its operations depend on: see [`OpenFile`].
struct FileKind {
    has_offsets: bool,
    is_nameless: bool,
    direct: Option<DirectAlignment>,
    writes: Writes,
    inode: Option<Inode>,
}

impl FileKind {
    fn of(file: &File) -> io::Result<FileKind> {
        let metadata = file.metadata()?;
        let kind = metadata.file_type();
        let has_offsets = kind.is_file() || kind.is_block_device();
        let is_stream = kind.is_socket() || kind.is_fifo() || kind.is_char_device();
        let direct = if has_offsets { DirectAlignment::in_force(file)? } else { None };
        let writes = Writes::of(file, kind)?;
        let inode = has_offsets.then(|| (metadata.dev(), metadata.ino()));
        Ok(FileKind { has_offsets, is_nameless: !has_offsets && !is_stream, direct, writes, inode })
    }
}

impl Files {
    pub(super) fn new(driver: u32, has_events_of_all: bool) -> Files {
        let (table, durabilities) = (Slab::new(usize::MAX), HashMap::new());
        Files { driver, table, durabilities, has_events_of_all, ring_table: None }
    }

    pub(super) fn add(
        &mut self,
        file: OwnedFd,
        submitter: &Submitter,
        wakeup: &mut Wakeup,
    ) -> Result<FileId, FileError> {
        let mut open = OpenFile::new(file)?;
        self.share_durability(&mut open);
        if let Some(fd) = &open.fd
            && open.is_nameless
            && is_event_fd(fd.as_fd())
        {
            wakeup.note_event_fd();
        }
        if let Some(key) = self.table.vacant_key()
            && let Some(fd) = &open.fd
        {
            open.registered = self.set_in_ring_table(key, fd.as_raw_fd(), submitter);
        }
        let key = self.table.insert(open).ok().expect("a file has a descriptor of its own");
        Ok(FileId::new(self.driver, key))
    }

    /// Has a new file share the order of writes and syncs with the open files of its inode; but not
    /// with those of which a sync failed: a file that is added anew begins anew.
    fn share_durability(&mut self, open: &mut OpenFile) {
        let Some(inode) = open.inode else { return };
        let of_others = self.durabilities.get(&inode).and_then(Weak::upgrade);
        match of_others.filter(|it| it.borrow().failed().is_none()) {
            Some(shared) => open.durability = shared,
            None => drop(self.durabilities.insert(inode, Rc::downgrade(&open.durability))),
        }
    }

    /// Forgets the order of writes and syncs of an inode with the last file that has it.
    fn end_durability(&mut self, key: Key) {
        let Some(OpenFile { inode: Some(inode), durability, .. }) = self.get(key) else { return };
        let latest = self.durabilities.get(inode).map(Weak::as_ptr);
        if Rc::strong_count(durability) == 1 && latest == Some(Rc::as_ptr(durability)) {
            let inode = *inode;
            self.durabilities.remove(&inode);
        }
    }

    /// Takes in the sending direction of a socket that is received from. Returns its key.
    ///
    /// It is not put into the ring's table, which would cost a system call for each connection.
    pub(super) fn add_sending(&mut self, socket: Key, fd: Rc<QuickClose>, token: u64) -> Key {
        let writes = Writes::of_socket(fd.as_fd());
        let open = OpenFile { socket: Some(socket), token, ..OpenFile::of(fd, writes) };
        self.table.insert(open).ok().expect("a socket has a descriptor of its own")
    }

    /// Puts a descriptor into the ring's table of files, or takes it out (-1). Returns `false`
    /// where it does not fit or the kernel cannot.
    fn set_in_ring_table(&mut self, key: Key, fd: i32, submitter: &Submitter) -> bool {
        if !submitter.is_ours() || key.index() >= self.ring_table_entries(submitter) {
            return false;
        }
        let updated = submitter.uring.submitter().register_files_update(key.index(), &[fd]);
        updated.is_ok_and(|updated| updated == 1)
    }

    /// Returns the number of entries of the ring's table of files, which is made if need be.
    fn ring_table_entries(&mut self, submitter: &Submitter) -> u32 {
        if self.ring_table.is_none() {
            // The kernel makes no table that is longer than the limit of open files.
            let entries = REGISTERED_MAX.min(descriptors_max());
            let answer = submitter.uring.submitter().register_files_sparse(entries);
            self.ring_table = match answer.map_err(|error| error.raw_os_error()) {
                Ok(()) => Some(entries),
                // Before 5.19.
                Err(Some(libc::EINVAL)) => Some(0),
                // No memory, or a lower limit just now: the next file asks again.
                Err(_) => None,
            };
        }
        self.ring_table.unwrap_or(0)
    }

    /// Finds the key of an id, whose file is not closed.
    pub(super) fn key(&self, id: FileId) -> Result<Key, DriverError> {
        let key = id.key_in(self.driver)?;
        let is_open = self.table.get(key).is_some_and(|open| !open.closing);
        if is_open { Ok(key) } else { Err(DriverError::UnknownFile) }
    }

    pub(super) fn by_id(&self, id: FileId) -> Result<BorrowedFd<'_>, DriverError> {
        let key = self.key(id)?;
        self.get(key).and_then(OpenFile::as_fd).ok_or(DriverError::UnknownFile)
    }

    #[inline]
    pub(super) fn get(&self, key: Key) -> Option<&OpenFile> {
        self.table.get(key)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut OpenFile> {
        self.table.get_mut(key)
    }

    /// Returns how an entry names the file.
    #[inline]
    pub(super) fn descriptor(&self, key: Key) -> Option<Descriptor> {
        let open = self.get(key)?;
        match open.registered {
            true => Some(Descriptor::Fixed(key.index())),
            false => open.fd.as_ref().map(|fd| Descriptor::from(&**fd)),
        }
    }

    /// Notes that a file is to be closed. Its id names nothing from here on.
    pub(super) fn begin_close(&mut self, key: Key) {
        if let Some(open) = self.get_mut(key) {
            open.closing = true;
        }
    }

    /// Finds the key of a file that is not closed yet, whether or not it is to be closed.
    pub(super) fn key_to_abort(&self, id: FileId) -> Result<Key, DriverError> {
        let key = id.key_in(self.driver)?;
        let is_open = self.get(key).is_some_and(|open| open.fd.is_some());
        if is_open { Ok(key) } else { Err(DriverError::UnknownFile) }
    }

    /// Resets the connection of a file, and sees to it that no operation begins on it any more.
    pub(super) fn abort(&mut self, key: Key) {
        let Some(open) = self.get_mut(key) else { return };
        if let Some(fd) = open.as_fd() {
            reset_connection(fd);
        }
        (open.closing, open.aborted) = (true, true);
    }

    /// Notes that the operation at a position is over. Returns the operation that has this position
    /// from now on.
    #[inline]
    pub(super) fn end_operation(&mut self, key: Key, position: usize) -> Option<Key> {
        let open = self.get_mut(key)?;
        open.operations.swap_remove(position);
        open.operations.get(position).copied()
    }

    /// Closes a file that the program has closed if no operation names it.
    ///
    /// Returns what is to be told. The file stays in the table until its event is taken, so that
    /// its id and index are not given out again.
    #[inline]
    pub(super) fn close_if_idle(&mut self, key: Key, submitter: &Submitter) -> Option<FileEnd> {
        match self.get(key) {
            Some(open) if open.closing && open.operations.is_empty() => {
                self.close_now(key, submitter)
            }
            _ => None,
        }
    }

    #[cold]
    fn close_now(&mut self, key: Key, submitter: &Submitter) -> Option<FileEnd> {
        let is_registered = self.get(key).is_some_and(|open| open.registered);
        if is_registered && !self.set_in_ring_table(key, -1, submitter) {
            // The ring's table keeps the file open. So does ours, and no other file gets its index.
            tracing::warn!(index = key.index(), "a closed file stays in the ring's table");
            return None;
        }
        self.end_durability(key);
        let has_events_of_all = self.has_events_of_all;
        let open = self.get_mut(key)?;
        if let Some(socket) = open.socket {
            let error = open.connection_error;
            self.table.remove(key);
            return Some(FileEnd::Sending(socket, error));
        }
        let (was_open, has_event) = (open.fd.is_some(), has_events_of_all || open.aborted);
        // Closed here, so that the event finds it closed.
        (open.fd, open.registered) = (None, false);
        if !has_event {
            self.table.remove(key);
        }
        (was_open && has_event).then_some(FileEnd::File)
    }

    /// Closes every file, at the end of the driver.
    ///
    /// The ring's table would keep them open until the last operation of the ring is over, however
    /// long the peer of one connection takes.
    pub(super) fn close_all(&mut self, submitter: &Submitter) {
        self.table = Slab::new(usize::MAX);
        if self.ring_table.take().is_some_and(|entries| entries > 0)
            && let Err(error) = submitter.uring.submitter().unregister_files()
        {
            tracing::debug!(%error, "the ring's table of files stays until the ring ends");
        }
    }

    /// Closes a forked child's copy of each descriptor. The file stays as the parent has it.
    pub(super) fn close_copies(&mut self) {
        for key in self.table.keys() {
            let open = self.table.remove(key);
            let fd = open.and_then(|open| open.fd).and_then(Rc::into_inner);
            drop(fd.map(QuickClose::into_inner));
        }
    }

    /// Removes a file that was closed. Returns its id, which names nothing from here on, and its
    /// token.
    pub(super) fn remove_closed(&mut self, key: Key) -> (FileId, u64) {
        let token = self.table.remove(key).map_or(0, |open| open.token);
        (FileId::new(self.driver, key), token)
    }
}
