//! Plain epoll and read: what everybody can write in an afternoon; into one buffer, or into a
//! `BytesMut` that hands out `Bytes`.

use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use bytes::{BufMut, BytesMut};

use crate::receive::Shape;
use crate::receive::lockstep::Receiver;
use crate::receive::outlet::Outlet;

pub struct Epoll {
    poll: OwnedFd,
    events: Vec<libc::epoll_event>,
    sockets: Vec<TcpStream>,
    memory: Memory,
    slot_bytes: usize,
    outlet: Outlet,
}

/// Where the bytes go.
pub enum Memory {
    /// One buffer for all; nothing is handed out.
    Shared(Vec<u8>),
    /// Room for a message is reserved before each read, and split off after it.
    Split(BytesMut),
}

impl Epoll {
    pub fn start(
        sockets: Vec<TcpStream>,
        shape: Shape,
        memory: Memory,
        outlet: Outlet,
    ) -> io::Result<Self> {
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
                libc::epoll_ctl(
                    poll.as_raw_fd(),
                    libc::EPOLL_CTL_ADD,
                    socket.as_raw_fd(),
                    &mut event,
                )
            };
            if added != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; 1024];
        Ok(Self { poll, events, sockets, memory, slot_bytes: shape.slot_bytes(), outlet })
    }
}

/// Reads into the room behind what is there.
fn read_into(socket: &TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
    let room: &mut [MaybeUninit<u8>] = buffer.spare_capacity_mut();
    // SAFETY: the room is the buffer's alone and lives through the call.
    let length = unsafe { libc::read(socket.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: so many bytes were written by the kernel just now.
    unsafe { buffer.advance_mut(length) };
    Ok(length)
}

impl Receiver for Epoll {
    fn drain(&mut self, bytes: usize) -> io::Result<()> {
        let mut got = 0;
        while got < bytes {
            let room = self.events.len() as i32;
            // SAFETY: the list has room for so many events and lives through the call.
            let ready = unsafe {
                libc::epoll_wait(self.poll.as_raw_fd(), self.events.as_mut_ptr(), room, -1)
            };
            if ready < 0 {
                return Err(io::Error::last_os_error());
            }
            for event in &self.events[..ready as usize] {
                let mut socket = &self.sockets[event.u64 as usize];
                got += match &mut self.memory {
                    Memory::Shared(buffer) => socket.read(buffer)?,
                    Memory::Split(buffer) => {
                        buffer.reserve(self.slot_bytes);
                        let length = read_into(socket, buffer)?;
                        self.outlet.take(buffer.split().freeze());
                        length
                    }
                };
            }
        }
        Ok(())
    }
}
