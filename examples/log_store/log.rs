//! The log: records in blocks, what is left of them after a crash, and crashes at every point.

use std::error::Error;

use bytes::BufMut;
use uring_arena::Buffer;

use crate::support::{fill_random, mistake};

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

/// Makes the payload of a record.
pub fn payload(number: u64, most: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let len = 1 + (state >> 20) as usize % most;
    let mut bytes = vec![0; len.next_multiple_of(8)];
    fill_random(&mut state, &mut bytes);
    bytes.truncate(len);
    bytes
}

/// Returns an error unless a log has its durable records, and no record that was not appended.
pub fn check(
    log: &[u8],
    index: &[usize],
    durable: u64,
    appended: u64,
    most: usize,
) -> Result<(), Box<dyn Error>> {
    let found = index.len() as u64;
    if found < durable || found > appended {
        return Err(mistake(format!("{found} records of {appended}, {durable} of them durable")));
    }
    let wrong = (0..)
        .zip(index)
        .find(|&(number, &at)| record_at(log, at, number) != Some(&payload(number, most)[..]));
    wrong.map_or(Ok(()), |(number, _)| Err(mistake(format!("record {number} is another one"))))
}

/// Reads the log as it is after a crash at every point of the trace: between two steps, and at
/// places in the middle of each write, with old bytes or zeros behind. Returns the crashes.
pub fn crash_everywhere(trace: &[Step], most: usize) -> Result<u64, Box<dyn Error>> {
    let (mut disk, mut durable, mut crashes, mut state) = (Vec::new(), 0, 0, 7);
    for step in trace {
        let (offset, bytes) = match step {
            Step::Write { offset, bytes } => (*offset as usize, bytes),
            Step::Synced { records } => {
                durable = *records;
                continue;
            }
        };
        let whole = bytes.len();
        let mut cuts = vec![0, 1, 19, 20, 21, 511, 512, 513, whole / 2, whole - 1, whole];
        let mut random = [0; 64];
        fill_random(&mut state, &mut random);
        cuts.extend(
            random
                .chunks(4)
                .map(|it| u32::from_le_bytes([it[0], it[1], it[2], it[3]]) as usize % (whole + 1)),
        );
        for cut in cuts {
            for old in [0, 0xA5] {
                disk.truncate(offset);
                disk.extend_from_slice(&bytes[..cut]);
                disk.resize(offset + whole, old);
                check(&disk, &recover(&disk), durable, u64::MAX, most)?;
                crashes += 1;
            }
        }
        disk.truncate(offset);
        disk.extend_from_slice(bytes);
    }
    Ok(crashes)
}
