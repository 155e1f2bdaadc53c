//! Registration: an arena's memory in a ring's table of registered buffers.

mod error;
mod fallback;
mod mode;
mod options;
mod registered;
mod table;
mod table_ranges;

pub use error::RegisterError;
pub use mode::{RegistrationMode, RegistrationPolicy};
pub use options::RegisterOptions;
pub(crate) use registered::handle_of;
pub use registered::{RegisteredArena, Registrable};
pub(crate) use table_ranges::TableRanges;
