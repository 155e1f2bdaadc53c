//! A probe of the features that this kernel offers to this user.
//!
//! # Safety
//!
//! Unsafe here: pushing entries that name no memory.
#![allow(unsafe_code)]

use super::feature::{Feature, MissingFeatureError, who_forbids};
use super::memlock::Memlock;
use super::syscalls::{self, Cloned};
use io_uring::{IoUring, opcode, squeue, types};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

/// Entries of the rings that a probe makes.
const ENTRIES: u32 = 4;

/// A descriptor that is never open. Entries that name it pass the kernel's check of their flags and
/// then fail.
const NO_FD: types::Fd = types::Fd(-1);

/// The mark of a probe that a filter answered in the place of the kernel, beside the features.
const FILTERED: u32 = 1 << 31;

/// The flag `IOU_PBUF_RING_INC`.
const RING_INC: u16 = 2;

/// The flag `IORING_SEND_ZC_REPORT_USAGE`, which the io-uring crate does not export.
pub(in crate::uring) const SEND_ZC_REPORT_USAGE: u16 = 8;

/// The features that this kernel offers to this user.
///
/// A probe concludes nothing from a version number: it tries each feature that no flag announces,
/// on rings of its own. [`without`](Probe::without) takes a feature away, to test a program as on
/// an older kernel.
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
    /// Makes two small rings and tries each feature on them. This takes milliseconds: keep the
    /// result, or use [`shared`](Self::shared).
    ///
    /// # Errors
    ///
    /// [`UnavailableError`] if io_uring is missing or forbidden, with the remedy. Also if the
    /// system has no descriptor or no memory left for the rings: then nothing is known of the
    /// kernel, and a later call may succeed.
    pub fn new() -> Result<Probe, UnavailableError> {
        Probing::run().map(|probing| probing.probe)
    }

    /// Returns the result of the first probe of this process that the kernel answered in full.
    ///
    /// A failure is not kept, so the next call asks again. Neither is an answer that a seccomp
    /// filter or a security module gave: such a filter may be of one thread only.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    ///
    /// ```
    /// use uring_arena::{Feature, Probe};
    ///
    /// if let Ok(probe) = Probe::shared() {
    ///     println!("buffer rings: {}", probe.has(Feature::BufferRing));
    /// }
    /// ```
    pub fn shared() -> Result<Probe, UnavailableError> {
        static FIRST: OnceLock<Probe> = OnceLock::new();
        if let Some(probe) = FIRST.get() {
            return Ok(*probe);
        }
        let probe = Probe::new()?;
        if probe.is_filtered() {
            return Ok(probe);
        }
        Ok(*FIRST.get_or_init(|| probe))
    }

    /// Returns the probe of a kernel that offers nothing but io_uring itself, for tests.
    ///
    /// ```
    /// use uring_arena::{Feature, Probe};
    ///
    /// assert!(!Probe::none().has(Feature::FixedBuffers));
    /// ```
    pub fn none() -> Probe {
        Probe { features: 0 }
    }

    /// Returns the probe of a kernel that offers everything.
    pub(crate) fn all() -> Probe {
        Feature::ALL.into_iter().fold(Probe::none(), Probe::with)
    }

    /// Returns whether the kernel has `feature`.
    ///
    /// ```
    /// use uring_arena::{Feature, Probe};
    ///
    /// assert!(Probe::none().with(Feature::SendZc).has(Feature::SendZc));
    /// ```
    #[inline]
    pub fn has(self, feature: Feature) -> bool {
        self.features & feature.bit() != 0
    }

    /// Checks that the kernel has `feature`.
    ///
    /// # Errors
    ///
    /// [`MissingFeatureError`], which names the version that brought the feature.
    ///
    /// ```
    /// use uring_arena::{Feature, Probe};
    ///
    /// let error = Probe::none().require(Feature::SyncCancel).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "synchronous cancel needs Linux 6.0 or newer: this kernel does not offer it",
    /// );
    /// ```
    pub fn require(self, feature: Feature) -> Result<(), MissingFeatureError> {
        if self.has(feature) {
            return Ok(());
        }
        Err(MissingFeatureError { feature, is_filtered: self.is_filtered() })
    }

    /// Returns whether a filter answered in the place of the kernel.
    fn is_filtered(self) -> bool {
        self.features & FILTERED != 0
    }

    fn filtered(self) -> Probe {
        Probe { features: self.features | FILTERED }
    }

    /// Returns the same probe without `feature`.
    ///
    /// ```
    /// use uring_arena::{Driver, Feature, Probe};
    ///
    /// # let Ok(probe) = Probe::shared() else { return Ok(()) };
    /// // A driver that works as on a kernel without zero-copy sends.
    /// let driver = Driver::builder().probe(probe.without(Feature::SendZc)).build()?;
    /// # Ok::<(), uring_arena::DriverError>(())
    /// ```
    #[must_use]
    pub fn without(self, feature: Feature) -> Probe {
        Probe { features: self.features & !feature.bit() }
    }

    /// Returns the same probe with `feature`, whether or not the kernel has it.
    ///
    /// ```
    /// use uring_arena::{Feature, Probe};
    ///
    /// let probe = Probe::none().with(Feature::BufferRing);
    /// assert!(probe.has(Feature::BufferRing));
    /// ```
    #[must_use]
    pub fn with(self, feature: Feature) -> Probe {
        Probe { features: self.features | feature.bit() }
    }
}

/// A probe that is being made.
struct Probing {
    probe: Probe,
}

impl Probing {
    /// Tries each feature. At most two rings exist at a time.
    fn run() -> Result<Probing, UnavailableError> {
        let unavailable = |error: io::Error| {
            UnavailableError::explain(ENTRIES, error.raw_os_error().unwrap_or(libc::EIO))
        };
        let mut ring = IoUring::new(ENTRIES).map_err(unavailable)?;
        let mut probing = Probing { probe: Probe::none() };
        probing.try_all(&mut ring).map_err(unavailable)?;
        Ok(probing)
    }

    fn try_all(&mut self, ring: &mut IoUring) -> io::Result<()> {
        self.try_opcodes(ring)?;
        self.set(Feature::Bundles, ring.params().is_feature_recvsend_bundle());
        self.set(Feature::MinWait, ring.params().is_feature_min_timeout());
        self.note(Feature::BufferRing, syscalls::try_buffer_ring(ring.as_raw_fd(), 0))?;
        let incremental = syscalls::try_buffer_ring(ring.as_raw_fd(), RING_INC);
        self.note(Feature::IncrementalBuffers, incremental)?;
        self.note(Feature::SyncCancel, try_sync_cancel(ring))?;
        self.try_entries(ring)?;
        let other = self.try_setup()?;
        self.try_tables(ring, &other)
    }

    fn set(&mut self, feature: Feature, is_offered: bool) {
        if is_offered {
            self.probe = self.probe.with(feature);
        }
    }

    /// Notes the kernel's answer to an attempt. Returns whether the feature is offered, or the
    /// error if it says nothing of the kernel.
    fn note(&mut self, feature: Feature, attempt: io::Result<()>) -> io::Result<bool> {
        let is_offered = self.is_offered(attempt)?;
        self.set(feature, is_offered);
        Ok(is_offered)
    }

    fn is_offered(&mut self, attempt: io::Result<()>) -> io::Result<bool> {
        let Err(error) = attempt else { return Ok(true) };
        match error.raw_os_error() {
            Some(errno) if is_passing(errno) => return Err(error),
            Some(errno) if is_refusal(errno) => self.probe = self.probe.filtered(),
            _ => {}
        }
        Ok(false)
    }

    fn try_opcodes(&mut self, ring: &IoUring) -> io::Result<()> {
        let mut opcodes = io_uring::Probe::new();
        if !self.is_offered(ring.submitter().register_probe(&mut opcodes))? {
            // Older than 5.6, which has fixed buffers and nothing else of the list.
            self.set(Feature::FixedBuffers, true);
            return Ok(());
        }
        for (feature, code) in [
            (Feature::FixedBuffers, opcode::ReadFixed::CODE),
            (Feature::VectoredFixed, opcode::ReadvFixed::CODE),
            (Feature::ReadMultishot, opcode::ReadMulti::CODE),
            (Feature::SendZc, opcode::SendZc::CODE),
            (Feature::SendMsgZc, opcode::SendMsgZc::CODE),
        ] {
            self.set(feature, opcodes.is_supported(code));
        }
        Ok(())
    }

    /// Tries flags that no opcode announces. The kernel refuses an unknown flag as EINVAL; with a
    /// known one the entry gets as far as the descriptor, which is not open.
    fn try_entries(&mut self, ring: &mut IoUring) -> io::Result<()> {
        let mut entries = vec![
            (Feature::RecvMultishot, opcode::RecvMulti::new(NO_FD, 0).build()),
            (Feature::AcceptMultishot, opcode::AcceptMulti::new(NO_FD).build()),
        ];
        if self.probe.has(Feature::SendZc) {
            let send =
                opcode::SendZc::new(NO_FD, std::ptr::null(), 0).zc_flags(SEND_ZC_REPORT_USAGE);
            entries.push((Feature::SendZcUsage, send.build()));
        }
        for (feature, entry) in entries {
            let answer = match run(ring, entry)? {
                errno if errno == libc::EBADF => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            };
            self.note(feature, answer)?;
        }
        Ok(())
    }

    /// Tries the ways of setting a ring up. Returns a ring in the best of them.
    fn try_setup(&mut self) -> io::Result<IoUring> {
        let defer = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(ENTRIES);
        match defer {
            Ok(ring) => {
                self.set(Feature::SingleIssuer, true);
                self.set(Feature::DeferTaskrun, true);
                return Ok(ring);
            }
            Err(error) => self.is_offered(Err(error))?,
        };
        match IoUring::builder().setup_single_issuer().build(ENTRIES) {
            Ok(ring) => {
                self.set(Feature::SingleIssuer, true);
                return Ok(ring);
            }
            Err(error) => self.is_offered(Err(error))?,
        };
        IoUring::new(ENTRIES)
    }

    /// Tries tables of buffers: a sparse one on `from`, and its clone on `to`.
    fn try_tables(&mut self, from: &IoUring, to: &IoUring) -> io::Result<()> {
        let sparse = syscalls::register_sparse(from.as_raw_fd(), 1);
        if !self.note(Feature::SparseTable, sparse)? {
            return Ok(());
        }
        // No entry of the table has memory, so nothing is pinned or charged.
        let clone = |count, replace| {
            let cloned = Cloned {
                from_ring: from.as_raw_fd(),
                from_offset: 0,
                to_offset: 0,
                count,
                replace,
            };
            syscalls::clone_buffers(to.as_raw_fd(), &cloned)
        };
        if self.note(Feature::CloneBuffers, clone(0, false))? {
            self.note(Feature::CloneInto, clone(1, true))?;
        }
        Ok(())
    }
}

/// Returns whether an error tells of the system now, and nothing of the kernel: the same attempt
/// may succeed later.
fn is_passing(errno: i32) -> bool {
    matches!(
        errno,
        libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN | libc::EBUSY
    )
}

/// Runs one entry, which fails, and returns its error number (0 if it does not).
fn run(ring: &mut IoUring, entry: squeue::Entry) -> io::Result<i32> {
    // SAFETY: the entries of `try_entries` name no memory and no open descriptor.
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    loop {
        match ring.submit_and_wait(1) {
            // A signal: the entry is submitted all the same.
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => return Err(error),
            _ => {}
        }
        if let Some(completion) = ring.completion().next() {
            return Ok(-completion.result().min(0));
        }
    }
}

fn try_sync_cancel(ring: &IoUring) -> io::Result<()> {
    match ring.submitter().register_sync_cancel(None, types::CancelBuilder::any()) {
        // A kernel that knows the call answers that there is nothing to cancel.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        answer => answer,
    }
}

/// Returns the kernel's description of a ring, from `/proc/self/fdinfo/<ring>`.
///
/// It lists the table of registered buffers (`UserBufs`), which proves a registration.
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
/// The error of reading the file: no such descriptor, or no `/proc`.
pub fn ring_info(ring: RawFd) -> std::io::Result<String> {
    std::fs::read_to_string(format!("/proc/self/fdinfo/{ring}"))
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Feature::ALL.iter().filter(|feature| self.has(**feature))).finish()
    }
}

/// An io_uring that cannot be used here, with the cause and the remedy.
///
/// ```
/// use uring_arena::UnavailableError;
///
/// let error = UnavailableError::DisabledBySysctl { value: 2 };
/// assert!(error.to_string().contains("`sysctl kernel.io_uring_disabled=0`"));
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnavailableError {
    /// The kernel has no io_uring (`ENOSYS`), as far as can be told.
    #[error(
        "this kernel ({kernel}) has no io_uring: it needs Linux 5.1 or newer, built with CONFIG_IO_URING; \
         a container sandbox may also hide it"
    )]
    NotInKernel {
        /// The version that the kernel reports.
        kernel: String,
    },
    /// The administrator switched io_uring off ([kernel.io_uring_disabled], Linux 6.6).
    ///
    /// [kernel.io_uring_disabled]:
    /// https://docs.kernel.org/admin-guide/sysctl/kernel.html#io-uring-disabled
    #[error("io_uring is switched off: {}", who_forbids(Some(*value)))]
    DisabledBySysctl {
        /// The value of the sysctl. 1: off for all but one group and CAP_SYS_ADMIN; 2: off for all.
        value: u32,
    },
    /// A seccomp filter or a security module refuses a call (`EPERM`, `EACCES` or `ENOSYS`),
    /// although the kernel has io_uring and the sysctl allows it.
    #[error(
        "io_uring is refused though the kernel has it and kernel.io_uring_disabled allows it: {}",
        who_forbids(None)
    )]
    Forbidden,
    /// The limit on locked memory is too low: the queues of a ring count against it.
    #[error("the queues of a ring of {entries} entries are locked memory: {memlock}")]
    Memlock {
        /// The number of entries asked for.
        entries: u32,
        /// The bytes needed, both limits, and the remedy.
        memlock: Memlock,
    },
    /// The system has no memory, or no descriptor, for a ring.
    #[error(
        "the system refused a ring of {entries} entries ({}): {}",
        std::io::Error::from_raw_os_error(*errno),
        room_remedy(*errno)
    )]
    Refused {
        /// The number of entries asked for.
        entries: u32,
        /// The error number of `io_uring_setup(2)`.
        errno: i32,
    },
}

debug_is_display!(UnavailableError);
into_io_error!(UnavailableError);

impl UnavailableError {
    /// Returns the kind of the error as an `io::Error`.
    pub(crate) fn kind(&self) -> io::ErrorKind {
        match self {
            UnavailableError::NotInKernel { .. } => io::ErrorKind::Unsupported,
            UnavailableError::DisabledBySysctl { .. } | UnavailableError::Forbidden => {
                io::ErrorKind::PermissionDenied
            }
            UnavailableError::Memlock { .. } => io::ErrorKind::OutOfMemory,
            UnavailableError::Refused { errno, .. } => io::Error::from_raw_os_error(*errno).kind(),
        }
    }

    /// Explains the error of an `io_uring_setup(2)` for a ring of `entries` entries, and twice as
    /// many completions.
    pub(super) fn explain(entries: u32, errno: i32) -> UnavailableError {
        let memlock = Memlock::for_ring(entries, 2 * entries);
        if errno == libc::ENOMEM && memlock.is_in_force() {
            return UnavailableError::Memlock { entries, memlock };
        }
        if errno == libc::ENOSYS && kernel_has_io_uring() {
            return UnavailableError::Forbidden;
        }
        let kernel = read("/proc/sys/kernel/osrelease");
        UnavailableError::new(entries, errno, disabled_by_sysctl(), kernel)
    }

    fn new(
        entries: u32,
        errno: i32,
        disabled: Option<u32>,
        kernel: Option<String>,
    ) -> UnavailableError {
        match (errno, disabled) {
            (libc::ENOSYS, _) => UnavailableError::NotInKernel {
                kernel: kernel.unwrap_or_else(|| "of unknown version".into()),
            },
            (libc::EPERM, Some(value @ 1..)) => UnavailableError::DisabledBySysctl { value },
            (libc::EPERM | libc::EACCES, _) => UnavailableError::Forbidden,
            _ => UnavailableError::Refused { entries, errno },
        }
    }
}

/// Checks that this thread may make each of the three calls of io_uring now. A filter may forbid
/// any of them, and the answers are not kept.
#[cfg(feature = "tokio")]
pub(crate) fn check_calls() -> Result<(), UnavailableError> {
    const ENTRIES: u32 = 1;
    let explain = |error: io::Error| {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        UnavailableError::explain(ENTRIES, errno)
    };
    let ring = IoUring::new(ENTRIES).map_err(explain)?;
    // Nothing is submitted.
    let entered = ring.submit().map(drop);
    let registered = ring.submitter().register_probe(&mut io_uring::Probe::new());
    match entered.and(registered) {
        Err(error) if error.raw_os_error().is_some_and(is_refusal) => {
            Err(UnavailableError::Forbidden)
        }
        Err(error) => Err(explain(error)),
        Ok(()) => Ok(()),
    }
}

/// Returns the remedy if the system has no room for a ring.
pub(crate) fn room_remedy(errno: i32) -> &'static str {
    match errno {
        libc::EMFILE => "raise `ulimit -n`, or close some files",
        libc::ENFILE => "raise `sysctl fs.file-max`",
        _ => "use fewer entries",
    }
}

/// Returns the value of `kernel.io_uring_disabled`, or `None` before Linux 6.6, which has no such
/// sysctl.
pub(crate) fn disabled_by_sysctl() -> Option<u32> {
    read("/proc/sys/kernel/io_uring_disabled")?.parse().ok()
}

/// Returns whether a call of io_uring was refused before its arguments were looked at: by a filter
/// of system calls, or by a security module.
pub(crate) fn is_refusal(errno: i32) -> bool {
    matches!(errno, libc::EPERM | libc::EACCES | libc::ENOSYS)
}

/// Returns whether the kernel has io_uring, although a call to it answered `ENOSYS`: then a filter
/// gave that answer.
pub(crate) fn kernel_has_io_uring() -> bool {
    // Only a kernel with io_uring has the setting (6.6), and functions by such names.
    if disabled_by_sysctl().is_some() {
        return true;
    }
    match File::open("/proc/kallsyms") {
        Ok(symbols) => names_io_uring(BufReader::new(symbols)),
        Err(_) => {
            is_filtered(&read("/proc/thread-self/status").unwrap_or_default())
                && is_new_enough(&read("/proc/sys/kernel/osrelease").unwrap_or_default())
        }
    }
}

/// Returns whether a list of the kernel's symbols has functions of io_uring's.
///
/// The entry of the system call (`__x64_sys_io_uring_setup`) does not count: a kernel without
/// io_uring has it too, and answers `ENOSYS` there.
fn names_io_uring(symbols: impl BufRead) -> bool {
    symbols.split(b'\n').map_while(Result::ok).any(|line| {
        let name = line.split(|byte| byte.is_ascii_whitespace()).nth(2).unwrap_or_default();
        name.starts_with(b"io_uring_") || name.starts_with(b"io_ring_")
    })
}

/// Returns whether a filter of system calls is in force, by the text of `/proc/<thread>/status`.
fn is_filtered(status: &str) -> bool {
    const FILTER: &str = "2";
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    mode.is_some_and(|mode| mode.trim() == FILTER)
}

/// Returns whether a kernel of this version can have io_uring (5.1).
fn is_new_enough(release: &str) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok()).unwrap_or(0);
    (next(), next()) >= (5, 1)
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_with_its_remedy() {
        let text = |errno, disabled| {
            let text = UnavailableError::new(64, errno, disabled, Some("5.0.0".into())).to_string();
            assert!(!text.contains("  "), "a run of blanks: {text}");
            text
        };
        assert!(text(libc::ENOSYS, None).contains("5.0.0"));
        assert!(text(libc::EPERM, Some(2)).contains("sysctl kernel.io_uring_disabled=0"));
        assert!(text(libc::EPERM, Some(1)).contains("kernel.io_uring_group"));
        assert!(text(libc::EPERM, Some(0)).contains("seccomp"));
        assert!(text(libc::EPERM, None).contains("seccomp"));
        assert!(text(libc::ENOMEM, Some(0)).contains("fewer entries"));
        assert!(text(libc::EMFILE, Some(0)).contains("64 entries"));
        assert!(text(libc::EMFILE, Some(0)).contains("ulimit -n"));
    }

    #[test]
    fn a_kernel_that_has_io_uring_is_known_by_its_symbols() {
        let with = "0000 T __x64_sys_io_uring_setup\n0000 t io_uring_cancel_generic\n";
        let without = "0000 W __x64_sys_io_uring_setup\n0000 t do_io_ring\nodd line\n";
        assert!(names_io_uring(with.as_bytes()));
        assert!(!names_io_uring(without.as_bytes()));
    }

    #[test]
    fn a_filter_and_a_version_are_read() {
        assert!(is_filtered("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
        assert!(!is_filtered("Seccomp:\t0\nSeccomp_filters:\t2\n"));
        assert!(is_new_enough("5.1.0") && is_new_enough("6.18.44-fc") && is_new_enough("10.0"));
        assert!(!is_new_enough("5.0.21") && !is_new_enough("4.4.0") && !is_new_enough(""));
    }
}
