//! The endpoints in use, with what the vendor documents for each in its specification: its limits, for the whole project or for the key.
//! Where the vendor states none, the figure is careful: it is what integrations keep to. None of them is marked as naming a resource: what the
//! vendor itself does not find has a code in the body (see `vendor`), and a 404 without one is a wrong address.

use crate::http::{Endpoint, Rate, Window};

const fn rate(windows: &'static [Window]) -> Rate {
    Rate { windows }
}

/// Not stated by the vendor.
const UNSTATED: Rate = rate(&[Window::per_second(100)]);

/// Not stated either; five a second is what is commonly kept to, because a request carries a thousand people.
const LISTS: Rate = rate(&[Window::per_second(5)]);

pub(super) static USER_UPDATE: Endpoint = Endpoint::new("POST /api/users/update", rate(&[Window::per_second(500)]));

pub(super) static BULK_UPDATE: Endpoint = Endpoint::new("POST /api/users/bulkUpdate", rate(&[Window::per_second(5)]));

pub(super) static TRACK: Endpoint = Endpoint::new("POST /api/events/track", rate(&[Window::per_second(2_000)]));

pub(super) static TRACK_BULK: Endpoint = Endpoint::new("POST /api/events/trackBulk", rate(&[Window::per_second(10)]));

pub(super) static PURCHASE: Endpoint = Endpoint::new("POST /api/commerce/trackPurchase", UNSTATED);

pub(super) static CART: Endpoint = Endpoint::new("POST /api/commerce/updateCart", UNSTATED);

pub(super) static LIST_SUBSCRIBE: Endpoint = Endpoint::new("POST /api/lists/subscribe", LISTS);

pub(super) static LIST_UNSUBSCRIBE: Endpoint = Endpoint::new("POST /api/lists/unsubscribe", LISTS);

pub(super) static UPDATE_EMAIL: Endpoint = Endpoint::new("POST /api/users/updateEmail", UNSTATED);

pub(super) static MERGE: Endpoint =
    Endpoint::new("POST /api/users/merge", rate(&[Window::per_second(50)])).scopes(&["a server-side key"]);

pub(super) static DELETE_USER: Endpoint = Endpoint::new("DELETE /api/users/{email}", rate(&[Window::per_second(100)]));

pub(super) static FORGET: Endpoint =
    Endpoint::new("POST /api/users/forget", rate(&[Window::per_second(3), Window::per_day(1_000)]));

pub(super) static UNFORGET: Endpoint =
    Endpoint::new("POST /api/users/unforget", rate(&[Window::per_second(3), Window::per_day(1_000)]));

pub(super) static SUBSCRIPTIONS: Endpoint = Endpoint::new("POST /api/users/updateSubscriptions", UNSTATED);

pub(super) static SUBSCRIPTION: Endpoint =
    Endpoint::new("PATCH /api/subscriptions/{subscriptionGroup}/{subscriptionGroupId}/user/{userEmail}", UNSTATED);

pub(super) static CATALOG_ITEMS: Endpoint =
    Endpoint::new("POST /api/catalogs/{catalogName}/items", rate(&[Window::per_second(100)]));

pub(super) static CATALOG_DELETE: Endpoint =
    Endpoint::new("DELETE /api/catalogs/{catalogName}/items", rate(&[Window::per_second(100)]));

pub(super) static GET_USER: Endpoint = Endpoint::new("GET /api/users/getByEmail", rate(&[Window::per_second(100)]));

pub(super) static GET_FIELDS: Endpoint = Endpoint::new("GET /api/users/getFields", rate(&[Window::per_second(3)]));

/// All of them.
#[cfg(test)]
pub(super) const ALL: [&Endpoint; 19] = [
    &USER_UPDATE,
    &BULK_UPDATE,
    &TRACK,
    &TRACK_BULK,
    &PURCHASE,
    &CART,
    &LIST_SUBSCRIBE,
    &LIST_UNSUBSCRIBE,
    &UPDATE_EMAIL,
    &MERGE,
    &DELETE_USER,
    &FORGET,
    &UNFORGET,
    &SUBSCRIPTIONS,
    &SUBSCRIPTION,
    &CATALOG_ITEMS,
    &CATALOG_DELETE,
    &GET_USER,
    &GET_FIELDS,
];
