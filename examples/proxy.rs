//! A TCP proxy that sends bytes on from the slots that they were received into.
//!
//! The program copies no received byte, except short messages, and what waits while half of the
//! slots wait already. A client that does not read, or resets, or sends a byte at a time costs the
//! other clients nothing: `relay.rs` says by what. Sends above a threshold are zero-copy where the
//! kernel allows it.
//!
//! ```text
//! cargo run --release --example proxy                                   # verifies itself
//! cargo run --release --example proxy -- --listen 127.0.0.1:8080 --to 127.0.0.1:80
//! ```

#[path = "proxy/connector.rs"]
mod connector;
#[path = "proxy/lane.rs"]
mod lane;
#[path = "proxy/options.rs"]
mod options;
#[path = "proxy/relay.rs"]
mod relay;
mod support;
#[path = "proxy/traffic.rs"]
mod traffic;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use options::Options;
use relay::{DESCRIPTORS_PER_CLIENT, Relay};
use support::{exact_bytes, mistake, say};
use traffic::Traffic;

fn main() -> ExitCode {
    support::run(Options::parse, |options| match (&options.listen, options.to) {
        (Some(listen), Some(to)) => serve(options, listen, to),
        _ => verify(options),
    })
}

/// Proxies clients of other programs until the process is stopped.
fn serve(options: &Options, listen: &str, to: SocketAddr) -> Result<(), Box<dyn Error>> {
    let listener = support::listen(listen)?;
    let address = listener.local_addr()?;
    let is_local = to.ip() == address.ip() || to.ip().is_unspecified() || to.ip().is_loopback();
    if to.port() == address.port() && is_local {
        return Err(mistake(format!(
            "--to {to}: the proxy itself listens there, on {address}; give the address of a server"
        )));
    }
    let clients = clients_max(options.clients)?;
    let mut relay = Relay::new(options, listener, to, clients)?;
    say!("listening on {address}, for {to}");
    loop {
        relay.turn(None)?;
    }
}

/// Returns the number of clients that there are descriptors for, at most `wanted`.
fn clients_max(wanted: usize) -> Result<usize, Box<dyn Error>> {
    /// The descriptors of the program itself, and of connections on their way out.
    const RESERVE: usize = 24;

    let limit = support::raise_descriptors((wanted * DESCRIPTORS_PER_CLIENT + RESERVE) as u64);
    let clients = (limit as usize).saturating_sub(RESERVE) / DESCRIPTORS_PER_CLIENT;
    if clients == 0 {
        let needed = RESERVE + DESCRIPTORS_PER_CLIENT;
        return Err(mistake(format!(
            "{limit} file descriptors are allowed, and one client needs {needed}: raise the limit (`ulimit -Hn`)"
        )));
    }
    if clients < wanted {
        support::warn(format_args!(
            "{clients} clients at a time, not {wanted}: {limit} file descriptors are allowed (`ulimit -Hn`)"
        ));
    }
    Ok(clients.min(wanted))
}

/// Proxies clients of its own to an echo server of its own, and compares every byte.
fn verify(options: &Options) -> Result<(), Box<dyn Error>> {
    support::need_descriptors(8 * options.connections as u64 + 64)?;
    let (listener, server) = (support::listen("127.0.0.1:0")?, support::listen("127.0.0.1:0")?);
    let (address, to) = (listener.local_addr()?, server.local_addr()?);
    let mut relay = Relay::new(options, listener, to, options.connections)?;
    let traffic = Traffic::start(server, address, options.connections, options.bytes)?;

    let bar = support::progress(2 * options.bytes);
    let (started, cpu_before) = (Instant::now(), support::thread_cpu());
    let mut clients_ended = None;
    while relay.tally().over < options.connections {
        relay.turn(Some(Duration::from_millis(100)))?;
        bar.set_position(relay.tally().bytes);
        // A client that failed may leave nothing to the relay.
        if traffic.is_over()
            && clients_ended.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(5)
        {
            break;
        }
    }
    let (time, cpu) = (started.elapsed(), support::thread_cpu() - cpu_before);
    bar.finish_and_clear();
    let (bytes, tally) = (traffic.finish()?, relay.tally());
    say!("rate       {}, both directions", support::rate(tally.bytes, time));
    say!("CPU        {}", support::cpu_per_gb(tally.bytes, cpu, "proxy"));
    say!(
        "sends      {}, {} of them zero-copy; the kernel copied {} of these",
        tally.sends,
        tally.zero_copy,
        tally.zero_copy_copied
    );
    relay.finish()?;
    if tally.bytes != 2 * bytes {
        return Err(mistake(format!(
            "{} passed through, but {} were sent",
            exact_bytes(tally.bytes),
            exact_bytes(2 * bytes)
        )));
    }
    say!(
        "verified {} in each direction on {} connections",
        exact_bytes(bytes),
        options.connections
    );
    Ok(())
}
