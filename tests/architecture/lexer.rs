//! A lexer of Rust: tokens with their lines, comments among them.
//!
//! A parser crate would take longer to build than all of these checks together.

/// A piece of source text.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// An identifier or a keyword.
    Ident(String),
    /// One character that is no part of another kind: `:` comes twice for a path.
    Punct(char),
    /// A lifetime or a label, without its quote.
    Lifetime(String),
    /// A string of any form, without its quotes.
    Str(String),
    /// A number or a character.
    Literal,
    /// Documentation of what follows: consecutive lines in one.
    Doc(String),
    /// Documentation of what it stands in: consecutive lines in one.
    InnerDoc(String),
    /// Any other comment.
    Comment(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub kind: Kind,
    /// The line that it begins on, from 1.
    pub line: usize,
    /// The line that it ends on.
    pub end: usize,
}

impl Token {
    pub fn is(&self, punct: char) -> bool {
        self.kind == Kind::Punct(punct)
    }

    pub fn ident(&self) -> Option<&str> {
        match &self.kind {
            Kind::Ident(name) => Some(name),
            _ => None,
        }
    }

    pub fn is_ident(&self, name: &str) -> bool {
        self.ident() == Some(name)
    }

    /// Returns `false` for comments that document nothing.
    pub fn is_code(&self) -> bool {
        !matches!(self.kind, Kind::Comment(_))
    }
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

/// Cuts `text` into tokens.
pub fn lex(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: text, line: 1, tokens: Vec::new() };
    if lexer.rest.starts_with("#!/") {
        lexer.take_line();
    }
    while lexer.step() {}
    lexer.tokens
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

impl<'a> Lexer<'a> {
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        self.line += taken.matches('\n').count();
        taken
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        self.take(self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len()))
    }

    fn take_line(&mut self) -> &'a str {
        self.take(self.rest.find('\n').unwrap_or(self.rest.len()))
    }

    fn push(&mut self, kind: Kind, line: usize) {
        self.tokens.push(Token { kind, line, end: self.line });
    }

    /// Takes one token. Returns `false` at the end.
    fn step(&mut self) -> bool {
        self.take_while(char::is_whitespace);
        let line = self.line;
        let mut ahead = self.rest.chars();
        let Some(first) = ahead.next() else { return false };
        let second = ahead.next().unwrap_or(' ');
        match (first, second) {
            ('/', '/') => self.line_comment(),
            ('/', '*') => self.block_comment(),
            ('"', _) => self.escaped_string(line),
            ('\'', _) => self.quote(line),
            ('r' | 'b' | 'c', '"' | '#' | 'r' | '\'') if self.is_prefixed() => self.prefixed(line),
            _ if first.is_ascii_digit() => {
                self.take_while(is_word);
                self.push(Kind::Literal, line);
            }
            _ if is_word(first) => {
                let word = self.take_while(is_word).to_owned();
                self.push(Kind::Ident(word), line);
            }
            _ => {
                self.take(first.len_utf8());
                self.push(Kind::Punct(first), line);
            }
        }
        true
    }

    /// Adds a line of documentation to the one before it, if that is of the same kind.
    fn document(&mut self, text: &str, inner: bool, line: usize) {
        let end = self.line;
        if let Some(last) = self.tokens.last_mut()
            && let (Kind::Doc(before), false) | (Kind::InnerDoc(before), true) =
                (&mut last.kind, inner)
            && last.end + 1 == line
        {
            before.push('\n');
            before.push_str(text);
            last.end = end;
            return;
        }
        let text = text.to_owned();
        self.push(if inner { Kind::InnerDoc(text) } else { Kind::Doc(text) }, line);
    }

    fn line_comment(&mut self) {
        let line = self.line;
        let text = self.take_line();
        match text.strip_prefix("///") {
            Some(rest) if !rest.starts_with('/') => self.document(rest, false, line),
            _ => match text.strip_prefix("//!") {
                Some(rest) => self.document(rest, true, line),
                None => self.push(Kind::Comment(text[2..].to_owned()), line),
            },
        }
    }

    fn block_comment(&mut self) {
        let line = self.line;
        let (mut depth, mut at) = (0, 0);
        loop {
            let rest = &self.rest[at..];
            if rest.starts_with("/*") {
                depth += 1;
                at += 2;
            } else if rest.starts_with("*/") {
                depth -= 1;
                at += 2;
            } else {
                at += rest.chars().next().map_or(0, char::len_utf8);
            }
            if depth == 0 || at >= self.rest.len() {
                break;
            }
        }
        let text = self.take(at).to_owned();
        self.push(Kind::Comment(text), line);
    }

    /// Takes a string that begins with its quote and ends with a quote and as many `#`.
    fn string(&mut self, hashes: usize, line: usize) {
        self.take(1);
        let closing = format!("\"{}", "#".repeat(hashes));
        let len = self.rest.find(&closing).unwrap_or(self.rest.len());
        let text = self.take(len).to_owned();
        self.take(closing.len().min(self.rest.len()));
        self.push(Kind::Str(text), line);
    }

    /// Takes an ordinary string, with escapes.
    fn escaped_string(&mut self, line: usize) {
        self.take(1);
        let mut escaped = false;
        let len = self.rest.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let text = self.take(len.unwrap_or(self.rest.len())).to_owned();
        self.take(1.min(self.rest.len()));
        self.push(Kind::Str(text), line);
    }

    /// Takes a lifetime or a character.
    fn quote(&mut self, line: usize) {
        let after = &self.rest[1..];
        let word = after.find(|c| !is_word(c)).unwrap_or(after.len());
        if word > 0 && !after[word..].starts_with('\'') {
            self.take(1);
            let name = self.take(word).to_owned();
            return self.push(Kind::Lifetime(name), line);
        }
        let mut escaped = false;
        let len = after.find(|c| {
            let ends = c == '\'' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        self.take(len.map_or(self.rest.len(), |len| len + 2));
        self.push(Kind::Literal, line);
    }

    /// Returns `true` at a string or a character with a letter before it, or a raw identifier.
    fn is_prefixed(&self) -> bool {
        let rest = self.rest.trim_start_matches(['b', 'c']).trim_start_matches('r');
        let quote = rest.trim_start_matches('#');
        self.rest.len() - rest.len() <= 2
            && (quote.starts_with('"')
                || rest.starts_with('\'')
                || (self.rest.starts_with("r#") && quote.starts_with(is_word)))
    }

    fn prefixed(&mut self, line: usize) {
        let prefix = self.take_while(|c| matches!(c, 'b' | 'c' | 'r'));
        let hashes = self.rest.len() - self.rest.trim_start_matches('#').len();
        if hashes > 0 && !self.rest[hashes..].starts_with('"') {
            self.take(hashes);
            let word = self.take_while(is_word).to_owned();
            return self.push(Kind::Ident(word), line);
        }
        if self.rest.starts_with('\'') {
            return self.quote(line);
        }
        self.take(hashes);
        if prefix.ends_with('r') {
            self.string(hashes, line);
        } else {
            self.escaped_string(line);
        }
    }
}
