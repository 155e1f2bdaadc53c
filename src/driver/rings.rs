//! The buffer rings of a driver.
//!
//! # Safety
//!
//! Unsafe here: registering a ring, whose contract the driver keeps: it owns the io_uring, its
//! table says which completion is a receive of which ring, and it takes a ring down only when
//! nothing is in flight on it.
#![allow(unsafe_code)]

use super::starved::Starved;
use super::{BufferRingId, Driver};
use crate::FixedArena;
use crate::error::{DriverError, RingError};
use crate::uring::{BufferRing, BufferRingMetrics, BufferRingOptions, Feature};

/// One buffer ring and who waits for its slots.
pub(super) struct Ring {
    pub(super) buffers: BufferRing,
    pub(super) starved: Starved,
    /// Sockets that receive into it.
    pub(super) sockets: usize,
}

/// The rings of one driver, by number. A number is not given out again.
#[derive(Default)]
pub(super) struct Rings {
    rings: Vec<Option<Ring>>,
}

impl Rings {
    #[inline]
    pub(super) fn get_mut(&mut self, ring: u32) -> Option<&mut Ring> {
        self.rings.get_mut(ring as usize)?.as_mut()
    }

    pub(super) fn get(&self, ring: u32) -> Option<&Ring> {
        self.rings.get(ring as usize)?.as_ref()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Ring> {
        self.rings.iter().flatten()
    }

    /// The numbers given out so far: from zero to here.
    pub(super) fn numbers(&self) -> std::ops::Range<u32> {
        0..self.rings.len() as u32
    }

    pub(super) fn take(&mut self, ring: u32) -> Option<Ring> {
        self.rings.get_mut(ring as usize)?.take()
    }

    fn group_is_taken(&self, group: u16) -> bool {
        self.iter().any(|ring| ring.buffers.group() == group)
    }
}

impl Driver {
    /// Makes a buffer ring fed from `arena`, for [`receive`](Self::receive). Several rings may
    /// share an arena.
    ///
    /// # Errors
    ///
    /// [`RingError`]: a number of entries that the kernel does not take, an arena of more than
    /// 65,536 slots, a group id in use, a kernel older than 5.19, memory that is refused.
    pub fn register_buffer_ring(
        &mut self,
        arena: &FixedArena,
        options: BufferRingOptions,
    ) -> Result<BufferRingId, RingError> {
        let options = match options.group_id() {
            Some(_) => options,
            None => options.group(self.free_group()?),
        };
        if !self.forms.has(Feature::BufferRing) {
            return Err(RingError::Unsupported {
                what: "provided-buffer rings",
                since: Feature::BufferRing.since(),
            });
        }
        let bundles =
            self.forms.has(Feature::Bundles) && self.uring.params().is_feature_recvsend_bundle();
        let bundles = options.wants_bundles() && bundles;
        let incremental =
            options.wants_incremental() && self.forms.has(Feature::IncrementalBuffers);
        let options = options.bundles(bundles).incremental(incremental);
        // SAFETY: the driver keeps the contract (see the head of this file).
        let buffers = unsafe { BufferRing::register(&self.uring, arena, options)? };
        self.rings.rings.push(Some(Ring { buffers, starved: Starved::default(), sockets: 0 }));
        Ok(BufferRingId { driver: self.number, ring: self.rings.rings.len() as u32 - 1 })
    }

    fn free_group(&self) -> Result<u16, RingError> {
        (0..=u16::MAX)
            .find(|&group| !self.rings.group_is_taken(group))
            .ok_or(RingError::NoGroupLeft { limit: 1 << 16 })
    }

    pub(super) fn ring_number(&self, id: BufferRingId) -> Result<u32, DriverError> {
        match self.rings.get(id.ring) {
            Some(_) if id.driver == self.number => Ok(id.ring),
            _ => Err(DriverError::UnknownRing),
        }
    }

    /// A snapshot of the counters of one ring.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownRing`] if the ring is not one of this driver's, or was taken down.
    pub fn ring_metrics(&self, id: BufferRingId) -> Result<BufferRingMetrics, DriverError> {
        let ring = self.ring_number(id)?;
        self.rings.get(ring).map(|ring| ring.buffers.metrics()).ok_or(DriverError::UnknownRing)
    }

    /// Whether the ring lets several messages share a slot: asked for, and the kernel can (6.12).
    ///
    /// # Errors
    ///
    /// As for [`ring_metrics`](Self::ring_metrics).
    pub fn ring_is_incremental(&self, id: BufferRingId) -> Result<bool, DriverError> {
        let ring = self.ring_number(id)?;
        self.rings
            .get(ring)
            .map(|ring| ring.buffers.is_incremental())
            .ok_or(DriverError::UnknownRing)
    }

    /// Takes one ring down, whose sockets are all closed; its slots are free again. Bytes that came
    /// through it stay valid.
    ///
    /// # Errors
    ///
    /// [`RingError::InUse`] while sockets receive into it; [`RingError::Unknown`] if it is not one
    /// of this driver's, or was taken down before; [`RingError::Refused`] if the kernel does not
    /// give it back: then its slots are quarantined.
    pub fn unregister_buffer_ring(&mut self, id: BufferRingId) -> Result<(), RingError> {
        let number = self.ring_number(id).map_err(|_| RingError::Unknown)?;
        let sockets = self.rings.get(number).map_or(0, |ring| ring.sockets);
        if sockets > 0 {
            return Err(RingError::InUse { sockets });
        }
        self.unregister(number)
    }

    fn unregister(&mut self, number: u32) -> Result<(), RingError> {
        let Some(mut ring) = self.rings.take(number) else { return Ok(()) };
        debug_assert_eq!(ring.sockets, 0);
        // SAFETY: registered on this ring, and no receive is in flight on it: each has a socket in
        // the table.
        let answer = unsafe { ring.buffers.unregister(&self.uring) };
        self.metrics.unreported_slots += ring.buffers.metrics().unreported_slots;
        answer
    }

    /// Takes down every ring. Nothing may be in flight: a ring that the kernel does not give back
    /// is quarantined.
    pub(super) fn unregister_rings(&mut self) {
        debug_assert_eq!(self.operations.in_flight(), 0);
        for number in self.rings.numbers() {
            if let Err(error) = self.unregister(number) {
                tracing::error!(%error, "a buffer ring stays registered: its slots are quarantined");
            }
        }
    }
}
