//! The server on the runtime: a task for each connection, a slot for each message.

use std::io;
use std::net::TcpStream;
use std::rc::Rc;

use uring_arena::FixedArena;

use super::executor::Runtime;
use super::server::SLOT_BYTES;

pub fn serve(sockets: Vec<TcpStream>) -> io::Result<()> {
    let size = |number: usize| number.try_into().map_err(io::Error::other);
    let arena =
        FixedArena::with_slot_capacity(size(sockets.len())?, size(SLOT_BYTES)?).alignment(4096);
    let arena = arena.build().map_err(io::Error::other)?;
    let runtime = Runtime::new(&arena).map_err(|error| io::Error::other(error.to_string()))?;
    for socket in sockets {
        let (ring, arena, socket) = (runtime.ring.clone(), arena.clone(), Rc::new(socket));
        runtime.spawn(async move {
            loop {
                let slot = arena.allocate().map_err(io::Error::other)?;
                match ring.read(socket.clone(), slot).await? {
                    (0, _) => return Ok(()),
                    (_, slot) => ring.send(socket.clone(), slot).await?,
                };
            }
        });
    }
    runtime.run()
}
