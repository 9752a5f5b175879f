//! The endpoints in use, with what the vendor documents for each: its limits, its scopes, and what a 404 means there.

use crate::http::Rate;

/// The endpoints in use. Klaviyo counts each on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Endpoint {
    ProfileImport,
    BulkImport,
    Job,
    JobErrors,
    ListProfiles,
    Events,
    Profiles,
    Lists,
}

// === impl Endpoint ===

impl Endpoint {
    pub const ALL: [Self; 8] = [
        Self::ProfileImport,
        Self::BulkImport,
        Self::Job,
        Self::JobErrors,
        Self::ListProfiles,
        Self::Events,
        Self::Profiles,
        Self::Lists,
    ];

    /// The place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What the vendor documents for it, per account: `x-klaviyo-ratelimit` in the specification of the revision in use.
    pub const fn rate(self) -> Rate {
        match self {
            Self::ProfileImport | Self::Profiles | Self::Lists => Rate { per_second: 75, per_minute: 750 },
            Self::BulkImport | Self::Job | Self::JobErrors | Self::ListProfiles => {
                Rate { per_second: 10, per_minute: 150 }
            }
            Self::Events => Rate { per_second: 350, per_minute: 3_500 },
        }
    }

    /// Method and path, for people.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ProfileImport => "POST /api/profile-import",
            Self::BulkImport => "POST /api/profile-bulk-import-jobs",
            Self::Job => "GET /api/profile-bulk-import-jobs/{id}",
            Self::JobErrors => "GET /api/profile-bulk-import-jobs/{id}/import-errors",
            Self::ListProfiles => "POST /api/lists/{id}/relationships/profiles",
            Self::Events => "POST /api/events",
            Self::Profiles => "GET /api/profiles",
            Self::Lists => "GET /api/lists",
        }
    }

    /// The scopes that the vendor documents for it: `x-klaviyo-scopes` in the specification of the revision in use.
    pub const fn scopes(self) -> &'static [&'static str] {
        match self {
            Self::ProfileImport => &["profiles:write"],
            Self::BulkImport | Self::ListProfiles => &["lists:write", "profiles:write"],
            Self::Job => &["lists:read", "profiles:read"],
            Self::JobErrors | Self::Profiles => &["profiles:read"],
            Self::Events => &["events:write"],
            Self::Lists => &["lists:read"],
        }
    }

    /// Whether the path names something that may not exist, so that a 404 speaks of that and not of the address.
    pub const fn names_resource(self) -> bool {
        match self {
            Self::Job | Self::JobErrors | Self::ListProfiles => true,
            Self::ProfileImport | Self::BulkImport | Self::Events | Self::Profiles | Self::Lists => false,
        }
    }
}
