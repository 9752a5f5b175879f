//! The endpoints in use, with what the vendor documents for each in the specification of the revision in use: its limits
//! (`x-klaviyo-ratelimit`, per account), its scopes (`x-klaviyo-scopes`), and what a 404 means there. Klaviyo counts each on its own.

use crate::http::{Endpoint, Rate, Window};

const M: Rate = Rate { windows: &[Window::per_second(10), Window::per_minute(150)] };
const L: Rate = Rate { windows: &[Window::per_second(75), Window::per_minute(750)] };
const XL: Rate = Rate { windows: &[Window::per_second(350), Window::per_minute(3_500)] };

pub(super) static PROFILE_IMPORT: Endpoint = Endpoint::new("POST /api/profile-import", L).scopes(&["profiles:write"]);

pub(super) static BULK_IMPORT: Endpoint =
    Endpoint::new("POST /api/profile-bulk-import-jobs", M).scopes(&["lists:write", "profiles:write"]);

pub(super) static JOB: Endpoint = Endpoint::new("GET /api/profile-bulk-import-jobs/{id}", M)
    .scopes(&["lists:read", "profiles:read"])
    .names_resource();

pub(super) static JOB_ERRORS: Endpoint = Endpoint::new("GET /api/profile-bulk-import-jobs/{id}/import-errors", M)
    .scopes(&["profiles:read"])
    .names_resource();

pub(super) static LIST_PROFILES: Endpoint = Endpoint::new("POST /api/lists/{id}/relationships/profiles", M)
    .scopes(&["lists:write", "profiles:write"])
    .names_resource();

pub(super) static EVENTS: Endpoint = Endpoint::new("POST /api/events", XL).scopes(&["events:write"]);

pub(super) static PROFILES: Endpoint = Endpoint::new("GET /api/profiles", L).scopes(&["profiles:read"]);

pub(super) static LISTS: Endpoint = Endpoint::new("GET /api/lists", L).scopes(&["lists:read"]);

/// All of them.
#[cfg(test)]
pub(super) const ALL: [&Endpoint; 8] =
    [&PROFILE_IMPORT, &BULK_IMPORT, &JOB, &JOB_ERRORS, &LIST_PROFILES, &EVENTS, &PROFILES, &LISTS];
