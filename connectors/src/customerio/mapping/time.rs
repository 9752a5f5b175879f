//! Times. The Track API counts whole seconds and takes a number of milliseconds for a time in the year 58,000, without a word. So the
//! unit of a number is recognized by its magnitude, and what is not seconds is converted with a remark, or refused.

use serde_json::Value;
use tailwater_core::Timestamp;

use super::Author;
use super::take::{invalid, wrong_type};
use crate::customerio::config::Milliseconds;
use crate::destination::ClassifyError;

/// Numbers from here on count something finer than seconds: as seconds, this is the year 2477.
const SECONDS_END: f64 = 16_000_000_000.0;

impl Author<'_> {
    /// Reads a time; a conversion of its unit is remarked.
    pub(super) fn time(&mut self, value: &Value, at: &str) -> Result<Timestamp, ClassifyError> {
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            other => {
                return Err(wrong_type(
                    at,
                    "a time: whole seconds since 1970, or a text such as `2026-03-01T08:00:00Z`",
                    other,
                ));
            }
        };
        let time = Timestamp::read(&text, None).map_err(|problem| {
            let shown: String = text.chars().take(40).collect();
            invalid(at, &format!("`{shown}` is no time: {problem}"))
        })?;
        let finer = text.parse::<f64>().ok().filter(|number| number.abs() >= SECONDS_END);
        if let Some(number) = finer {
            let seconds = seconds(time);
            let unit = unit_of(number);
            let message = format!("{text} counts {unit}, and the vendor counts seconds");
            match self.rules.milliseconds {
                Milliseconds::Convert => self.remarks.push(format!("{at}: {message}; it was sent as {seconds}")),
                Milliseconds::Reject => {
                    let message =
                        format!("{message}; the destination says `milliseconds: reject`. Divide it in the transform");
                    return Err(invalid(at, &message));
                }
            }
        }
        Ok(time)
    }
}

/// Whole seconds, rounded toward the past.
pub(super) fn seconds(time: Timestamp) -> i64 {
    time.as_millis().div_euclid(1_000)
}

fn unit_of(number: f64) -> &'static str {
    match number.abs() {
        number if number < SECONDS_END * 1e3 => "milliseconds",
        number if number < SECONDS_END * 1e6 => "microseconds",
        _ => "nanoseconds",
    }
}
