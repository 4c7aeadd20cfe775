//! What somebody else does below a root, and what the store does in between.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::inputs::tree::Thing;

pub(super) struct Case(pub Vec<Act>);

#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Somebody else's.
    Plant(String, Thing),
    Clear(String),
    Move(String, String),
    /// The store's.
    Reopen,
    Save(String, Vec<u8>),
    Pair(String, String, Vec<u8>),
    Pid(String),
    Remove(String),
    Look(String),
}

const IDS: [&str; 3] = ["a", "b", "c"];

pub(super) fn case() -> impl Strategy<Value = Case> {
    vec(act(), 1..12).prop_map(Case)
}

fn act() -> impl Strategy<Value = Act> {
    let id = || select(&IDS[..]).prop_map(str::to_owned);
    let data = || (any::<u8>(), 0..60usize).prop_map(|(fill, len)| vec![fill; len]);
    prop_oneof![
        6 => (path(), thing()).prop_map(|(path, thing)| Act::Plant(path, thing)),
        3 => path().prop_map(Act::Clear),
        2 => (path(), path()).prop_map(|(from, to)| Act::Move(from, to)),
        1 => Just(Act::Reopen),
        5 => (id(), data()).prop_map(|(id, data)| Act::Save(id, data)),
        3 => (id(), id(), data()).prop_map(|(one, other, data)| Act::Pair(one, other, data)),
        1 => id().prop_map(Act::Pid),
        2 => id().prop_map(Act::Remove),
        2 => id().prop_map(Act::Look),
    ]
}

fn path() -> impl Strategy<Value = String> {
    let names = &["state.json", "init.pid", "theirs", "dir", "dir/below"][..];
    prop_oneof![
        2 => select(&IDS[..]).prop_map(str::to_owned),
        4 => (select(&IDS[..]), select(names)).prop_map(|(id, name)| format!("{id}/{name}")),
        1 => select(&["theirs", "elsewhere"][..]).prop_map(str::to_owned),
    ]
}

fn thing() -> impl Strategy<Value = Thing> {
    let links = &[
        "../outside",
        "../outside/state.json",
        "../../outside/state.json",
        "a",
        "b",
        "nowhere",
        "/",
    ][..];
    prop_oneof![
        3 => Just(Thing::Directory),
        2 => Just(Thing::Fifo),
        3 => select(links).prop_map(|link| Thing::Link(link.into())),
        3 => (0..3usize).prop_map(|len| Thing::File { mode: 0o644, data: vec![b'x'; len] }),
    ]
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
