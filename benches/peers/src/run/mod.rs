//! One runner for all parts: pairs of contender and case, each in a process of its own, measured in
//! interleaved rounds.

mod case;
mod child;
mod profile;
mod rounds;
mod sample;

pub use case::{
    Amount, Answer, Case, Comparison, Contender, Effort, Method, Metric, NANOS, Question, bind,
    metric,
};
pub use child::{Child, serve};
pub use profile::Profile;
pub use rounds::{CONTROL, Row, Session};
pub use sample::{Sample, Spread, Work, ratios, repeat, to_io_error};
