//! Lines over an axis, as SVG; each has its name at its end.

use std::error::Error;
use std::io;
use std::path::Path;

use plotters::prelude::*;

use crate::run::to_io_error;

use super::part::Plot;
use super::table::Table;

/// The colours of lines, ours first. Colour-blind readers can tell them apart.
const COLOURS: [RGBColor; 5] = [
    RGBColor(213, 40, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(230, 159, 0),
    RGBColor(110, 110, 110),
];

type Line<'a> = (&'a str, Vec<(f64, f64)>);

/// Draws a plot from the rows on record into the folder.
pub fn draw(plot: &Plot, table: &Table, folder: &Path) -> io::Result<()> {
    let lines: Vec<_> = plot.lines.iter().map(|name| (*name, points(plot, name, table))).collect();
    if lines.iter().all(|line| line.1.len() < 2) {
        return Ok(());
    }
    let path = folder.join(format!("{}.svg", plot.file));
    draw_lines(plot, &lines, &path).map_err(to_io_error)
}

/// Returns the points of one line; a doubling axis counts in doublings.
fn points(plot: &Plot, contender: &str, table: &Table) -> Vec<(f64, f64)> {
    let point = |line: &Vec<String>| {
        let [case, metric, _, profile, name, _, median, ..] = &line[..] else { return None };
        let is_own = metric == plot.metric && profile == "release" && name == contender;
        let number = case.strip_prefix(plot.key.0)?.strip_suffix(plot.key.1)?;
        let x: f64 = number.parse().ok().filter(|_| is_own)?;
        Some((if plot.is_logarithmic { x.log2() } else { x }, median.parse().ok()?))
    };
    table.lines.iter().filter_map(point).collect()
}

fn draw_lines(plot: &Plot, lines: &[Line<'_>], path: &Path) -> Result<(), Box<dyn Error>> {
    let points = || lines.iter().flat_map(|line| line.1.iter());
    let x_max = points().map(|point| point.0).fold(f64::MIN, f64::max);
    let x_min = points().map(|point| point.0).fold(f64::MAX, f64::min);
    let y_max = points().map(|point| point.1).fold(0.0, f64::max);

    let area = SVGBackend::new(path, (980, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(plot.title, ("sans-serif", 20))
        .margin(12)
        .margin_right(240)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x_min..x_max, 0.0..y_max * 1.08)?;
    let value = |x: &f64| format!("{:.0}", if plot.is_logarithmic { x.exp2() } else { *x });
    // A label for each doubling.
    let labels = if plot.is_logarithmic { (x_max - x_min).round() as usize + 1 } else { 10 };
    chart
        .configure_mesh()
        .x_desc(plot.x_label)
        .y_desc(plot.y_label)
        .light_line_style(WHITE)
        .x_labels(labels)
        .x_label_formatter(&value)
        .y_label_formatter(&f64::to_string)
        .draw()?;
    let mut names = Vec::new();
    // Ours last: it lies above the others.
    for ((name, line), colour) in lines.iter().zip(COLOURS).rev() {
        let Some(&end) = line.last() else { continue };
        let style = colour.stroke_width(if colour == COLOURS[0] { 4 } else { 2 });
        chart.draw_series(LineSeries::new(line.iter().copied(), style))?;
        chart.draw_series(line.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
        names.push((chart.backend_coord(&end), *name, colour));
    }
    // Names are moved apart, upwards from the axis.
    names.sort_by_key(|name| -name.0.1);
    let mut room = chart.backend_coord(&(x_max, 0.0)).1;
    for ((x, y), name, colour) in names {
        let y = y.min(room);
        room = y - 16;
        let font = ("sans-serif", 14).into_font().color(&colour);
        area.draw(&Text::new(name, (x + 10, y - 7), font))?;
    }
    Ok(area.present()?)
}
