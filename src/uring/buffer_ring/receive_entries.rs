//! Entries of receives into a buffer ring: they name its group, and no memory.

use io_uring::{opcode, squeue, types};

use super::BufferRing;

impl BufferRing {
    /// An entry for a multishot receive into this ring (Linux 6.0). Add your `user_data`, push it,
    /// and arm it again when a completion's status asks for it.
    ///
    /// With [`bundles`](super::BufferRingOptions::bundles) it fills several slots a completion.
    pub fn receive_multi(&self, fd: types::Fd) -> squeue::Entry {
        if self.bundles {
            opcode::RecvMultiBundle::new(fd, self.group()).build()
        } else {
            opcode::RecvMulti::new(fd, self.group()).build()
        }
    }

    /// An entry for a receive of one message into this ring.
    pub fn receive_once(&self, fd: types::Fd) -> squeue::Entry {
        opcode::Recv::new(fd, std::ptr::null_mut(), 0)
            .buf_group(self.group())
            .build()
            .flags(squeue::Flags::BUFFER_SELECT)
    }

    /// An entry for a multishot read of a pipe, or of anything else that can be polled, into this
    /// ring (Linux 6.7).
    pub fn read_multi(&self, fd: types::Fd) -> squeue::Entry {
        // The offset of "where the file is".
        opcode::ReadMulti::new(fd, 0, self.group()).offset(u64::MAX).build()
    }

    /// An entry for one read of a pipe, or of anything else that can be polled, into this ring.
    pub fn read_once(&self, fd: types::Fd) -> squeue::Entry {
        opcode::Read::new(fd, std::ptr::null_mut(), self.slot_bytes)
            .offset(u64::MAX)
            .buf_group(self.group())
            .build()
            .flags(squeue::Flags::BUFFER_SELECT)
    }
}
