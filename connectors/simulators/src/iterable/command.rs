use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::command::{self, Arguments, Common};

use super::{DEFAULT_API_KEY, Identity, Iterable, Options};

/// Answer as Iterable does: its identities, field types, limits and delayed bulk requests. Nobody gets a message.
///
/// Point a destination at it with `base_url: http://127.0.0.1:8712`, and look at what arrived under /_simulator/.
#[derive(Debug, Args)]
pub struct Command {
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8712")]
    pub listen: SocketAddr,
    /// The only key that it accepts.
    #[arg(long, value_name = "KEY", default_value = DEFAULT_API_KEY)]
    pub api_key: String,
    /// How the project identifies people.
    #[arg(long, value_name = "TYPE", value_enum, default_value = "email")]
    pub identity: Identity,
    /// The project adds unknown fields unless a request says otherwise. Without this it drops them.
    #[arg(long)]
    pub creates_fields: bool,
    /// How long a bulk request takes to take effect. Default: 1.
    #[arg(long, value_name = "SECONDS", value_parser = command::seconds)]
    pub bulk_seconds: Option<Duration>,
    /// How long a single call takes to take effect. Default: 0.
    #[arg(long, value_name = "SECONDS", value_parser = command::seconds)]
    pub single_seconds: Option<Duration>,
    /// The project has the subscription endpoints that the vendor enables on request.
    #[arg(long)]
    pub subscriptions_api: bool,
    /// Answer a 429 with the header Retry-After.
    #[arg(long)]
    pub retry_after: bool,
    /// A list that exists from the start; its id is a number. May be given several times.
    #[arg(long = "list", value_name = "ID=NAME", value_parser = list)]
    pub lists: Vec<(String, String)>,
    #[command(flatten)]
    pub common: Common,
}

fn list(text: &str) -> Result<(String, String), String> {
    let (id, name) = command::list(text)?;
    if id.parse::<i64>().is_err() {
        return Err("the id of a list is a number at Iterable, such as 4711=Retention".to_owned());
    }
    Ok((id, name))
}

impl Arguments for Command {
    type Vendor = Iterable;

    fn options(self) -> Options {
        let default = Options::default();
        Options {
            listen: self.listen,
            api_key: self.api_key,
            identity: self.identity,
            creates_fields: self.creates_fields,
            bulk_delay: self.bulk_seconds.unwrap_or(default.bulk_delay),
            single_delay: self.single_seconds.unwrap_or(default.single_delay),
            subscriptions_api: self.subscriptions_api,
            retry_after: self.retry_after,
            limits: !self.common.no_limits,
            lists: self.lists,
            persist: self.common.persist,
            ..default
        }
    }
}
