//! Results kept beside the page, one file per part, so that a run of one part does not lose the
//! others.
//!
//! Lines of fields separated by tabs; the first field says what the line is.

use std::fs;
use std::io;
use std::path::Path;

use crate::harness::Spread;

use super::machine::Machine;
use super::{Bound, Comparison, Figure, Part, Plot, Row};

/// Writes `<folder>/benchmarks/<part>.tsv` and the part's plots.
pub fn store(folder: &Path, part: &Part) -> io::Result<()> {
    let folder = folder.join("benchmarks");
    fs::create_dir_all(&folder)?;
    for plot in &part.plots {
        plot.draw(&folder)?;
    }
    fs::write(folder.join(format!("{}.tsv", part.name)), text(part))
}

/// Reads the parts on record, in the order asked for; a part never measured is left out.
pub fn load(folder: &Path, names: &[&str]) -> Vec<Part> {
    let read = |name: &&str| {
        let path = folder.join("benchmarks").join(format!("{name}.tsv"));
        parse(name, &fs::read_to_string(path).ok()?)
    };
    names.iter().filter_map(read).collect()
}

fn text(part: &Part) -> String {
    let machine = &part.machine;
    let cores = machine.cores.to_string();
    let effort = if part.quick { "quick" } else { "full" };
    let mut lines = vec![
        ["part", &part.title, &part.introduction, effort].join("\t"),
        ["machine", &machine.processor, &cores, &machine.kernel, &machine.date, &machine.versions]
            .join("\t"),
    ];
    lines.extend(part.remarks.iter().map(|remark| format!("remark\t{remark}")));
    lines.extend(part.plots.iter().map(|plot| format!("plot\t{}\t{}", plot.file, plot.title)));
    for figure in &part.figures {
        let bound = match figure.bound {
            Bound::AtMost(limit) => format!("at most\t{limit}"),
            Bound::AtLeast(limit) => format!("at least\t{limit}"),
            Bound::Shown => "shown\t0".into(),
        };
        let measured = spread_text(figure.measured);
        lines.push(format!(
            "figure\t{}\t{}\t{bound}\t{}\t{measured}",
            figure.group, figure.case, figure.of
        ));
    }
    for comparison in &part.comparisons {
        lines.push(format!("table\t{}\t{}\t{}", comparison.key, comparison.title, comparison.unit));
        for row in &comparison.rows {
            let (spread, ratio) = (spread_text(row.spread), spread_text(row.ours_to_this));
            lines.push(format!("row\t{}\t{}\t{spread}\t{ratio}", row.name, row.note));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn spread_text(spread: Option<Spread>) -> String {
    match spread {
        Some(spread) => format!("{:.4}\t{:.4}\t{:.4}", spread.p10, spread.median, spread.p90),
        None => "-\t-\t-".into(),
    }
}

fn parse_spread(fields: &[&str]) -> Option<Spread> {
    Some(Spread {
        p10: fields.first()?.parse().ok()?,
        median: fields.get(1)?.parse().ok()?,
        p90: fields.get(2)?.parse().ok()?,
    })
}

fn parse(name: &str, text: &str) -> Option<Part> {
    let mut part: Option<Part> = None;
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match (fields.as_slice(), &mut part) {
            (["part", title, introduction, effort], None) => {
                part = Some(Part {
                    name: name.into(),
                    title: (*title).into(),
                    introduction: (*introduction).into(),
                    quick: *effort == "quick",
                    machine: Machine::default(),
                    comparisons: Vec::new(),
                    figures: Vec::new(),
                    plots: Vec::new(),
                    remarks: Vec::new(),
                });
            }
            (["machine", processor, cores, kernel, date, versions], Some(part)) => {
                part.machine = Machine {
                    processor: (*processor).into(),
                    cores: cores.parse().ok()?,
                    kernel: (*kernel).into(),
                    date: (*date).into(),
                    versions: (*versions).into(),
                };
            }
            (["remark", remark], Some(part)) => part.remarks.push((*remark).into()),
            (["plot", file, title], Some(part)) => part.plots.push(Plot::named(file, title)),
            (["figure", group, case, kind, limit, of, spread @ ..], Some(part)) => {
                let limit = limit.parse().ok()?;
                let bound = match *kind {
                    "at most" => Bound::AtMost(limit),
                    "at least" => Bound::AtLeast(limit),
                    _ => Bound::Shown,
                };
                part.figures.push(Figure::new(group, case, bound, of, parse_spread(spread)));
            }
            (["table", key, title, unit], Some(part)) => {
                part.push(Comparison::new(key, title, unit, Vec::new()));
            }
            (["row", name, note, spreads @ ..], Some(part)) => {
                let mut row = Row::new(name, note, Vec::new());
                row.spread = parse_spread(spreads);
                row.ours_to_this = spreads.get(3..).and_then(parse_spread);
                part.comparisons.last_mut()?.rows.push(row);
            }
            _ => {}
        }
    }
    part
}
