//! The datagram socket of a pool, as quinn's endpoints take it.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use uring_arena::tokio::{DatagramSender, Datagrams};
use uring_arena::{Datagram, Destination};

/// The most datagrams that go out as one.
const SEGMENTS_MAX: usize = 10;

/// The most datagrams that come as one, where slots have room for 64 KiB.
const RECEIVE_SEGMENTS_MAX: usize = 64;

/// The error number of a device that cannot cut a message into segments (`EIO`).
const NO_SEGMENTS: i32 = 5;

/// A datagram socket of a pool that quinn receives from and sends on.
///
/// quinn brings memory of its own for what is received, so each datagram is copied out of its slot.
pub struct PoolSocket {
    receiving: Mutex<Receiving>,
    sender: DatagramSender,
    address: SocketAddr,
    receive_segments: usize,
    /// 1 once the kernel has refused a segmented send.
    send_segments: AtomicUsize,
}

struct Receiving {
    datagrams: Datagrams,
    batch: Vec<Datagram<Bytes>>,
}

impl PoolSocket {
    /// Makes a socket for quinn of one whose slots have so many bytes.
    pub fn new(datagrams: Datagrams, slot_bytes: usize) -> io::Result<PoolSocket> {
        Ok(PoolSocket {
            sender: datagrams.sender().clone(),
            address: datagrams.local_addr()?,
            receive_segments: if slot_bytes >= 1 << 16 { RECEIVE_SEGMENTS_MAX } else { 1 },
            send_segments: AtomicUsize::new(SEGMENTS_MAX),
            receiving: Mutex::new(Receiving { datagrams, batch: Vec::new() }),
        })
    }

    /// Sends each segment of a message alone.
    fn send_segments(&self, transmit: &Transmit<'_>, bytes: usize) -> io::Result<()> {
        // One that does not go out now is lost, as on any network.
        let mut segments = transmit.contents.chunks(bytes);
        segments.try_for_each(|segment| self.sender.try_send_to(segment, destination(transmit)))
    }
}

/// Returns the destination of a message, and the address that it is to come from.
fn destination(transmit: &Transmit<'_>) -> Destination {
    let mut destination = Destination::from(transmit.destination);
    if let Some(source) = transmit.src_ip {
        destination = destination.source(source);
    }
    match transmit.ecn {
        Some(mark) => destination.ecn(mark as u8),
        None => destination,
    }
}

impl AsyncUdpSocket for PoolSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { sender: self.sender.clone(), waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(bytes) = transmit.segment_size.filter(|&bytes| bytes < transmit.contents.len())
        else {
            return self.sender.try_send_to(transmit.contents, destination(transmit));
        };
        if self.send_segments.load(Ordering::Relaxed) == 1 {
            return self.send_segments(transmit, bytes);
        }
        let to = destination(transmit).segments(bytes as u16);
        match self.sender.try_send_to(transmit.contents, to) {
            Err(error) if error.raw_os_error() == Some(NO_SEGMENTS) => {
                self.send_segments.store(1, Ordering::Relaxed);
                self.send_segments(transmit, bytes)
            }
            sent => sent,
        }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut receiving = self.receiving.lock().expect("no task panics with it");
        let Receiving { datagrams, batch } = &mut *receiving;
        let limit = buffers.len().min(meta.len());
        loop {
            ready!(datagrams.poll_recv_many(context, batch, limit))?;
            let mut count = 0;
            // What was cut is no datagram of QUIC.
            for datagram in batch.drain(..).filter(|datagram| !datagram.is_truncated) {
                let Some(from) = datagram.from else { continue };
                let len = datagram.bytes.len().min(buffers[count].len());
                buffers[count][..len].copy_from_slice(&datagram.bytes[..len]);
                meta[count] = RecvMeta {
                    addr: from,
                    len,
                    stride: datagram.segment_bytes().map_or(len, usize::from),
                    ecn: datagram.ecn().and_then(EcnCodepoint::from_bits),
                    dst_ip: datagram.to(),
                };
                count += 1;
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn max_transmit_segments(&self) -> usize {
        self.send_segments.load(Ordering::Relaxed)
    }

    fn max_receive_segments(&self) -> usize {
        self.receive_segments
    }
}

impl fmt::Debug for PoolSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolSocket").field("address", &self.address).finish_non_exhaustive()
    }
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// The wish of one connection to send.
struct Poller {
    sender: DatagramSender,
    waiting: Option<Waiting>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let sender = &this.sender;
        let waiting = this.waiting.get_or_insert_with(|| {
            let sender = sender.clone();
            Box::pin(async move { sender.writable().await })
        });
        let result = ready!(waiting.as_mut().poll(context));
        this.waiting = None;
        Poll::Ready(result)
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}
