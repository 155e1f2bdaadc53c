//! Which figures this part answers.

use crate::receive::System;
use crate::report::{Bound, Figure, Part};

use super::receiving::{Home, SHAPES};
use super::{readers, workers};

const GROUP: &str = "Runtimes";
const IN_PLACE: &str = "× its own buffers, used in place";

pub fn add(part: &mut Part) {
    for shape in SHAPES {
        let title = shape.title();
        let mut figure =
            |case: &str, home: Home, ours: System, other: System, bound: Bound, of: &str| {
                let key = home.key(shape);
                let measured = part.ratio((&key, ours.name()), (&key, other.name()));
                let case = format!("{case}, {title}");
                part.figures.push(Figure::new(GROUP, &case, bound, of, measured));
            };
        let of_tokio = "× tokio + BytesMut";
        let engine = "`tokio_recv`, engine as a task";
        figure(engine, Home::Tokio, System::OursTokio, System::Tokio, Bound::AtMost(1.0), of_tokio);
        let engine = "`tokio_recv`, engine on its own thread";
        figure(
            engine,
            Home::Tokio,
            System::OursTokioThread,
            System::Tokio,
            Bound::AtMost(1.0),
            of_tokio,
        );
        let engine = "`tokio_recv`, the same with `batch_scheduling`";
        figure(
            engine,
            Home::Tokio,
            System::OursTokioBatch,
            System::Tokio,
            Bound::AtMost(1.0),
            of_tokio,
        );
        for (home, own, bound) in [
            (Home::TokioUring, System::TokioUringInPlace, Bound::AtMost(1.05)),
            (Home::Compio, System::Compio, Bound::AtMost(1.05)),
            (Home::Monoio, System::MonoioInPlace, Bound::Shown),
        ] {
            let case = format!("{}: receive through our memory, CPU", home.name());
            figure(&case, home, home.systems()[0], own, bound, IN_PLACE);
        }
    }
    for (key, case) in [
        (workers::ELAPSED, "two workers, the pool's engine on its own thread, time per message"),
        (workers::PROCESSOR, "two workers, the pool's engine on its own thread, CPU per message"),
    ] {
        let measured =
            part.ratio((key, workers::System::Ours.name()), (key, workers::System::Own.name()));
        part.figures.push(Figure::new(GROUP, case, Bound::Shown, "× tokio + BytesMut", measured));
    }
    for [ours, own] in readers::System::PAIRS {
        let measured = part.ratio((ours.table(), ours.name()), (ours.table(), own.name()));
        let case = format!("{}, CPU", ours.title());
        part.figures.push(Figure::new(GROUP, &case, Bound::AtMost(1.05), IN_PLACE, measured));
    }
}
