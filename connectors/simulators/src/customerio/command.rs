use std::net::SocketAddr;

use clap::Args;

use crate::command::{self, Arguments, Common};

use super::{CustomerIo, DEFAULT_API_KEY, DEFAULT_CDP_KEY, DEFAULT_SECRET_KEY, DEFAULT_SITE_ID, Options, Region};

/// Answer as Customer.io does: Track v2, manual segments and Pipelines, with their limits. Nobody gets a message.
///
/// Point a destination at it with `base_url: http://127.0.0.1:8713`, and look at what arrived under /_simulator/.
#[derive(Debug, Args)]
pub struct Command {
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8713")]
    pub listen: SocketAddr,
    /// The site id that the Track API accepts.
    #[arg(long, value_name = "ID", default_value = DEFAULT_SITE_ID)]
    pub site_id: String,
    /// The key that the Track API accepts with the site id.
    #[arg(long, value_name = "KEY", default_value = DEFAULT_API_KEY)]
    pub api_key: String,
    /// The key that the Pipelines API accepts.
    #[arg(long, value_name = "KEY", default_value = DEFAULT_CDP_KEY)]
    pub cdp_key: String,
    /// The secret key that both APIs accept as Bearer.
    #[arg(long, value_name = "KEY", default_value = DEFAULT_SECRET_KEY)]
    pub secret_key: String,
    /// Where the account lives. The simulator stands for the US host.
    #[arg(long, value_name = "REGION", value_enum, default_value = "us")]
    pub region: Region,
    /// An object type that exists; may be given several times. Default: 1.
    #[arg(long = "object-type", value_name = "ID")]
    pub object_types: Vec<String>,
    /// A manual segment that exists from the start; its id is a number. May be given several times.
    #[arg(long = "segment", visible_alias = "list", value_name = "ID=NAME", value_parser = segment)]
    pub segments: Vec<(String, String)>,
    /// Answer a 429 with the header Retry-After.
    #[arg(long)]
    pub retry_after: bool,
    #[command(flatten)]
    pub common: Common,
}

fn segment(text: &str) -> Result<(String, String), String> {
    let (id, name) = command::list(text)?;
    if id.parse::<u32>().is_err() {
        return Err("the id of a segment is a number at Customer.io, such as 7=Trials".to_owned());
    }
    Ok((id, name))
}

impl Arguments for Command {
    type Vendor = CustomerIo;

    fn options(self) -> Options {
        let default = Options::default();
        Options {
            listen: self.listen,
            site_id: self.site_id,
            api_key: self.api_key,
            cdp_key: self.cdp_key,
            secret_key: self.secret_key,
            region: self.region,
            limits: !self.common.no_limits,
            retry_after: self.retry_after,
            object_types: if self.object_types.is_empty() { default.object_types } else { self.object_types },
            segments: self.segments,
            persist: self.common.persist,
            ..default
        }
    }
}
