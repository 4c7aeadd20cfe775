//! The names of temporary files. A crash can leave one behind, so a name tells whose it is:
//!
//! ```text
//! .ringseal-1-MACHINE-BOOT-PIDNS-TIMENS-PID-START-COUNTER
//!           │ │       │    │     │      │   │     └ unique in the process, 16 digits
//!           │ │       │    │     │      │   └ start of the process, clock ticks since boot
//!           │ │       │    │     │      └ process id, in its own pid namespace
//!           │ │       │    └─────┴ inode numbers of the pid and the time namespace
//!           │ │       └ random id of the boot (/proc/sys/kernel/random/boot_id), 32 digits
//!           │ └ a hash of /etc/machine-id, 16 digits
//!           └ version of the form
//! ```
//!
//! All fields are lower-case hexadecimal; 0 stands for what could not be learned. The target's
//! name is not part of it, so a target may use all 255 bytes of a name.

use std::ffi::CString;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::sys::fork;

/// How every name begins: what it is, and the version of its form.
pub(crate) const PREFIX: &str = ".ringseal-1-";

/// How the name of a store's spare begins; the name of its file follows. A root has one store, so it tells no
/// owner.
pub(crate) const SPARE: &str = ".ringseal-spare-";

/// The spare's name of a store's file.
pub(crate) fn spare_of(name: &str) -> CString {
    CString::new(format!("{SPARE}{name}")).unwrap_or_default()
}

/// The process that a temporary file belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub machine: u64,
    pub boot: u128,
    pub pid_namespace: u64,
    pub time_namespace: u64,
    pub pid: u32,
    pub start: u64,
}

/// A name that no other file of this process has or had.
pub(crate) fn unique() -> CString {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    static START: AtomicU64 = AtomicU64::new(0);
    // Counting begins at random: after an exec the process has its old id and start.
    if START.load(Ordering::Relaxed) == 0 {
        let random = RandomState::new().hash_one(fork::generation()) | 1;
        let _ = START.compare_exchange(0, random, Ordering::Relaxed, Ordering::Relaxed);
    }
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let counter = START.load(Ordering::Relaxed).wrapping_add(count);
    Owner::with_this_process(|_, stem| name(stem, counter))
}

/// The name of an owner's stem and a counter.
fn name(stem: &str, counter: u64) -> CString {
    let mut name = Vec::with_capacity(stem.len() + 17);
    name.extend_from_slice(stem.as_bytes());
    for digit in (0..16).rev() {
        name.push(b"0123456789abcdef"[(counter >> (4 * digit)) as usize & 0xf]);
    }
    // No byte of it can be NUL.
    CString::new(name).unwrap_or_default()
}

/// A temporary file's name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub owner: Owner,
    pub counter: u64,
}

impl Name {
    /// Reads a name; `None` unless it is, to the letter, one that this crate makes.
    pub(crate) fn parse(name: &[u8]) -> Option<Name> {
        let text = std::str::from_utf8(name).ok()?;
        let fields: Vec<&str> = text.strip_prefix(PREFIX)?.split('-').collect();
        let [machine, boot, pid_namespace, time_namespace, pid, start, counter] = fields[..] else {
            return None;
        };
        let number = |field| u64::from_str_radix(field, 16).ok();
        let parsed = Name {
            owner: Owner {
                machine: number(machine)?,
                boot: u128::from_str_radix(boot, 16).ok()?,
                pid_namespace: number(pid_namespace)?,
                time_namespace: number(time_namespace)?,
                pid: u32::from_str_radix(pid, 16).ok()?,
                start: number(start)?,
            },
            counter: number(counter)?,
        };
        let canonical = self::name(&parsed.owner.stem(), parsed.counter);
        (canonical.as_bytes() == name).then_some(parsed)
    }
}

impl Owner {
    /// This process.
    pub(crate) fn this_process() -> Owner {
        Owner::with_this_process(|owner, _| owner.clone())
    }

    /// This process, and the stem of its files' names. Learned once, and anew in a forked child;
    /// what could not be learned (no `/proc`, no descriptor free) is asked again the next time.
    fn with_this_process<T>(body: impl FnOnce(&Owner, &str) -> T) -> T {
        static KNOWN: AtomicPtr<(u64, Owner, String)> = AtomicPtr::new(ptr::null_mut());
        let generation = fork::generation();
        let known = KNOWN.load(Ordering::Acquire);
        // SAFETY: null, or a leaked box that is never freed nor changed once it is published.
        match unsafe { known.as_ref() } {
            Some((of, owner, stem)) if *of == generation => return body(owner, stem),
            _ => {}
        }
        let owner = Owner::learn();
        let stem = owner.stem();
        let answer = body(&owner, &stem);
        if owner.start != 0 && owner.boot != 0 {
            // One small leak for each fork; a lock here could be held by a thread that a child
            // does not have.
            KNOWN.store(Box::into_raw(Box::new((generation, owner, stem))), Ordering::Release);
        }
        answer
    }

    /// Everything of a name but the counter.
    fn stem(&self) -> String {
        let Owner { machine, boot, pid_namespace, time_namespace, pid, start } = self;
        format!(
            "{PREFIX}{machine:016x}-{boot:032x}-{pid_namespace:x}-{time_namespace:x}-\
             {pid:x}-{start:x}-"
        )
    }

    fn learn() -> Owner {
        let pid = std::process::id();
        Owner {
            machine: fs::read_to_string("/etc/machine-id").map_or(0, |id| hash(id.trim())),
            boot: boot_id().unwrap_or(0),
            pid_namespace: namespace("/proc/self/ns/pid").unwrap_or(0),
            time_namespace: namespace("/proc/self/ns/time").unwrap_or(0),
            pid,
            start: if proc_is_ours() { start_of(pid).unwrap_or(0) } else { 0 },
        }
    }
}

/// Does `/proc` show this process's own pid namespace? If not, its numbers are other processes'.
pub(crate) fn proc_is_ours() -> bool {
    let pid = fs::read_link("/proc/self").ok();
    pid.is_some_and(|pid| pid.to_str() == Some(std::process::id().to_string().as_str()))
}

/// When a process started, in clock ticks since boot: field 22 of `/proc/PID/stat`.
pub(crate) fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses, which can hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn boot_id() -> Option<u128> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    u128::from_str_radix(&id.trim().replace('-', ""), 16).ok()
}

/// The inode number in a link such as `pid:[4026531836]`.
fn namespace(link: &str) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    let (_, number) = target.to_str()?.split_once('[')?;
    number.strip_suffix(']')?.parse().ok()
}

/// FNV-1a: machine-id(5) asks that the id itself is not shown.
fn hash(text: &str) -> u64 {
    if text.is_empty() {
        return 0;
    }
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_it_was_made() {
        let text = unique();
        let name = Name::parse(text.as_bytes()).unwrap();
        assert_eq!(name.owner, Owner::this_process());
        assert_eq!(self::name(&name.owner.stem(), name.counter), text);
        assert!(text.as_bytes().len() <= 143, "what eCryptfs allows: {text:?}");
        assert_ne!(unique(), text);
        assert_ne!(name.owner.start, 0);
        assert_ne!(name.owner.boot, 0);
    }

    #[test]
    fn what_merely_looks_like_a_name_is_none() {
        let name = unique().into_string().unwrap();
        let looks = [
            format!("{name}0"),
            format!("{name}.bak"),
            format!("x{name}"),
            name.to_uppercase(),
            name.replacen("-1-", "-2-", 1),
            name.replacen("-1-", "-1-0", 1),
            name[..name.len() - 1].to_owned(),
            name.rsplit_once('-').unwrap().0.to_owned(),
            PREFIX.to_owned(),
            ".ringseal".to_owned(),
            String::new(),
        ];
        for look in looks {
            assert_eq!(Name::parse(look.as_bytes()), None, "{look}");
        }
        assert_eq!(Name::parse(b".ringseal-1-\xff"), None);
    }
}
