//! The verdict in words.

use std::fmt;

use super::super::receiver::Kind;
use super::{Finding, Verdict};

/// Findings of one word that are told one by one.
const TOLD_MAX: usize = 10;

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Activity => "activity",
            Self::Score => "score",
            Self::Track => "track",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: [(&str, &[Finding]); 5] = [
            ("lost", &self.lost),
            ("duplicated", &self.duplicated),
            ("reordered", &self.reordered),
            ("unseen", &self.unseen),
            ("strays", &self.strays),
        ];
        for (word, found) in words {
            write!(formatter, "{} {word}, ", found.len())?;
        }
        writeln!(
            formatter,
            "{} ambiguous repeats ({}); {} repeats that the vendor asked for; {} arrivals for {} expected",
            self.ambiguous,
            percent(self.ambiguous, self.arrivals),
            self.asked,
            self.arrivals,
            self.expected
        )?;
        for (why, count) in &self.asked_by {
            writeln!(formatter, "  asked for: {count} {why}")?;
        }
        for (why, count) in &self.ambiguous_by {
            writeln!(formatter, "  ambiguous: {count} {why}")?;
        }
        for (word, found) in words.into_iter().filter(|(_, found)| !found.is_empty()) {
            for finding in found.iter().take(TOLD_MAX) {
                writeln!(formatter, "  {word}: {}", finding.text)?;
            }
            if found.len() > TOLD_MAX {
                writeln!(formatter, "  {word}: and {} more", found.len() - TOLD_MAX)?;
            }
        }
        Ok(())
    }
}

/// A share with one digit behind the point, in whole numbers.
fn percent(part: usize, all: usize) -> String {
    let tenths = part.saturating_mul(1_000).checked_div(all).unwrap_or(0);
    format!("{}.{} %", tenths / 10, tenths % 10)
}
