//! What the configuration sections of all connectors have in common: values that are written as text, and checks of addresses
//! and rates. A section itself belongs to its connector: see `klaviyo/config.rs` for one.

mod checks;
mod value;

pub use checks::{check_base_url, check_credential, check_rate_share, secret_inline};
pub use value::{NAME_PATTERN, Name, Period, Secret, Size};
