//! States: any JSON that is saved is loaded again and equal; what is no JSON is said to be none, with the place
//! where it stops making sense, and `verify` lists exactly that.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use ringseal::{Cause, Error, StateReader, StateStore, Step, StoreOptions, Unreadable};
use serde_json::{Map, Number, Value};

use super::rooms::{Outcome, check};

const IDS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum State {
    Value(Value),
    Bytes(Vec<u8>),
}

pub(super) fn run(cases: u64, seed: u64, scratch: &Path) -> anyhow::Result<Outcome> {
    let root = scratch.join("root");
    let store = StateStore::open_blocking(&root)?;
    let reader = StoreOptions::new().open_read_only(&root)?;
    let outcome = check(cases, seed, &vec(state(), 1..=IDS.len()), |states| {
        states.iter().zip(IDS).try_for_each(|(state, id)| one(&store, id, state))?;
        if states.len() == IDS.len() {
            all(&store, &reader, &states)?;
        }
        Ok(())
    });
    store.close_blocking()?;
    Ok(outcome)
}

fn one(store: &StateStore, id: &str, state: &State) -> anyhow::Result<()> {
    let bytes = bytes_of(state)?;
    let committed = match state {
        State::Value(value) => store.save_blocking(id, value)?,
        State::Bytes(bytes) => store.save_bytes_blocking(id, bytes.clone())?,
    };
    ensure!(committed.bytes == bytes.len() as u64, "{committed:?}");
    let loaded = store.load_bytes_blocking(id)?.context("it is not there")?;
    ensure!(loaded == bytes, "other bytes: {}", loaded.escape_ascii());
    match (state, store.load_blocking::<Value>(id)) {
        (State::Value(value), Ok(found)) => {
            ensure!(found.as_ref() == Some(value), "loaded: {found:?}");
            Ok(())
        }
        (State::Bytes(bytes), found) => match (serde_json::from_slice::<Value>(bytes), found) {
            (Ok(value), Ok(found)) => {
                ensure!(found == Some(value), "loaded: {found:?}");
                Ok(())
            }
            (Err(_), Err(error)) => is_refused(&error, bytes),
            (json, found) => bail!("{json:?}, but loaded: {found:?}"),
        },
        (State::Value(_), Err(error)) => bail!("it is not loaded: {error}"),
    }
}

fn bytes_of(state: &State) -> anyhow::Result<Vec<u8>> {
    match state {
        State::Value(value) => Ok(serde_json::to_vec(value)?),
        State::Bytes(bytes) => Ok(bytes.clone()),
    }
}

/// Is it an error of parsing, with a place in these bytes?
fn is_refused(error: &Error, bytes: &[u8]) -> anyhow::Result<()> {
    ensure!(error.step() == Step::Check, "{error}");
    let Cause::Parse(cause) = error.cause() else { bail!("not of parsing: {error}") };
    is_place(bytes, (cause.line(), cause.column()))
}

fn is_place(bytes: &[u8], (line, column): (usize, usize)) -> anyhow::Result<()> {
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let its = line.checked_sub(1).and_then(|line| lines.get(line));
    let its = its.with_context(|| format!("line {line} of {}", lines.len()))?;
    ensure!(column <= its.len() + 1, "line {line}, column {column} of {}", its.len());
    Ok(())
}

fn all(store: &StateStore, reader: &StateReader, states: &[State]) -> anyhow::Result<()> {
    let mut expected = Vec::new();
    for (id, state) in IDS.into_iter().zip(states) {
        if serde_json::from_slice::<Value>(&bytes_of(state)?).is_err() {
            expected.push(id);
        }
    }
    for found in [store.verify_blocking()?, reader.verify()?] {
        let ids: Vec<&str> = found.iter().map(|one| one.id.as_str()).collect();
        ensure!(ids == expected, "verify lists {ids:?}, not {expected:?}");
        for Unreadable { id, place, error, .. } in &found {
            let state = IDS.iter().position(|known| known == id).map(|index| &states[index]);
            let bytes = bytes_of(state.context("an id that was not saved")?)?;
            is_place(&bytes, place.with_context(|| format!("no place: {error}"))?)?;
        }
    }
    ensure!(store.list_blocking()? == IDS, "the list is {:?}", store.list_blocking());
    Ok(())
}

fn state() -> impl Strategy<Value = State> {
    let text = |value: Value| serde_json::to_vec(&value).unwrap_or_default();
    let damaged = (value(), any::<prop::sample::Index>(), any::<u8>(), 0..4u8).prop_map(
        move |(value, index, byte, how)| {
            let mut bytes = text(value);
            let at = index.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, byte),
                _ => bytes.push(byte),
            }
            bytes
        },
    );
    let deep = (1..400usize).prop_map(|depth| [b"[".repeat(depth), b"]".repeat(depth)].concat());
    prop_oneof![
        6 => value().prop_map(State::Value),
        3 => damaged.prop_map(State::Bytes),
        2 => vec(any::<u8>(), 0..40).prop_map(State::Bytes),
        1 => "[ \\n\\t{}\\[\\]\":,0-9a-eE+\\-.ntrufls\\\\]{0,30}"
            .prop_map(|text| State::Bytes(text.into_bytes())),
        1 => deep.prop_map(State::Bytes),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|float| Number::from_f64(float).map_or(Value::Null, Value::Number)),
        (-1000..1000i32).prop_map(|tenths| Value::from(f64::from(tenths) / 10.0)),
    ];
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::Bool),
        3 => number,
        3 => text().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            btree_map(text(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => vec(any::<char>(), 0..8).prop_map(|text| text.into_iter().collect()),
        2 => vec(prop::sample::select(&['"', '\\', '/', '\0', '\n', '\u{7f}', '\u{2028}'][..]), 0..4)
            .prop_map(|text| text.into_iter().collect()),
        2 => prop::sample::select(&["status", "running", "pid", "", "ociVersion"][..])
            .prop_map(str::to_owned),
    ]
}
