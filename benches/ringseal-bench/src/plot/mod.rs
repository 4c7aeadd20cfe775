//! The drawing: time per file against the number of files, both logarithmic, a panel for each
//! filesystem. Every line is named at its right end.

mod labels;
mod lines;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::json::Report;
use lines::Line;

/// Pixels; more than three panels make it wider.
const WIDTH: u32 = 1200;
const HEIGHT: u32 = 500;
const PANEL_WIDTH: u32 = WIDTH / 3;
const FONT: &str = "sans-serif";
/// plotters writes sizes of 1/1.24 of these into an SVG.
const TITLE_SIZE: u32 = 21;
const TEXT_SIZE: u32 = 18;
const TEXT: RGBColor = RGBColor(50, 50, 50);
/// Between the names of lines, and what a letter of them takes.
const LABEL_GAP: f64 = 17.0;
const LETTER_WIDTH: u32 = 7;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What all panels share.
#[derive(Debug)]
struct Axes {
    files: Range<f64>,
    times: Range<f64>,
    /// The numbers of files that were measured.
    numbers: BTreeSet<usize>,
    label_width: u32,
}

pub(crate) fn draw(report: &Report, path: &Path) -> Result<()> {
    let mut panels = Vec::new();
    for filesystem in &report.filesystems {
        let name = filesystem.dir.trim_start_matches("loop:");
        let title = format!("{name} (a flush: {:.0} µs)", filesystem.flush_us);
        let lines = lines::of(report, &filesystem.dir);
        if !lines.is_empty() {
            panels.push((title, lines));
        }
    }
    ensure!(!panels.is_empty(), "there is nothing to draw");
    let lines = || panels.iter().flat_map(|(_, lines)| lines);
    let points = || lines().flat_map(|line| &line.points);
    let longest = lines().map(|line| line.label.chars().count()).max().unwrap_or(0);
    let axes = Axes {
        files: around(points().map(|point| point.0), 1.2),
        times: around(points().map(|point| point.1), 1.3),
        numbers: points().map(|point| point.0 as usize).collect(),
        label_width: longest as u32 * LETTER_WIDTH + 28,
    };
    let width = WIDTH.max(panels.len() as u32 * PANEL_WIDTH);
    let root = SVGBackend::new(path, (width, HEIGHT)).into_drawing_area();
    draw_all(&root, &panels, &axes)
        .and_then(|()| root.present().map_err(failed))
        .map_err(|error| error.context(format!("draw {}", path.display())))
}

fn draw_all(root: &Area<'_>, panels: &[(String, Vec<Line>)], axes: &Axes) -> Result<()> {
    root.fill(&WHITE).map_err(failed)?;
    for (area, (title, lines)) in root.split_evenly((1, panels.len())).iter().zip(panels) {
        draw_panel(area, title, lines, axes)?;
    }
    Ok(())
}

fn draw_panel(area: &Area<'_>, title: &str, lines: &[Line], axes: &Axes) -> Result<()> {
    let numbers = axes.numbers.iter().map(|&number| number as f64).collect();
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, TITLE_SIZE, &TEXT))
        .margin(10)
        .margin_right(axes.label_width)
        .x_label_area_size(52)
        .y_label_area_size(66)
        .build_cartesian_2d(
            axes.files.clone().log_scale().with_key_points(numbers),
            axes.times.clone().log_scale().with_key_points(ticks(&axes.times)),
        )
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .axis_style(TEXT)
        .label_style((FONT, TEXT_SIZE, &TEXT))
        .x_desc("files at once")
        .y_desc("µs per file")
        .x_label_formatter(&|files| format!("{files:.0}"))
        .y_label_formatter(&|time| format!("{time}"))
        .draw()
        .map_err(failed)?;
    let mut ends = Vec::new();
    for line in lines {
        let dot = |&point: &(f64, f64)| Circle::new(point, 3, line.color.filled());
        chart.draw_series(line.points.iter().map(dot)).map_err(failed)?;
        let path = LineSeries::new(line.points.iter().copied(), line.style);
        chart.draw_series(path).map_err(failed)?;
        ends.extend(line.points.last().map(|last| chart.backend_coord(last)));
    }
    let (_, rows) = chart.plotting_area().get_pixel_range();
    draw_names(area, lines, &ends, rows)
}

/// The names, right of the lines' ends, with a thin line to where a name had to move.
fn draw_names(
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
        let connection = PathElement::new([end, (right - 3, height)], line.color.mix(0.6));
        area.draw(&connection).map_err(failed)?;
        let style = TextStyle::from((FONT, TEXT_SIZE).into_font())
            .color(&line.color)
            .pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(line.label.as_str(), (right, height), style)).map_err(failed)?;
    }
    Ok(())
}

/// A range that holds all values, with room around them.
fn around(values: impl Iterator<Item = f64> + Clone, room: f64) -> Range<f64> {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let greatest = values.fold(f64::NEG_INFINITY, f64::max);
    least / room..greatest * room
}

/// The powers of ten in a range, with 2 and 5 times each where there are few.
fn ticks(range: &Range<f64>) -> Vec<f64> {
    let steps: &[f64] = if range.end / range.start > 2000.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let powers = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
    let ticks = powers.flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
    ticks.filter(|tick| range.contains(tick)).collect()
}

fn failed<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> anyhow::Error {
    anyhow!("{error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_not_too_many() {
        assert_eq!(ticks(&(9.0..60.0)), [10.0, 20.0, 50.0]);
        assert_eq!(ticks(&(2.0..10_000.5)), [10.0, 100.0, 1000.0, 10_000.0]);
    }

    #[test]
    fn a_single_value_has_a_range_too() {
        assert_eq!(around([8.0].into_iter(), 2.0), 4.0..16.0);
    }
}
