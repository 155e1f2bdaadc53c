//! Aligned runs of clear bits in 32 bits: the arithmetic of buddies inside one word.
//!
//! A run of *span* `s` is `1 << s` clear bits that start at a multiple of their length. Two buddies
//! that are both clear are, without further work, a run of the next span.

/// The span of a run that covers a whole word.
pub(super) const SPAN_MAX: u32 = 5;
const SPANS: usize = SPAN_MAX as usize + 1;

/// `STARTS[s]` marks the bits at which a run of span `s` may start.
const STARTS: [u32; SPAN_MAX as usize + 1] =
    [0xFFFF_FFFF, 0x5555_5555, 0x1111_1111, 0x0101_0101, 0x0001_0001, 0x0000_0001];

/// Returns the bits of a run of `span` that starts at bit 0.
#[inline]
pub(super) fn run_mask(span: u32) -> u32 {
    u32::MAX >> (32 - (1 << span))
}

/// Finds the starts of the runs that are one span longer than those which `starts` marks.
#[inline]
fn longer(starts: u32, span: u32) -> u32 {
    starts & (starts >> (1 << span)) & STARTS[span as usize + 1]
}

/// Finds the starts of all clear runs of `span`.
#[inline]
fn run_starts(occupied: u32, span: u32) -> u32 {
    (0..span).fold(!occupied, longer)
}

/// Finds the starts of the clear runs of every span.
///
/// No branches, here and below: the free bits are as good as random, and a branch that the
/// processor cannot predict costs more than all this arithmetic.
#[inline]
fn all_run_starts(occupied: u32) -> [u32; SPANS] {
    let mut starts = [!occupied; SPANS];
    for span in 0..SPANS - 1 {
        starts[span + 1] = longer(starts[span], span as u32);
    }
    starts
}

/// The search for clear runs of one span in a few instructions, by constants of the span.
///
/// A word is taken as fields of the length of a run. The addition of `low` carries into the highest
/// bit of a field that has any lower bit set, and into no other field.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Runs {
    span: u32,
    one: Fields,
    two: Fields,
}

#[derive(Debug, Clone, Copy, Default)]
struct Fields {
    /// All bits but the highest of each field.
    low: u32,
    /// The highest bit of each field.
    high: u32,
}

impl Fields {
    /// Makes the fields for runs of `span`. Above [`SPAN_MAX`] there are none.
    const fn of(span: u32) -> Fields {
        if span > SPAN_MAX {
            return Fields { low: 0, high: 0 };
        }
        let high = STARTS[span as usize] << ((1 << span) - 1);
        Fields { low: !high, high }
    }

    /// Returns the highest bits of the fields that are clear.
    #[inline(always)]
    fn clear(self, occupied: u32) -> u32 {
        self.high & !(((occupied & self.low) + self.low) | occupied)
    }
}

impl Runs {
    pub(super) fn of(span: u32) -> Runs {
        Runs { span, one: Fields::of(span), two: Fields::of(span + 1) }
    }

    /// Finds the start of the tightest clear run that serves, as [`find_run`] does.
    #[inline(always)] // into the claim of a block
    pub(super) fn find(self, occupied: u32) -> Option<u32> {
        if occupied == 0 {
            return Some(0);
        }
        let (runs, pairs) = (self.one.clear(occupied), self.two.clear(occupied));
        let length = 1 << self.span;
        // The runs whose buddy is not free.
        let alone = runs & !(pairs | pairs.wrapping_shr(length));
        if alone != 0 {
            return Some(alone.trailing_zeros() + 1 - length);
        }
        if pairs == 0 { None } else { find_run(occupied, self.span + 1) }
    }
}

/// Finds the start of the tightest clear run that serves `span`.
///
/// A run whose buddy is occupied is preferred: longer runs stay whole for larger blocks.
#[inline]
pub(super) fn find_run(occupied: u32, span: u32) -> Option<u32> {
    if occupied == 0 {
        return Some(0);
    }
    let starts = all_run_starts(occupied);
    let mut tightest = 0;
    for at in (0..SPANS).rev() {
        let pairs = if at < SPANS - 1 { starts[at + 1] } else { 0 };
        // The runs whose buddy is not free: no half of a longer run is among them.
        let alone = starts[at] & !(pairs | (pairs << (1u32 << at & 31)));
        let serves = alone != 0 && at >= span as usize;
        tightest = if serves { alone } else { tightest };
    }
    (tightest != 0).then(|| tightest.trailing_zeros())
}

/// Returns the span of the longest clear run, or `None` if every bit is occupied.
#[inline]
pub(super) fn longest_span(occupied: u32) -> Option<u32> {
    let spans: u32 = all_run_starts(occupied).iter().map(|&starts| u32::from(starts != 0)).sum();
    spans.checked_sub(1)
}

/// Counts the disjoint clear runs of `span`. A longer run counts as all that fit in it.
pub(super) fn count_runs(occupied: u32, span: u32) -> u32 {
    run_starts(occupied, span).count_ones()
}

/// Returns the numbers of the bits that are set, the lowest first.
pub(super) fn set_bits(mut set: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let lowest = set.checked_ilog2().map(|_| set.trailing_zeros());
        set &= set.wrapping_sub(1);
        lowest
    })
}

#[cfg(all(test, not(uring_arena_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_clear_run(occupied: u32, start: u32, span: u32) -> bool {
        start.is_multiple_of(1 << span) && occupied & (run_mask(span) << start) == 0
    }

    fn all_runs(occupied: u32, span: u32) -> Vec<u32> {
        (0..32).step_by(1 << span).filter(|&start| is_clear_run(occupied, start, span)).collect()
    }

    #[test]
    fn a_run_with_an_occupied_buddy_is_taken_before_a_longer_run_is_split() {
        // Bits 0..16 clear, bit 21 clear with its buddy 20 occupied.
        let occupied = 0xFFFF_0000 & !(1 << 21);
        assert_eq!(find_run(occupied, 0), Some(21));
        assert_eq!(find_run(occupied, 1), Some(0));
        assert_eq!(find_run(occupied, 4), Some(0));
        assert_eq!(find_run(occupied, 5), None);
        assert_eq!(find_run(u32::MAX, 0), None);
        assert_eq!(find_run(0, 5), Some(0));
    }

    proptest! {
        #[test]
        fn runs_agree_with_looking_at_every_bit(
            a in any::<u32>(),
            b in any::<u32>(),
            span in 0..=SPAN_MAX,
        ) {
            for occupied in [a, a & b, a & b & a.rotate_left(7), a | b] {
                let runs = all_runs(occupied, span);
                prop_assert_eq!(count_runs(occupied, span) as usize, runs.len());
                match find_run(occupied, span) {
                    Some(start) => prop_assert!(runs.contains(&start)),
                    None => prop_assert!(runs.is_empty()),
                }
                prop_assert_eq!(Runs::of(span).find(occupied), find_run(occupied, span));
                let longest = (0..=SPAN_MAX).rev().find(|&s| !all_runs(occupied, s).is_empty());
                prop_assert_eq!(longest_span(occupied), longest);
            }
        }
    }
}
