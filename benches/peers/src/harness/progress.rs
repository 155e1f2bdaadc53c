//! What is being measured now: a bar on a terminal, a line each otherwise.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// One bar for one part.
pub struct Progress {
    part: &'static str,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub fn begin(part: &'static str, steps: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps as u64);
            let style =
                ProgressStyle::with_template("{prefix:>8} [{bar:30}] {pos}/{len} {elapsed} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(part);
            bar.enable_steady_tick(Duration::from_secs(1));
            bar
        });
        Self { part, bar }
    }

    /// Called before each step.
    pub fn step(&self, what: &str) {
        match &self.bar {
            Some(bar) => {
                bar.inc(1);
                bar.set_message(what.to_owned());
            }
            None => eprintln!("{}: {what}", self.part),
        }
    }

    /// Something the reader must not miss: a peer left out, and why.
    pub fn aloud(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{}: {text}", self.part),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
