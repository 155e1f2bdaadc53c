//! Lines over an axis, as SVG.

use std::io;
use std::path::Path;

use plotters::prelude::*;

use super::{OURS, Part};

/// One picture; `file` without folder and ending.
#[derive(Debug)]
pub struct Plot {
    pub file: String,
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// Told apart by colour-blind readers as well.
const COLOURS: [RGBColor; 12] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(160, 120, 60),
    RGBColor(120, 120, 120),
    RGBColor(60, 60, 130),
    RGBColor(150, 200, 60),
    RGBColor(20, 20, 20),
    RGBColor(0, 200, 200),
    RGBColor(190, 180, 150),
];
/// Ours, and our other lines in order.
const OUR_COLOURS: [RGBColor; 4] =
    [RGBColor(213, 40, 0), RGBColor(240, 120, 80), RGBColor(150, 20, 60), RGBColor(250, 170, 140)];

impl Plot {
    /// A plot that was drawn in an earlier run.
    pub fn named(file: &str, title: &str) -> Self {
        Self {
            file: file.into(),
            title: title.into(),
            x_label: String::new(),
            y_label: String::new(),
            lines: Vec::new(),
        }
    }

    pub fn new(file: &str, title: &str, x_label: &str, y_label: &str) -> Self {
        Self { x_label: x_label.into(), y_label: y_label.into(), ..Self::named(file, title) }
    }

    /// A line of fewer than two points says nothing and is left out.
    fn line(&mut self, name: &str, points: Vec<(f64, f64)>) {
        if points.len() > 1 {
            self.lines.push((name.into(), points));
        }
    }

    /// A line per contender through the comparisons whose key gives an x.
    pub fn lines_from(&mut self, part: &Part, x_of: impl Fn(&str) -> Option<f64>) {
        let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
        for comparison in &part.comparisons {
            let Some(x) = x_of(&comparison.key) else { continue };
            for row in &comparison.rows {
                let Some(spread) = row.spread else { continue };
                match lines.iter_mut().find(|line| line.0 == row.name) {
                    Some(line) => line.1.push((x, spread.median)),
                    None => lines.push((row.name.clone(), vec![(x, spread.median)])),
                }
            }
        }
        for (name, points) in lines {
            self.line(&name, points);
        }
    }

    /// Ours in reds, and thick; the others by what colours are left.
    fn style(&self, index: usize) -> ShapeStyle {
        let is_ours = |line: &&(String, Vec<(f64, f64)>)| line.0.starts_with(OURS);
        let ours_before = self.lines[..index].iter().filter(is_ours).count();
        if self.lines[index].0.starts_with(OURS) {
            OUR_COLOURS[ours_before % OUR_COLOURS.len()].stroke_width(3)
        } else {
            COLOURS[(index - ours_before) % COLOURS.len()].stroke_width(2)
        }
    }

    pub fn draw(&self, folder: &Path) -> io::Result<()> {
        let path = folder.join(format!("{}.svg", self.file));
        self.draw_to(&path).map_err(|error| io::Error::other(error.to_string()))
    }

    fn draw_to(&self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let points = || self.lines.iter().flat_map(|line| line.1.iter());
        let x_max = points().map(|point| point.0).fold(1.0, f64::max);
        let x_min = points().map(|point| point.0).fold(x_max, f64::min);
        let y_max = points().map(|point| point.1).fold(0.0, f64::max);

        let area = SVGBackend::new(path, (1080, 460)).into_drawing_area();
        area.fill(&WHITE)?;
        let (picture, legend) = area.split_horizontally(820);
        let mut chart = ChartBuilder::on(&picture)
            .caption(&self.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .margin_right(24)
            .build_cartesian_2d(x_min..x_max, 0.0..y_max * 1.08)?;
        chart
            .configure_mesh()
            .x_desc(&self.x_label)
            .y_desc(&self.y_label)
            .light_line_style(WHITE)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .draw()?;
        for (index, (name, line)) in self.lines.iter().enumerate() {
            let style = self.style(index);
            chart.draw_series(LineSeries::new(line.iter().copied(), style))?;
            chart.draw_series(
                line.iter().map(|&point| Circle::new(point, 3, style.color.filled())),
            )?;
            // Beside the chart: inside it would cover some line, wherever it stood.
            let y = 40 + 18 * index as i32;
            legend.draw(&PathElement::new(vec![(4, y), (26, y)], style))?;
            legend.draw(&Text::new(name.as_str(), (32, y - 6), ("sans-serif", 13)))?;
        }
        area.present()?;
        Ok(())
    }
}
