//! The log of the library, for tests of what it tells.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::subscriber::with_default;

/// A log of what the library tells: the level, the span and the text of each event.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

/// The fields of an event, as text.
#[derive(Default)]
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!(" {field}={value:?}");
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("uring_arena")
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let mut events = self.0.lock().unwrap();
        events.push(format!("span {}{}", span.metadata().name(), fields.0));
        span::Id::from_u64(events.len() as u64)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let of = event.parent().map_or(0, |span| span.into_u64());
        let level = *event.metadata().level();
        self.0.lock().unwrap().push(format!("{level} of {of}:{}", fields.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Log {
    /// Returns the events that contain a text.
    pub fn with(&self, text: &str) -> Vec<String> {
        let events = self.0.lock().unwrap();
        events.iter().filter(|event| event.contains(text)).cloned().collect()
    }
}

/// Runs `code` with a log. Returns the log, and the most events of one kind that it may have.
pub fn logged(code: impl FnOnce()) -> (Log, usize) {
    let (log, begin) = (Log::default(), Instant::now());
    with_default(log.clone(), code);
    (log, 1 + begin.elapsed().as_secs() as usize)
}

/// Checks that a kind of event came, no more often than it may, with its level and texts.
#[track_caller]
pub fn assert_told(log: &Log, most: usize, begin: &str, texts: &[&str]) {
    let told = log.with(begin);
    assert!((1..=most).contains(&told.len()), "{begin}, {most} at most: {:?}", log.with(""));
    for text in texts {
        assert!(told[0].contains(text), "{text:?} is not in {told:?}");
    }
}

/// A log that panics at each event of the library.
pub struct PanickingLog;

impl tracing::Subscriber for PanickingLog {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("uring_arena")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        panic!("the log panics, as this test wants");
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
