//! Every promise names rows that a full run measures.

use uring_arena_peers::parts;
use uring_arena_peers::report::{CONCLUSION, PROMISES};
use uring_arena_peers::run::Effort;

#[test]
fn every_promise_names_rows_that_are_measured() {
    let parts = parts(Effort { quick: false });
    for line in PROMISES.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!(fields.len(), 12, "{line}");
        for row in fields[6..].chunks(3).filter(|row| !row[0].is_empty()) {
            let part = parts.iter().find(|part| part.name == fields[0]).expect(line);
            let mut comparisons = part.groups.iter().flatten();
            let comparison = comparisons.find(|comparison| comparison.key == row[0]).expect(line);
            assert!(comparison.metrics.iter().any(|metric| metric.name == row[1]), "{line}");
            assert!(comparison.pairs.iter().any(|pair| pair.contender == row[2]), "{line}");
        }
    }
}

#[test]
fn the_conclusion_names_promises() {
    let words = CONCLUSION.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in words.split('{').skip(1) {
        let name = part.split_once('}').expect(part).0;
        let (promise, of) = name.split_once('|').expect(name);
        let is_it = |line: &str| {
            let fields: Vec<&str> = line.split('\t').collect();
            fields[2] == promise && fields[4] == of
        };
        assert!(PROMISES.lines().any(is_it), "{name}");
    }
}
