//! The screen that people read.

use std::fmt::Write as _;

use super::{Line, Status};

impl Status {
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let width = self.lines().map(|line| line.name.len()).max().unwrap_or(0).max("destinations".len());
        for (title, lines) in
            [("sources", &self.sources), ("routes", &self.routes), ("destinations", &self.destinations)]
        {
            // Writing to a string has no way to fail.
            writeln!(
                text,
                "{title:width$}  {:<9}  {:>9}  {:>9}  {:>9}  {:>12}  {:>9}  {:>9}  {:>9}  {:>12}",
                "state", "lag", "rate/s", "done in", "awaiting key", "queue", "in flight", "parked", "dead letters"
            )
            .ok();
            for line in lines {
                row(&mut text, line, width);
            }
            text.push('\n');
        }
        for line in self.lines().filter(|line| line.message.is_some()) {
            why(&mut text, line);
        }
        for address in &self.unreachable {
            writeln!(text, "no process of this workspace answers at {address}").ok();
        }
        let dead_letters = self.dead_letters();
        if dead_letters > 0 {
            writeln!(text, "{dead_letters} dead letters are open: see `tailwater dlq list`").ok();
        }
        match self.attention() {
            0 if dead_letters > 0 => text.push_str("everything else is fine\n"),
            0 => text.push_str("everything is fine\n"),
            1 => text.push_str("1 thing needs attention\n"),
            count => {
                writeln!(text, "{count} things need attention").ok();
            }
        }
        text
    }
}

fn row(text: &mut String, line: &Line, width: usize) {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let lag = if line.lag_is_estimated { format!("~{}", line.lag) } else { line.lag.to_string() };
    writeln!(
        text,
        "{:width$}  {:<9}  {lag:>9}  {:>9}  {:>9}  {:>12}  {:>9}  {:>9}  {:>9}  {:>12}",
        line.name,
        line.state.as_str(),
        line.rate,
        line.seconds_left.map_or_else(|| "-".to_owned(), duration),
        number(line.awaiting_key),
        number(line.queue),
        number(line.in_flight),
        number(line.parked),
        number(line.dead_letters),
    )
    .ok();
}

fn why(text: &mut String, line: &Line) {
    write!(text, "{} is {}", line.name, line.state.as_str()).ok();
    if let Some(since) = &line.since {
        write!(text, " since {since}").ok();
    }
    if let Some(code) = &line.code {
        write!(text, " ({code})").ok();
    }
    writeln!(text, ": {}", line.message.as_deref().unwrap_or_default()).ok();
    if let Some(next) = &line.next_attempt {
        writeln!(text, "  next attempt: {next}").ok();
    }
}

/// `42 s`, `7 min`, `3 h`, `12 d`: an estimate has no more digits.
fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Lag, State};
    use super::*;

    #[test]
    fn one_screen_names_what_is_wrong_and_what_is_left() {
        let mut route = Line::new("klaviyo/ltv", 1, Lag { records: 12, estimated: false }, 0.0);
        route.awaiting_key = Some(3);
        route.worsen(
            State::Paused,
            &json!({"code": "missing_column", "message": "`ltv` is gone", "since": "2026-03-01"}),
        );
        let mut send = Line::new("klaviyo", 1, Lag { records: 9_000, estimated: true }, 10.0);
        (send.queue, send.in_flight, send.parked, send.dead_letters) = (Some(40), Some(5), Some(7_000), Some(2));
        let status = Status {
            at: "now".into(),
            workspace: "w".into(),
            fine: false,
            sources: vec![],
            routes: vec![route],
            destinations: vec![send],
            processes: vec![],
            unreachable: vec![],
        };
        let text = status.to_text();
        for part in [
            "klaviyo/ltv   paused            12          0          -             3          -          -          -             -",
            "klaviyo       running        ~9000         10     15 min             -         40          5       7000             2",
            "2 dead letters are open",
            "klaviyo/ltv is paused since 2026-03-01 (missing_column): `ltv` is gone",
            "1 thing needs attention",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }
}
