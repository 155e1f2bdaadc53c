//! The hints for the 16 children of one node, packed: four bits each.
//!
//! A field estimates the largest block that is free in a child. Field 0 is "nothing"; a field of
//! more is the order of the block, plus one. High levels have more orders than four bits can
//! count: there the small orders share field 1.

/// The low bit of each of 8 bytes.
const BYTES: u64 = 0x0101_0101_0101_0101;
const FIELD_MAX: u32 = 15;

/// Moves bit `i` of eight to bit `2 i`.
#[inline]
fn spread(mut bits: u32) -> u32 {
    bits = (bits | (bits << 4)) & 0x0F0F;
    bits = (bits | (bits << 2)) & 0x3333;
    (bits | (bits << 1)) & 0x5555
}

/// Returns the number of small orders that share field 1 on `level`.
#[inline]
fn skipped(level: u32) -> u32 {
    (4 * level + 6).saturating_sub(FIELD_MAX)
}

/// Returns the field for a word of `level` whose largest free block has `order`.
#[inline]
pub(super) fn field(level: u32, order: u32) -> u32 {
    (order + 1).saturating_sub(skipped(level)).max(1)
}

/// Returns the field for a word of `level` that is free as a whole.
#[inline]
pub(super) fn field_whole(level: u32) -> u32 {
    field(level, 4 * level + 5)
}

/// Returns the largest order that `field` may stand for.
pub(super) fn order_of(level: u32, field: u32) -> Option<u32> {
    (field != 0).then(|| field - 1 + skipped(level))
}

/// The hints for the children of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HintWord(pub(super) u64);

impl HintWord {
    /// Makes a word whose fields all are `field`.
    pub(super) fn all(field: u32) -> HintWord {
        HintWord(0x1111_1111_1111_1111 * u64::from(field))
    }

    #[inline]
    pub(super) fn get(self, child: u32) -> u32 {
        (self.0 >> (4 * child)) as u32 & FIELD_MAX
    }

    pub(super) fn with(self, child: u32, field: u32) -> HintWord {
        let shift = 4 * child;
        HintWord((self.0 & !(u64::from(FIELD_MAX) << shift)) | (u64::from(field) << shift))
    }

    /// Finds the children whose field is at least `field`: bit `c` for child `c`.
    #[inline]
    pub(super) fn at_least(self, field: u32) -> u32 {
        // Four-bit fields in bytes, so that adding `128 - field` carries into bit 7 from `field`
        // on.
        let compare = |fields: u64| {
            let carried = (fields & (BYTES * 0xF)) + BYTES * u64::from(128 - field);
            // Collects bit 7 of each byte: byte `i` to bit `i`.
            ((carried >> 7) & BYTES).wrapping_mul(0x0102_0408_1020_4080) >> 56
        };
        let (even, odd) = (compare(self.0), compare(self.0 >> 4));
        spread(even as u32) | (spread(odd as u32) << 1)
    }

    /// Finds the child with the smallest field among `of`, all of which have at least `field`.
    #[inline]
    pub(super) fn tightest(self, of: u32, field: u32) -> Option<u32> {
        if of == 0 {
            return None;
        }
        let mut more = of;
        let mut field = field;
        while more == of && field < FIELD_MAX {
            field += 1;
            more = of & self.at_least(field);
        }
        let tight = if more == of { of } else { of & !more };
        Some(tight.trailing_zeros())
    }

    /// Returns the largest field among the children `of`.
    pub(super) fn largest(self, of: u32) -> u32 {
        (1..=FIELD_MAX).rev().find(|&field| self.at_least(field) & of != 0).unwrap_or(0)
    }
}

#[cfg(all(test, not(uring_arena_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_field_never_promises_less_than_it_was_given() {
        for level in 0..6 {
            let mut last = 0;
            for order in 0..=4 * level + 5 {
                let field = field(level, order);
                assert!((1..=15).contains(&field) && field >= last);
                assert!(order_of(level, field) >= Some(order));
                last = field;
            }
            assert_eq!(field_whole(level), last);
        }
    }

    #[test]
    fn comparing_all_fields_at_once_is_comparing_each() {
        let mut random = 1u64;
        for _ in 0..1000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let fields = HintWord(random);
            for field in 0..=FIELD_MAX {
                let each =
                    (0..16).fold(0, |mask, c| mask | (u32::from(fields.get(c) >= field) << c));
                assert_eq!(fields.at_least(field), each);
            }
            let of = (random >> 7) as u32 & 0xFFFF;
            let smallest = (0..16).filter(|c| of & (1 << c) != 0).min_by_key(|&c| fields.get(c));
            assert_eq!(fields.tightest(of, 0), smallest);
        }
    }
}
