//! What can change while the process runs: the routes with their transforms, and the connectors with their credentials and limits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tailwater_connectors::{Destination, Shared};
use tailwater_core::code;
use tailwater_sandbox::Pool;

use super::{StartError, dry_run};
use crate::config::model::{Account, Config, Options};
use crate::failpoint;
use crate::stages::route::Routes;
use crate::stages::shared::destination::{Handle, Slot};

/// The current version of every destination: its handle, and its routes compiled for that handle.
pub struct Live {
    slots: BTreeMap<String, Slots>,
    pool: Arc<Pool>,
    dry_run: bool,
    current: Mutex<Current>,
}

/// Where the stages of one destination find its current version.
#[derive(Clone)]
pub struct Slots {
    pub handle: Slot<Handle>,
    pub routes: Slot<Routes>,
}

struct Current {
    generation: u64,
    /// The connectors that are in use, and what they were made from.
    connectors: Connectors,
    settings: Settings,
}

type Connectors = BTreeMap<String, Arc<dyn Destination>>;

/// Everything that connectors are made from, credentials included; routes, retries and holds are the stages' own.
#[derive(PartialEq)]
struct Settings {
    accounts: BTreeMap<String, Account>,
    destinations: BTreeMap<String, (String, Options, Shared)>,
}

impl Live {
    /// Compiles the first version.
    ///
    /// # Errors
    /// A transform, a condition or a connector that does not work.
    pub fn new(config: &Config, pool: Arc<Pool>, dry_run: bool) -> Result<Self, StartError> {
        let connectors = connectors(config, dry_run)?;
        let slot = |(name, routes): (String, Arc<Routes>)| {
            let handle = Arc::new(ArcSwap::from(Arc::clone(&routes.handle)));
            (name, Slots { handle, routes: Arc::new(ArcSwap::from(routes)) })
        };
        let slots = compile(config, &connectors, &pool, 1)?.into_iter().map(slot).collect();
        let current = Mutex::new(Current { generation: 1, connectors, settings: Settings::of(config) });
        Ok(Self { slots, pool, dry_run, current })
    }

    /// Every destination, by its name.
    pub fn destinations(&self) -> impl Iterator<Item = (&str, &Slots)> {
        self.slots.iter().map(|(name, slots)| (name.as_str(), slots))
    }

    /// Swaps in a new version, as a whole or not at all. Connectors whose settings are the same are kept, because the account's rate
    /// limit lives in them: a new one would not know what was sent a second ago.
    ///
    /// # Errors
    /// Something in it does not compile; what runs stays as it is.
    pub fn replace(&self, config: &Config) -> Result<(), StartError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = current.generation + 1;
        let settings = Settings::of(config);
        let same = current.settings == settings;
        let connectors = if same { current.connectors.clone() } else { connectors(config, self.dry_run)? };
        let new = compile(config, &connectors, &self.pool, generation)?;
        failpoint::hit("reload.loaded");
        *current = Current { generation, connectors, settings };
        for (name, routes) in new {
            if let Some(slots) = self.slots.get(&name) {
                slots.handle.store(Arc::clone(&routes.handle));
                slots.routes.store(routes);
            }
        }
        Ok(())
    }
}

fn connectors(config: &Config, dry: bool) -> Result<Connectors, StartError> {
    let made = super::connectors(config).map_err(|error| StartError::new(code::CONFIG_INVALID_VALUE, &error))?;
    Ok(made.into_iter().map(|(name, one)| (name, if dry { dry_run::wrap(one) } else { one })).collect())
}

impl Settings {
    fn of(config: &Config) -> Self {
        Self {
            accounts: config.accounts.clone(),
            destinations: config
                .destinations
                .iter()
                .map(|(name, one)| (name.clone(), (one.account.clone(), one.options.clone(), one.shared())))
                .collect(),
        }
    }
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
        let handle = Handle { generation, config: destination.clone(), connector: Arc::clone(connector) };
        let routes =
            Routes::compile(config, Arc::new(handle), pool).map_err(|error| StartError::new(error.code(), &error))?;
        all.insert(name.clone(), Arc::new(routes));
    }
    Ok(all)
}
