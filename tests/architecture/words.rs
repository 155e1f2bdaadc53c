//! The words: none that only we understand, and documentation that begins with its subject.

use crate::lexer::{Kind, Token, lex};

/// Nicknames that stood for a term of the field, with the term.
const NICKNAMES: [(&str, &str); 10] = [
    ("books", "allocator, bitmap"),
    ("ledger", "wait queue"),
    ("hoard", "reservation"),
    ("bell", "waker"),
    ("seat", "waiter id"),
    ("desk", "dispatcher"),
    ("rung", "registration mode"),
    ("witness", "arena reference"),
    ("census", "stats"),
    ("sleeper", "waiter"),
];

/// Words that ask instead of naming the subject.
const QUESTIONS: [&str; 7] = ["What", "Who", "Whose", "Whether", "Where", "How", "Those"];

/// Words that a noun phrase of a type begins with.
const ARTICLES: [&str; 14] = [
    "A", "An", "The", "One", "Two", "Three", "Each", "Every", "All", "Any", "No", "Some",
    "Another", "Both",
];

/// Words that end like a verb in the third person and are none.
const NO_VERBS: [&str; 6] = ["This", "Its", "Always", "As", "Plus", "Thus"];

/// Cuts text into words at anything but letters, and at capitals inside.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in text.chars() {
        let begins = !c.is_alphabetic() || (c.is_uppercase() && !before.is_uppercase());
        if begins {
            words.push(String::new());
        }
        if c.is_alphabetic() {
            words.last_mut().expect("one at least").extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Finds a nickname in `text`, with the term to use.
fn nickname(text: &str) -> Option<(String, &'static str)> {
    words(text).into_iter().find_map(|word| {
        NICKNAMES.iter().find_map(|(nickname, term)| {
            let rest = word.strip_prefix(nickname)?;
            matches!(rest, "" | "s" | "es").then_some((word.clone(), *term))
        })
    })
}

/// Lists nicknames in identifiers, comments and strings of a source file.
pub fn nicknames(place: &str, tokens: &[Token]) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some((word, term)) = nickname(place) {
        wrong.push(format!("{place}:1: the file's name says `{word}`; the field's term: {term}"));
    }
    for token in tokens {
        match &token.kind {
            Kind::Ident(name) | Kind::Lifetime(name) => {
                if let Some((word, term)) = nickname(name) {
                    wrong.push(format!(
                        "{place}:{}: `{name}` says `{word}`; the field's term: {term}",
                        token.line
                    ));
                }
            }
            Kind::Doc(text) | Kind::InnerDoc(text) | Kind::Comment(text) | Kind::Str(text) => {
                wrong.extend(nicknames_of_text(place, token.line, text));
            }
            _ => {}
        }
    }
    wrong
}

/// Lists nicknames in prose that begins on line `first`.
pub fn nicknames_of_text(place: &str, first: usize, text: &str) -> Vec<String> {
    let found = text.lines().enumerate().filter_map(|(at, line)| {
        let (word, term) = nickname(line)?;
        let line = line.trim();
        Some(format!("{place}:{}: \"{line}\" says `{word}`; the field's term: {term}", first + at))
    });
    found.collect()
}

/// The kind of item that documentation stands before.
///
/// A test counts as other: its documentation tells what happens in it.
#[derive(Debug, PartialEq)]
enum Subject {
    Function,
    Type,
    Other,
}

/// Finds out what the item after documentation is.
fn subject(after: &[Token]) -> Subject {
    let mut at = 0;
    while let Some(token) = after.get(at) {
        match &token.kind {
            Kind::Punct('#') => {
                if after.get(at + 2).is_some_and(|token| token.is_ident("test")) {
                    return Subject::Other;
                }
                let close = after[at..].iter().position(|token| token.is(']'));
                at += close.unwrap_or(after.len());
            }
            Kind::Punct('(') => {
                let close = after[at..].iter().position(|token| token.is(')'));
                at += close.unwrap_or(after.len());
            }
            Kind::Ident(word) => match word.as_str() {
                "fn" => return Subject::Function,
                "struct" | "enum" | "union" | "trait" => return Subject::Type,
                "pub" | "async" | "unsafe" | "extern" | "default" => {}
                "const" if !after.get(at + 1).is_some_and(|t| t.is_ident("fn")) => {
                    return Subject::Other;
                }
                "const" => {}
                _ => return Subject::Other,
            },
            Kind::Str(_) | Kind::Doc(_) | Kind::Comment(_) => {}
            _ => return Subject::Other,
        }
        at += 1;
    }
    Subject::Other
}

/// Lists lines of documentation that begin with a word that asks, behind the first of them.
pub fn later_questions(place: &str, tokens: &[Token]) -> Vec<String> {
    const ALSO: [&str; 3] = ["Why", "Which", "When"];
    let mut wrong = Vec::new();
    for token in tokens {
        let (Kind::Doc(text) | Kind::InnerDoc(text)) = &token.kind else { continue };
        let mut is_code = false;
        for (at, line) in text.lines().enumerate() {
            is_code ^= line.trim_start().starts_with("```");
            let word = line.split_whitespace().next().unwrap_or_default();
            if !is_code && (QUESTIONS.contains(&word) || ALSO.contains(&word)) {
                wrong.push(format!(
                    "{place}:{}: \"{}\": begin the sentence with its subject",
                    token.line + at,
                    line.trim()
                ));
            }
        }
    }
    wrong
}

/// Lists documentation whose first words are not its subject.
pub fn first_words(place: &str, tokens: &[Token]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let (text, subject) = match &token.kind {
            Kind::Doc(text) => (text, subject(&tokens[at + 1..])),
            Kind::InnerDoc(text) => (text, Subject::Other),
            _ => continue,
        };
        let first = text.split_whitespace().next().unwrap_or_default();
        let word = first.trim_end_matches(|c: char| !c.is_alphanumeric());
        let line = text.lines().next().unwrap_or_default().trim();
        if line.is_empty() {
            continue; // goes on from documentation that a macro was given
        }
        let mut fail = |remedy: &str| {
            wrong.push(format!("{place}:{}: \"{line}\": {remedy}", token.line));
        };
        if QUESTIONS.contains(&word) {
            fail("begin with the subject, not with a question");
        } else if subject == Subject::Function && !is_verb(word) {
            fail("begin with a verb in the third person: `Claims a slot.`");
        } else if subject == Subject::Type && !ARTICLES.contains(&word) && !word.starts_with('`') {
            fail("begin with a noun phrase and its article: `A queue of ...`");
        }
    }
    wrong
}

/// Returns `true` for a verb in the third person, as far as its letters tell.
fn is_verb(word: &str) -> bool {
    let verb = word.trim_start_matches("Re-").trim_start_matches("Un-");
    verb.ends_with('s')
        && !verb.ends_with("ss")
        && !NO_VERBS.contains(&word)
        && verb.chars().all(char::is_alphabetic)
}

/// Columns that a line may have.
const COLUMNS_MAX: usize = 100;

/// Lists lines of source that are too long, but for strings, which nothing can wrap.
pub fn long_lines(place: &str, text: &str, tokens: &[Token]) -> Vec<String> {
    let mut has_string = vec![false; text.lines().count() + 2];
    for token in tokens.iter().filter(|token| matches!(token.kind, Kind::Str(_))) {
        has_string[token.line..=token.end].fill(true);
    }
    let is_long = |(at, line): (usize, &str)| {
        let columns = line.chars().count();
        let may = has_string[at + 1] || is_link(line);
        (columns > COLUMNS_MAX && !may).then(|| too_long(place, at + 1, columns))
    };
    text.lines().enumerate().filter_map(is_long).collect()
}

/// Lists lines of a page that are too long, but for tables and links.
pub fn long_lines_of_page(place: &str, text: &str) -> Vec<String> {
    let is_long = |(at, line): (usize, &str)| {
        let columns = line.chars().count();
        let may = line.trim_start().starts_with('|') || is_link(line);
        (columns > COLUMNS_MAX && !may).then(|| too_long(place, at + 1, columns))
    };
    text.lines().enumerate().filter_map(is_long).collect()
}

fn too_long(place: &str, line: usize, columns: usize) -> String {
    format!("{place}:{line}: {columns} columns, {COLUMNS_MAX} at most: wrap it")
}

/// Returns `true` for a line that an address makes long.
fn is_link(line: &str) -> bool {
    line.contains("https://") || line.contains("http://")
}

/// Checks the check here, where the nicknames may be spelt.
pub fn check_the_check_of_nicknames() {
    let of = |text: &str| nicknames("a.rs", &lex(text)).len();
    assert_eq!(of("fn look_up_ledger() -> LedgerEntry { 'seat: loop {} }"), 3);
    assert_eq!(of("// The census of witnesses.\n//! One rung.\nlet s = \"the desks\";"), 3);
    assert_eq!(of("fn bookshelf(wrung: Labels, seated: Desktop) {} // a book"), 0);
    assert_eq!(
        nicknames_of_text("a.md", 7, "fine\nNo hoard.\n")[0].split(' ').next(),
        Some("a.md:8:")
    );
}

#[test]
fn a_question_in_the_middle_of_documentation_is_told() {
    let wrong = |text: &str| later_questions("a.rs", &lex(text));
    assert!(wrong("/// Claims.\n///\n/// ```\n/// What\n/// ```\nfn a() {}").is_empty());
    let told = wrong("/// Claims.\n///\n/// What it claims.\nfn a() {}");
    assert!(told.len() == 1 && told[0].starts_with("a.rs:3:"), "{told:?}");
}
