//! Datagrams by plain system calls, several by one call:
//! [recvmmsg(2)](https://man7.org/linux/man-pages/man2/recvmmsg.2.html),
//! [sendmmsg(2)](https://man7.org/linux/man-pages/man2/sendmmsg.2.html). No call waits.
//!
//! # Safety
//!
//! Unsafe here: empty message headers, whose pointers are then set to memory that lives during the
//! call; and counting the bytes as written that the kernel says that it wrote.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::buffer_ring::Datagram;
use super::kernel::{NAME_BYTES_MAX, RECEIVE_CONTROL_BYTES};
use super::operation::{Addressed, Destination};
use crate::buffer::{Buffer, Payload, Span};

/// The most datagrams that one call moves.
pub(crate) const DATAGRAMS_MAX: usize = 32;

/// Words of the control messages of one datagram.
const CONTROL_WORDS: usize = RECEIVE_CONTROL_BYTES / size_of::<usize>();

/// What comes beside the bytes of one datagram.
#[derive(Clone, Copy)]
struct Envelope {
    name: [u8; NAME_BYTES_MAX],
    control: [usize; CONTROL_WORDS],
    name_bytes: usize,
    control_bytes: usize,
    flags: libc::c_int,
    bytes: usize,
}

/// An empty message header.
fn empty_header() -> libc::msghdr {
    // SAFETY: plain integers and pointers: all zero is a value.
    unsafe { std::mem::zeroed() }
}

impl Envelope {
    const EMPTY: Envelope = Envelope {
        name: [0; NAME_BYTES_MAX],
        control: [0; CONTROL_WORDS],
        name_bytes: 0,
        control_bytes: 0,
        flags: 0,
        bytes: 0,
    };

    /// Returns the header of a receive into `room`, and into the envelope.
    fn header(&mut self, room: &mut libc::iovec, has_control: bool) -> libc::msghdr {
        let mut header = empty_header();
        header.msg_name = self.name.as_mut_ptr().cast();
        header.msg_namelen = NAME_BYTES_MAX as libc::socklen_t;
        header.msg_iov = room;
        header.msg_iovlen = 1;
        if has_control {
            header.msg_control = self.control.as_mut_ptr().cast();
            header.msg_controllen = RECEIVE_CONTROL_BYTES as _;
        }
        header
    }

    /// Takes down what the kernel has set in the header of a receive.
    fn note(&mut self, header: &libc::msghdr, bytes: usize) {
        self.name_bytes = header.msg_namelen as usize;
        self.control_bytes = header.msg_controllen as usize;
        self.flags = header.msg_flags;
        self.bytes = bytes;
    }

    fn datagram(&self) -> Datagram<()> {
        let name = &self.name[..self.name_bytes.min(NAME_BYTES_MAX)];
        let mut control = [0; RECEIVE_CONTROL_BYTES];
        let used = self.control_bytes.min(RECEIVE_CONTROL_BYTES);
        let words = self.control[..used.div_ceil(size_of::<usize>())].iter();
        let bytes = words.flat_map(|word| word.to_ne_bytes());
        control.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        Datagram::new(name, self.name_bytes, &control[..used], self.flags, self.bytes)
    }
}

/// The receiving side of a datagram socket: room for what comes beside the bytes.
pub(crate) struct Inbox {
    envelopes: Vec<Envelope>,
    has_control: bool,
}

impl Inbox {
    /// Makes an inbox. Without `has_control` the kernel drops all control messages: those of a Unix
    /// socket would be open descriptors of the sender's.
    pub(crate) fn new(has_control: bool) -> Inbox {
        Inbox { envelopes: Vec::new(), has_control }
    }

    /// Receives a datagram into the room of each buffer, as far as some wait. Returns their number,
    /// which is at least one.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        buffers: &mut [Buffer],
    ) -> io::Result<usize> {
        let count = buffers.len().min(DATAGRAMS_MAX);
        if self.envelopes.len() < count {
            self.envelopes.resize(count, Envelope::EMPTY);
        }
        match buffers {
            [] => Err(io::ErrorKind::InvalidInput.into()),
            [buffer] => self.receive_one(socket, buffer).map(|()| 1),
            buffers => self.receive_several(socket, &mut buffers[..count]),
        }
    }

    fn receive_one(&mut self, socket: BorrowedFd<'_>, buffer: &mut Buffer) -> io::Result<()> {
        let mut room = room_of(buffer);
        let mut header = self.envelopes[0].header(&mut room, self.has_control);
        // SAFETY: the header points to an envelope and to the room of a buffer, which are borrowed
        // mutably and live during the call.
        let answer =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
        let bytes = usize::try_from(answer).map_err(|_| io::Error::last_os_error())?;
        self.envelopes[0].note(&header, bytes);
        count_as_written(buffer, bytes);
        Ok(())
    }

    fn receive_several(
        &mut self,
        socket: BorrowedFd<'_>,
        buffers: &mut [Buffer],
    ) -> io::Result<usize> {
        let mut rooms = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; DATAGRAMS_MAX];
        let mut headers = [libc::mmsghdr { msg_hdr: empty_header(), msg_len: 0 }; DATAGRAMS_MAX];
        for (index, buffer) in buffers.iter_mut().enumerate() {
            rooms[index] = room_of(buffer);
            let envelope = &mut self.envelopes[index];
            headers[index].msg_hdr = envelope.header(&mut rooms[index], self.has_control);
        }
        let (fd, count) = (socket.as_raw_fd(), buffers.len() as libc::c_uint);
        let (flags, no_time) = (libc::MSG_DONTWAIT as _, ptr::null_mut());
        // SAFETY: each header points to an envelope and to the room of a buffer, which are borrowed
        // mutably and live during the call; `count` headers are there.
        let answer = unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), count, flags, no_time) };
        let came = usize::try_from(answer).map_err(|_| io::Error::last_os_error())?;
        for (index, buffer) in buffers.iter_mut().take(came).enumerate() {
            let bytes = headers[index].msg_len as usize;
            self.envelopes[index].note(&headers[index].msg_hdr, bytes);
            count_as_written(buffer, bytes);
        }
        Ok(came)
    }

    /// Returns the datagram of the last receive that lies in the buffer of this index, without its
    /// bytes.
    pub(crate) fn datagram<B>(&self, index: usize, bytes: B) -> Datagram<B> {
        self.envelopes[index].datagram().map(|()| bytes)
    }
}

/// Returns the room of a buffer.
fn room_of(buffer: &mut Buffer) -> libc::iovec {
    let spare = buffer.spare_capacity_mut();
    libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len() }
}

/// Counts what a receive wrote to the room of a buffer.
fn count_as_written(buffer: &mut Buffer, bytes: usize) {
    // The length of a datagram that was cut may be told, too.
    let len = buffer.capacity().min(buffer.len() + bytes);
    // SAFETY: at most the capacity, and the kernel wrote as many bytes behind those of before.
    unsafe { buffer.set_len(len) };
}

/// Sends one datagram.
pub(crate) fn send_datagram(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    destination: &Destination,
) -> io::Result<()> {
    let mut parts = destination.parts();
    let header = parts.prepare(Span::of(bytes));
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the header points into `parts` and to `bytes`, which live during the call, and the
    // kernel reads them only.
    let answer = unsafe { libc::sendmsg(socket.as_raw_fd(), header, flags) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends the first datagrams of `batch`, each whole. Returns their number, which is at least one;
/// the error is that of the first one.
pub(crate) fn send_datagrams(
    socket: BorrowedFd<'_>,
    batch: &mut [Addressed<Payload>],
) -> io::Result<usize> {
    let mut headers = [libc::mmsghdr { msg_hdr: empty_header(), msg_len: 0 }; DATAGRAMS_MAX];
    let count = batch.len().min(DATAGRAMS_MAX);
    for (header, datagram) in headers.iter_mut().zip(batch) {
        // SAFETY: reads the header of a datagram, which is valid while that is borrowed.
        header.msg_hdr = unsafe { ptr::read(datagram.header()) };
    }
    let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _;
    let (fd, first) = (socket.as_raw_fd(), headers.as_mut_ptr());
    // SAFETY: each header points into its datagram and to the bytes of that, which are borrowed
    // during the call, and the kernel reads them only; `count` headers are there.
    let answer = unsafe { libc::sendmmsg(fd, first, count as libc::c_uint, flags) };
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}
