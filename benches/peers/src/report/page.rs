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

/// The conclusion in words. `{promise|of}` stands for the median that is on record.
pub const CONCLUSION: &str = include_str!("../../conclusion.md");

const HEAD: &str = "\
Made by `cargo run --release -p uring-arena-peers`; do not edit. `-- --quick` takes under two \
minutes once it is built, `-- core receive` runs two parts only, `-- list` names all pairs of \
contender and case. Numbers without a unit are ours divided by the other's: below 1 is good for \
times.";

const METHOD: &str = "\
Each pair of contender and case has a process of its own. The rounds are interleaved: each round \
visits every pair in turn, starting with another one each time. A ratio is the median of the \
ratios taken round by round, so that drift between rounds falls out. *Noise* is half of the width \
from the tenth to the ninetieth percentile, for ours beside a second process of ours. Cases \
without system calls are measured in three profiles: `release` as it comes, with `codegen-units = \
1` (one unit), and with fat LTO. Times are of one machine on one day: trust the ratios. A row \
below is a promise; where it is made for several cases, *median* is the one in the middle, and \
*worst* the furthest from its bound, in any case and profile. Each case for itself: \
[promises.tsv](benchmarks/promises.tsv).";

const COLUMNS: &str = "\
| | promise | bound | median | worst | the worst is | noise | |
|---|---|---|---|---|---|---|---|";

const SERVERS: &str = "\
A store of Redis' protocol on tokio under `redis-benchmark`, and a server of hyper's under `wrk`: \
`-- servers record`. Each run is at least five seconds of the server's processor time, and a \
figure is the median of interleaved pairs with plain tokio. The row `plain` is plain tokio beside \
itself: half the width of its interval is added to each bound. `auto` is a pool as it comes. One \
thread is a runtime of one thread, two are two workers.";

const SERVER_COLUMNS: &str = "\
| load | threads | clients | server | µs a request | CPU ÷ plain | p50 | p99 | calls | pairs | |
|---|---|--:|---|--:|--:|--:|--:|--:|--:|---|";

/// Draws the plots and writes the page into `folder` (`docs`), from what is on record there.
pub fn write_page(folder: &Path, parts: Vec<Part>) -> io::Result<()> {
    let benchmarks = folder.join("benchmarks");
    let load = |part: Part| Table::load(&benchmarks, part.name).map(|table| (part, table));
    let records: Vec<_> = parts.into_iter().filter_map(load).collect();
    for (part, table) in &records {
        part.plots.iter().try_for_each(|plot| draw(plot, table, &benchmarks))?;
    }
    let promises = Table::load(&benchmarks, "promises").unwrap_or_default();
    let servers = Table::load(&benchmarks, "servers");
    let page = page(&records, &promises, servers.as_ref()).map_err(io::Error::other)?;
    fs::write(folder.join("benchmarks.md"), page)
}

fn page(
    records: &[(Part, Table)],
    promises: &Table,
    servers: Option<&Table>,
) -> Result<String, fmt::Error> {
    let mut page = format!("# uring-arena beside its peers\n\n{}\n", wrapped(HEAD));
    if !promises.lines.is_empty() {
        writeln!(page, "\n## In words")?;
        for paragraph in CONCLUSION.split("\n\n") {
            writeln!(page, "\n{}", wrapped(&told(paragraph, &promises.lines)))?;
        }
        let verdicts: Vec<&str> = promises.lines.iter().map(|kept| &*kept[11]).collect();
        let judged = verdicts.iter().filter(|verdict| !["shown", "not measured"].contains(verdict));
        let (all, met) = (judged.count(), verdicts.iter().filter(|&&verdict| verdict == "met"));
        let met = met.count();
        writeln!(page, "\n## Promised and measured\n\n{}\n", wrapped(METHOD))?;
        writeln!(page, "Of {all} cases {met} are met.\n\n{COLUMNS}")?;
    }
    for (part, _) in records {
        let mut own: Vec<_> = promises.lines.iter().filter(|kept| kept[0] == part.name).collect();
        while let Some(first) = own.first().copied() {
            let is_same = |kept: &&Vec<String>| {
                kept[1] == first[1] && kept[3..5] == first[3..5] && first[4].starts_with('×')
            };
            let (same, others): (Vec<_>, Vec<_>) =
                own.into_iter().partition(|kept| *kept == first || is_same(kept));
            page += &promise(&same);
            own = others;
        }
    }
    if let Some(servers) = servers {
        whole_servers(&mut page, servers)?;
    }
    for (part, table) in records {
        section(&mut page, part, table)?;
    }
    Ok(page)
}

/// Writes the servers on tokio beside plain tokio, a row for each load.
fn whole_servers(page: &mut String, servers: &Table) -> fmt::Result {
    let [date, processor, cores, kernel] =
        ["date", "processor", "cores", "kernel"].map(|name| servers.fact(name));
    let measured = format!("Last measured {date} on {processor}, {cores} cores, {kernel}.");
    writeln!(page, "\n## Whole servers on tokio\n\n{}", wrapped(SERVERS))?;
    writeln!(page, "\n{}\n\n{SERVER_COLUMNS}", wrapped(&measured))?;
    for line in &servers.lines {
        let [threads, load, clients, server, micros, cpu, half, p50, _, p99, _, calls, pairs] =
            &line[..]
        else {
            continue;
        };
        let control =
            servers.lines.iter().find(|other| other[..3] == line[..3] && other[3] == "plain");
        let slack: f64 = control.and_then(|control| control[6].parse().ok()).unwrap_or(0.0);
        let verdict = match (bound(load, clients, server), cpu.parse::<f64>()) {
            (Some(bound), Ok(cpu)) if cpu <= bound + slack => format!("met: ≤ {bound}"),
            (Some(bound), Ok(_)) => format!("**NOT MET**: ≤ {bound}"),
            _ => String::new(),
        };
        writeln!(
            page,
            "| {load} | {threads} | {clients} | {server} | {micros} | {cpu} ± {half} | {p50} | \
             {p99} | {calls} | {pairs} | {verdict} |"
        )?;
    }
    Ok(())
}

/// Returns the most that a server may take, divided by plain tokio. The control's half-width comes
/// on top.
fn bound(load: &str, clients: &str, server: &str) -> Option<f64> {
    let clients: u32 = clients.parse().ok()?;
    match (server, load) {
        ("auto", "HTTP") => Some(1.0),
        ("auto", "P1" | "P16") => Some(if clients >= 50 { 1.0 } else { 1.05 }),
        ("readiness", _) => Some(if clients >= 16 { 1.03 } else { 1.06 }),
        ("ring", "100 KB") => Some(0.88),
        _ => None,
    }
}

/// Puts the numbers on record into a paragraph of the conclusion.
fn told(paragraph: &str, promises: &[Vec<String>]) -> String {
    let words = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut parts = words.split('{');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap_or((part, ""));
        let (promise, of) = name.split_once('|').unwrap_or((name, ""));
        let kept = promises.iter().find(|kept| kept[2] == promise && kept[4] == of);
        let median = kept.and_then(|kept| kept[6].parse().ok()).map(number);
        text = text + median.as_deref().unwrap_or("(not measured)") + rest;
    }
    text
}

/// Returns the row of one promise, which may be made for several cases.
fn promise(cases: &[&Vec<String>]) -> String {
    let Some(&first) = cases.first() else { return String::new() };
    let value = |kept: &Vec<String>, column: usize| kept[column].parse::<f64>().ok();
    let mut medians: Vec<f64> = cases.iter().filter_map(|kept| value(kept, 6)).collect();
    medians.sort_by(f64::total_cmp);
    let median = medians.get(medians.len() / 2).copied();
    let profiles = [(6, ""), (9, ", one unit"), (10, ", fat LTO")];
    let all = cases.iter().flat_map(|kept| {
        profiles.iter().filter_map(move |(column, name)| Some((value(kept, *column)?, kept, *name)))
    });
    let sign = if first[3].starts_with('≥') { -1.0 } else { 1.0 };
    let worst = all.max_by(|one, other| (sign * one.0).total_cmp(&(sign * other.0)));
    let several = cases.len() > 1;
    let name = worst.map_or(String::new(), |(_, kept, profile)| {
        let case = if several { &*kept[2] } else { "" };
        format!("{case}{profile}").trim_start_matches(", ").to_owned()
    });
    let text = match cases.len() {
        1 => first[2].clone(),
        count => format!("{}; and {} more", first[2], count - 1),
    };
    let bound = format!("{} {}", first[3], first[4]);
    let noise = cases.iter().filter_map(|kept| value(kept, 8)).fold(f64::NAN, f64::max);
    let noise = if noise.is_nan() { String::new() } else { format!("± {}", number(noise)) };
    let [median, worst] = [median, worst.map(|it| it.0)].map(|it| it.map_or("".into(), number));
    let verdict = verdict(cases);
    format!(
        "| {} | {text} | {} | {median} | {worst} | {name} | {noise} | {verdict} |\n",
        first[1],
        bound.trim()
    )
}

/// Judges a promise by its cases.
fn verdict(cases: &[&Vec<String>]) -> String {
    let count = |word: &str| cases.iter().filter(|kept| kept[11] == word).count();
    let (failed, partly) = (count("NOT MET"), count("met in release only"));
    let all = cases.len();
    match (failed, partly) {
        (0, 0) => cases.first().map_or(String::new(), |kept| kept[11].clone()),
        (0, _) => "met in release only".into(),
        _ if failed == all => "**NOT MET**".into(),
        _ => format!("**NOT MET** in {failed} of {all}"),
    }
}

fn section(page: &mut String, part: &Part, table: &Table) -> fmt::Result {
    let [date, effort, processor, cores, kernel] =
        ["date", "effort", "processor", "cores", "kernel"].map(|name| table.fact(name));
    let measured = format!(
        "Measured {date} ({effort} run) on {processor}, {cores} cores, {kernel}. Every row, and \
         the versions: [{name}.tsv](benchmarks/{name}.tsv).",
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
