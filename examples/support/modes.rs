//! The names of registration modes in the output of examples and of the doctor.

use uring_arena::RegistrationMode;

/// Returns the name of a registration mode in the output.
pub fn mode_name(mode: RegistrationMode) -> &'static str {
    match mode {
        RegistrationMode::Cloned => "cloned from another ring",
        RegistrationMode::Slots => "one table entry per slot",
        RegistrationMode::Regions => "one table entry per region",
        RegistrationMode::Unregistered => "not registered",
        _ => "another mode",
    }
}
