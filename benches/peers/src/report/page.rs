//! The page `benchmarks.md`, made anew from all parts on record: promises first, then what each
//! part measures and where its rows are.

use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::Path;

use super::part::Part;
use super::plot::draw;
use super::table::Table;
use super::terminal::number;

const HEAD: &str = "\
Made by `cargo run --release -p uring-arena-peers`; do not edit. `-- --quick` takes under two \
minutes once it is built, `-- core receive` runs two parts only, `-- list` names all pairs of \
contender and case. Each pair has a process of its own. The rounds are interleaved: each round \
visits every pair in turn, starting with another one each time. A ratio is the median of the \
ratios taken round by round, with the tenth and ninetieth percentile beside it, so that drift \
between rounds falls out. *Noise* is half of that width for ours beside a second process of ours. \
Cases without system calls are measured in three profiles: `release` as it comes, with \
`codegen-units = 1` (one unit), and with fat LTO. Times are of one machine on one day: trust the \
ratios. Every figure is in tables beside this page; [promises.tsv](benchmarks/promises.tsv) is the \
one below.";

const COLUMNS: &str = "\
| | promise | bound | measured | p10–p90 | noise | one unit | fat LTO | |
|---|---|---|---|---|---|---|---|---|";

/// Draws the plots and writes the page into `folder` (`docs`), from what is on record there.
pub fn write_page(folder: &Path, parts: Vec<Part>) -> io::Result<()> {
    let benchmarks = folder.join("benchmarks");
    let load = |part: Part| Table::load(&benchmarks, part.name).map(|table| (part, table));
    let records: Vec<_> = parts.into_iter().filter_map(load).collect();
    for (part, table) in &records {
        part.plots.iter().try_for_each(|plot| draw(plot, table, &benchmarks))?;
    }
    let promises = Table::load(&benchmarks, "promises").unwrap_or_default();
    let page = page(&records, &promises).map_err(io::Error::other)?;
    fs::write(folder.join("benchmarks.md"), page)
}

fn page(records: &[(Part, Table)], promises: &Table) -> Result<String, fmt::Error> {
    let mut page = format!("# uring-arena beside its peers\n\n{}\n", wrapped(HEAD));
    if !promises.lines.is_empty() {
        let verdicts: Vec<&str> = promises.lines.iter().map(|kept| &*kept[11]).collect();
        let judged = verdicts.iter().filter(|verdict| !["shown", "not measured"].contains(verdict));
        let (all, met) = (judged.count(), verdicts.iter().filter(|&&verdict| verdict == "met"));
        let met = met.count();
        writeln!(page, "\n## Promised and measured\n")?;
        writeln!(page, "Of {all} promises {met} are met.\n\n{COLUMNS}")?;
    }
    for (part, _) in records {
        let own = promises.lines.iter().filter(|kept| kept[0] == part.name);
        own.map(|kept| promise(kept)).for_each(|line| page += &line);
    }
    for (part, table) in records {
        section(&mut page, part, table)?;
    }
    Ok(page)
}

fn promise(kept: &[String]) -> String {
    let short = |field: &String| field.parse().map_or(String::new(), number);
    let numbers: Vec<_> = kept[5..11].iter().map(short).collect();
    let [p10, median, p90, noise, one_unit, fat_lto] = &numbers[..] else { return String::new() };
    let noise = if noise.is_empty() { "" } else { &format!("± {noise}") };
    let verdict = kept[11].replace("NOT MET", "**NOT MET**");
    let (group, text, bound) = (&kept[1], &kept[2], format!("{} {}", kept[3], kept[4]));
    let bound = bound.trim();
    format!(
        "| {group} | {text} | {bound} | {median} | {p10}–{p90} | {noise} | {one_unit} | {fat_lto} \
         | {verdict} |\n"
    )
}

fn section(page: &mut String, part: &Part, table: &Table) -> fmt::Result {
    let [date, effort, processor, cores, kernel, versions] =
        ["date", "effort", "processor", "cores", "kernel", "versions"].map(|name| table.fact(name));
    let measured = format!(
        "Measured {date} ({effort} run) on {processor}, {cores} cores, {kernel}. Versions: \
         {versions}. Every row: [{name}.tsv](benchmarks/{name}.tsv).",
        name = part.name
    );
    writeln!(page, "\n## {}\n\n{}", part.title, wrapped(part.introduction))?;
    writeln!(page, "\n{}", wrapped(&measured))?;
    for (_, remark) in table.facts.iter().filter(|fact| fact.0 == "remark") {
        writeln!(page, "\n{}", wrapped(&format!("* {remark}")))?;
    }
    for plot in part.plots {
        writeln!(page, "\n![{}](benchmarks/{}.svg)", plot.title, plot.file)?;
    }
    Ok(())
}

/// Breaks lines at 100 columns.
fn wrapped(text: &str) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        let separator = if column + length >= 100 { "\n" } else { " " };
        column = if separator == "\n" { length } else { column + 1 + length };
        out = out + separator + word;
    }
    out.trim_start().into()
}
