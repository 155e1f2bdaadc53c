//! The calls of `io_uring_register(2)` whose result the io-uring crate hides or does not offer,
//! such as the number of entries that an update placed; and what the kernel says of a socket, and
//! does to one, that the standard library does not offer.
//!
//! # Safety
//!
//! Unsafe here: the system calls. Each function gives the kernel only memory that is live during
//! the call.
//! Unsafe here: making descriptors
//! ([eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html),
//! [pipe(2)](https://man7.org/linux/man-pages/man2/pipe.2.html)), and asking for the end of a
//! connection.
#![allow(unsafe_code)]

use crate::region::{Process, system_page_bytes};
use crate::sync::Arc;
use crate::system::{
    disconnect, set_linger, set_option, socket_option, socket_type, to_result, unsent_bytes,
};
use crate::uring::kernel::address::{RawAddress, ip_address};
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::task::Wake;
use std::time::Duration;

use io_uring::types;

const REGISTER_BUFFERS: libc::c_uint = 0;
const UNREGISTER_BUFFERS: libc::c_uint = 1;
const REGISTER_BUFFERS2: libc::c_uint = 15;
const REGISTER_BUFFERS_UPDATE: libc::c_uint = 16;
const REGISTER_PBUF_RING: libc::c_uint = 22;
const UNREGISTER_PBUF_RING: libc::c_uint = 23;
#[cfg(feature = "compio")]
const REGISTER_SYNC_CANCEL: libc::c_uint = 24;
const REGISTER_PBUF_STATUS: libc::c_uint = 26;
const REGISTER_CLONE_BUFFERS: libc::c_uint = 30;

const RSRC_REGISTER_SPARSE: u32 = 1;
const DST_REPLACE: u32 = 2;

#[cfg(feature = "compio")]
const ASYNC_CANCEL_ALL: u32 = 1 << 0;
#[cfg(feature = "compio")]
const ASYNC_CANCEL_ANY: u32 = 1 << 2;
#[cfg(feature = "compio")]
const ASYNC_CANCEL_OP: u32 = 1 << 5;

const ENTER_GETEVENTS: libc::c_ulong = 1;
const ENTER_EXT_ARG: libc::c_ulong = 1 << 3;

/// The kernel's `struct io_uring_getevents_arg`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct WaitArgument {
    mask: u64,
    mask_bytes: u32,
    min_wait_us: u32,
    timeout: u64,
}

/// The completions that a wait waits for: one, or several within a short time.
#[derive(Debug)]
pub(crate) struct WaitFor {
    completions: libc::c_ulong,
    flags: libc::c_ulong,
    /// None for a wait for one completion, which needs no argument.
    argument: Option<Box<WaitArgument>>,
    argument_bytes: libc::c_ulong,
}

impl WaitFor {
    /// Waits for one completion.
    pub(crate) const ONE: WaitFor =
        WaitFor { completions: 1, flags: ENTER_GETEVENTS, argument: None, argument_bytes: 0 };

    /// Waits until so many completions have come, or until one has and `within` is over (Linux
    /// 6.12). A part of a microsecond counts as one, and a second is the longest time.
    pub(crate) fn several(completions: u32, within: Duration) -> WaitFor {
        let within = within.min(Duration::from_secs(1)).as_nanos().div_ceil(1000) as u32;
        if completions <= 1 || within == 0 {
            return WaitFor::ONE;
        }
        let argument = WaitArgument { min_wait_us: within, ..WaitArgument::default() };
        WaitFor {
            completions: completions.into(),
            flags: ENTER_GETEVENTS | ENTER_EXT_ARG,
            argument: Some(Box::new(argument)),
            argument_bytes: size_of::<WaitArgument>() as libc::c_ulong,
        }
    }
}

/// Submits entries of a ring without a polling thread, and waits without end for what `wait_for`
/// says ([io_uring_enter(2)](https://man7.org/linux/man-pages/man2/io_uring_enter.2.html)).
///
/// Returns the number of entries that were submitted, or the error number. What the `io-uring`
/// crate's `submit_and_wait` also asks concerns other kinds of rings, or calls that do not wait.
#[inline]
pub(crate) fn submit_and_wait(fd: RawFd, entries: usize, wait_for: &WaitFor) -> Result<usize, i32> {
    let WaitFor { completions, flags, argument, argument_bytes } = wait_for;
    let argument = argument.as_deref().map_or(ptr::null(), ptr::from_ref);
    enter(fd, entries, *completions, *flags, argument, *argument_bytes)
}

/// Submits and waits as [`submit_and_wait`] does, but not longer than `time`.
pub(crate) fn submit_and_wait_for_time(
    fd: RawFd,
    entries: usize,
    wait_for: &WaitFor,
    time: Duration,
) -> Result<usize, i32> {
    let timeout = types::Timespec::from(time);
    let mut argument = wait_for.argument.as_deref().copied().unwrap_or_default();
    // The kernel takes the shortest wait for the longest one if that is longer.
    argument.min_wait_us =
        argument.min_wait_us.min(time.as_micros().try_into().unwrap_or(u32::MAX));
    argument.timeout = (&raw const timeout).addr() as u64;
    // Without a time to wait for several, the kernel would wait for them until the end.
    let completions = if argument.min_wait_us == 0 { 1 } else { wait_for.completions };
    let flags = ENTER_GETEVENTS | ENTER_EXT_ARG;
    let bytes = size_of::<WaitArgument>() as libc::c_ulong;
    enter(fd, entries, completions, flags, &raw const argument, bytes)
}

/// Enters the kernel. `argument` is null, or to a live value of so many bytes.
#[inline]
fn enter(
    fd: RawFd,
    entries: usize,
    completions: libc::c_ulong,
    flags: libc::c_ulong,
    argument: *const WaitArgument,
    argument_bytes: libc::c_ulong,
) -> Result<usize, i32> {
    let (fd, entries) = (fd as libc::c_ulong, entries as libc::c_ulong);
    let (number, bytes) = (libc::SYS_io_uring_enter, argument_bytes);
    // SAFETY: the argument is live during the call (the callers'), and so is the time that it
    // names. The memory of the entries is their pusher's duty.
    let answer = unsafe { libc::syscall(number, fd, entries, completions, flags, argument, bytes) };
    usize::try_from(answer).map_err(|_| last_errno())
}

#[cold]
fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// The kernel's `struct io_uring_sync_cancel_reg`.
#[cfg(feature = "compio")]
#[repr(C)]
struct SyncCancel {
    address: u64,
    fd: i32,
    flags: u32,
    timeout: [i64; 2],
    opcode: u8,
    reserved: [u8; 7],
    reserved2: [u64; 3],
}

/// The kernel's `struct io_uring_rsrc_register`.
#[repr(C)]
struct RsrcRegister {
    nr: u32,
    flags: u32,
    reserved: u64,
    data: u64,
    tags: u64,
}

/// The kernel's `struct io_uring_rsrc_update2`.
#[repr(C)]
struct RsrcUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
    tags: u64,
    nr: u32,
    reserved2: u32,
}

/// The kernel's `struct io_uring_clone_buffers`.
#[repr(C)]
struct CloneBuffers {
    src_fd: u32,
    flags: u32,
    src_off: u32,
    dst_off: u32,
    nr: u32,
    pad: [u32; 3],
}

/// The kernel's `struct io_uring_buf_reg`.
#[repr(C)]
struct BufferRingRegister {
    ring_addr: u64,
    ring_entries: u32,
    group: u16,
    flags: u16,
    reserved: [u64; 3],
}

/// The kernel's `struct io_uring_buf_status`.
#[repr(C)]
struct BufferRingStatus {
    group: u32,
    /// Written by the kernel.
    head: u32,
    reserved: [u32; 8],
}

/// Registers a table that has exactly these entries.
///
/// # Safety
///
/// Each entry names memory that may stay pinned while it is registered. The kernel may write there
/// through operations that name the entry.
pub(in crate::uring) unsafe fn register_buffers(
    ring: RawFd,
    entries: &[libc::iovec],
) -> io::Result<()> {
    // SAFETY: the list is live during the call; the caller vouches for the memory in it.
    unsafe { register(ring, REGISTER_BUFFERS, entries.as_ptr(), entries.len()) }.map(drop)
}

/// Registers a table of empty entries.
pub(in crate::uring) fn register_sparse(ring: RawFd, entries: u32) -> io::Result<()> {
    let argument =
        RsrcRegister { nr: entries, flags: RSRC_REGISTER_SPARSE, reserved: 0, data: 0, tags: 0 };
    // SAFETY: live during the call, and of the size that is passed.
    unsafe { register(ring, REGISTER_BUFFERS2, &argument, size_of::<RsrcRegister>()) }.map(drop)
}

/// Replaces entries from `offset` on. Returns how many were replaced, which may be fewer than asked
/// for.
///
/// # Safety
///
/// As for [`register_buffers`].
pub(in crate::uring) unsafe fn update_buffers(
    ring: RawFd,
    offset: u32,
    entries: &[libc::iovec],
) -> io::Result<usize> {
    let argument = RsrcUpdate {
        offset,
        reserved: 0,
        data: entries.as_ptr() as u64,
        tags: 0,
        nr: entries.len() as u32,
        reserved2: 0,
    };
    // SAFETY: argument and list are live during the call; the caller vouches for the memory in the
    // list.
    unsafe { register(ring, REGISTER_BUFFERS_UPDATE, &argument, size_of::<RsrcUpdate>()) }
}

/// Empties `count` entries from `offset` on.
pub(in crate::uring) fn clear_buffers(ring: RawFd, offset: u32, count: usize) -> io::Result<usize> {
    let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    // SAFETY: empty entries name no memory.
    unsafe { update_buffers(ring, offset, &vec![empty; count]) }
}

/// Removes the whole table.
pub(in crate::uring) fn unregister_buffers(ring: RawFd) -> io::Result<()> {
    // SAFETY: takes no argument.
    unsafe { register(ring, UNREGISTER_BUFFERS, std::ptr::null::<u8>(), 0) }.map(drop)
}

/// A run of entries of one ring's table, and its position in another's.
pub(in crate::uring) struct Cloned {
    pub(in crate::uring) from_ring: RawFd,
    pub(in crate::uring) from_offset: u32,
    pub(in crate::uring) to_offset: u32,
    pub(in crate::uring) count: u32,
    /// True if the other table exists already.
    pub(in crate::uring) replace: bool,
}

/// Shares entries of another ring's table.
pub(in crate::uring) fn clone_buffers(ring: RawFd, cloned: &Cloned) -> io::Result<()> {
    let argument = CloneBuffers {
        src_fd: cloned.from_ring as u32,
        flags: if cloned.replace { DST_REPLACE } else { 0 },
        src_off: cloned.from_offset,
        dst_off: cloned.to_offset,
        nr: cloned.count,
        pad: [0; 3],
    };
    // SAFETY: live during the call. The other ring has the memory of the entries pinned already.
    unsafe { register(ring, REGISTER_CLONE_BUFFERS, &argument, 1) }.map(drop)
}

/// Allocates memory with a whole page of the system in it. Also returns the address of the page:
/// the kernel wants the array of a buffer ring to start on one.
fn whole_page() -> (Vec<u8>, usize) {
    let page_bytes = system_page_bytes();
    let memory = vec![0; 2 * page_bytes];
    let start = memory.as_ptr().addr().next_multiple_of(page_bytes);
    (memory, start)
}

/// Checks that a buffer ring with `flags` can be registered: registers one of a single entry and
/// removes it again.
pub(in crate::uring) fn try_buffer_ring(ring: RawFd, flags: u16) -> io::Result<()> {
    let (memory, start) = whole_page();
    let argument = BufferRingRegister {
        ring_addr: start as u64,
        ring_entries: 1,
        group: 0,
        flags,
        reserved: [0; 3],
    };
    // SAFETY: the page is live, page-aligned, and holds the one entry of 16 bytes.
    unsafe { register(ring, REGISTER_PBUF_RING, &argument, 1) }?;
    // The group alone names the ring: the kernel refuses flags here.
    let argument = BufferRingRegister { flags: 0, ..argument };
    // SAFETY: live during the call.
    let removed = unsafe { register(ring, UNREGISTER_PBUF_RING, &argument, 1) };
    if removed.is_err() {
        // The page is still registered and must not be reused, so it is leaked.
        std::mem::forget(memory);
    }
    removed.map(drop)
}

/// Registers a buffer ring whose array lies at `address`.
///
/// # Safety
///
/// The array is page-aligned, has `count` entries, and stays until it is unregistered. So does the
/// memory that its entries name.
pub(in crate::uring) unsafe fn register_buffer_ring(
    ring: RawFd,
    address: u64,
    count: u16,
    group: u16,
    flags: u16,
) -> io::Result<()> {
    let argument = BufferRingRegister {
        ring_addr: address,
        ring_entries: count.into(),
        group,
        flags,
        reserved: [0; 3],
    };
    // SAFETY: live during the call; the caller vouches for the array.
    unsafe { register(ring, REGISTER_PBUF_RING, &argument, 1) }.map(drop)
}

/// Removes a buffer ring.
pub(in crate::uring) fn unregister_buffer_ring(ring: RawFd, group: u16) -> io::Result<()> {
    let argument =
        BufferRingRegister { ring_addr: 0, ring_entries: 0, group, flags: 0, reserved: [0; 3] };
    // SAFETY: live during the call.
    unsafe { register(ring, UNREGISTER_PBUF_RING, &argument, 1) }.map(drop)
}

/// Returns how many entries of a buffer ring the kernel has used up, modulo 2¹⁶. Fails with
/// `EINVAL` before Linux 6.8.
pub(in crate::uring) fn buffer_ring_head(ring: RawFd, group: u16) -> io::Result<u16> {
    let mut status = BufferRingStatus { group: group.into(), head: 0, reserved: [0; 8] };
    // SAFETY: live during the call, and the kernel's to write then.
    unsafe { register(ring, REGISTER_PBUF_STATUS, &raw mut status, 1) }?;
    Ok(status.head as u16)
}

/// Cancels the requests of one opcode, without waiting for their ends (Linux 6.6). An older kernel
/// cancels all requests of the ring (Linux 6.0).
#[cfg(feature = "compio")]
pub(crate) fn cancel_opcode(ring: RawFd, opcode: u8) {
    let cancel = |flags, opcode| {
        let (address, fd, timeout) = (0, -1, [0; 2]);
        let (reserved, reserved2) = ([0; 7], [0; 3]);
        let cancel = SyncCancel { address, fd, flags, timeout, opcode, reserved, reserved2 };
        // SAFETY: live during the call.
        unsafe { register(ring, REGISTER_SYNC_CANCEL, &raw const cancel, 1) }
    };
    let answer = cancel(ASYNC_CANCEL_ALL | ASYNC_CANCEL_OP, opcode);
    if answer.is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)) {
        let _ = cancel(ASYNC_CANCEL_ANY, 0);
    }
}

/// Submits the entries that the owner of a ring has pushed and not submitted yet.
///
/// One call stops behind an entry that the kernel refuses at once, so further calls follow. They
/// end when the kernel takes nothing more, whether or not all is taken.
pub(in crate::uring) fn submit_pushed(ring: RawFd) {
    // The kernel submits what there is, and a queue holds no more.
    const ENTRIES_MAX: u32 = 1 << 15;
    let mut submitted = 0;
    while submitted < i64::from(ENTRIES_MAX) {
        // SAFETY: waits for nothing, and passes no memory. The entries are the owner's, who pushed
        // them to be submitted.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                ring,
                ENTRIES_MAX,
                0,
                0,
                std::ptr::null::<libc::sigset_t>(),
                0,
            )
        };
        if answer <= 0 {
            return;
        }
        submitted += answer as i64;
    }
}

/// Returns whether a descriptor is a socket that listens for connections.
pub(crate) fn is_listening(socket: BorrowedFd<'_>) -> bool {
    let no: libc::c_int = 0;
    socket_option(socket, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, no).is_some_and(|yes| yes != no)
}

/// Calls `io_uring_register(2)`.
///
/// # Safety
///
/// `argument` and `count` are what `opcode` asks for, and live during the call.
unsafe fn register<T>(
    ring: RawFd,
    opcode: libc::c_uint,
    argument: *const T,
    count: usize,
) -> io::Result<usize> {
    loop {
        // SAFETY: the caller's promise.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                ring,
                opcode,
                argument,
                count as libc::c_uint,
            )
        };
        match usize::try_from(answer).map_err(|_| io::Error::last_os_error()) {
            // A signal, while a kernel before 5.13 waited for operations in flight.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

/// An event descriptor. Signalling it wakes every poller; it stays signalled until it is cleared,
/// so no wake is lost.
#[derive(Debug)]
pub(crate) struct EventFd {
    file: File,
}

impl EventFd {
    #[cfg(feature = "tokio")]
    pub(crate) fn new() -> io::Result<EventFd> {
        // SAFETY: makes a new descriptor; takes no memory of ours.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: made above, and owned by nothing else.
        Ok(EventFd::from(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn signal(&self) {
        // Fails only when the counter is full, and then the descriptor is signalled already.
        let _ = (&self.file).write(&1u64.to_ne_bytes());
    }
}

impl From<OwnedFd> for EventFd {
    fn from(fd: OwnedFd) -> EventFd {
        EventFd { file: File::from(fd) }
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A pipe that wakes the ring which polls its reading end. It stays signalled until it is cleared,
/// so no wake is lost.
///
/// An event descriptor would be smaller, but the kernel raises a ring's registered event descriptor
/// from within the write to another one once in the ring's life only (Linux 6.18).
//
// Both ends live as long as the value: a write never finds the reading end closed (`SIGPIPE`).
#[derive(Debug)]
pub(crate) struct WakePipe {
    reader: File,
    writer: File,
    /// A forked child has the descriptors too, and wakes nobody.
    process: Process,
}

impl WakePipe {
    /// Makes the pipe; neither end blocks.
    pub(crate) fn new() -> io::Result<WakePipe> {
        let mut ends = [0; 2];
        // SAFETY: writes two descriptors into `ends`, which is live.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: made above, and owned by nothing else.
        let [reader, writer] = ends.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
        Ok(WakePipe { reader, writer, process: Process::current() })
    }

    /// Signals the pipe by one call of write(2), which a signal handler may make too.
    pub(crate) fn signal(&self) {
        self.write(WAKE);
    }

    fn write(&self, kind: u8) {
        if self.process.is_current() {
            // Fails only when the pipe is full, and then it is signalled already.
            let _ = (&self.writer).write(&[kind]);
        }
    }

    /// Takes the signals out, all but those beyond the first few hundred: they signal again.
    /// Returns which kinds there were.
    pub(crate) fn clear(&self) -> Signals {
        let mut bytes = [0; 512];
        // Fails only when the pipe is clear already.
        let count = (&self.reader).read(&mut bytes).unwrap_or(0);
        let taken = &bytes[..count];
        // A full pipe has taken no further signal, of whatever kind.
        let may_miss_some = count == bytes.len();
        Signals {
            is_woken: taken.contains(&WAKE) || may_miss_some,
            is_granted: taken.contains(&GRANT),
            is_pressed: taken.contains(&PRESSURE) || may_miss_some,
        }
    }

    /// Returns the end to poll.
    pub(crate) fn reader(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

impl Wake for WakePipe {
    fn wake(self: Arc<Self>) {
        self.signal();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.signal();
    }
}

/// The byte of a wake.
const WAKE: u8 = 1;

/// The byte that says that a ring of the driver's was granted a slot.
const GRANT: u8 = 3;

/// The byte that says that somebody waits for a slot.
const PRESSURE: u8 = 2;

/// The kinds of signals that a pipe had.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signals {
    pub(crate) is_woken: bool,
    pub(crate) is_granted: bool,
    pub(crate) is_pressed: bool,
}

/// A [`WakePipe`] whose wake says that a ring was granted a slot.
pub(crate) struct GrantPipe(pub(crate) Arc<WakePipe>);

impl Wake for GrantPipe {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.write(GRANT);
    }
}

/// A pipe as those see it who tell that somebody waits for a slot.
#[derive(Debug)]
pub(crate) struct PressurePipe(pub(crate) Arc<WakePipe>);

impl Wake for PressurePipe {
    fn wake(self: Arc<Self>) {
        self.0.write(PRESSURE);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.write(PRESSURE);
    }
}

/// Returns whether a connection has ended: its peer sends no more, and no message waits.
///
/// An empty message that waits is not seen: nothing distinguishes it from the end.
pub(crate) fn is_at_end(socket: BorrowedFd<'_>) -> bool {
    let wanted = libc::POLLIN | libc::POLLRDHUP;
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: wanted, revents: 0 };
    // SAFETY: `poll` is live during the call, which does not wait.
    let answer = unsafe { libc::poll(&mut poll, 1, 0) };
    let hung_up = poll.revents & (libc::POLLRDHUP | libc::POLLHUP) != 0;
    // A pending error is told by the next receive, and stands before the messages that wait.
    if answer != 1 || !hung_up || poll.revents & libc::POLLERR != 0 {
        return false;
    }
    let mut unread: libc::c_int = 0;
    // SAFETY: `unread` is live during the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut unread) };
    // Behind empty messages there may be others: the count has them all. Not every kind of socket
    // counts.
    (answer != 0 || unread == 0) && peek(socket).is_ok_and(|bytes| bytes == 0)
}

/// Returns whether the error of a receive of datagrams was a pending one, which a receive takes
/// away, and not an error of the socket for good.
pub(crate) fn error_was_pending(socket: BorrowedFd<'_>) -> bool {
    /// Errors may come faster than they are taken away, but not that many.
    const TRIES: usize = 64;
    (0..TRIES).any(|_| match peek(socket) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    })
}

/// Looks at the first message that waits. Returns how much of its first byte there is.
fn peek(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let (mut byte, flags) = ([0u8], libc::MSG_PEEK | libc::MSG_DONTWAIT);
    // SAFETY: the byte is live during the call, and the kernel's to write then.
    let answer = unsafe { libc::recv(socket.as_raw_fd(), byte.as_mut_ptr().cast(), 1, flags) };
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

/// Returns whether a TCP socket has bytes that it may not send yet. Of bytes that are sent, the
/// peer's kernel answers within a moment.
pub(crate) fn has_unsent_bytes(socket: BorrowedFd<'_>) -> bool {
    unsent_bytes(socket).is_some_and(|bytes| bytes > 0)
}

/// Resets a connection: what is queued is thrown away, and the peer gets an error.
///
/// TCP is reset at once. Another socket is, if its protocol knows a reset, when the last descriptor
/// of it is closed. Anything else stays as it is.
pub(crate) fn reset_connection(socket: BorrowedFd<'_>) {
    let Some(kind) = socket_type(socket) else { return };
    set_linger(socket, libc::linger { l_onoff: 1, l_linger: 0 });
    if kind == libc::SOCK_STREAM {
        disconnect(socket);
    }
}

/// Sees to it that closing the socket does not wait: a time to linger (`SO_LINGER`) is switched
/// off. What is queued is sent all the same.
///
/// A time of zero stays, because such a close resets the connection and does not wait.
pub(crate) fn stop_lingering(socket: BorrowedFd<'_>) {
    let off = libc::linger { l_onoff: 0, l_linger: 0 };
    let lingers = |it: &libc::linger| it.l_onoff != 0 && it.l_linger != 0;
    let known = socket_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, off);
    if known.as_ref().is_some_and(lingers) {
        set_linger(socket, off);
    }
}

/// The level and the name of an option of a socket.
pub(in crate::uring) type SocketOption = (libc::c_int, libc::c_int);

/// Sets an option whose value is a number.
pub(in crate::uring) fn set_number(
    socket: BorrowedFd<'_>,
    (level, name): SocketOption,
    value: libc::c_int,
) -> io::Result<()> {
    to_result(set_option(socket, level, name, &value)).map(drop)
}

/// Returns the family of a socket (`SO_DOMAIN`), such as `AF_INET6`.
pub(in crate::uring) fn socket_domain(socket: BorrowedFd<'_>) -> Option<libc::c_int> {
    socket_option(socket, libc::SOL_SOCKET, libc::SO_DOMAIN, 0)
}

/// Returns whether a number is the descriptor of a Unix socket.
pub(in crate::uring) fn is_unix_socket(fd: RawFd) -> bool {
    let mut domain: libc::c_int = 0;
    let mut bytes = size_of_val(&domain) as libc::socklen_t;
    let (level, name, to) = (libc::SOL_SOCKET, libc::SO_DOMAIN, (&raw mut domain).cast());
    // SAFETY: number and length are live during the call; whatever the descriptor is, the call
    // writes to nothing else.
    let answer = unsafe { libc::getsockopt(fd, level, name, to, &raw mut bytes) };
    answer == 0 && domain == libc::AF_UNIX
}

/// Returns whether a socket is of IPv4 or IPv6.
pub(crate) fn is_of_ip(socket: BorrowedFd<'_>) -> bool {
    matches!(socket_domain(socket), Some(libc::AF_INET | libc::AF_INET6))
}

/// Makes a stream socket for an address.
pub(crate) fn new_socket(address: &RawAddress) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: makes a new descriptor; takes no memory of ours.
    let fd = to_result(unsafe { libc::socket(address.family(), kind, 0) })?;
    // SAFETY: made above, and owned by nothing else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds a socket to an address, and listens for connections.
pub(crate) fn listen_on(
    socket: BorrowedFd<'_>,
    address: &RawAddress,
    backlog: libc::c_int,
) -> io::Result<()> {
    if address.family() != libc::AF_UNIX {
        // As servers do: a restart need not wait for the connections of the last run.
        set_number(socket, (libc::SOL_SOCKET, libc::SO_REUSEADDR), 1)?;
    }
    // SAFETY: the address is live during the call.
    to_result(unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr(), address.len()) })?;
    // SAFETY: takes no memory of ours.
    to_result(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map(drop)
}

/// Returns the address of the peer of a connection: `None` if it has none, or has gone already.
pub(crate) fn peer_address(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    let mut name = [0u8; size_of::<libc::sockaddr_in6>()];
    let mut bytes = name.len() as libc::socklen_t;
    let answer =
        // SAFETY: name and length are live during the call, and the kernel's to write then.
        unsafe { libc::getpeername(socket.as_raw_fd(), name.as_mut_ptr().cast(), &raw mut bytes) };
    if answer < 0 { None } else { ip_address(&name) }
}

/// A descriptor whose close does not wait, whatever `SO_LINGER` says.
#[derive(Debug)]
pub(crate) struct QuickClose(OwnedFd);

impl QuickClose {
    pub(crate) fn new(fd: OwnedFd) -> QuickClose {
        QuickClose(fd)
    }

    /// Gives the descriptor back as it is.
    pub(crate) fn into_inner(self) -> OwnedFd {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so the descriptor has one owner.
        unsafe { std::ptr::read(&raw const this.0) }
    }
}

impl AsFd for QuickClose {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for QuickClose {
    #[inline]
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Drop for QuickClose {
    fn drop(&mut self) {
        stop_lingering(self.as_fd());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::fake_page;

    #[test]
    fn the_array_of_a_probe_is_a_whole_page_whatever_its_size() {
        for page in [4096, 16384, 65536] {
            fake_page::with(page, || {
                let (memory, start) = whole_page();
                assert!(start.is_multiple_of(page));
                assert!(memory.as_ptr_range().contains(&std::ptr::without_provenance(start)));
                assert!(start + page <= memory.as_ptr_range().end.addr());
            });
        }
    }

    #[test]
    fn arguments_have_the_kernels_layout() {
        #[cfg(feature = "compio")]
        assert_eq!(size_of::<SyncCancel>(), 64);
        #[cfg(feature = "compio")]
        assert_eq!(std::mem::offset_of!(SyncCancel, opcode), 32);
        assert_eq!(size_of::<RsrcRegister>(), 32);
        assert_eq!(size_of::<RsrcUpdate>(), 32);
        assert_eq!(std::mem::offset_of!(RsrcUpdate, nr), 24);
        assert_eq!(size_of::<CloneBuffers>(), 32);
        assert_eq!(std::mem::offset_of!(CloneBuffers, nr), 16);
        assert_eq!(size_of::<BufferRingRegister>(), 40);
        assert_eq!(size_of::<BufferRingStatus>(), 40);
        assert_eq!(std::mem::offset_of!(BufferRingStatus, head), 4);
        assert_eq!(std::mem::offset_of!(BufferRingRegister, flags), 14);
    }
}
