//! What both builders are told in the same words: about the memory, and about what a buffer does at
//! its limits.

/// The setters of a builder with the fields `zero`, `spill` and `request`.
///
/// `$block` is what its arena calls a piece of the memory; `$begin` begins a builder of 4 × 4096
/// bytes, and `$claim` claims a buffer of `arena`: for the examples.
macro_rules! shared_setters {
    ($builder:ident, $block:literal, $begin:literal, $claim:literal) => {
        impl $builder {
            #[doc = concat!("Lets a buffer that outgrows its ", $block, " go on on the heap instead of panicking.")]
            ///
            /// ```
            /// # use std::num::NonZeroUsize;
            /// # use uring_arena::*;
            /// use bytes::BufMut;
            ///
            #[doc = concat!("# let builder = ", $begin, ";")]
            /// let arena = builder.auto_spill().build()?;
            #[doc = concat!("let mut buffer = ", $claim, ";")]
            /// buffer.put_slice(&[7; 10_000]);
            /// assert!(buffer.is_spilled());
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn auto_spill(mut self) -> $builder {
                self.spill = true;
                self
            }

            #[doc = concat!("What a new owner finds in a ", $block, ". Default: [`InitPolicy::Uninit`](crate::InitPolicy::Uninit).")]
            ///
            /// ```
            /// # use std::num::NonZeroUsize;
            /// # use uring_arena::*;
            #[doc = concat!("# let builder = ", $begin, ";")]
            /// let arena = builder.init_policy(InitPolicy::Zero).build()?; // scrubbed when freed
            #[doc = concat!("drop(", $claim, ");")]
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn init_policy(mut self, policy: crate::InitPolicy) -> $builder {
                self.zero = policy == crate::InitPolicy::Zero;
                self
            }

            /// How [`build`](Self::build) makes the pages present. Default:
            /// [`PageSize::Auto`](crate::PageSize::Auto).
            ///
            /// ```
            /// # use std::num::NonZeroUsize;
            /// # use uring_arena::*;
            #[doc = concat!("# let builder = ", $begin, ";")]
            /// let arena = builder.page_size(PageSize::Unknown).build()?; // not touched
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn page_size(mut self, page_size: crate::PageSize) -> $builder {
                self.request.page_size = page_size;
                self
            }

            /// Where the memory comes from. Default:
            /// [`Backing::Anonymous`](crate::Backing::Anonymous). Without effect on memory of the
            /// caller's.
            ///
            /// ```
            /// # use std::num::NonZeroUsize;
            /// # use uring_arena::*;
            #[doc = concat!("# let builder = ", $begin, ";")]
            /// let arena = builder.backing(Backing::TransparentHuge).build()?;
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn backing(mut self, backing: crate::Backing) -> $builder {
                self.request.backing = backing;
                self
            }

            /// Places the memory on one NUMA node
            /// ([mbind(2)](https://man7.org/linux/man-pages/man2/mbind.2.html), Linux). Without
            /// effect on the heap and on memory of the caller's.
            ///
            /// ```
            /// # use std::num::NonZeroUsize;
            /// # use uring_arena::*;
            #[doc = concat!("# let builder = ", $begin, ";")]
            /// match builder.numa_node(0).build() {
            ///     Ok(arena) => drop(arena),
            ///     Err(error) => eprintln!("{error}"), // a system without NUMA
            /// }
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn numa_node(mut self, node: u32) -> $builder {
                self.request.numa_node = Some(node);
                self
            }

            /// Keeps the memory out of forked children (`MADV_DONTFORK`), where registered pages
            /// would not be shared anyway. Without effect on the heap and on memory of the
            /// caller's.
            ///
            /// ```
            /// # use std::num::NonZeroUsize;
            /// # use uring_arena::*;
            #[doc = concat!("# let builder = ", $begin, ";")]
            /// let arena = builder.keep_from_children().build()?;
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn keep_from_children(mut self) -> $builder {
                self.request.keep_from_children = true;
                self
            }
        }
    };
}

pub(super) use shared_setters;
