//! Taking system calls away from this process.

use std::io;

use super::Skipped;

#[cfg(target_arch = "x86_64")]
const ARCH: Option<u32> = Some(0xC000_003E); // AUDIT_ARCH_X86_64
#[cfg(target_arch = "aarch64")]
const ARCH: Option<u32> = Some(0xC000_00B7); // AUDIT_ARCH_AARCH64
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCH: Option<u32> = None;

/// Lets these system calls fail with `errno` in all threads, for the rest of the process' life.
///
/// For use in [`in_child`](super::in_child) only. The operations of an io_uring are no system
/// calls: only `io_uring_setup`, `io_uring_enter` and `io_uring_register` can be denied.
pub fn deny(syscalls: &[libc::c_long], errno: i32) -> Result<(), Skipped> {
    let Some(arch) = ARCH else {
        return Err(Skipped("the seccomp filter does not know this architecture".into()));
    };
    install(&program(arch, syscalls, errno))
        .map_err(|error| Skipped(format!("no seccomp filter: {error}")))
}

/// Lets the making of an unnamed file (`O_TMPFILE`) fail with EOPNOTSUPP, as on a filesystem that has none.
///
/// For use in [`in_child`](super::in_child) only.
pub fn deny_unnamed_files() -> Result<(), Skipped> {
    let Some(arch) = ARCH else {
        return Err(Skipped("the seccomp filter does not know this architecture".into()));
    };
    // `O_TMPFILE` without the `O_DIRECTORY` that it contains.
    let unnamed = (libc::O_TMPFILE & !libc::O_DIRECTORY) as u32;
    let load = |offset| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let answer = |value| op(libc::BPF_RET | libc::BPF_K, value, 0, 0);
    // The third argument's lower half, on a little-endian machine, is at 16 + 2 * 8.
    let program = [
        load(4),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, arch, 0, 5),
        load(0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_openat as u32, 0, 3),
        load(32),
        op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, unnamed, 0, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::EOPNOTSUPP as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    install(&program).map_err(|error| Skipped(format!("no seccomp filter: {error}")))
}

/// A filter over `struct seccomp_data`: the call's number is at offset 0, the architecture at 4.
fn program(arch: u32, syscalls: &[libc::c_long], errno: i32) -> Vec<libc::sock_filter> {
    let load = |offset| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let skip_unless = |value| op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, 0, 1);
    let skip_if = |value| op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, 1, 0);
    let answer = |value| op(libc::BPF_RET | libc::BPF_K, value, 0, 0);

    // The numbers mean other calls under another architecture (32-bit code on x86_64).
    let mut program = vec![load(4), skip_if(arch), answer(libc::SECCOMP_RET_ALLOW), load(0)];
    for &number in syscalls {
        program.push(skip_unless(number as u32));
        program.push(answer(libc::SECCOMP_RET_ERRNO | errno as u32));
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

fn op(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

fn install(program: &[libc::sock_filter]) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(), // read only, in spite of its type
    };
    // SAFETY: the filter and the program it points to outlive the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &filter,
        )
    };
    match answer {
        0 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        thread => Err(io::Error::other(format!("thread {thread} has a filter of its own"))),
    }
}
