//! Splits and merges: a part of the region passes from a word to the child word below it, and back.
//!
//! | the parent's [`Child`]  | the child's word                                                   |
//! |-------------------------|--------------------------------------------------------------------|
//! | `Free`, `Claimed`       | is inactive                                                        |
//! | `Split`                 | is active, or is about to be activated by the first claim in it    |
//! | `Merging`               | is either; nobody activates it                                     |
//!
//! The only way from `Split` back to `Free` leads through `Merging`. Then the child gets a new
//! `INACTIVE`, in a write of its own. Then the exchange of exactly the parent's value that was read
//! before that write sets `Free`. A slow claim that still means to activate the child has read the
//! child before the parent. If it read the child before the new `INACTIVE`, the new version foils
//! its exchange. If after, it finds `Merging` or a later state in the parent. So the first line of
//! the table holds.

use super::levels::NodeId;
use super::tree::WordTree;
use super::word::{CHILDREN, Child, TreeWord};
use crate::sync::Ordering;

/// The outcome of making a child ready for claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    /// The child was inactive. It is active now, and the bits asked for are claimed.
    Activated,
    /// The child was active already.
    Active,
    /// The child belongs to its parent again.
    OwnedByParent,
}

impl WordTree {
    /// Splits a word: its free child is claimed in parts from here on.
    ///
    /// Returns `false` if the word has another value than `word`.
    pub(super) fn split(&self, node: NodeId, word: TreeWord, child: u32) -> bool {
        if !self.replace(node, word, word.with_child(child, Child::Split)) {
            return false;
        }
        // Relaxed: a counter.
        self.splits.fetch_add(1, Ordering::Relaxed);
        let below = node.child(child);
        self.hints.raise(&self.levels, below, below.order());
        true
    }

    /// Splits every word above `node`, and activates `node`.
    ///
    /// Returns `false` if one of the words is claimed as a whole, or was changed meanwhile.
    pub(super) fn split_down_to(&self, node: NodeId) -> bool {
        if node.level == self.levels.top() || !self.load(node).is_inactive() {
            return true;
        }
        let (parent, child) = (node.parent(), node.child_number());
        if !self.split_down_to(parent) {
            return false;
        }
        let word = self.load(parent);
        if word.is_inactive()
            || (word.child(child) == Child::Free && !self.split(parent, word, child))
        {
            return false;
        }
        self.activate_child(parent, child, 0) != Activation::OwnedByParent
    }

    /// Claims exactly the bits of `mask`: splits the words above, and merges the children under it.
    ///
    /// Returns `false` if a part is claimed, or was changed meanwhile.
    pub(super) fn claim_range(&self, node: NodeId, mask: u32) -> bool {
        let children = if node.level == 0 { 0 } else { CHILDREN as u32 };
        self.split_down_to(node)
            && (0..children)
                .filter(|child| mask & (0b11 << (2 * child)) != 0)
                .all(|child| self.merge(node, child))
            && self.claim_exactly(node, mask)
    }

    /// Makes a child of a split word ready for claims. If it was inactive, claims `claim` in the
    /// same step.
    pub(super) fn activate_child(&self, parent: NodeId, child: u32, claim: u32) -> Activation {
        let below = parent.child(child);
        loop {
            // The child first: see the proof at the head of the file.
            let inside = self.load(below);
            if !inside.is_inactive() {
                return Activation::Active;
            }
            let above = self.load(parent);
            match above.child(child) {
                Child::Free | Child::Claimed => return Activation::OwnedByParent,
                // A claim in hand goes before one that still merges.
                Child::Merging => {
                    self.replace(parent, above, above.with_child(child, Child::Split));
                }
                Child::Split => {
                    if self.replace(below, inside, inside.activated(claim)) {
                        return Activation::Activated;
                    }
                }
            }
        }
    }

    /// Merges an empty child into its parent. Returns `true` if it is `Free` in the parent now.
    pub(super) fn merge(&self, parent: NodeId, child: u32) -> bool {
        let below = parent.child(child);
        loop {
            let above = self.load(parent);
            match above.child(child) {
                Child::Free => return true,
                Child::Claimed => return false,
                Child::Split => {
                    self.replace(parent, above, above.with_child(child, Child::Merging));
                }
                Child::Merging => {
                    let Some(inside) = self.merge_below(below) else {
                        // In use after all. If this exchange fails, look again.
                        if self.replace(parent, above, above.with_child(child, Child::Split)) {
                            return false;
                        }
                        continue;
                    };
                    // Inactive or not, the child gets a new `INACTIVE`.
                    if self.replace(below, inside, inside.deactivated())
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

    /// Merges all children of a word. Returns the word, or `None` if a block in it or below is
    /// claimed.
    fn merge_below(&self, node: NodeId) -> Option<TreeWord> {
        let word = self.load(node);
        if node.level > 0 && !word.is_inactive() {
            if word.claimed(node.level) != 0 {
                return None;
            }
            for child in 0..CHILDREN as u32 {
                if word.child(child) != Child::Free && !self.merge(node, child) {
                    return None;
                }
            }
        }
        let word = self.load(node);
        (word.state() == 0).then_some(word)
    }
}
