//! What the kernel took out of a buffer ring and told of in no completion.
//!
//! A receive that a worker thread of the kernel runs (`IOSQE_ASYNC`, or a file that can't be
//! polled) takes its slot when it begins. If it is cancelled on the way, its completion should
//! still name the slot; where it does not, the slot is missing from then on, and the place in the
//! ring with it, because places are posted to again in their order. The kernel's own count of what
//! it took (`IORING_REGISTER_PBUF_STATUS`) shows the difference.
//!
//! # Safety
//!
//! Unsafe here: taking back slots that the kernel had, on the caller's word that no receive is
//! under way.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;

use super::BufferRing;
use super::syscall;
use crate::error::RingError;

impl BufferRing {
    /// Takes back the slots that receives have used up without saying so, and says how many there
    /// were; they are published again with the next [`refill`](Self::refill).
    ///
    /// Asks the kernel how far it has come in the ring (`IORING_REGISTER_PBUF_STATUS`, Linux 6.8)
    /// and compares that with the completions seen. An older kernel can't be asked: then nothing is
    /// taken back before [`unregister`](Self::unregister), which frees everything. Needed only if
    /// receives of this ring are cancelled that worker threads of the kernel run; taking the ring
    /// down with [`unregister_on`](Self::unregister_on) does it by itself.
    /// [`BufferRingMetrics::unreported_slots`](super::BufferRingMetrics) counts them.
    ///
    /// # Errors
    ///
    /// [`RingError::Refused`] with what the kernel answered.
    ///
    /// # Safety
    ///
    /// `ring` is the io_uring that this was registered on, and no receive that names this group is
    /// in flight: the final completion of each was seen, and handed in.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use io_uring::IoUring;
    /// # use uring_arena::{BufferRing, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let uring = match IoUring::new(8) {
    /// #     Err(error) => { eprintln!("skipped: io_uring: {error}"); return Ok(()) }
    /// #     Ok(uring) => uring,
    /// # };
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(64).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # // SAFETY: nothing is received through this ring, and it is unregistered below.
    /// # let mut ring = unsafe { BufferRing::register_on(&uring, &arena, BufferRing::options())? };
    /// // SAFETY: of this ring, on which nothing is received.
    /// let taken_back = unsafe { ring.reconcile(&uring)? };
    /// assert_eq!(taken_back, 0);
    /// # // SAFETY: as above.
    /// # unsafe { ring.unregister_on(&uring)? };
    /// # Ok(())
    /// # }
    /// ```
    pub unsafe fn reconcile(&mut self, ring: &impl AsRawFd) -> Result<usize, RingError> {
        if !self.registered {
            return Ok(0);
        }
        match syscall::buffer_ring_head(ring.as_raw_fd(), self.group()) {
            Ok(head) => Ok(self.take_back(head)),
            // Before 6.8: no such request.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(0),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                Err(RingError::Refused { action: "ask how far a buffer ring was used", errno })
            }
        }
    }

    /// Takes back what lies before the kernel's `head` and was told of in no completion.
    pub(super) fn take_back(&mut self, head: u16) -> usize {
        let first = self.shadow.head();
        // Both count modulo 2¹⁶, and a ring has fewer places.
        let used = head.wrapping_sub(first as u16);
        if u32::from(used) > self.shadow.posted() {
            // Behind us: completions told of more than the kernel took. Those were not this ring's;
            // nothing is to be had back.
            self.metrics.unmatched_completions += 1;
            return 0;
        }
        let mut taken = 0;
        for place in 0..u32::from(used) {
            if let Some(lease) = self.shadow.take(first.wrapping_add(place)) {
                // A receive that failed on the way may have written any of it.
                lease.record_written(self.slot_bytes());
                self.recycle(lease);
                taken += 1;
            }
        }
        self.metrics.unreported_slots += taken as u64;
        taken
    }
}
