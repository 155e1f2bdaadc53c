//! Connections to the server, made on a thread of their own.
//!
//! A `connect` may take as long as the network likes. Here any number of them wait at the same
//! time, and the thread of the relay waits for none.

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Waker;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};

/// The time that the server has to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client, and its connection to the server or the reason why there is none.
pub type Connected = (TcpStream, io::Result<TcpStream>);

/// The relay's end of the thread. Its drop ends the thread.
pub struct Connector {
    clients: Sender<TcpStream>,
    wake: PipeWriter,
    connected: Receiver<Connected>,
}

impl Connector {
    /// Starts the thread, which wakes `relay` for each connection that it has made.
    pub fn start(server: SocketAddr, relay: Waker) -> io::Result<Connector> {
        let (clients, requests) = channel();
        let (answers, connected) = channel();
        let (woken, wake) = io::pipe()?;
        let thread = Thread { server, requests, woken, answers, relay, pending: Vec::new() };
        std::thread::Builder::new().spawn(move || thread.run())?;
        Ok(Connector { clients, wake, connected })
    }

    /// Asks for a connection for `client`.
    pub fn connect(&mut self, client: TcpStream) -> io::Result<()> {
        self.clients.send(client).map_err(|_| io::Error::other("the connector ended"))?;
        // The pipe holds more bytes than a relay has clients, so this does not block.
        self.wake.write_all(&[0])
    }

    /// Takes a connection that was made, or that failed.
    pub fn next(&mut self) -> Option<Connected> {
        self.connected.try_recv().ok()
    }
}

struct Thread {
    server: SocketAddr,
    requests: Receiver<TcpStream>,
    /// Has a byte for each request.
    woken: PipeReader,
    answers: Sender<Connected>,
    relay: Waker,
    pending: Vec<Pending>,
}

/// A connection that the server has not accepted yet.
struct Pending {
    client: TcpStream,
    server: OwnedFd,
    until: Instant,
}

impl Thread {
    fn run(mut self) {
        // An error means that the relay is gone.
        while self.turn().is_ok() {}
    }

    fn turn(&mut self) -> io::Result<()> {
        let ready = self.wait()?;
        let now = Instant::now();
        for index in (0..self.pending.len()).rev() {
            let is_ready = ready[index + 1];
            if is_ready || now >= self.pending[index].until {
                let Pending { client, server, .. } = self.pending.swap_remove(index);
                let result = match is_ready {
                    true => error_of(&server).and_then(|()| to_stream(server)),
                    false => Err(ErrorKind::TimedOut.into()),
                };
                self.answer(client, result)?;
            }
        }
        if ready[0] {
            // A request is sent before its byte, so a byte that was read has its request.
            let mut bytes = [0; 256];
            let requests = self.woken.read(&mut bytes)?;
            if requests == 0 {
                return Err(ErrorKind::BrokenPipe.into());
            }
            for _ in 0..requests {
                let client = self.requests.recv().map_err(io::Error::other)?;
                self.begin(client)?;
            }
        }
        Ok(())
    }

    /// Waits for requests and for the server. Returns what is ready: the requests, then each of
    /// the pending connections.
    fn wait(&self) -> io::Result<Vec<bool>> {
        let mut polled = vec![PollFd::new(&self.woken, PollFlags::IN)];
        polled.extend(self.pending.iter().map(|one| PollFd::new(&one.server, PollFlags::OUT)));
        let first = self.pending.iter().map(|one| one.until).min();
        let left = first.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut polled, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {
                Ok(polled.iter().map(|one| !one.revents().is_empty()).collect())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn begin(&mut self, client: TcpStream) -> io::Result<()> {
        let family = if self.server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let server = match socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)) {
            Ok(server) => server,
            Err(error) => return self.answer(client, Err(error.into())),
        };
        match rustix::net::connect(&server, &self.server) {
            // A look for an error would take the error of a server that has reset already.
            Ok(()) => self.answer(client, to_stream(server)),
            Err(Errno::INPROGRESS) => {
                let until = Instant::now() + CONNECT_TIMEOUT;
                self.pending.push(Pending { client, server, until });
                Ok(())
            }
            Err(error) => self.answer(client, Err(error.into())),
        }
    }

    fn answer(&self, client: TcpStream, server: io::Result<TcpStream>) -> io::Result<()> {
        self.answers.send((client, server)).map_err(io::Error::other)?;
        self.relay.wake_by_ref();
        Ok(())
    }
}

/// Returns the error of a connect that is over.
fn error_of(server: &OwnedFd) -> io::Result<()> {
    Ok(sockopt::socket_error(server)??)
}

/// Makes an ordinary stream of a socket that is connected.
fn to_stream(server: OwnedFd) -> io::Result<TcpStream> {
    let server = TcpStream::from(server);
    server.set_nonblocking(false)?;
    // Messages go on at once: neither peer waits for an acknowledgement that the proxy delays.
    server.set_nodelay(true)?;
    // The kernel finds out about peers that are gone without a word.
    sockopt::set_socket_keepalive(&server, true)?;
    Ok(server)
}
