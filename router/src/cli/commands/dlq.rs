//! `tailwater dlq`: lists, shows, replays and discards dead letters.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::cli::args::{
    DlqArgs, DlqCommand, DlqDiscardArgs, DlqListArgs, DlqReplayArgs, DlqShowArgs, RecordRef, Selection, Which,
};
use crate::cli::load::{Purpose, load};
use crate::cli::{Error, Exit, Global, output, progress};
use crate::config::Config;
use crate::operator::dlq::{CHOSEN_MAX, Chosen, Deed, Dlq, Done, Filter, Letter, Listed, Mark, Queue, Reference};
use crate::operator::shown::{self, Shown};
use crate::runtime::clock::now;

/// # Errors
/// The configuration cannot be used, there is no such queue, or Kafka fails.
pub fn execute(args: &DlqArgs, global: &Global) -> Result<Exit, Error> {
    let config = load(global, Purpose::Look)?;
    match &args.command {
        DlqCommand::List(args) => list(&config, args),
        DlqCommand::Show(args) => show(&config, args),
        DlqCommand::Replay(DlqReplayArgs { which, force, transform, dry_run, yes }) => {
            settle(&config, which, &Deed::Replay { force: *force, transform: *transform }, *dry_run, *yes)
        }
        DlqCommand::Discard(DlqDiscardArgs { which, reason, dry_run, yes }) => {
            settle(&config, which, &Deed::Discard { reason: reason.clone() }, *dry_run, *yes)
        }
    }
}

fn filter(selection: &Selection) -> Filter {
    Filter {
        destination: selection.destination.clone(),
        source: selection.source.clone(),
        code: selection.code,
        since: selection.since.map(|since| since.from(now())),
    }
}

// === list and show ===

/// A dead letter for programs.
#[derive(Serialize)]
struct Line<'a> {
    record: String,
    state: &'static str,
    timestamp: String,
    stage: &'a str,
    code: &'a str,
    message: &'a str,
    source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transform: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    replays: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a shown::Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingest: Option<&'a shown::Place>,
    /// What was done with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    settled: Option<&'a Mark>,
}

impl<'a> Line<'a> {
    fn of(Listed { letter, mark }: &'a Listed) -> Self {
        Self {
            record: letter.at.to_string(),
            state: state(mark.as_ref()),
            timestamp: letter.timestamp.to_string(),
            stage: &letter.stage,
            code: &letter.code,
            message: &letter.message,
            source: &letter.source,
            destination: match &letter.at.queue {
                Queue::Destination(name) => Some(name),
                Queue::Source(_) => None,
            },
            event: letter.event.map(|id| id.to_string()),
            profile: letter.profile.map(|id| id.to_string()),
            transform: letter.transform.as_deref(),
            attempts: letter.attempts,
            replays: letter.replays,
            origin: letter.origin.as_ref(),
            ingest: letter.ingest.as_ref(),
            settled: mark.as_ref(),
        }
    }
}

fn state(mark: Option<&Mark>) -> &'static str {
    mark.map_or("open", |mark| mark.action.as_str())
}

fn list(config: &Config, args: &DlqListArgs) -> Result<Exit, Error> {
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let list = Dlq::connect(config)?.list(&filter(&args.selection), limit, args.all_states, &mut progress::show)?;
    progress::clear();
    for listed in &list.letters {
        if args.json {
            output::json(&Line::of(listed))?;
        } else {
            output::line(&in_one_line(listed, args.all_states))?;
        }
    }
    if list.left_out > 0 {
        output::complaint(&format!("{} older ones are not shown; --limit shows more", list.left_out));
    } else if list.letters.is_empty() && !args.json {
        output::line(if args.all_states { "no dead letters" } else { "no open dead letters" })?;
    }
    Ok(Exit::Success)
}

fn in_one_line(Listed { letter, mark }: &Listed, with_state: bool) -> String {
    let Letter { at, timestamp, stage, code, message, source, .. } = letter;
    let state = if with_state { format!("  {:<9}", state(mark.as_ref())) } else { String::new() };
    let replays = if letter.replays > 0 { format!("  (replayed {} times)", letter.replays) } else { String::new() };
    let message = message.lines().next().unwrap_or_default();
    format!("{at}  {timestamp}{state}  {stage:<7}  {source}  {code}: {message}{replays}")
}

fn show(config: &Config, args: &DlqShowArgs) -> Result<Exit, Error> {
    let at = reference(&args.record);
    let Some((record, listed)) = Dlq::connect(config)?.show(&at)? else {
        output::complaint(&format!("tailwater: there is no dead letter {at}; `tailwater dlq list` names them"));
        return Ok(Exit::Problem);
    };
    if args.json {
        #[derive(Serialize)]
        struct Whole<'a> {
            dead_letter: Line<'a>,
            record: Shown<'a>,
        }
        let envelope = record.envelope();
        output::json(&Whole { dead_letter: Line::of(&listed), record: Shown::of(&record, &envelope, None) })?;
        return Ok(Exit::Success);
    }
    let Listed { letter, mark } = &listed;
    let mut text = format!("{at}  {}: {}\n", letter.code, letter.message);
    let attempts = letter.attempts.map_or_else(String::new, |count| format!(" after {count} attempts"));
    let transform = letter.transform.as_ref().map_or_else(String::new, |name| format!(", transform {name}"));
    text.push_str(&format!("  refused by {}{attempts}{transform}; see docs/errors/{}.md\n", letter.stage, letter.code));
    match mark {
        None => text.push_str("  open\n"),
        Some(mark) => {
            let why = mark.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            let id = mark.replay.as_ref().map_or_else(String::new, |id| format!(", replay {id}"));
            text.push_str(&format!("  {} at {}{id}{why}\n", mark.action.as_str(), mark.at));
        }
    }
    text.push_str(&shown::to_text(&record, None, &[], true));
    output::text(&text)?;
    Ok(Exit::Success)
}

// === replay and discard ===

fn reference(record: &RecordRef) -> Reference {
    // What is no queue was refused when the arguments were read.
    let queue = Queue::parse(&record.queue).unwrap_or_else(|| Queue::Source(record.queue.clone()));
    Reference { queue, partition: record.partition, offset: record.offset }
}

fn settle(config: &Config, which: &Which, deed: &Deed, dry_run: bool, yes: bool) -> Result<Exit, Error> {
    let dlq = Dlq::connect(config)?;
    let (chosen, missing) = if which.all {
        (dlq.choose(&filter(&which.selection), &mut progress::show)?, Vec::new())
    } else {
        let named: Vec<Reference> = which.records.iter().map(reference).collect();
        dlq.pick(&named, &mut progress::show)?
    };
    progress::clear();
    for (at, mark) in &missing {
        let why = match mark {
            Some(mark) => format!("was {} already, at {}", mark.action.as_str(), mark.at),
            None => "is not there; `tailwater dlq list` names those that are".to_owned(),
        };
        output::complaint(&format!("{at} {why}"));
    }
    let mut tally = Tally::default();
    if chosen.is_empty() {
        if missing.is_empty() {
            output::line("no open dead letters are selected")?;
        }
    } else if dry_run {
        let mut written = Ok(());
        dlq.rehearse(&chosen, deed, &mut |at, done| {
            if written.is_ok() {
                written = tally.tell(at, &done, true);
            }
        })?;
        written?;
    } else {
        if !yes && !confirmed(&chosen, deed)? {
            output::line("nothing was done")?;
            return Ok(Exit::Success);
        }
        let mut written = Ok(());
        let id = dlq.settle(&chosen, deed, &mut |at, done| {
            if written.is_ok() {
                written = tally.tell(at, &done, false);
            }
        })?;
        written?;
        if tally.replayed > 0 {
            output::line(&format!("replay {id}: `tailwater audit` and `tailwater trace` show what becomes of it"))?;
        }
    }
    if !chosen.is_empty() {
        output::line(&tally.summary(chosen.len(), dry_run))?;
    }
    if chosen.more {
        output::complaint(&format!(
            "more than {CHOSEN_MAX} were selected; the others are still open, run the command again"
        ));
    }
    Ok(if tally.refused == 0 && missing.is_empty() { Exit::Success } else { Exit::Problem })
}

/// Asks the person at the terminal.
fn confirmed(chosen: &Chosen, deed: &Deed) -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        return Ok(true);
    }
    let verb = match deed {
        Deed::Replay { .. } => "replay",
        Deed::Discard { .. } => "discard",
    };
    for ((queue, code), count) in chosen.summary() {
        output::complaint(&format!("{count:>8}  {queue}  {code}"));
    }
    let mut err = io::stderr();
    write!(err, "{verb} {}? [y/N] ", dead_letters(chosen.len())).and_then(|()| err.flush()).map_err(Error::Output)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(Error::Output)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn dead_letters(count: usize) -> String {
    if count == 1 { "1 dead letter".to_owned() } else { format!("{count} dead letters") }
}

/// Counts what became of the letters.
#[derive(Default)]
struct Tally {
    replayed: usize,
    together: usize,
    discarded: usize,
    refused: usize,
    told: usize,
}

impl Tally {
    fn tell(&mut self, at: &Reference, done: &Done, dry_run: bool) -> Result<(), Error> {
        self.told += 1;
        let would = if dry_run { "would be " } else { "" };
        match done {
            Done::Replayed { topic, partition, count } => {
                self.replayed += 1;
                output::line(&format!("{at} {would}replayed to {topic}[{partition}] (replay number {count})"))
            }
            Done::Together => {
                self.together += 1;
                output::line(&format!("{at} {would}settled with the replay of its record"))
            }
            Done::Discarded => {
                self.discarded += 1;
                output::line(&format!("{at} {would}discarded"))
            }
            Done::Refused(why) => {
                self.refused += 1;
                output::complaint(&format!("{at} cannot be replayed: {why}"));
                Ok(())
            }
            Done::Gone => {
                self.told -= 1;
                Ok(())
            }
        }
    }

    fn summary(&self, chosen: usize, dry_run: bool) -> String {
        let mut parts = Vec::new();
        for (count, what) in [
            (self.replayed, "replayed"),
            (self.together, "settled with them"),
            (self.discarded, "discarded"),
            (self.refused, "refused"),
            (chosen.saturating_sub(self.told), "gone or settled by somebody else meanwhile"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        let prefix = if dry_run { "nothing was done; it would be: " } else { "" };
        format!("{prefix}{}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_tells_what_became_of_every_letter() {
        let tally = Tally { replayed: 3, together: 1, refused: 2, told: 6, ..Tally::default() };
        assert_eq!(
            tally.summary(7, false),
            "3 replayed, 1 settled with them, 2 refused, 1 gone or settled by somebody else meanwhile"
        );
        assert!(tally.summary(6, true).starts_with("nothing was done"));
    }
}
