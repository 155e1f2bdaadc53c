//! Kernels that refuse something: a seccomp filter on one thread.
#![allow(unsafe_code)]

use std::io;

/// Has the system calls of this thread judged by `program` from now on.
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
