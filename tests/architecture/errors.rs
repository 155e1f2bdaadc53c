//! Errors: their texts in both forms, and their way into `io::Error`.

use std::collections::BTreeSet;

use crate::lexer::{Kind, Token};
use crate::tree::{Tree, without_tests};

/// Lists the strings of the sources that show a run of blanks: a text that was wrapped without a
/// backslash, or that has two blanks in a row.
pub fn runs_of_blanks(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in tree.files.iter().filter(|file| !file.is_test) {
        for token in without_tests(&file.tokens) {
            let Kind::Str(text) = &token.kind else { continue };
            if shown(text).contains("  ") {
                wrong.push(format!(
                    "src/{}:{}: a run of blanks in {:?}: end a wrapped line with a backslash",
                    file.name, token.line, text
                ));
            }
        }
    }
    wrong
}

/// Returns a string as it is shown: a line that ends with a backslash goes on with the first letter
/// of the next one, and any other end of a line is a blank.
fn shown(text: &str) -> String {
    let mut lines = text.split('\n');
    let mut shown = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        match shown.strip_suffix('\\') {
            Some(before) => shown = before.to_owned() + line.trim_start(),
            None => shown = shown + " " + line,
        }
    }
    shown
}

/// Lists error types that lack a form: their text as `Debug`, or their conversion to `io::Error`.
pub fn lacking_forms(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut count = 0;
    for file in tree.files.iter().filter(|file| !file.is_test) {
        let tokens: Vec<Token> =
            without_tests(&file.tokens).into_iter().filter(Token::is_code).collect();
        let debug = arguments(&tokens, "debug_is_display");
        let io = arguments(&tokens, "into_io_error");
        for (name, line) in error_types(&tokens) {
            count += 1;
            if !debug.contains(&name) && !implements(&tokens, "Debug", &name) {
                wrong.push(format!(
                    "src/{}:{line}: `{name}` prints its fields from `main`: `debug_is_display!`",
                    file.name
                ));
            }
            if !io.contains(&name) && !implements(&tokens, "From", &name) {
                wrong.push(format!(
                    "src/{}:{line}: `{name}` is no `io::Error` of a kind: `into_io_error!`",
                    file.name
                ));
            }
        }
    }
    assert!(count >= 12, "{count} error types found: how are they told?");
    wrong
}

/// Finds the public types that derive `thiserror::Error`, with their lines.
fn error_types(tokens: &[Token]) -> Vec<(String, usize)> {
    let is_error = |at: usize| {
        let [crate_name, colon, _, error] = &tokens[at..at + 4] else { return false };
        crate_name.is_ident("thiserror") && colon.is(':') && error.is_ident("Error")
    };
    let derives = (0..tokens.len().saturating_sub(3)).filter(|&at| is_error(at));
    let type_behind = |at: usize| {
        let keyword = |token: &Token| token.is_ident("enum") || token.is_ident("struct");
        let keyword = at + tokens[at..].iter().position(keyword)?;
        let name = tokens.get(keyword + 1)?;
        tokens[keyword - 1].is_ident("pub").then_some((name.ident()?.to_owned(), name.line))
    };
    derives.filter_map(type_behind).collect()
}

/// Collects the names in the calls of a macro.
fn arguments(tokens: &[Token], name: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.is_ident(name) && tokens.get(at + 1).is_some_and(|next| next.is('!')) {
            let rest = tokens[at + 2..].iter().take_while(|token| !token.is(';'));
            names.extend(rest.filter_map(Token::ident).map(str::to_owned));
        }
    }
    names
}

/// Returns whether a trait is implemented by hand for, or from, a type.
fn implements(tokens: &[Token], of: &str, name: &str) -> bool {
    tokens.iter().enumerate().any(|(at, token)| {
        let head: Vec<&Token> =
            tokens[at..].iter().take_while(|token| !token.is('{') && !token.is(';')).collect();
        token.is_ident("impl")
            && head.iter().any(|token| token.is_ident(of))
            && head.iter().any(|token| token.is_ident(name))
    })
}

#[test]
fn a_wrapped_text_is_read_as_it_is_shown() {
    assert_eq!(shown("one \\\n     two"), "one two");
    assert_eq!(shown("one\n     two"), "one      two");
}
