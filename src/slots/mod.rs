//! BOOKS: which indices are claimed. No pointers, no unsafe code, no kernel.

mod blocks;
