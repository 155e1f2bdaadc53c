//! Tables kept beside the page as TSV by a fixed schema: `<part>.tsv` has a line for each pair and
//! metric, `promises.tsv` one for each promise.
//!
//! Lines that begin with `#` are facts about the run of the part.

use std::fs;
use std::io;
use std::path::Path;

use crate::run::Row;

use super::machine::machine;
use super::promise::spread_fields;

const ROWS: &str = "case\tmetric\tunit\tprofile\tcontender\tp10\tmedian\tp90\t\
                    ratio_p10\tratio_median\tratio_p90\ttitle\tnote";
const PROMISES: &str = "part\tgroup\tpromise\tbound\tof\tp10\tmedian\tp90\tnoise\t\
                        one_unit\tfat_lto\tverdict";

/// The first four are the key.
#[cfg(feature = "io")]
const SERVERS: &str = "threads\tload\tclients\tserver\tmicroseconds\tcpu\tcpu_half_width\t\
                           p50\tp50_half_width\tp99\tp99_half_width\tcalls\tpairs";

/// A table of fields, with facts by name. The fact `remark` may come several times.
#[derive(Debug, Default)]
pub struct Table {
    pub facts: Vec<(String, String)>,
    pub lines: Vec<Vec<String>>,
}

impl Table {
    /// Makes the table of a part's rows.
    pub fn of_rows(rows: &[Row], quick: bool, remarks: Vec<String>) -> Self {
        let mut facts = machine();
        facts.push(("effort".into(), if quick { "quick" } else { "full" }.into()));
        facts.extend(remarks.into_iter().map(|remark| ("remark".into(), remark)));
        let line = |row: &Row| {
            let mut fields = vec![row.case.clone(), row.metric.into(), row.unit.into()];
            fields.extend([row.profile.name().into(), row.contender.clone()]);
            fields.extend(spread_fields(row.spread));
            fields.extend(spread_fields(row.ratio));
            fields.extend([row.title.clone(), row.note.clone()]);
            fields
        };
        Self { facts, lines: rows.iter().map(line).collect() }
    }

    pub fn fact(&self, name: &str) -> &str {
        let fact = self.facts.iter().find(|fact| fact.0 == name);
        fact.map_or("unknown", |fact| &fact.1)
    }

    /// Adds the rows on record of the cases that this table has none of, in the order of `keys`.
    pub fn keep_others(&mut self, folder: &Path, part: &str, keys: &[&str]) {
        let before = Self::load(folder, part).unwrap_or_default().lines;
        let is_here = |case: &String| self.lines.iter().any(|line| &line[0] == case);
        let others: Vec<_> = before.into_iter().filter(|line| !is_here(&line[0])).collect();
        self.lines.extend(others);
        let place = |line: &Vec<String>| keys.iter().position(|&key| key == line[0]);
        self.lines.retain(|line| place(line).is_some());
        self.lines.sort_by_key(place);
    }

    /// Writes the rows of a part.
    pub fn store(&self, folder: &Path, part: &str) -> io::Result<()> {
        self.write(&folder.join(format!("{part}.tsv")), ROWS)
    }

    /// Writes the promises of a part; the promises of other parts stay on record.
    pub fn store_promises(mut self, folder: &Path, part: &str) -> io::Result<()> {
        let others = Self::load(folder, "promises").unwrap_or_default().lines;
        self.lines.extend(others.into_iter().filter(|line| line[0] != part));
        self.write(&folder.join("promises.tsv"), PROMISES)
    }

    /// Puts the results of whole servers that this machine measured now on record, in the place of
    /// those with the same key.
    #[cfg(feature = "io")]
    pub fn keep_servers(mut lines: Vec<Vec<String>>, folder: &Path) -> io::Result<()> {
        let before = Self::load(folder, "servers").unwrap_or_default().lines;
        let is_here = |old: &Vec<String>| lines.iter().any(|new| new[..4] == old[..4]);
        let others: Vec<_> = before.into_iter().filter(|old| !is_here(old)).collect();
        lines.extend(others);
        lines.sort_by_key(|line| {
            let clients: usize = line[2].parse().unwrap_or(0);
            (line[1].clone(), line[0].clone(), clients, line[3] != "plain", line[3].clone())
        });
        Self { facts: machine(), lines }.write(&folder.join("servers.tsv"), SERVERS)
    }

    fn write(&self, path: &Path, head: &str) -> io::Result<()> {
        let facts = self.facts.iter().map(|(name, value)| format!("# {name}: {value}"));
        let lines = self.lines.iter().map(|line| line.join("\t"));
        let all: Vec<_> = facts.chain([head.into()]).chain(lines).collect();
        fs::write(path, all.join("\n") + "\n")
    }

    /// Reads a table that is on record.
    pub fn load(folder: &Path, name: &str) -> Option<Self> {
        let text = fs::read_to_string(folder.join(format!("{name}.tsv"))).ok()?;
        let (facts, lines): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
        let fact = |line: &str| {
            let (name, value) = line.strip_prefix("# ")?.split_once(": ")?;
            Some((name.into(), value.into()))
        };
        let fields = |line: &str| line.split('\t').map(str::to_owned).collect();
        Some(Self {
            facts: facts.into_iter().filter_map(fact).collect(),
            lines: lines.into_iter().skip(1).map(fields).collect(),
        })
    }
}
