//! The figures as tables, for people.

use comfy_table::{CellAlignment, Table, presets};

use crate::json::{Report, Row};

const HEADER: [&str; 11] = [
    "writer",
    "engine",
    "us/file",
    "min - max",
    "x std_loop",
    "CPU us/file",
    "flushes",
    "flushes/file",
    "writes",
    "KiB/file",
    "heap B/file",
];

/// A table for each filesystem and number of files, the fastest first.
pub(crate) fn print(report: &Report) {
    for filesystem in &report.filesystems {
        println!(
            "\n{} ({}; {}), Linux {}, {} CPUs; a flush takes {:.0} us",
            filesystem.dir,
            filesystem.filesystem,
            filesystem.options,
            filesystem.kernel,
            filesystem.cpus,
            filesystem.flush_us
        );
        let rows: Vec<&Row> =
            report.results.iter().filter(|row| row.dir == filesystem.dir).collect();
        let mut numbers: Vec<usize> = rows.iter().map(|row| row.files).collect();
        numbers.dedup();
        for files in numbers {
            let mut rows: Vec<&Row> =
                rows.iter().copied().filter(|row| row.files == files).collect();
            rows.sort_by(|a, b| a.us_per_file.median.total_cmp(&b.us_per_file.median));
            let rounds = rows.iter().map(|row| row.rounds).max().unwrap_or(0);
            let bytes = rows.first().map_or(0, |row| row.payload_bytes);
            println!("\n{files} files, {bytes} bytes together, medians of {rounds} rounds");
            println!("{}", table(&rows));
            for (row, note) in rows.iter().filter_map(|row| Some((row, row.note.as_ref()?))) {
                println!("{}/{}: {note}", row.writer, row.engine);
            }
        }
    }
    for skipped in &report.skipped {
        let place = match (&skipped.dir, skipped.files) {
            (Some(dir), Some(files)) => format!(" on {dir}, {files} files"),
            _ => String::new(),
        };
        println!("without {}/{}{place}: {}", skipped.writer, skipped.engine, skipped.why);
    }
}

fn table(rows: &[&Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(HEADER);
    for row in rows {
        table.add_row(cells(row));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn cells(row: &Row) -> [String; 11] {
    let optional = |value: Option<f64>, decimals: usize| match value {
        Some(value) => format!("{value:.decimals$}"),
        None => "-".to_owned(),
    };
    let name = match row.threads {
        Some(threads) => format!("{} ({threads})", row.writer),
        None => row.writer.clone(),
    };
    let spread = row.us_per_file;
    let kib = row.device_bytes.map(|bytes| bytes / 1024.0 / row.files as f64);
    [
        name,
        row.engine.clone(),
        format!("{:.1}", spread.median),
        format!("{:.1} - {:.1}", spread.min, spread.max),
        optional(row.ratio_to_std_loop, 2),
        format!("{:.1}", row.cpu_us_per_file),
        optional(row.device_flushes, 0),
        optional(row.device_flushes_per_file, 3),
        optional(row.device_writes, 0),
        optional(kib, 2),
        format!("{:.0}", row.heap_bytes_per_file),
    ]
}
