//! What can change while the process runs: the routes with their transforms, and the connectors with their credentials and limits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tailwater_core::code;
use tailwater_sandbox::Pool;

use super::{StartError, dry_run};
use crate::config::model::Config;
use crate::stages::Error;
use crate::stages::route::Routes;

/// The current version of every destination's routes.
pub struct Live {
    routes: BTreeMap<String, ArcSwap<Routes>>,
    generation: AtomicU64,
    pool: Arc<Pool>,
    dry_run: bool,
}

impl Live {
    /// Compiles the first version.
    ///
    /// # Errors
    /// A transform, a condition or a connector that does not work.
    pub fn new(config: &Config, pool: Arc<Pool>, dry_run: bool) -> Result<Self, StartError> {
        let routes = compile(config, &pool, dry_run, 1)?;
        let routes = routes.into_iter().map(|(name, routes)| (name, ArcSwap::from(routes))).collect();
        Ok(Self { routes, generation: AtomicU64::new(1), pool, dry_run })
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

    /// Swaps in a new version, as a whole or not at all.
    ///
    /// # Errors
    /// Something in it does not compile; what runs stays as it is.
    pub fn replace(&self, config: &Config) -> Result<(), StartError> {
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        let new = compile(config, &self.pool, self.dry_run, generation)?;
        for (name, routes) in new {
            if let Some(slot) = self.routes.get(&name) {
                slot.store(routes);
            }
        }
        self.generation.store(generation, Ordering::Relaxed);
        Ok(())
    }
}

fn compile(
    config: &Config,
    pool: &Pool,
    dry: bool,
    generation: u64,
) -> Result<BTreeMap<String, Arc<Routes>>, StartError> {
    let connectors = super::connectors(config).map_err(|error| StartError::new(code::CONFIG_INVALID_VALUE, &error))?;
    let mut all = BTreeMap::new();
    for (name, connector) in connectors {
        let Some(destination) = config.destinations.get(&name) else { continue };
        let connector = if dry { dry_run::wrap(connector) } else { connector };
        let routes = Routes::compile(config, destination, connector, pool, generation)
            .map_err(|error| StartError::new(error.code(), &error))?;
        all.insert(name, Arc::new(routes));
    }
    Ok(all)
}
