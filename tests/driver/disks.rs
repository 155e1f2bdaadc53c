//! Disks that are full, read-only, damaged, or fail: what is not durable is never called so.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::path::Path;

use bytes::Bytes;
use uring_arena::{BufferRing, Driver, DriverError, Event, FileId};

use crate::support::driver::{done, driver, finish, run};
use crate::support::mount::Mounted;
use crate::support::{arena, assert_all_free, paged_arena, pattern, watched, written};

const MIB: usize = 1 << 20;

fn open(path: impl AsRef<Path>) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// Writes, and waits. Returns the result and the bytes that were written.
fn write(
    driver: &mut Driver,
    file: FileId,
    bytes: Bytes,
    offset: u64,
) -> (io::Result<usize>, usize) {
    driver.write(file, bytes, offset).unwrap();
    let mut ended = None;
    run(driver, |event| {
        let Event::Wrote { result, written, .. } = event else { panic!("{event:?}") };
        ended = Some((result, written));
        true
    });
    ended.unwrap()
}

fn sync(driver: &mut Driver, file: FileId) -> io::Result<()> {
    let sync = driver.sync_data(file).unwrap();
    done(driver, sync)
}

#[test]
fn a_full_disk_is_told_with_the_part_that_fitted_and_goes_on_when_there_is_room() {
    let Some(memory) = Mounted::memory("a full disk", MIB) else { return };
    let Some(mut driver) = driver() else { return };
    let path = memory.file("log");
    let file = driver.add_file(open(&path)).unwrap();
    let bytes = Bytes::from(pattern(1, 2 * MIB));
    let (result, written) = write(&mut driver, file, bytes.clone(), 0);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::StorageFull);
    assert!(0 < written && written <= MIB, "{written}");
    assert_eq!(fs::metadata(&path).unwrap().len(), written as u64);
    assert_eq!(sync(&mut driver, file).unwrap_err().kind(), ErrorKind::StorageFull);
    sync(&mut driver, file).unwrap();
    // Several pieces come short in the same way; reserving comes to nothing.
    let pieces = [bytes.clone(), bytes.clone()];
    driver.write_vectored(file, pieces, written as u64).unwrap();
    run(&mut driver, |event| {
        let Event::WroteVectored { result, written: 0, .. } = event else { panic!("{event:?}") };
        result.unwrap_err().kind() == ErrorKind::StorageFull
    });
    assert_eq!(sync(&mut driver, file).unwrap_err().kind(), ErrorKind::StorageFull);
    let allocation = driver.allocate(file, 0, 4 * MIB as u64).unwrap();
    assert_eq!(done(&mut driver, allocation).unwrap_err().kind(), ErrorKind::StorageFull);
    // A room that was not to be had has no bytes that a sync could lose.
    sync(&mut driver, file).unwrap();
    // The file goes away under way, with another name for what is read of it.
    fs::remove_file(&path).unwrap();
    let arena = arena(2, 4096);
    driver.read(file, arena.allocate().unwrap(), 4096).unwrap();
    run(&mut driver, |event| {
        let Event::Read { result, buffer, .. } = event else { panic!("{event:?}") };
        assert_eq!((result.unwrap(), &buffer[..]), (4096, &bytes[4096..8192]));
        true
    });
    let second = driver.add_file(open(&path)).unwrap();
    assert!(write(&mut driver, second, bytes.slice(..4096), 0).0.is_err(), "it keeps its room");
    driver.close_file(file).unwrap();
    let (result, _) = write(&mut driver, second, bytes.slice(..4096), 0);
    assert_eq!(result.unwrap(), 4096);
    assert!(sync(&mut driver, second).is_err(), "of the write before");
    sync(&mut driver, second).unwrap();
    finish(driver);
    assert_all_free(&arena);
}

/// The sizes of a write past the page cache are whole blocks also where the disk takes a part.
#[test]
fn a_full_disk_past_the_page_cache_takes_whole_blocks() {
    let test = "a full disk past the page cache";
    let Some(memory) = Mounted::memory(test, 32 * MIB) else { return };
    let Some(disk) = Mounted::image(test, &memory, 4 * MIB, false) else { return };
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(2, 2 * MIB);
    driver.register(&arena).unwrap();
    let path = disk.file("log");
    let mut options = File::options();
    options.read(true).write(true).create(true).custom_flags(libc::O_DIRECT);
    let file = match options.open(&path) {
        Ok(file) => driver.add_file(file).unwrap(),
        Err(error) => return eprintln!("SKIPPED {test}: {error}"),
    };
    let (mut offset, mut failed) = (0, None);
    while failed.is_none() {
        let block = written(arena.allocate().unwrap(), &pattern(2, 2 * MIB));
        driver.write(file, block, offset).unwrap();
        run(&mut driver, |event| {
            let Event::Wrote { result, written, .. } = event else { panic!("{event:?}") };
            offset += written as u64;
            failed = result.err();
            true
        });
        assert!(offset < 4 * MIB as u64 && offset.is_multiple_of(4096), "{offset}");
    }
    assert_eq!(failed.unwrap().kind(), ErrorKind::StorageFull);
    assert_eq!(sync(&mut driver, file).unwrap_err().kind(), ErrorKind::StorageFull);
    sync(&mut driver, file).unwrap();
    finish(driver);
    assert_all_free(&arena);
}

/// The kernel tells of a lost byte once for all duplicates of a descriptor, and calls each later
/// sync a success, also of bytes that it has dropped.
#[test]
fn bytes_that_a_device_lost_are_never_called_durable() {
    let test = "a device that fails";
    // The device is longer than what it stands on.
    let Some(memory) = Mounted::memory(test, 6 * MIB) else { return };
    let Some(disk) = Mounted::image(test, &memory, 16 * MIB, false) else { return };
    let Some(mut driver) = driver() else { return };
    let path = disk.file("log");
    let (opened, other) = (open(&path), open(disk.file("other")));
    let (clone, again) = (opened.try_clone().unwrap(), opened.try_clone().unwrap());
    let file = driver.add_file(opened).unwrap();
    let clone = driver.add_file(clone).unwrap();
    let by_name = driver.add_file(open(&path)).unwrap();
    let other = driver.add_file(other).unwrap();
    sync(&mut driver, other).unwrap();
    let bytes = Bytes::from(pattern(3, 8 * MIB));
    assert_eq!(write(&mut driver, file, bytes.clone(), 0).0.unwrap(), bytes.len());
    // Of both at once, one at a time: only one of them would be told.
    let syncs = [file, clone, by_name].map(|file| driver.sync_all(file).unwrap());
    let mut errors = Vec::new();
    run(&mut driver, |event| {
        let Event::Done { id, result, .. } = event else { panic!("{event:?}") };
        errors.push((id, result.unwrap_err().to_string()));
        errors.len() == 3
    });
    assert_eq!(errors.iter().map(|it| it.0).collect::<Vec<_>>(), syncs);
    assert!(errors[1..].iter().all(|(_, text)| text.contains("may be lost")), "{errors:?}");
    // Room does not bring them back, and neither does a write that succeeds.
    for file in [file, clone, by_name] {
        assert_eq!(write(&mut driver, file, bytes.slice(..4096), 0).0.unwrap(), 4096);
        let error = sync(&mut driver, file).unwrap_err();
        assert!(error.to_string().contains("may be lost"), "{error}");
        let range = driver.sync_range(file, 0, 0).unwrap();
        assert!(done(&mut driver, range).is_err());
    }
    // Added anew it begins anew, and only with what is written from then on.
    let anew = driver.add_file(again).unwrap();
    assert_eq!(write(&mut driver, anew, bytes.slice(..4096), 0).0.unwrap(), 4096);
    let answer = sync(&mut driver, anew);
    assert!(answer.as_ref().map_or_else(|it| !it.to_string().contains("may be"), |()| true));
    finish(driver);
}

#[test]
fn a_file_system_that_is_damaged_goes_read_only_and_nothing_is_called_durable() {
    let test = "a damaged file system";
    let Some(memory) = Mounted::memory(test, 32 * MIB) else { return };
    let Some(disk) = Mounted::image(test, &memory, 16 * MIB, true) else { return };
    let Some(mut driver) = driver() else { return };
    let path = disk.file("log");
    let file = driver.add_file(open(&path)).unwrap();
    assert_eq!(write(&mut driver, file, Bytes::from(pattern(4, MIB)), 0).0.unwrap(), MIB);
    if let Err(error) = disk.damage() {
        return eprintln!("SKIPPED {test}: {error}");
    }
    for _ in 0..2 {
        assert!(sync(&mut driver, file).is_err(), "the bytes are nowhere");
    }
    let (result, _) = write(&mut driver, file, Bytes::from_static(b"more"), 0);
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EROFS));
    let allocation = driver.allocate(file, 0, 4096).unwrap();
    assert_eq!(done(&mut driver, allocation).unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert!(sync(&mut driver, file).is_err());
    // What was read before is read still.
    let arena = arena(1, 4096);
    driver.read(file, arena.allocate().unwrap(), 0).unwrap();
    run(&mut driver, |event| matches!(event, Event::Read { result: Ok(4096), .. }));
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_read_only_file_system_is_read_from_and_nothing_else() {
    watched(|| {
        let test = "a read-only file system";
        let Some(memory) = Mounted::memory(test, MIB) else { return };
        let Some(mut driver) = driver() else { return };
        let arena = arena(4, 4096);
        let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(2)).unwrap();
        let (path, socket) = (memory.file("file"), memory.file("socket"));
        fs::write(&path, b"as it was").unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let file = driver.add_file(File::open(&path).unwrap()).unwrap();
        memory.make_read_only().unwrap();
        driver.read(file, arena.allocate().unwrap(), 0).unwrap();
        run(&mut driver, |event| {
            let Event::Read { buffer, .. } = event else { panic!("{event:?}") };
            &buffer[..] == b"as it was"
        });
        let (result, _) = write(&mut driver, file, Bytes::from_static(b"no"), 0);
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(sync(&mut driver, file).unwrap_err().raw_os_error(), Some(libc::EBADF));
        // There is nothing to be written, and that is on the disk.
        sync(&mut driver, file).unwrap();
        let address = UnixAddress::from_pathname(memory.file("another")).unwrap();
        let refused = driver.listen(address, 0).unwrap_err();
        assert_eq!(refused, DriverError::System { action: "listening", errno: libc::EROFS });
        // A socket of it is connected to as ever; a path that goes away meanwhile is not needed.
        driver.connect(ring, UnixAddress::from_pathname(&socket).unwrap(), 5).unwrap();
        run(&mut driver, |event| matches!(event, Event::Connected { token: 5, .. }));
        drop(listener);
        run(&mut driver, |event| matches!(event, Event::Closed { token: 5, .. }));
        finish(driver);
        assert_all_free(&arena);
    });
}
