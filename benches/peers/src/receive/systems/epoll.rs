//! Plain epoll and read: what everybody can write in an afternoon.

use std::io::{self, Read};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::receive::Shape;
use crate::receive::lockstep::Receiver;

pub struct Epoll {
    poll: OwnedFd,
    events: Vec<libc::epoll_event>,
    sockets: Vec<TcpStream>,
    buffer: Vec<u8>,
}

impl Epoll {
    pub fn start(sockets: Vec<TcpStream>, shape: Shape) -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let poll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if poll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and nobody else owns it.
        let poll = unsafe { OwnedFd::from_raw_fd(poll) };
        for (index, socket) in sockets.iter().enumerate() {
            socket.set_nonblocking(true)?;
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: index as u64 };
            // SAFETY: both descriptors are open, the event lives through the call.
            let added = unsafe {
                libc::epoll_ctl(poll.as_raw_fd(), libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &mut event)
            };
            if added != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; 1024];
        Ok(Self { poll, events, sockets, buffer: vec![0; shape.slot_bytes()] })
    }
}

impl Receiver for Epoll {
    fn drain(&mut self, bytes: usize) -> io::Result<()> {
        let mut got = 0;
        while got < bytes {
            let room = self.events.len() as i32;
            // SAFETY: the list has room for so many events and lives through the call.
            let ready =
                unsafe { libc::epoll_wait(self.poll.as_raw_fd(), self.events.as_mut_ptr(), room, -1) };
            if ready < 0 {
                return Err(io::Error::last_os_error());
            }
            for event in &self.events[..ready as usize] {
                let mut socket = &self.sockets[event.u64 as usize];
                got += socket.read(&mut self.buffer)?;
            }
        }
        Ok(())
    }
}
