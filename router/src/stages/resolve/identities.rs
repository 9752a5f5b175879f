//! The resolver's view of the stage's state.

use tailwater_identity::{Key, Store as Snapshot, StoreError};

use crate::state::Store;

/// Reads identities from the one partition that holds them all.
pub struct Identities<'a>(pub &'a Store);

impl Snapshot for Identities<'_> {
    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        keys.iter()
            .map(|key| {
                self.0.get(0, &key.to_bytes()).map_err(|error| StoreError::new("could not read an identity", error))
            })
            .collect()
    }
}
