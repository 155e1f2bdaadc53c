//! Many datagrams by one call (`recvmmsg`, `sendmmsg`): the plain loop, and the client of all.
//!
//! # Safety
//!
//! The headers point into boxes beside them, which stay where they are.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use super::dns::IN_FLIGHT;
use super::zone::{ANSWER_MAX, Zone, answer};

/// Room for the address that a datagram was sent to.
const CONTROL_BYTES: usize = 64;

/// One message with all that its header points to.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Message {
    control: [u8; CONTROL_BYTES],
    name: libc::sockaddr_storage,
    part: libc::iovec,
    bytes: [u8; ANSWER_MAX],
}

/// A list of as many messages as one call moves.
pub struct Messages {
    headers: Box<[libc::mmsghdr]>,
    messages: Box<[Message]>,
    has_names: bool,
}

impl Messages {
    /// Makes messages of a connected socket.
    pub fn new() -> Messages {
        // SAFETY: numbers and pointers: all zero is a value.
        let (header, message): (libc::mmsghdr, Message) = unsafe { std::mem::zeroed() };
        let (headers, messages) = (vec![header; IN_FLIGHT], vec![message; IN_FLIGHT]);
        Messages { headers: headers.into(), messages: messages.into(), has_names: false }
    }

    pub fn set(&mut self, at: usize, bytes: &[u8]) {
        self.messages[at].bytes[..bytes.len()].copy_from_slice(bytes);
        self.headers[at].msg_len = bytes.len() as u32;
    }

    pub fn bytes(&self, at: usize) -> &[u8] {
        &self.messages[at].bytes[..self.headers[at].msg_len as usize]
    }

    /// Points the header of a message to its parts.
    fn prepare(&mut self, at: usize, len: usize, control_bytes: usize) {
        let message = &mut self.messages[at];
        message.part = libc::iovec { iov_base: message.bytes.as_mut_ptr().cast(), iov_len: len };
        let header = &mut self.headers[at].msg_hdr;
        (header.msg_iov, header.msg_iovlen) = (&raw mut message.part, 1);
        if self.has_names {
            header.msg_name = (&raw mut message.name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
            header.msg_control = message.control.as_mut_ptr().cast();
            header.msg_controllen = control_bytes;
        }
    }

    /// Sends the first messages, all of them.
    pub fn send(&mut self, socket: &UdpSocket, count: usize) -> io::Result<()> {
        for at in 0..count {
            let len = self.headers[at].msg_len as usize;
            let name_len = size_of::<libc::sockaddr_in>();
            let control = self.headers[at].msg_hdr.msg_controllen;
            self.prepare(at, len, control);
            if self.has_names {
                self.headers[at].msg_hdr.msg_namelen = name_len as u32;
            }
        }
        let mut sent = 0;
        while sent < count {
            let headers = &mut self.headers[sent..count];
            // SAFETY: the headers and what they point to are live during the call.
            let more = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), headers.len() as u32, 0)
            };
            sent += usize::try_from(more).map_err(|_| io::Error::last_os_error())?;
        }
        Ok(())
    }

    /// Waits for a message, and takes all that are there. Returns how many.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        (0..IN_FLIGHT).for_each(|at| self.prepare(at, ANSWER_MAX, CONTROL_BYTES));
        // SAFETY: as in `send`.
        let came = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                IN_FLIGHT as u32,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(came).map_err(|_| io::Error::last_os_error())
    }
}

/// Answers from the address that was asked, as the driver's server does.
pub fn serve(socket: &UdpSocket, zone: &Zone) -> io::Result<()> {
    let yes = 1i32;
    // SAFETY: the number is live during the call.
    let answer_of_call = unsafe {
        let value = (&raw const yes).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO, value, 4)
    };
    if answer_of_call != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut questions = Messages { has_names: true, ..Messages::new() };
    let mut answers = Messages { has_names: true, ..Messages::new() };
    loop {
        let came = questions.receive(socket)?;
        let mut count = 0;
        for at in 0..came {
            let to = &mut answers.messages[count];
            let mut room = &mut to.bytes[..];
            if !answer(questions.bytes(at), zone, &mut room) {
                continue;
            }
            answers.headers[count].msg_len = (ANSWER_MAX - room.len()) as u32;
            let to = &mut answers.messages[count];
            to.name = questions.messages[at].name;
            // The address that was asked is the source; whichever device leads there.
            to.control = questions.messages[at].control;
            let device = size_of::<libc::cmsghdr>();
            to.control[device..device + 4].fill(0);
            let control = questions.headers[at].msg_hdr.msg_controllen;
            answers.headers[count].msg_hdr.msg_controllen = control;
            count += 1;
        }
        answers.send(socket, count)?;
    }
}
