//! What was promised, and whether what is found keeps it. Pure: from the notes of a load to what may be there.

use std::collections::BTreeMap;

use crate::load::content::Found;
use crate::load::note::{Asked, Change, How, Kind, Note, previous};

/// All that was said up to a moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said {
    /// The first versions, asked for and answered before everything else.
    first: Vec<Change>,
    operations: BTreeMap<u32, Operation>,
    wrong: Vec<String>,
    /// Saves that the ring carried; told at the end.
    by_ring: Option<u64>,
    notes: usize,
}

#[derive(Debug, Clone)]
struct Operation {
    asked: Asked,
    asked_at: usize,
    answer: Option<(usize, Vec<How>)>,
}

/// A change of a path that may be what is found there.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    change: &'a Change,
    /// `None`: it was there before the load.
    operation: Option<&'a Operation>,
    at: usize,
    /// The library said that this one, or a later one, is there: whatever happens, or if no power cut does.
    binds: bool,
}

/// What may be found at each path, in the order in which it was asked for.
type Paths<'a> = BTreeMap<&'a str, Vec<Candidate<'a>>>;

/// A path and what is there.
pub(crate) type Contents = BTreeMap<String, Found>;

impl Said {
    pub(crate) fn new(first: Vec<Change>) -> Said {
        Said { first, ..Said::default() }
    }

    /// Takes the next note.
    pub(crate) fn hear(&mut self, note: Note) {
        self.notes += 1;
        let at = self.notes;
        match note {
            Note::Asked(asked) => {
                let operation = Operation { asked, asked_at: at, answer: None };
                self.operations.insert(operation.asked.operation, operation);
            }
            Note::Answered { operation, how } => {
                if let Some(operation) = self.operations.get_mut(&operation) {
                    operation.answer = Some((at, how));
                }
            }
            Note::Wrong(what) => self.wrong.push(what),
            Note::Ended { by_ring } => self.by_ring = Some(by_ring),
        }
    }

    /// The answers, counted: durable, unchanged, neither.
    pub(crate) fn answers(&self) -> [u64; 3] {
        let mut count = [0; 3];
        for how in self.operations.values().filter_map(|o| o.answer.as_ref()).flat_map(|a| &a.1) {
            match how {
                How::Durable { .. } | How::Overtaken { .. } => count[0] += 1,
                How::Unchanged => count[1] += 1,
                How::Unknown | How::Visible => count[2] += 1,
                How::NotAsked => {}
            }
        }
        count
    }

    /// What was not answered as it is where nothing disturbs: a load that does nothing would break nothing. `ring`:
    /// the ring was to be used.
    pub(crate) fn not_done(&self, ring: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        match self.by_ring {
            None => wrong.push("it did not come to its end".to_owned()),
            Some(0) if ring => wrong.push("the ring has carried nothing".to_owned()),
            Some(_) => {}
        }
        for Operation { asked, answer, .. } in self.operations.values() {
            let may_refuse =
                asked.kind == Kind::CreateNew || asked.changes.iter().any(|it| it.to.is_none());
            let is_good = |how: &How| match how {
                How::Durable { .. } | How::Overtaken { .. } => true,
                How::Unchanged => may_refuse,
                How::Visible => asked.kind == Kind::Atomic,
                How::Unknown => asked.changes.iter().any(|it| it.path.ends_with('/')),
                How::NotAsked => false,
            };
            let all = answer.as_ref().map(|(_, how)| &how[..]);
            if !all.is_some_and(|all| all.len() == asked.changes.len() && all.iter().all(is_good)) {
                wrong.push(format!("operation {} was answered {all:?}", asked.operation));
            }
        }
        if self.answers()[0] == 0 {
            wrong.push("nothing was saved".to_owned());
        }
        wrong
    }

    /// What is broken in what was found; empty is good. `cut`: the power was cut, so that what was only visible
    /// may be gone or torn. Without a cut it binds as what is durable does.
    pub(crate) fn broken_by(&self, found: &Contents, cut: bool) -> Vec<String> {
        let mut broken = self.wrong.clone();
        let paths = self.candidates(cut);
        broken.extend(created_twice(&paths));
        let mut explained = Paths::new();
        for (path, candidates) in &paths {
            let there = found.get(*path).unwrap_or(&Found::Nothing);
            if cut
                && candidates.iter().any(|candidate| candidate.is_atomic())
                && !path.ends_with('/')
            {
                continue;
            }
            let like: Vec<_> = candidates.iter().copied().filter(|it| it.is_like(there)).collect();
            let may_be: Vec<_> =
                like.iter().copied().filter(|it| it.may_be_there(candidates)).collect();
            if may_be.is_empty() {
                broken.push(self.explain(path, there, &like, candidates));
            }
            explained.insert(path, may_be);
        }
        broken.extend(self.torn(&paths, &explained));
        broken.extend(kept(&paths, found));
        let keeps = |all: &[Candidate<'_>]| all.iter().any(|it| it.keeps_previous());
        let known = |path: &str| {
            let mut kept = paths.iter().filter(|(_, all)| keeps(all));
            paths.contains_key(path) || kept.any(|(of, _)| previous(of) == path)
        };
        for (path, there) in found.iter().filter(|(path, _)| !known(path)) {
            broken.push(format!("{path}: {there}, which nobody asked for"));
        }
        broken
    }

    /// Every change of every path, the first one too.
    fn candidates(&self, cut: bool) -> Paths<'_> {
        let mut paths = Paths::new();
        for change in &self.first {
            let first = Candidate { change, operation: None, at: 0, binds: true };
            paths.entry(&change.path).or_default().push(first);
        }
        for operation in self.operations.values() {
            for (at, change) in operation.asked.changes.iter().enumerate() {
                let path = paths.entry(&change.path).or_default();
                if path.is_empty() {
                    path.push(Candidate::NOTHING);
                }
                path.push(Candidate {
                    change,
                    operation: Some(operation),
                    at,
                    binds: operation.binds(at, cut),
                });
            }
        }
        paths
    }

    fn explain(
        &self,
        path: &str,
        there: &Found,
        like: &[Candidate<'_>],
        all: &[Candidate<'_>],
    ) -> String {
        let why = match like.first() {
            None => "which was never asked for".to_owned(),
            Some(one) if one.is_unchanged() => "which was answered as unchanged".to_owned(),
            Some(one) => {
                let newer = all.iter().find(|other| other.binds && one.is_before(other));
                let newer = newer.map(|newer| newer.name()).unwrap_or_default();
                format!("but {newer} was acknowledged")
            }
        };
        format!("{path}: {there}, {why}")
    }

    /// Transactions of which a part is there, and a part is not.
    fn torn(&self, paths: &Paths<'_>, explained: &Paths<'_>) -> Vec<String> {
        let mut torn = Vec::new();
        for operation in self.operations.values().filter(|operation| operation.asked.whole) {
            let number = operation.asked.operation;
            let of = |change: &Change| explained.get(change.path.as_str());
            let is_this = |it: &Candidate<'_>| it.number() == Some(number);
            // A directory is made before the transaction is, and by itself tells nothing.
            let tells = |change: &Change| change.to.is_none() || !change.path.ends_with('/');
            let shown = operation.asked.changes.iter().find(|change| {
                tells(change)
                    && of(change)
                        .is_some_and(|may_be| !may_be.is_empty() && may_be.iter().all(is_this))
            });
            let lacking = operation.asked.changes.iter().find(|change| {
                let this = paths[change.path.as_str()].iter().find(|it| is_this(it));
                tells(change)
                    && of(change).zip(this).is_some_and(|(may_be, this)| {
                        !may_be.is_empty() && may_be.iter().all(|it| it.is_before(this))
                    })
            });
            if let (Some(shown), Some(lacking)) = (shown, lacking) {
                torn.push(format!(
                    "operation {number} is torn: {} has it, {} has not",
                    shown.path, lacking.path
                ));
            }
        }
        torn
    }
}

/// The previous version stands beside the new one, and is never newer than it.
fn kept(paths: &Paths<'_>, found: &Contents) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, candidates) in paths {
        if !candidates.iter().any(Candidate::keeps_previous) {
            continue;
        }
        let at = |path: &str| found.get(path).unwrap_or(&Found::Nothing).clone();
        let (new, old) = (at(path), at(&previous(path)));
        // One thread saves them, so their order is that of the candidates. What failed was never there.
        let versions: Vec<&Candidate<'_>> =
            candidates.iter().filter(|it| !it.is_unchanged()).collect();
        let is_good =
            versions.iter().enumerate().filter(|(_, it)| it.is_like(&new)).any(|(place, it)| {
                // The first version has none before it.
                let is_first = place == 0 && old == Found::Nothing;
                // The next save has begun by giving this version the other name.
                let is_next =
                    it.is_like(&old) && candidates.last().is_some_and(|last| it.is_before(last));
                // The one before it; versions in between may never have been there, if nobody knows.
                let is_before = (0..place).any(|older| {
                    let mut between = versions[older + 1..place].iter();
                    versions[older].is_like(&old) && between.all(|it| !it.binds)
                });
                is_first || is_next || is_before
            });
        if !is_good {
            broken.push(format!("{}: {old}, beside {new}", previous(path)));
        }
    }
    broken
}

/// Two that create a file cannot both have done so, unless it was removed in between.
fn created_twice(paths: &Paths<'_>) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, candidates) in paths {
        for new in candidates.iter().filter(|it| it.is_creation() && it.binds) {
            let older = candidates
                .iter()
                .find(|older| older.change.to.is_some() && older.binds && older.is_before(new));
            if let Some(older) = older {
                let (new, older) = (new.name(), older.name());
                broken.push(format!("{path}: {new} was to be a new file, but {older} was there"));
            }
        }
    }
    broken
}

impl Operation {
    /// What was answered of its change number `at`.
    fn how(&self, at: usize) -> Option<How> {
        let (_, how) = self.answer.as_ref()?;
        how.get(at).copied()
    }

    fn binds(&self, at: usize, cut: bool) -> bool {
        match self.how(at) {
            Some(How::Durable { .. } | How::Overtaken { .. }) => true,
            Some(How::Visible) => !cut,
            _ => false,
        }
    }
}

impl<'a> Candidate<'a> {
    /// What is there before anything is: nothing.
    const NOTHING: Candidate<'static> = {
        static NOTHING: Change = Change { path: String::new(), to: None };
        Candidate { change: &NOTHING, operation: None, at: 0, binds: true }
    };

    fn number(&self) -> Option<u32> {
        self.operation.map(|operation| operation.asked.operation)
    }

    fn name(&self) -> String {
        match (self.change.to, self.number()) {
            (Some(version), Some(number)) => {
                format!("version {} (operation {number})", version.number)
            }
            (None, Some(number)) => format!("the removal (operation {number})"),
            (_, None) => "the first version".to_owned(),
        }
    }

    fn how(&self) -> Option<How> {
        self.operation?.how(self.at)
    }

    fn is_atomic(&self) -> bool {
        self.operation.is_some_and(|operation| operation.asked.kind == Kind::Atomic)
    }

    fn keeps_previous(&self) -> bool {
        self.operation.is_some_and(|operation| operation.asked.kind == Kind::KeepPrevious)
    }

    fn is_creation(&self) -> bool {
        self.operation.is_some_and(|operation| operation.asked.kind == Kind::CreateNew)
    }

    /// The library said that this one is not there.
    fn is_unchanged(&self) -> bool {
        // A directory that was made for a save that failed is not taken away.
        let is_directory = self.change.path.ends_with('/') && self.change.to.is_some();
        match self.how() {
            Some(How::Unchanged) => !is_directory,
            Some(How::NotAsked) => true,
            _ => false,
        }
    }

    fn is_like(&self, found: &Found) -> bool {
        match (found, self.change.to) {
            (Found::Nothing, to) => to.is_none(),
            (Found::Empty, Some(version)) => version.bytes == 0,
            (Found::Version(number), Some(version)) => version.number == *number,
            (Found::Directory, Some(_)) => self.change.path.ends_with('/'),
            _ => false,
        }
    }

    fn may_be_there(&self, all: &[Candidate<'_>]) -> bool {
        !self.is_unchanged() && !all.iter().any(|newer| newer.binds && self.is_before(newer))
    }

    /// Was this one certainly accepted before the other?
    fn is_before(&self, other: &Candidate<'_>) -> bool {
        let (Some(this), Some(that)) = (self.operation, other.operation) else {
            return self.operation.is_none() && other.operation.is_some();
        };
        if this.asked.operation == that.asked.operation {
            return self.at < other.at;
        }
        if this.answer.as_ref().is_some_and(|(at, _)| *at < that.asked_at) {
            return true;
        }
        match (self.how(), other.how()) {
            (Some(How::Durable { order: this }), Some(How::Durable { order: that })) => {
                this.0 == that.0 && 0 < this.1 && this.1 < that.1
            }
            // The number is that of the one which stands for it.
            (Some(How::Overtaken { order: this }), Some(How::Durable { order: that })) => {
                this.0 == that.0 && this.1 <= that.1
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
