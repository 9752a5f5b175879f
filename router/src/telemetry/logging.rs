//! Log lines: for people as text, for machines as one JSON object a line; always on standard error, because standard output belongs to
//! what a command prints.
//!
//! ERROR means that a person is needed, WARN that we recovered, INFO is the life cycle; what happens to a single record is TRACE.

use std::io::IsTerminal as _;
use std::str::FromStr;

use tracing::Subscriber;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::{Error, json};

/// What is logged unless the operator says otherwise. Libraries tell of their own affairs at `info`; an operator wants ours.
pub const FILTER_DEFAULT: &str = "info,delta_kernel=off,fjall=warn,lsm_tree=error";

/// The environment variable that sets the filter.
pub const FILTER_VARIABLE: &str = "TAILWATER_LOG";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One readable line an event, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object an event, with its fields at the top level.
    Json,
}

/// Neither `text` nor `json`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no log format: expected `text` or `json`")]
pub struct UnknownFormat(pub String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(UnknownFormat(other.to_owned())),
        }
    }
}

/// Sets up logging for the process, and logs panics like everything else. `filter` is what the command line says; without it the
/// variable `TAILWATER_LOG` counts, and without that [`FILTER_DEFAULT`].
///
/// # Errors
/// The filter cannot be read, or logging was set up before.
pub fn init(format: Format, filter: Option<&str>) -> Result<(), Error> {
    let variable = std::env::var(FILTER_VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let filter = filter.or(variable.as_deref()).unwrap_or(FILTER_DEFAULT);
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    subscriber(format, filter, colours, std::io::stderr)?
        .try_init()
        .map_err(|source| Error::LoggingTwice { source })?;
    log_panics();
    Ok(())
}

fn subscriber<W>(
    format: Format,
    filter: &str,
    colours: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter).map_err(|source| Error::LogFilter { filter: filter.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(match format {
        Format::Text => Box::new(builder.with_ansi(colours).finish()),
        Format::Json => Box::new(builder.event_format(json::Lines).finish()),
    })
}

/// A panic must not appear as bare text between JSON lines, where nobody collects it.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => Some(backtrace.to_string()),
            _ => None,
        };
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            place,
            backtrace,
            "a part of the process panicked, this is a bug in tailwater: {}",
            info.payload_as_str().unwrap_or("no message")
        );
    }));
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, filter: &str, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        tracing::subscriber::with_default(subscriber(format, filter, false, move || writer.clone()).unwrap(), log);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_have_their_fields_at_the_top() {
        let line =
            logged(Format::Json, "info", || tracing::warn!(destination = "klaviyo", attempt = 2, "will be retried"));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["level"], "WARN");
        assert_eq!(value["message"], "will be retried");
        assert_eq!(value["destination"], "klaviyo");
        assert_eq!(value["attempt"], 2);
    }

    // Issue 10, D: a field named `target` gave a line two keys of that name.
    #[test]
    fn every_key_of_a_json_line_is_there_once() {
        let line = logged(Format::Json, "info", || {
            tracing::info!(target: "a::part", { target = "klaviyo", level = 3, timestamp = f64::NAN, target_ = true }, "a \"word\"");
        });
        let keys: Vec<&str> =
            ["timestamp", "level", "target", "target_", "target__", "message", "level_", "timestamp_"].into();
        for key in &keys {
            assert_eq!(line.matches(&format!("\"{key}\":")).count(), 1, "{key} in {line}");
        }
        let value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&line).unwrap();
        assert_eq!(value.len(), keys.len());
        assert_eq!((&value["target"], &value["target_"]), (&"a::part".into(), &"klaviyo".into()));
        assert_eq!((&value["level"], &value["message"]), (&"INFO".into(), &"a \"word\"".into()));
    }

    #[test]
    fn text_is_one_line_and_the_filter_holds() {
        let text = logged(Format::Text, "warn", || {
            tracing::info!("not shown");
            tracing::warn!(code = "rate_limited", "slow down");
        });
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("WARN") && text.contains("slow down") && text.contains("rate_limited"), "{text}");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_an_error_that_shows_it() {
        let error = subscriber(Format::Text, "info,tailwater=loud", false, std::io::sink).err().unwrap();
        assert_eq!(error.code(), tailwater_core::code::LOG_FILTER_INVALID);
        assert!(error.to_string().contains("tailwater=loud"));
    }

    #[test]
    fn a_format_is_text_or_json() {
        assert_eq!("json".parse(), Ok(Format::Json));
        assert_eq!(
            "xml".parse::<Format>().unwrap_err().to_string(),
            "`xml` is no log format: expected `text` or `json`"
        );
    }
}
