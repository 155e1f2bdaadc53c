//! The list of systems: what each is called, how it is set up, and where it is shown.

use crate::receive::cases::{Shown, System};
use crate::report::OURS;
use crate::tasks::Settings;

use super::bare::Wait;
use super::{a10, bare, epoll, ours, runtimes};

const BEST: Settings = Settings::Best(1024);

/// A system that is shown always, whose drain may be compared, and whose memory stays.
const USUAL: System = System {
    name: "",
    note: "",
    in_drain: true,
    hands_over: false,
    within: "",
    shown: Shown::Always,
    start: runtimes::tokio,
};
const HANDING: System = System { hands_over: true, ..USUAL };
/// A line of the comparison of its runtime only.
const IN_RUNTIME: System = System { shown: Shown::Nowhere, ..USUAL };
const OLD_RING: System = System { in_drain: false, ..IN_RUNTIME };
/// A runtime or ring as it comes.
const DEFAULTS: System = System { in_drain: false, shown: Shown::Once, ..USUAL };

pub static SYSTEMS: [System; 27] = [
    System {
        name: OURS,
        note: "`Driver`, 1024 slots; a `Bytes` that may leave the thread",
        start: |sockets, shape, outlet| ours::start(sockets, shape, outlet, false),
        ..HANDING
    },
    System {
        name: "uring-arena, ArenaBytes",
        note: "the same, without the heap",
        start: |sockets, shape, outlet| ours::start(sockets, shape, outlet, true),
        ..HANDING
    },
    System {
        name: "uring-arena on compio",
        note: "`ReceiveRing` on compio's runtime, DEFER_TASKRUN; a `Bytes` that may leave the \
               thread",
        within: "compio",
        start: runtimes::ours_compio,
        ..HANDING
    },
    System {
        name: "uring-arena on tokio",
        note: "`Pool` with its engine as a task of the current-thread runtime; a `Bytes` that may \
               leave the thread",
        within: "tokio",
        start: |sockets, shape, _| runtimes::ours_tokio(sockets, shape, |builder| builder),
        ..IN_RUNTIME
    },
    System {
        name: "uring-arena on tokio, own thread",
        note: "`Pool` with its engine on a thread of its own, on the same core",
        within: "tokio",
        start: |sockets, shape, _| {
            runtimes::ours_tokio(sockets, shape, |builder| builder.own_thread())
        },
        ..IN_RUNTIME
    },
    System {
        name: "uring-arena on tokio, own thread, batch",
        note: "the same, `batch_scheduling`: the thread waits for its turn",
        within: "tokio",
        start: |sockets, shape, _| {
            runtimes::ours_tokio(sockets, shape, |b| b.own_thread().batch_scheduling(true))
        },
        ..IN_RUNTIME
    },
    System {
        name: "uring-arena on tokio-uring",
        note: "COOP_TASKRUN; `read` into a slot per read, frozen",
        within: "tokio-uring",
        start: runtimes::ours_tokio_uring,
        ..OLD_RING
    },
    System {
        name: "uring-arena on monoio",
        note: "COOP_TASKRUN; `lend` a slot per read, frozen",
        within: "monoio",
        start: runtimes::ours_monoio,
        ..OLD_RING
    },
    System {
        name: "bare io_uring",
        note: "multishot, buffer ring, DEFER_TASKRUN, waits for many with a timeout; hands \
               nothing out",
        start: |sockets, shape, outlet| bare::start(sockets, shape, outlet, Wait::Many),
        ..USUAL
    },
    System {
        name: "bare io_uring, waits for one",
        note: "the same loop, woken by the first message",
        shown: Shown::Once,
        start: |sockets, shape, outlet| bare::start(sockets, shape, outlet, Wait::One),
        ..USUAL
    },
    System {
        name: "bare io_uring + copy",
        note: "waits for many; a `Bytes` by copying",
        shown: Shown::InFull,
        start: |sockets, shape, outlet| bare::start(sockets, shape, outlet, Wait::Copied),
        ..HANDING
    },
    System {
        name: "epoll + read",
        note: "level-triggered, one buffer; hands nothing out",
        start: |sockets, shape, outlet| epoll::start(sockets, shape, outlet, false),
        ..USUAL
    },
    System {
        name: "epoll + read into BytesMut",
        note: "level-triggered; one `BytesMut`, `reserve`, `read`, `split().freeze()`",
        shown: Shown::InFull,
        start: |sockets, shape, outlet| epoll::start(sockets, shape, outlet, true),
        ..HANDING
    },
    System {
        name: "tokio + BytesMut",
        note: "current-thread runtime; a `BytesMut` per connection, `reserve`, `read_buf`, \
               `split().freeze()`",
        within: "tokio",
        ..HANDING
    },
    System {
        name: "tokio, one shared buffer",
        note: "`readable`, then `try_read` into one buffer; hands nothing out",
        shown: Shown::Once,
        start: runtimes::tokio_shared,
        ..USUAL
    },
    System {
        name: "tokio-uring, in place",
        note: "COOP_TASKRUN; a `Vec` per connection; hands nothing out",
        within: "tokio-uring",
        start: |sockets, shape, _| runtimes::tokio_uring_in_place(sockets, shape, false),
        ..OLD_RING
    },
    System {
        name: "tokio-uring + copy",
        note: "the same, and a `Bytes` by copying",
        within: "tokio-uring",
        start: |sockets, shape, _| runtimes::tokio_uring_in_place(sockets, shape, true),
        ..OLD_RING
    },
    System {
        name: "tokio-uring + BytesMut",
        note: "COOP_TASKRUN; a fresh `BytesMut` per read, frozen",
        in_drain: false,
        within: "tokio-uring",
        start: |sockets, shape, outlet| runtimes::tokio_uring(sockets, shape, outlet, BEST),
        ..HANDING
    },
    System {
        name: "tokio-uring + BytesMut, defaults",
        note: "the same with the runtime as `new` makes it",
        start: |sockets, shape, outlet| {
            runtimes::tokio_uring(sockets, shape, outlet, Settings::Default)
        },
        ..DEFAULTS
    },
    System {
        name: "compio read_multi",
        note: "DEFER_TASKRUN, 1024 buffers; the buffer cannot leave the thread",
        within: "compio",
        start: |sockets, shape, outlet| runtimes::compio(sockets, shape, outlet, (BEST, false)),
        ..USUAL
    },
    System {
        name: "compio read_multi + copy",
        note: "the same, and a `Bytes` by copying",
        within: "compio",
        shown: Shown::InFull,
        start: |sockets, shape, outlet| runtimes::compio(sockets, shape, outlet, (BEST, true)),
        ..HANDING
    },
    System {
        name: "compio read_multi, defaults",
        note: "8 buffers of 8 KiB, as it comes; armed again after each refusal",
        start: |sockets, shape, outlet| {
            runtimes::compio(sockets, shape, outlet, (Settings::Default, false))
        },
        ..DEFAULTS
    },
    System {
        name: "monoio, in place",
        note: "COOP_TASKRUN; a `Vec` per connection; hands nothing out",
        within: "monoio",
        start: runtimes::monoio_in_place,
        ..OLD_RING
    },
    System {
        name: "monoio + BytesMut",
        note: "COOP_TASKRUN; a fresh `BytesMut` per read, frozen",
        in_drain: false,
        within: "monoio",
        start: |sockets, shape, outlet| runtimes::monoio(sockets, shape, outlet, BEST),
        ..HANDING
    },
    System {
        name: "monoio + BytesMut, defaults",
        note: "the same with the runtime as `new` makes it",
        start: |sockets, shape, outlet| runtimes::monoio(sockets, shape, outlet, Settings::Default),
        ..DEFAULTS
    },
    System {
        name: "a10 multishot_recv + from_owner",
        note: "SINGLE_ISSUER, DEFER_TASKRUN; a `Bytes` that may leave the thread",
        start: |sockets, shape, outlet| a10::start(sockets, shape, outlet, true),
        ..HANDING
    },
    System {
        name: "a10 multishot_recv, defaults",
        note: "the same with the ring as `config` makes it",
        start: |sockets, shape, outlet| a10::start(sockets, shape, outlet, false),
        ..DEFAULTS
    },
];
