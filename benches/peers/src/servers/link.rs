//! One connection over a link with a delay: sends that are pipelined, beside `write_all`.
//!
//! The link is a TUN device in a network namespace of its own. What is sent to its far address
//! comes back to the near one after the delay.

use std::collections::VecDeque;
use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use uring_arena::tokio::{Engine, Pool};
use uring_arena::{FixedArena, SendOptions};

const NEAR: &str = "10.9.0.1";
const FAR: &str = "10.9.0.2";
const FRAME_BYTES: usize = 64 << 10;

/// The ways of sending, each with its engine. The first is plain tokio's.
const WAYS: [(&str, Option<Engine>); 7] = [
    ("write_all, tokio", None),
    ("write_all", Some(Engine::Readiness)),
    ("send", Some(Engine::Readiness)),
    ("write_all", Some(Engine::Ring)),
    ("send", Some(Engine::Ring)),
    ("send, zero-copy", Some(Engine::Ring)),
    ("send, copied", Some(Engine::Ring)),
];

/// Measures in a network namespace of its own. The words: seconds of each run (`seconds=3`), round
/// trip in milliseconds (`rtt=20`), room of a connection's queue in KiB (`room=1024`).
pub fn link(words: &[&str]) -> io::Result<()> {
    let mut command = Command::new("unshare");
    command.arg("-n").arg(env::current_exe()?).arg("link-inside").args(words);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        _ => {
            println!("SKIPPED: no network namespace or no TUN device can be made here");
            Ok(())
        }
    }
}

/// Measures inside of the namespace.
pub fn link_inside(words: &[&str]) -> io::Result<()> {
    let number = |name: &str, default: f64| {
        let given = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        given.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let delay = Duration::from_secs_f64(number("rtt", 20.0) / 2000.0);
    reflect(tun()?, delay);
    let time = Duration::from_secs_f64(number("seconds", 3.0));
    let room = number("room", 1024.0) as usize * 1024;
    println!("| way | engine | MB/s | ÷ tokio's `write_all` |");
    println!("|---|---|--:|--:|");
    let mut first = 0.0;
    for (way, engine) in WAYS {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let rate = runtime.block_on(run(way, engine, time, room))?;
        first = if engine.is_none() { rate } else { first };
        let engine = engine.map_or("–".into(), |engine| engine.to_string());
        println!("| {way} | {engine} | {rate:.1} | {:.3} |", rate / first);
    }
    Ok(())
}

/// Sends for a time. Returns the megabytes that arrived a second.
async fn run(way: &str, engine: Option<Engine>, time: Duration, room: usize) -> io::Result<f64> {
    let listener = TcpListener::bind((NEAR, 0)).await?;
    let mut near = TcpStream::connect((FAR, listener.local_addr()?.port())).await?;
    let mut far = listener.accept().await?.0;
    let reading = tokio::spawn(async move {
        let (mut room, mut bytes) = (vec![0; 1 << 20], 0);
        while let Ok(read) = far.read(&mut room).await {
            if read == 0 {
                break;
            }
            bytes += read;
        }
        bytes
    });
    let arena = FixedArena::new(64, FRAME_BYTES).map_err(io::Error::other)?;
    let mut frame = arena.allocate().map_err(io::Error::other)?;
    frame.put_bytes(1, FRAME_BYTES);
    let frame: Bytes = frame.freeze();
    let begin = Instant::now();
    match engine {
        None => {
            while begin.elapsed() < time {
                near.write_all(&frame).await?;
            }
            near.shutdown().await?;
        }
        Some(engine) => {
            let builder = Pool::builder(arena).engine(engine).send_bytes_max(room);
            let mut stream = builder.build()?.stream(near)?;
            while begin.elapsed() < time {
                match way {
                    "send" => stream.send(frame.clone()).await?,
                    "send, zero-copy" | "send, copied" => {
                        let from = if way == "send, copied" { usize::MAX } else { 1 };
                        let options = SendOptions::new().zero_copy_from(from);
                        stream.write_half().send_with(frame.clone(), options).await?;
                    }
                    _ => stream.write_all(&frame).await?,
                }
            }
            stream.shutdown().await?;
            return rate(reading, begin).await;
        }
    }
    rate(reading, begin).await
}

async fn rate(reading: tokio::task::JoinHandle<usize>, begin: Instant) -> io::Result<f64> {
    let bytes = reading.await.map_err(io::Error::other)?;
    Ok(bytes as f64 / 1e6 / begin.elapsed().as_secs_f64())
}

/// Makes the device, and sets it up.
fn tun() -> io::Result<File> {
    const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
    const IFF_TUN: i16 = 1;
    const IFF_NO_PI: i16 = 0x1000;
    /// The kernel's `struct ifreq`, as far as this request reads it.
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: i16,
        rest: [u8; 22],
    }

    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let mut request = Request { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    request.name[..4].copy_from_slice(b"tun0");
    // SAFETY: the request is live during the call, and as large as the kernel's.
    if unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let set_up = format!(
        "ip link set lo up; ip addr add {NEAR}/24 dev tun0; ip link set tun0 txqueuelen 20000 mtu 9000 up"
    );
    match Command::new("sh").args(["-ec", &set_up]).status()?.success() {
        true => Ok(device),
        false => Err(io::Error::other("`ip` did not set the device up")),
    }
}

/// Gives each packet back to its sender after a delay, with its addresses exchanged.
fn reflect(mut device: File, delay: Duration) {
    let (sender, packets) = channel();
    let back = device.try_clone();
    thread::spawn(move || {
        let mut packet = vec![0; 65536];
        while let Ok(len) = device.read(&mut packet) {
            // IPv4 alone: source and destination are its bytes from 12 on.
            if len < 20 || packet[0] >> 4 != 4 {
                continue;
            }
            let mut packet = packet[..len].to_vec();
            let (source, rest) = packet[12..20].split_at_mut(4);
            source.swap_with_slice(rest);
            if sender.send((Instant::now() + delay, packet)).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || give_back(back.ok()?, &packets).ok());
}

fn give_back(mut device: File, packets: &Receiver<(Instant, Vec<u8>)>) -> io::Result<()> {
    let mut queue: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    loop {
        let now = Instant::now();
        while queue.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, packet)) = queue.pop_front() {
                // A packet may be refused: it is lost, as on any link.
                let _ = device.write(&packet);
            }
        }
        let wait = queue.front().map_or(Duration::from_secs(1), |(due, _)| *due - now);
        match packets.recv_timeout(wait) {
            Ok(packet) => queue.push_back(packet),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}
