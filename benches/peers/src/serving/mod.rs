//! The servers of the examples on the driver, each beside the same server written the usual way:
//! a store of Redis' protocol, a DNS server, a broker; and a log beside fio.

mod commits;
mod dns;
mod dns_by_hand;
mod fanout;
mod part;
mod resp;

#[path = "../../../../examples/broker/broker.rs"]
#[allow(dead_code)] // the program's own clients are not here
mod broker;
#[path = "../../../../examples/log_store/log.rs"]
#[allow(dead_code)] // nothing crashes here
mod log;
#[path = "../../../../examples/dns_server/server.rs"]
#[allow(dead_code)] // its counts are not asked for
mod server;
#[path = "../../../../examples/log_store/store.rs"]
#[allow(dead_code)] // nothing is read back here
mod store;
#[path = "../../../../examples/dns_server/zone.rs"]
#[allow(dead_code)] // the response codes are for its own client
mod zone;

pub use part::{broker_part, dns_part, log_part, resp_part};
