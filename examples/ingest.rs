//! A socket written to an `O_DIRECT` file, from the slots that its bytes were received into.
//!
//! Reads from the socket fill one slot; when the slot is full, the disk takes it from there while
//! the next one fills. The program copies no byte, and the page cache is not used. At the end the
//! file is read back and its checksum compared.
//!
//! No file is made or emptied before a sender has come. If something fails later, the file keeps
//! the part of the stream that was written before.
//!
//! ```text
//! cargo run --release --example ingest                                  # sends itself 1 GiB
//! cargo run --release --example ingest -- --listen 127.0.0.1:9000 FILE
//! nc -N 127.0.0.1 9000 < OTHER                                          # in another shell
//! ```

#[path = "ingest/options.rs"]
mod options;
#[path = "ingest/sender.rs"]
mod sender;
mod support;
#[path = "ingest/target.rs"]
mod target;

use std::error::Error;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::BufMut;
use options::Options;
use sender::Sender;
use support::{Warning, check_all_free, exact_bytes, mistake, say};
use target::Target;
use uring_arena::{Buffer, Driver, Event, FileId, FixedArena, OperationId};

/// An alignment that every `O_DIRECT` device accepts.
///
/// The last write is padded to it, and the file is cut to its length afterwards.
const STEP: usize = 4096;

fn main() -> ExitCode {
    support::run(Options::parse, ingest)
}

fn ingest(options: &Options) -> Result<(), Box<dyn Error>> {
    support::need_descriptors(32)?;
    let listener = support::listen(options.listen.as_deref().unwrap_or("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let mut target = Target::check(options)?;
    let arena = FixedArena::with_slot_capacity(options.slots, options.slot_bytes)
        .alignment(STEP)
        .build()?;
    let mut senders = Senders::new(&arena, listener)?;
    let own_sender = match options.listen {
        Some(_) => {
            say!("listening on {address}");
            None
        }
        None => Some(Sender::start(address, options.bytes)),
    };
    let socket = senders.first()?;
    let file = target.open()?;
    if own_sender.is_some() {
        // A write that grows a file holds the inode's lock alone, and the kernel's workers spin
        // for it. So the room is reserved where the length is known.
        target.reserve(&file, options.bytes)?;
    }

    let bar = support::progress(options.bytes);
    let (started, cpu_before) = (Instant::now(), support::thread_cpu());
    let mut ingest = Ingest::new(senders, socket, file.try_clone()?)?;
    let ended = ingest.run(|bytes| bar.set_position(bytes));
    bar.finish_and_clear();
    let len = ingest.written();
    let cut = file.set_len(len).map_err(Into::into);
    if let Err(error) = ended.and(cut) {
        return Err(mistake(format!("{error}; {}", target.left_behind(len))));
    }
    let (time, cpu) = (started.elapsed(), support::thread_cpu() - cpu_before);

    say!("received   {}", exact_bytes(len));
    say!("rate       {}", support::rate(len, time));
    say!("CPU        {}", support::cpu_per_gb(len, cpu, "receiver"));
    check_all_free(&arena, 0)?;
    let written = support::read_checksum(File::open(support::path_of(&file))?, u64::MAX)?;
    match own_sender.map(Sender::finish).transpose()? {
        None => say!("wrote {written}"),
        Some(sent) if sent == written => say!("verified {written}"),
        Some(sent) => return Err(mistake(format!("sent {sent}, but the file has {written}"))),
    }
    Ok(())
}

/// The driver, and its listener: the first sender is taken, all others are refused.
struct Senders {
    driver: Driver,
    arena: FixedArena,
    first: Option<SocketAddr>,
    refusals: Warning,
}

impl Senders {
    fn new(arena: &FixedArena, listener: TcpListener) -> Result<Senders, Box<dyn Error>> {
        let mut driver = Driver::builder().build()?;
        driver.register(arena)?;
        driver.accept(listener)?;
        Ok(Senders { driver, arena: arena.clone(), first: None, refusals: Warning::default() })
    }

    /// Waits for the first sender.
    fn first(&mut self) -> Result<TcpStream, Box<dyn Error>> {
        loop {
            self.driver.wait()?;
            match self.driver.next() {
                Some(Event::Accepted { socket, .. }) => {
                    let socket = TcpStream::from(socket);
                    // A sender that has gone already is found out by the first read.
                    self.first = socket.peer_addr().ok();
                    return Ok(socket);
                }
                Some(Event::AcceptFailed { error, .. }) => {
                    self.refusals.print(format_args!("the sender waits: {error}"));
                }
                Some(Event::Closed { error, .. }) => {
                    let reason = error.map_or("the listener was closed".into(), |e| e.to_string());
                    return Err(mistake(format!("waiting for a sender: {reason}")));
                }
                _ => {}
            }
        }
    }

    /// Refuses those that came too late to be noticed, and ends the driver.
    fn finish(&mut self) -> Result<(), Box<dyn Error>> {
        self.driver.poll_now()?;
        while let Some(event) = self.driver.next() {
            if let Event::Accepted { socket, .. } = event {
                self.refuse(socket.into());
            }
        }
        self.driver.drain(Duration::from_secs(10))?;
        Ok(())
    }

    /// Resets a further sender, and says so.
    fn refuse(&mut self, socket: TcpStream) {
        let name = |peer: Option<SocketAddr>| peer.map_or("?".into(), |peer| peer.to_string());
        let (peer, first) = (name(socket.peer_addr().ok()), name(self.first));
        self.refusals.print(format_args!(
            "refused a second sender, {peer}: the file is of {first} alone; start another ingest for it"
        ));
        // The sender is told by a reset. An error means that it has gone already.
        let _ = rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
    }
}

struct Ingest {
    senders: Senders,
    socket: FileId,
    file: FileId,
    reading: Option<OperationId>,
    /// Nothing more is received.
    ended: bool,
    /// The number of bytes received.
    len: u64,
    /// The offset of the next write.
    offset: u64,
    /// The number of writes in flight.
    writes: usize,
    /// The offset of the first byte that could not be written.
    whole_to: u64,
    /// The first failure.
    failure: Option<String>,
}

impl Ingest {
    fn new(mut senders: Senders, socket: TcpStream, file: File) -> Result<Ingest, Box<dyn Error>> {
        let (socket, file) = (senders.driver.add_file(socket)?, senders.driver.add_file(file)?);
        Ok(Ingest {
            senders,
            socket,
            file,
            reading: None,
            ended: false,
            len: 0,
            offset: 0,
            writes: 0,
            whole_to: u64::MAX,
            failure: None,
        })
    }

    /// Returns the number of bytes from the start of the stream that the file has.
    fn written(&self) -> u64 {
        self.len.min(self.whole_to)
    }

    /// Writes the whole stream to the file.
    ///
    /// `report` is called with the number of bytes received so far. After a failure, what was
    /// received before is written too.
    fn run(&mut self, mut report: impl FnMut(u64)) -> Result<(), Box<dyn Error>> {
        while !self.ended || self.reading.is_some() || self.writes > 0 {
            // One read at a time keeps the bytes in order. If no slot is free, the next write that
            // completes frees one.
            if self.reading.is_none()
                && !self.ended
                && let Ok(buffer) = self.senders.arena.allocate()
            {
                self.read(buffer)?;
            }
            self.senders.driver.wait()?;
            while let Some(event) = self.senders.driver.next() {
                match event {
                    Event::Read { result, buffer, .. } => self.received(result, buffer)?,
                    Event::Wrote { offset, result, payload, .. } => {
                        self.wrote(offset, result, payload.as_ref().len());
                    }
                    Event::Accepted { socket, .. } => self.senders.refuse(socket.into()),
                    _ => {}
                }
            }
            report(self.len);
        }
        self.senders.finish()?;
        self.failure.take().map_or(Ok(()), |failure| Err(mistake(failure)))
    }

    fn received(
        &mut self,
        result: io::Result<usize>,
        buffer: Buffer,
    ) -> Result<(), Box<dyn Error>> {
        self.reading = None;
        match result {
            Ok(0) => self.ended = true,
            Ok(read) => self.len += read as u64,
            Err(error) => self.fail(format!("receiving: {error}")),
        }
        if !self.ended && buffer.len() < buffer.capacity() {
            self.read(buffer)
        } else if !buffer.is_empty() && self.whole_to == u64::MAX {
            self.write(buffer)
        } else {
            Ok(())
        }
    }

    fn wrote(&mut self, offset: u64, result: io::Result<usize>, len: usize) {
        self.writes -= 1;
        let reason = match result {
            Ok(written) if written == len => return,
            Ok(written) => format!("the disk took {written} of {len} bytes at offset {offset}"),
            Err(error) => format!("writing at offset {offset}: {error}"),
        };
        self.whole_to = self.whole_to.min(offset);
        self.fail(reason);
    }

    /// Takes note of a failure, and ends the stream.
    fn fail(&mut self, reason: String) {
        self.failure.get_or_insert(reason);
        self.ended = true;
        if let Some(reading) = self.reading {
            // An error means that the read is over, and its event is to be taken.
            let _ = self.senders.driver.cancel_operation(reading);
        }
    }

    fn read(&mut self, buffer: Buffer) -> Result<(), Box<dyn Error>> {
        self.reading = Some(self.senders.driver.read(self.socket, buffer, 0)?);
        Ok(())
    }

    fn write(&mut self, mut buffer: Buffer) -> Result<(), Box<dyn Error>> {
        let padding = buffer.len().next_multiple_of(STEP) - buffer.len();
        buffer.put_bytes(0, padding);
        let len = buffer.len() as u64;
        self.senders.driver.write(self.file, buffer, self.offset)?;
        self.offset += len;
        self.writes += 1;
        Ok(())
    }
}
