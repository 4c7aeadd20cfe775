//! Which engine runs, why, and how it is taken over from when it cannot go on.

use std::fs;
use std::os::fd::{AsRawFd, RawFd};

use ringseal::{Carrier, Durability, Engine, EngineKind, HostProbe, StartError, Why, Writer};
use tempfile::tempdir;

use crate::doors::{assert_reads, writer};
use crate::support::{
    Skipped, as_user, assert_no_temps, cgroup, in_child, need, require_root, seccomp, skip,
};

#[test]
fn what_is_asked_for_runs() {
    let threads = writer(Engine::Threads).engine();
    assert_eq!(threads.kind, EngineKind::Threads);
    assert!(matches!(threads.why, Why::Asked));
    match Writer::builder().engine(Engine::Uring).build() {
        Ok(ring) => {
            assert_eq!(ring.engine().kind, EngineKind::Uring);
            assert!(matches!(ring.engine().why, Why::Asked));
        }
        Err(StartError::RingUnavailable(_)) => assert!(!HostProbe::new().ring.is_usable()),
        Err(error) => panic!("{error}"),
    }
    let auto = writer(Engine::Auto).engine();
    assert_eq!(auto.kind, EngineKind::Threads);
    assert!(matches!(auto.why, Why::Fastest));
}

/// Without io_uring: a ring does not start and tells why, a writer that does not ask for it works.
fn assert_works_without(errno: i32, call: &str) {
    let dir = tempdir().unwrap();
    assert_eq!(why_there_is_no_ring(), (call, errno));
    let writer = writer(Engine::Auto);
    let target = dir.path().join("state.json");
    let receipt = pollster::block_on(writer.replace(&target, "new")).unwrap();
    // The temporary directory may be in memory: there the caller saves for himself.
    let in_memory = receipt.durability == Durability::Volatile;
    assert_eq!(receipt.carrier, if in_memory { Carrier::Caller } else { Carrier::Pool });
    assert_reads(&target, "new");
    let probe = HostProbe::new();
    assert!(!probe.ring.is_usable());
    assert_eq!(probe.engine.unwrap().kind, EngineKind::Threads);
}

/// A kernel that makes no ring for another reason says that one.
fn require_ring() -> Result<(), Skipped> {
    let ring = Writer::builder().engine(Engine::Uring).build();
    ring.map(drop).map_err(|why| Skipped(why.to_string()))
}

fn why_there_is_no_ring() -> (&'static str, i32) {
    match Writer::builder().engine(Engine::Uring).build().map(|writer| writer.engine()) {
        Err(StartError::RingUnavailable(Why::SetupFailed(errno))) => ("io_uring_setup", errno),
        Err(StartError::RingUnavailable(Why::PrepareFailed(call, errno))) => (call, errno),
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_io_uring_in_the_kernel() {
    in_child("choice::no_io_uring_in_the_kernel", || {
        need!(seccomp::deny(&[libc::SYS_io_uring_setup], libc::ENOSYS));
        assert_works_without(libc::ENOSYS, "io_uring_setup");
    });
}

#[test]
fn io_uring_forbidden_by_seccomp() {
    in_child("choice::io_uring_forbidden_by_seccomp", || {
        need!(seccomp::deny(&[libc::SYS_io_uring_setup], libc::EPERM));
        assert_works_without(libc::EPERM, "io_uring_setup");
    });
}

#[test]
fn no_memory_for_a_ring() {
    in_child("choice::no_memory_for_a_ring", || {
        need!(seccomp::deny(&[libc::SYS_io_uring_setup], libc::ENOMEM));
        assert_works_without(libc::ENOMEM, "io_uring_setup");
    });
}

#[test]
fn a_ring_that_cannot_be_prepared() {
    in_child("choice::a_ring_that_cannot_be_prepared", || {
        need!(require_ring());
        need!(seccomp::deny(&[libc::SYS_io_uring_register], libc::EPERM));
        assert_works_without(libc::EPERM, "IORING_REGISTER_PROBE");
    });
}

#[test]
fn a_thread_that_may_not_have_its_own_umask() {
    in_child("choice::a_thread_that_may_not_have_its_own_umask", || {
        need!(require_ring());
        need!(seccomp::deny(&[libc::SYS_unshare], libc::EPERM));
        assert_works_without(libc::EPERM, "unshare");
    });
}

#[test]
fn io_uring_switched_off_by_the_sysctl() {
    const SWITCH: &str = "/proc/sys/kernel/io_uring_disabled";
    need!(require_root());
    in_child("choice::io_uring_switched_off_by_the_sysctl", || {
        let Ok(before) = fs::read_to_string(SWITCH) else {
            skip!("this kernel has no kernel.io_uring_disabled");
        };
        struct Restore(String);
        impl Drop for Restore {
            fn drop(&mut self) {
                fs::write(SWITCH, &self.0).unwrap();
            }
        }
        let restore = Restore(before);
        // 1: only for those without CAP_SYS_ADMIN, so the other tests do not see it.
        fs::write(SWITCH, "1").unwrap();
        as_user(65534, 65534, || {
            assert_eq!(why_there_is_no_ring(), ("io_uring_setup", libc::EPERM));
        });
        drop(restore);
    });
}

/// The probe passes, but the kernel can make no worker for the ring: every save is done all the
/// same, and soon by the other engine.
#[test]
fn no_worker_under_a_pids_limit() {
    in_child("choice::no_worker_under_a_pids_limit", || {
        let dir = tempdir().unwrap();
        let Ok(writer) = Writer::builder().engine(Engine::Uring).build() else {
            skip!("there is no io_uring here");
        };
        let group = need!(cgroup::limit_pids(1000));
        group.set_max(group.current().unwrap()).unwrap();
        let target = |id: usize| dir.path().join(format!("{id}"));
        for id in 0..10 {
            let receipt = pollster::block_on(writer.replace(target(id), format!("{id}"))).unwrap();
            assert_eq!(receipt.carrier, Carrier::Pool, "save {id}");
        }
        let status = writer.engine();
        assert_eq!(status.kind, EngineKind::Threads, "{status}");
        assert!(matches!(status.why, Why::NoWorkers), "{status}");
        let requests: Vec<_> = (10..200).map(|id| (target(id), format!("{id}"))).collect();
        let answers = writer.replace_all_blocking(requests);
        assert!(answers.iter().all(|answer| answer.is_ok()), "{answers:?}");
        for id in 0..200 {
            assert_reads(&target(id), format!("{id}"));
        }
        assert_no_temps(dir.path());
        drop(group);
        writer.close_blocking();
    });
}

/// Somebody closed the ring's descriptor and reused its number: the next saves are carried out by plain calls.
#[test]
fn a_ring_that_dies() {
    in_child("choice::a_ring_that_dies", || {
        let dir = tempdir().unwrap();
        let Ok(writer) = Writer::builder().engine(Engine::Uring).build() else {
            skip!("there is no io_uring here");
        };
        let first = dir.path().join("first");
        let receipt = pollster::block_on(writer.replace(&first, "1")).unwrap();
        assert_eq!(receipt.carrier, Carrier::Ring);
        // Something else stands in its place now: entering it says EOPNOTSUPP.
        let null = fs::File::open("/dev/null").unwrap();
        // SAFETY: takes two descriptors, and the ring's thread has to cope with it.
        unsafe { libc::dup2(null.as_raw_fd(), ring_of_this_process()) };
        let target = |id: usize| dir.path().join(format!("{id}"));
        let requests: Vec<_> = (0..300).map(|id| (target(id), format!("{id}"))).collect();
        let answers = writer.replace_all_blocking(requests);
        for (id, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.unwrap().carrier, Carrier::Pool);
            assert_reads(&target(id), format!("{id}"));
        }
        let status = writer.engine();
        assert!(matches!(status.why, Why::RingLost(libc::EOPNOTSUPP)), "{status}");
        assert_no_temps(dir.path());
        writer.close_blocking();
    });
}

fn ring_of_this_process() -> RawFd {
    let is_ring = |fd: &RawFd| {
        fs::read_link(format!("/proc/self/fd/{fd}"))
            .is_ok_and(|link| link.to_str() == Some("anon_inode:[io_uring]"))
    };
    (0..1024).find(is_ring).expect("a ring")
}

/// The table of direct descriptors may not be larger than `RLIMIT_NOFILE`; the ring makes do.
#[test]
fn a_ring_under_a_low_limit_of_descriptors() {
    in_child("choice::a_ring_under_a_low_limit_of_descriptors", || {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        if Writer::builder().engine(Engine::Uring).build().is_err() {
            skip!("there is no io_uring here");
        }
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(100), ..before }).unwrap();
        let builder = Writer::builder().engine(Engine::Uring).max_in_flight(60);
        let dir = tempdir().unwrap();
        for builder in [builder.clone(), builder.max_in_flight(256)] {
            let writer = builder.build().unwrap();
            let saved = pollster::block_on(writer.replace(dir.path().join("x"), "1")).unwrap();
            assert_eq!(saved.carrier, Carrier::Ring);
            writer.close_blocking();
        }
    });
}
