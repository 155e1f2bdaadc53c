//! The names that the server knows, and what it answers to a message.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bytes::BufMut;

/// The names that the server knows: a zone of addresses.
pub struct Zone(HashMap<Vec<u8>, Ipv4Addr>);

impl Zone {
    pub fn new(names: usize) -> Zone {
        let entry = |number: usize| {
            let [_, high, mid, low] = (number as u32).to_be_bytes();
            (wire_name(&format!("h{number}.example.test")), Ipv4Addr::new(10, high, mid, low))
        };
        let mut zone: HashMap<_, _> = (0..names).map(entry).collect();
        zone.insert(wire_name("www.example.test"), Ipv4Addr::new(192, 0, 2, 1));
        Zone(zone)
    }
}

/// Writes a name as the protocol does: each label behind its length.
pub fn wire_name(name: &str) -> Vec<u8> {
    let labels =
        name.split('.').flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes()));
    labels.chain([0]).collect()
}

/// Bytes of the header of a message.
const HEADER: usize = 12;
/// The response codes.
const FORMAT_ERROR: u8 = 1;
pub const NO_SUCH_NAME: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;
/// Bytes of the longest answer: a header, a question, an address.
pub const ANSWER_MAX: usize = 512;

/// Returns where the name of the only question ends, and the name in small letters.
fn question(message: &[u8]) -> Option<(usize, Vec<u8>)> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => break,
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
    let end = at + 1;
    // The type and the class follow; a name has 255 bytes at most.
    (end - HEADER <= 255 && message.len() >= end + 4)
        .then(|| (end, message[HEADER..end].to_ascii_lowercase()))
}

/// Writes the answer to a message. Returns `false` if it gets none.
pub fn answer(message: &[u8], zone: &Zone, to: &mut impl BufMut) -> bool {
    // A message without a header, or that is an answer itself.
    if message.len() < HEADER || message[2] & 0x80 != 0 {
        return false;
    }
    let (mut code, mut body, mut address) = (FORMAT_ERROR, &[][..], None);
    if message[2] & 0x78 != 0 {
        code = NOT_IMPLEMENTED;
    } else if let Some((end, name)) = question(message) {
        body = &message[HEADER..end + 4];
        let known = zone.0.get(&name);
        code = if known.is_some() { 0 } else { NO_SUCH_NAME };
        // Type A (1) or any (255), class IN.
        let is_address = matches!(message[end..end + 4], [0, 1 | 255, 0, 1]);
        address = known.filter(|_| is_address);
    }
    to.put_slice(&message[..2]);
    // An answer, with authority; recursion as it was wished.
    to.put_slice(&[0x84 | message[2] & 1, code]);
    to.put_u16(u16::from(!body.is_empty()));
    to.put_u16(u16::from(address.is_some()));
    to.put_u32(0);
    to.put_slice(body);
    if let Some(address) = address {
        // The name of the question, A, IN, a minute, four bytes.
        to.put_slice(&[0xC0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        to.put_slice(&address.octets());
    }
    true
}
