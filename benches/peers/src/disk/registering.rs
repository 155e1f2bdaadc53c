//! 1 GiB made known to the kernel: slot by slot, as regions, and for a second ring.

use std::io;
use std::num::NonZeroUsize;
use std::time::Instant;

use io_uring::IoUring;
use uring_arena::{Backing, FixedArena, RegisterOptions, RegisteredArena, RegistrationMode};

use crate::report::OURS;
use crate::run::{Amount, Answer, Effort, Method, Metric, Question, Sample, Work, metric};

const SLOT_BYTES: usize = 64 << 10;

/// Our lines for both sizes of pages: the cost of pinning depends on it.
pub static ON_HUGE_PAGES: [Answer<Question>; 1] =
    [Answer::new(OURS, "", |_, _| start(Backing::TransparentHuge))];
pub static ON_ORDINARY_PAGES: [Answer<Question>; 1] =
    [Answer::new(OURS, "", |_, _| start(Backing::Anonymous))];

const METRICS: &[Metric] = &[
    metric("slots", "one index per slot", "ms", 1.0),
    metric("regions", "one index per region", "ms", 1.0),
    metric("slots-cloned", "slots, cloned to a second ring", "ms", 1.0),
    metric("regions-cloned", "regions, cloned to a second ring", "ms", 1.0),
];

pub fn registering(label: &'static str) -> Question {
    let method = |effort: Effort| Method::rounds(1, effort.choose(3, 11), Amount::Times(1));
    Question { label, metrics: METRICS, method }
}

/// Measures the registration alone; the memory has been touched before.
fn start(backing: Backing) -> io::Result<Work> {
    let nz = |number| NonZeroUsize::new(number).ok_or(io::ErrorKind::InvalidInput);
    let builder = FixedArena::with_slot_capacity(nz((1 << 30) / SLOT_BYTES)?, nz(SLOT_BYTES)?);
    let arena = builder.alignment(4096).backing(backing).build().map_err(io::Error::other)?;
    Ok(Box::new(move |_| {
        let mut sample = Sample::default();
        for (mode, name, cloned_name) in [
            (RegistrationMode::Regions, "regions", "regions-cloned"),
            (RegistrationMode::Slots, "slots", "slots-cloned"),
        ] {
            let (first, second) = (IoUring::new(8)?, IoUring::new(8)?);
            let (spent, registered) = timed(&first, &arena, RegisterOptions::new().mode(mode))?;
            let options = RegisterOptions::new().mode(RegistrationMode::Cloned);
            let (cloning, copy) = timed(&second, &arena, options.clone_of(&registered, &first))?;
            copy.unregister(&second).map_err(io::Error::other)?;
            registered.unregister(&first).map_err(io::Error::other)?;
            sample = sample.with(name, spent).with(cloned_name, cloning);
        }
        Ok(sample)
    }))
}

fn timed(
    ring: &IoUring,
    arena: &FixedArena,
    options: RegisterOptions<'_>,
) -> io::Result<(f64, RegisteredArena)> {
    let begin = Instant::now();
    // SAFETY: nothing is ever pushed to these rings.
    let registered = unsafe { RegisteredArena::register(ring, arena, options) };
    let spent = begin.elapsed().as_secs_f64() * 1000.0;
    Ok((spent, registered.map_err(io::Error::other)?))
}
