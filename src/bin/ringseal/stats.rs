//! What `--stats` prints: what a writer, or a store, tells of itself, as a table and as JSON.

use std::fmt::Write;
use std::time::Duration;

use indicatif::HumanBytes;
use ringseal::{Carried, Failures, Latency, Published, StoreStats, WriterStats};
use serde_json::{Map, Value, json};

/// Rows for people: what, how much, and what it means.
#[derive(Debug, Default)]
struct Table(String);

impl Table {
    fn title(&mut self, title: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "\n{title}");
    }

    fn row(&mut self, label: &str, value: impl ToString, remark: &str) {
        let row = format!("  {label:18}{:>12}  {remark}", value.to_string());
        let _ = writeln!(self.0, "{}", row.trim_end());
    }

    fn failures(&mut self, failures: &Failures) {
        self.row("failed", failures.total(), "");
        for (step, count) in failures.iter() {
            self.row(&format!("  at {step}"), count, "");
        }
    }

    fn latency(&mut self, latency: &Latency) {
        self.row("latency, mean", time(latency.mean), "from room to answer");
        let rows = [
            ("50 %", latency.p50),
            ("90 %", latency.p90),
            ("99 %", latency.p99),
            ("longest", latency.max),
        ];
        for (label, figure) in rows {
            self.row(&format!("  {label}"), time(figure), "");
        }
    }

    fn oldest(&mut self, oldest: Option<Duration>) {
        if let Some(oldest) = oldest {
            self.row("oldest in flight", time(oldest), "");
        }
    }
}

/// A writer's, for people.
pub fn writer_to_text(stats: &WriterStats) -> String {
    let mut table = Table::default();
    table.title("writer");
    table.row("accepted", stats.accepted, "");
    table.row("answered", stats.answered, "");
    table.failures(&stats.failures);
    table.row("coalesced", stats.coalesced, "a newer version took their place");
    table.row("bytes", HumanBytes(stats.bytes), "of payload");
    let by = |count: u64, who| (count > 0).then(|| format!("{count} by {who}"));
    let Carried { ring, pool, caller, .. } = stats.carried;
    let who = [by(ring, "the ring"), by(pool, "the pool"), by(caller, "the caller")];
    let who: Vec<String> = who.into_iter().flatten().collect();
    table.row("written", ring + pool + caller, &who.join(", "));
    table.row("chains", stats.chains, "handed to the ring");
    let files = stats.files_in_cycles;
    table.row("cycles", stats.cycles, &format!("of {files} files together"));
    table.row("barriers", stats.barriers, "syncfs, each for all files of a cycle");
    table.row("syncs", stats.syncs, "of one file or directory each");
    table.row("in flight", stats.in_flight, "");
    table.oldest(stats.oldest_in_flight);
    table.latency(&stats.latency);
    table.0
}

/// A writer's, for machines; the fields are listed in [`output`](crate::output).
pub fn writer_to_json(stats: &WriterStats) -> Value {
    json!({
        "accepted": stats.accepted,
        "answered": stats.answered,
        "failed": stats.failed,
        "failures": failures_to_json(&stats.failures),
        "coalesced": stats.coalesced,
        "bytes": stats.bytes,
        "carried": {
            "ring": stats.carried.ring,
            "pool": stats.carried.pool,
            "caller": stats.carried.caller,
        },
        "chains": stats.chains,
        "cycles": stats.cycles,
        "files_in_cycles": stats.files_in_cycles,
        "barriers": stats.barriers,
        "syncs": stats.syncs,
        "in_flight": stats.in_flight,
        "oldest_in_flight": stats.oldest_in_flight.map(seconds),
        "waiting": stats.waiting,
        "latency": latency_to_json(&stats.latency),
    })
}

/// A store's, for people.
pub fn store_to_text(stats: &StoreStats) -> String {
    let mut table = Table::default();
    table.title("store");
    table.row("accepted", stats.accepted, "transactions");
    table.row("answered", stats.answered, "");
    table.failures(&stats.failures);
    table.row("coalesced", stats.coalesced, "a newer version took their place");
    table.row("bytes", HumanBytes(stats.bytes), "of the files");
    table.row("direct", stats.direct, "beside the log");
    table.row("groups", stats.groups, &format!("of {} changes together", stats.changes));
    table.row("log", HumanBytes(stats.log_bytes), "written");
    let segment = HumanBytes(stats.log_segment);
    table.row("  in use", HumanBytes(stats.log_used), &format!("of a segment of {segment}"));
    let Published { exchanged, new_files, removed, failed, .. } = stats.published;
    let how = format!("{exchanged} exchanged, {new_files} new files, {removed} removed");
    table.row("published", exchanged + new_files + removed, &how);
    table.row("  failed", failed, &format!("{} not visible now", stats.not_visible));
    table.row("set aside", stats.set_aside, "");
    table.row("unpublished", stats.unpublished, "answered, and visible soon");
    let spreads =
        format!("{} failed; the longest {}", stats.spreads_failed, time(stats.longest_spread));
    table.row("spreads", stats.spreads, &spreads);
    if let Some(oldest) = stats.oldest_unspread {
        table.row("  oldest", time(oldest), "what the log has and the files lack");
    }
    table.row("slots", stats.slots, &format!("of {}", stats.slots_max));
    table.row("in flight", stats.in_flight, "");
    table.oldest(stats.oldest_in_flight);
    table.latency(&stats.latency);
    table.0
}

/// A store's, for machines; the fields are listed in [`output`](crate::output).
pub fn store_to_json(stats: &StoreStats) -> Value {
    json!({
        "accepted": stats.accepted,
        "answered": stats.answered,
        "failed": stats.failed,
        "failures": failures_to_json(&stats.failures),
        "coalesced": stats.coalesced,
        "bytes": stats.bytes,
        "direct": stats.direct,
        "groups": stats.groups,
        "changes": stats.changes,
        "log_bytes": stats.log_bytes,
        "log_used": stats.log_used,
        "log_segment": stats.log_segment,
        "published": {
            "exchanged": stats.published.exchanged,
            "new_files": stats.published.new_files,
            "removed": stats.published.removed,
            "failed": stats.published.failed,
        },
        "not_visible": stats.not_visible,
        "set_aside": stats.set_aside,
        "unpublished": stats.unpublished,
        "oldest_unspread": stats.oldest_unspread.map(seconds),
        "spreads": stats.spreads,
        "spreads_failed": stats.spreads_failed,
        "last_spread": seconds(stats.last_spread),
        "longest_spread": seconds(stats.longest_spread),
        "slots": stats.slots,
        "slots_max": stats.slots_max,
        "in_flight": stats.in_flight,
        "oldest_in_flight": stats.oldest_in_flight.map(seconds),
        "waiting": stats.waiting,
        "latency": latency_to_json(&stats.latency),
    })
}

fn failures_to_json(failures: &Failures) -> Value {
    let steps = failures.iter().map(|(step, count)| (step.name().to_owned(), count.into()));
    Value::Object(steps.collect::<Map<_, _>>())
}

fn latency_to_json(latency: &Latency) -> Value {
    json!({
        "count": latency.count,
        "mean": seconds(latency.mean),
        "p50": seconds(latency.p50),
        "p90": seconds(latency.p90),
        "p99": seconds(latency.p99),
        "max": seconds(latency.max),
    })
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// `640 us`, `12.3 ms`, `4.56 s`.
fn time(time: Duration) -> String {
    match time.as_micros() {
        micros @ ..1000 => format!("{micros} us"),
        micros @ ..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        micros => format!("{:.2} s", micros as f64 / 1e6),
    }
}
