//! The log: records in blocks, and what is left of them after a crash.

use bytes::BufMut;
use uring_arena::Buffer;

/// Bytes of a block: what a disk writes at once, at most.
pub const BLOCK: u64 = 4096;
/// Bytes of a record's header: checksum, length, and the number of the record.
pub const HEADER: u64 = 20;

/// Writes a record to a batch. The checksum is of everything behind it.
pub fn put_record(batch: &mut Buffer, number: u64, payload: &[u8]) {
    let mut head = [0; HEADER as usize];
    head[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    head[12..].copy_from_slice(&number.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[8..]), payload);
    head[..4].copy_from_slice(&checksum.to_le_bytes());
    batch.put_slice(&head);
    batch.put_slice(payload);
}

/// Reads the record at a place, if it is whole and the one of this number.
pub fn record_at(log: &[u8], at: usize, number: u64) -> Option<&[u8]> {
    let head = log.get(at..at + HEADER as usize)?;
    let len = u32::from_le_bytes(*head[8..].first_chunk()?) as usize;
    let payload = log.get(at + HEADER as usize..)?.get(..len)?;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[8..]), payload);
    let is_whole =
        len > 0 && head[..4] == checksum.to_le_bytes() && head[12..] == number.to_le_bytes();
    is_whole.then_some(payload)
}

/// Finds the records of a log after a crash: all before the first that is not whole. Returns where
/// each begins.
pub fn recover(log: &[u8]) -> Vec<usize> {
    let (mut index, mut at) = (Vec::new(), 0);
    loop {
        match record_at(log, at, index.len() as u64) {
            Some(payload) => {
                index.push(at);
                at += HEADER as usize + payload.len();
            }
            // The rest of a block may be empty.
            None if !at.is_multiple_of(BLOCK as usize) => {
                at = at.next_multiple_of(BLOCK as usize);
            }
            None => return index,
        }
    }
}

/// One step of the store, as a disk sees it.
pub enum Step {
    Write {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Everything written before is durable: so many records.
    Synced {
        records: u64,
    },
}
