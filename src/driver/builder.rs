//! The settings of a driver.

use std::time::Duration;

use io_uring::IoUring;

use super::DriverError;
use super::ids::Tag;
use super::submitter::Submitter;
use crate::uring::{Feature, Memlock, Probe, disabled_by_sysctl, kernel_has_io_uring};

/// The most entries of a submission queue: a limit of the kernel.
const ENTRIES_MAX: usize = 1 << 15;

/// The settings of a [`Driver`](crate::Driver) that is to be built.
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
    pub(super) multishot: bool,
    pub(super) file_events: bool,
    pub(super) probe: Option<Probe>,
    coalesced: (u32, Duration),
}

impl Default for DriverBuilder {
    fn default() -> DriverBuilder {
        DriverBuilder {
            entries: 256,
            completion_entries: None,
            operations: 16_384,
            single_issuer: true,
            multishot: true,
            file_events: false,
            probe: None,
            coalesced: (1, Duration::ZERO),
        }
    }
}

/// A way of running completions. A kernel that lacks one refuses it with `EINVAL`.
#[derive(Clone, Copy)]
enum CompletionMode {
    /// The thread that waits runs completions, in batches (6.1).
    Deferred,
    /// The thread is not interrupted for completions (5.19).
    Cooperative,
    Plain,
}

impl DriverBuilder {
    /// Sets the entries of the submission queue: up to 32,768, rounded up to a power of two by the
    /// kernel. Default: 256.
    ///
    /// More operations than this are submitted in several calls.
    ///
    /// ```
    /// # use uring_arena::{Driver, DriverError};
    /// let refused = Driver::builder().entries(0).build().unwrap_err();
    /// assert!(matches!(refused, DriverError::Entries { entries: 0, .. }));
    /// ```
    pub fn entries(mut self, entries: usize) -> DriverBuilder {
        self.entries = entries;
        self
    }

    /// Sets the entries of the completion queue: up to 65,536, and at least as many as of the
    /// submission queue. Default: four times [`entries`](Self::entries).
    ///
    /// If more completions are due than fit, the kernel keeps them and hands them over later.
    /// Nothing is lost, but multishot receives must be armed again.
    ///
    /// ```
    /// # use uring_arena::Driver;
    /// let builder = Driver::builder().entries(64).completion_entries(4096);
    /// # drop(builder.build());
    /// ```
    pub fn completion_entries(mut self, entries: usize) -> DriverBuilder {
        self.completion_entries = Some(entries);
        self
    }

    /// Sets the most operations that are under way at one time: one a socket, and one a read, write
    /// or send. Default: 16,384.
    ///
    /// The tables grow as they are used.
    ///
    /// ```
    /// # use uring_arena::Driver;
    /// let builder = Driver::builder().operations(1_000_000);
    /// # drop(builder.build());
    /// ```
    pub fn operations(mut self, operations: usize) -> DriverBuilder {
        self.operations = operations;
        self
    }

    /// Sets whether completions are run only by this thread, while it waits. Default: yes.
    ///
    /// The ring is set up with `IORING_SETUP_SINGLE_ISSUER` and `DEFER_TASKRUN` (Linux 6.1; an
    /// older kernel does it the older way). A ring that other threads' rings are
    /// [cloned](crate::RegisterOptions::clone_of) from must not have a single issuer.
    ///
    /// ```
    /// # use uring_arena::Driver;
    /// // The source of registrations for many threads.
    /// let builder = Driver::builder().single_issuer(false).entries(1);
    /// # drop(builder.build());
    /// ```
    pub fn single_issuer(mut self, yes: bool) -> DriverBuilder {
        self.single_issuer = yes;
        self
    }

    /// Sets whether one receive brings many completions, where the kernel can. Default: yes.
    ///
    /// Without it each message is asked for: the older form, which takes turns between sockets more
    /// strictly.
    ///
    /// ```
    /// # use uring_arena::Driver;
    /// let builder = Driver::builder().multishot(false);
    /// # drop(builder.build());
    /// ```
    pub fn multishot(mut self, yes: bool) -> DriverBuilder {
        self.multishot = yes;
        self
    }

    /// Sets whether an [`Event::FileClosed`](crate::Event::FileClosed) tells of every file when it
    /// is closed. Default: no, so that a loop which closes files has no further events to take.
    ///
    /// Files that are [aborted](crate::Driver::abort_file) have the event in any case.
    ///
    /// ```
    /// # use uring_arena::{Driver, Event};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if Driver::builder().build().is_err() { return Ok(()) }
    /// let mut driver = Driver::builder().file_events(true).build()?;
    /// let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
    /// let socket = driver.add_file(ours)?;
    /// driver.send(socket, bytes::Bytes::from_static(b"the last words"))?;
    /// driver.close_file(socket)?;
    /// driver.wait()?;
    /// assert!(matches!(driver.next(), Some(Event::Sent { .. })));
    /// assert!(matches!(driver.next(), Some(Event::FileClosed { id, .. }) if id == socket));
    /// # Ok(())
    /// # }
    /// ```
    pub fn file_events(mut self, yes: bool) -> DriverBuilder {
        self.file_events = yes;
        self
    }

    /// Sets what the driver believes of the kernel instead of looking. The driver then uses nothing
    /// that the probe lacks.
    ///
    /// ```
    /// # use uring_arena::{Driver, Feature, Probe};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // How does the program fare on an older kernel?
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

    /// Sets how many completions a wait collects before it ends, and how long it may wait for them
    /// once it began. Default: one, so that a wait ends with the first.
    ///
    /// A thread that receives streams faster than they are sent sleeps and wakes for each piece.
    /// With 8 completions `within` 100 µs it wakes less often, and takes longer pieces: on one
    /// connection of small writes it takes half of the processor time. In return everything may be
    /// told `within` later, also timers and wakes; a program that answers requests does without.
    ///
    /// `within` counts in microseconds, is a second at most, and zero switches it off. Linux 6.12;
    /// an older kernel waits for one.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use uring_arena::Driver;
    /// let builder = Driver::builder().coalesce(8, Duration::from_micros(100));
    /// # drop(builder.build());
    /// ```
    pub fn coalesce(mut self, completions: usize, within: Duration) -> DriverBuilder {
        self.coalesced = (u32::try_from(completions).unwrap_or(u32::MAX), within);
        self
    }

    /// Has a ring collect completions as the settings say, if the kernel can.
    pub(super) fn set_waits(&self, submitter: &mut Submitter) {
        let can = submitter.uring.params().is_feature_min_timeout();
        if can && self.probe.is_none_or(|probe| probe.has(Feature::MinWait)) {
            submitter.collect(self.coalesced.0, self.coalesced.1);
        }
    }

    /// Makes room for `times` as many operations, as far as a driver can number them. Returns how
    /// many were asked for.
    #[cfg(feature = "tokio")]
    pub(crate) fn with_operations_times(self, times: usize) -> (DriverBuilder, usize) {
        let operations = match self.checked_operations() {
            Ok(asked) => asked.saturating_mul(times).min(Tag::INDICES),
            Err(_) => self.operations,
        };
        (DriverBuilder { operations, ..self }, self.operations)
    }

    /// Returns the most operations, if the driver can number so many.
    pub(super) fn checked_operations(&self) -> Result<usize, DriverError> {
        let (operations, limit) = (self.operations, Tag::INDICES);
        if operations == 0 || operations > limit {
            return Err(DriverError::Operations { operations, limit });
        }
        Ok(operations)
    }

    /// Returns the entries of the submission queue, if the kernel takes so many.
    pub(super) fn checked_entries(&self) -> Result<u32, DriverError> {
        check_entries("submission", self.entries, ENTRIES_MAX)
    }

    /// Makes the ring, in the best way that the kernel knows. Also returns whether the ring defers
    /// completions.
    pub(super) fn make_ring(&self) -> Result<(IoUring, bool), DriverError> {
        let entries = self.checked_entries()?;
        let completion_entries = match self.completion_entries {
            Some(completions) => {
                check_entries("completion", completions, 2 * ENTRIES_MAX)?.max(entries)
            }
            None => (entries * 4).min(2 * ENTRIES_MAX as u32),
        };
        let may_defer = self.probe.is_none_or(|probe| {
            probe.has(Feature::SingleIssuer) && probe.has(Feature::DeferTaskrun)
        });
        let modes: &[CompletionMode] = match self.single_issuer && may_defer {
            true => &[CompletionMode::Deferred, CompletionMode::Cooperative, CompletionMode::Plain],
            false => &[CompletionMode::Cooperative, CompletionMode::Plain],
        };
        let mut refused = libc::EINVAL;
        for &mode in modes {
            match make(mode, entries, completion_entries) {
                Ok(uring) => return Ok((uring, matches!(mode, CompletionMode::Deferred))),
                Err(error) => refused = error.raw_os_error().unwrap_or(libc::EIO),
            }
            if refused != libc::EINVAL {
                break;
            }
        }
        Err(build_error(refused, entries, completion_entries))
    }
}

fn check_entries(queue: &'static str, entries: usize, limit: usize) -> Result<u32, DriverError> {
    if entries == 0 || entries > limit {
        return Err(DriverError::Entries { queue, entries, limit });
    }
    Ok(entries as u32)
}

fn make(mode: CompletionMode, entries: u32, completion_entries: u32) -> std::io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(completion_entries);
    match mode {
        // The flag lets a look that does not wait run completions too. An entry that is refused at
        // once does not keep those behind it from the kernel (5.18).
        CompletionMode::Deferred => builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all(),
        CompletionMode::Cooperative => {
            builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all()
        }
        CompletionMode::Plain => &mut builder,
    };
    // A forked child must not find the queues: they are one process's.
    builder.dontfork();
    builder.build(entries)
}

fn build_error(errno: i32, entries: u32, completion_entries: u32) -> DriverError {
    let memlock = Memlock::for_ring(entries, completion_entries);
    match errno {
        libc::ENOMEM if memlock.is_in_force() => DriverError::Memlock { entries, memlock },
        libc::EPERM | libc::EACCES => {
            DriverError::Forbidden { errno, sysctl: disabled_by_sysctl() }
        }
        libc::ENOSYS if kernel_has_io_uring() => DriverError::Forbidden { errno, sysctl: None },
        libc::ENOSYS => {
            DriverError::Unsupported { what: "io_uring", since: "5.1 (buffer rings: 5.19)" }
        }
        errno => {
            let error = std::io::Error::from_raw_os_error(errno);
            DriverError::no_room_or("setting up io_uring", &error, entries)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use crate::region::fake_page;
    use crate::{
        Backing, BuddyArena, BufferRing, Driver, DriverError, Event, FixedArena, PageSize,
    };

    /// Everything that asks for the size of a page gets that of another machine: the memory of
    /// arenas and rings begins on such pages, and the kernel takes it.
    #[test]
    fn a_driver_runs_with_pages_of_any_size() {
        for page in [4096, 16384, 65536] {
            fake_page::with(page, || {
                let mut driver = match Driver::builder().build() {
                    Err(DriverError::Forbidden { .. } | DriverError::Unsupported { .. }) => return,
                    driver => driver.unwrap(),
                };
                for backing in [Backing::Anonymous, Backing::TransparentHuge] {
                    for page_size in [PageSize::Auto, PageSize::Unknown] {
                        let arena = FixedArena::with_sizes(9, 1000).backing(backing);
                        let arena = arena.page_size(page_size).keep_from_children();
                        let arena = arena.build().unwrap();
                        let held = arena.allocate().unwrap();
                        assert!(held.as_ptr().addr().is_multiple_of(page), "slot 0 begins a page");
                        driver.register(&arena).unwrap();
                        let ring = BufferRing::options().entries(2);
                        let ring = driver.register_buffer_ring(&arena, ring).unwrap();
                        let (mut sender, socket) = std::os::unix::net::UnixStream::pair().unwrap();
                        driver.receive(ring, socket).unwrap();
                        sender.write_all(b"hello").unwrap();
                        // The end of the connection before may be told first.
                        let bytes = loop {
                            match driver.wait_event().unwrap() {
                                Event::Received { bytes, .. } => break bytes,
                                Event::Closed { .. } => {}
                                event => panic!("{event:?}"),
                            }
                        };
                        assert_eq!(bytes, "hello");
                    }
                }
                let arena = BuddyArena::with_sizes(8 * page, 256).build().unwrap();
                driver.register(&arena).unwrap();
            });
        }
    }
}
