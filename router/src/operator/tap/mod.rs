//! `tailwater tap`: prints the records of a topic as they are, with our own formats decoded.

mod decode;
#[cfg(test)]
mod fuzz;

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::time::Duration;

use crate::config::model::Config;
use crate::kafka::Record;
use crate::kafka::read::{Range, Reader};
use crate::operator::shown::{self, Shown};
use crate::operator::{Error, topic};

pub use self::decode::Decoded;

/// Records that are shown from the end where no limit says otherwise.
const LAST_DEFAULT: u64 = 10;

/// Records that are held in memory to show the last ones of a topic in order.
pub const LAST_MAX: u64 = 100_000;

/// The pause before a topic is looked at again when nothing new was there.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(300);

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Beginning,
    /// The last records; with `follow`, only new ones.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One object a line.
    Json,
    Text {
        lay_out: bool,
    },
}

#[derive(Debug, Clone)]
pub struct Options {
    pub topic: String,
    pub from: From,
    pub limit: Option<u64>,
    pub follow: bool,
    pub format: Format,
}

/// Prints records until the limit or the end; with `follow`, until the process is stopped.
///
/// # Errors
/// There is no such topic, no broker answers, or nobody reads the output any more.
pub fn tap(config: &Config, options: &Options, out: &mut dyn Write) -> Result<(), Error> {
    let reader = Reader::reach(&config.kafka)?;
    let topic = topic(&reader, &config.kafka.prefix, &options.topic)?;
    let kind = topic.strip_prefix(&config.kafka.prefix).unwrap_or(&topic).to_owned();
    let mut printer = Printer { kind, format: options.format, left: options.limit.unwrap_or(u64::MAX), out };
    let whole = reader.whole(&topic)?;
    match options.from {
        From::Beginning => printer.read(&reader, &whole)?,
        From::End if options.follow => {}
        From::End => printer.last(&reader, &whole, options.limit.unwrap_or(LAST_DEFAULT).min(LAST_MAX))?,
    }
    let mut next: BTreeMap<i32, i64> = whole.into_iter().map(|range| (range.partition, range.end)).collect();
    while options.follow && printer.left > 0 {
        let mut ranges = reader.whole(&topic)?;
        for range in &mut ranges {
            let from = next.entry(range.partition).or_insert(range.start);
            // A topic that was made anew begins again.
            range.start = if *from > range.end { range.start } else { range.start.max(*from) };
            *from = range.end;
        }
        if ranges.iter().all(|range| range.start >= range.end) {
            std::thread::sleep(FOLLOW_INTERVAL);
        }
        printer.read(&reader, &ranges)?;
    }
    Ok(())
}

struct Printer<'a> {
    /// The topic without the prefix, which says what its records are.
    kind: String,
    format: Format,
    left: u64,
    out: &'a mut dyn Write,
}

impl Printer<'_> {
    fn read(&mut self, reader: &Reader, ranges: &[Range]) -> Result<(), Error> {
        if self.left == 0 {
            return Ok(());
        }
        reader.read::<Error>(ranges, |record| {
            self.print(&record)?;
            self.left -= 1;
            Ok(self.left > 0)
        })
    }

    /// The last records of all partitions together, oldest first.
    fn last(&mut self, reader: &Reader, whole: &[Range], count: u64) -> Result<(), Error> {
        let mut found: Vec<Record> = Vec::new();
        for range in whole {
            found.extend(last_of(reader, range, count)?);
        }
        found.sort_by_key(|record| (record.timestamp, record.partition, record.offset));
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        for record in &found[found.len().saturating_sub(count)..] {
            self.print(record)?;
        }
        Ok(())
    }

    fn print(&mut self, record: &Record) -> Result<(), Error> {
        let decoded = decode::decode(&self.kind, record);
        match self.format {
            Format::Json => {
                let envelope = record.envelope();
                let shown = Shown::of(record, &envelope, decoded.map(|decoded| decoded.json));
                serde_json::to_writer(&mut *self.out, &shown).map_err(std::io::Error::from)?;
                self.out.write_all(b"\n")?;
            }
            Format::Text { lay_out } => {
                let (key, lines) = decoded.map_or((None, Vec::new()), |decoded| (decoded.key, decoded.lines));
                self.out.write_all(shown::to_text(record, key.as_deref(), &lines, lay_out).as_bytes())?;
            }
        }
        Ok(self.out.flush()?)
    }
}

/// The last records of a partition. Offsets have gaps, from compaction and from the marks of transactions, so the look back is widened
/// until there are enough.
fn last_of(reader: &Reader, range: &Range, count: u64) -> Result<VecDeque<Record>, Error> {
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    let mut back = i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(2).saturating_add(16);
    loop {
        let start = range.end.saturating_sub(back).max(range.start);
        let mut found: VecDeque<Record> = VecDeque::new();
        reader.read::<Error>(&[Range { start, ..range.clone() }], |record| {
            if found.len() >= wanted {
                found.pop_front();
            }
            found.push_back(record);
            Ok(true)
        })?;
        if found.len() >= wanted || start <= range.start {
            return Ok(found);
        }
        back = back.saturating_mul(4);
    }
}
