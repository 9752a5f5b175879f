//! The bodies that the specification has.

use crate::shape::Shape::{Bool, Integer, List, Number, Object, Open, Text};
use crate::shape::{Field, Shape, optional, required};

const USER: &[Field] = &[
    optional("email", Text),
    optional("userId", Text),
    optional("dataFields", Open),
    optional("preferUserId", Bool),
    optional("mergeNestedObjects", Bool),
    optional("createNewFields", Bool),
];

/// A user in a bulk request; `createNewFields` stands beside the list.
const BULK_USER: &[Field] = &[
    optional("email", Text),
    optional("userId", Text),
    optional("dataFields", Open),
    optional("preferUserId", Bool),
    optional("mergeNestedObjects", Bool),
];

const IDENTIFIED: &[Field] = &[optional("email", Text), optional("userId", Text)];

const EVENT: &[Field] = &[
    required("eventName", Text),
    optional("email", Text),
    optional("userId", Text),
    optional("id", Text),
    optional("createdAt", Integer),
    optional("dataFields", Open),
    optional("campaignId", Integer),
    optional("templateId", Integer),
    optional("createNewFields", Bool),
];

const ITEM: &[Field] = &[
    required("id", Text),
    required("name", Text),
    required("price", Number),
    required("quantity", Integer),
    optional("sku", Text),
    optional("description", Text),
    optional("categories", List(&Text)),
    optional("imageUrl", Text),
    optional("url", Text),
    optional("dataFields", Open),
];

const SUBSCRIPTIONS: &[Field] = &[
    optional("email", Text),
    optional("userId", Text),
    optional("emailListIds", List(&Integer)),
    optional("unsubscribedChannelIds", List(&Integer)),
    optional("unsubscribedMessageTypeIds", List(&Integer)),
    optional("subscribedMessageTypeIds", List(&Integer)),
    optional("campaignId", Integer),
    optional("templateId", Integer),
    optional("validateChannelAlignment", Bool),
];

pub(super) const UPDATE: Shape = Object(USER);
pub(super) const BULK_UPDATE: Shape =
    Object(&[required("users", List(&Object(BULK_USER))), optional("createNewFields", Bool)]);
pub(super) const UPDATE_EMAIL: Shape =
    Object(&[optional("currentEmail", Text), optional("currentUserId", Text), required("newEmail", Text)]);
pub(super) const MERGE: Shape = Object(&[
    optional("sourceEmail", Text),
    optional("sourceUserId", Text),
    optional("destinationEmail", Text),
    optional("destinationUserId", Text),
    optional("arrayMerge", List(&Object(&[required("field", Text), optional("dedupeBy", Text)]))),
]);
pub(super) const TRACK: Shape = Object(EVENT);
pub(super) const TRACK_BULK: Shape = Object(&[required("events", List(&Object(EVENT)))]);
pub(super) const PURCHASE: Shape = Object(&[
    required("user", Object(USER)),
    required("items", List(&Object(ITEM))),
    required("total", Number),
    optional("id", Text),
    optional("createdAt", Integer),
    optional("dataFields", Open),
    optional("campaignId", Integer),
    optional("templateId", Integer),
]);
pub(super) const CART: Shape = Object(&[required("user", Object(USER)), required("items", List(&Object(ITEM)))]);
pub(super) const SUBSCRIBE: Shape = Object(&[
    required("listId", Integer),
    required("subscribers", List(&Object(BULK_USER))),
    optional("updateExistingUsersOnly", Bool),
]);
pub(super) const UNSUBSCRIBE: Shape = Object(&[
    required("listId", Integer),
    required("subscribers", List(&Object(IDENTIFIED))),
    optional("campaignId", Integer),
    optional("channelUnsubscribe", Bool),
]);
pub(super) const UPDATE_SUBSCRIPTIONS: Shape = Object(SUBSCRIPTIONS);
pub(super) const BULK_UPDATE_SUBSCRIPTIONS: Shape =
    Object(&[required("updateSubscriptionsRequests", List(&Object(SUBSCRIPTIONS)))]);
pub(super) const FORGET: Shape = Object(IDENTIFIED);
pub(super) const CREATE_LIST: Shape = Object(&[required("name", Text), optional("description", Text)]);
pub(super) const CATALOG_BULK: Shape =
    Object(&[required("documents", Open), required("replaceUploadedFieldsOnly", Bool)]);
pub(super) const CATALOG_BULK_DELETE: Shape = Object(&[required("itemIds", List(&Text))]);
pub(super) const CATALOG_PUT: Shape = Object(&[required("value", Open)]);
pub(super) const CATALOG_PATCH: Shape = Object(&[required("update", Open)]);
