//! What does it cost to make 1 GiB known to the kernel: slot by slot, as regions, and for a second
//! ring?

use std::num::NonZeroUsize;
use std::time::Instant;

use io_uring::IoUring;
use uring_arena::{Backing, FixedArena, RegisterOptions, RegisteredArena, RegistrationMode};

use crate::harness::Effort;
use crate::report::{Comparison, Part, Row};

const SLOT_BYTES: usize = 64 << 10;
const SLOTS: usize = (1 << 30) / SLOT_BYTES;

pub const BY_SLOT: &str = "one index per slot";
pub const BY_REGION: &str = "one index per region";
pub const SLOTS_CLONED: &str = "slots, cloned to a second ring";
pub const REGIONS_CLONED: &str = "regions, cloned to a second ring";

/// Pinning depends on the pages, so both kinds are measured: a key of the table, what to say, and
/// what to ask for.
pub const PAGES: [(&str, &str, Backing); 2] = [
    ("registering-huge", "transparent huge pages", Backing::TransparentHuge),
    ("registering", "ordinary pages", Backing::Anonymous),
];

/// Times are of the registration alone; the memory has been touched before.
pub fn add(part: &mut Part, effort: Effort) {
    for (key, pages, backing) in PAGES {
        match rounds(effort, backing) {
            Ok(times) => {
                let title = format!("Registering 1 GiB in slots of 64 KiB, {pages}");
                let names = [BY_SLOT, BY_REGION, SLOTS_CLONED, REGIONS_CLONED];
                let rows = names.iter().zip(times).map(|(name, times)| Row::new(name, "", times));
                part.push(Comparison::new(key, &title, "ms", rows.collect()));
            }
            Err(error) => {
                part.remarks.push(format!("Registering on {pages} is left out: {error}."))
            }
        }
    }
}

/// Milliseconds, in the order of the names above.
fn rounds(effort: Effort, backing: Backing) -> Result<[Vec<f64>; 4], Box<dyn std::error::Error>> {
    let nz = |number| NonZeroUsize::new(number).ok_or("sizes here are above zero");
    let builder = FixedArena::with_slot_capacity(nz(SLOTS)?, nz(SLOT_BYTES)?).alignment(4096);
    let arena = builder.backing(backing).build()?;
    let [mut slots, mut regions, mut slots_cloned, mut regions_cloned] = [const { Vec::new() }; 4];
    for _ in 0..effort.choose(3, 11) {
        for (mode, times, cloned) in [
            (RegistrationMode::Regions, &mut regions, &mut regions_cloned),
            (RegistrationMode::Slots, &mut slots, &mut slots_cloned),
        ] {
            let (first, second) = (IoUring::new(8)?, IoUring::new(8)?);
            let registered = timed(times, &first, &arena, RegisterOptions::new().mode(mode))?;
            let options =
                RegisterOptions::new().mode(RegistrationMode::Cloned).clone_of(&registered, &first);
            let copy = timed(cloned, &second, &arena, options)?;
            copy.unregister(&second)?;
            registered.unregister(&first)?;
        }
    }
    Ok([slots, regions, slots_cloned, regions_cloned])
}

fn timed(
    times: &mut Vec<f64>,
    ring: &IoUring,
    arena: &FixedArena,
    options: RegisterOptions<'_>,
) -> Result<RegisteredArena, Box<dyn std::error::Error>> {
    let begin = Instant::now();
    // SAFETY: nothing is ever pushed to these rings.
    let registered = unsafe { RegisteredArena::register(ring, arena, options)? };
    times.push(begin.elapsed().as_secs_f64() * 1000.0);
    Ok(registered)
}
