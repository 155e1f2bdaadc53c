//! A TCP proxy that sends bytes on from the slots that they were received into.
//!
//! The program copies no received byte, except short messages. A peer that does not read keeps the
//! slots of its connection in use; when no slot is left, the senders wait. Sends above a threshold
//! are zero-copy where the kernel allows it.
//!
//! ```text
//! cargo run --release --example proxy                                   # verifies itself
//! cargo run --release --example proxy -- --listen 127.0.0.1:8080 --to 127.0.0.1:80
//! ```

#[path = "proxy/options.rs"]
mod options;
#[path = "proxy/relay.rs"]
mod relay;
mod support;
#[path = "proxy/traffic.rs"]
mod traffic;

use std::error::Error;
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::Instant;

use options::Options;
use relay::Relay;
use support::{exact_bytes, mistake};
use traffic::Traffic;

fn main() -> ExitCode {
    support::run(Options::parse, |options| match &options.listen {
        Some(listen) => serve(options, listen),
        None => verify(options),
    })
}

/// Proxies clients of other programs until the process is stopped.
fn serve(options: &Options, listen: &str) -> Result<(), Box<dyn Error>> {
    let Some(to) = options.to.as_deref() else {
        return Err(mistake("--listen needs --to ADDRESS:PORT, where the connections go"));
    };
    let listener = support::listen(listen)?;
    support::announce(format!("listening on {}, for {to}", listener.local_addr()?))?;
    let mut relay = Relay::new(options)?;
    relay.accept(listener)?;
    loop {
        relay.turn(to)?;
    }
}

/// Proxies clients of its own to an echo server of its own, and compares every byte.
fn verify(options: &Options) -> Result<(), Box<dyn Error>> {
    support::need_descriptors(8 * options.connections as u64 + 64)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let traffic = Traffic::start(listener.local_addr()?, options.connections, options.bytes)?;
    let mut relay = Relay::new(options)?;
    relay.accept(listener)?;

    let bar = support::progress(2 * options.bytes);
    let (started, cpu_before) = (Instant::now(), support::thread_cpu());
    while relay.finished() < options.connections {
        relay.turn(traffic.server())?;
        bar.set_position(relay.tally().bytes);
    }
    let (time, cpu) = (started.elapsed(), support::thread_cpu() - cpu_before);
    bar.finish_and_clear();
    let (bytes, tally) = (traffic.finish()?, relay.tally());
    println!("rate       {:.2} GB/s, both directions", support::gb_per_s(tally.bytes, time));
    println!("CPU        {:.3} proxy seconds per GB", support::cpu_per_gb(tally.bytes, cpu));
    println!(
        "sends      {}, {} of them zero-copy; the kernel copied {} of these",
        tally.sends, tally.zero_copy, tally.zero_copy_copied
    );
    relay.finish()?;
    if tally.bytes != 2 * bytes {
        return Err(mistake(format!(
            "{} passed through, but {} were sent",
            exact_bytes(tally.bytes),
            exact_bytes(2 * bytes)
        )));
    }
    println!(
        "verified {} in each direction on {} connections",
        exact_bytes(bytes),
        options.connections
    );
    Ok(())
}
