//! The prelude: a glob import of it hides no crate's name.

use uring_arena::prelude::*;

#[test]
fn a_glob_import_hides_no_crate() {
    // With their features on, these names are modules of the root, too.
    let from_crates =
        (std::any::type_name::<tokio::sync::Notify>(), std::any::type_name::<bytes::BytesMut>());
    assert!(from_crates.0.starts_with("tokio::") && from_crates.1.starts_with("bytes::"));
    #[cfg(feature = "compio")]
    assert!(std::any::type_name::<compio::runtime::Runtime>().starts_with("compio"));
    #[cfg(feature = "tokio-uring")]
    assert!(std::any::type_name::<tokio_uring::fs::File>().starts_with("tokio_uring::"));
    #[cfg(feature = "monoio")]
    assert!(std::any::type_name::<monoio::net::TcpStream>().starts_with("monoio::"));
}

#[test]
fn the_prelude_has_what_a_program_needs() -> Result<(), Box<dyn std::error::Error>> {
    let (fixed, buddy) = (FixedArena::new(2, 64)?, BuddyArena::new(4096, 256)?);
    let buffers: [Buffer; 2] = [fixed.allocate()?, buddy.allocate_bytes(64)?];
    for buffer in buffers {
        let bytes: ArenaBytes = buffer.freeze_in_place();
        assert!(bytes.into_owned().is_empty());
    }
    Ok(())
}

#[test]
fn the_crate_documentation_lists_every_item() {
    let root = include_str!("../../src/lib.rs");
    let (documentation, code) = root.split_once("#![deny(missing_docs)]").unwrap();
    let items = code.split_once("mod items {").unwrap().1.split_once("\n}").unwrap().0;
    let names = items
        .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .filter(|name| name.starts_with(char::is_uppercase));
    let missing: Vec<&str> =
        names.filter(|name| !documentation.contains(&format!("[`{name}`]"))).collect();
    assert!(missing.is_empty(), "not in the lists of src/lib.rs: {missing:?}");
}
