//! Errors: both forms of their text tell the numbers and the remedy.

use std::error::Error;

use uring_arena::{AllocError, BuddyArena, BuildError, FixedArena};

/// Asserts that `Debug` is the text of `Display`, and that the text tells `parts`.
#[track_caller]
fn assert_tells(error: impl Error, parts: &[&str]) {
    let text = error.to_string();
    assert_eq!(format!("{error:?}"), text);
    for part in parts {
        assert!(text.contains(part), "{text:?} does not tell {part:?}");
    }
}

#[test]
fn an_error_tells_its_numbers_and_the_remedy() {
    assert_tells(FixedArena::new(0, 64).unwrap_err(), &["slot_count", "at least one"]);
    assert_tells(FixedArena::new(64, 0).unwrap_err(), &["slot_capacity"]);
    assert_tells(BuddyArena::new(0, 64).unwrap_err(), &["total_size"]);
    assert_tells(BuildError::InvalidAlignment, &["power of two", "4096"]);
    assert_tells(
        BuildError::MisalignedMemory { address: 0x1001, alignment: 4096 },
        &["0x1001", "4096", "from_size_align"],
    );
    assert_tells(BuildError::ZeroUsableSlots, &["more memory", "smaller"]);
    assert_tells(FixedArena::new(1 << 40, 1).unwrap_err(), &["1099511627776", "larger slots"]);
    assert_tells(AllocError::ArenaFull, &["slot_states", "allocate_timeout"]);
    assert_tells(AllocError::RequestTooLarge, &["total_size"]);
    let mut buffer = FixedArena::new(1, 4).unwrap().allocate().unwrap();
    let full = buffer.try_put_slice(b"five!").unwrap_err();
    assert_tells(full, &["5 bytes", "4 bytes", "auto_spill"]);
}

#[test]
fn an_io_error_keeps_the_numbers() {
    let mut buffer = FixedArena::new(1, 4).unwrap().allocate().unwrap();
    let error = std::io::Write::write_all(&mut buffer, b"five!").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WriteZero);
    assert!(error.to_string().contains("5 bytes requested, 4 bytes remaining"));
}
