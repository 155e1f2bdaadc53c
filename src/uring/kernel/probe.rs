//! One look at what this kernel lets this user do.
//!
//! # Safety
//!
//! Unsafe here: pushing entries that name no memory.
#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

use io_uring::{IoUring, opcode, squeue, types};

use super::Feature;
use super::syscalls::{self, Cloned};
use super::unavailable::unavailable;
use crate::error::{MissingFeatureError, UnavailableError};

/// Entries of the rings that are made to look.
const ENTRIES: u32 = 4;

/// A descriptor that is never open: entries that name it get past the kernel's check of their flags
/// and no further.
const NO_FD: types::Fd = types::Fd(-1);

/// `IOU_PBUF_RING_INC`.
const RING_INC: u16 = 2;

/// `IORING_SEND_ZC_REPORT_USAGE`, which the io-uring crate does not export.
pub(in crate::uring) const SEND_ZC_REPORT_USAGE: u16 = 8;

/// What this kernel lets this user do.
///
/// Nothing is concluded from a version number: what no flag announces is tried, on rings made for
/// that and dropped again. [`without`](Probe::without) takes a feature away, to see how a program
/// does on an older kernel.
///
/// ```
/// use uring_arena::{Feature, Probe};
///
/// match Probe::new() {
///     Ok(probe) => {
///         let older = probe.without(Feature::SendZc);
///         assert!(!older.has(Feature::SendZc));
///         assert_eq!(
///             older.require(Feature::SendZc).unwrap_err().to_string(),
///             "zero-copy send needs Linux 6.0 or newer: this kernel does not offer it",
///         );
///     }
///     Err(error) => println!("{error}"),
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    features: u32,
}

impl Probe {
    /// Looks: makes a few small rings and tries what they can do. Milliseconds; keep the answer.
    ///
    /// # Errors
    ///
    /// [`UnavailableError`] if io_uring is not there or not allowed, with the remedy.
    pub fn new() -> Result<Probe, UnavailableError> {
        let ring: IoUring = IoUring::new(ENTRIES)
            .map_err(|error| unavailable(ENTRIES, error.raw_os_error().unwrap_or(0)))?;
        let mut probe = Probe { features: 0 };
        probe.ask_for_opcodes(&ring);
        probe.note(Feature::Bundles, ring.params().is_feature_recvsend_bundle());
        probe.note(Feature::MinWait, ring.params().is_feature_min_timeout());
        probe.note(Feature::BufferRing, syscalls::try_buffer_ring(ring.as_raw_fd(), 0).is_ok());
        probe.note(
            Feature::IncrementalBuffers,
            syscalls::try_buffer_ring(ring.as_raw_fd(), RING_INC).is_ok(),
        );
        probe.note(Feature::SyncCancel, knows_sync_cancel(&ring));
        probe.try_entries(ring);
        probe.try_tables();
        probe.try_setup();
        Ok(probe)
    }

    /// The answer of the first look of this process.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn shared() -> Result<Probe, UnavailableError> {
        static FIRST: OnceLock<Result<Probe, UnavailableError>> = OnceLock::new();
        FIRST.get_or_init(Probe::new).clone()
    }

    /// A kernel that offers nothing but io_uring itself, for tests.
    pub fn none() -> Probe {
        Probe { features: 0 }
    }

    /// A kernel that offers everything.
    pub(crate) fn all() -> Probe {
        Feature::ALL.into_iter().fold(Probe::none(), Probe::with)
    }

    /// Whether the feature is there.
    #[inline]
    pub fn has(self, feature: Feature) -> bool {
        self.features & feature.bit() != 0
    }

    /// Asks for a feature.
    ///
    /// # Errors
    ///
    /// [`MissingFeatureError`], which names the version that brought it.
    pub fn require(self, feature: Feature) -> Result<(), MissingFeatureError> {
        if self.has(feature) { Ok(()) } else { Err(MissingFeatureError { feature }) }
    }

    /// The same kernel without `feature`.
    #[must_use]
    pub fn without(self, feature: Feature) -> Probe {
        Probe { features: self.features & !feature.bit() }
    }

    /// The same kernel with `feature`, whether or not it is true.
    #[must_use]
    pub fn with(self, feature: Feature) -> Probe {
        Probe { features: self.features | feature.bit() }
    }

    fn note(&mut self, feature: Feature, there: bool) {
        if there {
            *self = self.with(feature);
        }
    }

    fn ask_for_opcodes(&mut self, ring: &IoUring) {
        let mut opcodes = io_uring::Probe::new();
        if ring.submitter().register_probe(&mut opcodes).is_err() {
            // Older than 5.6: it has fixed buffers, and nothing else that we use.
            self.note(Feature::FixedBuffers, true);
            return;
        }
        for (feature, code) in [
            (Feature::FixedBuffers, opcode::ReadFixed::CODE),
            (Feature::VectoredFixed, opcode::ReadvFixed::CODE),
            (Feature::ReadMultishot, opcode::ReadMulti::CODE),
            (Feature::SendZc, opcode::SendZc::CODE),
            (Feature::SendMsgZc, opcode::SendMsgZc::CODE),
        ] {
            self.note(feature, opcodes.is_supported(code));
        }
    }

    /// Flags that no opcode announces: an entry with an unknown one is refused as EINVAL, a known
    /// one gets as far as the descriptor, which is not open.
    fn try_entries(&mut self, mut ring: IoUring) {
        let mut entries = vec![
            (Feature::RecvMultishot, opcode::RecvMulti::new(NO_FD, 0).build()),
            (Feature::AcceptMultishot, opcode::AcceptMulti::new(NO_FD).build()),
        ];
        if self.has(Feature::SendZc) {
            let send =
                opcode::SendZc::new(NO_FD, std::ptr::null(), 0).zc_flags(SEND_ZC_REPORT_USAGE);
            entries.push((Feature::SendZcUsage, send.build()));
        }
        for (feature, entry) in entries {
            self.note(feature, run(&mut ring, entry) == Some(-libc::EBADF));
        }
    }

    fn try_tables(&mut self) {
        let (Ok(from), Ok(to)) = (IoUring::new(ENTRIES), IoUring::new(ENTRIES)) else {
            return;
        };
        let (from, to): (&IoUring, &IoUring) = (&from, &to);
        if syscalls::register_sparse(from.as_raw_fd(), 1).is_err() {
            return;
        }
        self.note(Feature::SparseTable, true);
        // The table has no entry with memory in it, so nothing is pinned or charged.
        let clone = |count, replace| {
            let cloned = Cloned {
                from_ring: from.as_raw_fd(),
                from_offset: 0,
                to_offset: 0,
                count,
                replace,
            };
            syscalls::clone_buffers(to.as_raw_fd(), &cloned).is_ok()
        };
        if clone(0, false) {
            self.note(Feature::CloneBuffers, true);
            self.note(Feature::CloneInto, clone(1, true));
        }
    }

    fn try_setup(&mut self) {
        let single = |build: &mut io_uring::Builder<_, _>| {
            let ring: Result<IoUring, _> = build.setup_single_issuer().build(ENTRIES);
            ring.is_ok()
        };
        self.note(Feature::SingleIssuer, single(&mut IoUring::builder()));
        self.note(Feature::DeferTaskrun, single(IoUring::builder().setup_defer_taskrun()));
    }
}

/// Runs one entry and gives its result.
fn run(ring: &mut IoUring, entry: squeue::Entry) -> Option<i32> {
    // SAFETY: the entries of `try_entries` name no memory and no open descriptor.
    unsafe { ring.submission().push(&entry) }.ok()?;
    ring.submit_and_wait(1).ok()?;
    ring.completion().next().map(|cqe| cqe.result())
}

fn knows_sync_cancel(ring: &IoUring) -> bool {
    let everything = types::CancelBuilder::any();
    match ring.submitter().register_sync_cancel(None, everything) {
        Ok(()) => true,
        // Nothing to cancel is an answer of a kernel that knows the call.
        Err(error) => error.raw_os_error() == Some(libc::ENOENT),
    }
}

/// The kernel's own account of a ring: `/proc/self/fdinfo/<ring>`.
///
/// Shows the table of registered buffers (`UserBufs`), which proves a registration.
///
/// ```
/// use std::os::fd::AsRawFd;
///
/// if let Ok(ring) = io_uring::IoUring::new(2) {
///     let info = uring_arena::ring_info(ring.as_raw_fd()).unwrap();
///     assert!(info.contains("UserBufs"));
/// }
/// ```
///
/// # Errors
///
/// What reading the file answers: no such descriptor, or no `/proc`.
pub fn ring_info(ring: RawFd) -> std::io::Result<String> {
    std::fs::read_to_string(format!("/proc/self/fdinfo/{ring}"))
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Feature::ALL.iter().filter(|feature| self.has(**feature))).finish()
    }
}
