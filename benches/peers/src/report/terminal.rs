//! The tables and the promises on the terminal.

use crate::run::{CONTROL, Profile, Row, Spread};

use super::table::Table;

pub fn print(part: &str, table: &Table, rows: &[Row], promises: &[Vec<String>]) {
    println!("\n# {part}");
    table.facts.iter().for_each(|(name, value)| println!("{name}: {value}"));
    let mut heading = "";
    for row in rows.iter().filter(|row| row.profile == Profile::Release) {
        if heading != row.title {
            println!("\n{} [{}]", row.title, row.unit);
            heading = &row.title;
        }
        let Some(spread) = row.spread else {
            println!("  {:42}    failed  {}", row.contender, row.note);
            continue;
        };
        let range = format!("{}–{}", number(spread.p10), number(spread.p90));
        let median = number(spread.median);
        let ratio = match row.ratio {
            Some(ratio) if row.contender.ends_with(CONTROL) => {
                format!("noise ± {:.3}", ratio.half_width())
            }
            Some(Spread { p10, median, p90 }) => {
                format!("ours ÷ this {median:.2} ({p10:.2}–{p90:.2})")
            }
            None => String::new(),
        };
        let others = others(row, rows);
        println!(
            "  {:42} {median:>9}  {range:>17}  {ratio:32}{others}  {}",
            row.contender, row.note
        );
    }
    println!();
    for kept in promises {
        let [_, _, text, bound, of, _, median, _, noise, _, _, verdict] = &kept[..] else {
            continue;
        };
        println!("  {verdict:12} {median:>9} ± {noise:8} {bound:7} {of:30} {text}");
    }
}

/// Returns the same row in the other profiles.
fn others(row: &Row, rows: &[Row]) -> String {
    let same = |other: &&Row| (&other.title, &other.contender) == (&row.title, &row.contender);
    let others = rows.iter().filter(|other| other.profile != row.profile).filter(same);
    let text = others.filter_map(|other| {
        let (name, median) = (other.profile.name(), number(other.spread?.median));
        Some(format!("  {name} {median:>6} ({:.2})", other.ratio?.median))
    });
    text.collect()
}

/// Writes the three digits that matter.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
