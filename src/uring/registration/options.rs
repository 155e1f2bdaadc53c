//! The options of a registration.

use super::table::BufferTable;
use crate::lease::Handle;
use crate::uring::kernel::Probe;
use std::fmt;
use std::os::fd::RawFd;
#[cfg(feature = "compio")]
use {super::error::RegisterError, crate::uring::kernel::Feature};

/// The options of a registration: the policy, the index in the ring's table, and a ring to clone
/// from.
///
/// ```
/// use uring_arena::{RegisterOptions, RegistrationMode};
///
/// // By regions, from index 64 on of a table that the ring has already.
/// let options = RegisterOptions::new().mode(RegistrationMode::Regions).at(64);
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct RegisterOptions<'a> {
    pub(super) policy: RegistrationPolicy,
    pub(super) at: Option<u32>,
    pub(super) source: Option<Source<'a>>,
    pub(super) probe: Option<Probe>,
}

/// A ring to clone a registration from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) ring: RawFd,
    pub(super) arena: Option<&'a Handle>,
    pub(super) table: Option<BufferTable>,
}

impl<'a> RegisterOptions<'a> {
    /// Returns the default options: the best mode, in a table of its own.
    ///
    /// ```
    /// use uring_arena::{RegisterOptions, RegistrationPolicy};
    ///
    /// // The policy alone converts as well.
    /// let options = [RegisterOptions::new(), RegistrationPolicy::Best.into()];
    /// # let _ = options;
    /// ```
    pub fn new() -> RegisterOptions<'a> {
        RegisterOptions::default()
    }

    /// Demands one mode: if it does not work, the registration fails
    /// ([`RegistrationPolicy::Only`]).
    ///
    /// ```
    /// use uring_arena::{RegisterOptions, RegistrationMode};
    ///
    /// let options = RegisterOptions::new().mode(RegistrationMode::Slots);
    /// # let _ = options;
    /// ```
    #[must_use]
    pub fn mode(mut self, mode: RegistrationMode) -> Self {
        self.policy = RegistrationPolicy::Only(mode);
        self
    }

    /// Places the arena into the table that the ring has already, from this index on. The entries
    /// that stood there are replaced.
    ///
    /// Several arenas can share one ring in this way, and an arena can stand beside other buffers.
    ///
    /// ```
    /// use io_uring::IoUring;
    /// use uring_arena::{FixedArena, RegisterOptions, RegisteredArena};
    /// # use std::num::NonZeroUsize;
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// # let Ok(ring) = IoUring::new(8) else { return Ok(()) };
    /// # if !uring_arena::Probe::shared()?.has(uring_arena::Feature::SparseTable) { return Ok(()) }
    ///
    /// ring.submitter().register_buffers_sparse(128)?;
    /// let options = RegisterOptions::new().at(64);
    /// // SAFETY: no operation is built.
    /// let registered = unsafe { RegisteredArena::register(&ring, &arena, options)? };
    /// assert_eq!(registered.entries(), Some((64, 4)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn at(mut self, index: u32) -> Self {
        self.at = Some(index);
        self
    }

    /// Uses this probe instead of [`Probe::shared`].
    ///
    /// ```
    /// use uring_arena::{Probe, RegisterOptions};
    ///
    /// // As on a kernel without registered buffers: the arena stays unregistered.
    /// let options = RegisterOptions::new().probe(Probe::none());
    /// # let _ = options;
    /// ```
    #[must_use]
    pub fn probe(mut self, probe: Probe) -> Self {
        self.probe = Some(probe);
        self
    }

    /// Removes the index: the arena gets a table of its own.
    pub(crate) fn not_at(mut self) -> Self {
        self.at = None;
        self
    }

    /// Uses the kernel's features, or those of the probe that was given, but for `feature`.
    #[cfg(feature = "compio")]
    pub(crate) fn without(mut self, feature: Feature) -> Result<Self, RegisterError> {
        let probe = self.probe.map_or_else(Probe::shared, Ok)?;
        self.probe = Some(probe.without(feature));
        Ok(self)
    }

    pub(crate) fn probe_unless_known(mut self, probe: Probe) -> Self {
        self.probe.get_or_insert(probe);
        self
    }
}

impl From<RegistrationPolicy> for RegisterOptions<'_> {
    fn from(policy: RegistrationPolicy) -> Self {
        RegisterOptions { policy, ..RegisterOptions::default() }
    }
}

impl From<RegistrationMode> for RegisterOptions<'_> {
    fn from(mode: RegistrationMode) -> Self {
        RegisterOptions::new().mode(mode)
    }
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("ring", &self.ring).finish_non_exhaustive()
    }
}

/// The way in which a ring knows an arena.
///
/// A registration reports the mode that it reached. A [`RegistrationPolicy`] says which modes may
/// be tried.
///
/// ```
/// use uring_arena::RegistrationMode;
///
/// assert!(RegistrationMode::Slots.is_registered());
/// assert!(!RegistrationMode::Unregistered.is_registered());
/// assert_eq!(RegistrationMode::Slots.to_string(), "slots");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegistrationMode {
    /// The registration of another ring is shared: nothing is pinned again, and no locked memory is
    /// counted. Linux 6.12 (6.13 at an index).
    Cloned,
    /// Each slot has an index: slot index = buffer index. At most 16,384 slots; costs the kernel
    /// 1 KiB a slot.
    Slots,
    /// Each region of at most 1 GiB has an index.
    ///
    /// With transparent huge pages this mode takes a tenth of the time of the slot mode for 16,384
    /// slots of 64 KiB. Cloning it takes a thousandth. With ordinary pages both modes take as long.
    Regions,
    /// The ring does not know the arena: operations are ordinary reads, writes and sends.
    Unregistered,
}

impl RegistrationMode {
    /// Returns whether operations can use a registered buffer.
    ///
    /// ```
    /// use uring_arena::RegistrationMode;
    ///
    /// assert!(RegistrationMode::Cloned.is_registered());
    /// assert!(!RegistrationMode::Unregistered.is_registered());
    /// ```
    pub fn is_registered(self) -> bool {
        self != RegistrationMode::Unregistered
    }
}

/// Writes the mode as one word: `cloned`, `slots`, `regions` or `unregistered`.
impl fmt::Display for RegistrationMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RegistrationMode::Cloned => "cloned",
            RegistrationMode::Slots => "slots",
            RegistrationMode::Regions => "regions",
            RegistrationMode::Unregistered => "unregistered",
        })
    }
}

/// The modes that a registration may use.
///
/// ```
/// use uring_arena::{RegistrationMode, RegistrationPolicy};
///
/// assert_eq!(RegistrationPolicy::default(), RegistrationPolicy::Best);
/// let only_slots = RegistrationPolicy::from(RegistrationMode::Slots);
/// assert_eq!(only_slots.to_string(), "only slots");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RegistrationPolicy {
    /// The first mode that works: [`Cloned`](RegistrationMode::Cloned) if a source is offered, then
    /// [`Slots`](RegistrationMode::Slots), then [`Regions`](RegistrationMode::Regions), then
    /// [`Unregistered`](RegistrationMode::Unregistered).
    #[default]
    Best,
    /// This mode and no other: if the mode does not work, the registration fails.
    Only(RegistrationMode),
}

impl From<RegistrationMode> for RegistrationPolicy {
    fn from(mode: RegistrationMode) -> RegistrationPolicy {
        RegistrationPolicy::Only(mode)
    }
}

/// Writes `best`, or `only` and the mode.
impl fmt::Display for RegistrationPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegistrationPolicy::Best => f.pad("best"),
            RegistrationPolicy::Only(mode) => write!(f, "only {mode}"),
        }
    }
}
