//! Figures: printed as they come, kept as JSON, and shown as a table.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::machine::{self, Machine};

/// One measured thing.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// The part of the run: `route`, `delta`, …
    pub part: &'static str,
    /// What was measured, and in which unit.
    pub what: String,
    pub unit: &'static str,
    pub ours: f64,
    /// What the least possible program reached in the same run.
    pub limit: Option<f64>,
    /// Ours by limit, so that more is better.
    pub ratio: Option<f64>,
    pub goal: Option<f64>,
    /// The machine's load average of the last minute.
    pub load: f64,
}

/// All figures of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub figures: Vec<Figure>,
}

// === impl Figure ===

impl Figure {
    pub fn new(part: &'static str, what: impl Into<String>, unit: &'static str, ours: f64) -> Self {
        Self { part, what: what.into(), unit, ours, limit: None, ratio: None, goal: None, load: machine::load() }
    }

    /// What the limit reached. For figures of which more is better.
    #[must_use]
    pub fn beside(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self.ratio = Some(self.ours / limit);
        self
    }

    #[must_use]
    pub const fn goal(mut self, goal: f64) -> Self {
        self.goal = Some(goal);
        self
    }

    fn cells(&self) -> [String; 6] {
        let goal = self.goal.map_or_else(String::new, |goal| format!(" (goal {goal})"));
        [
            self.what.clone(),
            self.unit.to_owned(),
            number(self.ours),
            self.limit.map_or_else(String::new, number),
            self.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}{goal}")),
            format!("{:.1}", self.load),
        ]
    }
}

// === impl Report ===

impl Report {
    pub fn new() -> Self {
        Self { machine: Machine::here(), figures: Vec::new() }
    }

    /// Keeps a figure and prints it.
    pub fn add(&mut self, figure: Figure) {
        let [what, unit, ours, limit, ratio, load] = figure.cells();
        let beside = if limit.is_empty() { String::new() } else { format!(", limit {limit}, ratio {ratio}") };
        println!("  {what}: {ours} {unit}{beside}   [load {load}]");
        self.figures.push(figure);
    }

    /// The run as a Markdown table for each part.
    pub fn markdown(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "Commit `{}`, {} UTC; {} cores of {}, {} GiB of memory.\n",
            machine.commit, machine.date, machine.cores, machine.processor, machine.memory_gib
        );
        let mut part = "";
        for figure in &self.figures {
            if figure.part != part {
                part = figure.part;
                write!(
                    text,
                    "\n**{part}**\n\n| what | unit | ours | limit | ratio | load |\n|---|---|---:|---:|---:|---:|\n"
                )
                .unwrap_or_default();
            }
            writeln!(text, "| {} |", figure.cells().join(" | ")).unwrap_or_default();
        }
        text
    }

    /// Writes `<date>-<commit>.json` and `.md` into a folder.
    pub fn save(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let date = self.machine.date.replace([' ', ':'], "-");
        let name = format!("{date}-{}", self.machine.commit.trim_end_matches('+'));
        let json = serde_json::to_string_pretty(self).unwrap_or_else(|error| panic!("figures are no JSON: {error}"));
        for (ending, text) in [("json", json), ("md", self.markdown())] {
            let path = folder.join(format!("{name}.{ending}"));
            fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

/// Three digits that count, and thousands apart.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    if value.abs() < 100.0 {
        let decimals = if value.abs() < 1.0 {
            3
        } else if value.abs() < 10.0 {
            2
        } else {
            1
        };
        return format!("{value:.decimals$}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// The middle one; of an even number, the upper of the two.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value below which this part (0 to 1) of the sorted values lies.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let index = ((sorted.len() as f64 * part).ceil() as usize).saturating_sub(1);
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(0.1234), "0.123");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(-1234.0), "-1,234");
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), 500.0);
        assert_eq!(percentile(&values, 0.999), 999.0);
        assert_eq!(percentile(&values, 1.0), 1000.0);
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
    }
}
