//! The server: it receives questions, and sends each answer from the address that was asked.

use std::error::Error;
use std::net::UdpSocket;
use std::time::Duration;

use uring_arena::{
    BufferRing, DatagramDetails, Destination, Driver, Event, FixedArena, Payload, SocketId,
};

use super::zone::{ANSWER_MAX, Zone, answer};

/// The server: questions come in slots of one arena, and answers go out of those of another.
pub struct Server {
    pub driver: Driver,
    pub arena: FixedArena,
    pub answers: FixedArena,
    socket: SocketId,
    zone: Zone,
    pub answered: u64,
    /// The questions that found no buffer, and the answers that the network did not take.
    pub lost: u64,
}

impl Server {
    pub fn new(socket: UdpSocket, names: usize) -> Result<Server, Box<dyn Error>> {
        DatagramDetails::new().destination().enable(&socket)?;
        let (arena, answers) = (FixedArena::new(1024, 1024)?, FixedArena::new(1024, ANSWER_MAX)?);
        let mut driver = Driver::builder().build()?;
        let ring = BufferRing::options().entries(512).datagram_details(true);
        let ring = driver.register_buffer_ring(&arena, ring)?;
        let socket = driver.receive_datagrams(ring, socket)?;
        let zone = Zone::new(names);
        Ok(Server { driver, arena, answers, socket, zone, answered: 0, lost: 0 })
    }

    /// Waits for questions, but not longer than `limit`, and answers them.
    pub fn turn(&mut self, limit: Option<Duration>) -> Result<(), Box<dyn Error>> {
        match limit {
            Some(limit) => drop(self.driver.wait_timeout(limit)?),
            None => self.driver.wait()?,
        }
        while let Some(event) = self.driver.next_arena_bytes() {
            match event {
                Event::Datagram { datagram, .. } => {
                    let Some(sender) = Destination::reply_to(&datagram) else { continue };
                    let Ok(mut buffer) = self.answers.allocate() else {
                        self.lost += 1;
                        continue;
                    };
                    if answer(&datagram.bytes, &self.zone, &mut buffer) {
                        self.driver.send_to(self.socket, Payload::from(buffer), sender)?;
                    }
                }
                Event::Sent { result: Ok(_), .. } => self.answered += 1,
                Event::Sent { .. } => self.lost += 1,
                Event::Closed { error, .. } => {
                    let reason = error.map_or("it was closed".into(), |error| error.to_string());
                    return Err(format!("the socket failed: {reason}").into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}
