//! What can change while the process runs: the routes with their transforms, and the connectors with their credentials and limits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use tailwater_connectors::Destination;
use tailwater_core::code;
use tailwater_sandbox::Pool;

use super::{StartError, dry_run};
use crate::config::model::{Account, Config};
use crate::failpoint;
use crate::stages::Error;
use crate::stages::route::Routes;

/// The current version of every destination's routes.
pub struct Live {
    routes: BTreeMap<String, ArcSwap<Routes>>,
    generation: AtomicU64,
    pool: Arc<Pool>,
    dry_run: bool,
    /// The connectors that are in use, and what they were made from.
    connectors: Mutex<(Fingerprint, Connectors)>,
}

type Connectors = BTreeMap<String, Arc<dyn Destination>>;

/// A hash of everything that connectors are made from, credentials included.
type Fingerprint = [u8; 32];

impl Live {
    /// Compiles the first version.
    ///
    /// # Errors
    /// A transform, a condition or a connector that does not work.
    pub fn new(config: &Config, pool: Arc<Pool>, dry_run: bool) -> Result<Self, StartError> {
        let connectors = connectors(config, dry_run)?;
        let routes = compile(config, &connectors, &pool, 1)?;
        let routes = routes.into_iter().map(|(name, routes)| (name, ArcSwap::from(routes))).collect();
        let connectors = Mutex::new((fingerprint(config), connectors));
        Ok(Self { routes, generation: AtomicU64::new(1), pool, dry_run, connectors })
    }

    /// The current routes of a destination.
    ///
    /// # Errors
    /// There is no such destination: a mistake of ours.
    pub fn routes(&self, destination: &str) -> Result<Arc<Routes>, Error> {
        self.routes.get(destination).map(ArcSwap::load_full).ok_or_else(|| Error::Invalid {
            code: code::TASK_FAILED,
            message: format!("there is no destination {destination}"),
        })
    }

    /// What each destination delivers to, for people.
    pub fn targets(&self) -> Vec<(String, String)> {
        self.routes.iter().map(|(name, routes)| (name.clone(), routes.load().connector.target())).collect()
    }

    /// Swaps in a new version, as a whole or not at all. Connectors whose settings are the same are kept, because the account's rate
    /// limit lives in them: a new one would not know what was sent a second ago.
    ///
    /// # Errors
    /// Something in it does not compile; what runs stays as it is.
    pub fn replace(&self, config: &Config) -> Result<(), StartError> {
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        let mut current = self.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        let fingerprint = fingerprint(config);
        let used = if current.0 == fingerprint { current.1.clone() } else { connectors(config, self.dry_run)? };
        let new = compile(config, &used, &self.pool, generation)?;
        failpoint::hit("reload.loaded");
        *current = (fingerprint, used);
        for (name, routes) in new {
            if let Some(slot) = self.routes.get(&name) {
                slot.store(routes);
            }
        }
        self.generation.store(generation, Ordering::Relaxed);
        Ok(())
    }
}

fn connectors(config: &Config, dry: bool) -> Result<Connectors, StartError> {
    let made = super::connectors(config).map_err(|error| StartError::new(code::CONFIG_INVALID_VALUE, &error))?;
    Ok(made.into_iter().map(|(name, one)| (name, if dry { dry_run::wrap(one) } else { one })).collect())
}

fn fingerprint(config: &Config) -> Fingerprint {
    let mut sha = Sha256::new();
    for (name, account) in &config.accounts {
        let Account::Klaviyo(account) = account;
        for part in [name, account.api_key.expose_secret(), account.base_url.as_str(), &account.rate_share.to_string()]
        {
            sha.update(part.len().to_be_bytes());
            sha.update(part);
        }
    }
    for (name, one) in &config.destinations {
        // The settings that a connector gets; routes, retries and holds are the stages' own.
        let settings = format!(
            "{name}{:?}",
            (
                one.kind,
                &one.account,
                one.create,
                &one.key,
                &one.identifiers,
                one.nulls,
                one.non_finite,
                one.on_conflict
            )
        );
        sha.update(settings);
    }
    sha.finalize().into()
}

fn compile(
    config: &Config,
    connectors: &Connectors,
    pool: &Pool,
    generation: u64,
) -> Result<BTreeMap<String, Arc<Routes>>, StartError> {
    let mut all = BTreeMap::new();
    for (name, connector) in connectors {
        let Some(destination) = config.destinations.get(name) else { continue };
        let routes = Routes::compile(config, destination, Arc::clone(connector), pool, generation)
            .map_err(|error| StartError::new(error.code(), &error))?;
        all.insert(name.clone(), Arc::new(routes));
    }
    Ok(all)
}
