//! Cases of saves: what stands there, and who saves what to it.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::inputs::tree::Thing;

/// What a case's saves are named relative to, so far below its own directory that no `..` of a path, which has three
/// names at most, leads out of that.
pub(super) const ROOT: &str = "y/root";

/// What stands there, and then is saved.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// Which of the things that can stand there do, a bit for each.
    pub plants: u16,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    One(Save),
    /// Plain saves that come together.
    Together(Door, Vec<Save>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Plain,
    Stream,
    Threads,
    Ring,
}

/// How a target is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Path,
    At,
    Beneath,
}

#[derive(Clone)]
pub(super) struct Save {
    pub door: Door,
    pub how: How,
    pub path: Vec<u8>,
    pub fill: u8,
    pub len: usize,
    pub mode: Option<u32>,
    pub keep_mode: bool,
    pub keep_owner: bool,
    pub create_new: bool,
    pub previous: Option<Vec<u8>>,
    pub is_atomic: bool,
}

/// A name of the form that the library's temporary files have.
const OWN: &[u8] =
    b".ringseal-1-0000000000000001-00000000000000000000000000000002-3-4-5-6-0000000000000007";

const NAMES: [&[u8]; 10] =
    [b"a", b"b", b"state.json", b"d", b"e", b"l", b"out", b"dangling", b"fifo", b"previous"];

const ODD: [&[u8]; 9] =
    [b"", b".", b"..", b"loop", b"x\0y", b"\xff\xfe", OWN, b"a b\n", "\u{fc}".as_bytes()];

pub(super) fn case() -> impl Strategy<Value = Case> {
    let step = prop_oneof![
        6 => save().prop_map(Step::One),
        1 => (select(&[Door::Threads, Door::Ring][..]), vec(plain(), 1..5))
            .prop_map(|(door, saves)| Step::Together(door, saves)),
    ];
    (any::<u16>(), vec(step, 1..5)).prop_map(|(plants, steps)| Case { plants, steps })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        10 => select(&NAMES[..]).prop_map(<[u8]>::to_vec),
        2 => select(&ODD[..]).prop_map(<[u8]>::to_vec),
        1 => (250..258usize).prop_map(|len| vec![b'n'; len]),
        1 => vec(any::<u8>().prop_filter("no slash", |byte| *byte != b'/'), 0..6),
    ]
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let joined = || vec(name(), 1..4).prop_map(|names| names.join(&b'/'));
    prop_oneof![
        6 => name(),
        6 => joined(),
        1 => joined().prop_map(|path| [b"/", &path[..]].concat()),
        1 => joined().prop_map(|path| [&path[..], b"/"].concat()),
        1 => (2000..2060usize, joined())
            .prop_map(|(times, path)| [&b"./".repeat(times)[..], &path].concat()),
    ]
}

fn mode() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![
        4 => Just(None),
        4 => (0..=0o777u32).prop_map(Some),
        1 => any::<u32>().prop_map(Some),
    ]
}

fn previous() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![2 => Just(None), 1 => name().prop_map(Some)]
}

fn save() -> impl Strategy<Value = Save> {
    let doors = &[Door::Plain, Door::Stream, Door::Threads, Door::Ring][..];
    let hows = &[How::Path, How::At, How::Beneath][..];
    let len = prop_oneof![40 => 0..300usize, 1 => Just(300_000)];
    let named = (select(doors), select(hows), path(), any::<u8>(), len);
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.3), any::<bool>());
    (named, mode(), previous(), flags).prop_map(
        |((door, how, path, fill, len), mode, previous, flags)| {
            let (keep_mode, keep_owner, create_new, is_atomic) = flags;
            let (keep_mode, keep_owner) = (keep_mode && fill % 2 == 0, keep_owner && fill % 3 == 0);
            Save {
                door,
                how,
                path,
                fill,
                len,
                mode,
                keep_mode,
                keep_owner,
                create_new,
                previous,
                is_atomic,
            }
        },
    )
}

/// One that does nothing but replace, and to a path that no other's goes through: they are looked at before, or
/// after, those that come with them are carried out.
fn plain() -> impl Strategy<Value = Save> {
    let directories = &["", "d/", "./", "d/../", "d/e/", "../outside/", "none/"][..];
    let names = &["a", "b", "state.json", "previous", "x", "fifo"][..];
    (save(), select(directories), select(names)).prop_map(|(save, directory, name)| Save {
        path: format!("{directory}{name}").into_bytes(),
        keep_mode: false,
        keep_owner: false,
        create_new: false,
        previous: None,
        ..save
    })
}

/// What stands in a case's own directory.
pub(super) fn standing(plants: u16) -> Vec<(&'static [u8], Thing)> {
    let file = |mode, data: &str| Thing::File { mode, data: data.into() };
    let link = |target: &str| Thing::Link(target.into());
    let always: [(&[u8], Thing); 5] = [
        (b"y", Thing::Directory),
        (b"y/root", Thing::Directory),
        (b"y/outside", Thing::Directory),
        (b"y/outside/a", file(0o600, "theirs")),
        (b"y/root/d", Thing::Directory),
    ];
    let perhaps: [(&[u8], Thing); 13] = [
        (b"y/root/d/e", Thing::Directory),
        (b"y/root/l", link("d")),
        (b"y/root/out", link("../outside")),
        (b"y/root/loop", link("loop")),
        (b"y/root/dangling", link("nowhere")),
        (b"y/root/fifo", Thing::Fifo),
        (b"y/root/a", file(0o640, "old")),
        (b"y/root/state.json", file(0o444, "{}")),
        (b"y/root/previous", file(0o600, "older")),
        (b"y/root/d/a", Thing::Fifo),
        (b"y/root/d/b", link("../../outside/a")),
        (b"y/root/b", Thing::Directory),
        (b"y/root/d/previous", Thing::Directory),
    ];
    let perhaps = perhaps.into_iter().enumerate();
    let perhaps = perhaps.filter(|(index, _)| plants & (1 << index) != 0).map(|(_, plant)| plant);
    always.into_iter().chain(perhaps).collect()
}

impl std::fmt::Debug for Save {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = match self.path.len() {
            0..600 => self.path.escape_ascii().to_string(),
            len => format!("({len} bytes) ..{}", self.path[len - 40..].escape_ascii()),
        };
        write!(f, "{:?} {:?} {path:?} {}x{:#x}", self.door, self.how, self.len, self.fill)?;
        if let Some(mode) = self.mode {
            write!(f, " mode {mode:o}")?;
        }
        let flags = [
            (self.keep_mode, "keep_mode"),
            (self.keep_owner, "keep_owner"),
            (self.create_new, "create_new"),
            (self.is_atomic, "atomic"),
        ];
        flags
            .iter()
            .filter(|(is_set, _)| *is_set)
            .try_for_each(|(_, flag)| write!(f, " {flag}"))?;
        match &self.previous {
            Some(previous) => write!(f, " previous {:?}", previous.escape_ascii().to_string()),
            None => Ok(()),
        }
    }
}
