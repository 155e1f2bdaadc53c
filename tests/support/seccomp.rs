//! A kernel that refuses a call, made up by a seccomp filter on one thread.
#![allow(unsafe_code)]

use std::io;

/// Installs `program` as the filter of this thread's system calls.
pub fn filter_this_thread(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: affects this thread only, and takes numbers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: affects this thread only; the program is live during the call, which copies it.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) }
        != 0
    {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
