//! The part of the vendor's interface that the simulator answers: paths, methods, bodies and limits.

use crate::engine::Window;
use crate::shape::Shape;

use super::bodies;

/// An operation of the vendor's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Endpoint {
    UpdateUser,
    BulkUpdateUsers,
    UpdateEmail,
    MergeUsers,
    GetByEmail,
    GetByEmailQuery,
    GetByUserId,
    GetByUserIdQuery,
    DeleteByEmail,
    DeleteByUserId,
    Forget,
    Unforget,
    GetFields,
    UpdateSubscriptions,
    BulkUpdateSubscriptions,
    SubscribeByEmail,
    UnsubscribeByEmail,
    SubscribeByUserId,
    UnsubscribeByUserId,
    Track,
    TrackBulk,
    EventsByEmail,
    EventsByUserId,
    TrackPurchase,
    UpdateCart,
    GetLists,
    CreateList,
    DeleteList,
    ListUsers,
    ListSize,
    Subscribe,
    Unsubscribe,
    GetChannels,
    GetMessageTypes,
    GetCatalogs,
    CreateCatalog,
    DeleteCatalog,
    GetItems,
    BulkUpsertItems,
    BulkDeleteItems,
    GetItem,
    PutItem,
    PatchItem,
    DeleteItem,
}

/// Where a request leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    To {
        endpoint: Endpoint,
        /// What stands for the placeholders of the path, in order; still encoded.
        names: Vec<&'a str>,
    },
    /// The path exists, the method does not.
    WrongMethod,
    Unknown,
}

use Endpoint as E;

/// Method, path as the specification has it, operation.
pub(super) const ENDPOINTS: &[(&str, &str, Endpoint)] = &[
    ("POST", "/api/users/update", E::UpdateUser),
    ("POST", "/api/users/bulkUpdate", E::BulkUpdateUsers),
    ("POST", "/api/users/updateEmail", E::UpdateEmail),
    ("POST", "/api/users/merge", E::MergeUsers),
    ("GET", "/api/users/getByEmail", E::GetByEmailQuery),
    ("GET", "/api/users/byUserId", E::GetByUserIdQuery),
    ("GET", "/api/users/byUserId/{userId}", E::GetByUserId),
    ("DELETE", "/api/users/byUserId/{userId}", E::DeleteByUserId),
    ("POST", "/api/users/forget", E::Forget),
    ("POST", "/api/users/unforget", E::Unforget),
    ("GET", "/api/users/getFields", E::GetFields),
    ("POST", "/api/users/updateSubscriptions", E::UpdateSubscriptions),
    ("POST", "/api/users/bulkUpdateSubscriptions", E::BulkUpdateSubscriptions),
    ("PATCH", "/api/subscriptions/{subscriptionGroup}/{subscriptionGroupId}/user/{userEmail}", E::SubscribeByEmail),
    ("DELETE", "/api/subscriptions/{subscriptionGroup}/{subscriptionGroupId}/user/{userEmail}", E::UnsubscribeByEmail),
    ("PATCH", "/api/subscriptions/{subscriptionGroup}/{subscriptionGroupId}/byUserId/{userId}", E::SubscribeByUserId),
    (
        "DELETE",
        "/api/subscriptions/{subscriptionGroup}/{subscriptionGroupId}/byUserId/{userId}",
        E::UnsubscribeByUserId,
    ),
    ("GET", "/api/users/{email}", E::GetByEmail),
    ("DELETE", "/api/users/{email}", E::DeleteByEmail),
    ("POST", "/api/events/track", E::Track),
    ("POST", "/api/events/trackBulk", E::TrackBulk),
    ("GET", "/api/events/byUserId/{userId}", E::EventsByUserId),
    ("GET", "/api/events/{email}", E::EventsByEmail),
    ("POST", "/api/commerce/trackPurchase", E::TrackPurchase),
    ("POST", "/api/commerce/updateCart", E::UpdateCart),
    ("GET", "/api/lists", E::GetLists),
    ("POST", "/api/lists", E::CreateList),
    ("GET", "/api/lists/getUsers", E::ListUsers),
    ("POST", "/api/lists/subscribe", E::Subscribe),
    ("POST", "/api/lists/unsubscribe", E::Unsubscribe),
    ("GET", "/api/lists/{listId}/size", E::ListSize),
    ("DELETE", "/api/lists/{listId}", E::DeleteList),
    ("GET", "/api/channels", E::GetChannels),
    ("GET", "/api/messageTypes", E::GetMessageTypes),
    ("GET", "/api/catalogs", E::GetCatalogs),
    ("POST", "/api/catalogs/{catalogName}", E::CreateCatalog),
    ("DELETE", "/api/catalogs/{catalogName}", E::DeleteCatalog),
    ("GET", "/api/catalogs/{catalogName}/items", E::GetItems),
    ("POST", "/api/catalogs/{catalogName}/items", E::BulkUpsertItems),
    ("DELETE", "/api/catalogs/{catalogName}/items", E::BulkDeleteItems),
    ("GET", "/api/catalogs/{catalogName}/items/{itemId}", E::GetItem),
    ("PUT", "/api/catalogs/{catalogName}/items/{itemId}", E::PutItem),
    ("PATCH", "/api/catalogs/{catalogName}/items/{itemId}", E::PatchItem),
    ("DELETE", "/api/catalogs/{catalogName}/items/{itemId}", E::DeleteItem),
];

// === impl Endpoint ===

impl Endpoint {
    /// Finds the operation; a literal path wins over one with a placeholder, because it stands first.
    pub fn find<'a>(method: &str, path: &'a str) -> Route<'a> {
        let mut known = false;
        for (name, template, endpoint) in ENDPOINTS {
            let Some(names) = matched(template, path) else { continue };
            known = true;
            if *name == method {
                return Route::To { endpoint: *endpoint, names };
            }
        }
        if known { Route::WrongMethod } else { Route::Unknown }
    }

    /// The name under which the control plane counts it.
    pub fn name(method: &str, path: &str) -> Option<&'static str> {
        // Made once and kept: the names are few.
        static NAMES: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
        let names =
            NAMES.get_or_init(|| ENDPOINTS.iter().map(|(method, path, _)| format!("{method} {path}")).collect());
        let place =
            ENDPOINTS.iter().position(|(name, template, _)| *name == method && matched(template, path).is_some())?;
        names.get(place).map(String::as_str)
    }

    pub fn body(self) -> Option<Shape> {
        Some(match self {
            E::UpdateUser => bodies::UPDATE,
            E::BulkUpdateUsers => bodies::BULK_UPDATE,
            E::UpdateEmail => bodies::UPDATE_EMAIL,
            E::MergeUsers => bodies::MERGE,
            E::Forget | E::Unforget => bodies::FORGET,
            E::UpdateSubscriptions => bodies::UPDATE_SUBSCRIPTIONS,
            E::BulkUpdateSubscriptions => bodies::BULK_UPDATE_SUBSCRIPTIONS,
            E::Track => bodies::TRACK,
            E::TrackBulk => bodies::TRACK_BULK,
            E::TrackPurchase => bodies::PURCHASE,
            E::UpdateCart => bodies::CART,
            E::CreateList => bodies::CREATE_LIST,
            E::Subscribe => bodies::SUBSCRIBE,
            E::Unsubscribe => bodies::UNSUBSCRIBE,
            E::BulkUpsertItems => bodies::CATALOG_BULK,
            E::BulkDeleteItems => bodies::CATALOG_BULK_DELETE,
            E::PutItem => bodies::CATALOG_PUT,
            E::PatchItem => bodies::CATALOG_PATCH,
            E::GetByEmail
            | E::GetByEmailQuery
            | E::GetByUserId
            | E::GetByUserIdQuery
            | E::DeleteByEmail
            | E::DeleteByUserId
            | E::SubscribeByEmail
            | E::UnsubscribeByEmail
            | E::SubscribeByUserId
            | E::UnsubscribeByUserId
            | E::GetFields
            | E::EventsByEmail
            | E::EventsByUserId
            | E::GetLists
            | E::DeleteList
            | E::ListUsers
            | E::ListSize
            | E::GetChannels
            | E::GetMessageTypes
            | E::GetCatalogs
            | E::CreateCatalog
            | E::DeleteCatalog
            | E::GetItems
            | E::GetItem
            | E::DeleteItem => return None,
        })
    }

    /// The parameters of the query that the specification has.
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            E::GetByEmailQuery => &["email"],
            E::GetByUserIdQuery => &["userId"],
            E::ListUsers => &["listId", "preferUserId"],
            E::EventsByEmail | E::EventsByUserId => &["limit"],
            E::GetCatalogs => &["page", "pageSize"],
            E::GetItems => &["page", "pageSize", "orderBy", "sortAscending"],
            _ => &[],
        }
    }

    /// The documented limits; none where nothing is documented, except for lists, where the usual reading is 5 per second.
    pub fn windows(self) -> Vec<Window> {
        match self {
            E::UpdateUser => vec![Window::per_second(500)],
            E::BulkUpdateUsers | E::Subscribe | E::Unsubscribe => vec![Window::per_second(5)],
            E::MergeUsers => vec![Window::per_second(50)],
            E::GetByEmail
            | E::GetByEmailQuery
            | E::GetByUserId
            | E::GetByUserIdQuery
            | E::DeleteByEmail
            | E::DeleteByUserId
            | E::GetLists
            | E::GetChannels
            | E::GetMessageTypes
            | E::GetCatalogs
            | E::GetItems
            | E::BulkUpsertItems => vec![Window::per_second(100)],
            E::Forget | E::Unforget => vec![Window::per_second(3), Window::per_day(1_000)],
            E::GetFields => vec![Window::per_second(3)],
            E::Track => vec![Window::per_second(2_000)],
            E::TrackBulk => vec![Window::per_second(10)],
            E::ListUsers | E::ListSize => vec![Window::per_minute(5)],
            E::PutItem => vec![Window::per_second(1_000)],
            E::UpdateEmail
            | E::UpdateSubscriptions
            | E::BulkUpdateSubscriptions
            | E::SubscribeByEmail
            | E::UnsubscribeByEmail
            | E::SubscribeByUserId
            | E::UnsubscribeByUserId
            | E::EventsByEmail
            | E::EventsByUserId
            | E::TrackPurchase
            | E::UpdateCart
            | E::CreateList
            | E::DeleteList
            | E::CreateCatalog
            | E::DeleteCatalog
            | E::BulkDeleteItems
            | E::GetItem
            | E::PatchItem
            | E::DeleteItem => Vec::new(),
        }
    }
}

/// What stands for the placeholders, if the path fits.
fn matched<'a>(template: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut names = Vec::new();
    let (mut wanted, mut found) = (template.split('/'), path.trim_end_matches('/').split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return Some(names),
            (Some(one), Some(other)) if one.starts_with('{') && !other.is_empty() => names.push(other),
            (Some(one), Some(other)) if one == other => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_path_wins_over_a_placeholder() {
        assert_eq!(
            Endpoint::find("GET", "/api/users/getFields"),
            Route::To { endpoint: Endpoint::GetFields, names: Vec::new() }
        );
        assert_eq!(
            Endpoint::find("GET", "/api/users/ann%40example.com"),
            Route::To { endpoint: Endpoint::GetByEmail, names: vec!["ann%40example.com"] }
        );
        assert_eq!(Endpoint::find("PUT", "/api/users/update"), Route::WrongMethod);
        assert_eq!(Endpoint::find("GET", "/api/campaigns"), Route::Unknown);
    }
}
