//! `tailwater probe`: do the accounts of the configuration work? Asks each vendor, and changes nothing there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tailwater_connectors::Destination;
use tailwater_core::code;

use crate::app;
use crate::cli::args::ProbeArgs;
use crate::cli::load::{Purpose, load};
use crate::cli::{Error, Exit, Global, output, runtime};
use crate::config::{Broker, Config};

/// How long one destination may take. A vendor that is slower than this would hold up every delivery.
const PROBE_TIME_MAX: Duration = Duration::from_secs(60);

/// What came of asking about one destination, or about an account that no destination uses.
#[derive(Debug, Serialize)]
struct Answer {
    /// Absent for an account that no destination uses.
    destination: Option<String>,
    account: String,
    /// Whom it speaks to, secrets masked.
    target: Option<String>,
    ok: bool,
    code: Option<&'static str>,
    message: Option<String>,
}

/// Exit code 1 if an account does not work.
///
/// # Errors
/// The configuration cannot be used, names no such destination, or standard output is closed.
pub fn execute(args: &ProbeArgs, global: &Global) -> Result<Exit, Error> {
    let config = load(global, Purpose::Run(Broker::Either))?;
    if let Some(unknown) = args.destinations.iter().find(|name| !config.destinations.contains_key(*name)) {
        let known: Vec<&str> = config.destinations.keys().map(String::as_str).collect();
        let message = format!("there is no destination `{unknown}`; there are: {}", known.join(", "));
        return Err(Error::Failed { code: code::DESTINATION_UNKNOWN, message });
    }
    let connectors = app::connectors(&config).map_err(|error| Error::failed(error.code(), &error))?;
    let mut works = true;
    for answer in runtime()?.block_on(ask(&config, &connectors, &args.destinations)) {
        works &= answer.ok;
        if args.json { output::json(&answer)? } else { output::line(&answer.to_string())? }
    }
    Ok(if works { Exit::Success } else { Exit::Problem })
}

/// One after the other, in the order of their names.
async fn ask(config: &Config, connectors: &BTreeMap<String, Arc<dyn Destination>>, only: &[String]) -> Vec<Answer> {
    let mut answers = Vec::new();
    for (name, connector) in connectors.iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
        let Some(destination) = config.destinations.get(name) else { continue };
        let (code, message) = match tokio::time::timeout(PROBE_TIME_MAX, connector.probe()).await {
            Ok(Ok(())) => (None, None),
            Ok(Err(error)) => (Some(error.code), Some(error.message)),
            Err(_) => {
                let seconds = PROBE_TIME_MAX.as_secs();
                let message = format!("no answer within {seconds} s; check the address and the network");
                (Some(code::VENDOR_UNAVAILABLE), Some(message))
            }
        };
        answers.push(Answer {
            destination: Some(name.clone()),
            account: destination.account.clone(),
            target: Some(connector.target()),
            ok: code.is_none(),
            code: code.map(tailwater_core::Code::as_str),
            message,
        });
    }
    let used = |name: &String| config.destinations.values().any(|destination| destination.account == *name);
    if only.is_empty() {
        answers.extend(config.accounts.keys().filter(|name| !used(name)).map(|name| Answer {
            destination: None,
            account: name.clone(),
            target: None,
            ok: true,
            code: None,
            message: Some("not asked, because no destination uses it".to_owned()),
        }));
    }
    answers
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = match (&self.destination, self.ok) {
            (None, _) => "skipped",
            (Some(_), true) => "ok",
            (Some(_), false) => "failed",
        };
        write!(f, "{word:8} account {}", self.account)?;
        if let Some(destination) = &self.destination {
            write!(f, ", destination {destination}")?;
        }
        if let Some(target) = &self.target {
            write!(f, ": {target}")?;
        }
        if let Some(message) = &self.message {
            let code = self.code.map_or_else(String::new, |code| format!("error[{code}]: "));
            write!(f, "\n         {code}{message}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tailwater_simulators::klaviyo::{DEFAULT_API_KEY, Options, Simulator};

    use super::*;
    use crate::config::{LoadOptions, check};

    fn config(url: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("t.js"), "function send() { return []; }").unwrap();
        let file = folder.path().join("tailwater.yaml");
        let text = format!(
            "version: 1
workspace: w
kafka: {{ brokers: 127.0.0.1:9092 }}
identity: {{ types: {{ email: {{ priority: 1, max: 1 }} }} }}
sources:
  rows: {{ type: kafka, kind: state, primary_key: email, strict: false, identifiers: {{ email: email }} }}
accounts:
  good: {{ type: klaviyo, api_key: '${{env:GOOD}}', base_url: '{url}' }}
  bad: {{ type: klaviyo, api_key: '${{env:BAD}}', base_url: '{url}' }}
  spare: {{ type: klaviyo, api_key: '${{env:GOOD}}', base_url: '{url}' }}
destinations:
  one: {{ account: good, create: true, identifier: email, routes: [{{ from: rows, transform: t.js }}] }}
  two: {{ account: bad, create: true, identifier: email, routes: [{{ from: rows, transform: t.js }}] }}
"
        );
        std::fs::write(&file, text).unwrap();
        let environment = |name: &str| match name {
            "GOOD" => Some(DEFAULT_API_KEY.to_owned()),
            "BAD" => Some("pk_00000000000000000000000000000bad".to_owned()),
            _ => None,
        };
        let checked = check(&file, &LoadOptions { environment: &environment, ..LoadOptions::default() });
        checked.config.unwrap_or_else(|| panic!("{:?}", checked.problems))
    }

    #[tokio::test]
    async fn every_account_is_asked_and_a_refused_key_is_told_without_the_key() {
        let simulator = Simulator::start(Options::default()).await.unwrap();
        let config = config(&simulator.url());
        let connectors = app::connectors(&config).unwrap();
        let answers = ask(&config, &connectors, &[]).await;
        let texts: Vec<String> = answers.iter().map(Answer::to_string).collect();
        assert_eq!(answers.iter().map(|answer| answer.ok).collect::<Vec<_>>(), [true, false, true], "{texts:?}");
        assert!(texts[0].starts_with("ok       account good, destination one: klaviyo pk_…"), "{texts:?}");
        assert!(texts[1].starts_with("failed   account bad, destination two"), "{texts:?}");
        assert!(texts[1].contains("error[unauthorized]") && !texts[1].contains("0000bad"), "{texts:?}");
        assert!(texts[2].starts_with("skipped  account spare"), "{texts:?}");
        // Nothing is changed at the vendor.
        assert!(simulator.events().is_empty());
        assert_eq!(ask(&config, &connectors, &["one".to_owned()]).await.len(), 1);
        simulator.stop().await.unwrap();
    }
}
