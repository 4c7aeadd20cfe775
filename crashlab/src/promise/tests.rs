//! Each way to break a promise is found, and what keeps it is not.

use super::*;
use crate::load::content::Version;

fn change(path: &str, number: u32) -> Change {
    Change { path: path.to_owned(), to: Some(Version { number, bytes: 100 }) }
}

fn gone(path: &str) -> Change {
    Change { path: path.to_owned(), to: None }
}

fn asked(operation: u32, changes: &[Change], kind: Kind) -> Note {
    Note::Asked(Asked { operation, changes: changes.to_vec(), whole: changes.len() > 1, kind })
}

fn answered(operation: u32, how: How) -> Note {
    Note::Answered { operation, how: vec![how; 3] }
}

const DURABLE: How = How::Durable { order: (1, 0) };

fn said(notes: impl IntoIterator<Item = Note>) -> Said {
    let mut said = Said::new(vec![change("a", 1)]);
    notes.into_iter().for_each(|note| said.hear(note));
    said
}

fn found<const N: usize>(there: [(&str, Found); N]) -> Contents {
    there.into_iter().map(|(path, found)| (path.to_owned(), found)).collect()
}

fn is_kept(said: &Said, there: Contents) -> bool {
    said.broken_by(&there, true).is_empty()
}

#[test]
fn a_save_under_way_may_be_there_or_not_and_nothing_else() {
    let said = said([asked(1, &[change("a", 2)], Kind::Plain)]);
    assert!(is_kept(&said, found([("a", Found::Version(1))])));
    assert!(is_kept(&said, found([("a", Found::Version(2))])));
    for there in [Found::Version(3), Found::Empty, Found::Nothing, Found::Torn("zeros".into())] {
        assert!(!is_kept(&said, found([("a", there.clone())])), "{there}");
    }
    assert!(!is_kept(&said, found([("a", Found::Version(1)), ("b", Found::Version(1))])));
}

#[test]
fn an_answer_binds() {
    let save = |how| said([asked(1, &[change("a", 2)], Kind::Plain), answered(1, how)]);
    let old = || found([("a", Found::Version(1))]);
    let new = || found([("a", Found::Version(2))]);
    assert!(!is_kept(&save(DURABLE), old()) && is_kept(&save(DURABLE), new()));
    assert!(is_kept(&save(How::Unchanged), old()) && !is_kept(&save(How::Unchanged), new()));
    assert!(is_kept(&save(How::Unknown), old()) && is_kept(&save(How::Unknown), new()));
    assert!(is_kept(&save(How::Visible), old()) && is_kept(&save(How::Visible), new()));
}

#[test]
fn what_is_visible_binds_unless_the_power_is_cut() {
    let save = said([asked(1, &[change("a", 2)], Kind::Atomic), answered(1, How::Visible)]);
    let old = || found([("a", Found::Version(1))]);
    assert!(save.broken_by(&old(), true).is_empty());
    assert!(!save.broken_by(&old(), false).is_empty());
    let torn = || found([("a", Found::Torn("zeros".into()))]);
    assert!(save.broken_by(&torn(), true).is_empty());
    assert!(!save.broken_by(&torn(), false).is_empty());
}

#[test]
fn of_two_at_once_either_may_be_last_unless_their_order_is_known() {
    let both = |one, two| {
        said([
            asked(1, &[change("a", 2)], Kind::Plain),
            asked(2, &[change("a", 3)], Kind::Plain),
            answered(1, one),
            answered(2, two),
        ])
    };
    let older = || found([("a", Found::Version(2))]);
    assert!(is_kept(&both(DURABLE, DURABLE), older()));
    let order = |at| How::Durable { order: (1, at) };
    assert!(!is_kept(&both(order(1), order(2)), older()));
    assert!(is_kept(&both(order(2), order(1)), older()));
    // One that was never written is not there.
    assert!(!is_kept(&both(How::Overtaken { order: (1, 2) }, order(2)), older()));
}

#[test]
fn a_load_that_does_nothing_is_told() {
    let save = |how| {
        let ended = Note::Ended { by_ring: 0 };
        let answered = Note::Answered { operation: 1, how };
        said([asked(1, &[change("a", 2)], Kind::Plain), answered, ended])
    };
    assert_eq!(save(vec![DURABLE]).not_done(false), [""; 0]);
    for how in [vec![], vec![How::NotAsked], vec![How::Unchanged], vec![How::Unknown]] {
        assert!(!save(how).not_done(false).is_empty());
    }
    // Nor does one that was to use the ring, and did not, or that did not end.
    assert!(!save(vec![DURABLE]).not_done(true).is_empty());
    let cut_off = said([asked(1, &[change("a", 2)], Kind::Plain), answered(1, DURABLE)]);
    assert!(!cut_off.not_done(false).is_empty());
}

#[test]
fn what_was_removed_is_not_back() {
    let said = said([asked(1, &[gone("a")], Kind::Plain), answered(1, DURABLE)]);
    assert!(is_kept(&said, found([])));
    assert!(!is_kept(&said, found([("a", Found::Version(1))])));
}

#[test]
fn a_transaction_is_whole() {
    let both = [change("a", 2), change("b", 3)];
    let said = said([asked(1, &both, Kind::Plain)]);
    assert!(is_kept(&said, found([("a", Found::Version(1))])));
    assert!(is_kept(&said, found([("a", Found::Version(2)), ("b", Found::Version(3))])));
    assert!(!is_kept(&said, found([("a", Found::Version(2))])));
    assert!(!is_kept(&said, found([("a", Found::Version(1)), ("b", Found::Version(3))])));
}

#[test]
fn the_previous_version_stands_beside_the_new_one() {
    let kept = Kind::KeepPrevious;
    let said = said([
        asked(1, &[change("a", 2)], kept),
        answered(1, DURABLE),
        asked(2, &[change("a", 3)], kept),
    ]);
    let pair = |new, old| found([("a", Found::Version(new)), ("a.previous", Found::Version(old))]);
    for (new, old) in [(2, 1), (2, 2), (3, 2)] {
        assert!(is_kept(&said, pair(new, old)), "{new} {old}");
    }
    for (new, old) in [(2, 3), (3, 1), (3, 3), (1, 1)] {
        assert!(!is_kept(&said, pair(new, old)), "{new} {old}");
    }
    assert!(!is_kept(&said, found([("a", Found::Version(2))])));
}

#[test]
fn only_one_creates_a_file() {
    let said = said([asked(1, &[change("a", 2)], Kind::CreateNew), answered(1, DURABLE)]);
    assert!(!is_kept(&said, found([("a", Found::Version(2))])));
}
