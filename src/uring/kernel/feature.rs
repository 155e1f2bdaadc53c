//! The features that a kernel may lack, by name, with the version that brought each.

use std::fmt;
use std::io;

/// One feature of io_uring that a kernel may lack.
///
/// ```
/// use uring_arena::Feature;
///
/// assert_eq!(Feature::VectoredFixed.since(), "6.15");
/// assert_eq!(Feature::SendZc.to_string(), "zero-copy send");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum Feature {
    /// `READ_FIXED` and `WRITE_FIXED` on registered buffers.
    FixedBuffers,
    /// A table of registered buffers that is filled later (`IORING_RSRC_REGISTER_SPARSE`).
    SparseTable,
    /// `READV_FIXED` and `WRITEV_FIXED`.
    VectoredFixed,
    /// Registered buffers shared with another ring (`IORING_REGISTER_CLONE_BUFFERS`).
    CloneBuffers,
    /// Registered buffers cloned into a table that exists (`IORING_REGISTER_DST_REPLACE`).
    CloneInto,
    /// Provided-buffer rings (`IORING_REGISTER_PBUF_RING`).
    BufferRing,
    /// Several messages in one provided buffer (`IOU_PBUF_RING_INC`).
    IncrementalBuffers,
    /// A receive with many completions (`IORING_RECV_MULTISHOT`).
    RecvMultishot,
    /// Several buffers in one completion (`IORING_RECVSEND_BUNDLE`).
    Bundles,
    /// A read with many completions, for pipes and the like (`IORING_OP_READ_MULTISHOT`).
    ReadMultishot,
    /// An accept with many completions (`IORING_ACCEPT_MULTISHOT`).
    AcceptMultishot,
    /// `SEND_ZC`.
    SendZc,
    /// `SENDMSG_ZC`.
    SendMsgZc,
    /// A report whether a zero-copy send was copied (`IORING_SEND_ZC_REPORT_USAGE`).
    SendZcUsage,
    /// A cancel from outside the ring that waits for its end (`IORING_REGISTER_SYNC_CANCEL`).
    SyncCancel,
    /// One submitting thread, set at setup (`IORING_SETUP_SINGLE_ISSUER`).
    SingleIssuer,
    /// Completions that run when the owner asks for them (`IORING_SETUP_DEFER_TASKRUN`).
    DeferTaskrun,
    /// A short wait for more than one completion (`IORING_FEAT_MIN_TIMEOUT`).
    MinWait,
}

impl Feature {
    /// Every feature, oldest first.
    ///
    /// ```
    /// use uring_arena::{Feature, Probe};
    ///
    /// let probe = Probe::none().with(Feature::SendZc);
    /// let missing = Feature::ALL.iter().filter(|feature| !probe.has(**feature)).count();
    /// assert_eq!(missing, Feature::ALL.len() - 1);
    /// ```
    pub const ALL: [Feature; 18] = [
        Feature::FixedBuffers,
        Feature::SparseTable,
        Feature::BufferRing,
        Feature::AcceptMultishot,
        Feature::RecvMultishot,
        Feature::SendZc,
        Feature::SyncCancel,
        Feature::SingleIssuer,
        Feature::DeferTaskrun,
        Feature::SendMsgZc,
        Feature::SendZcUsage,
        Feature::ReadMultishot,
        Feature::Bundles,
        Feature::IncrementalBuffers,
        Feature::CloneBuffers,
        Feature::MinWait,
        Feature::CloneInto,
        Feature::VectoredFixed,
    ];

    /// Returns the name of the feature in a few words.
    ///
    /// ```
    /// assert_eq!(uring_arena::Feature::BufferRing.name(), "provided-buffer rings");
    /// ```
    pub fn name(self) -> &'static str {
        self.about().0
    }

    /// Returns the first kernel version that has the feature.
    ///
    /// ```
    /// assert_eq!(uring_arena::Feature::BufferRing.since(), "5.19");
    /// ```
    pub fn since(self) -> &'static str {
        self.about().1
    }

    fn about(self) -> (&'static str, &'static str) {
        match self {
            Feature::FixedBuffers => ("fixed buffers", "5.1"),
            Feature::SparseTable => ("sparse buffer table", "5.19"),
            Feature::VectoredFixed => ("vectored fixed I/O", "6.15"),
            Feature::CloneBuffers => ("cloning registered buffers", "6.12"),
            Feature::CloneInto => ("cloning into an existing table", "6.13"),
            Feature::BufferRing => ("provided-buffer rings", "5.19"),
            Feature::IncrementalBuffers => ("incremental buffer consumption", "6.12"),
            Feature::RecvMultishot => ("multishot receive", "6.0"),
            Feature::Bundles => ("receive bundles", "6.10"),
            Feature::ReadMultishot => ("multishot read", "6.7"),
            Feature::AcceptMultishot => ("multishot accept", "5.19"),
            Feature::SendZc => ("zero-copy send", "6.0"),
            Feature::SendMsgZc => ("vectored zero-copy send", "6.1"),
            Feature::SendZcUsage => ("zero-copy usage report", "6.2"),
            Feature::SyncCancel => ("synchronous cancel", "6.0"),
            Feature::SingleIssuer => ("single-issuer rings", "6.0"),
            Feature::DeferTaskrun => ("deferred task running", "6.1"),
            Feature::MinWait => ("minimum wait", "6.12"),
        }
    }

    pub(super) fn bit(self) -> u32 {
        1 << self as u8
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A feature that this kernel does not have.
///
/// ```
/// use uring_arena::{Feature, Probe};
///
/// let error = Probe::none().require(Feature::Bundles).unwrap_err();
/// assert_eq!(error.feature, Feature::Bundles);
/// assert!(error.to_string().contains("needs Linux 6.10"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} {}", feature.name(), why_missing(*feature, *is_filtered))]
#[non_exhaustive]
pub struct MissingFeatureError {
    /// The feature that is missing.
    pub feature: Feature,
    /// The kernel may have it: a filter of system calls answered in its place.
    pub is_filtered: bool,
}

/// Returns what forbids a ring, and the remedy, by the value of `kernel.io_uring_disabled`.
pub(crate) fn who_forbids(sysctl: Option<u32>) -> &'static str {
    match sysctl {
        Some(1) => {
            "kernel.io_uring_disabled=1; run with CAP_SYS_ADMIN, or as a member of the group in \
             `sysctl kernel.io_uring_group`, or `sysctl kernel.io_uring_disabled=0`"
        }
        Some(2..) => {
            "kernel.io_uring_disabled=2; nobody may use it until `sysctl kernel.io_uring_disabled=0`"
        }
        Some(0) | None => {
            "a seccomp filter or a security module forbids io_uring_setup, as container runtimes do by default; \
             use a profile that allows io_uring_setup, io_uring_enter and io_uring_register \
             (docker: --security-opt seccomp=PROFILE)"
        }
    }
}

fn why_missing(feature: Feature, is_filtered: bool) -> String {
    if is_filtered {
        return format!("was not found, because io_uring is filtered: {}", who_forbids(None));
    }
    format!("needs Linux {} or newer: this kernel does not offer it", feature.since())
}

debug_is_display!(MissingFeatureError);
into_io_error!(MissingFeatureError);

impl MissingFeatureError {
    /// Returns the kind of the error as an `io::Error`.
    pub(crate) fn kind(self) -> io::ErrorKind {
        if self.is_filtered { io::ErrorKind::PermissionDenied } else { io::ErrorKind::Unsupported }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_listed_once() {
        let bits = Feature::ALL.iter().fold(0u32, |bits, feature| bits | feature.bit());
        assert_eq!(bits.count_ones() as usize, Feature::ALL.len());
        assert_eq!(bits, (1 << Feature::ALL.len()) - 1);
    }
}
