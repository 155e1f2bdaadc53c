//! Rules of the sources that a compiler does not check, checked by reading them.
//!
//! Each failure names its file and line, and how to mend it.

mod errors;
mod imports;
mod lexer;
mod pages;
mod resolver;
mod safety;
mod shape;
mod tree;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use lexer::{Token, lex};
use tree::{File, Tree};

/// Imports that run upwards, each explained in ARCHITECTURE.md: at most 2.
const UPWARDS: &[imports::Exception] = &[];

/// Files named `mod.rs` that hold more than modules and re-exports.
const LOGIC_IN_MOD: &[&str] = &[];

/// The one file that spells the nicknames.
const NICKNAMES: &str = "tests/architecture/words.rs";

/// A page that a program writes.
const GENERATED: &str = "docs/benchmarks.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Collects the files below a folder whose names end in `ending`.
fn collect(below: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(below) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, ending, found);
        } else if path.extension().is_some_and(|found| found == ending) {
            found.push(path);
        }
    }
    found.sort();
}

/// Reads files by their path from the root.
fn read(paths: Vec<PathBuf>) -> Vec<(String, String)> {
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    paths.into_iter().map(|path| (name(&path), fs::read_to_string(path).unwrap())).collect()
}

/// Reads the tree of `src`, once.
fn src() -> &'static Tree {
    static SRC: OnceLock<Tree> = OnceLock::new();
    SRC.get_or_init(|| {
        let mut paths = Vec::new();
        collect(&root().join("src"), "rs", &mut paths);
        let files = read(paths);
        assert!(files.len() > 20);
        let file = |(name, text): &(String, String)| File::new(&name["src/".len()..], text);
        Tree::new(files.iter().map(file).collect())
    })
}

/// Reads the Rust files of some folders, with their tokens.
fn rust(folders: &[&str]) -> Vec<(String, String, Vec<Token>)> {
    let mut paths = Vec::new();
    for folder in folders {
        collect(&root().join(folder), "rs", &mut paths);
    }
    let lexed = |(name, text): (String, String)| {
        let tokens = lex(&text);
        (name, text, tokens)
    };
    read(paths).into_iter().map(lexed).collect()
}

/// Reads the pages: every Markdown file at the root and below `docs`.
fn all_pages() -> Vec<(String, String)> {
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    collect(&root().join("docs"), "md", &mut paths);
    read(paths)
}

/// Fails with every violation, one a line.
#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} violations\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_path_of_the_crate_is_understood() {
    assert_none(&src().unresolved());
}

#[test]
fn no_imports_run_in_circles() {
    let tree = src();
    for (number, knot) in imports::knots(tree).iter().enumerate() {
        eprintln!("knot {number} of {} files: {}", knot.len(), knot.join(" "));
    }
    assert_none(&imports::circles(tree));
}

#[test]
fn a_folder_uses_only_those_before_it() {
    let explanations = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap_or_default();
    assert_none(&imports::upwards(src(), UPWARDS, &explanations));
}

#[test]
fn a_types_own_methods_lie_together() {
    assert_none(&shape::scattered_types(src()));
}

#[test]
fn the_sources_are_few_files() {
    assert_none(&shape::files(src()));
}

#[test]
fn a_mod_file_holds_no_logic() {
    assert_none(&shape::logic_in_mod(src(), LOGIC_IN_MOD));
}

#[test]
fn public_methods_have_examples() {
    let tree = src();
    let shape::Examples { with, without } = shape::examples(tree);
    eprintln!("{with} of {} public methods have an example", with + without.len());
    assert_none(&shape::too_few_examples(tree));
}

#[test]
fn unsafe_code_is_allowed_by_file_and_explained() {
    assert_none(&safety::unsafe_code(src()));
}

#[test]
fn each_unsafe_block_has_its_proof_right_above() {
    let files = rust(&["src", "tests", "examples", "benches", "top"]);
    let wrong: Vec<String> =
        files.iter().flat_map(|(name, _, tokens)| safety::unproved_lines(name, tokens)).collect();
    assert_none(&wrong);
}

#[test]
fn atomics_and_cells_go_through_sync() {
    assert_none(&safety::around_sync(src()));
}

#[test]
fn texts_have_no_runs_of_blanks() {
    assert_none(&errors::runs_of_blanks(src()));
}

#[test]
fn errors_print_their_text_and_are_io_errors_of_a_kind() {
    assert_none(&errors::lacking_forms(src()));
}

#[test]
fn nothing_is_left_open() {
    let files = rust(&["src", "tests", "examples", "benches", "top"]);
    let wrong: Vec<String> =
        files.iter().flat_map(|(name, _, tokens)| safety::left_open(name, tokens)).collect();
    assert_none(&wrong);
}

#[test]
fn the_page_of_tests_names_tests() {
    let place = "docs/testing.md";
    let page = fs::read_to_string(root().join(place)).unwrap();
    let mut paths = Vec::new();
    collect(&root().join("tests"), "rs", &mut paths);
    assert_none(&pages::missing_tests(place, &page, &read(paths)));
}

#[test]
fn the_tables_of_production_are_those_of_the_code() {
    let place = "docs/production.md";
    let page = fs::read_to_string(root().join(place)).unwrap();
    let mut wrong = pages::unequal_metrics(place, &page, src());
    wrong.extend(pages::unequal_events(place, &page, src()));
    assert_none(&wrong);
}

#[test]
fn the_readme_tells_each_feature_and_the_compilers() {
    let read = |place| fs::read_to_string(root().join(place)).unwrap();
    let (readme, manifest) = (read("README.md"), read("Cargo.toml"));
    assert_none(&pages::untold(&readme, &manifest, &read("scripts/msrv")));
}

#[test]
fn the_readme_lists_each_example() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut examples = BTreeSet::new();
    for folder in ["examples", "examples/runtimes/examples"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let is_file = path.extension().is_some_and(|ending| ending == "rs");
            if is_file || path.join("main.rs").exists() {
                examples.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    assert_none(&pages::unlisted_examples(&readme, &examples));
}

#[test]
fn code_of_pages_is_compiled() {
    let root = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert_none(&pages::uncompiled_code(&all_pages(), &root));
}

#[test]
fn the_texts_of_troubleshooting_are_those_of_the_code() {
    let place = "docs/troubleshooting.md";
    let page = fs::read_to_string(root().join(place)).unwrap();
    assert_none(&pages::unknown_texts(place, &page, src()));
}

#[test]
fn the_workflow_checks_the_targets_of_the_script() {
    let read = |place| fs::read_to_string(root().join(place)).unwrap();
    let (workflow, script) = (read(".github/workflows/ci.yml"), read("scripts/targets"));
    let targets = pages::words_between(&script, "    targets=(", ")");
    assert!(targets.len() > 5, "{targets:?}");
    assert_eq!(pages::words_between(&workflow, "target:", "steps:"), targets);
    // The counts of instructions are those of one compiler.
    let counted = read("benches/instructions.txt");
    for workflow in [workflow, read(".github/workflows/full.yml")] {
        let image = workflow.split_once("image: rust:").expect("an image of a compiler").1;
        let version = image.split('-').next().unwrap_or_default();
        assert!(counted.contains(&format!("rustc {version},")), "{version}");
    }
}

#[test]
fn the_terms_of_the_glossary_are_used() {
    let place = "docs/glossary.md";
    let page = fs::read_to_string(root().join(place)).unwrap();
    assert_none(&pages::unused_terms(place, &page, &pages::words_of_sources(src())));
}

#[test]
fn documentation_begins_with_its_subject() {
    let files = rust(&["src", "tests", "examples", "benches", "top"]);
    let wrong: Vec<String> =
        files.iter().flat_map(|(name, _, tokens)| words::first_words(name, tokens)).collect();
    assert_none(&wrong);
}

#[test]
fn sentences_of_documentation_ask_nothing() {
    let files = rust(&["src", "tests", "examples", "benches", "top"]);
    let wrong: Vec<String> =
        files.iter().flat_map(|(name, _, tokens)| words::later_questions(name, tokens)).collect();
    assert_none(&wrong);
}

#[test]
fn lines_have_at_most_a_hundred_columns() {
    let files = rust(&["src", "tests", "examples", "benches", "top"]);
    let sources =
        files.iter().flat_map(|(name, text, tokens)| words::long_lines(name, text, tokens));
    let pages = all_pages();
    let pages = pages.iter().filter(|(name, _)| name != GENERATED);
    let wrong: Vec<String> = sources
        .chain(pages.flat_map(|(name, text)| words::long_lines_of_page(name, text)))
        .collect();
    assert_none(&wrong);
}

#[test]
fn nothing_goes_by_a_nickname() {
    let files = rust(&["src", "tests", "examples", "top"]);
    let files = files.iter().filter(|(name, ..)| name != NICKNAMES);
    let sources = files.flat_map(|(name, _, tokens)| words::nicknames(name, tokens));
    let pages = all_pages();
    let pages = pages.iter().flat_map(|(name, text)| words::nicknames_of_text(name, 1, text));
    let wrong: Vec<String> = sources.chain(pages).collect();
    assert_none(&wrong);
}
