//! How many connections, and how long a message.

use crate::harness::Effort;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub connections: usize,
    pub message_bytes: usize,
}

impl Shape {
    /// Those that the part goes through.
    pub fn all(effort: Effort) -> Vec<Self> {
        let shape = |connections, message_bytes| Self { connections, message_bytes };
        let quick = vec![shape(64, 512), shape(512, 512)];
        let lengths = [512, 4096, 16384];
        let full =
            [1, 64, 512].into_iter().flat_map(|count| lengths.map(|bytes| shape(count, bytes)));
        effort.choose(quick, full.collect())
    }

    /// Room for one whole message, and never less than a page.
    pub fn slot_bytes(self) -> usize {
        self.message_bytes.max(4096)
    }

    pub fn key(self) -> String {
        format!("{}x{}", self.connections, self.message_bytes)
    }

    pub fn parse(key: &str) -> Option<Self> {
        let (connections, message_bytes) = key.split_once('x')?;
        Some(Self {
            connections: connections.parse().ok()?,
            message_bytes: message_bytes.parse().ok()?,
        })
    }

    pub fn title(self) -> String {
        let plural = if self.connections == 1 { "" } else { "s" };
        format!("{} connection{plural} × {} B", self.connections, self.message_bytes)
    }
}
