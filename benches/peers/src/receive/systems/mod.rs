//! The systems that receive, one file each, with the best settings that their documentation names.

mod a10;
mod bare;
mod compio;
mod epoll;
mod monoio;
mod ours;
mod ours_compio;
mod tokio;
mod tokio_uring;

use std::io;
use std::net::TcpStream;

use crate::report::OURS;

use super::Shape;
use super::lockstep::Receiver;

/// One line of the tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum System {
    Ours,
    OursInArena,
    OursCompio,
    Epoll,
    Tokio,
    TokioShared,
    TokioUring,
    Compio,
    CompioCopied,
    CompioDefault,
    Monoio,
    A10,
    BareOne,
    Bare,
}

impl System {
    pub const ALL: [Self; 14] = [
        Self::Ours,
        Self::OursInArena,
        Self::OursCompio,
        Self::Bare,
        Self::BareOne,
        Self::Epoll,
        Self::Tokio,
        Self::TokioShared,
        Self::TokioUring,
        Self::Compio,
        Self::CompioCopied,
        Self::CompioDefault,
        Self::Monoio,
        Self::A10,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => OURS,
            Self::OursInArena => "uring-arena, ArenaBytes",
            Self::OursCompio => "uring-arena on compio",
            Self::Bare => "bare io_uring",
            Self::BareOne => "bare io_uring, waits for one",
            Self::Epoll => "epoll + read",
            Self::Tokio => "tokio + BytesMut",
            Self::TokioShared => "tokio, one shared buffer",
            Self::TokioUring => "tokio-uring + BytesMut",
            Self::Compio => "compio read_multi",
            Self::CompioCopied => "compio read_multi + copy",
            Self::CompioDefault => "compio read_multi, defaults",
            Self::Monoio => "monoio + BytesMut",
            Self::A10 => "a10 multishot_recv + from_owner",
        }
    }

    pub fn note(self) -> &'static str {
        match self {
            Self::Ours => "`Driver`, 1024 slots; a `Bytes` that may leave the thread",
            Self::OursInArena => "the same, without the heap",
            Self::OursCompio => {
                "`ReceiveRing` on compio's runtime, DEFER_TASKRUN; a `Bytes` that may leave the thread"
            }
            Self::Bare => {
                "multishot, buffer ring, DEFER_TASKRUN, waits for many with a timeout; hands nothing out"
            }
            Self::BareOne => "the same loop, woken by the first message",
            Self::Epoll => "level-triggered, one buffer; hands nothing out",
            Self::Tokio => {
                "current-thread runtime; a `BytesMut` per connection, `reserve`, `read_buf`, `split().freeze()`"
            }
            Self::TokioShared => "`readable`, then `try_read` into one buffer; hands nothing out",
            Self::TokioUring => "COOP_TASKRUN; a fresh `BytesMut` per read, frozen",
            Self::Compio => "DEFER_TASKRUN, 1024 buffers; the buffer cannot leave the thread",
            Self::CompioCopied => "the same, and a `Bytes` by copying",
            Self::CompioDefault => "8 buffers of 8 KiB, as it comes; armed again after each refusal",
            Self::Monoio => "COOP_TASKRUN; a fresh `BytesMut` per read, frozen",
            Self::A10 => "SINGLE_ISSUER, DEFER_TASKRUN; a `Bytes` that may leave the thread",
        }
    }

    /// The kernel receives inside the drain, so the drain alone may be compared.
    pub fn receives_in_drain(self) -> bool {
        !matches!(self, Self::TokioUring | Self::Monoio | Self::CompioDefault)
    }

    /// A second setting of a system that has another line: not needed under `--quick`.
    pub fn is_variant(self) -> bool {
        matches!(self, Self::BareOne | Self::TokioShared | Self::CompioCopied | Self::CompioDefault)
    }

    pub fn key(self) -> String {
        format!("{self:?}")
    }

    pub fn parse(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|system| system.key() == key)
    }

    /// Takes the receiving ends and arms them all.
    pub fn start(self, sockets: Vec<TcpStream>, shape: Shape) -> io::Result<Box<dyn Receiver>> {
        Ok(match self {
            Self::Ours => Box::new(ours::Ours::start(sockets, shape, ours::As::Bytes)?),
            Self::OursInArena => Box::new(ours::Ours::start(sockets, shape, ours::As::ArenaBytes)?),
            Self::OursCompio => Box::new(ours_compio::OursCompio::start(sockets, shape)?),
            Self::Bare => Box::new(bare::Bare::start(sockets, shape, bare::Wait::Many)?),
            Self::BareOne => Box::new(bare::Bare::start(sockets, shape, bare::Wait::One)?),
            Self::Epoll => Box::new(epoll::Epoll::start(sockets, shape)?),
            Self::Tokio => Box::new(tokio::Tokio::start(sockets, shape, tokio::Memory::PerConnection)?),
            Self::TokioShared => Box::new(tokio::Tokio::start(sockets, shape, tokio::Memory::Shared)?),
            Self::TokioUring => Box::new(tokio_uring::TokioUring::start(sockets, shape)?),
            Self::Compio => Box::new(compio::Compio::start(sockets, shape, compio::Taste::InPlace)?),
            Self::CompioCopied => Box::new(compio::Compio::start(sockets, shape, compio::Taste::Copied)?),
            Self::CompioDefault => Box::new(compio::Compio::start(sockets, shape, compio::Taste::Defaults)?),
            Self::Monoio => Box::new(monoio::Monoio::start(sockets, shape)?),
            Self::A10 => Box::new(a10::A10::start(sockets, shape)?),
        })
    }
}
