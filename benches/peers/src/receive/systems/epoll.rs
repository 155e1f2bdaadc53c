//! Plain epoll and read: what everybody can write in an afternoon; into one buffer, or into a
//! `BytesMut` that hands out `Bytes`.

use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use bytes::{BufMut, BytesMut};

use crate::receive::receiver::{Outlet, Receiver};
use crate::receive::wire::Shape;

struct Epoll {
    poll: OwnedFd,
    events: Vec<libc::epoll_event>,
    sockets: Vec<TcpStream>,
    memory: Memory,
    slot_bytes: usize,
    outlet: Outlet,
}

/// The memory that the bytes go to.
enum Memory {
    /// One buffer for all; nothing is handed out.
    Shared(Vec<u8>),
    /// Room for a message is reserved before each read, and split off after it.
    Split(BytesMut),
}

pub fn start(
    sockets: Vec<TcpStream>,
    shape: Shape,
    outlet: Outlet,
    splits: bool,
) -> io::Result<Box<dyn Receiver>> {
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
        let (poll, socket) = (poll.as_raw_fd(), socket.as_raw_fd());
        // SAFETY: both descriptors are open, the event lives through the call.
        if unsafe { libc::epoll_ctl(poll, libc::EPOLL_CTL_ADD, socket, &mut event) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let slot_bytes = shape.slot_bytes();
    let memory = match splits {
        true => Memory::Split(BytesMut::new()),
        false => Memory::Shared(vec![0; slot_bytes]),
    };
    let events = vec![libc::epoll_event { events: 0, u64: 0 }; 1024];
    Ok(Box::new(Epoll { poll, events, sockets, memory, slot_bytes, outlet }))
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
