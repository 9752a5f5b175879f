use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::command::{self, Arguments, Common};

use super::{DEFAULT_API_KEY, JobDuration, Klaviyo, Options};

/// Answer as Klaviyo does: its statuses, limits and bulk jobs. Nobody gets a message.
///
/// Point a destination at it with `base_url: http://127.0.0.1:8711`, and look at what arrived under /_simulator/.
#[derive(Debug, Args)]
pub struct Command {
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8711")]
    pub listen: SocketAddr,
    /// The only private key that it accepts.
    #[arg(long, value_name = "KEY", default_value = DEFAULT_API_KEY)]
    pub api_key: String,
    /// How long a bulk import job takes. Default: half a second and a little for each profile.
    #[arg(long, value_name = "SECONDS", value_parser = command::seconds)]
    pub job_seconds: Option<Duration>,
    /// A list that exists from the start; may be given several times.
    #[arg(long = "list", value_name = "ID=NAME", value_parser = command::list)]
    pub lists: Vec<(String, String)>,
    #[command(flatten)]
    pub common: Common,
}

impl Arguments for Command {
    type Vendor = Klaviyo;

    fn options(self) -> Options {
        let mut options = Options {
            listen: self.listen,
            api_key: self.api_key,
            limits: !self.common.no_limits,
            lists: self.lists,
            persist: self.common.persist,
            ..Options::default()
        };
        if let Some(base) = self.job_seconds {
            options.job_duration = JobDuration { base, per_profile: Duration::ZERO };
        }
        options
    }
}
