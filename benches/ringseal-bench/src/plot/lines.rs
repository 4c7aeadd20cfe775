//! Which writers are drawn, and how each looks.

use plotters::style::{Color, RGBColor, ShapeStyle};

use crate::json::{Report, Row};

/// What a run of all writers draws, and the names there. Of chosen writers all are drawn.
const DRAWN: [(&str, &str, &str); 8] = [
    ("std_loop", "calls", "std::fs loop"),
    ("std_threads_best", "threads", "std::fs threads"),
    ("tokio_fs", "threads", "tokio::fs"),
    ("fsys_batch", "threads", "fsys batch"),
    ("redb", "calls", "redb (no files)"),
    ("ringseal_replace_all", "auto", "ringseal"),
    ("ringseal_store", "calls", "ringseal store"),
    ("floor", "calls", "floor: append"),
];

/// Strong colours for ringseal, muted ones for the others.
const OURS: [RGBColor; 4] =
    [RGBColor(208, 52, 28), RGBColor(160, 20, 90), RGBColor(224, 110, 0), RGBColor(110, 60, 200)];
const OTHERS: [RGBColor; 6] = [
    RGBColor(84, 112, 150),
    RGBColor(96, 140, 110),
    RGBColor(140, 110, 150),
    RGBColor(140, 125, 85),
    RGBColor(80, 140, 150),
    RGBColor(110, 110, 125),
];
const FLOOR: RGBColor = RGBColor(140, 140, 140);

/// One writer's line in a panel.
#[derive(Debug)]
pub(super) struct Line {
    pub label: String,
    pub color: RGBColor,
    pub style: ShapeStyle,
    /// Files, and microseconds per file.
    pub points: Vec<(f64, f64)>,
}

/// The lines of one filesystem, ringseal's last so that they are drawn on top.
pub(super) fn of(report: &Report, dir: &str) -> Vec<Line> {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for row in report.results.iter().filter(|row| is_drawn(report, row)) {
        let name = (row.writer.as_str(), row.engine.as_str());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    // The floor last among the others, so that each keeps its colour without it.
    names.sort_by_key(|(name, _)| (is_ours(name), *name == "floor"));
    let (mut ours, mut others) = (OURS.iter().cycle(), OTHERS.iter().cycle());
    let lines = names.iter().map(|&(name, engine)| {
        let of_line = report.results.iter().filter(|row| row.dir == dir && row.is(name, engine));
        let mut points: Vec<(f64, f64)> =
            of_line.map(|row| (row.files as f64, row.us_per_file.median)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (color, width) = match name {
            "floor" => (Some(&FLOOR), 1),
            _ if is_ours(name) => (ours.next(), 4),
            _ => (others.next(), 2),
        };
        let color = *color.unwrap_or(&FLOOR);
        Line { label: label(report, name, engine), color, style: color.stroke_width(width), points }
    });
    lines.filter(|line| !line.points.is_empty()).collect()
}

fn is_drawn(report: &Report, row: &Row) -> bool {
    !report.only.is_empty() || DRAWN.iter().any(|(name, engine, _)| row.is(name, engine))
}

fn label(report: &Report, name: &str, engine: &str) -> String {
    if report.only.is_empty() {
        let drawn = DRAWN.iter().find(|drawn| (drawn.0, drawn.1) == (name, engine));
        return drawn.map_or(name, |drawn| drawn.2).to_owned();
    }
    let has_engines = report.results.iter().any(|row| row.writer == name && row.engine != engine);
    if has_engines { format!("{name} {engine}") } else { name.to_owned() }
}

fn is_ours(name: &str) -> bool {
    name.starts_with("ringseal")
}
