//! The endpoints in use. Customer.io counts all requests of an API together, and names its limits in the descriptions of its two
//! specifications: 1,000 a second, and 3,000 in three seconds. The account's `rate` is the part of them that is used.

use std::time::Duration;

use crate::http::{Endpoint, Rate, Window};

/// What the vendor documents for the Track API.
pub(super) const TRACK: Rate = Rate { windows: &[Window::per_second(RATE_MAX)] };

/// What the vendor documents for the Pipelines API.
pub(super) const PIPELINES: Rate = Rate { windows: &[Window::new(3 * RATE_MAX, Duration::from_secs(3))] };

/// Requests per second that the vendor documents for either API.
pub(super) const RATE_MAX: u32 = 1_000;

const fn track(label: &'static str) -> Endpoint {
    Endpoint::new(label, TRACK).limited_by("the Track API")
}

const fn pipelines(label: &'static str) -> Endpoint {
    Endpoint::new(label, PIPELINES).limited_by("the Pipelines API")
}

pub(super) static ENTITY: Endpoint = track("POST /api/v2/entity");
pub(super) static BATCH: Endpoint = track("POST /api/v2/batch");
pub(super) static ADD_TO_SEGMENT: Endpoint = track("POST /api/v1/segments/{id}/add_customers").names_resource();
pub(super) static REMOVE_FROM_SEGMENT: Endpoint = track("POST /api/v1/segments/{id}/remove_customers").names_resource();
pub(super) static REGION: Endpoint = track("GET /api/v1/accounts/region");
pub(super) static CALL: Endpoint = pipelines("POST /v1/{call}");
pub(super) static CALLS: Endpoint = pipelines("POST /v1/batch");
