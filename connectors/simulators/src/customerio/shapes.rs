//! The fields that the specification has for each item.

use crate::shape::Shape::{Integer, List, Object, Open, Text};
use crate::shape::{Field, Shape, optional, required};

const RELATIONSHIP: Shape = Object(&[required("identifiers", Open), optional("relationship_attributes", Open)]);
const RELATIONSHIPS: Shape = List(&RELATIONSHIP);

const TYPE: Field = required("type", Text);
const ACTION: Field = required("action", Text);
const IDENTIFIERS: Field = required("identifiers", Open);

const BARE: Shape = Object(&[TYPE, ACTION, IDENTIFIERS]);
const IDENTIFY: Shape = Object(&[
    TYPE,
    ACTION,
    IDENTIFIERS,
    optional("timestamp", Integer),
    optional("attributes", Open),
    optional("cio_relationships", RELATIONSHIPS),
]);
const EVENT: Shape = Object(&[
    TYPE,
    ACTION,
    IDENTIFIERS,
    required("name", Text),
    optional("id", Text),
    optional("timestamp", Integer),
    optional("attributes", Open),
]);
const RELATE: Shape = Object(&[TYPE, ACTION, IDENTIFIERS, required("cio_relationships", RELATIONSHIPS)]);
const ADD_DEVICE: Shape = Object(&[
    TYPE,
    ACTION,
    IDENTIFIERS,
    required(
        "device",
        Object(&[
            required("token", Text),
            required("platform", Text),
            optional("last_used", Integer),
            optional("attributes", Open),
        ]),
    ),
]);
const DELETE_DEVICE: Shape =
    Object(&[TYPE, ACTION, IDENTIFIERS, required("device", Object(&[required("token", Text)]))]);
const MERGE: Shape = Object(&[TYPE, ACTION, required("primary", Open), required("secondary", Open)]);
const IDENTIFY_OBJECT: Shape =
    Object(&[TYPE, ACTION, IDENTIFIERS, optional("attributes", Open), optional("cio_relationships", RELATIONSHIPS)]);

/// Type, action, fields, and the name of the schema in the specification.
pub(super) const ITEMS: &[(&str, &str, Shape, &str)] = &[
    ("person", "identify", IDENTIFY, "identify_person"),
    ("person", "delete", BARE, "person_delete"),
    ("person", "event", EVENT, "person_event"),
    ("person", "screen", EVENT, "person_screen"),
    ("person", "page", EVENT, "person_page"),
    ("person", "add_relationships", RELATE, "person_add_relationships"),
    ("person", "delete_relationships", RELATE, "person_delete_relationships"),
    ("person", "add_device", ADD_DEVICE, "person_add_device"),
    ("person", "delete_device", DELETE_DEVICE, "person_delete_device"),
    ("person", "merge", MERGE, "person_merge"),
    ("person", "suppress", BARE, "person_suppress"),
    ("person", "unsuppress", BARE, "person_unsuppress"),
    ("object", "identify", IDENTIFY_OBJECT, "object_identify"),
    ("object", "identify_anonymous", IDENTIFY_OBJECT, "object_identify_anonymous"),
    ("object", "delete", BARE, "object_delete"),
    ("object", "add_relationships", RELATE, "object_add_relationships"),
    ("object", "delete_relationships", RELATE, "object_delete_relationships"),
];

/// The fields of an item, by its type and action.
pub(super) fn of(kind: &str, action: &str) -> Option<Shape> {
    ITEMS.iter().find(|(item, name, _, _)| *item == kind && *name == action).map(|(_, _, shape, _)| *shape)
}

/// The fields of a message of the Pipelines API.
pub(super) const MESSAGE: &[&str] = &[
    "type",
    "userId",
    "anonymousId",
    "traits",
    "properties",
    "event",
    "name",
    "groupId",
    "previousId",
    "context",
    "integrations",
    "messageId",
    "timestamp",
    "originalTimestamp",
    "sentAt",
    "receivedAt",
    "version",
];
