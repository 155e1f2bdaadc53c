//! The list of systems: what each is called, how it is set up, and which file does it.

use std::io;
use std::net::TcpStream;

use bytes::BytesMut;

use crate::harness::Effort;
use crate::receive::Shape;
use crate::receive::lockstep::Receiver;
use crate::receive::outlet::Outlet;
use crate::report::OURS;

use super::{
    a10, bare, compio, epoll, monoio, ours, ours_compio, ours_monoio, ours_tokio, ours_tokio_uring,
    tokio, tokio_uring,
};

/// One line of the tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum System {
    Ours,
    OursInArena,
    OursCompio,
    OursTokio,
    OursTokioThread,
    OursTokioBatch,
    OursTokioUring,
    OursMonoio,
    Bare,
    BareOne,
    BareCopied,
    Epoll,
    EpollSplit,
    Tokio,
    TokioShared,
    TokioUring,
    TokioUringDefault,
    TokioUringInPlace,
    TokioUringCopied,
    Compio,
    CompioCopied,
    CompioDefault,
    Monoio,
    MonoioDefault,
    MonoioInPlace,
    A10,
    A10Default,
}

impl System {
    pub const ALL: [Self; 27] = [
        Self::Ours,
        Self::OursInArena,
        Self::OursCompio,
        Self::OursTokio,
        Self::OursTokioThread,
        Self::OursTokioBatch,
        Self::OursTokioUring,
        Self::OursMonoio,
        Self::Bare,
        Self::BareOne,
        Self::BareCopied,
        Self::Epoll,
        Self::EpollSplit,
        Self::Tokio,
        Self::TokioShared,
        Self::TokioUring,
        Self::TokioUringDefault,
        Self::TokioUringInPlace,
        Self::TokioUringCopied,
        Self::Compio,
        Self::CompioCopied,
        Self::CompioDefault,
        Self::Monoio,
        Self::MonoioDefault,
        Self::MonoioInPlace,
        Self::A10,
        Self::A10Default,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => OURS,
            Self::OursInArena => "uring-arena, ArenaBytes",
            Self::OursCompio => "uring-arena on compio",
            Self::OursTokio => "uring-arena on tokio",
            Self::OursTokioThread => "uring-arena on tokio, own thread",
            Self::OursTokioBatch => "uring-arena on tokio, own thread, batch",
            Self::OursTokioUring => "uring-arena on tokio-uring",
            Self::OursMonoio => "uring-arena on monoio",
            Self::Bare => "bare io_uring",
            Self::BareOne => "bare io_uring, waits for one",
            Self::BareCopied => "bare io_uring + copy",
            Self::Epoll => "epoll + read",
            Self::EpollSplit => "epoll + read into BytesMut",
            Self::Tokio => "tokio + BytesMut",
            Self::TokioShared => "tokio, one shared buffer",
            Self::TokioUring => "tokio-uring + BytesMut",
            Self::TokioUringDefault => "tokio-uring + BytesMut, defaults",
            Self::TokioUringInPlace => "tokio-uring, in place",
            Self::TokioUringCopied => "tokio-uring + copy",
            Self::Compio => "compio read_multi",
            Self::CompioCopied => "compio read_multi + copy",
            Self::CompioDefault => "compio read_multi, defaults",
            Self::Monoio => "monoio + BytesMut",
            Self::MonoioDefault => "monoio + BytesMut, defaults",
            Self::MonoioInPlace => "monoio, in place",
            Self::A10 => "a10 multishot_recv + from_owner",
            Self::A10Default => "a10 multishot_recv, defaults",
        }
    }

    pub fn note(self) -> &'static str {
        match self {
            Self::Ours => "`Driver`, 1024 slots; a `Bytes` that may leave the thread",
            Self::OursInArena => "the same, without the heap",
            Self::OursCompio => {
                "`ReceiveRing` on compio's runtime, DEFER_TASKRUN; a `Bytes` that may leave the thread"
            }
            Self::OursTokio => {
                "`Pool` with its engine as a task of the current-thread runtime; a `Bytes` that may leave the thread"
            }
            Self::OursTokioThread => {
                "`Pool` with its engine on a thread of its own, on the same core"
            }
            Self::OursTokioBatch => "the same, `batch_scheduling`: the thread waits for its turn",
            Self::OursTokioUring => "COOP_TASKRUN; `read` into a slot per read, frozen",
            Self::OursMonoio => "COOP_TASKRUN; `lend` a slot per read, frozen",
            Self::Bare => {
                "multishot, buffer ring, DEFER_TASKRUN, waits for many with a timeout; hands nothing out"
            }
            Self::BareOne => "the same loop, woken by the first message",
            Self::BareCopied => "waits for many; a `Bytes` by copying",
            Self::Epoll => "level-triggered, one buffer; hands nothing out",
            Self::EpollSplit => {
                "level-triggered; one `BytesMut`, `reserve`, `read`, `split().freeze()`"
            }
            Self::Tokio => {
                "current-thread runtime; a `BytesMut` per connection, `reserve`, `read_buf`, `split().freeze()`"
            }
            Self::TokioShared => "`readable`, then `try_read` into one buffer; hands nothing out",
            Self::TokioUring => "COOP_TASKRUN; a fresh `BytesMut` per read, frozen",
            Self::TokioUringDefault => "the same with the runtime as `new` makes it",
            Self::TokioUringInPlace => "COOP_TASKRUN; a `Vec` per connection; hands nothing out",
            Self::TokioUringCopied => "the same, and a `Bytes` by copying",
            Self::Compio => "DEFER_TASKRUN, 1024 buffers; the buffer cannot leave the thread",
            Self::CompioCopied => "the same, and a `Bytes` by copying",
            Self::CompioDefault => {
                "8 buffers of 8 KiB, as it comes; armed again after each refusal"
            }
            Self::Monoio => "COOP_TASKRUN; a fresh `BytesMut` per read, frozen",
            Self::MonoioDefault => "the same with the runtime as `new` makes it",
            Self::MonoioInPlace => "COOP_TASKRUN; a `Vec` per connection; hands nothing out",
            Self::A10 => "SINGLE_ISSUER, DEFER_TASKRUN; a `Bytes` that may leave the thread",
            Self::A10Default => "the same with the ring as `config` makes it",
        }
    }

    /// The kernel receives inside the drain, so the drain alone may be compared.
    pub fn receives_in_drain(self) -> bool {
        let elsewhere = [
            Self::OursTokioUring,
            Self::OursMonoio,
            Self::TokioUring,
            Self::TokioUringDefault,
            Self::TokioUringInPlace,
            Self::TokioUringCopied,
            Self::Monoio,
            Self::MonoioDefault,
            Self::MonoioInPlace,
            Self::CompioDefault,
            Self::A10Default,
        ];
        !elsewhere.contains(&self)
    }

    /// Those of the part that compares receiving; the others belong to the comparison of runtimes.
    pub fn received_with(effort: Effort, shape: Shape) -> Vec<Self> {
        let others = [
            Self::OursTokio,
            Self::OursTokioThread,
            Self::OursTokioBatch,
            Self::OursTokioUring,
            Self::OursMonoio,
            Self::TokioUringInPlace,
            Self::TokioUringCopied,
            Self::MonoioInPlace,
        ];
        let is_wanted = |system: &Self| {
            let is_left_out = system.is_variant() && effort.quick
                || system.is_minor() && shape.connections != 64
                || others.contains(system);
            !is_left_out
        };
        Self::ALL.into_iter().filter(is_wanted).collect()
    }

    /// A second setting of a system that has another line: not needed under `--quick`.
    fn is_variant(self) -> bool {
        let variants = [
            Self::BareOne,
            Self::BareCopied,
            Self::EpollSplit,
            Self::TokioShared,
            Self::CompioCopied,
            Self::CompioDefault,
            Self::TokioUringDefault,
            Self::MonoioDefault,
            Self::A10Default,
        ];
        variants.contains(&self)
    }

    /// A setting that is shown once, and not for each number of connections: as it comes, or for
    /// curiosity.
    fn is_minor(self) -> bool {
        let minor = [
            Self::BareOne,
            Self::TokioShared,
            Self::TokioUringDefault,
            Self::CompioDefault,
            Self::MonoioDefault,
            Self::A10Default,
        ];
        minor.contains(&self)
    }

    /// What it hands out may leave the thread.
    pub fn hands_over(self) -> bool {
        let handing = [
            Self::Ours,
            Self::OursInArena,
            Self::OursCompio,
            Self::BareCopied,
            Self::EpollSplit,
            Self::Tokio,
            Self::TokioUring,
            Self::CompioCopied,
            Self::Monoio,
            Self::A10,
        ];
        handing.contains(&self)
    }

    pub fn key(self) -> String {
        format!("{self:?}")
    }

    pub fn parse(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|system| system.key() == key)
    }

    /// Takes the receiving ends and arms them all.
    pub fn start(
        self,
        sockets: Vec<TcpStream>,
        shape: Shape,
        outlet: Outlet,
    ) -> io::Result<Box<dyn Receiver>> {
        use {
            bare::Taste as Bare, compio::Taste as Compio, epoll::Memory as Epoll,
            monoio::Taste as Monoio,
        };
        use {ours::As, ours_tokio::Engine, tokio::Memory, tokio_uring::Taste as TokioUring};

        let ours =
            |sockets, handed_out, outlet| ours::Ours::start(sockets, shape, handed_out, outlet);
        let ours_tokio = |sockets, engine| ours_tokio::OursTokio::start(sockets, shape, engine);
        let bare = |sockets, taste, outlet| bare::Bare::start(sockets, shape, taste, outlet);
        let epoll = |sockets, memory, outlet| epoll::Epoll::start(sockets, shape, memory, outlet);
        let tokio = |sockets, memory, outlet| tokio::Tokio::start(sockets, shape, memory, outlet);
        let tokio_uring =
            |sockets, taste, outlet| tokio_uring::TokioUring::start(sockets, shape, taste, outlet);
        let compio = |sockets, taste, outlet| compio::Compio::start(sockets, shape, taste, outlet);
        let monoio = |sockets, taste, outlet| monoio::Monoio::start(sockets, shape, taste, outlet);
        Ok(match self {
            Self::Ours => Box::new(ours(sockets, As::Bytes, outlet)?),
            Self::OursInArena => Box::new(ours(sockets, As::ArenaBytes, outlet)?),
            Self::OursCompio => Box::new(ours_compio::OursCompio::start(sockets, shape, outlet)?),
            Self::OursTokio => Box::new(ours_tokio(sockets, Engine::Task)?),
            Self::OursTokioThread => Box::new(ours_tokio(sockets, Engine::Thread)?),
            Self::OursTokioBatch => Box::new(ours_tokio(sockets, Engine::Batch)?),
            Self::OursTokioUring => {
                Box::new(ours_tokio_uring::OursTokioUring::start(sockets, shape)?)
            }
            Self::OursMonoio => Box::new(ours_monoio::OursMonoio::start(sockets, shape)?),
            Self::Bare => Box::new(bare(sockets, Bare::Many, outlet)?),
            Self::BareOne => Box::new(bare(sockets, Bare::One, outlet)?),
            Self::BareCopied => Box::new(bare(sockets, Bare::Copied, outlet)?),
            Self::Epoll => {
                Box::new(epoll(sockets, Epoll::Shared(vec![0; shape.slot_bytes()]), outlet)?)
            }
            Self::EpollSplit => Box::new(epoll(sockets, Epoll::Split(BytesMut::new()), outlet)?),
            Self::Tokio => Box::new(tokio(sockets, Memory::PerConnection, outlet)?),
            Self::TokioShared => Box::new(tokio(sockets, Memory::Shared, outlet)?),
            Self::TokioUring => Box::new(tokio_uring(sockets, TokioUring::Fresh, outlet)?),
            Self::TokioUringDefault => {
                Box::new(tokio_uring(sockets, TokioUring::Defaults, outlet)?)
            }
            Self::TokioUringInPlace => Box::new(tokio_uring(sockets, TokioUring::InPlace, outlet)?),
            Self::TokioUringCopied => Box::new(tokio_uring(sockets, TokioUring::Copied, outlet)?),
            Self::Compio => Box::new(compio(sockets, Compio::InPlace, outlet)?),
            Self::CompioCopied => Box::new(compio(sockets, Compio::Copied, outlet)?),
            Self::CompioDefault => Box::new(compio(sockets, Compio::Defaults, outlet)?),
            Self::Monoio => Box::new(monoio(sockets, Monoio::Fresh, outlet)?),
            Self::MonoioDefault => Box::new(monoio(sockets, Monoio::Defaults, outlet)?),
            Self::MonoioInPlace => Box::new(monoio(sockets, Monoio::InPlace, outlet)?),
            Self::A10 => Box::new(a10::A10::start(sockets, shape, a10::Taste::Best, outlet)?),
            Self::A10Default => {
                Box::new(a10::A10::start(sockets, shape, a10::Taste::Defaults, outlet)?)
            }
        })
    }
}
