//! Errors of a pool: what happened, and with which number.

use std::io::ErrorKind;
use std::time::Duration;

use crate::support::limits::{leave_descriptors, run_alone, set_descriptors};
use crate::support::runtimes::Outcome;
use crate::support::tokio::{RingsOnly, rings, settings, tcp_pair};
use crate::support::{TIMEOUT, paged_arena, seccomp};
use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use uring_arena::FixedArena;
use uring_arena::tokio::{Engine, Pool};

/// A file that the kernel does not describe is refused with the kernel's number, each time: here a
/// filter refuses statx(2).
#[cfg(feature = "io-uring")]
#[test]
fn a_file_that_the_driver_refused_is_told_with_its_number() {
    for is_one_thread in [true, false] {
        let test = std::thread::spawn(move || {
            if seccomp::fail_calls_on_this_thread(libc::SYS_statx, libc::EIO).is_err() {
                return eprintln!("SKIPPED: no seccomp here");
            }
            runtime(is_one_thread).block_on(async {
                let pool =
                    Pool::builder(paged_arena(8, 4096)).engine(Engine::Ring).build().unwrap();
                let file = pool.file(std::fs::File::open("/dev/zero").unwrap()).unwrap();
                for _ in 0..2 {
                    let read = file.read_at(pool.try_allocate().unwrap(), 0);
                    let error = timeout(TIMEOUT, read).await.unwrap().unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
                    let write = file.write_at(Bytes::from_static(b"x"), 0);
                    let error = timeout(TIMEOUT, write).await.unwrap().unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
                }
                drop(file);
                pool.shutdown().await.unwrap();
            });
        });
        test.join().unwrap();
    }
}

fn runtime(is_one_thread: bool) -> Runtime {
    match is_one_thread {
        true => Builder::new_current_thread().enable_all().build().unwrap(),
        false => Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
    }
}

#[test]
fn a_refusal_of_the_driver_is_of_its_kind() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(8, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).operations(1).build()?;
            let file = pool.file(std::fs::File::open("/dev/zero")?)?;
            let mut full = pool.try_allocate()?;
            std::io::Write::write_all(&mut full, &[0; 4096])?;
            let error = timeout(TIMEOUT, file.read_at(full, 0)).await?.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("no room left"), "{error}");
            if engine == Engine::Readiness {
                // A connection needs no operation.
                return Ok(());
            }
            // The one operation is a stream's.
            let (near, _far) = tcp_pair().await;
            let _stream = pool.recv_stream(near)?;
            let (near, _far) = tcp_pair().await;
            let error = pool.recv_stream(near).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
            let error = file.read_at(pool.try_allocate()?, 0).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
            assert!(error.to_string().contains("more `operations`"), "{error}");
            pool.shutdown().await?;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
    }
    Ok(())
}

/// An engine that fails is not a pool that was shut down.
#[cfg(feature = "io-uring")]
#[test]
fn a_pool_that_failed_tells_what_failed() -> Outcome {
    for is_one_thread in [true, false] {
        // The engine inherits the filter, which is there before the engine.
        let test = std::thread::spawn(move || {
            if let Err(error) =
                seccomp::fail_calls_on_this_thread(libc::SYS_io_uring_enter, libc::EPERM)
            {
                eprintln!("SKIPPED: no seccomp here: {error}");
                return;
            }
            runtime(is_one_thread).block_on(async {
                let arena = FixedArena::new(8, 4096).unwrap();
                let pool = Pool::builder(arena).engine(Engine::Ring).build().unwrap();
                let (near, _far) = tcp_pair().await;
                let (mut incoming, outgoing) = pool.split(near).unwrap();
                let file = pool.file(std::fs::File::open("/dev/zero").unwrap()).unwrap();
                let error = timeout(TIMEOUT, incoming.try_next()).await.unwrap().unwrap_err();
                assert_tells_of_the_failure(&error);
                let send = outgoing.send(Bytes::from_static(b"x"));
                assert_tells_of_the_failure(&timeout(TIMEOUT, send).await.unwrap().unwrap_err());
                for _ in 0..2 {
                    let write = file.write_at(Bytes::from_static(b"x"), 0);
                    let error = timeout(TIMEOUT, write).await.unwrap().unwrap_err();
                    assert_tells_of_the_failure(&error);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                let report = timeout(TIMEOUT, pool.shutdown()).await.unwrap();
                assert_tells_of_the_failure(&report.unwrap_err());
            });
        });
        test.join().unwrap();
    }
    Ok(())
}

#[track_caller]
fn assert_tells_of_the_failure(error: &std::io::Error) {
    let text = error.to_string();
    assert!(text.contains("has failed") && text.contains("seccomp"), "{text}");
    assert!(!text.contains("shut down"), "{text}");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

/// A pool that cannot be built says what forbids it.
#[cfg(feature = "io-uring")]
#[test]
fn a_pool_that_a_filter_forbids_says_so() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let test = std::thread::spawn(move || {
            if seccomp::fail_calls_on_this_thread(libc::SYS_io_uring_setup, errno).is_err() {
                return eprintln!("SKIPPED: no seccomp here");
            }
            let error = Pool::builder(FixedArena::new(8, 4096).unwrap())
                .engine(Engine::Ring)
                .build()
                .unwrap_err();
            assert!(error.to_string().contains("seccomp"), "{error}");
            assert!(!error.to_string().contains("has no"), "{error}");
            assert_eq!(format!("{error:?}"), error.to_string());
            assert_eq!(std::io::Error::from(error).kind(), ErrorKind::PermissionDenied);
        });
        test.join().unwrap();
    }
}

/// Run by [`a_connection_without_a_descriptor_is_refused`]: no other test is in this process.
#[test]
#[ignore = "lowers a limit of the process: run by another test"]
fn helper_connection_without_a_descriptor() {
    for (runtime, engine) in rings() {
        runtime.block_on(async {
            let builder = Pool::builder(paged_arena(8, 4096)).send_bytes_max(1);
            let pool = builder.engine(engine).build().unwrap();
            let (near, far) = tcp_pair().await;
            let (_incoming, outgoing) = pool.split(near).unwrap();
            let before = leave_descriptors(0);
            // A send needs no descriptor.
            for _ in 0..3 {
                let send = outgoing.send(Bytes::from_static(b"x"));
                timeout(TIMEOUT, send).await.unwrap().unwrap();
            }
            let refused = pool.stream(far);
            set_descriptors(before);
            let refused = refused.unwrap_err();
            assert_eq!(refused.error.raw_os_error(), Some(libc::EMFILE));
            let mut far = refused.socket.expect("it comes back");
            // With descriptors it goes on.
            timeout(TIMEOUT, outgoing.send(Bytes::from_static(b"y"))).await.unwrap().unwrap();
            let mut text = [0; 4];
            timeout(TIMEOUT, far.read_exact(&mut text)).await.unwrap().unwrap();
            assert_eq!(&text, b"xxxy");
            drop(pool.stream(far).unwrap());
            pool.shutdown().await.unwrap();
        });
    }
    println!("helper finished");
}

/// Run by [`a_connection_needs_no_descriptor_to_be_asked`]: no other test is in this process.
#[test]
#[ignore = "lowers a limit of the process: run by another test"]
fn helper_questions_without_a_descriptor() {
    for (runtime, engine) in settings() {
        let far = runtime.block_on(async {
            let pool = Pool::builder(paged_arena(8, 4096)).engine(engine).build().unwrap();
            let (near, far) = tcp_pair().await;
            let stream = pool.stream(near).unwrap();
            let before = leave_descriptors(0);
            let asked = (stream.peer_addr(), stream.local_addr(), stream.set_nodelay(true));
            set_descriptors(before);
            assert_eq!(asked.0.unwrap(), far.local_addr().unwrap());
            assert_eq!(asked.1.unwrap(), far.peer_addr().unwrap());
            asked.2.unwrap();
            far
        });
        drop((runtime, far));
    }
    println!("helper finished");
}

#[test]
fn a_connection_needs_no_descriptor_to_be_asked() {
    run_alone("pool_errors::helper_questions_without_a_descriptor", &[]);
}

#[test]
fn a_connection_without_a_descriptor_is_refused() {
    run_alone("pool_errors::helper_connection_without_a_descriptor", &[]);
}
