//! uring-arena beside every peer, on the same work, in one run.
//!
//! The program is `cargo run --release -p uring-arena-peers`; criterion watches the micro cases by
//! `cargo bench -p uring-arena-peers`. Each folder uses only the ones before it: `measure`, `run`,
//! `report`, then the parts.
//!
//! A part binds cases to contenders (`run::Case`, `run::Contender`; `run::Question` and
//! `run::Answer` where words and functions are enough). `run::Method` says how a case is measured:
//! loops in every profile, processes in lockstep, whole programs whose processor time and system
//! calls are observed from outside, or exact counts. A value that a contender leaves in its
//! `run::Sample` becomes a table if the case names it as a metric. Promises are lines of
//! `promises.tsv`.

mod buddy;
#[cfg(feature = "io")]
mod bulk;
#[cfg(feature = "io")]
mod disk;
mod fixed;
#[cfg_attr(not(feature = "io"), allow(dead_code, unused_imports))]
mod measure;
#[cfg(feature = "io")]
mod programs;
#[cfg(feature = "io")]
mod receive;
pub mod report;
pub mod run;
#[cfg(feature = "io")]
mod runtimes;
mod scaling;
#[cfg(feature = "io")]
mod sends;
#[cfg(feature = "io")]
pub mod servers;
#[cfg(feature = "io")]
mod serving;
#[cfg(feature = "io")]
mod tasks;
mod waiting;

pub use measure::{pin_to_core, wear_in_heap};
#[cfg(feature = "io")]
pub use receive::far_ends;

/// Returns all parts, in the order of the page.
pub fn parts(effort: run::Effort) -> Vec<report::Part> {
    vec![
        fixed::part(effort),
        buddy::part(effort),
        waiting::part(effort),
        #[cfg(feature = "io")]
        receive::part(effort),
        #[cfg(feature = "io")]
        bulk::part(effort),
        #[cfg(feature = "io")]
        runtimes::part(effort),
        #[cfg(feature = "io")]
        sends::part(effort),
        #[cfg(feature = "io")]
        disk::part(effort),
        #[cfg(feature = "io")]
        programs::part(effort),
        #[cfg(feature = "io")]
        serving::resp_part(effort),
        #[cfg(feature = "io")]
        serving::dns_part(effort),
        #[cfg(feature = "io")]
        serving::broker_part(effort),
        #[cfg(feature = "io")]
        serving::log_part(effort),
        scaling::part(effort),
    ]
}
