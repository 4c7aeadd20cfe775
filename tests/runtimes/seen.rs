//! All that can be seen of a runtime's containers.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{ContainerState, State};

use crate::runtime::{CREATED, IDS, RUNNING, Runtime, STOPPED};

/// What the runtime says of its containers, one by one and in its list, and what it keeps of them.
#[derive(Debug, PartialEq)]
pub struct Seen {
    states: Vec<State>,
    list: Vec<State>,
    entries: BTreeMap<PathBuf, Entry>,
}

/// Mode (with the type) and owner; the bytes, if it is a file.
#[derive(Debug, PartialEq)]
struct Entry(u32, u32, u32, Option<Vec<u8>>);

impl Seen {
    /// Must be called when there are all three containers.
    #[track_caller]
    pub fn of(runtime: &Runtime) -> Seen {
        let states: Vec<State> = IDS.iter().map(|id| runtime.state(id).unwrap()).collect();
        let list = runtime.list().unwrap();
        let expected = [
            (CREATED, ContainerState::Created),
            (RUNNING, ContainerState::Running),
            (STOPPED, ContainerState::Stopped),
        ];
        for of in [&states, &list] {
            let said: Vec<_> = of.iter().map(|state| (&**state.id(), *state.status())).collect();
            assert_eq!(said, expected);
            for state in of {
                assert_eq!(*state.bundle(), runtime.bundle(state.id()));
                let lives = *state.status() != ContainerState::Stopped;
                assert_eq!(state.pid().is_some_and(|pid| pid > 0), lives, "{state:?}");
            }
        }
        let mut entries = BTreeMap::new();
        collect(&runtime.root(), &mut entries);
        Seen { states, list, entries }
    }
}

/// Whatever is below a directory, but for what is a store's own.
fn collect(dir: &Path, entries: &mut BTreeMap<PathBuf, Entry>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_name().as_encoded_bytes().starts_with(b".ringseal") {
            continue;
        }
        let (path, about) = (entry.path(), entry.metadata().unwrap());
        if about.is_dir() {
            collect(&path, entries);
        }
        let bytes = about.is_file().then(|| fs::read(&path).unwrap());
        assert!(bytes.is_some() || about.is_dir() || about.file_type().is_fifo(), "{path:?}");
        entries.insert(path, Entry(about.mode(), about.uid(), about.gid(), bytes));
    }
}
