//! What becomes of outputs: what is taken, converted, put elsewhere, refused.

use serde_json::{Value, json};
use tailwater_core::operation::OperationKind as Kind;
use tailwater_core::{Code, code};

use super::{classified, classified_with, identifiers, rules};
use crate::iterable::person::Identity;
use crate::output::{NonFinite, Nulls};

const IDENTITIES: [Identity; 3] = [Identity::Email, Identity::UserId, Identity::Hybrid];

/// Kind, target and body of each operation.
fn made(identity: Identity, output: &Value) -> Vec<(Kind, Option<String>, Value)> {
    let identifiers = identifiers();
    let operations =
        classified(rules(&identifiers, identity), output).unwrap_or_else(|error| panic!("{output}: {error}"));
    operations
        .into_iter()
        .map(|operation| (operation.kind, operation.target, serde_json::from_str(operation.body.get()).unwrap()))
        .collect()
}

fn body(identity: Identity, output: &Value) -> Value {
    made(identity, output).remove(0).2
}

fn refusal(identity: Identity, output: &Value) -> (Code, String) {
    let identifiers = identifiers();
    match classified(rules(&identifiers, identity), output) {
        Ok(operations) => panic!("{output} was taken: {operations:?}"),
        Err(error) => (error.code, error.message),
    }
}

#[test]
fn an_output_with_both_identifiers_is_named_as_the_project_names_people() {
    let output = json!({"email": "ada@example.com", "userId": "u-1", "dataFields": {"churn": 0.8}});
    let shared = |extra: Value| {
        let mut body = json!({"dataFields": {"churn": 0.8}, "mergeNestedObjects": true});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let mut expected = shared(json!({"email": "Ada@Example.com"}));
    expected["dataFields"]["userId"] = json!("u-1");
    assert_eq!(body(Identity::Email, &output), expected);
    let mut expected = shared(json!({"userId": "u-1"}));
    expected["dataFields"]["email"] = json!("Ada@Example.com");
    assert_eq!(body(Identity::UserId, &output), expected);
    assert_eq!(body(Identity::Hybrid, &output), expected);
}

#[test]
fn an_output_that_the_project_cannot_name_is_refused() {
    let (code, message) = refusal(Identity::UserId, &json!({"email": "ada@example.com", "dataFields": {}}));
    assert_eq!(code, code::OUTPUT_INVALID);
    assert!(message.contains("identifies people by `userId`"), "{message}");
    for identity in IDENTITIES {
        let (code, _) = refusal(identity, &json!({"email": null, "userId": " ", "dataFields": {"x": 1}}));
        assert_eq!(code, code::OUTPUT_INVALID);
    }
}

#[test]
fn identifiers_are_the_profiles_own_wherever_they_are() {
    for output in [
        json!({"email": "eve@example.com", "dataFields": {}}),
        json!({"email": "ada@example.com", "userId": "U-1", "dataFields": {}}),
        json!({"email": "ada@example.com", "dataFields": {"userId": "u-2"}}),
        json!({"email": "eve@example.com", "eventName": "x"}),
        json!({"user": {"email": "eve@example.com"}, "items": [], "total": 1}),
        json!({"_operation": "add_to_list", "listId": 1, "subscribers": [{"email": "eve@example.com"}]}),
        json!({"currentEmail": "ada@example.com", "newEmail": "eve@example.com"}),
        json!({"sourceEmail": "eve@example.com", "destinationEmail": "ada@example.com"}),
        json!({"_operation": "delete_profile", "email": "eve@example.com"}),
        json!({"email": "eve@example.com", "unsubscribedChannelIds": [1]}),
    ] {
        assert_eq!(refusal(Identity::Email, &output).0, code::FOREIGN_IDENTIFIER, "{output}");
    }
    let mut identifiers = identifiers();
    identifiers.remove("userId");
    let error = classified(rules(&identifiers, Identity::Email), &json!({"email": "ada@example.com", "userId": "u-1"}))
        .unwrap_err();
    assert_eq!(error.code, code::FOREIGN_IDENTIFIER);
    assert!(error.message.contains("identifiers: {userId: <type>}"), "{error}");
}

#[test]
fn one_identifier_with_two_values_is_refused() {
    let (code, message) =
        refusal(Identity::Email, &json!({"email": "ada@example.com", "dataFields": {"email": "ada@old.example"}}));
    assert_eq!(code, code::OUTPUT_INVALID);
    assert!(message.starts_with("dataFields.email"), "{message}");
}

// I3: objects are replaced as a whole unless merging is asked for.
#[test]
fn merging_of_nested_objects_is_said_in_every_request() {
    let merging = |output: &Value| body(Identity::Email, output)["mergeNestedObjects"].clone();
    assert_eq!(merging(&json!({"email": "ada@example.com", "dataFields": {}})), json!(true));
    assert_eq!(
        merging(&json!({"email": "ada@example.com", "dataFields": {}, "mergeNestedObjects": false})),
        json!(false)
    );
    assert_eq!(
        body(Identity::Email, &json!({"user": {"email": "ada@example.com"}, "items": []}))["user"]["mergeNestedObjects"],
        json!(true)
    );
}

// I2: unknown fields are dropped, or created, as the request says.
#[test]
fn new_fields_are_the_destinations_decision() {
    let (_, message) =
        refusal(Identity::Email, &json!({"email": "ada@example.com", "dataFields": {}, "createNewFields": true}));
    assert!(message.contains("create_new_fields: false"), "{message}");
    let event = body(Identity::Email, &json!({"email": "ada@example.com", "eventName": "x", "createNewFields": false}));
    assert_eq!(event["createNewFields"], json!(false));
    let cart = body(Identity::Email, &json!({"user": {"email": "ada@example.com"}, "items": []}));
    assert_eq!(cart["user"]["createNewFields"], json!(false));
}

#[test]
fn dates_get_the_vendors_format_and_times_are_in_seconds() {
    let output = json!({"email": "ada@example.com", "eventName": "order", "createdAt": "2026-03-01T08:00:00Z",
        "dataFields": {"at": "2026-03-01T09:00:00.5+01:00", "in": [{"at": "2026-03-01T08:00:00Z"}], "note": "2026"}});
    let event = body(Identity::Email, &output);
    assert_eq!(event["createdAt"], json!(1_772_352_000));
    let date = "2026-03-01 08:00:00 +00:00";
    assert_eq!(event["dataFields"], json!({"at": date, "in": [{"at": date}], "note": "2026"}));
    let without = body(Identity::Email, &json!({"email": "ada@example.com", "eventName": "order"}));
    assert_eq!(without["createdAt"], json!(1_772_352_000), "the time of the source's event");
    let identifiers = identifiers();
    let kept = crate::iterable::mapping::Rules { convert_dates: false, ..rules(&identifiers, Identity::Email) };
    let kept = classified(kept, &output).unwrap().remove(0);
    assert!(kept.body.get().contains("2026-03-01T09:00:00.5+01:00"));
}

#[test]
fn an_id_is_the_authors_own_or_left_to_the_request() {
    let event = |id: Value| json!({"email": "ada@example.com", "eventName": "order", "id": id});
    assert_eq!(body(Identity::Email, &event(json!(17)))["id"], json!("17"));
    for none in [json!(null), json!(" ")] {
        assert_eq!(body(Identity::Email, &event(none))["id"], Value::Null);
    }
    let (_, message) = refusal(Identity::Email, &event(json!("é".repeat(257))));
    assert!(message.contains("514 bytes"), "{message}");
}

#[test]
fn a_purchase_and_a_cart_are_told_apart_by_the_total() {
    let item =
        json!({"id": 7, "name": "Tea", "price": "9.95", "quantity": 2, "dataFields": {"origin": "Assam", "x": null}});
    let user = json!({"email": "ada@example.com", "userId": "u-1"});
    let made_of = |output: &Value| made(Identity::Hybrid, output).remove(0);
    let (kind, target, purchase) =
        made_of(&json!({"user": user, "items": [item], "total": "19.9", "createdAt": 1_772_352_000_123_i64}));
    assert_eq!((kind, target), (Kind::TrackEvent, None));
    assert_eq!(
        purchase["items"],
        json!([{"id": "7", "name": "Tea", "price": 9.95, "quantity": 2, "dataFields": {"origin": "Assam"}}])
    );
    assert_eq!((&purchase["total"], &purchase["createdAt"]), (&json!(19.9), &json!(1_772_352_000)));
    assert_eq!(purchase["user"]["userId"], json!("u-1"));
    let (kind, target, cart) = made_of(&json!({"user": user, "items": [item]}));
    assert_eq!((kind, target.as_deref()), (Kind::UpsertProfile, Some("shopping_cart")));
    assert_eq!(cart.as_object().unwrap().keys().collect::<Vec<_>>(), ["user", "items"]);
}

#[test]
fn an_item_is_refused_with_its_path() {
    let of = |item: Value| {
        refusal(Identity::Email, &json!({"user": {"email": "ada@example.com"}, "items": [{"id": "1", "name": "a", "price": 1, "quantity": 1}, item], "total": 1})).1
    };
    assert!(of(json!({"id": "1", "name": "a", "price": "€ 5", "quantity": 1})).starts_with("items[1].price"));
    assert!(of(json!({"id": "1", "name": "a", "price": 5})).contains("items[1]: has no `quantity`"));
    assert!(
        of(json!({"id": "1", "name": "a", "price": 5, "quantity": 1, "colour": "red"})).contains("items[1].colour")
    );
    assert!(of(json!("tea")).starts_with("items[1]"));
    let (_, message) = refusal(
        Identity::Email,
        &json!({"_operation": "track_event", "user": {"email": "ada@example.com"}, "items": []}),
    );
    assert!(message.contains("has no `total`"), "{message}");
}

#[test]
fn a_membership_says_what_it_does_and_has_the_list_as_its_target() {
    for (name, kind) in [("add_to_list", Kind::AddToList), ("remove_from_list", Kind::RemoveFromList)] {
        let expected = vec![(kind, Some("42".to_owned()), json!({"email": "Ada@Example.com"}))];
        assert_eq!(
            made(Identity::Email, &json!({"_operation": name, "listId": 42, "email": "ada@example.com"})),
            expected
        );
        let vendors =
            json!({"_operation": name, "listId": "42", "subscribers": [{"email": "ada@example.com", "userId": "u-1"}]});
        assert_eq!(made(Identity::Email, &vendors), expected);
    }
    let (_, message) = refusal(Identity::Email, &json!({"listId": 42, "subscribers": [{"email": "ada@example.com"}]}));
    assert!(message.contains("add `_operation: 'add_to_list'`"), "{message}");
    for output in [
        json!({"_operation": "remove_from_list", "listId": 42, "subscribers": [{"email": "ada@example.com"}], "channelUnsubscribe": true}),
        json!({"_operation": "add_to_list", "listId": 0, "email": "ada@example.com"}),
        json!({"_operation": "add_to_list", "listId": "WINBCK", "email": "ada@example.com"}),
        json!({"_operation": "add_to_list", "listId": 42, "subscribers": []}),
        json!({"_operation": "add_to_list", "listId": 42, "subscribers": [{"email": "ada@example.com"}, {"email": "ada@example.com"}]}),
        json!({"_operation": "add_to_list", "listId": 42, "email": "ada@example.com", "updateExistingUsersOnly": true}),
        json!({"_operation": "add_to_list", "email": "ada@example.com"}),
    ] {
        assert_eq!(refusal(Identity::Email, &output).0, code::OUTPUT_INVALID, "{output}");
    }
}

#[test]
fn a_subscriber_with_fields_is_an_update_and_then_a_membership() {
    let output = json!({"_operation": "add_to_list", "listId": 42, "subscribers": [{"userId": "u-1", "dataFields": {"churn": 0.9}}]});
    let made = made(Identity::Hybrid, &output);
    assert_eq!(made.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>(), [Kind::UpsertProfile, Kind::AddToList]);
    assert_eq!(made[0].2["dataFields"], json!({"churn": 0.9}));
    assert_eq!(made[1].2, json!({"userId": "u-1"}));
}

#[test]
fn what_a_person_agreed_to_changes_only_by_an_operation_of_its_own() {
    for name in ["unsubscribedChannelIds", "unsubscribedMessageTypeIds", "subscribedMessageTypeIds", "emailListIds"] {
        let (code, message) = refusal(Identity::Email, &json!({"email": "ada@example.com", "dataFields": {name: [1]}}));
        assert_eq!(code, code::OUTPUT_INVALID);
        assert!(message.contains("is refused"), "{message}");
        let made = made(Identity::Email, &json!({"email": "ada@example.com", name: ["1"], "campaignId": null}));
        assert_eq!(made, [(Kind::Unsubscribe, None, json!({"email": "Ada@Example.com", name: [1]}))]);
        assert!(made[0].0.is_destructive());
        let (_, message) =
            refusal(Identity::Email, &json!({"_operation": "subscribe", "email": "ada@example.com", name: [1]}));
        assert!(message.contains("overwrite"), "{message}");
    }
    for (name, kind) in [("subscribe", Kind::Subscribe), ("unsubscribe", Kind::Unsubscribe)] {
        let output = json!({"_operation": name, "email": "ada@example.com", "subscriptionGroup": "messagechannel", "subscriptionGroupId": 9});
        let (made, target, _) = made(Identity::Email, &output).remove(0);
        assert_eq!((made, target.as_deref()), (kind, Some("messageChannel/9")));
    }
    let (_, message) = refusal(
        Identity::Email,
        &json!({"_operation": "subscribe", "email": "ada@example.com", "subscriptionGroup": "all", "subscriptionGroupId": 9}),
    );
    assert!(message.contains("emailList, messageType, messageChannel"), "{message}");
}

#[test]
fn another_address_is_given_in_the_projects_own_way() {
    let output = json!({"currentEmail": "ada@old.example", "currentUserId": "u-1", "newEmail": "ada@example.com"});
    let expected = json!({"currentEmail": "ada@old.example", "newEmail": "Ada@Example.com"});
    assert_eq!(made(Identity::Email, &output), [(Kind::ChangeIdentifier, None, expected)]);
    let expected = json!({"userId": "u-1", "dataFields": {"email": "Ada@Example.com"}, "mergeNestedObjects": true});
    assert_eq!(made(Identity::UserId, &output), [(Kind::ChangeIdentifier, None, expected)]);
    for (identity, output) in [
        (Identity::Email, json!({"newEmail": "ada@example.com"})),
        (Identity::Email, json!({"currentEmail": "ada@example.com", "newEmail": "ADA@example.com"})),
        (Identity::UserId, json!({"currentEmail": "ada@old.example", "newEmail": "ada@example.com"})),
        (Identity::Email, json!({"currentEmail": "ada@old.example", "newEmail": null})),
    ] {
        assert_eq!(refusal(identity, &output).0, code::OUTPUT_INVALID, "{output}");
    }
}

#[test]
fn a_merge_names_two_identifiers_of_the_profile() {
    let output =
        json!({"sourceUserId": "anonymous-9", "destinationUserId": "u-1", "arrayMerge": [{"field": "badges"}]});
    assert_eq!(made(Identity::UserId, &output), [(Kind::MergeProfiles, None, output.clone())]);
    for output in [
        json!({"sourceUserId": "u-1", "destinationUserId": "u-1"}),
        json!({"sourceUserId": "u-1"}),
        json!({"sourceUserId": "anonymous-9", "destinationUserId": "u-1", "arrayMerge": [{"name": "badges"}]}),
        json!({"sourceEmail": "ada@old.example", "destinationUserId": "u-1"}),
    ] {
        assert_eq!(refusal(Identity::UserId, &output).0, code::OUTPUT_INVALID, "{output}");
    }
}

#[test]
fn removing_somebody_is_said_and_never_by_an_identifier_that_others_share() {
    for (name, kind) in
        [("delete_profile", Kind::DeleteProfile), ("suppress", Kind::Suppress), ("unsuppress", Kind::Unsuppress)]
    {
        let output = json!({"_operation": name, "email": "ada@example.com", "userId": "u-1"});
        assert_eq!(made(Identity::Email, &output), [(kind, None, json!({"email": "Ada@Example.com"}))]);
        assert_eq!(made(Identity::UserId, &output), [(kind, None, json!({"userId": "u-1"}))]);
        let (_, message) = refusal(Identity::Email, &json!({"_operation": name, "userId": "u-1"}));
        assert!(message.contains("has no `email`"), "{message}");
    }
}

#[test]
fn a_catalog_item_is_replaced_changed_or_deleted() {
    let (kind, target, body) =
        made(Identity::Email, &json!({"catalogName": "shoes", "itemId": 17, "value": {"price": 9}})).remove(0);
    assert_eq!((kind, target.as_deref()), (Kind::UpsertCatalogItem, Some("shoes/17")));
    assert_eq!(body, json!({"catalogName": "shoes", "itemId": "17", "value": {"price": 9}}));
    assert_eq!(
        made(Identity::Email, &json!({"catalogName": "shoes", "itemId": "a-1", "update": {}}))[0].0,
        Kind::UpsertCatalogItem
    );
    let deleted = json!({"_operation": "delete_catalog_item", "catalogName": "shoes", "itemId": "a-1"});
    assert_eq!(made(Identity::Email, &deleted)[0].0, Kind::DeleteCatalogItem);
    for output in [
        json!({"catalogName": "shoes", "itemId": "a_1", "value": {}}),
        json!({"catalogName": "", "itemId": "a", "value": {}}),
        json!({"catalogName": "shoes", "itemId": "a"}),
        json!({"catalogName": "shoes", "itemId": "a", "value": {}, "update": {}}),
        json!({"catalogName": "shoes", "itemId": "a", "value": {"a.b": 1}}),
        json!({"catalogName": "shoes", "itemId": "a", "price": 1, "value": {}}),
    ] {
        assert_eq!(refusal(Identity::Email, &output).0, code::OUTPUT_INVALID, "{output}");
    }
    let large = json!({"catalogName": "shoes", "itemId": "a", "value": {"text": "x".repeat(31_000)}});
    assert_eq!(refusal(Identity::Email, &large).0, code::PAYLOAD_TOO_LARGE);
}

#[test]
fn nulls_are_left_out_unless_they_clear() {
    let output = json!({"email": "ada@example.com", "dataFields": {"a": null, "b": {"c": null, "d": 1}}});
    assert_eq!(body(Identity::Email, &output)["dataFields"], json!({"b": {"d": 1}}));
    let identifiers = identifiers();
    let clearing = crate::iterable::mapping::Rules { nulls: Nulls::Clear, ..rules(&identifiers, Identity::Email) };
    let cleared: Value = serde_json::from_str(classified(clearing, &output).unwrap()[0].body.get()).unwrap();
    assert_eq!(cleared["dataFields"], json!({"a": null, "b": {"c": null, "d": 1}}));
}

#[test]
fn numbers_that_are_not_finite_follow_the_rule() {
    let identifiers = identifiers();
    let with = |rule, output: &Value, path: &str| {
        let rules = crate::iterable::mapping::Rules { non_finite: rule, ..rules(&identifiers, Identity::Email) };
        classified_with(rules, output, &[path.to_owned()])
            .map(|made| serde_json::from_str::<Value>(made[0].body.get()).unwrap())
    };
    let user = json!({"email": "ada@example.com", "dataFields": {}});
    let cart = json!({"user": {"email": "ada@example.com", "dataFields": {}}, "items": []});
    let subscriber = json!({"_operation": "add_to_list", "listId": 1, "subscribers": [{"email": "ada@example.com", "dataFields": {"x": 1}}]});
    assert_eq!(with(NonFinite::Omit, &user, "dataFields.ltv").unwrap()["dataFields"], json!({}));
    assert_eq!(with(NonFinite::Clear, &user, "dataFields.ltv").unwrap()["dataFields"], json!({"ltv": null}));
    assert_eq!(
        with(NonFinite::Clear, &cart, "user.dataFields.ltv").unwrap()["user"]["dataFields"],
        json!({"ltv": null})
    );
    let cleared = with(NonFinite::Clear, &subscriber, "subscribers[0].dataFields.ltv").unwrap();
    assert_eq!(cleared["dataFields"], json!({"x": 1, "ltv": null}));
    assert_eq!(with(NonFinite::Reject, &user, "dataFields.ltv").unwrap_err().code, code::NON_FINITE_NUMBER);
    assert_eq!(with(NonFinite::Clear, &cart, "items[0].price").unwrap_err().code, code::NON_FINITE_NUMBER);
}

#[test]
fn what_is_not_understood_is_refused_with_a_hint() {
    let message = |output: &Value| refusal(Identity::Email, output).1;
    assert!(
        message(&json!({"email": "ada@example.com", "dataFields": {}, "churn": 1})).contains("go under dataFields")
    );
    assert!(message(&json!({"email": "ada@example.com", "eventNmae": "x"})).contains("did you mean `eventName`"));
    assert!(message(&json!({"email": "ada@example.com", "dataFeilds": {}})).contains("did you mean `dataFields`"));
    assert!(message(&json!({"users": []})).contains("one output for each user"));
    assert!(
        message(&json!({"_operation": "upsert", "email": "ada@example.com"})).contains("did you mean `upsert_profile`")
    );
    assert!(message(&json!({"_operation": "track_event", "email": "ada@example.com"})).contains("needs `eventName`"));
    assert!(
        message(&json!({"_operation": "add_to_list", "email": "ada@example.com", "eventName": "x"}))
            .contains("those of `track_event`")
    );
    assert_eq!(
        refusal(Identity::Email, &json!({"_operation": "upsert_object", "email": "ada@example.com"})).0,
        code::UNSUPPORTED_OPERATION
    );
    for output in
        [json!([]), json!("x"), json!(null), json!({}), json!({"email": ["ada@example.com"], "dataFields": {}})]
    {
        assert_eq!(refusal(Identity::Email, &output).0, code::OUTPUT_INVALID, "{output}");
    }
}

#[test]
fn an_operation_that_exceeds_the_limit_is_refused_before_it_is_sent() {
    let output = json!({"email": "ada@example.com", "dataFields": {"text": "x".repeat(1_000_000)}});
    assert_eq!(refusal(Identity::Email, &output).0, code::PAYLOAD_TOO_LARGE);
}

#[test]
fn a_body_of_another_vendor_is_named() {
    use crate::destination::Destination as _;
    let iterable = super::iterable("https://api.iterable.com", super::config());
    for (output, vendor) in [
        (json!({"data": {"type": "profile", "attributes": {"email": "ada@example.com"}}}), "a Klaviyo body"),
        (json!({"type": "identify", "userId": "u-1", "traits": {"x": 1}}), "a Customer.io body"),
        (
            json!({"type": "person", "action": "identify", "identifiers": {"id": "u-1"}, "attributes": {}}),
            "a Customer.io body",
        ),
    ] {
        let output = serde_json::value::RawValue::from_string(output.to_string()).unwrap();
        let input = crate::destination::ClassifyInput {
            output: &output,
            route: "ltv",
            ordinal: 0,
            identifiers: super::OWN,
            time: tailwater_core::Timestamp::default(),
            non_finite: &[],
        };
        let error = iterable.classify(&input).unwrap_err();
        assert_eq!(error.code, code::WRONG_VENDOR, "{error}");
        assert!(error.message.contains(vendor) && error.message.contains("the destination is Iterable"), "{error}");
    }
}
