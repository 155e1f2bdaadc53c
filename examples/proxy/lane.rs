//! One direction of one connection.

use uring_arena::SocketId;

/// The messages that a lane holds before it is paused.
pub const LANE_MESSAGES: usize = 8;
/// The bytes that a lane holds before it is paused.
pub const LANE_BYTES: usize = 256 << 10;

/// A direction of a connection.
///
/// Each direction has its own arena and buffer ring. With a common one, a peer that reads nothing
/// until it has sent something could take the slots of the direction that it waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

pub const DIRECTIONS: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

impl Direction {
    pub fn other(self) -> Direction {
        match self {
            Direction::ToServer => Direction::ToClient,
            Direction::ToClient => Direction::ToServer,
        }
    }
}

/// One direction of one connection.
pub struct Lane {
    /// The socket that bytes are received from.
    pub from: SocketId,
    /// The socket that bytes are sent to.
    pub to: SocketId,
    /// The messages on their way.
    messages: usize,
    /// The bytes of these messages.
    bytes: usize,
    pub is_paused: bool,
    /// Nothing more is received.
    pub ended: bool,
}

impl Lane {
    pub fn new(from: SocketId, to: SocketId) -> Lane {
        Lane { from, to, messages: 0, bytes: 0, is_paused: false, ended: false }
    }

    /// Takes a message in. Returns `true` if the lane is to be paused.
    pub fn take_in(&mut self, bytes: usize) -> bool {
        self.messages += 1;
        self.bytes += bytes;
        let is_full = self.messages >= LANE_MESSAGES || self.bytes >= LANE_BYTES;
        is_full && !std::mem::replace(&mut self.is_paused, true)
    }

    /// Lets a message go. Returns `true` if the lane is to be resumed.
    pub fn let_go(&mut self, bytes: usize) -> bool {
        self.messages -= 1;
        self.bytes -= bytes;
        let has_room = self.messages <= LANE_MESSAGES / 2 && self.bytes <= LANE_BYTES / 2;
        has_room && std::mem::replace(&mut self.is_paused, false)
    }

    pub fn is_over(&self) -> bool {
        self.ended && self.messages == 0
    }
}

/// The two directions of a connection.
pub struct Connection {
    pub lanes: [Lane; 2],
    pub failure: Option<Failure>,
}

/// The failure of one of the two sockets of a connection.
pub struct Failure {
    /// The direction from the socket that failed. What came of it before is still sent on.
    pub last: Direction,
    pub since: std::time::Instant,
}
