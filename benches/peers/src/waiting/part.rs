//! The part `waiting`: its cases and contenders.

use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use uring_arena::FixedArena;

use crate::report::{OURS, Part};
use crate::run::{Amount, Answer, Contender, Effort, Method, Question, Sample, Work, bind, metric};

use super::arenas::{Alligator, Guarded, Ours, Plain};
use super::cases::Waiting;

const INTRODUCTION: &str = "\
Without need: nanoseconds per claim and drop of an arena that has free slots, the future polled \
once. With need: 16 slots, 32 tasks on one thread that claim, wait in line, and pass what they got \
to a second thread, which drops it at once; a wake is counted from just before the drop to the \
moment a task has the slot. One that gives no answer for five minutes is reported as stopped. A \
full run has ten million cycles; `scripts/soak-waiting` has as many with one claim in four \
cancelled.";

const CONTENDERS: [&dyn Contender<Waiting>; 5] = [
    &PhantomData::<Ours>,
    &PhantomData::<Plain<false>>,
    &PhantomData::<Plain<true>>,
    &PhantomData::<Alligator>,
    &PhantomData::<Guarded>,
];

pub fn part(effort: Effort) -> Part {
    let asked = |case| bind(case, CONTENDERS, effort);
    let groups = vec![
        vec![asked(Waiting::Claim), asked(Waiting::Wait)],
        vec![bind(MANY_WORDS, &OUR_MANY_WORDS, effort)],
        vec![asked(Waiting::Wake)],
    ];
    Part::new("waiting", "Waiting for memory", INTRODUCTION, groups)
}

/// Claims that find nothing in a very large arena. A million slots are 32,768 words: the first
/// waiter sets a bit in each of them.
const MANY_WORDS: Question = Question {
    label: "many-words: A full arena of 1048576 slots: claims that find nothing",
    metrics: &[
        metric("refused", "`allocate`", "µs", 1.0),
        metric("first", "the first waiter, in line for no time", "µs", 1.0),
        metric("next", "the next waiter, the bits are set", "µs", 1.0),
    ],
    method: |effort| Method::rounds(1, effort.choose(3, 11), Amount::Times(1)),
};

static OUR_MANY_WORDS: [Answer<Question>; 1] = [Answer::new(OURS, "", |_, _| many_words())];

fn many_words() -> io::Result<Work> {
    Ok(Box::new(move |_| {
        let nz = |number| NonZeroUsize::new(number).ok_or(io::ErrorKind::InvalidInput);
        let builder = FixedArena::with_slot_capacity(nz(1 << 20)?, nz(8)?);
        let arena = builder.build().map_err(io::Error::other)?;
        let held: Vec<_> = std::iter::from_fn(|| arena.allocate().ok()).collect();
        let micros = |claim: &dyn Fn() -> bool| {
            let begin = Instant::now();
            assert!(claim() && held.len() == 1 << 20, "no slot is free");
            begin.elapsed().as_secs_f64() * 1e6
        };
        let wait = || arena.allocate_timeout(Duration::ZERO).is_err();
        Ok(Sample::default()
            .with("refused", micros(&|| arena.allocate().is_err()))
            .with("first", micros(&wait))
            .with("next", micros(&wait)))
    }))
}
