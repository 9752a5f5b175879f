//! Whether the credentials work, where the workspace's data lies, and which API the credentials are for. Changes nothing.

use serde::Deserialize;
use tailwater_core::code;

use super::account::speaking;
use super::config::{Api, Region};
use super::{Customerio, requests};
use crate::destination::{Context, ProbeError};
use crate::http::Request;

#[derive(Debug, Deserialize)]
struct Workspace {
    region: Region,
}

impl Customerio {
    pub(super) async fn probe_account(&self) -> Result<(), ProbeError> {
        let target = format!("{} {}", super::SPEC.kind, self.sender.account().target());
        let context = Context { still_owned: &|| true };
        let session = self.sender.session(&context);
        match session.send(&question(self.api), &[]).await {
            Ok(answer) if answer.is_success() => {
                let workspace = if self.api == Api::Track { answer.read::<Workspace>() } else { None };
                self.check_region(&target, workspace.map(|workspace| workspace.region))
            }
            // The key passed. A batch without calls may be refused for that.
            Ok(answer) if self.api == Api::Pipelines && answer.status() == 400 => Ok(()),
            Ok(answer) => {
                let message = format!("{target}: {} (status {})", answer.words(), answer.status());
                Err(ProbeError { code: code::VENDOR_REJECTED, message })
            }
            Err(halt) => {
                let mut message = format!("{target}: {}", halt.reason.message);
                if [code::UNAUTHORIZED, code::FORBIDDEN, code::VENDOR_REJECTED].contains(&halt.reason.code)
                    && let Some(advice) = self.elsewhere().await
                {
                    message.push_str("; ");
                    message.push_str(&advice);
                }
                Err(ProbeError { code: halt.reason.code, message })
            }
        }
    }

    /// The vendor's own address answers for workspaces of both regions, and then sends their data across the ocean.
    pub(super) fn check_region(&self, target: &str, region: Option<Region>) -> Result<(), ProbeError> {
        let config = &self.connection.config;
        match region {
            Some(region) if region != config.region && config.base_url.is_none() => {
                let message = format!(
                    "{target}: the workspace's data lies in the region `{}`, and the account says `{}`; write `region: {}` in the account",
                    region.as_str(),
                    config.region.as_str(),
                    region.as_str()
                );
                Err(ProbeError { code: code::CONFIG_INVALID_VALUE, message })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Where the same credentials work.
    async fn elsewhere(&self) -> Option<String> {
        let config = &self.connection.config;
        let (api, region) = (config.api, config.region);
        let places = [(api, region.other()), (api.other(), region), (api.other(), region.other())];
        for (api, region) in places {
            // An address of its own is one region's, whichever that is.
            if config.base_url.is_some() && region != config.region {
                continue;
            }
            let Ok(account) = speaking(config, api, region, config.base_url(api, region)) else { continue };
            let Ok(response) = account.exchange(&question(api)).await else { continue };
            if response.is_success() || (api == Api::Pipelines && response.status == 400) {
                return Some(format!(
                    "the same key works with `api: {}` and `region: {}`",
                    api.as_str(),
                    region.as_str()
                ));
            }
        }
        None
    }
}

/// A request that changes nothing and needs a key that works.
fn question(api: Api) -> Request {
    match api {
        Api::Track => requests::region(),
        Api::Pipelines => requests::no_calls(),
    }
}
