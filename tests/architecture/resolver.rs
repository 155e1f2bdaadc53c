//! Tests of the lexer, the resolver and the checks, on made-up trees: each check can fail.

use crate::lexer::{Kind, lex};
use crate::tree::{File, Tree};
use crate::{imports, pages, safety, shape, words};

fn tree(files: &[(&str, &str)]) -> Tree {
    Tree::new(files.iter().map(|(name, text)| File::new(name, text)).collect())
}

/// Lists the edges of a tree as `from -> to: name`.
fn edges(files: &[(&str, &str)]) -> Vec<String> {
    let tree = tree(files);
    assert_eq!((tree.unresolved(), &tree.missing), (Vec::new(), &Vec::new()));
    let text = |edge: &crate::tree::Edge| {
        format!("{} -> {}: {}", tree.name(edge.from), tree.name(edge.to), edge.name)
    };
    tree.edges().iter().map(text).collect()
}

#[test]
fn strings_comments_and_lifetimes_are_no_code() {
    let text = r###"
        // mod a; and 'quotes'
        /* /* nested */ mod b; */
        let s = "mod c; \" //";
        let r = r#"mod "d";"#; let b = br"\"; let c = b'\''; let q = '\\'; let e = '"';
        fn f<'a>(x: &'a str) -> r#type { 'label: loop {} }
    "###;
    let tokens = lex(text);
    let idents: Vec<&str> = tokens.iter().filter_map(|token| token.ident()).collect();
    assert_eq!(idents.join(" "), "let s let r let b let c let q let e fn f x str type loop");
    let last = tokens.iter().rfind(|token| token.is_ident("fn")).unwrap();
    assert_eq!(last.line, 6);
    let labels = tokens.iter().filter(|token| matches!(token.kind, Kind::Lifetime(_)));
    assert_eq!(labels.count(), 3);
}

#[test]
fn consecutive_lines_of_documentation_are_one() {
    let tokens = lex("//! One.\n//! Two.\n\n/// Three.\n//// no\n/// Four.\nfn f() {}");
    let docs: Vec<&str> = tokens
        .iter()
        .filter_map(|token| match &token.kind {
            Kind::Doc(text) | Kind::InnerDoc(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(docs, [" One.\n Two.", " Three.", " Four."]);
}

#[test]
fn an_import_is_followed_through_reexports_to_the_file_that_defines_the_item() {
    let files = [
        ("lib.rs", "mod a; mod b; pub use a::Thing; pub use b::*;"),
        ("a/mod.rs", "mod deep; pub use deep::{inner::{Thing as Renamed}, Thing};"),
        ("a/deep.rs", "pub struct Thing; pub mod inner { pub struct Thing; }"),
        ("b.rs", "use crate::{a::{self, Renamed as R}, Thing}; fn f(_: R, _: a::Thing) {}"),
    ];
    assert_eq!(edges(&files), ["b.rs -> a/deep.rs: Thing"]);
}

#[test]
fn paths_in_full_globs_and_relative_paths_are_edges() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "mod part; pub use part::*; pub fn free() {} pub const MAX: usize = 1;"),
        (
            "a/part.rs",
            "pub struct Part; impl Part { pub fn new() -> Part { super::free(); Part } }",
        ),
        ("b.rs", "fn f() { let x = crate::a::Part::new(); g(crate::a::MAX..super::a::MAX) }"),
        ("c.rs", "use crate::a::*; fn f() -> Vec<Part> { free(); self::g() } fn g() {}"),
    ];
    let expected = [
        "a/part.rs -> a.rs: free",
        "b.rs -> a.rs: MAX",
        "b.rs -> a/part.rs: Part",
        "c.rs -> a.rs: free",
        "c.rs -> a/part.rs: Part",
    ];
    assert_eq!(edges(&files), expected);
}

#[test]
fn imports_inside_functions_and_macros_are_edges() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "pub struct A; pub enum E { One }"),
        ("b.rs", "fn f() { use crate::a::E::*; g(One) } fn g<T>(_: T) {}"),
        ("c.rs", "fn f() { assert!(matches!(x, Some(crate::a::A))); }"),
    ];
    assert_eq!(edges(&files), ["b.rs -> a.rs: E", "c.rs -> a.rs: A"]);
}

#[test]
fn methods_fields_variables_and_other_crates_are_no_edges() {
    let files = [
        ("lib.rs", "mod a; mod b; mod tokio;"),
        ("a.rs", "pub fn open() {} pub fn tell() {} pub struct Name;"),
        (
            "b.rs",
            "use tokio::net::Name; use std::fs; use super::a::*;\
                  fn f(open: u8) { x.tell(); let y = S { open: open, tell }; fs::read(y) }",
        ),
        ("tokio.rs", "use tokio::sync; fn f() -> ::tokio::net::Name {}"),
    ];
    assert_eq!(edges(&files), [""; 0]);
}

#[test]
fn tests_and_models_are_left_out_and_the_other_branch_is_not() {
    let files = [
        (
            "lib.rs",
            "mod a; mod b; #[cfg(all(test, uring_arena_loom))] mod models;\
             #[cfg(any(test, feature = \"x\"))] mod c;",
        ),
        ("a.rs", "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }"),
        (
            "b.rs",
            "pub struct B; impl B { #[cfg(test)] fn t() { crate::a::A } fn u() { B } }\
             #[cfg(not(uring_arena_loom))] mod inner { use crate::a::A; }",
        ),
        ("c.rs", "use crate::b::B;"),
        ("models.rs", "use crate::a::A;"),
    ];
    assert_eq!(edges(&files), ["b.rs -> a.rs: A", "c.rs -> b.rs: B"]);
    let tree = tree(&files);
    let apart: Vec<&str> =
        tree.files.iter().filter(|file| file.is_test).map(|file| file.name.as_str()).collect();
    assert_eq!(apart, ["models.rs"]);
}

#[test]
fn a_path_that_is_not_understood_is_told() {
    let tree = tree(&[("lib.rs", "mod a; mod gone;"), ("a.rs", "use crate::nowhere::X;")]);
    assert_eq!(tree.missing.len(), 1);
    let unresolved = tree.unresolved();
    assert!(unresolved[0].starts_with("src/a.rs:1: `crate::nowhere::X`"), "{unresolved:?}");
}

#[test]
fn a_circle_is_told_as_a_chain_and_a_parent_with_its_children_is_none() {
    let tree = tree(&[
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        ("b.rs", "use crate::c::C; pub struct B;"),
        ("c.rs", "\nfn f() -> crate::a::A {}\npub struct C;"),
        ("d/mod.rs", "mod one; mod two; pub(crate) use one::One; pub(crate) use two::Two;"),
        ("d/one.rs", "use super::Two; pub struct One;"),
        ("d/two.rs", "pub struct Two;"),
    ]);
    let circles = imports::circles(&tree);
    assert_eq!(circles.len(), 1, "{circles:?}");
    for tie in [
        "src/a.rs:1 uses `B` of src/b.rs",
        "src/b.rs:1 uses `C` of src/c.rs",
        "src/c.rs:2 uses `A` of src/a.rs",
    ] {
        assert!(circles[0].contains(tie), "{}", circles[0]);
    }
    assert_eq!(imports::knots(&tree), [["a.rs", "b.rs", "c.rs"]]);
}

const UPWARDS: [(&str, &str); 5] = [
    ("lib.rs", "mod region; mod slots; mod uring; pub use uring::U; mod odd;"),
    ("region/mod.rs", "mod a; pub struct R; use crate::U;"),
    ("region/a.rs", "pub struct A;"),
    ("slots.rs", "use crate::region::R;"),
    ("uring.rs", "use crate::region::R; pub struct U;"),
];

#[test]
fn imports_upwards_are_told_unless_they_are_explained() {
    let tree = tree(&[&UPWARDS[..], &[("odd.rs", "")]].concat());
    let wrong = imports::upwards(&tree, &[], "");
    let begins: Vec<&str> = wrong.iter().map(|text| text.split(": ").next().unwrap()).collect();
    let expected = [
        "src/region/mod.rs:1 uses `U` of src/uring.rs",
        "src/slots.rs:1 uses `R` of src/region/mod.rs",
        "src/odd.rs:1",
    ];
    assert_eq!(begins, expected, "{wrong:#?}");
    let explained = [("region/mod.rs", "uring.rs"), ("slots.rs", "region/mod.rs")];
    let page = "region/mod.rs asks uring.rs, and slots.rs too";
    assert_eq!(imports::upwards(&tree, &explained, page).len(), 1);
    assert_eq!(imports::upwards(&tree, &explained, "").len(), 3);
    let stale = [("region/a.rs", "uring.rs"), explained[0], explained[1]];
    let wrong = imports::upwards(&tree, &stale, &format!("{page} region/a.rs")).join("\n");
    assert!(wrong.contains("at most 2") && wrong.contains("drop the exception"), "{wrong}");
}

#[test]
fn a_type_whose_methods_are_scattered_is_told() {
    let method =
        "use crate::a::A; impl<T> A<T> where T: Clone { fn f() {} } impl Drop for A<u8> {}";
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "pub struct A<T>(T); impl A<u8> { pub fn g() {} }"),
        ("b.rs", method),
        ("c.rs", method),
        ("d.rs", "impl Drop for crate::a::A<u8> { fn drop(&mut self) {} }"),
    ];
    assert_eq!(shape::scattered_types(&tree(&files)), [""; 0]);
    let files = [&files[..4], &[("d.rs", method)]].concat();
    let wrong = shape::scattered_types(&tree(&files));
    assert!(wrong[0].starts_with("src/a.rs:1: methods of `A` lie in 4 files"), "{wrong:?}");
}

#[test]
fn logic_in_a_border_post_is_told() {
    let tree = tree(&[
        ("lib.rs", "mod a; mod b; #[cfg(test)] mod tests { fn f() {} }"),
        ("a/mod.rs", "mod x;\npub(crate) use x::X;\nimpl X { fn f() {} }"),
        ("a/x.rs", "pub(crate) struct X;"),
        ("b.rs", "fn f() {}"),
    ]);
    let wrong = shape::logic_in_mod(&tree, &[]);
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].starts_with("src/a/mod.rs:3: "), "{wrong:?}");
    assert_eq!(shape::logic_in_mod(&tree, &["a/mod.rs"]), [""; 0]);
    assert_eq!(shape::logic_in_mod(&tree, &["a/mod.rs", "b.rs"]), [""; 0]);
    assert_eq!(shape::logic_in_mod(&tree, &["a/mod.rs", "a/x.rs"]).len(), 1);
}

#[test]
fn methods_that_users_can_call_are_counted_by_their_examples() {
    let tree = tree(&[
        ("lib.rs", "mod a; pub use a::{Open, go};"),
        (
            "a.rs",
            "pub struct Open; pub struct Closed; impl Closed { pub fn f() {} }\n\
             impl Open {\n/// Does.\n/// ```\n/// ```\n#[inline]\npub const fn f() {}\n\
             pub(crate) fn g() {}\npub unsafe fn h() {}\n}\npub fn go() {}",
        ),
    ]);
    let examples = shape::examples(&tree);
    assert_eq!(examples.with, 1);
    assert_eq!(examples.without, ["src/a.rs:9: Open::h", "src/a.rs:11: go"]);
}

#[test]
fn unsafe_code_without_permission_or_reason_is_told() {
    let tree = tree(&[
        ("lib.rs", "mod a; mod b; mod c; mod d; mod e;"),
        (
            "a.rs",
            "//! A.\n//!\n//! # Safety\n//!\n//! Why.\n#![allow(unsafe_code)]\nunsafe fn f() {}",
        ),
        ("b.rs", "// unsafe\nfn f() { unsafe { g() } }"),
        ("c.rs", "//! C.\n#![allow(unsafe_code)]\nunsafe fn f() {}"),
        ("d.rs", "//! # Safety\n#![allow(unsafe_code)]\nfn f() {}"),
        ("e.rs", "#[cfg(test)]\nmod tests {\n#![allow(unsafe_code)]\nfn f() { unsafe {} } }"),
    ]);
    let wrong = safety::unsafe_code(&tree);
    let places: Vec<&str> = wrong.iter().map(|text| text.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["src/b.rs:2", "src/c.rs:1", "src/d.rs:1"], "{wrong:?}");
}

#[test]
fn ways_around_sync_are_told() {
    let tree = tree(&[
        ("lib.rs", "mod a; mod b; mod c; mod sync;"),
        ("a.rs", "use std::{fs, sync::{Arc, atomic::{AtomicU8, Ordering}}};"),
        (
            "b.rs",
            "use std::sync;\nfn f() -> sync::Mutex<u8> {}\nfn g(_: core::cell::UnsafeCell<u8>) {}",
        ),
        ("c.rs", "use crate::sync::{Arc, Mutex}; use std::cell::Cell; fn f() { Arc::new(1) }"),
        ("sync.rs", "pub(crate) use std::sync::{Arc, Mutex};"),
    ]);
    let wrong = safety::around_sync(&tree);
    let places: Vec<&str> = wrong.iter().map(|text| text.split(' ').next().unwrap()).collect();
    assert_eq!(places, ["src/a.rs:1:", "src/a.rs:1:", "src/b.rs:2:", "src/b.rs:3:"], "{wrong:?}");
}

#[test]
fn open_ends_nicknames_and_questions_are_told() {
    let text = "/// What it is.\nfn f() { todo!() } // TODO\n/// A thing.\npub(crate) fn g() {}\n\
                /// Queue.\n#[derive(Debug)]\nstruct Line;\n/// Gives 1.\nconst fn h() {}\n\
                /// The case.\n#[test]\nfn t() {}\n/// Yes.\nconst X: u8 = 1;";
    let tokens = lex(text);
    assert_eq!(safety::left_open("a.rs", &tokens).len(), 2);
    let wrong = words::first_words("a.rs", &tokens);
    let places: Vec<&str> = wrong.iter().map(|text| text.split(' ').next().unwrap()).collect();
    assert_eq!(places, ["a.rs:1:", "a.rs:3:", "a.rs:5:"], "{wrong:?}");
    words::check_the_check_of_nicknames();
}

#[test]
fn long_lines_are_told_but_for_strings_links_and_tables() {
    let long = "x".repeat(101);
    let text = format!("// {long}\nlet s = \"{long}\";\n// https://{long}\n");
    assert_eq!(words::long_lines("a.rs", &text, &lex(&text)).len(), 1);
    let page = format!("{long}\n| {long} |\n[a](https://{long})\n");
    let wrong = words::long_lines_of_page("a.md", &page);
    assert_eq!(wrong, ["a.md:1: 101 columns, 100 at most: wrap it"]);
}

#[test]
fn a_test_that_the_page_invents_is_told() {
    let sources =
        [("tests/soak/claims.rs", "fn no_hang()"), ("tests/accept_limits.rs", "fn a_b()")]
            .map(|(name, text)| (name.to_owned(), text.to_owned()));
    let page = "`soak::claims`, `soak::claims::no_`, `accept_limits::a`, `std::fs`\n\
                `soak::other` `soak::claims::yes` `accept_limits::b`";
    let wrong = pages::missing_tests("a.md", page, &sources);
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(wrong[0].starts_with("a.md:2: `soak::other`"));
}
