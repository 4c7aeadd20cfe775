//! How often the kernel is entered: a batch is one submission, however many saves and steps it has.

use ringseal::{Carrier, Engine, Writer};
use tempfile::tempdir;

use crate::support::{child, skip, strace};

const NAME: &str = "trace::a_batch_is_a_bounded_number_of_enters";

/// strace counts the calls of a process that saves a batch of N on an idle writer.
#[test]
fn a_batch_is_a_bounded_number_of_enters() {
    child::run_if_child(NAME, || {
        let saves: usize = std::env::var("SAVES").unwrap().parse().unwrap();
        let dir = tempdir().unwrap();
        let writer = Writer::builder().engine(Engine::Uring).build().unwrap();
        let request = |id: usize| (dir.path().join(format!("{id}")), vec![b'x'; 1024]);
        let answers = writer.replace_all_blocking((0..saves).map(request).collect::<Vec<_>>());
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().carrier == Carrier::Ring));
        writer.close_blocking();
    });
    if Writer::builder().engine(Engine::Uring).build().is_err() {
        skip!("there is no io_uring here");
    }
    for saves in [1, 10, 100, 250] {
        let envs = [("SAVES", saves.to_string())];
        let Some(counts) = strace::count(NAME, &["io_uring_enter"], &envs) else {
            skip!("there is no strace(1), or it may not trace");
        };
        let enters = counts["io_uring_enter"];
        // One for the chains; two more would do no harm, 250 x 6 steps would.
        assert!((1..=3).contains(&enters), "{saves} saves took {enters} io_uring_enter calls");
    }
}
