//! How an arena shall be registered.

use std::os::fd::{AsRawFd, RawFd};

use super::{RegisteredArena, RegistrationMode};
use crate::uring::kernel::Probe;

/// How an arena shall be registered.
///
/// ```
/// use uring_arena::{RegisterOptions, RegistrationMode};
///
/// // From index 64 on of a table that the ring has already, by regions.
/// let options = RegisterOptions::new().mode(RegistrationMode::Regions).at(64);
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct RegisterOptions<'a> {
    pub(super) mode: RegistrationMode,
    pub(super) at: Option<u32>,
    pub(super) source: Option<Source<'a>>,
    probe: Option<Probe>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) registered: &'a RegisteredArena,
    pub(super) ring: RawFd,
}

impl<'a> RegisterOptions<'a> {
    /// The best mode, in a table of its own.
    pub fn new() -> RegisterOptions<'a> {
        RegisterOptions::default()
    }

    /// Demands one mode: anything else is an error. [`RegistrationMode::Best`] demands nothing.
    #[must_use]
    pub fn mode(mut self, mode: RegistrationMode) -> Self {
        self.mode = mode;
        self
    }

    /// Places the arena into the table that the ring has already, from this index on: several
    /// arenas on one ring, or an arena beside other buffers. What stood there is replaced.
    #[must_use]
    pub fn at(mut self, index: u32) -> Self {
        self.at = Some(index);
        self
    }

    /// Offers a ring that has the arena registered, to clone from. Nothing is pinned or counted
    /// again.
    ///
    /// The kernel lets a ring of a single issuer be cloned from on that thread only: for rings of
    /// several threads, build the source with
    /// [`single_issuer(false)`](crate::DriverBuilder::single_issuer), or clone on the source's
    /// thread and hand the new ring over. A refused clone steps down to a registration of its own,
    /// unless [`RegistrationMode::Cloned`] is demanded.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use std::os::fd::AsRawFd;
    /// use uring_arena::{Driver, FixedArena, RegisterOptions};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(64).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// // Pins the memory, once; used by no thread's loop.
    /// # if let Err(error) = Driver::builder().build() { eprintln!("skipped: {error}"); return Ok(()) }
    /// let mut home = Driver::builder().single_issuer(false).entries(1).build()?;
    /// let id = home.register(&arena)?;
    /// let (registered, ring) = (home.arena(id)?, home.as_raw_fd());
    /// std::thread::scope(|scope| {
    ///     for _ in 0..2 {
    ///         scope.spawn(|| {
    ///             let mut driver = Driver::builder().build().unwrap();
    ///             let options = RegisterOptions::new().clone_of(registered, &ring);
    ///             let id = driver.register_with(&arena, options).unwrap();
    ///             println!("{:?}", driver.arena(id).unwrap().mode());
    ///         });
    ///     }
    /// });
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn clone_of(mut self, registered: &'a RegisteredArena, ring: &impl AsRawFd) -> Self {
        self.source = Some(Source { registered, ring: ring.as_raw_fd() });
        self
    }

    /// Believes this probe instead of looking.
    #[must_use]
    pub fn probe(mut self, probe: Probe) -> Self {
        self.probe = Some(probe);
        self
    }

    /// The same in a table of its own.
    pub(crate) fn not_at(mut self) -> Self {
        self.at = None;
        self
    }

    pub(crate) fn probe_unless_known(mut self, probe: Probe) -> Self {
        self.probe.get_or_insert(probe);
        self
    }

    pub(super) fn known_probe(&self) -> Option<Probe> {
        self.probe
    }
}

impl From<RegistrationMode> for RegisterOptions<'_> {
    fn from(mode: RegistrationMode) -> Self {
        RegisterOptions::new().mode(mode)
    }
}
