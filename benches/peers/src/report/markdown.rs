//! The page `benchmarks.md`, made anew from all parts on record.

use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::Path;

use super::{Comparison, Part};

const HEAD: &str = "\
# uring-arena beside its peers

Made by `cargo run --release -p uring-arena-peers`, which takes about 25 minutes; do not edit. `-- --quick` takes under two minutes,
`-- core receive` runs two parts only. Numbers are medians over the rounds of one run, with the tenth and ninetieth percentile beside them. The rounds are interleaved:
each round visits every contender in turn, starting with another one each time. *ours ÷ this* is the median of the ratios taken round by
round, with the same percentiles, so that what drifts between rounds falls out. Times are of one machine on one day: trust the ratios.
";

/// Writes the page and its plots into `folder` (`docs`).
pub fn write_page(folder: &Path, parts: &[Part]) -> io::Result<()> {
    let mut page = String::from(HEAD);
    figures(&mut page, parts).map_err(io::Error::other)?;
    for part in parts {
        section(&mut page, part).map_err(io::Error::other)?;
    }
    fs::write(folder.join("benchmarks.md"), page)
}

fn figures(page: &mut String, parts: &[Part]) -> fmt::Result {
    writeln!(page, "\n## Figures: promised and measured\n")?;
    writeln!(page, "| | case | target | measured | p10–p90 | |\n|---|---|---|---|---|---|")?;
    for figure in parts.iter().flat_map(|part| &part.figures) {
        let (measured, range) = match figure.measured {
            Some(spread) => {
                let range = format!("{}–{}", number(spread.p10), number(spread.p90));
                (number(spread.median), range)
            }
            None => ("–".into(), "–".into()),
        };
        let verdict = match figure.verdict() {
            "NOT MET" => "**NOT MET**",
            other => other,
        };
        let (group, case, target) = (&figure.group, &figure.case, figure.target());
        writeln!(page, "| {group} | {case} | {target} | {measured} | {range} | {verdict} |")?;
    }
    Ok(())
}

fn section(page: &mut String, part: &Part) -> fmt::Result {
    let machine = &part.machine;
    writeln!(page, "\n## {}\n\n{}\n", part.title, part.introduction)?;
    writeln!(
        page,
        "Measured {}{} on {}, {} cores, {}.  \nVersions: {}.",
        machine.date,
        if part.quick { " (quick run)" } else { "" },
        machine.processor,
        machine.cores,
        machine.kernel,
        machine.versions,
    )?;
    for remark in &part.remarks {
        writeln!(page, "\n> {remark}")?;
    }
    for plot in &part.plots {
        writeln!(page, "\n![{}](benchmarks/{}.svg)", plot.title, plot.file)?;
    }
    for comparison in &part.comparisons {
        table(page, comparison)?;
    }
    Ok(())
}

fn table(page: &mut String, comparison: &Comparison) -> fmt::Result {
    writeln!(page, "\n### {}\n", comparison.title)?;
    writeln!(page, "| | {} | p10–p90 | ours ÷ this | |\n|---|--:|--:|--:|---|", comparison.unit)?;
    for row in &comparison.rows {
        let Some(spread) = row.spread else {
            writeln!(page, "| {} | failed | | | {} |", row.name, row.note)?;
            continue;
        };
        let ratio = row.ours_to_this.map_or(String::new(), |ratio| {
            format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.p10, ratio.p90)
        });
        writeln!(
            page,
            "| {} | {} | {}–{} | {ratio} | {} |",
            row.name,
            number(spread.median),
            number(spread.p10),
            number(spread.p90),
            row.note,
        )?;
    }
    Ok(())
}

/// Three figures that matter, and no more.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
