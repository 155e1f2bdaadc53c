//! A kernel that refuses a call, made up by a seccomp filter on one thread.
#![allow(unsafe_code)]

use std::io;

/// Makes a system call fail on this thread, with an error number.
pub fn fail_calls_on_this_thread(call: libc::c_long, errno: i32) -> io::Result<()> {
    const LOAD_SYSCALL_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let statement = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut program = [
        statement(LOAD_SYSCALL_NUMBER, 0, 0),
        statement(JUMP_IF_EQUAL, 1, call as u32),
        statement(RETURN, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    filter_this_thread(&mut program)
}

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
