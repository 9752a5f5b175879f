//! The simulator over real HTTP: what a client of the vendor sees, and every refusal.

use std::sync::Mutex;
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::engine::{Arriving, Disconnect, Effect, Effects, Ending, Prescription, Ruling};
use crate::shape::against;

use super::endpoints::ENDPOINTS;
use super::*;

struct Vendor {
    simulator: Simulator,
    client: Client,
}

impl Vendor {
    async fn start() -> Self {
        Self::with(immediate()).await
    }

    async fn with(options: Options) -> Self {
        let client = Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
        Self { simulator: Simulator::start(options).await.unwrap(), client }
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.simulator.url()))
            .header("api-key", DEFAULT_API_KEY)
            .header("content-type", "application/json");
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(Method::POST, path, Some(&body)).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.send(Method::GET, path, None).await
    }

    async fn update(&self, email: &str, fields: Value) -> (u16, Value) {
        self.post("/api/users/update", json!({"email": email, "dataFields": fields, "createNewFields": true})).await
    }

    fn fields(&self, email: &str) -> Value {
        self.simulator.profile("email", email).map_or(Value::Null, |user| user["attributes"].clone())
    }
}

/// Without limits, and everything takes effect at once.
fn immediate() -> Options {
    Options {
        limits: false,
        bulk_delay: Duration::ZERO,
        lists: vec![("7".to_owned(), "Retention".to_owned())],
        ..Options::default()
    }
}

fn refused(answer: &(u16, Value), status: u16, code: &str) {
    assert_eq!((answer.0, answer.1["code"].as_str()), (status, Some(code)), "{}", answer.1);
}

#[tokio::test]
async fn an_update_creates_and_merges() {
    let vendor = Vendor::start().await;
    let answer = vendor.update("Ann@Example.com", json!({"plan": "gold", "score": 0.5})).await;
    assert_eq!(answer, (200, json!({"msg": "", "code": "Success", "params": null})));
    vendor.update("ann@example.com", json!({"plan": "silver"})).await;
    let fields = vendor.fields("ann@example.com");
    assert_eq!((&fields["plan"], &fields["score"]), (&json!("silver"), &json!(0.5)));
    let (_, user) = vendor.get("/api/users/ann%40example.com").await;
    assert_eq!(user["user"]["email"], "ann@example.com");
    assert_eq!(vendor.get("/api/users/getByEmail?email=nobody@example.com").await, (200, json!({})));
}

#[tokio::test]
async fn what_a_single_call_may_not_say_is_refused_with_the_vendors_code() {
    let vendor = Vendor::start().await;
    let update = "/api/users/update";
    refused(&vendor.post(update, json!({"email": "000"})).await, 400, "InvalidEmailAddressError");
    refused(&vendor.post(update, json!({"email": "a@b.co", "userId": "1"})).await, 400, "BadParams");
    refused(&vendor.post(update, json!({"dataFields": {}})).await, 400, "BadParams");
    refused(&vendor.post(update, json!({"userId": "1"})).await, 400, "UnknownUserIdError");
    refused(&vendor.post(update, json!({"userId": "x ", "preferUserId": true})).await, 400, "InvalidUserIdError");
    let unknown = vendor.post(update, json!({"email": "a@b.co", "datafields": {}})).await;
    refused(&unknown, 400, "BadJsonBody");
    assert_eq!(unknown.1["params"], json!({"obj.datafields": "Unknown field"}));
    let typed = vendor.post("/api/events/trackBulk", json!({"events": [{"eventName": "a", "createdAt": "1"}]})).await;
    assert_eq!(typed.1["params"], json!({"obj.events[0].createdAt": "Number value expected"}));
    assert_eq!(vendor.post(update, json!({"userId": "1", "preferUserId": true})).await.0, 200);
    assert!(vendor.simulator.profile("userId", "1").is_some());
}

#[tokio::test]
async fn who_asks_is_checked() {
    let vendor = Vendor::start().await;
    let url = format!("{}/api/users/getFields", vendor.simulator.url());
    for request in [
        vendor.client.get(&url),
        vendor.client.get(&url).header("api-key", "other"),
        vendor.client.get(format!("{url}?api_key={DEFAULT_API_KEY}")),
    ] {
        assert_eq!(request.send().await.unwrap().status(), 401);
    }
    assert_eq!(vendor.client.get(&url).header("Api_Key", DEFAULT_API_KEY).send().await.unwrap().status(), 200);
    refused(&vendor.get("/api/users/getFields?page=1").await, 400, "BadParams");
    refused(&vendor.get("/api/campaigns").await, 404, "NotFound");
    assert_eq!(vendor.get("/api/users/update").await.0, 200, "a person with that name, who does not exist");
    assert_eq!(vendor.send(Method::PUT, "/api/users/update", None).await.0, 405);
    let text = vendor.client.post(format!("{}/api/users/update", vendor.simulator.url()));
    let text = text.header("api-key", DEFAULT_API_KEY).body("{}").send().await.unwrap();
    assert_eq!(text.status(), 400);
}

#[tokio::test]
async fn the_identity_type_decides_who_can_be_named() {
    let by_id = Vendor::with(Options { identity: Identity::UserId, ..immediate() }).await;
    refused(&by_id.post("/api/users/update", json!({"email": "a@b.co"})).await, 400, "BadParams");
    assert_eq!(by_id.post("/api/users/update", json!({"userId": "1", "dataFields": {"email": "A@b.co"}})).await.0, 200);
    assert_eq!(by_id.simulator.profile("email", "a@b.co").unwrap()["userId"], "1");
    let taken = by_id.post("/api/users/update", json!({"userId": "2", "dataFields": {"email": "a@b.co"}})).await;
    refused(&taken, 409, "EmailAlreadyExists");
    refused(
        &by_id.post("/api/users/updateEmail", json!({"currentUserId": "1", "newEmail": "c@b.co"})).await,
        400,
        "BadParams",
    );
    let hybrid = Vendor::with(Options { identity: Identity::Hybrid, ..immediate() }).await;
    assert_eq!(hybrid.post("/api/users/update", json!({"email": "a@b.co"})).await.0, 200);
    assert_eq!(hybrid.post("/api/users/update", json!({"userId": "1"})).await.0, 200);
    refused(
        &hybrid.post("/api/users/update", json!({"email": "a@b.co", "dataFields": {"userId": "1"}})).await,
        409,
        "UserIdAlreadyExists",
    );
}

#[tokio::test]
async fn unknown_fields_are_created_dropped_or_reported() {
    let vendor = Vendor::start().await;
    let body = json!({"users": [{"email": "a@b.co", "dataFields": {"firstName": "A", "plan": "x"}}]});
    let (status, answer) = vendor.post("/api/users/bulkUpdate", body.clone()).await;
    assert_eq!((status, &answer["filteredOutFields"]), (200, &json!(["plan"])));
    assert_eq!(vendor.fields("a@b.co")["plan"], Value::Null);
    let mut creating = body;
    creating["createNewFields"] = json!(true);
    assert_eq!(vendor.post("/api/users/bulkUpdate", creating).await.1["createdFields"], json!(["plan"]));
    assert_eq!(vendor.fields("a@b.co")["plan"], "x");
    // A single call does not say what it dropped; the journal does.
    vendor.post("/api/users/update", json!({"email": "a@b.co", "dataFields": {"other": 1}})).await;
    let last = vendor.simulator.requests().pop().unwrap();
    assert_eq!((last.status, last.dropped.len(), vendor.simulator.stats().dropped_silently), (200, 1, 1));
    assert_eq!(vendor.get("/api/users/getFields").await.1["fields"]["plan"], "string");
}

#[tokio::test]
async fn one_field_of_the_wrong_type_fails_a_whole_bulk_request() {
    let vendor = Vendor::start().await;
    vendor.update("a@b.co", json!({"signup": "2026-01-01 00:00:00 +00:00"})).await;
    let users = json!([
        {"email": "b@b.co", "dataFields": {"firstName": "B"}},
        {"email": "c@b.co", "dataFields": {"signup": "GGG"}},
    ]);
    let answer = vendor.post("/api/users/bulkUpdate", json!({"users": users, "createNewFields": true})).await;
    refused(&answer, 400, "RequestFieldsTypesMismatched");
    assert_eq!(
        answer.1["params"]["validationErrors"],
        json!({"project_1:::signup": {
            "incomingTypes": ["string", "keyword"], "expectedType": "date", "_type": "UnexpectedType",
            "offendingValue": "GGG", "category": "user",
        }})
    );
    assert!(answer.1["msg"].as_str().unwrap().contains("Field 'signup' already exists for type 'user'"));
    assert_eq!(vendor.simulator.profiles().len(), 1);
}

#[tokio::test]
async fn the_types_of_event_fields_are_those_of_the_events_name() {
    let vendor = Vendor::start().await;
    vendor.update("a@b.co", json!({})).await;
    let event = |name: &str, value: Value| json!({"email": "a@b.co", "eventName": name, "dataFields": {"x": value}, "createNewFields": true});
    assert_eq!(vendor.post("/api/events/track", event("one", json!(1))).await.0, 200);
    assert_eq!(vendor.post("/api/events/track", event("two", json!("1"))).await.0, 200);
    refused(&vendor.post("/api/events/track", event("one", json!("1"))).await, 400, "RequestFieldsTypesMismatched");
    let both = json!({"events": [event("three", json!(1)), event("one", json!(true))]});
    refused(&vendor.post("/api/events/trackBulk", both).await, 400, "RequestFieldsTypesMismatched");
    assert_eq!(vendor.simulator.events().len(), 2);
}

#[tokio::test]
async fn failures_of_a_bulk_request_are_listed_by_identifier() {
    let vendor = Vendor::start().await;
    vendor.update("gone@b.co", json!({})).await;
    vendor.post("/api/users/forget", json!({"email": "gone@b.co"})).await;
    vendor.update("taken@b.co", json!({"userId": "t"})).await;
    vendor
        .simulator
        .prescribe(
            Prescription::new(Effect::ImportError(serde_json::from_value(json!({})).unwrap())).naming("bad@b.co"),
        )
        .unwrap();
    let users = json!([
        {"email": "OK@b.co"}, {"email": "Not An Email"}, {"email": "GONE@b.co"}, {"userId": "nobody"},
        {"email": "bad@b.co"}, {"email": "x@b.co", "dataFields": {"userId": "t"}},
    ]);
    let (status, answer) = vendor.post("/api/users/bulkUpdate", json!({ "users": users })).await;
    assert_eq!((status, &answer["successCount"], &answer["failCount"]), (200, &json!(1), &json!(5)));
    let failed = &answer["failedUpdates"];
    assert_eq!(failed["invalidEmails"], json!(["not an email"]));
    assert_eq!(failed["forgottenEmails"], json!(["gone@b.co"]));
    assert_eq!(failed["invalidUserIds"], json!(["nobody"]));
    assert_eq!(failed["invalidDataEmails"], json!(["bad@b.co"]));
    assert_eq!(failed["conflictUserIds"], json!(["t"]));
    assert!(vendor.simulator.profile("email", "ok@b.co").is_some());
    refused(&vendor.post("/api/users/update", json!({"email": "gone@b.co"})).await, 409, "ForgottenUserError");
    assert_eq!(vendor.post("/api/users/unforget", json!({"email": "gone@b.co"})).await.0, 200);
    assert_eq!(vendor.post("/api/users/update", json!({"email": "gone@b.co"})).await.0, 200);
}

#[tokio::test]
async fn a_bulk_request_overwrites_a_single_call_that_was_sent_after_it() {
    let vendor = Vendor::with(Options { bulk_delay: Duration::from_millis(150), ..immediate() }).await;
    vendor.update("a@b.co", json!({"plan": "old"})).await;
    vendor.post("/api/users/bulkUpdate", json!({"users": [{"email": "a@b.co", "dataFields": {"plan": "bulk"}}]})).await;
    vendor.update("a@b.co", json!({"plan": "single"})).await;
    assert_eq!(vendor.fields("a@b.co")["plan"], "single");
    let wait = async {
        while vendor.fields("a@b.co")["plan"] != "bulk" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await.expect("the bulk request takes effect later");
}

#[tokio::test]
async fn an_events_id_overwrites_and_unknown_people_are_refused() {
    let vendor = Vendor::start().await;
    let event = |id: &str, value: i64| json!({"email": "a@b.co", "eventName": "Churned", "id": id, "dataFields": {"n": value}, "createNewFields": true});
    refused(&vendor.post("/api/events/track", event("1", 1)).await, 400, "UnknownEmailError");
    vendor.update("a@b.co", json!({})).await;
    assert_eq!(vendor.post("/api/events/track", event("1", 1)).await.1["params"]["id"], "1");
    vendor.post("/api/events/track", event("1", 2)).await;
    let events = vendor.simulator.events();
    assert_eq!((events.len(), &events[0]["n"]), (1, &json!(2)));
    assert_eq!(vendor.simulator.stats().events_repeated, 1);
    refused(&vendor.post("/api/events/track", event(&"x".repeat(513), 1)).await, 400, "BadParams");
    let mut late = event("2", 1);
    late["createdAt"] = json!(1_700_000_000_000_i64);
    refused(&vendor.post("/api/events/track", late).await, 400, "BadParams");
    let bulk = json!({"events": [event("3", 3), {"email": "nobody@b.co", "eventName": "Churned"}]});
    let (_, answer) = vendor.post("/api/events/trackBulk", bulk).await;
    assert_eq!(
        (&answer["failCount"], &answer["failedUpdates"]["notFoundEmails"]),
        (&json!(1), &json!(["nobody@b.co"]))
    );
    assert_eq!(vendor.get("/api/events/a@b.co").await.1["events"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn disallowed_event_names_are_told_apart() {
    let vendor = Vendor::with(Options { disallowed_event_names: vec!["Bad".to_owned()], ..immediate() }).await;
    vendor.update("a@b.co", json!({})).await;
    let (status, answer) = vendor.post("/api/events/track", json!({"email": "a@b.co", "eventName": "Bad"})).await;
    assert!(status == 200 && answer["msg"].as_str().unwrap().contains("Disallowed Event Name"));
    let events = json!([{"email": "a@b.co", "eventName": "Bad"}, {"email": "a@b.co", "eventName": "Good"}]);
    let (_, answer) = vendor.post("/api/events/trackBulk", json!({ "events": events })).await;
    assert_eq!((&answer["disallowedEventNames"], &answer["failCount"]), (&json!(["Bad"]), &json!(1)));
    assert_eq!(vendor.simulator.events().len(), 1);
}

#[tokio::test]
async fn lists_take_and_lose_people() {
    let vendor = Vendor::start().await;
    let (status, answer) = vendor
        .post("/api/lists/subscribe", json!({"listId": 7, "subscribers": [{"email": "A@b.co"}, {"email": "no"}]}))
        .await;
    assert_eq!((status, &answer["failedUpdates"]["invalidEmails"]), (200, &json!(["no"])));
    assert_eq!(vendor.get("/api/lists/getUsers?listId=7").await.1, "a@b.co\n");
    assert_eq!(vendor.simulator.list("7").unwrap()["count"], 1);
    let off = json!({"listId": 7, "subscribers": [{"email": "a@b.co"}, {"email": "x@b.co"}]});
    let (_, answer) = vendor.post("/api/lists/unsubscribe", off).await;
    assert_eq!(answer["failedUpdates"]["notFoundEmails"], json!(["x@b.co"]));
    assert_eq!(vendor.get("/api/lists/7/size").await.1, json!(0));
    refused(
        &vendor.post("/api/lists/subscribe", json!({"listId": 8, "subscribers": [{"email": "a@b.co"}]})).await,
        400,
        "BadParams",
    );
    refused(&vendor.post("/api/lists/subscribe", json!({"listId": "7", "subscribers": []})).await, 400, "BadJsonBody");
}

#[tokio::test]
async fn subscriptions_are_overwritten() {
    let vendor = Vendor::start().await;
    let path = "/api/users/updateSubscriptions";
    refused(&vendor.post(path, json!({"email": "a@b.co", "emailListIds": []})).await, 400, "UnknownEmailError");
    vendor.post("/api/lists/subscribe", json!({"listId": 7, "subscribers": [{"email": "a@b.co"}]})).await;
    refused(&vendor.post(path, json!({"email": "a@b.co", "emailListIds": [99]})).await, 400, "BadParams");
    refused(&vendor.post(path, json!({"email": "a@b.co", "subscribedMessageTypeIds": [1]})).await, 400, "BadParams");
    assert_eq!(vendor.post(path, json!({"email": "a@b.co", "emailListIds": []})).await.0, 200);
    assert_eq!(vendor.simulator.list("7").unwrap()["count"], 0);
    let bulk = json!({"updateSubscriptionsRequests": [{"email": "a@b.co", "unsubscribedChannelIds": [1]}, {"email": "x@b.co"}]});
    assert_eq!(vendor.post("/api/users/bulkUpdateSubscriptions", bulk).await.1["invalidEmails"], json!(["x@b.co"]));
}

#[tokio::test]
async fn subscription_endpoints_exist_where_the_project_has_them() {
    let vendor = Vendor::start().await;
    vendor.update("a@b.co", json!({})).await;
    let path = "/api/subscriptions/emailList/7/user/a%40b.co";
    assert_eq!(vendor.send(Method::PATCH, path, None).await.0, 404);
    vendor.simulator.change(|options| options.subscriptions_api = true);
    assert_eq!(vendor.send(Method::PATCH, path, None).await.0, 202);
    assert_eq!(vendor.simulator.list("7").unwrap()["count"], 1);
    assert_eq!(vendor.send(Method::DELETE, path, None).await.0, 202);
    assert_eq!(vendor.simulator.list("7").unwrap()["count"], 0);
    let channel = "/api/subscriptions/messagechannel/1/user/a%40b.co";
    vendor.send(Method::DELETE, channel, None).await;
    assert_eq!(vendor.fields("a@b.co")["unsubscribedChannelIds"], json!([1]));
    vendor.send(Method::PATCH, channel, None).await;
    assert_eq!(vendor.fields("a@b.co")["unsubscribedChannelIds"], json!([]));
    for (path, code) in [
        ("/api/subscriptions/nothing/1/user/a%40b.co", "BadParams"),
        ("/api/subscriptions/emailList/x/user/a%40b.co", "BadParams"),
        ("/api/subscriptions/emailList/99/user/a%40b.co", "BadParams"),
        ("/api/subscriptions/emailList/7/user/x%40b.co", "UnknownEmailError"),
        ("/api/subscriptions/emailList/7/byUserId/1", "UnknownUserIdError"),
    ] {
        refused(&vendor.send(Method::PATCH, path, None).await, 400, code);
    }
}

#[tokio::test]
async fn an_email_changes_once_and_to_nobody_elses() {
    let vendor = Vendor::start().await;
    vendor.update("a@b.co", json!({"plan": "x"})).await;
    vendor.update("b@b.co", json!({})).await;
    let change = |from: &str, to: &str| json!({"currentEmail": from, "newEmail": to});
    refused(&vendor.post("/api/users/updateEmail", change("a@b.co", "b@b.co")).await, 409, "EmailAlreadyExists");
    assert_eq!(vendor.post("/api/users/updateEmail", change("a@b.co", "c@b.co")).await.0, 200);
    assert_eq!(vendor.fields("c@b.co")["plan"], "x");
    let again = vendor.post("/api/users/updateEmail", change("a@b.co", "c@b.co")).await;
    refused(&again, 400, "BadParams");
    assert!(again.1["msg"].as_str().unwrap().ends_with("User does not exist"));
}

#[tokio::test]
async fn a_merge_keeps_the_destination_and_needs_a_server_side_key() {
    let vendor = Vendor::start().await;
    vendor.update("a@b.co", json!({"plan": "old", "extra": 1, "tags": ["x"]})).await;
    vendor.update("b@b.co", json!({"plan": "new", "tags": ["y"]})).await;
    let body = json!({"sourceEmail": "a@b.co", "destinationEmail": "b@b.co", "arrayMerge": [{"field": "tags"}]});
    let mut deduped = body.clone();
    deduped["arrayMerge"][0]["dedupeBy"] = json!("id");
    refused(&vendor.post("/api/users/merge", deduped).await, 400, "BadParams");
    assert_eq!(vendor.post("/api/users/merge", body.clone()).await.0, 200);
    let fields = vendor.fields("b@b.co");
    assert_eq!((&fields["plan"], &fields["extra"], &fields["tags"]), (&json!("new"), &json!(1), &json!(["y", "x"])));
    refused(&vendor.post("/api/users/merge", body.clone()).await, 400, "UnknownEmailError");
    vendor.simulator.change(|options| options.server_side = false);
    refused(&vendor.post("/api/users/merge", body).await, 403, "Forbidden");
}

#[tokio::test]
async fn a_purchase_clears_the_cart_and_overwrites_by_id() {
    let vendor = Vendor::start().await;
    let item = json!({"id": "p1", "name": "Cup", "price": 3.5, "quantity": 2});
    let cart = json!({"user": {"email": "a@b.co"}, "items": [item]});
    assert_eq!(vendor.post("/api/commerce/updateCart", cart).await.0, 200);
    assert_eq!(vendor.fields("a@b.co")["shoppingCartItems"][0]["name"], "Cup");
    let purchase = json!({"user": {"email": "a@b.co"}, "items": [item], "total": 7.0, "id": "o1"});
    for _ in 0..2 {
        assert_eq!(vendor.post("/api/commerce/trackPurchase", purchase.clone()).await.0, 200);
    }
    assert_eq!((vendor.fields("a@b.co")["shoppingCartItems"].clone(), vendor.simulator.events().len()), (json!([]), 1));
    let mut bad = purchase;
    bad["items"][0]["price"] = json!("3.5");
    let answer = vendor.post("/api/commerce/trackPurchase", bad).await;
    assert_eq!(answer.1["params"], json!({"obj.items[0].price": "Number value expected"}));
}

#[tokio::test]
async fn catalogs_have_items_with_rules() {
    let vendor = Vendor::start().await;
    refused(&vendor.post("/api/catalogs/a_b", json!({})).await, 400, "BadParams");
    assert_eq!(vendor.post("/api/catalogs/shops", json!({})).await.0, 201);
    let bulk = |items: Value| json!({"documents": items, "replaceUploadedFieldsOnly": false});
    let items = "/api/catalogs/shops/items";
    assert_eq!(vendor.post(items, bulk(json!({"s1": {"city": "Berlin"}}))).await.0, 202);
    for bad in [json!({"s_1": {}}), json!({"s1": {"a.b": 1}}), json!({"s1": {"a": "x".repeat(30_001)}})] {
        refused(&vendor.post(items, bulk(bad)).await, 400, "BadParams");
    }
    refused(&vendor.post("/api/catalogs/none/items", bulk(json!({"s1": {}}))).await, 404, "NotFound");
    let one = format!("{items}/s1");
    vendor.send(Method::PATCH, &one, Some(&json!({"update": {"open": true}}))).await;
    assert_eq!(vendor.get(&one).await.1["params"]["value"], json!({"city": "Berlin", "open": true}));
    assert_eq!(vendor.simulator.objects()[0]["type"], "shops");
    assert_eq!(vendor.send(Method::DELETE, &one, None).await.0, 202);
    assert_eq!(vendor.get(&one).await.0, 404);
}

#[tokio::test]
async fn limits_are_those_of_the_endpoint() {
    let vendor = Vendor::with(Options { limits: true, ..immediate() }).await;
    let mut last = (0, Value::Null);
    // Two windows hold ten requests at most, so the eleventh is refused even where the second turns in between.
    for _ in 0..11 {
        last = vendor.post("/api/users/bulkUpdate", json!({"users": [{"email": "a@b.co"}]})).await;
        if last.0 == 429 {
            break;
        }
    }
    refused(&last, 429, "RateLimitExceeded");
    assert_eq!(last.1["msg"], "Exceeded rate limit for endpoint: /api/users/bulkUpdate, project: 1");
    assert!(vendor.simulator.stats().throttled > 0);
    assert_eq!(super::endpoints::Endpoint::Forget.windows()[1], crate::engine::Window::per_day(1_000));
}

#[tokio::test]
async fn sizes_are_limited() {
    let vendor = Vendor::start().await;
    let users: Vec<Value> = (0..1_001).map(|index| json!({"email": format!("p{index}@b.co")})).collect();
    refused(&vendor.post("/api/users/bulkUpdate", json!({ "users": users })).await, 400, "BatchTooLarge");
    refused(&vendor.post("/api/users/bulkUpdate", json!({"users": []})).await, 400, "BadParams");
    let large = json!({"email": "a@b.co", "dataFields": {"text": "x".repeat(4_000_000)}});
    refused(&vendor.post("/api/users/update", large).await, 413, "BatchTooLarge");
}

#[tokio::test]
async fn deletion_comes_later_and_a_lost_answer_leaves_its_effect() {
    let vendor = Vendor::start().await;
    vendor
        .simulator
        .prescribe(Prescription::new(Effect::Disconnect(Disconnect::AfterProcessing)).on("POST", "/api/users/update"))
        .unwrap();
    let url = format!("{}/api/users/update", vendor.simulator.url());
    let body = json!({"email": "a@b.co"}).to_string();
    let request = vendor.client.post(url).header("api-key", DEFAULT_API_KEY).header("content-type", "application/json");
    assert!(request.body(body).send().await.is_err());
    assert!(vendor.simulator.profile("email", "a@b.co").is_some());
    assert_eq!(vendor.send(Method::DELETE, "/api/users/a@b.co", None).await.0, 200);
    assert!(vendor.simulator.profile("email", "a@b.co").is_none());
}

/// What an observer is told took effect.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<(u64, Effects)>>);

impl Observer for Told {
    fn arrived(&self, _arriving: Arriving<'_>) -> Ruling {
        Ruling::Normal
    }

    fn settled(&self, request: u64, effects: Effects) {
        self.0.lock().unwrap().push((request, effects));
    }

    fn ended(&self, _request: u64, _ending: Ending) {}
}

#[tokio::test]
async fn an_observer_is_told_what_of_a_bulk_request_took_effect_and_when() {
    let told = Arc::new(Told::default());
    let options =
        Options { observer: Some(Arc::clone(&told) as _), bulk_delay: Duration::from_millis(100), ..immediate() };
    let vendor = Vendor::with(options).await;
    vendor.post("/api/users/bulkUpdate", json!({"users": [{"email": "a@b.co"}, {"email": "no"}]})).await;
    assert!(told.0.lock().unwrap().is_empty());
    // Nobody is told of a deletion: it carries no people.
    vendor.send(Method::DELETE, "/api/users/x@b.co", None).await;
    vendor.update("b@b.co", json!({})).await;
    let wait = async {
        while vendor.simulator.profiles().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await.expect("the bulk request takes effect later");
    assert_eq!(*told.0.lock().unwrap(), [(3, Effects::All), (1, Effects::AllBut(vec![1]))]);
}

#[test]
fn endpoints_and_bodies_are_those_of_the_specification() {
    let Some(spec) = against::specification("iterable.json") else { return };
    let mut found = Vec::new();
    for (method, path, endpoint) in ENDPOINTS {
        let operation = &spec["paths"][*path][method.to_lowercase()];
        if operation.is_null() {
            found.push(format!("{method} {path}: no such operation"));
            continue;
        }
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let body = parameters.iter().find(|parameter| parameter["in"] == "body").map(|parameter| &parameter["schema"]);
        match (body, endpoint.body()) {
            (Some(schema), Some(shape)) => {
                against::differences(&spec, schema, &shape, &format!("{method} {path}"), &mut found);
            }
            (None, None) => {}
            (there, _) => found.push(format!("{method} {path}: body there {}", there.is_some())),
        }
        let mut there: Vec<&str> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        let mut here = endpoint.parameters().to_vec();
        there.sort_unstable();
        here.sort_unstable();
        if there != here {
            found.push(format!("{method} {path}: parameters {there:?} there, {here:?} here"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
