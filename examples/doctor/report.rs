//! The report, as lines for a person or as JSON for a program.

use std::fmt::{Display, Write};

/// The verdict on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All that the crate uses is there, or an older form that does the same.
    Ready,
    /// The kernel or the user's limits lack something of use.
    Limited,
    /// io_uring cannot be used.
    Unavailable,
}

impl Verdict {
    pub fn code(self) -> u8 {
        match self {
            Verdict::Ready => 0,
            Verdict::Limited => 2,
            Verdict::Unavailable => 3,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Verdict::Ready => "ready",
            Verdict::Limited => "limited",
            Verdict::Unavailable => "unavailable",
        }
    }
}

/// The findings, in sections of rows, and the verdict on them.
pub struct Report {
    pub verdict: Verdict,
    /// The verdict in words: what is missing, and what to do.
    pub reasons: Vec<String>,
    sections: Vec<(String, Vec<(String, String)>)>,
    /// The code to use.
    pub recommended: String,
}

impl Report {
    pub fn new() -> Report {
        Report {
            verdict: Verdict::Ready,
            reasons: Vec::new(),
            sections: Vec::new(),
            recommended: String::new(),
        }
    }

    pub fn section(&mut self, name: impl Into<String>) {
        self.sections.push((name.into(), Vec::new()));
    }

    pub fn row(&mut self, name: impl Into<String>, answer: impl Display) {
        if let Some((_, rows)) = self.sections.last_mut() {
            rows.push((name.into(), answer.to_string()));
        }
    }

    /// Notes something that is missing. The worst of all is the verdict.
    pub fn note(&mut self, verdict: Verdict, reason: impl Into<String>) {
        if verdict.code() > self.verdict.code() {
            self.verdict = verdict;
        }
        self.reasons.push(reason.into());
    }

    pub fn to_text(&self) -> String {
        let mut text = format!("verdict: {}\n", self.verdict.name());
        self.reasons.iter().for_each(|reason| writeln!(text, "  {reason}").unwrap_or_default());
        for (name, rows) in &self.sections {
            writeln!(text, "\n{name}").unwrap_or_default();
            for (name, answer) in rows {
                writeln!(text, "{name:<32} {answer}").unwrap_or_default();
            }
        }
        text + "\nrecommended\n" + &self.recommended
    }

    pub fn to_json(&self) -> String {
        let list = |all: Vec<String>| all.join(",");
        let reasons = list(self.reasons.iter().map(|reason| quoted(reason)).collect());
        let object = |rows: &[(String, String)]| {
            let pairs =
                rows.iter().map(|(name, value)| format!("{}:{}", quoted(name), quoted(value)));
            format!("{{{}}}", list(pairs.collect()))
        };
        let sections = self.sections.iter();
        let sections = sections.map(|(name, rows)| format!("{}:{}", quoted(name), object(rows)));
        format!(
            "{{\"verdict\":{},\"exit_code\":{},\"reasons\":[{reasons}],\"report\":{{{}}},\
             \"recommended\":{}}}",
            quoted(self.verdict.name()),
            self.verdict.code(),
            list(sections.collect()),
            quoted(&self.recommended)
        )
    }
}

/// Writes a text as a JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter < ' ' => {
                write!(out, "\\u{:04x}", u32::from(letter)).unwrap_or_default();
            }
            letter => out.push(letter),
        }
    }
    out + "\""
}
