//! Not receiving from a socket for a while: the bytes stay with the peer.

use super::{Driver, SocketId};
use crate::error::DriverError;

impl Driver {
    /// Stops receiving from a socket for now. Bytes that came before are still handed out; what the
    /// peer sends stays in the socket, and then with the peer. For consumers that cannot keep up:
    /// without it they hold ever more slots.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownSocket`] if it is closed already, or is a listener.
    ///
    /// ```
    /// # use std::io::Write;
    /// # use std::num::NonZeroUsize;
    /// # use std::time::Duration;
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let mut driver = match Driver::builder().build() {
    /// #     Err(error) => { eprintln!("skipped: {error}"); return Ok(()) }
    /// #     Ok(driver) => driver,
    /// # };
    /// # let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// # let (mut sender, socket) = std::os::unix::net::UnixStream::pair()?;
    /// let id = driver.receive(ring, socket)?;
    /// driver.pause(id)?;
    /// driver.wait_timeout(Duration::from_millis(10))?;
    /// sender.write_all(b"later")?;
    /// driver.wait_timeout(Duration::from_millis(10))?;
    /// assert!(driver.next().is_none());
    /// driver.resume(id)?;
    /// driver.wait()?;
    /// assert!(matches!(driver.next(), Some(Event::Received { .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub fn pause(&mut self, id: SocketId) -> Result<(), DriverError> {
        let key = id.0;
        let is_in_flight = self.operations.is_in_flight(key);
        let receive = self.operations.receive_mut(key).ok_or(DriverError::UnknownSocket)?;
        receive.paused = true;
        if is_in_flight && !receive.pausing {
            receive.pausing = true;
            self.cancel(key)?;
        }
        Ok(())
    }

    /// Goes on receiving from a socket that was [paused](Self::pause).
    ///
    /// # Errors
    ///
    /// As for `pause`.
    pub fn resume(&mut self, id: SocketId) -> Result<(), DriverError> {
        let receive = self.operations.receive_mut(id.0).ok_or(DriverError::UnknownSocket)?;
        receive.paused = false;
        let waits = receive.parked;
        if !waits && !self.operations.is_in_flight(id.0) {
            self.ended.push_back(id.0);
        }
        Ok(())
    }
}
