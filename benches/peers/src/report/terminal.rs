//! The same tables on the terminal.

use crate::harness::Spread;

use super::machine::Machine;
use super::markdown::number;
use super::{Figure, Part};

pub fn print(part: &Part) {
    println!("\n# {}\n", part.title);
    let Machine { date, processor, cores, kernel, versions } = &part.machine;
    println!("{date}, {processor}, {cores} cores, {kernel}\n{versions}\n");
    for comparison in &part.comparisons {
        println!("{} [{}]", comparison.title, comparison.unit);
        for row in &comparison.rows {
            let Some(spread) = row.spread else {
                println!("  {:41}    failed  {}", row.name, row.note);
                continue;
            };
            let range = format!("{}–{}", number(spread.p10), number(spread.p90));
            let ratio = row.ours_to_this.map_or(String::new(), ratio);
            println!(
                "  {:41} {:>9}  {range:>17}  {ratio:36}  {}",
                row.name,
                number(spread.median),
                row.note
            );
        }
    }
    for remark in &part.remarks {
        println!("! {remark}");
    }
    print_figures(&part.figures);
}

fn print_figures(figures: &[Figure]) {
    if figures.is_empty() {
        return;
    }
    println!("\nFigures");
    for figure in figures {
        let measured = figure.measured.map_or("–".into(), |spread| number(spread.median));
        let (case, target, verdict) = (&figure.case, figure.target(), figure.verdict());
        println!("  {verdict:12} {measured:>8}  {target:34} {case}");
    }
}

fn ratio(spread: Spread) -> String {
    format!("ours ÷ this {:.2} ({:.2}–{:.2})", spread.median, spread.p10, spread.p90)
}
