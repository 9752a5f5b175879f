//! The part of the vendor's interface that the simulator answers: paths, methods and the tier of each.

use super::limits::TierName;

/// An operation of the vendor's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Endpoint {
    GetAccounts,
    ImportProfile,
    CreateProfile,
    ListProfiles,
    GetProfile,
    UpdateProfile,
    CreateImportJob,
    ListImportJobs,
    GetImportJob,
    ImportJobErrors,
    ImportJobProfiles,
    ListLists,
    CreateList,
    GetList,
    ListMembers,
    ListMemberIds,
    AddMembers,
    RemoveMembers,
    CreateEvent,
}

/// Parameters can move a request to a slower tier, with windows of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Variant {
    Plain,
    /// `additional-fields[profile]=predictive_analytics`
    PredictiveAnalytics,
    /// `include=lists` or `include=segments` on one profile, `additional-fields[list]=profile_count` on one list
    Costly,
}

/// Where a request leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    To {
        endpoint: Endpoint,
        id: &'a str,
    },
    /// The path exists, the method does not.
    WrongMethod,
    Unknown,
}

// === impl Endpoint ===

impl Endpoint {
    pub fn tier(self, variant: Variant) -> TierName {
        match (self, variant) {
            (Self::GetProfile | Self::GetList, Variant::Costly) | (Self::GetAccounts, _) => TierName::Xs,
            (
                Self::ListProfiles | Self::GetProfile | Self::ListMembers | Self::ListMemberIds,
                Variant::PredictiveAnalytics,
            ) => TierName::M,
            (
                Self::CreateImportJob
                | Self::ListImportJobs
                | Self::GetImportJob
                | Self::ImportJobErrors
                | Self::ImportJobProfiles
                | Self::CreateList
                | Self::AddMembers
                | Self::RemoveMembers,
                _,
            ) => TierName::M,
            (Self::CreateEvent, _) => TierName::Xl,
            (
                Self::ImportProfile
                | Self::CreateProfile
                | Self::ListProfiles
                | Self::GetProfile
                | Self::UpdateProfile
                | Self::ListLists
                | Self::GetList
                | Self::ListMembers
                | Self::ListMemberIds,
                _,
            ) => TierName::L,
        }
    }

    /// The scopes that a key needs for it, as the specification has them.
    pub fn scopes(self) -> &'static [&'static str] {
        match self {
            Self::GetAccounts => &["accounts:read"],
            Self::ImportProfile | Self::CreateProfile | Self::UpdateProfile => &["profiles:write"],
            Self::ListProfiles | Self::GetProfile | Self::ImportJobErrors | Self::ImportJobProfiles => {
                &["profiles:read"]
            }
            Self::CreateImportJob | Self::AddMembers | Self::RemoveMembers => &["lists:write", "profiles:write"],
            Self::ListImportJobs | Self::GetImportJob | Self::ListMembers | Self::ListMemberIds => {
                &["lists:read", "profiles:read"]
            }
            Self::ListLists | Self::GetList => &["lists:read"],
            Self::CreateList => &["lists:write"],
            Self::CreateEvent => &["events:write"],
        }
    }

    pub fn daily_max(self) -> Option<u32> {
        (self == Self::CreateList).then_some(150)
    }

    /// The name under which the control plane counts it.
    pub fn name(self) -> &'static str {
        match self {
            Self::GetAccounts => "GET /api/accounts",
            Self::ImportProfile => "POST /api/profile-import",
            Self::CreateProfile => "POST /api/profiles",
            Self::ListProfiles => "GET /api/profiles",
            Self::GetProfile => "GET /api/profiles/{id}",
            Self::UpdateProfile => "PATCH /api/profiles/{id}",
            Self::CreateImportJob => "POST /api/profile-bulk-import-jobs",
            Self::ListImportJobs => "GET /api/profile-bulk-import-jobs",
            Self::GetImportJob => "GET /api/profile-bulk-import-jobs/{id}",
            Self::ImportJobErrors => "GET /api/profile-bulk-import-jobs/{id}/import-errors",
            Self::ImportJobProfiles => "GET /api/profile-bulk-import-jobs/{id}/profiles",
            Self::ListLists => "GET /api/lists",
            Self::CreateList => "POST /api/lists",
            Self::GetList => "GET /api/lists/{id}",
            Self::ListMembers => "GET /api/lists/{id}/profiles",
            Self::ListMemberIds => "GET /api/lists/{id}/relationships/profiles",
            Self::AddMembers => "POST /api/lists/{id}/relationships/profiles",
            Self::RemoveMembers => "DELETE /api/lists/{id}/relationships/profiles",
            Self::CreateEvent => "POST /api/events",
        }
    }

    /// Finds the operation. A trailing slash does not matter, as at the vendor's.
    pub fn find<'a>(method: &str, path: &'a str) -> Route<'a> {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (operations, id): (&[(&str, Self)], &str) = match segments.as_slice() {
            ["api", "accounts"] => (&[("GET", Self::GetAccounts)], ""),
            ["api", "profile-import"] => (&[("POST", Self::ImportProfile)], ""),
            ["api", "profiles"] => (&[("GET", Self::ListProfiles), ("POST", Self::CreateProfile)], ""),
            ["api", "profiles", id] => (&[("GET", Self::GetProfile), ("PATCH", Self::UpdateProfile)], id),
            ["api", "profile-bulk-import-jobs"] => {
                (&[("GET", Self::ListImportJobs), ("POST", Self::CreateImportJob)], "")
            }
            ["api", "profile-bulk-import-jobs", id] => (&[("GET", Self::GetImportJob)], id),
            ["api", "profile-bulk-import-jobs", id, "import-errors"] => (&[("GET", Self::ImportJobErrors)], id),
            ["api", "profile-bulk-import-jobs", id, "profiles"] => (&[("GET", Self::ImportJobProfiles)], id),
            ["api", "lists"] => (&[("GET", Self::ListLists), ("POST", Self::CreateList)], ""),
            ["api", "lists", id] => (&[("GET", Self::GetList)], id),
            ["api", "lists", id, "profiles"] => (&[("GET", Self::ListMembers)], id),
            ["api", "lists", id, "relationships", "profiles"] => {
                (&[("GET", Self::ListMemberIds), ("POST", Self::AddMembers), ("DELETE", Self::RemoveMembers)], id)
            }
            ["api", "events"] => (&[("POST", Self::CreateEvent)], ""),
            _ => return Route::Unknown,
        };
        operations
            .iter()
            .find(|(name, _)| *name == method)
            .map_or(Route::WrongMethod, |(_, endpoint)| Route::To { endpoint: *endpoint, id })
    }
}

impl Variant {
    pub fn of(endpoint: Endpoint, query: &[(String, String)]) -> Self {
        let has = |name: &str, word: &str| {
            query.iter().any(|(key, value)| key == name && value.split(',').any(|part| part == word))
        };
        match endpoint {
            Endpoint::GetProfile if has("include", "lists") || has("include", "segments") => Self::Costly,
            Endpoint::GetList if has("additional-fields[list]", "profile_count") => Self::Costly,
            _ if has("additional-fields[profile]", "predictive_analytics") => Self::PredictiveAnalytics,
            _ => Self::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_slash_does_not_matter() {
        let found = Route::To { endpoint: Endpoint::AddMembers, id: "Y6nRLr" };
        assert_eq!(Endpoint::find("POST", "/api/lists/Y6nRLr/relationships/profiles/"), found);
        assert_eq!(Endpoint::find("POST", "/api/lists/Y6nRLr/relationships/profiles"), found);
    }

    #[test]
    fn a_wrong_method_differs_from_an_unknown_path() {
        assert_eq!(Endpoint::find("PUT", "/api/profiles"), Route::WrongMethod);
        assert_eq!(Endpoint::find("GET", "/api/campaigns"), Route::Unknown);
    }
}
