//! The claim and the free of a block.
//!
//! | a claim tries                                                      | in             |
//! |--------------------------------------------------------------------|----------------|
//! | the words in which its thread freed such blocks, then the last one | `claim_hinted` |
//! | rows beside the last one; a thread's first claim, its own word     | `scan_nearby`  |
//! | the parts of the tree that the hints promise, twice                | `scan_hinted`  |
//! | every word that could matter, at most twice                        | `search`       |
//! | the same once, while frees stand still                             | `claim_still`  |
//!
//! Nobody counts the blocks in use. The last access of a free is its exchange on the block's word.
//! The value that it replaces shows whether the tree is closed and the word has drained. So a free
//! is prepared first, and then done with nothing but the word in hand: after the exchange the tree
//! may be gone.

use super::levels::{self, NodeId, OrderInfo};
use super::scan::Scan;
use super::thread_cache::{ThreadCache, ThreadCaches};
use super::tree::{Attempt, WordTree};
use super::word::{CHILDREN, TreeWord};
use crate::slots::bitmap::{FreeOutcome, Search, note_pass};
use crate::sync::{AtomicU64, Ordering};

/// The largest order that a tree can have.
pub(crate) const BLOCK_ORDER_MAX: u32 = levels::ORDER_MAX;

/// The number of words in which a claim that goes apart from another thread looks.
const APART_MAX: u32 = 16;

/// The outcome of one pass over every word that could matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// A block was claimed.
    Found(u32),
    /// No block that serves was seen; with a fingerprint of the words and their versions.
    Nothing { versions: u64 },
    /// A block was seen, and was lost to another claim, or moved to another word meanwhile.
    Raced,
}

/// An allocator of blocks of `1 << order` smallest blocks.
pub(crate) struct BuddyAllocator {
    pub(super) tree: WordTree,
    pub(super) caches: ThreadCaches,
}

impl BuddyAllocator {
    /// Makes an allocator of `1 << max_order` smallest blocks, all free.
    ///
    /// Returns `None` if there is no memory for it.
    ///
    /// # Panics
    ///
    /// If `max_order` is above [`BLOCK_ORDER_MAX`].
    pub(crate) fn new(max_order: u32) -> Option<BuddyAllocator> {
        let tree = WordTree::new(max_order)?;
        Some(BuddyAllocator { caches: ThreadCaches::new(&tree.levels), tree })
    }

    /// Returns the number of smallest blocks, claimed or free.
    pub(crate) fn min_block_count(&self) -> usize {
        1 << self.max_order()
    }

    pub(crate) fn max_order(&self) -> u32 {
        self.tree.levels.max_order()
    }

    /// Claims a block of `1 << order` smallest blocks where this thread freed or claimed such
    /// blocks lately. Returns its first one.
    ///
    /// Returns `None` if there is none: [`search`](Self::search) tells more. The order is not above
    /// the largest.
    #[inline]
    pub(crate) fn claim_hinted(&self, order: u32) -> Option<u32> {
        debug_assert!(order <= self.max_order());
        let info = self.tree.levels.order(order);
        let cache = self.caches.of(order)?;
        loop {
            let freed = cache.take_freed();
            let index = freed.unwrap_or_else(|| cache.last_used());
            match self.tree.try_claim_in(index, info) {
                Attempt::Claimed(first) => return Some(first),
                Attempt::Lost => return self.claim_apart(index, order),
                Attempt::Nothing if freed.is_none() => return None,
                Attempt::Nothing => {}
            }
        }
    }

    /// Claims a block for a thread that lost an exchange in word number `index` of the order's
    /// level.
    ///
    /// Another thread works there too, so this one goes home, or, if there is nothing, to the words
    /// behind. At home it stays: the other one goes.
    #[cold]
    #[inline(never)]
    fn claim_apart(&self, index: u32, order: u32) -> Option<u32> {
        let info = self.tree.levels.order(order);
        // The thread may have taken the word out of its cache, and not claimed there.
        self.tree.raise_hint(info, index, 0);
        let node = info.node(index);
        let elsewhere = self.claim_at_home(node, order).or_else(|| {
            let words = self.tree.levels.words_at(info.level) as u32;
            (1..APART_MAX.min(words))
                .map(|step| (index + step) % words)
                .find_map(|index| self.tree.claim_in(index, info))
        });
        let found = elsewhere.or_else(|| self.tree.claim_in(index, info));
        if let (Some(first), Some(cache)) = (found, self.caches.of(order)) {
            cache.set_last_used(self.tree.levels.locate(first, order).0.index);
        }
        found
    }

    /// Has this thread claim blocks of `order` where it began, if it claimed the one at `first`
    /// elsewhere. Returns `true` then: its free of that block is not to be remembered.
    ///
    /// While the tree was nearly full the caches of many threads came to the few words that had
    /// free blocks. Where they share a word, or a claim is the last of many in one, they part.
    #[cold]
    pub(crate) fn go_home(&self, first: u32, order: u32) -> bool {
        let Some(cache) = self.caches.of(order) else { return false };
        let (node, _) = self.tree.levels.locate(first, order);
        if self.is_at_home(node) {
            return false;
        }
        while let Some(index) = cache.take_freed() {
            self.tree.raise_hint(self.tree.levels.order(order), index, 0);
        }
        cache.begin_at(self.home(node.level).index);
        true
    }

    /// Returns the word of a level that this thread began with.
    fn home(&self, level: u32) -> NodeId {
        NodeId { level, index: self.caches.home(self.tree.levels.words_at(level)) }
    }

    /// Returns `true` if `node` is the word that this thread began with, or beside it in a part of
    /// the level that no other thread begins in.
    fn is_at_home(&self, node: NodeId) -> bool {
        let home = self.home(node.level);
        let has_group = self.tree.levels.words_at(node.level) >= self.caches.count() * CHILDREN;
        node == home || (has_group && node.parent() == home.parent())
    }

    /// Claims a block near the word that this thread began with. Returns `None` if `node` is one of
    /// those words, or they have no such block.
    fn claim_at_home(&self, node: NodeId, order: u32) -> Option<u32> {
        let home = self.home(node.level);
        if self.is_at_home(node) || !self.tree.split_down_to(home) {
            return None;
        }
        self.tree
            .claim_in(home.index, self.tree.levels.order(order))
            .or_else(|| Scan::new(&self.tree, node.level, order, false).visit(home.parent()))
    }

    /// Claims a block, in three scans by hints and at most two passes over every word that could
    /// matter.
    ///
    /// `Full` if both passes found nothing, and the same versions in the same words. Then nothing
    /// was freed, split or merged between them: at that instant no such block was free.
    #[cold]
    pub(crate) fn search(&self, order: u32) -> Search<u32> {
        if order > self.max_order() {
            return Search::Full;
        }
        if let Some(first) = self.search_by_hints(order) {
            return Search::Found(first);
        }
        let versions = match self.pass(order) {
            Pass::Found(first) => return Search::Found(first),
            Pass::Nothing { versions } => versions,
            Pass::Raced => return Search::Unsettled,
        };
        match self.pass(order) {
            Pass::Found(first) => Search::Found(first),
            Pass::Nothing { versions: again } if again == versions => Search::Full,
            Pass::Nothing { .. } | Pass::Raced => Search::Unsettled,
        }
    }

    /// Claims a block while nobody frees: for a caller that holds the lock of the wait queue.
    ///
    /// One pass is exact. A further one is made only if a claim of another thread took a block that
    /// this one had seen. Nothing becomes free meanwhile, so there are no more of them than claims
    /// under way.
    #[cold]
    pub(crate) fn claim_still(&self, order: u32) -> Option<u32> {
        loop {
            match self.pass(order) {
                Pass::Found(first) => return Some(first),
                Pass::Nothing { .. } => return None,
                Pass::Raced => {}
            }
        }
    }

    /// Claims a block where blocks of that order were freed or claimed lately, or where the hints
    /// promise one. `None` proves nothing.
    #[cold]
    pub(crate) fn search_by_hints(&self, order: u32) -> Option<u32> {
        let info = self.tree.levels.order(order);
        let cache = self.caches.of(order);
        let nearby = cache
            .and_then(|cache| self.scan_nearby(info.node(cache.last_used()), cache, info, order));
        let found = nearby.or_else(|| self.scan_hinted(order));
        if let (Some(first), Some(cache)) = (found, cache) {
            cache.set_last_used(self.tree.levels.locate(first, order).0.index);
        }
        found
    }

    /// Keeps threads apart: the first claim of a thread activates a word of its own, and later ones
    /// look at the rows beside the last one.
    fn scan_nearby(
        &self,
        node: NodeId,
        cache: &ThreadCache,
        info: &OrderInfo,
        order: u32,
    ) -> Option<u32> {
        if cache.is_unused() {
            cache.set_last_used(node.index);
            let is_active = self.tree.split_down_to(node);
            return if is_active { self.tree.claim_in(node.index, info) } else { None };
        }
        if node.level > 0 || node.level == self.tree.levels.top() {
            return None;
        }
        Scan::new(&self.tree, node.level, order, false).visit(node.parent())
    }

    /// Scans from the root, in the parts that promise the least that is enough: full parts fill up,
    /// and empty ones stay whole for large blocks.
    fn scan_hinted(&self, order: u32) -> Option<u32> {
        let (tree, level) = (&self.tree, self.tree.levels.level_of(order));
        let by_hints = || Scan::new(tree, level, order, false).visit(tree.levels.root());
        by_hints().or_else(|| {
            // Threads keep their latest frees to themselves until another claim misses them.
            for (freed_order, index) in self.caches.all_freed() {
                tree.raise_hint(tree.levels.order(freed_order), index, 0);
            }
            by_hints()
        })
    }

    /// Searches every word that could matter, once.
    pub(super) fn pass(&self, order: u32) -> Pass {
        note_pass();
        let (tree, level) = (&self.tree, self.tree.levels.level_of(order));
        let mut scan = Scan::new(tree, level, order, true);
        if let Some(first) = scan.visit(tree.levels.root()) {
            let (node, _) = tree.levels.locate(first, order);
            // The hints had missed it.
            if let Some(largest) = tree.estimate(node) {
                tree.hints.raise(&tree.levels, node, largest);
            }
            return Pass::Found(first);
        }
        scan.versions().map_or(Pass::Raced, |versions| Pass::Nothing { versions })
    }

    /// Claims exactly the block of `order` at `first`.
    ///
    /// Returns `false` if a part of it is claimed, or was changed meanwhile.
    #[cold]
    pub(crate) fn claim_at(&self, first: u32, order: u32) -> bool {
        let (node, bit) = self.tree.levels.locate(first, order);
        self.tree.claim_range(node, self.tree.levels.order(order).mask_at(bit))
    }

    /// Returns the order of the largest free block around the block of `order` at `first`, which
    /// is free: at least `order`, and not above `limit` unless that is.
    ///
    /// The answer is exact while nobody else claims or frees, and never too small while nobody
    /// frees.
    #[cold]
    pub(crate) fn order_around(&self, first: u32, order: u32, limit: u32) -> u32 {
        let is_free = |block: u32, order| {
            let (node, bit) = self.tree.levels.locate(block << order, order);
            self.tree.is_free(node, self.tree.levels.order(order).mask_at(bit))
        };
        (order..limit.min(self.max_order()))
            .find(|&order| !is_free(first >> order ^ 1, order))
            .unwrap_or(limit.min(self.max_order()).max(order))
    }

    /// Frees a block, also if somebody waits. Never returns [`FreeOutcome::HasWaiters`].
    pub(crate) fn free_ignoring_waiters(&self, first: u32, order: u32) -> FreeOutcome {
        let (word, free) = self.prepare_free(first, order, order);
        free.free_ignoring_waiters(word)
    }

    /// Returns the word of a block and the change that frees the block in it.
    ///
    /// The thread's next claim of `cached_order` goes back to the word. That is the block's order,
    /// or one without a cache if the free is not to be remembered.
    #[inline(always)] // into the free of a lease
    pub(crate) fn prepare_free(
        &self,
        first: u32,
        order: u32,
        cached_order: u32,
    ) -> (&AtomicU64, BlockFree) {
        let info = self.tree.levels.order(order);
        let (NodeId { index, .. }, bit) = self.tree.levels.locate(first, order);
        let free = BlockFree { mask: info.mask_at(bit), level: info.level, pinned: info.pinned };
        // Most likely a thread goes back to a free that it remembers: the hints need not have it.
        // Other threads find it all the same, see `search`.
        let forgotten = match self.caches.of(cached_order) {
            Some(cache) => cache.push_freed(index),
            None => Some(index),
        };
        if let Some(forgotten) = forgotten {
            self.tree.raise_hint(info, forgotten, if forgotten == index { free.mask } else { 0 });
        }
        (self.tree.word_of(info, index), free)
    }

    /// Returns the number of words that must drain before a closed allocator may be dropped.
    pub(crate) fn word_count(&self) -> usize {
        self.tree.levels.iter().count()
    }

    /// Closes every word. Returns how many hold no claim and so are drained already.
    ///
    /// Only the last handle calls this: nobody can claim any more, but other threads may be
    /// freeing.
    pub(crate) fn close(&self) -> usize {
        let levels = &self.tree.levels;
        levels
            .iter()
            .filter(|&node| {
                // AcqRel. Acquire pairs with the Release of the frees (`BlockFree::exchange`): a
                // closing that frees the memory, as nothing was claimed, sees the last owners'
                // writes. Release pairs with their Acquire: a free that finds the tree closed sees
                // what came before.
                let before = self.tree.word(node).fetch_or(TreeWord::CLOSED_FLAG, Ordering::AcqRel);
                TreeWord(before).claimed(node.level) & !levels.pinned(node.level) == 0
            })
            .count()
    }

    /// Sets the `WAITERS` flag of every word: later frees release their block to the wait queue.
    ///
    /// Any block may be part of the one that is waited for, so every word has the flag.
    pub(crate) fn set_waiters_flags(&self) {
        for node in self.tree.levels.iter() {
            // Acquire: as the exchange below, where the flag was set already.
            if !self.tree.load(node).has_waiters() {
                // AcqRel. Acquire pairs with the Release of frees that came before the flag: the
                // look that follows sees them. Release publishes the waiter's entry to the frees
                // that see the flag.
                self.tree.word(node).fetch_or(TreeWord::WAITERS_FLAG, Ordering::AcqRel);
            }
        }
    }

    /// Clears the `WAITERS` flag of every word.
    pub(crate) fn clear_waiters_flags(&self) {
        for node in self.tree.levels.iter() {
            if self.tree.load(node).has_waiters() {
                // AcqRel: keeps the chain of the word's frees whole; see `set_waiters_flags`.
                self.tree.word(node).fetch_and(!TreeWord::WAITERS_FLAG, Ordering::AcqRel);
            }
        }
    }
}

#[cfg(test)]
impl BuddyAllocator {
    /// Claims a block, by as many searches as it takes.
    pub(crate) fn claim(&self, order: u32) -> Option<u32> {
        if order > self.max_order() {
            return None;
        }
        self.claim_hinted(order).or_else(|| {
            loop {
                match self.search(order) {
                    Search::Found(first) => return Some(first),
                    Search::Full => return None,
                    Search::Unsettled => {}
                }
            }
        })
    }
}

impl std::fmt::Debug for BuddyAllocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuddyAllocator")
            .field("max_order", &self.max_order())
            .field("live_min_blocks", &self.live_min_blocks())
            .finish_non_exhaustive()
    }
}

/// The change of a word that frees one of its blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockFree {
    mask: u32,
    level: u32,
    pinned: u32,
}

impl BlockFree {
    /// Frees the block unless somebody waits. Nothing of the tree may be touched afterwards.
    #[inline]
    pub(crate) fn free(self, word: &AtomicU64) -> FreeOutcome {
        self.exchange(word, true)
    }

    /// Frees the block, also if somebody waits. Never returns [`FreeOutcome::HasWaiters`].
    #[inline]
    pub(crate) fn free_ignoring_waiters(self, word: &AtomicU64) -> FreeOutcome {
        self.exchange(word, false)
    }

    #[inline]
    fn exchange(self, shared: &AtomicU64, heed_waiters: bool) -> FreeOutcome {
        // Acquire, for the answer `HasWaiters`: pairs with the Release in `set_waiters_flags`.
        let mut now = TreeWord(shared.load(Ordering::Acquire));
        loop {
            if heed_waiters && now.has_waiters() {
                return FreeOutcome::HasWaiters;
            }
            assert!(
                now.claimed(self.level) & self.mask == self.mask,
                "block freed that is not claimed"
            );
            let after = now.without_claim(self.mask);
            // AcqRel. Release pairs with the Acquire of the next claim of these smallest blocks
            // (`WordTree::claim_in`) and of the last free. Acquire pairs with the Release of the
            // closing and of the word's other frees: the last one frees their memory too.
            match shared.compare_exchange_weak(now.0, after.0, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) if after.is_closed() && after.claimed(self.level) & !self.pinned == 0 => {
                    return FreeOutcome::ArenaDrained;
                }
                Ok(_) => return FreeOutcome::Done,
                Err(other) => now = TreeWord(other),
            }
        }
    }
}
