//! A publish/subscribe broker over TCP: a message is received once, and sent to every subscriber
//! from the slots that it arrived in.
//!
//! A client writes `SUB topic\n` and gets the messages of the topic, or `PUB topic\n` and then
//! messages: four bytes with the length (big endian), and as many bytes. Subscribers get the same.
//! A subscriber that takes nothing is paused, so that it holds few messages, and dropped if it goes
//! on so. A publisher that says nothing is dropped too.
//!
//! ```text
//! cargo run --release --example broker                              # verifies itself
//! cargo run --release --example broker -- --listen 127.0.0.1:7000
//! (printf 'SUB news\n'; cat) | nc 127.0.0.1 7000
//! ```

#[path = "broker/broker.rs"]
mod broker;
#[path = "broker/clients.rs"]
mod clients;
#[path = "broker/options.rs"]
mod options;
mod support;

use std::process::ExitCode;

use broker::Broker;
use support::say;

fn main() -> ExitCode {
    support::run(options::parse, |options| match options.listen {
        Some(address) => {
            let mut broker = Broker::new(address, options.slots.get(), options.idle)?;
            say!("listening on {}", broker.address()?);
            loop {
                broker.step()?.into_iter().for_each(|told| say!("{told}"));
            }
        }
        None => clients::verify(options),
    })
}
