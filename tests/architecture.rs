//! Habits that a compiler does not check, checked by reading the sources.

use std::fs;
use std::path::{Path, PathBuf};

fn rust_files(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Every source file, by its path below `src`, with its text.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    assert!(files.len() > 20);
    files
        .into_iter()
        .map(|file| {
            let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(file).unwrap())
        })
        .collect()
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn atomics_and_cells_go_through_sync() {
    for (name, text) in sources() {
        if name == "sync.rs" || name.contains("test") || name.contains("models") {
            continue;
        }
        for (line, code) in code_lines(&text) {
            for banned in [
                "std::sync::atomic",
                "core::sync::atomic",
                "std::sync::Mutex",
                "std::cell::UnsafeCell",
            ] {
                assert!(!code.contains(banned), "src/{name}:{line}: {banned} goes around sync.rs");
            }
        }
    }
}

#[test]
fn unsafe_code_is_allowed_by_name_and_explained() {
    for (name, text) in sources() {
        if text.contains("#![allow(unsafe_code)]") {
            let folder = name.split('/').next().unwrap();
            let may = ["region", "lease", "buffer", "arena", "uring", "driver", "runtime"];
            assert!(may.contains(&folder), "src/{name}: unsafe code does not belong here");
            assert!(text.contains("//! # Safety"), "src/{name}: no Safety paragraph at the head");
        }
    }
}

#[test]
fn a_folder_uses_only_those_above_it() {
    let order =
        ["region", "slots", "wait", "lease", "buffer", "arena", "uring", "driver", "runtime"];
    for (name, text) in sources() {
        let Some(own) = order.iter().position(|folder| name.starts_with(&format!("{folder}/")))
        else {
            continue;
        };
        if name.contains("test") || name.contains("models") {
            continue;
        }
        for (line, code) in code_lines(&text) {
            for below in &order[own + 1..] {
                assert!(
                    !code.contains(&format!("crate::{below}::")),
                    "src/{name}:{line}: uses {below}, which is below it"
                );
            }
            if order[own] == "slots" {
                assert!(
                    !code.contains("crate::region"),
                    "src/{name}:{line}: the books know no memory"
                );
            }
        }
    }
}

#[test]
fn nothing_is_left_open() {
    for (name, text) in sources() {
        for word in ["TODO", "FIXME", "todo!(", "unimplemented!("] {
            assert!(!text.contains(word), "src/{name}: {word}");
        }
    }
}

#[test]
fn files_stay_readable() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 600, "src/{name} has {lines} lines: it wants to be two");
    }
}
