//! How well a ring knows an arena.

/// How an arena is known to a ring.
///
/// ```
/// use uring_arena::RegistrationMode;
///
/// assert!(RegistrationMode::Slots.is_registered());
/// assert!(!RegistrationMode::Unregistered.is_registered());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RegistrationMode {
    /// Only to be asked for: the first of those below that works.
    #[default]
    Best,
    /// Shares the registration of another ring: pins nothing again, costs no locked memory. Linux
    /// 6.12 (6.13 at an index).
    Cloned,
    /// One index per slot: slot index = buffer index. Up to 16,384 slots; costs the kernel 1 KiB a
    /// slot.
    Slots,
    /// One index per region of up to 1 GiB. With transparent huge pages it takes a tenth of the
    /// time of the slot mode for 16,384 slots of 64 KiB, and cloning it a thousandth; with ordinary
    /// pages both modes take as long.
    Regions,
    /// Not at all: operations are ordinary reads, writes and sends.
    Unregistered,
}

impl RegistrationMode {
    /// Whether operations can use a registered buffer.
    pub fn is_registered(self) -> bool {
        matches!(
            self,
            RegistrationMode::Cloned | RegistrationMode::Slots | RegistrationMode::Regions
        )
    }
}
