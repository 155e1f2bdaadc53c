//! Test data and checksums.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use super::exact_bytes;

/// The length of a stream of bytes and its CRC-32C.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checksum {
    pub bytes: u64,
    pub crc: u32,
}

impl Checksum {
    /// Takes in the next bytes of the stream.
    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, CRC-32C {:08x}", exact_bytes(self.bytes), self.crc)
    }
}

/// Reads the first `len` bytes of a file by ordinary reads, through the page cache.
pub fn read_checksum(file: File, len: u64) -> io::Result<Checksum> {
    let mut checksum = Checksum::default();
    let mut file = file.take(len);
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(checksum),
            read => checksum.append(&block[..read]),
        }
    }
}

/// Fills `block` with the next pseudo-random bytes of `state` (xorshift64), which must not be 0.
pub fn fill_random(state: &mut u64, block: &mut [u8]) {
    for word in block.chunks_exact_mut(8) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
}

/// Makes the content of a test file: `len` bytes in which a misplaced block shows.
pub fn file_content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// Makes the message number `number` of an echo client, at most 3000 bytes long.
pub fn echo_message(client: usize, number: usize) -> Vec<u8> {
    (0..1 + number * 37 % 3000).map(|at| (at + number + client) as u8).collect()
}
