//! Many callers, each saving its own state again and again: saves a second, and how long one waits.

mod neighbour;
mod savers;

use std::fmt::Write;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::device::Device;
use crate::filesystem::Filesystem;
use crate::measure::cpu_time;
use crate::options::Calling;
use crate::run::Place;
use crate::statistics::median;
use crate::stop::Stop;
use savers::{Kind, Saver};

/// What a row of the JSON has.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub dir: String,
    pub filesystem: String,
    pub writer: &'static str,
    pub callers: usize,
    pub rounds: usize,
    /// Medians over the rounds.
    pub saves_per_second: f64,
    pub cpu_us_per_save: f64,
    pub device_flushes_per_save: Option<f64>,
    pub device_writes_per_save: Option<f64>,
    /// Over all rounds, in microseconds.
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    /// What a sync took somebody else: median, 99th percentile, worst.
    pub neighbour_us: Option<[u64; 3]>,
}

/// One round of one writer.
struct Sample {
    saves: u64,
    time: Duration,
    cpu: Duration,
    flushes: Option<u64>,
    writes: Option<u64>,
    latencies: Histogram<u64>,
    neighbour: Option<Histogram<u64>>,
}

/// Measures every writer on every place.
pub(crate) fn run(places: &[Place], calling: &Calling, stop: &Stop) -> Result<Vec<Row>> {
    let kinds: Vec<Kind> =
        Kind::ALL.into_iter().filter(|kind| calling.wants(kind.name())).collect();
    ensure!(!kinds.is_empty(), "none of the writers is {:?}", calling.only);
    let mut rows = Vec::new();
    let bar = crate::progress::bar(places.len() * kinds.len() * calling.rounds);
    for place in places {
        let filesystem = Filesystem::of(&place.path)?;
        let mut samples: Vec<Vec<Sample>> = kinds.iter().map(|_| Vec::new()).collect();
        let mut order: Vec<usize> = (0..kinds.len()).collect();
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..calling.rounds {
            random.shuffle(&mut order);
            for &index in &order {
                if stop.is_asked() {
                    break;
                }
                bar.set_message(format!("{}, {}", place.name, kinds[index].name()));
                let device = filesystem.device.as_ref();
                let sample = measure(kinds[index], &place.path, device, calling);
                samples[index].push(sample.with_context(|| kinds[index].name())?);
                bar.inc(1);
            }
        }
        for (kind, samples) in kinds.iter().zip(samples) {
            rows.extend(row(*kind, place, &filesystem, calling, &samples));
        }
    }
    finish(&bar);
    Ok(rows)
}

fn finish(bar: &ProgressBar) {
    bar.finish_and_clear();
}

fn measure(kind: Kind, dir: &Path, device: Option<&Device>, calling: &Calling) -> Result<Sample> {
    let home = tempfile::Builder::new().prefix("ringseal-bench-").tempdir_in(dir)?;
    let saver = kind.make(home.path(), calling)?;
    // Each has a state before, so that every save replaces one.
    let first = |caller: usize| {
        let mut ids = (caller..calling.states()).step_by(calling.callers);
        ids.try_for_each(|id| saver.save(id, &state(id, 0, calling.size)))
    };
    thread::scope(|scope| {
        let first = &first;
        let threads: Vec<_> =
            (0..calling.callers).map(|caller| scope.spawn(move || first(caller))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })?;
    rustix::fs::syncfs(std::fs::File::open(home.path())?)?;
    let counters = || device.map(|device| device.counters()).transpose();
    let (before, cpu) = (counters()?, cpu_time());
    let gate = Barrier::new(calling.callers);
    let began = Instant::now();
    let end = began + calling.time;
    let (per_caller, neighbour) = thread::scope(|scope| {
        let neighbour = calling.neighbour.then(|| scope.spawn(|| neighbour::run(home.path(), end)));
        let call = |caller: usize| call(&*saver, caller, &gate, end, calling);
        let threads: Vec<_> =
            (0..calling.callers).map(|caller| scope.spawn(move || call(caller))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("it does not panic"));
        let per_caller = joined.collect::<Result<Vec<_>>>()?;
        let neighbour = neighbour.map(|thread| thread.join().expect("it does not panic"));
        anyhow::Ok((per_caller, neighbour.transpose()?))
    })?;
    let (time, cpu) = (began.elapsed(), cpu_time().saturating_sub(cpu));
    let device = before.zip(counters()?).map(|(before, after)| after - before);
    let mut latencies = Histogram::new(3)?;
    for histogram in per_caller {
        latencies.add(histogram)?;
    }
    drop(saver);
    Ok(Sample {
        saves: latencies.len(),
        time,
        cpu,
        flushes: device.as_ref().map(|device| device.flushes),
        writes: device.as_ref().map(|device| device.writes),
        latencies,
        neighbour,
    })
}

fn call(
    saver: &dyn Saver,
    caller: usize,
    gate: &Barrier,
    end: Instant,
    calling: &Calling,
) -> Result<Histogram<u64>> {
    let mut latencies = Histogram::new(3)?;
    gate.wait();
    let ids = (caller..calling.states()).step_by(calling.callers).cycle();
    for (version, id) in (1..).zip(ids) {
        let state = state(id, version, calling.size);
        let began = Instant::now();
        saver.save(id, &state)?;
        let now = Instant::now();
        latencies.record((now - began).as_micros() as u64)?;
        if now >= end {
            break;
        }
    }
    Ok(latencies)
}

/// No two are alike: a database does not write a row that stays as it is.
fn state(id: usize, version: u64, size: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed((id as u64) << 32 | version);
    let mut state = vec![0; size as usize];
    random.fill(&mut state);
    state
}

fn row(
    kind: Kind,
    place: &Place,
    filesystem: &Filesystem,
    calling: &Calling,
    samples: &[Sample],
) -> Option<Row> {
    let mut latencies = Histogram::new(3).ok()?;
    for sample in samples {
        latencies.add(&sample.latencies).ok()?;
    }
    let mut neighbour = Histogram::<u64>::new(3).ok()?;
    for of_sample in samples.iter().filter_map(|sample| sample.neighbour.as_ref()) {
        neighbour.add(of_sample).ok()?;
    }
    let per_save = |of: fn(&Sample) -> Option<u64>| {
        let each = samples.iter().filter_map(|one| Some(of(one)? as f64 / one.saves as f64));
        median(each)
    };
    Some(Row {
        dir: place.name.clone(),
        filesystem: filesystem.kind.clone(),
        writer: kind.name(),
        callers: calling.callers,
        rounds: samples.len(),
        saves_per_second: median(
            samples.iter().map(|one| one.saves as f64 / one.time.as_secs_f64()),
        )?,
        cpu_us_per_save: median(
            samples.iter().map(|one| one.cpu.as_secs_f64() * 1e6 / one.saves as f64),
        )?,
        device_flushes_per_save: per_save(|one| one.flushes),
        device_writes_per_save: per_save(|one| one.writes),
        p50_us: latencies.value_at_quantile(0.5),
        p99_us: latencies.value_at_quantile(0.99),
        p999_us: latencies.value_at_quantile(0.999),
        max_us: latencies.max(),
        neighbour_us: (!neighbour.is_empty()).then(|| {
            let at = |quantile| neighbour.value_at_quantile(quantile);
            [at(0.5), at(0.99), neighbour.max()]
        }),
    })
}

/// A table for each filesystem, the fastest first.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut dirs: Vec<&str> = rows.iter().map(|row| row.dir.as_str()).collect();
    dirs.dedup();
    for dir in dirs {
        let mut rows: Vec<&Row> = rows.iter().filter(|row| row.dir == dir).collect();
        rows.sort_by(|a, b| b.saves_per_second.total_cmp(&a.saves_per_second));
        let Some(first) = rows.first() else { continue };
        let std = rows.iter().find(|row| row.writer == Kind::StdThreads.name());
        let _ = writeln!(text, "\n{dir}: {} callers, {} rounds", first.callers, first.rounds);
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header([
            "writer",
            "saves/s",
            "x std",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "CPU us",
            "flushes",
            "writes",
            "neighbour: p50, p99, max ms",
        ]);
        for row in &rows {
            let ms = |us: u64| format!("{:.2}", us as f64 / 1000.0);
            let optional =
                |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
            let ratio = std.map(|std| row.saves_per_second / std.saves_per_second);
            table.add_row([
                row.writer.to_owned(),
                format!("{:.0}", row.saves_per_second),
                ratio.map_or("-".into(), |ratio| format!("{ratio:.2}")),
                ms(row.p50_us),
                ms(row.p99_us),
                ms(row.p999_us),
                ms(row.max_us),
                format!("{:.0}", row.cpu_us_per_save),
                optional(row.device_flushes_per_save),
                optional(row.device_writes_per_save),
                row.neighbour_us.map_or("-".into(), |of| of.map(ms).join(", ")),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let _ = writeln!(text, "{table}");
    }
    text
}
