//! The pages: what they name exists, what exists is named, and their code is compiled.

use std::collections::{BTreeMap, BTreeSet};

use crate::lexer::{Kind, Token, lex};
use crate::tree::{Tree, without_tests};

/// The beginning of the name of each metric.
const PREFIX: &str = "uring_arena_";

/// The macros of events, by their levels, and that of a span.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "trace_span"];

/// Binaries of the folder `tests`.
const BINARIES: [&str; 9] = [
    "accept_limits",
    "allocations",
    "architecture",
    "arena",
    "driver",
    "runtime",
    "soak",
    "uring",
    "waiting",
];

/// Lists names of tests in a page that begin no test: `binary::module::beginning`.
pub fn missing_tests(place: &str, page: &str, sources: &[(String, String)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, line) in page.lines().enumerate() {
        for name in line.split('`').skip(1).step_by(2) {
            let parts: Vec<&str> = name.split("::").collect();
            let is_name = parts.len() > 1 && BINARIES.contains(&parts[0]);
            if is_name && !is_there(&parts, sources) {
                wrong.push(format!("{place}:{}: `{name}` begins the name of no test", at + 1));
            }
        }
    }
    wrong
}

/// Returns `true` if `parts` are a binary, perhaps a module, and perhaps the beginning of a test.
fn is_there(parts: &[&str], sources: &[(String, String)]) -> bool {
    let text = |name: String| sources.iter().find(|file| file.0 == name).map(|file| &file.1);
    let begins = |text: &String, test: &str| text.contains(&format!("fn {test}"));
    match *parts {
        [binary, last] => {
            let alone = [format!("tests/{binary}.rs"), format!("tests/{binary}/main.rs")];
            text(format!("tests/{binary}/{last}.rs")).is_some()
                || alone.into_iter().filter_map(text).any(|text| begins(text, last))
        }
        [binary, module, test] => {
            text(format!("tests/{binary}/{module}.rs")).is_some_and(|text| begins(text, test))
        }
        _ => false,
    }
}

/// Lists differences between the metrics that the sources name and those in the tables of a page.
pub fn unequal_metrics(place: &str, page: &str, tree: &Tree) -> Vec<String> {
    let mut there = BTreeMap::new();
    for file in tree.files.iter().filter(|file| !file.is_test) {
        for token in without_tests(&file.tokens) {
            let Kind::Str(text) = &token.kind else { continue };
            let is_name = text.len() > PREFIX.len()
                && text.starts_with(PREFIX)
                && text.chars().all(|c| c == '_' || c.is_ascii_lowercase());
            if is_name {
                there.insert(text.clone(), format!("src/{}:{}", file.name, token.line));
            }
        }
    }
    assert!(there.len() > 40, "{} metrics found: how are they told?", there.len());
    let named: BTreeMap<String, usize> = rows(page)
        .flat_map(|(at, cells)| {
            quoted(&cells[0]).map(|name| (name.to_owned(), at)).collect::<Vec<_>>()
        })
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    let unnamed = there.iter().filter(|(name, _)| !named.contains_key(*name));
    let unnamed = unnamed.map(|(name, at)| format!("{at}: no table of {place} has `{name}`"));
    let gone = named.iter().filter(|(name, _)| !there.contains_key(*name));
    let gone = gone.map(|(name, at)| format!("{place}:{at}: there is no metric `{name}`"));
    unnamed.chain(gone).collect()
}

/// An event of the log, as the sources write it or a table tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    level: String,
    fields: Vec<String>,
}

/// Lists differences between the events that the sources write and those in the tables of a page.
///
/// A row has the level, the beginning of the message, and the fields, in order.
pub fn unequal_events(place: &str, page: &str, tree: &Tree) -> Vec<String> {
    let told: Vec<(usize, String, Event)> = rows(page).filter_map(event_of_row).collect();
    let mut wrong = Vec::new();
    let (mut seen, mut count) = (BTreeSet::new(), 0);
    for file in tree.files.iter().filter(|file| !file.is_test) {
        for (line, message, event) in events(&without_tests(&file.tokens)) {
            count += 1;
            let told = told.iter().find(|(_, begin, _)| message.starts_with(begin));
            let place_of_code = format!("src/{}:{line}", file.name);
            match told {
                None => wrong.push(format!(
                    "{place_of_code}: no table of {place} has this event: | {} | `{message}` | {} |",
                    event.level,
                    event.fields.join(", ")
                )),
                Some((at, _, row)) => {
                    seen.insert(*at);
                    if *row != event {
                        wrong.push(format!("{place}:{at}: {row:?}, but {place_of_code}: {event:?}"));
                    }
                }
            }
        }
    }
    assert!(count > 30, "{count} events found: how are they told?");
    let gone = told.iter().filter(|(at, ..)| !seen.contains(at));
    wrong.extend(gone.map(|(at, begin, _)| format!("{place}:{at}: no event begins `{begin}`")));
    wrong
}

/// Finds the events among the tokens of a file: line, message, level and fields.
fn events(tokens: &[Token]) -> Vec<(usize, String, Event)> {
    let tokens: Vec<&Token> = tokens.iter().filter(|token| token.is_code()).collect();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let Some(level) = token.ident().filter(|name| LEVELS.contains(name)) else { continue };
        let is_call = at >= 3
            && tokens[at - 3].is_ident("tracing")
            && tokens.get(at + 1).is_some_and(|next| next.is('!'));
        if !is_call {
            continue;
        }
        let (mut fields, mut message) = (Vec::new(), None);
        for argument in arguments(&tokens[at + 2..]) {
            match &argument[0].kind {
                Kind::Str(text) => message = message.or(Some(text.clone())),
                _ if argument[0].is_ident("parent") => {}
                _ if message.is_some() => {}
                _ => fields
                    .extend(argument.iter().find_map(|token| token.ident()).map(str::to_owned)),
            }
        }
        // The first argument of a span is its name, and its fields follow.
        if level == "trace_span" {
            let behind = arguments(&tokens[at + 2..]).into_iter().skip(1);
            fields.extend(behind.filter_map(|argument| argument[0].ident().map(str::to_owned)));
        }
        let event = Event { level: level.trim_end_matches("_span").to_owned(), fields };
        found.push((token.line, message.expect("an event has a message"), event));
    }
    found
}

/// Cuts the arguments of a call, which begins with its parenthesis, at the commas between them.
fn arguments<'a>(call: &[&'a Token]) -> Vec<Vec<&'a Token>> {
    let (mut depth, mut arguments) = (0, vec![Vec::new()]);
    for token in call {
        let Kind::Punct(punct) = token.kind else {
            arguments.last_mut().expect("one at least").push(*token);
            continue;
        };
        depth += i32::from("([{".contains(punct)) - i32::from(")]}".contains(punct));
        match (depth, punct) {
            (0, _) => break,
            (1, '(') => {}
            (1, ',') => arguments.push(Vec::new()),
            _ => arguments.last_mut().expect("one at least").push(*token),
        }
    }
    arguments.retain(|argument| !argument.is_empty());
    arguments
}

/// Reads a row of a table of events: line, beginning of the message, level and fields.
fn event_of_row((at, cells): (usize, Vec<String>)) -> Option<(usize, String, Event)> {
    let level = cells.first()?.trim().to_owned();
    if !LEVELS.contains(&level.as_str()) {
        return None;
    }
    let message = quoted(cells.get(1)?).next()?.to_owned();
    let fields = quoted(cells.get(2)?).map(str::to_owned).collect();
    Some((at, message, Event { level, fields }))
}

/// Lists the rows of the tables of a page: each with its line, cut into cells.
fn rows(page: &str) -> impl Iterator<Item = (usize, Vec<String>)> {
    let rows = page.lines().enumerate().filter(|(_, line)| line.starts_with('|'));
    rows.map(|(at, line)| {
        let cells = line.split('|').skip(1).map(|cell| cell.trim().to_owned());
        (at + 1, cells.collect())
    })
}

/// Lists what stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Lists pages whose code is not compiled, blocks of code that do not say what they are, and
/// Rust that is left out.
pub fn uncompiled_code(pages: &[(String, String)], root: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (place, page) in pages {
        let mut is_open = false;
        for (at, line) in page.lines().enumerate() {
            let Some(label) = line.trim_start().strip_prefix("```") else { continue };
            is_open = !is_open;
            if !is_open {
                continue;
            }
            let at = at + 1;
            if label.is_empty() {
                wrong
                    .push(format!("{place}:{at}: a block of code says what it is: `text`, `rust`"));
            }
            if label.starts_with("rust") && !root.contains(&format!("\"../{place}\"")) {
                wrong.push(format!("{place}:{at}: src/lib.rs compiles no code of this page"));
            }
            if label.contains("ignore") {
                wrong.push(format!("{place}:{at}: this code is not compiled"));
            }
        }
    }
    wrong
}

/// Lists terms of the glossary, which are in bold, that stand twice or that no source has.
pub fn unused_terms(place: &str, page: &str, sources: &str) -> Vec<String> {
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    let sources = sources.to_lowercase();
    for (at, cells) in rows(page) {
        for term in cells[0].split("**").skip(1).step_by(2) {
            if !seen.insert(term.to_owned()) {
                wrong.push(format!("{place}:{at}: `{term}` stands twice"));
            }
            if !sources.contains(&term.to_lowercase()) {
                wrong.push(format!("{place}:{at}: no documentation of the sources says `{term}`"));
            }
        }
    }
    assert!(seen.len() > 30, "{} terms found: how are they told?", seen.len());
    wrong
}

/// Returns all documentation and comments of the sources, in lines.
pub fn words_of_sources(tree: &Tree) -> String {
    let mut words = String::new();
    for token in tree.files.iter().flat_map(|file| &file.tokens) {
        if let Kind::Doc(text) | Kind::InnerDoc(text) | Kind::Comment(text) = &token.kind {
            words.extend(text.split_whitespace().flat_map(|word| [word, " "]));
        }
    }
    words
}

#[test]
fn events_are_read_as_they_are_written() {
    let tokens = lex(
        "tracing::warn!(slots, ?lasted, bytes = f(1, 2), place = %x.y, \"some {slots} wait\", 1);\n\
         tracing::trace!(parent: span, %error, \"over\"); tracing::trace_span!(\"one\", fd = 3)",
    );
    let read = |(_, message, event): (usize, String, Event)| (event.level, message, event.fields);
    let found: Vec<_> = events(&tokens).into_iter().map(read).collect();
    let event = |level: &str, message: &str, fields: &[&str]| {
        (level.to_owned(), message.to_owned(), fields.iter().map(|&f| f.to_owned()).collect())
    };
    let expected: Vec<(String, String, Vec<String>)> = vec![
        event("warn", "some {slots} wait", &["slots", "lasted", "bytes", "place"]),
        event("trace", "over", &["error"]),
        event("trace", "one", &["fd"]),
    ];
    assert_eq!(found, expected);
}

/// Lists texts in the first cells of the tables of a page that no string of the sources has.
///
/// `…` in a text stands for what is filled in.
pub fn unknown_texts(place: &str, page: &str, tree: &Tree) -> Vec<String> {
    let mut said = String::new();
    for file in tree.files.iter().filter(|file| !file.is_test) {
        for token in without_tests(&file.tokens) {
            let Kind::Str(text) = &token.kind else { continue };
            for line in text.lines() {
                let line = line.trim_start();
                said += line.strip_suffix('\\').unwrap_or(line);
            }
            said.push('\n');
        }
    }
    let texts = rows(page).flat_map(|(at, cells)| {
        quoted(&cells[0]).map(|text| (at, text.to_owned())).collect::<Vec<_>>()
    });
    let mut count = 0;
    let wrong = texts.filter(|(_, text)| {
        count += 1;
        !text.split('…').all(|part| said.contains(part.trim()))
    });
    let wrong: Vec<String> =
        wrong.map(|(at, text)| format!("{place}:{at}: no text says `{text}`")).collect();
    assert!(count > 20, "{count} texts found: how are they told?");
    wrong
}

/// Lists the words behind `of` in a file, up to the first line that begins with `end`.
pub fn words_between<'a>(text: &'a str, of: &str, end: &str) -> BTreeSet<&'a str> {
    let behind = text.split_once(of).expect("the list begins").1;
    let list = behind.split_once(end).expect("the list ends").0;
    let words =
        list.split(|c: char| c.is_whitespace() || c == ',').map(|word| word.trim_matches('-'));
    words.filter(|word| !word.is_empty()).collect()
}

/// Lists examples that no table of the README has, and those that are no more.
pub fn unlisted_examples(readme: &str, examples: &BTreeSet<String>) -> Vec<String> {
    let table = readme.split("| example |").nth(1).and_then(|rest| rest.split("\n\n").next());
    let table = table.expect("the README has a table of examples");
    let cells = rows(table).flat_map(|(_, cells)| cells.into_iter().take(1)).collect::<Vec<_>>();
    let listed: BTreeSet<String> = cells
        .iter()
        .flat_map(|cell| quoted(cell.split(" (").next().unwrap_or_default()))
        .map(str::to_owned)
        .collect();
    assert!(listed.len() > 10, "{listed:?}");
    let unlisted = examples.difference(&listed);
    let unlisted = unlisted.map(|name| format!("README.md:1: the table lacks `{name}`"));
    let gone = listed.difference(examples);
    unlisted.chain(gone.map(|name| format!("README.md:1: no example `{name}`"))).collect()
}

/// Lists features and versions of the compiler that the README does not tell.
pub fn untold(readme: &str, manifest: &str, oldest: &str) -> Vec<String> {
    let features = manifest.split("[features]\n").nth(1).expect("the manifest has features");
    let features = features.split("\n[").next().unwrap_or_default().lines();
    let features = features.filter_map(|line| Some(line.split_once(" = ")?.0));
    // Only a build that has trouble with compio needs it, and its documentation tells.
    let features: Vec<&str> =
        features.filter(|name| !["default", "compio-polling"].contains(name)).collect();
    assert!(features.len() > 5, "{features:?}");
    let told: BTreeSet<&str> =
        readme.lines().filter(|line| line.starts_with('|')).flat_map(quoted).collect();
    let untold = features.iter().filter(|name| !told.contains(*name));
    let untold = untold.map(|name| format!("README.md:1: no table has the feature `{name}`"));
    let versions = words_between(oldest, "declare -A oldest=(", ")");
    let versions = versions.iter().filter_map(|word| Some(word.split_once('=')?.1));
    let versions: BTreeSet<&str> = versions.collect();
    assert!(!versions.is_empty());
    let version = |version: &&str| format!("README.md:1: nothing says Rust {version}");
    let unsaid = versions.iter().filter(|version| !readme.contains(**version)).map(version);
    untold.chain(unsaid).collect()
}

#[test]
fn pages_that_do_not_fit_the_code_are_told() {
    let pages = |page: &str| vec![("docs/a.md".to_owned(), page.to_owned())];
    let compiled =
        |page: &str| uncompiled_code(&pages(page), "include_str!(\"../docs/a.md\")").len();
    assert_eq!(compiled("```rust,no_run\nlet a = 1;\n```\n```text\n```"), 0);
    assert_eq!(compiled("```rust,ignore\n```\n```\n```"), 2);
    assert_eq!(uncompiled_code(&pages("```rust\n```"), "").len(), 1);
    let cells = rows("text\n| `a` | | b |\n").collect::<Vec<_>>();
    assert_eq!(cells, [(2, vec!["`a`".to_owned(), String::new(), "b".to_owned(), String::new()])]);
    let words = words_between("x=(a, b\n  - c) d", "x=(", ")");
    assert_eq!(words, BTreeSet::from(["a", "b", "c"]));
}
