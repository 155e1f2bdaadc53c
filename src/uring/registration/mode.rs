//! The ways to register an arena: the one that was reached, and the one to ask for.

use std::fmt;

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
