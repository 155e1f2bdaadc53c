//! The shape of the folders: the number of files, the border posts, the places of methods.

use std::collections::{BTreeMap, BTreeSet};

use crate::lexer::Token;
use crate::tree::{Def, File, Tree, without_tests};

/// Files of `src`, tests and models among them: 145 of the parts, and room for each engine, each
/// kind of operation, datagrams, holders and trims, which have files of their own.
const FILES_MAX: usize = 180;

/// Lines below which a file is short.
const SHORT_FILE: usize = 60;

/// Files that one type's own methods may lie in.
const FILES_PER_TYPE_MAX: usize = 3;

/// Public methods that have an example in their documentation.
const EXAMPLES_MIN: usize = 160;

/// Lists files that are declared and missing, and short files if there are too many.
pub fn files(tree: &Tree) -> Vec<String> {
    let mut wrong = tree.missing.clone();
    if tree.files.len() > FILES_MAX {
        wrong.push(format!(
            "src has {} files, {FILES_MAX} at most: fold short ones into their only user",
            tree.files.len()
        ));
        let lines = |file: &File| file.tokens.last().map_or(0, |token| token.end);
        let short = tree.files.iter().filter(|file| {
            lines(file) < SHORT_FILE && !file.name.ends_with("mod.rs") && !file.is_test
        });
        wrong.extend(short.map(|file| format!("src/{}:1: {} lines", file.name, lines(file))));
    }
    wrong
}

/// Lists types whose own methods lie in too many files.
pub fn scattered_types(tree: &Tree) -> Vec<String> {
    let mut places: BTreeMap<usize, BTreeMap<String, usize>> = BTreeMap::new();
    for block in &tree.impls {
        for def in tree.resolve(block.module, &block.of) {
            if let Def::Item(item) = def {
                let files = places.entry(item).or_default();
                files.entry(tree.name(block.file).to_owned()).or_insert(block.line);
            }
        }
    }
    places.retain(|_, files| files.len() > FILES_PER_TYPE_MAX);
    let describe = |(item, files): (usize, BTreeMap<String, usize>)| {
        let item = &tree.items[item];
        let list: Vec<String> =
            files.iter().map(|(name, line)| format!("src/{name}:{line}")).collect();
        format!(
            "src/{}:{}: methods of `{}` lie in {} files, {FILES_PER_TYPE_MAX} at most; bring them \
             together, or give a part its own type: {}",
            tree.name(item.file),
            item.line,
            item.name,
            files.len(),
            list.join(", ")
        )
    };
    places.into_iter().map(describe).collect()
}

/// Lists functions and `impl` blocks in a `mod.rs`, but for the files in `exceptions`.
pub fn logic_in_mod(tree: &Tree, exceptions: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in tree.files.iter().filter(|file| !file.is_test) {
        let is_mod = file.name.ends_with("/mod.rs") || file.name == "lib.rs";
        if !is_mod || exceptions.contains(&file.name.as_str()) {
            continue;
        }
        let lines = logic(&file.tokens);
        if let Some(first) = lines.first() {
            wrong.push(format!(
                "src/{}:{first}: a `mod.rs` holds modules and re-exports only; move its logic \
                 ({} functions and blocks) into a file named after what it is",
                file.name,
                lines.len()
            ));
        }
    }
    for name in exceptions {
        if tree.file(name).is_none_or(|file| logic(&tree.files[file].tokens).is_empty()) {
            wrong.push(format!("src/{name} holds no logic any more: drop the exception"));
        }
    }
    wrong
}

/// Lists the lines on which a function or an `impl` begins.
fn logic(tokens: &[Token]) -> Vec<usize> {
    let tokens = without_tests(tokens);
    let is_logic = |token: &&Token| token.is_ident("fn") || token.is_ident("impl");
    let lines: BTreeSet<usize> = tokens.iter().filter(is_logic).map(|token| token.line).collect();
    lines.into_iter().collect()
}

/// The public methods with an example, counted, and the places of the others.
pub struct Examples {
    pub with: usize,
    pub without: Vec<String>,
}

/// Counts the methods and functions that users can call.
pub fn examples(tree: &Tree) -> Examples {
    let public = tree.public_items();
    let mut examples = Examples { with: 0, without: Vec::new() };
    let mut count = |doc: &str, place: String| {
        if doc.contains("```") {
            examples.with += 1;
        } else {
            examples.without.push(place);
        }
    };
    for block in &tree.impls {
        let defs = tree.resolve(block.module, &block.of);
        if !defs.iter().any(|def| matches!(def, Def::Item(item) if public.contains(item))) {
            continue;
        }
        for method in block.methods.iter().filter(|method| method.is_public) {
            let (file, of) = (tree.name(block.file), block.of.join("::"));
            count(&method.doc, format!("src/{file}:{}: {of}::{}", method.line, method.name));
        }
    }
    for &item in &public {
        let item = &tree.items[item];
        if item.keyword == "fn" {
            count(&item.doc, format!("src/{}:{}: {}", tree.name(item.file), item.line, item.name));
        }
    }
    examples
}

/// Lists public methods without an example, if too many have none.
pub fn too_few_examples(tree: &Tree) -> Vec<String> {
    let Examples { with, without } = examples(tree);
    if with >= EXAMPLES_MIN {
        return Vec::new();
    }
    let head = format!(
        "{with} of {} public methods have an example, {EXAMPLES_MIN} at least; without:",
        with + without.len()
    );
    std::iter::once(head).chain(without).collect()
}
