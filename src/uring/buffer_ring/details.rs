//! The details of each datagram that a socket is asked for.

use std::io;
use std::os::fd::AsFd;

use crate::uring::kernel::{SocketOption, set_number, socket_domain};

/// The details of datagrams that a socket is asked for, beside bytes and sender.
///
/// They come with each datagram that is received into a ring which has room for them
/// ([`BufferRingOptions::datagram_details`](crate::BufferRingOptions::datagram_details)).
///
/// ```
/// use std::net::UdpSocket;
/// use uring_arena::DatagramDetails;
///
/// let socket = UdpSocket::bind("0.0.0.0:0")?;
/// DatagramDetails::new().destination().ecn().drops().enable(&socket)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[must_use = "details are not asked for until `enable`"]
pub struct DatagramDetails {
    destination: bool,
    segments: bool,
    ecn: bool,
    timestamps: bool,
    drops: bool,
}

impl DatagramDetails {
    /// Asks for nothing.
    pub fn new() -> DatagramDetails {
        DatagramDetails::default()
    }

    /// Asks for the address that a datagram was sent to, and the interface that it came by
    /// (`IP_PKTINFO`, `IPV6_RECVPKTINFO`): [`Datagram::to`](crate::Datagram::to).
    ///
    /// A server that is bound to all addresses answers from that one.
    ///
    /// ```
    /// let details = uring_arena::DatagramDetails::new().destination();
    /// # let _ = details;
    /// ```
    pub fn destination(mut self) -> DatagramDetails {
        self.destination = true;
        self
    }

    /// Lets several datagrams of one sender come as one message (`UDP_GRO`, Linux 5.0):
    /// [`Datagram::segment_bytes`](crate::Datagram::segment_bytes) is the length of each.
    ///
    /// A slot should then have room for 64 KiB.
    ///
    /// ```
    /// let details = uring_arena::DatagramDetails::new().segments();
    /// # let _ = details;
    /// ```
    pub fn segments(mut self) -> DatagramDetails {
        self.segments = true;
        self
    }

    /// Asks for the bits of explicit congestion notification:
    /// [`Datagram::ecn`](crate::Datagram::ecn).
    ///
    /// ```
    /// let details = uring_arena::DatagramDetails::new().ecn();
    /// # let _ = details;
    /// ```
    pub fn ecn(mut self) -> DatagramDetails {
        self.ecn = true;
        self
    }

    /// Asks for the time when the kernel received a datagram (`SO_TIMESTAMPNS`):
    /// [`Datagram::timestamp`](crate::Datagram::timestamp).
    ///
    /// ```
    /// let details = uring_arena::DatagramDetails::new().timestamps();
    /// # let _ = details;
    /// ```
    pub fn timestamps(mut self) -> DatagramDetails {
        self.timestamps = true;
        self
    }

    /// Asks how many datagrams the socket has dropped for want of room (`SO_RXQ_OVFL`):
    /// [`Datagram::dropped`](crate::Datagram::dropped).
    ///
    /// ```
    /// let details = uring_arena::DatagramDetails::new().drops();
    /// # let _ = details;
    /// ```
    pub fn drops(mut self) -> DatagramDetails {
        self.drops = true;
        self
    }

    /// Asks a socket for the details, from its next datagram on.
    ///
    /// # Errors
    ///
    /// The kernel's error: `ENOPROTOOPT` or `EOPNOTSUPP` for a detail that this kind of socket does
    /// not have.
    ///
    /// The example of [`DatagramDetails`] shows it.
    pub fn enable(self, socket: &impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd();
        let is_v6 = socket_domain(socket) == Some(libc::AF_INET6);
        let options: [(bool, SocketOption); 7] = [
            (self.destination && !is_v6, (libc::IPPROTO_IP, libc::IP_PKTINFO)),
            (self.destination && is_v6, (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)),
            // Of IPv4 datagrams, which a socket of IPv6 may receive too.
            (self.ecn, (libc::IPPROTO_IP, libc::IP_RECVTOS)),
            (self.ecn && is_v6, (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)),
            (self.segments, (libc::SOL_UDP, crate::uring::kernel::UDP_GRO)),
            (self.timestamps, (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)),
            (self.drops, (libc::SOL_SOCKET, libc::SO_RXQ_OVFL)),
        ];
        options
            .iter()
            .filter(|(is_wanted, _)| *is_wanted)
            .try_for_each(|&(_, option)| set_number(socket, option, 1))
    }
}
