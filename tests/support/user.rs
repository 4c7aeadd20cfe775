//! Doing something as another user.

use std::io;

/// Runs `f` as another user, in all threads, and becomes root again afterwards.
///
/// For use in [`in_child`](super::in_child) only: the user is a property of the whole process.
/// Needs root: see [`require_root`](super::require_root). Supplementary groups are dropped.
pub fn as_user<T>(uid: u32, gid: u32, f: impl FnOnce() -> T) -> T {
    // A guard, because `f` may panic and the disks dropped on the way need root.
    let _root = Root { groups: groups() };
    become_user(&[], gid, uid);
    f()
}

struct Root {
    groups: Vec<libc::gid_t>,
}

impl Drop for Root {
    fn drop(&mut self) {
        // The user first: only root may change the groups.
        // SAFETY: a plain number.
        check("seteuid", unsafe { libc::seteuid(0) });
        become_user(&self.groups, 0, 0);
    }
}

/// Through libc, whose functions change all threads; the system calls change only the caller's.
fn become_user(groups: &[libc::gid_t], gid: libc::gid_t, uid: libc::uid_t) {
    // SAFETY: the pointer and the length belong to one slice.
    check("setgroups", unsafe { libc::setgroups(groups.len(), groups.as_ptr()) });
    // The saved ids stay root's, which is the way back and gives no rights on its own.
    // SAFETY: plain numbers.
    check("setresgid", unsafe { libc::setresgid(gid, gid, 0) });
    // SAFETY: plain numbers.
    check("setresuid", unsafe { libc::setresuid(uid, uid, 0) });
    // Or /proc/self would belong to root, as for a set-user-ID program, not as for this user.
    // SAFETY: PR_SET_DUMPABLE takes one number.
    check("prctl", unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) });
}

fn groups() -> Vec<libc::gid_t> {
    let groups = rustix::process::getgroups().expect("getgroups");
    groups.into_iter().map(|group| group.as_raw()).collect()
}

fn check(what: &str, answer: libc::c_int) {
    assert_eq!(answer, 0, "{what}: {} (is this root?)", io::Error::last_os_error());
}
