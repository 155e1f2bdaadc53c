//! Unsafe code in its own files, and the one door to the types that a model replaces.

use crate::lexer::{Kind, Token};
use crate::tree::{File, Tree, without_tests};

/// Types of which a model needs its own form.
const REPLACED: [(&str, &[&str]); 2] = [
    ("sync", &["atomic", "Mutex", "RwLock", "Condvar", "Barrier"]),
    ("cell", &["UnsafeCell", "SyncUnsafeCell"]),
];

/// Finds the first token that is neither a comment nor a part of an inner attribute.
fn end_of_opening(tokens: &[Token]) -> usize {
    let mut at = 0;
    loop {
        match tokens.get(at).map(|token| &token.kind) {
            Some(Kind::InnerDoc(_) | Kind::Comment(_)) => at += 1,
            Some(Kind::Punct('#')) if tokens.get(at + 1).is_some_and(|token| token.is('!')) => {
                let close = tokens[at..].iter().position(|token| token.is(']'));
                at = close.map_or(tokens.len(), |close| at + close + 1);
            }
            _ => return at,
        }
    }
}

/// Returns `true` if an attribute among the tokens allows unsafe code.
fn allows_unsafe(tokens: &[Token]) -> bool {
    tokens.windows(3).any(|three| {
        three[0].is_ident("allow") && three[1].is('(') && three[2].is_ident("unsafe_code")
    })
}

/// Lists unsafe code outside of files that open with their permission and its reason.
pub fn unsafe_code(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for File { name, tokens, .. } in tree.files.iter().filter(|file| !file.is_test) {
        let tokens = without_tests(tokens);
        let (opening, rest) = tokens.split_at(end_of_opening(&tokens));
        let first = rest.iter().find(|token| token.is_ident("unsafe"));
        let is_allowed = allows_unsafe(opening);
        let says_why = opening
            .iter()
            .any(|token| matches!(&token.kind, Kind::InnerDoc(text) if text.contains("# Safety")));
        if allows_unsafe(rest) {
            wrong.push(format!(
                "src/{name}: `#[allow(unsafe_code)]` on an item; open the file with it"
            ));
        }
        match first {
            Some(token) if !is_allowed => wrong.push(format!(
                "src/{name}:{}: unsafe code in a file that does not open with \
                 `#![allow(unsafe_code)]`; move it into one that does",
                token.line
            )),
            Some(_) if !says_why => wrong.push(format!(
                "src/{name}:1: no `//! # Safety` at the head; say why the file needs unsafe code"
            )),
            None if is_allowed => wrong
                .push(format!("src/{name}:1: no unsafe code here: drop `#![allow(unsafe_code)]`")),
            _ => {}
        }
    }
    wrong
}

/// Lists unsafe blocks and impls that have no comment in the line above them, or in their own.
///
/// A compiler's lint takes a comment above the statement, which may begin lines before the block.
pub fn unproved_lines(place: &str, tokens: &[Token]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let opens = tokens.get(at + 1).is_some_and(|next| next.is('{') || next.is_ident("impl"));
        if !token.is_ident("unsafe") || !opens {
            continue;
        }
        let is_proof =
            |found: &Token| matches!(&found.kind, Kind::Comment(_)) && found.end + 1 >= token.line;
        let above = tokens[..at].iter().rposition(|found| found.line < token.line);
        if !tokens[above.unwrap_or(0)..at].iter().any(is_proof) {
            let line = token.line;
            wrong.push(format!("{place}:{line}: an unsafe block without its proof right above"));
        }
    }
    wrong
}

/// Lists what reaches around `sync.rs` for atomics, cells and locks.
pub fn around_sync(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for (module, path, line) in tree.outside_paths() {
        let name = tree.name(tree.modules[module].file);
        let replaced = path.windows(3).take(1).any(|three| {
            let is_std = matches!(three[0].as_str(), "std" | "core" | "alloc");
            REPLACED
                .iter()
                .any(|(of, names)| is_std && three[1] == *of && names.contains(&&*three[2]))
        });
        if name != "sync.rs" && (replaced || path[0] == "loom") {
            wrong.push(format!(
                "src/{name}:{line}: `{}` goes around sync.rs; take it from `crate::sync`",
                path.join("::")
            ));
        }
    }
    wrong
}

/// Lists what was left open: notes to come back, and macros that stand for missing code.
pub fn left_open(place: &str, tokens: &[Token]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let found = match &token.kind {
            Kind::Comment(text) | Kind::Doc(text) | Kind::InnerDoc(text) => {
                ["TODO", "FIXME", "XXX"].into_iter().find(|word| text.contains(word))
            }
            Kind::Ident(name) if tokens.get(at + 1).is_some_and(|next| next.is('!')) => {
                ["todo", "unimplemented", "dbg"].into_iter().find(|word| name == word)
            }
            _ => None,
        };
        if let Some(word) = found {
            wrong.push(format!("{place}:{}: `{word}`: finish it or drop it", token.line));
        }
    }
    wrong
}

#[test]
fn a_proof_that_is_not_right_above_is_told() {
    use crate::lexer::lex;
    let wrong = |text: &str| unproved_lines("a.rs", &lex(text)).len();
    assert_eq!(wrong("// SAFETY: one.\nlet a = unsafe { b() };"), 0);
    assert_eq!(wrong("let a =\n// SAFETY: two\n// lines.\nunsafe { b() };"), 0);
    assert_eq!(wrong("#[c]\n// SAFETY: three.\nunsafe impl Send for A {}"), 0);
    assert_eq!(wrong("// SAFETY: far.\nlet a =\nunsafe { b() };"), 1);
    assert_eq!(wrong("// SAFETY: an attribute between.\n#[c]\nunsafe impl Send for A {}"), 1);
    assert_eq!(wrong("unsafe fn a() {}"), 0);
}
