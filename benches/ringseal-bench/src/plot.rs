//! The drawing: time per file against the number of files, both logarithmic, a panel for each
//! filesystem. Every line is named at its right end.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::json::{Report, Row};
use crate::labels;

/// What a run of all writers draws; of a chosen few it draws all.
const DRAWN: [(&str, &str); 6] = [
    ("std_loop", "calls"),
    ("std_threads_best", "threads"),
    ("tokio_fs", "threads"),
    ("fsys_batch", "threads"),
    ("ringseal_replace_all", "auto"),
    ("floor", "calls"),
];

const HEIGHT: u32 = 500;
const WIDTH: u32 = 1200;
const FONT: &str = "sans-serif";
const TEXT: RGBColor = RGBColor(60, 60, 60);
const LABEL_GAP: f64 = 15.0;
/// Room at the right of each panel for the names.
const LABEL_WIDTH: i32 = 150;
/// Strong colours for ringseal, muted ones for the others.
const OURS: [RGBColor; 3] = [RGBColor(208, 52, 28), RGBColor(160, 20, 90), RGBColor(224, 110, 0)];
const OTHERS: [RGBColor; 6] = [
    RGBColor(84, 112, 150),
    RGBColor(96, 140, 110),
    RGBColor(140, 110, 150),
    RGBColor(140, 125, 85),
    RGBColor(80, 140, 150),
    RGBColor(110, 110, 125),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// One writer's line in a panel.
#[derive(Debug)]
struct Line {
    label: String,
    points: Vec<(f64, f64)>,
    style: ShapeStyle,
}

pub(crate) fn draw(report: &Report, path: &Path) -> Result<()> {
    let panels: Vec<_> = report
        .filesystems
        .iter()
        .map(|filesystem| {
            let title = format!(
                "{}, a flush takes {:.0} us",
                filesystem.dir.trim_start_matches("loop:"),
                filesystem.flush_us
            );
            (title, lines(report, &filesystem.dir))
        })
        .filter(|(_, lines)| !lines.is_empty())
        .collect();
    ensure!(!panels.is_empty(), "there is nothing to draw");
    let points = || panels.iter().flat_map(|(_, lines)| lines).flat_map(|line| &line.points);
    let files = around(points().map(|point| point.0), 1.15);
    let times = around(points().map(|point| point.1), 1.4);
    let numbers: BTreeSet<usize> = points().map(|point| point.0 as usize).collect();

    let root = SVGBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
    draw_all(&root, &panels, files, times, &numbers)
        .and_then(|()| root.present().map_err(failed))
        .map_err(|error| error.context(format!("draw {}", path.display())))
}

fn draw_all(
    root: &Area<'_>,
    panels: &[(String, Vec<Line>)],
    files: Range<f64>,
    times: Range<f64>,
    numbers: &BTreeSet<usize>,
) -> Result<()> {
    root.fill(&WHITE).map_err(failed)?;
    for (area, (title, lines)) in root.split_evenly((1, panels.len())).iter().zip(panels) {
        panel(area, title, lines, (files.clone(), times.clone()), numbers)?;
    }
    Ok(())
}

fn panel(
    area: &Area<'_>,
    title: &str,
    lines: &[Line],
    (files, times): (Range<f64>, Range<f64>),
    numbers: &BTreeSet<usize>,
) -> Result<()> {
    let ticks = numbers.iter().map(|&number| number as f64).collect();
    let time_ticks = ticks_of(&times);
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 16, &TEXT))
        .margin(10)
        .margin_right(LABEL_WIDTH)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .build_cartesian_2d(
            files.log_scale().with_key_points(ticks),
            times.log_scale().with_key_points(time_ticks),
        )
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .axis_style(TEXT)
        .label_style((FONT, 13, &TEXT))
        .x_desc("files saved in one go")
        .y_desc("time per file, us")
        .x_label_formatter(&|files| format!("{files:.0}"))
        .y_label_formatter(&|time| format!("{time}"))
        .draw()
        .map_err(failed)?;
    let mut ends = Vec::new();
    for line in lines {
        let dot = |&point: &(f64, f64)| Circle::new(point, 3, line.style.filled());
        chart.draw_series(line.points.iter().map(dot)).map_err(failed)?;
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), line.style))
            .map_err(failed)?;
        if let Some(last) = line.points.last() {
            ends.push(chart.backend_coord(last));
        }
    }
    let (_, rows) = chart.plotting_area().get_pixel_range();
    name_lines(area, lines, &ends, rows)
}

/// The names, right of the lines' ends, with a thin line to where a name had to move.
fn name_lines(
    area: &Area<'_>,
    lines: &[Line],
    ends: &[(i32, i32)],
    rows: Range<i32>,
) -> Result<()> {
    let (left, top) = area.get_base_pixel();
    let heights: Vec<f64> = ends.iter().map(|end| f64::from(end.1)).collect();
    let heights = labels::spread(&heights, LABEL_GAP, rows.start.into(), rows.end.into());
    let right = ends.iter().map(|end| end.0).max().unwrap_or(0) - left + 16;
    for ((line, &(x, y)), height) in lines.iter().zip(ends).zip(heights) {
        let (end, height) = ((x - left + 4, y - top), height.round() as i32 - top);
        let thin = line.style.color.mix(0.5);
        area.draw(&PathElement::new([end, (right - 3, height)], thin)).map_err(failed)?;
        let style = TextStyle::from((FONT, 13).into_font())
            .color(&line.style.color)
            .pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(line.label.as_str(), (right, height), style)).map_err(failed)?;
    }
    Ok(())
}

/// The lines of one filesystem, ringseal's last so that they are drawn on top.
fn lines(report: &Report, dir: &str) -> Vec<Line> {
    let is_drawn = |row: &Row| {
        let chosen = !report.only.is_empty();
        row.dir == dir && (chosen || DRAWN.iter().any(|(name, engine)| row.is(name, engine)))
    };
    let rows: Vec<&Row> = report.results.iter().filter(|row| is_drawn(row)).collect();
    let mut names: Vec<(&str, &str)> = Vec::new();
    for row in &rows {
        let name = (row.writer.as_str(), row.engine.as_str());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.sort_by_key(|(name, _)| is_ours(name));
    let (mut ours, mut others) = (0, 0);
    let line = |&(name, engine): &(&str, &str)| {
        let of_line = rows.iter().filter(|row| row.is(name, engine));
        let mut points: Vec<(f64, f64)> =
            of_line.map(|row| (row.files as f64, row.us_per_file.median)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let has_engines = names.iter().filter(|other| other.0 == name).count() > 1;
        let label = match has_engines {
            true => format!("{name} ({engine})"),
            false => name.to_owned(),
        };
        let style = match name {
            "floor" => ShapeStyle::from(RGBColor(150, 150, 150)).stroke_width(1),
            _ if is_ours(name) => {
                ours += 1;
                OURS[(ours - 1) % OURS.len()].stroke_width(4)
            }
            _ => {
                others += 1;
                OTHERS[(others - 1) % OTHERS.len()].stroke_width(2)
            }
        };
        Line { label, points, style }
    };
    names.iter().map(line).collect()
}

fn is_ours(name: &str) -> bool {
    name.starts_with("ringseal")
}

/// A range that holds all values, with room around them.
fn around(values: impl Iterator<Item = f64> + Clone, room: f64) -> Range<f64> {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let greatest = values.fold(f64::NEG_INFINITY, f64::max);
    least / room..greatest * room
}

/// 1, 2 and 5 times the powers of ten in a range.
fn ticks_of(range: &Range<f64>) -> Vec<f64> {
    let powers = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
    let ticks = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(power)));
    ticks.filter(|tick| range.contains(tick)).collect()
}

fn failed<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> anyhow::Error {
    anyhow!("{error}")
}
