//! The part `receive`: its cases and plots.

use crate::report::{OURS, Part, Plot};
use crate::run::{Effort, bind};

use super::cases::{MANY, Receiving};
use super::systems::SYSTEMS;
use super::wire::Shape;

const INTRODUCTION: &str = "\
TCP over loopback, in lockstep: one pinned thread writes one message to each connection, then \
drains them all; microseconds of processor time per message, so that neighbours on the machine \
are not in it. Each system has a process of its own, started anew several times. With \
DEFER_TASKRUN, and with epoll, the kernel receives inside the drain: there the drain alone is the \
receiver's work. Other rings receive inside the sender's calls; for them only the whole round, \
sending included, can be compared. Settings are the best that each one's documentation names; as \
they come they are shown with 64 connections. Buffers are 1024 × 4096 B (16 KiB for messages of \
16 KiB), touched beforehand. Each message is dropped at once, or kept until the round is drained \
and dropped by a thread on another core, whose time is added; only what may leave its thread \
takes part in that, copied where its owner may not.";

pub fn part(effort: Effort) -> Part {
    let lengths = [512, 4096, 16384];
    let all = [1, 64, 512].iter().flat_map(|&count| lengths.map(|bytes| Shape::new(count, bytes)));
    let quick = vec![Shape::new(64, 512), Shape::new(512, 512)];
    let mut cases = Vec::new();
    for shape in effort.choose(quick, all.collect()) {
        cases.extend([Receiving::Lockstep(shape), Receiving::Handed(shape)]);
    }
    cases.extend([Receiving::Heap, Receiving::Instructions]);
    let idle = effort.choose(&[64][..], &[64, 1024, 4096, MANY]);
    cases.extend(idle.iter().map(|&connections| Receiving::Idle(connections)));
    let groups = cases.into_iter().map(|case| vec![bind(case, &SYSTEMS, effort)]).collect();
    Part { plots: &[COST, IDLE], ..Part::new("receive", "Receiving", INTRODUCTION, groups) }
}

const COST: Plot = Plot {
    file: "message-by-connections",
    title: "Whole round, 512 B: CPU per message by connections",
    x_label: "connections",
    y_label: "µs per message",
    key: ("", "x512"),
    metric: "whole",
    lines: &[
        OURS,
        "bare io_uring",
        "tokio + BytesMut",
        "epoll + read",
        "a10 multishot_recv + from_owner",
    ],
    is_logarithmic: true,
};

const IDLE: Plot = Plot {
    file: "memory-by-idle-connections",
    title: "Memory held while all are idle",
    y_label: "MiB",
    key: ("idle-", ""),
    metric: "resident",
    lines: &[
        OURS,
        "tokio + BytesMut",
        "tokio-uring + BytesMut",
        "compio read_multi",
        "a10 multishot_recv + from_owner",
    ],
    is_logarithmic: false,
    ..COST
};
