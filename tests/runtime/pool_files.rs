//! Files of a pool: positions, whole reads, syncs.

use std::fs::File as StdFile;
use std::io::ErrorKind;

use bytes::{BufMut, Bytes};
use tokio::time::timeout;
use uring_arena::tokio::Pool;

use crate::support::runtimes::Outcome;
use crate::support::tokio::{settings, until_all_free};
use crate::support::{TIMEOUT, paged_arena};

/// A sync comes behind the writes before it, is told the error of what has none, and ends with the
/// pool.
#[test]
fn the_bytes_of_a_file_are_synced() -> Outcome {
    let path = std::env::temp_dir().join(format!("uring-arena-files-{}", std::process::id()));
    for (runtime, engine) in settings() {
        let arena = paged_arena(16, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let file = pool.file(StdFile::create(&path)?)?;
            let mut writes = Vec::new();
            for number in 0..8 {
                let mut page = pool.try_allocate()?;
                page.put_bytes(number, 4096);
                writes.push(file.write_at(page, u64::from(number) * 4096));
            }
            timeout(TIMEOUT, futures_util::future::try_join_all(writes)).await??;
            timeout(TIMEOUT, file.sync_data()).await??;
            let all = std::fs::read(&path)?;
            assert!(all.chunks(4096).enumerate().all(|(number, page)| {
                page.len() == 4096 && page.iter().all(|&byte| usize::from(byte) == number)
            }));
            // A sync that nobody waits for goes on, and hinders nothing.
            let _ = futures_util::FutureExt::now_or_never(file.sync_data());
            timeout(TIMEOUT, file.write_at(Bytes::from_static(b"more"), 0)).await??;
            // A pipe has no disk behind it.
            let (reader, _writer) = std::io::pipe()?;
            let pipe = pool.file(reader)?;
            let error = timeout(TIMEOUT, pipe.sync_data()).await?.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            drop(pipe);
            timeout(TIMEOUT, pool.shutdown()).await??;
            let error = timeout(TIMEOUT, file.sync_data()).await?.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    std::fs::remove_file(&path)?;
    Ok(())
}
