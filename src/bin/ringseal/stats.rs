//! What `--stats` prints: what a writer tells of itself, as a table and as JSON.

use std::fmt::Write;
use std::time::Duration;

use indicatif::HumanBytes;
use ringseal::{Carried, Failures, Latency, WriterStats};
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
