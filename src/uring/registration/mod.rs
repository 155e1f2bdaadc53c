//! Registration: an arena's memory in a ring's table of registered buffers.

mod fallback;
mod mode;
mod options;
mod registered;
mod table;
mod table_ranges;

pub use mode::RegistrationMode;
pub use options::RegisterOptions;
pub(crate) use registered::handle_of;
pub use registered::{RegisteredArena, Registrable};
#[allow(unused_imports)]
pub(crate) use table_ranges::TableRanges;
