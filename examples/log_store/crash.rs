//! Crashes at every point of the store's own writes, and what must be left after each.

use std::error::Error;

use super::log::{Step, record_at, recover};
use crate::support::{fill_random, mistake};

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
