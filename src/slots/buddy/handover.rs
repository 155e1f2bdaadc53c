//! A word changes hands between itself and its parent.
//!
//! Invariants, by what the parent says of the child:
//!
//! 1. `Free` or `Taken`: the child is sealed.
//! 2. `Open`: the child is not sealed, or is about to be unsealed by whoever wants it first.
//! 3. `Closing`: either; nobody unseals it.
//!
//! The only way from `Open` back to `Free` is through `Closing`, then a *new* seal on the child,
//! then the exchange of the exact parent word read before that seal. Somebody slow who still means
//! to unseal has read the child before the parent: if before the new seal, the new version foils
//! the exchange; if after it, the parent reads `Closing` or later. So invariant 1 holds.

use super::BuddyAllocator;
use super::levels::At;
use super::word::{Child, Word};
use crate::sync::Ordering;

/// What came of entering a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    /// The child was sealed; it is open now, and the bits asked for are claimed.
    Unsealed,
    /// The child is open already.
    Open,
    /// The child belongs to its parent again.
    Gone,
}

impl BuddyAllocator {
    /// Makes a child that its parent has handed down ready for claims; if it was sealed, claims
    /// `claim` in the same step.
    pub(super) fn enter(&self, parent: At, child: u32, claim: u32) -> Entered {
        let below = parent.child(child);
        loop {
            // The child first: see the module's proof.
            let inside = self.load(below);
            if !inside.is_sealed() {
                return Entered::Open;
            }
            let above = self.load(parent);
            match above.child(child) {
                Child::Free | Child::Taken => return Entered::Gone,
                // A claim in hand goes before one that still gathers.
                Child::Closing => {
                    self.replace(parent, above, above.with_child(child, Child::Open));
                }
                Child::Open => {
                    if self.replace(below, inside, inside.unsealed(claim)) {
                        return Entered::Unsealed;
                    }
                }
            }
        }
    }

    /// Takes an empty child back: `true` if it is `Free` in the parent now.
    pub(super) fn take_back(&self, parent: At, child: u32) -> bool {
        let below = parent.child(child);
        loop {
            let above = self.load(parent);
            match above.child(child) {
                Child::Free => return true,
                Child::Taken => return false,
                Child::Open => {
                    self.replace(parent, above, above.with_child(child, Child::Closing));
                }
                Child::Closing => {
                    let Some(inside) = self.emptied(below) else {
                        // In use after all. If this exchange fails, look again.
                        if self.replace(parent, above, above.with_child(child, Child::Open)) {
                            return false;
                        }
                        continue;
                    };
                    // Sealed or not, it gets a new seal.
                    if self.replace(below, inside, inside.sealed())
                        && self.replace(parent, above, above.with_child(child, Child::Free))
                    {
                        // Relaxed: a counter.
                        self.merges.fetch_add(1, Ordering::Relaxed);
                        return true;
                    }
                }
            }
        }
    }

    /// The word at `at` if nothing is claimed in it or below, with all its children taken back.
    fn emptied(&self, at: At) -> Option<Word> {
        let word = self.load(at);
        if at.level > 0 && !word.is_sealed() {
            if word.claimed(at.level) != 0 {
                return None;
            }
            for child in 0..super::levels::CHILDREN as u32 {
                if word.child(child) != Child::Free && !self.take_back(at, child) {
                    return None;
                }
            }
        }
        let word = self.load(at);
        (word.state() == 0).then_some(word)
    }
}
