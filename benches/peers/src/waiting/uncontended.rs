//! What does it cost to be able to wait, when there is no need?

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::harness::{Contender, Effort, Stopwatch, Work};
use crate::report::{Part, Question};

use super::ours::{Ours, OursPlain};
use super::systems::{Alligator, Guarded, Waitable};

const SLOTS: usize = 1024;

pub fn add(part: &mut Part, effort: Effort) {
    // In one run, because the one is compared with the other.
    let question = |key: &str, title: &str, contenders| Question {
        key: key.into(),
        title: title.into(),
        contenders,
    };
    let mut claims = vec![line::<Ours>(claimed::<Ours>())];
    claims.push(Contender {
        name: OursPlain::NAME.into(),
        note: String::new(),
        work: claimed_plain(),
    });
    let once = "a thread has waited before, and left";
    claims.push(Contender {
        name: "uring-arena, waited once".into(),
        note: once.into(),
        work: claimed_after_wait(),
    });
    claims.push(line::<Alligator>(claimed::<Alligator>()));
    claims.push(line::<Guarded>(claimed::<Guarded>()));
    let waits = vec![
        line::<Ours>(waited::<Ours>()),
        line::<Alligator>(waited::<Alligator>()),
        line::<Guarded>(waited::<Guarded>()),
    ];
    part.ask(
        vec![
            question("claim", "Claim without waiting, from an arena that can wait", claims),
            question("wait", "Claim with waiting, free slots there", waits),
        ],
        effort,
    );
}

fn claimed_plain() -> Work<'static> {
    claims_of(OursPlain::new(SLOTS))
}

fn claimed_after_wait() -> Work<'static> {
    let arena = OursPlain::new(SLOTS);
    let held: Vec<_> = std::iter::from_fn(|| arena.claim()).collect();
    assert!(!arena.wait_shortly(), "no slot is free");
    drop(held);
    claims_of(arena)
}

fn claims_of(arena: OursPlain) -> Work<'static> {
    Box::new(move |times| {
        let begin = Stopwatch::thread();
        for _ in 0..times {
            let slot = arena.claim();
            black_box(&slot);
            drop(slot);
        }
        begin.elapsed()
    })
}

fn line<W: Waitable>(work: Work<'static>) -> Contender<'static> {
    Contender { name: W::NAME.into(), note: W::NOTE.into(), work }
}

fn claimed<W: Waitable>() -> Work<'static> {
    let arena = W::new(SLOTS);
    Box::new(move |times| {
        let begin = Stopwatch::thread();
        for _ in 0..times {
            let slot = arena.claim();
            black_box(&slot);
            drop(slot);
        }
        begin.elapsed()
    })
}

fn waited<W: Waitable>() -> Work<'static> {
    let arena = W::new(SLOTS);
    Box::new(move |times| {
        let mut context = Context::from_waker(Waker::noop());
        let begin = Stopwatch::thread();
        for _ in 0..times {
            match pin!(arena.wait()).poll(&mut context) {
                Poll::Ready(slot) => {
                    black_box(&slot);
                }
                Poll::Pending => panic!("a free slot is served at once"),
            }
        }
        begin.elapsed()
    })
}
