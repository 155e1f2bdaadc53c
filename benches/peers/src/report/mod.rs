//! What was measured, as tables, figures and plots: for the terminal, and for `docs/benchmarks.md`.

mod figure;
mod machine;
mod markdown;
mod part;
mod plot;
mod question;
mod record;
mod terminal;

pub use figure::{Bound, Figure};
pub use markdown::write_page;
pub use part::{Comparison, Part, Row};
pub use plot::Plot;
pub use question::Question;
pub use record::{load, store};
pub use terminal::print;

/// Our line in every table.
pub const OURS: &str = "uring-arena";
