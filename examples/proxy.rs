//! A TCP proxy: what arrives on one socket leaves on the other from the slot that it arrived in.
//!
//! Received bytes are never copied by the program, and held back by nothing but the peer: a
//! connection that does not take what it is sent keeps its slots, and when there are none left the
//! senders wait. Zero-copy sends above a threshold, where the kernel allows them.
//!
//! ```text
//! cargo run --release --example proxy                                   # drives itself, and verifies
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
use std::io::Write;
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::Instant;

use options::Options;
use relay::Relay;
use support::mistake;
use traffic::Traffic;

fn main() -> ExitCode {
    support::run(|| match Options::parse()? {
        Some(options) if options.listen.is_some() => serve(&options),
        Some(options) => verify(&options),
        None => Ok(()),
    })
}

/// Proxies clients from outside, until it is stopped.
fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let (listen, to) = (options.listen.as_deref().unwrap_or_default(), options.to.as_deref());
    let to =
        to.ok_or_else(|| mistake("--listen needs --to ADDRESS:PORT, where the connections go"))?;
    let listener = TcpListener::bind(listen).map_err(|error| {
        mistake(format!("--listen {listen}: {error}; give a free ADDRESS:PORT of this machine"))
    })?;
    println!("listening on {}, for {to}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let mut relay = Relay::new(options)?;
    relay.accept(listener)?;
    loop {
        relay.turn(to)?;
    }
}

/// Clients and an echoing server of our own; every byte is compared.
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
    println!("rate       {:.2} GB/s, both ways together", support::gb_per_s(tally.bytes, time));
    println!("CPU        {:.3} proxy seconds per GB", support::cpu_per_gb(tally.bytes, cpu));
    println!(
        "sends      {}, {} zero-copy, of which the kernel copied {}",
        tally.sends, tally.zero_copy, tally.zero_copy_copied
    );
    relay.finish()?;
    if tally.bytes != 2 * bytes {
        return Err(mistake(format!(
            "{} bytes passed through, {} were sent",
            tally.bytes,
            2 * bytes
        )));
    }
    println!("verified {bytes} bytes there and back on {} connections", options.connections);
    Ok(())
}
