//! Sockets that found no slot, and are armed again when slots have come back: never by a timer,
//! never by spinning.
//!
//! A multishot receive takes its slot first: on an empty ring it ends at once, with or without
//! data. So a starved socket is armed again only after its ring has slots. While none is to be had
//! the ring waits in the arena's queue like everybody else, and the free that serves it wakes the
//! driver.

use super::socket::Phase;
use super::sockets::Sockets;
use crate::driver::DriverError;
use crate::driver::rings::{Ring, Rings};
use crate::driver::submitter::Submitter;
use crate::driver::wakeup::Wakeup;

impl Sockets {
    /// Publishes the slots that came back, and arms starved sockets on them.
    ///
    /// Returns `true` if slots still lie ready and sockets still wait: they can be armed when the
    /// kernel has tried these.
    pub(in crate::driver) fn refill_and_rearm(
        &mut self,
        rings: &mut Rings,
        wakeup: &mut Wakeup,
        submitter: &mut Submitter,
    ) -> Result<bool, DriverError> {
        let mut is_unfinished = false;
        for ring in rings.iter_mut() {
            if ring.starved.count() == 0 {
                ring.buffers.refill_in_bulk();
            } else {
                let ready = ring.refill_or_wait(wakeup, submitter)?;
                is_unfinished |= self.arm_starved(ring, ready, submitter)?;
            }
        }
        Ok(is_unfinished)
    }

    /// Arms as many starved sockets as slots lie ready. Returns `true` if there are more of both.
    fn arm_starved(
        &mut self,
        ring: &mut Ring,
        ready: usize,
        submitter: &mut Submitter,
    ) -> Result<bool, DriverError> {
        for _ in 0..ready {
            let Some(key) = ring.starved.pop(|key| self.is_starved(key)) else { break };
            if let Err(error) = self.arm(key, Some(ring), submitter) {
                // Nothing was pushed: the socket keeps its turn.
                if let Some(socket) = self.table.get_mut(key) {
                    socket.phase = Phase::Starved;
                }
                ring.starved.push_front(key);
                return Err(error);
            }
        }
        ring.stop_waiting_if_idle();
        Ok(ready > 0 && ring.starved.count() > 0)
    }
}
