//! The sockets of a driver: connections, pipes and datagram sockets that it receives from, and
//! listeners.

mod complete;
mod connect;
mod socket;
mod sockets;

pub(super) use socket::Source;
pub(super) use sockets::Sockets;
