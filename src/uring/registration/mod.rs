//! Registration: an arena's memory in a ring's table of registered buffers.

mod error;
mod fallback;
mod options;
mod registered;
mod table;

pub use error::RegisterError;
pub use options::RegisterOptions;
pub use options::{RegistrationMode, RegistrationPolicy};
pub(crate) use registered::handle_of;
pub use registered::{RegisteredArena, Registrable};
pub(crate) use table::TableRanges;
