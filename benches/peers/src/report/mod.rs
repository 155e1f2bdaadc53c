//! The results: on the terminal, as TSV by a fixed schema, and as the page `docs/benchmarks.md`.

mod machine;
#[cfg(feature = "io")]
mod page;
mod part;
#[cfg(feature = "io")]
mod plot;
mod promise;
mod table;
mod terminal;

#[cfg(feature = "io")]
pub use page::{CONCLUSION, write_page};
pub use part::{OURS, Part, Plot};
pub use promise::{PROMISES, promises};
pub use table::Table;
pub use terminal::print;
