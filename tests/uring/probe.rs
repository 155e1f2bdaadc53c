//! The probe of the kernel keeps what the kernel is, not what the system lacked for a moment.
#![allow(unsafe_code)]

use std::thread;

use crate::support::limits::{as_user_with_memlock, leave_descriptors, run_alone, set_descriptors};
use crate::support::ring::ring;
use crate::support::seccomp::fail_calls_on_this_thread;
use io_uring::IoUring;
use uring_arena::{
    Feature, FixedArena, Memlock, Probe, RegisterError, RegisterOptions, RegisteredArena,
    RegistrationMode, UnavailableError,
};

/// Run by [`a_probe_without_descriptors_is_not_kept`]: no probe was made in this process before.
#[test]
#[ignore = "lowers a limit of the process: run by another test"]
fn helper_probe_without_descriptors() {
    // None for the first ring; one for the first and none for the second.
    for left in 0..2 {
        let before = leave_descriptors(left);
        let (kept, asked) = (Probe::shared(), Probe::new());
        set_descriptors(before);
        for error in [kept.unwrap_err(), asked.unwrap_err()] {
            let UnavailableError::Refused { errno, .. } = error else { panic!("{error}") };
            assert_eq!(errno, libc::EMFILE);
            assert!(error.to_string().contains("ulimit -n"), "{error}");
        }
    }
    let probe = Probe::new().unwrap();
    assert_eq!(Probe::shared(), Ok(probe));
    // Later failures do not matter: the first answer in full is kept.
    let before = leave_descriptors(0);
    assert_eq!(Probe::shared(), Ok(probe));
    set_descriptors(before);
    println!("helper finished");
}

#[test]
fn a_probe_without_descriptors_is_not_kept() {
    let Some(_) = ring("probe without descriptors") else { return };
    run_alone("probe::helper_probe_without_descriptors", &[]);
}

/// Run by [`a_probe_that_something_stopped_is_not_kept`]: no probe was made in this process before.
#[test]
#[ignore = "the first probe of its process: run by another test"]
fn helper_probe_under_filters() {
    let probe_on_a_thread = |call: libc::c_long, errno: i32| {
        let filtered = thread::spawn(move || {
            fail_calls_on_this_thread(call, errno)?;
            Ok::<_, std::io::Error>(Probe::shared())
        });
        filtered.join().unwrap()
    };
    for errno in [libc::ENOMEM, libc::ENFILE] {
        for call in [libc::SYS_io_uring_setup, libc::SYS_io_uring_register] {
            match probe_on_a_thread(call, errno) {
                Ok(probe) => drop(probe.unwrap_err()),
                Err(error) => {
                    eprintln!("SKIPPED probe under filters: no seccomp here: {error}");
                    return println!("helper finished");
                }
            }
        }
    }
    // Request after request is refused, but none for want of anything: the thread may not.
    let forbidden = probe_on_a_thread(libc::SYS_io_uring_register, libc::EPERM).unwrap().unwrap();
    assert!(!forbidden.has(Feature::BufferRing), "{forbidden:?}");
    // Other threads may.
    let probe = Probe::new().unwrap();
    assert!(probe.has(Feature::BufferRing), "{probe:?}");
    assert_eq!(Probe::shared(), Ok(probe));
    println!("helper finished");
}

#[test]
fn a_probe_that_something_stopped_is_not_kept() {
    if ring("probe under filters").is_some() {
        run_alone("probe::helper_probe_under_filters", &[]);
    }
}

/// Run by [`a_probe_without_lockable_memory_says_what_it_needs`] as another user who may lock one
/// page.
#[test]
#[ignore = "needs a small RLIMIT_MEMLOCK and no CAP_IPC_LOCK: run by another test"]
fn helper_probe_without_lockable_memory() {
    let error = Probe::shared().unwrap_err();
    let UnavailableError::Memlock { memlock, .. } = error else { panic!("{error}") };
    let Memlock { needed, soft, hard, privileged, .. } = memlock;
    assert_eq!((needed, soft, hard, privileged), (8192, Some(4096), Some(4096), false));
    let text = error.to_string();
    assert!(text.contains("8192 bytes are needed") && text.contains("LimitMEMLOCK=8192"), "{text}");
    println!("helper finished");
}

#[test]
fn a_probe_without_lockable_memory_says_what_it_needs() {
    let Some(_) = ring("probe without lockable memory") else { return };
    let prlimit = as_user_with_memlock(4096, 1);
    let prlimit: Vec<&str> = prlimit.iter().map(String::as_str).collect();
    run_alone("probe::helper_probe_without_lockable_memory", &prlimit);
}

/// Run by [`a_registration_without_a_probe_can_be_made_later`]: no probe was made in this process
/// before.
#[test]
#[ignore = "lowers a limit of the process: run by another test"]
fn helper_registration_without_a_probe() {
    let uring = IoUring::new(4).unwrap();
    let arena = FixedArena::new(8, 4096).unwrap();
    // SAFETY: no operation is built.
    let register = || unsafe { RegisteredArena::register(&uring, &arena, RegisterOptions::new()) };
    let before = leave_descriptors(0);
    let refused = register();
    set_descriptors(before);
    let error = refused.unwrap_err();
    assert!(matches!(error, RegisterError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    assert_eq!(register().unwrap().mode(), RegistrationMode::Slots);
    println!("helper finished");
}

#[test]
fn a_registration_without_a_probe_can_be_made_later() {
    if ring("registration without a probe").is_some() {
        run_alone("probe::helper_registration_without_a_probe", &[]);
    }
}
