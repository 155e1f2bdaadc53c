//! How a driver is built.

use io_uring::IoUring;

use super::Driver;
use super::driver::Parts;
use crate::error::DriverError;
use crate::uring::{Feature, Probe, disabled_by_sysctl};

/// Entries that a submission queue has at most: a limit of the kernel.
const ENTRIES_MAX: usize = 1 << 15;

/// How a [`Driver`] shall be.
///
/// ```
/// use uring_arena::Driver;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let driver = match Driver::builder().entries(256).operations(20_000).build() {
///     Ok(driver) => driver,
///     Err(error) => {
///         eprintln!("skipped: {error}");
///         return Ok(());
///     }
/// };
/// # drop(driver);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use = "a builder does nothing until `build`"]
pub struct DriverBuilder {
    entries: usize,
    completion_entries: Option<usize>,
    operations: usize,
    single_issuer: bool,
    multishot: bool,
    probe: Option<Probe>,
}

impl Default for DriverBuilder {
    fn default() -> DriverBuilder {
        DriverBuilder {
            entries: 256,
            completion_entries: None,
            operations: 16_384,
            single_issuer: true,
            multishot: true,
            probe: None,
        }
    }
}

/// Ways of running completions, best first; each is refused with EINVAL by a kernel that lacks it.
#[derive(Clone, Copy)]
enum Mode {
    /// Completions are run by the thread that waits, in batches (6.1).
    Deferred,
    /// The thread is not interrupted for them (5.19).
    Cooperative,
    Plain,
}

impl DriverBuilder {
    /// Entries of the submission queue, rounded up to a power of two by the kernel: up to 32,768.
    /// More operations than this are submitted in several calls. Default: 256.
    pub fn entries(mut self, entries: usize) -> DriverBuilder {
        self.entries = entries;
        self
    }

    /// Entries of the completion queue, at least as many as of the submission queue. When more
    /// completions are due than fit, the kernel keeps them and hands them over later: nothing is
    /// lost, but multishot receives must be armed again. Default: four times
    /// [`entries`](Self::entries).
    pub fn completion_entries(mut self, entries: usize) -> DriverBuilder {
        self.completion_entries = Some(entries);
        self
    }

    /// Operations under way at one time: one a socket, and one a read, write or send. Default:
    /// 16,384.
    pub fn operations(mut self, operations: usize) -> DriverBuilder {
        self.operations = operations;
        self
    }

    /// Whether completions are run only by this thread while it waits (`IORING_SETUP_SINGLE_ISSUER`
    /// with `DEFER_TASKRUN`, Linux 6.1; an older kernel does it the older way). A ring that other
    /// threads' rings are [cloned](crate::RegisterOptions::clone_of) from must not have a single
    /// issuer. Default: yes.
    pub fn single_issuer(mut self, yes: bool) -> DriverBuilder {
        self.single_issuer = yes;
        self
    }

    /// Whether one receive brings many completions, where the kernel can. Without it each message
    /// is asked for: the older form, which takes turns between sockets more strictly. Default: yes.
    pub fn multishot(mut self, yes: bool) -> DriverBuilder {
        self.multishot = yes;
        self
    }

    /// Believes this of the kernel instead of looking, and uses nothing that it lacks: to see how a
    /// program fares on an older kernel.
    ///
    /// ```
    /// # use uring_arena::{Driver, Feature, Probe};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let Ok(probe) = Probe::shared() else { return Ok(()) };
    /// let driver = Driver::builder().probe(probe.without(Feature::RecvMultishot)).build()?;
    /// # drop(driver);
    /// # Ok(())
    /// # }
    /// ```
    pub fn probe(mut self, probe: Probe) -> DriverBuilder {
        self.probe = Some(probe);
        self
    }

    /// Makes the ring, on the thread that will use it.
    ///
    /// # Errors
    ///
    /// [`DriverError`]: io_uring forbidden or missing, numbers of entries that the kernel does not
    /// take, no memory or no descriptor left.
    pub fn build(self) -> Result<Driver, DriverError> {
        let entries = check_entries(self.entries, ENTRIES_MAX)?;
        let completion_entries = match self.completion_entries {
            Some(entries) => check_entries(entries, 2 * ENTRIES_MAX)?.max(self.entries as u32),
            None => (entries * 4).min(2 * ENTRIES_MAX as u32),
        };
        let may_defer = self.probe.is_none_or(|probe| {
            probe.has(Feature::SingleIssuer) && probe.has(Feature::DeferTaskrun)
        });
        let modes: &[Mode] = match self.single_issuer && may_defer {
            true => &[Mode::Deferred, Mode::Cooperative, Mode::Plain],
            false => &[Mode::Cooperative, Mode::Plain],
        };
        let mut refused = libc::EINVAL;
        for &mode in modes {
            match make(mode, entries, completion_entries) {
                Ok(uring) => {
                    return Driver::new(Parts {
                        uring,
                        operations: self.operations,
                        multishot: self.multishot,
                        probe: self.probe,
                    });
                }
                Err(error) => refused = error.raw_os_error().unwrap_or(libc::EIO),
            }
            if refused != libc::EINVAL {
                break;
            }
        }
        Err(build_error(refused, entries))
    }
}

fn check_entries(entries: usize, limit: usize) -> Result<u32, DriverError> {
    if entries == 0 || entries > limit {
        return Err(DriverError::Entries { entries, limit });
    }
    Ok(entries as u32)
}

fn make(mode: Mode, entries: u32, completion_entries: u32) -> std::io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(completion_entries);
    match mode {
        // The flag lets a look that does not wait run completions too.
        Mode::Deferred => builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag(),
        Mode::Cooperative => builder.setup_coop_taskrun().setup_taskrun_flag(),
        Mode::Plain => &mut builder,
    };
    // A forked child must not find the queues: they are one process's.
    builder.dontfork();
    builder.build(entries)
}

fn build_error(errno: i32, entries: u32) -> DriverError {
    match errno {
        libc::EPERM | libc::EACCES => {
            DriverError::Forbidden { errno, sysctl: disabled_by_sysctl() }
        }
        libc::ENOMEM | libc::EMFILE | libc::ENFILE => DriverError::NoRoom { entries, errno },
        libc::ENOSYS => {
            DriverError::Unsupported { what: "io_uring", since: "5.1 (buffer rings: 5.19)" }
        }
        errno => DriverError::System { action: "setting up io_uring", errno },
    }
}

impl Driver {
    /// Begins a driver.
    pub fn builder() -> DriverBuilder {
        DriverBuilder::default()
    }
}
