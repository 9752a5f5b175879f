//! Hot reload: watches the configuration and the files it refers to, and swaps in what has changed without losing a record.
//!
//! Files are compared by content once a second instead of by file system events, because an orchestrator replaces mounted files by
//! turning a link. What does not validate is refused with its problems, and what runs stays as it is. Transforms, conditions, aliases,
//! credentials, limits and the settings of destinations take effect; topics, sources and identity rules need a restart, and the
//! log says so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tailwater_core::code;
use tracing::warn;

use super::live::Live;
use crate::config::{self, Broker, Config, LoadOptions};
use crate::runtime::Context;
use crate::runtime::supervisor::{Spawner, TaskKind};
use crate::telemetry::events::{ReloadRefused, Reloaded};

const INTERVAL: Duration = Duration::from_secs(1);

/// The content of the files, by their paths; a file that cannot be read has none.
type Contents = BTreeMap<PathBuf, Option<[u8; 32]>>;

pub fn spawn(shared: &Arc<Context>, live: &Arc<Live>, spawner: &Spawner) {
    let (shared, live) = (Arc::clone(shared), Arc::clone(live));
    spawner.thread("reload", TaskKind::Watcher, move |stop| {
        let mut files = shared.config.files.clone();
        let mut seen = contents(&files);
        while !stop.wait(INTERVAL) {
            let now = contents(&files);
            if now == seen {
                continue;
            }
            seen = now;
            if let Some(new) = reload(&shared, &live) {
                files = new;
                seen = contents(&files);
            }
        }
        Ok(())
    });
}

fn contents(files: &[PathBuf]) -> Contents {
    files
        .iter()
        .map(|path| (path.clone(), std::fs::read(path).ok().map(|bytes| Sha256::digest(&bytes).into())))
        .collect()
}

/// Loads and swaps; the files to watch from now on.
fn reload(shared: &Context, live: &Live) -> Option<Vec<PathBuf>> {
    let file = shared.config.files.first()?;
    let what = file.display().to_string();
    let broker = if shared.config.kafka.embedded { Broker::Embedded } else { Broker::Given };
    let new = match Config::load(file, &LoadOptions { broker, ..LoadOptions::default() }) {
        Ok(new) => new,
        Err(problems) => {
            let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let code = problems.first().map_or(code::CONFIG_INVALID_VALUE, |problem| problem.code);
            shared.telemetry.emit(&ReloadRefused { what: &what, code, message: &text.join("; ") });
            return None;
        }
    };
    for change in needs_restart(&shared.config, &new) {
        warn!("{change} has changed; it takes effect when the process is started again");
    }
    match live.replace(&new) {
        Ok(()) => shared.telemetry.emit(&Reloaded { what: &what }),
        Err(error) => {
            shared.telemetry.emit(&ReloadRefused { what: &what, code: error.code, message: &error.message });
        }
    }
    Some(new.files)
}

/// What a reload cannot change.
fn needs_restart(old: &Config, new: &config::Config) -> Vec<String> {
    let mut changes = Vec::new();
    let mut check = |name: &str, differs: bool| {
        if differs {
            changes.push(name.to_owned());
        }
    };
    check("workspace", old.workspace != new.workspace);
    check("kafka", format!("{:?}", old.kafka) != format!("{:?}", new.kafka));
    check("identity", format!("{:?}", old.identity) != format!("{:?}", new.identity));
    check("state_dir", old.state_dir != new.state_dir);
    check("admin", old.admin.listen != new.admin.listen);
    check("sandbox", format!("{:?}", old.sandbox) != format!("{:?}", new.sandbox));
    let names = |config: &Config| config.destinations.keys().cloned().collect::<Vec<_>>();
    check("the set of destinations", names(old) != names(new));
    for (name, source) in &new.sources {
        match old.sources.get(name) {
            None => check(&format!("sources.{name}"), true),
            Some(before) => {
                let without_aliases = |source: &config::Source| {
                    let mut source = source.clone();
                    source.aliases.clear();
                    format!("{source:?}")
                };
                check(&format!("sources.{name}"), without_aliases(before) != without_aliases(source));
            }
        }
    }
    changes
}
