//! Calls of a store.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{OTHER, PID, STATE};

#[derive(Debug, Clone)]
pub(super) enum Call {
    Commit {
        changes: Vec<Change>,
        is_future: bool,
    },
    Pid(String, u32),
    Load(String, String),
    /// Closed, and opened again.
    Reopen,
    /// The last handle is dropped, and it is opened again.
    Drop,
    /// Done by a process that ends in the middle of its life.
    Killed(Vec<Call>),
}

#[derive(Clone)]
pub(super) enum Change {
    Save(String, String, Vec<u8>),
    Remove(String),
}

impl Change {
    pub(super) fn len(&self) -> usize {
        match self {
            Change::Save(_, _, data) => data.len(),
            Change::Remove(_) => 0,
        }
    }
}

pub(super) fn calls() -> impl Strategy<Value = Vec<Call>> {
    let killed = vec(call(), 0..4).prop_map(Call::Killed);
    let any = prop_oneof![
        20 => call(),
        2 => Just(Call::Reopen),
        1 => Just(Call::Drop),
        1 => killed,
    ];
    vec(any, 1..8)
}

fn call() -> impl Strategy<Value = Call> {
    let commit = |changes: std::ops::Range<usize>| {
        (vec(change(), changes), any::<bool>())
            .prop_map(|(changes, is_future)| Call::Commit { changes, is_future })
    };
    prop_oneof![
        6 => commit(1..2),
        4 => commit(0..6),
        2 => (id(), any::<u32>()).prop_map(|(id, pid)| Call::Pid(id, pid)),
        2 => (id(), name()).prop_map(|(id, name)| Call::Load(id, name)),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let len = prop_oneof![20 => 0..200usize, 2 => 4000..9000usize, 1 => 30_000..70_000usize];
    let data = (any::<u8>(), len).prop_map(|(fill, len)| vec![fill; len]);
    prop_oneof![
        4 => (id(), name(), data).prop_map(|(id, name, data)| Change::Save(id, name, data)),
        1 => id().prop_map(Change::Remove),
    ]
}

fn id() -> impl Strategy<Value = String> {
    let bad = &[
        "",
        ".",
        "..",
        ".ringseal",
        ".RingSeal",
        "a/b",
        "../x",
        "/",
        "a\0",
        "a b",
        "\u{fc}",
        "a\n",
    ][..];
    prop_oneof![
        30 => select(&["a", "b", "web-1"][..]).prop_map(str::to_owned),
        6 => select(&["A_b+c.d", "...", ".hidden", "-"][..]).prop_map(str::to_owned),
        1 => (253..258usize).prop_map(|len| "n".repeat(len)),
        2 => select(bad).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn name() -> impl Strategy<Value = String> {
    let bad = &["", ".", "..", "passwd", "../state.json", "state.json/", "a\0"][..];
    prop_oneof![
        12 => Just(STATE.to_owned()),
        4 => Just(OTHER.to_owned()),
        1 => Just(PID.to_owned()),
        1 => select(bad).prop_map(str::to_owned),
    ]
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Change::Save(id, name, data) => {
                let fill = data.first().copied().unwrap_or(0);
                write!(f, "Save({id:?}, {name:?}, {}x{fill:#x})", data.len())
            }
            Change::Remove(id) => write!(f, "Remove({id:?})"),
        }
    }
}
