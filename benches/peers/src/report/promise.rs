//! Promises with a number, listed in `promises.tsv`, beside what was measured.

use crate::run::{CONTROL, Profile, Row, Spread, ratios};

/// The list of promises. A `ratio` is read from two rows round by round, a `value` from one row. A
/// `difference` is that of the medians of two rows, times a factor.
pub const PROMISES: &str = include_str!("../../promises.tsv");

/// Reads off the rows of a part what it promises: the fields of the record.
pub fn promises(part: &str, rows: &[Row]) -> Vec<Vec<String>> {
    let lines = PROMISES.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let own = lines.filter(|fields| fields[0] == part);
    own.map(|fields| {
        let [release, one_unit, fat_lto] = Profile::ALL.map(|profile| read(&fields, rows, profile));
        let noise = row(&fields[6..9], rows, Profile::Release, CONTROL)
            .or_else(|| row(&fields[9..12], rows, Profile::Release, CONTROL))
            .filter(|_| fields[5] == "ratio");
        let noise = noise.and_then(|control| control.ratio).map(Spread::half_width);
        let median = |spread: Option<Spread>| number(spread.map(|spread| spread.median));
        let mut kept: Vec<String> = fields[..5].iter().map(|&field| field.into()).collect();
        kept.extend(spread_fields(release));
        kept.extend([number(noise), median(one_unit), median(fat_lto)]);
        let is_broken = |&spread: &Option<Spread>| verdict(fields[3], spread) == "NOT MET";
        kept.push(match verdict(fields[3], release) {
            "met" if [one_unit, fat_lto].iter().any(is_broken) => "met in release only".into(),
            other => other.into(),
        });
        kept
    })
    .collect()
}

fn row<'a>(at: &[&str], rows: &'a [Row], profile: Profile, control: &str) -> Option<&'a Row> {
    rows.iter().find(|row| {
        [row.case.as_str(), row.metric] == at[..2]
            && row.profile == profile
            && row.contender.strip_suffix(control) == Some(at[2])
    })
}

fn read(fields: &[&str], rows: &[Row], profile: Profile) -> Option<Spread> {
    let above = row(&fields[6..9], rows, profile, "")?;
    let below = || row(&fields[9..12], rows, profile, "");
    match fields[5].strip_prefix("difference × ") {
        Some(factor) => {
            let difference = above.spread?.median - below()?.spread?.median;
            Spread::of(&[difference * factor.parse::<f64>().ok()?])
        }
        None if fields[5] == "ratio" => ratios(&above.samples, &below()?.samples),
        None => above.spread,
    }
}

fn verdict(bound: &str, measured: Option<Spread>) -> &'static str {
    let limit = |sign| bound.strip_prefix(sign).and_then(|limit| limit.trim().parse::<f64>().ok());
    let Some(measured) = measured else { return "not measured" };
    match (limit("≤"), limit("≥")) {
        (Some(limit), _) if measured.median > limit => "NOT MET",
        (_, Some(limit)) if measured.median < limit => "NOT MET",
        (None, None) => "shown",
        _ => "met",
    }
}

/// Writes a number of a record.
pub fn number(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.4}"))
}

/// Writes the three numbers of a spread.
pub fn spread_fields(spread: Option<Spread>) -> [String; 3] {
    let values = spread.map(|spread| [spread.p10, spread.median, spread.p90].map(Some));
    values.unwrap_or_default().map(number)
}
