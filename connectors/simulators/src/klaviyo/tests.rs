//! The simulator over real HTTP: what a client of the vendor sees.

use std::time::Duration;

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::*;

struct Vendor {
    simulator: Simulator,
    client: Client,
}

impl Vendor {
    async fn start() -> Self {
        Self::with(Options { limits: false, ..Options::default() }).await
    }

    async fn with(options: Options) -> Self {
        let client = Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
        Self { simulator: Simulator::start(options).await.unwrap(), client }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.simulator.url()))
            .header("authorization", format!("Klaviyo-API-Key {DEFAULT_API_KEY}"))
            .header("revision", "2026-07-15")
            .header("content-type", "application/vnd.api+json")
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Response {
        self.request(method, path).body(body.to_string()).send().await.unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        read(self.send(Method::POST, path, body).await).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        read(self.request(Method::GET, path).send().await.unwrap()).await
    }

    async fn import(&self, attributes: Value) -> (StatusCode, Value) {
        self.post("/api/profile-import", &single(attributes)).await
    }

    async fn job(&self, profiles: &[Value], lists: &[&str]) -> (StatusCode, Value) {
        self.post("/api/profile-bulk-import-jobs", &job(profiles, lists)).await
    }

    /// Asks for a job until it is over.
    async fn completed(&self, id: &str) -> Value {
        let wait = async {
            loop {
                let (_, body) = self.get(&format!("/api/profile-bulk-import-jobs/{id}")).await;
                let attributes = body["data"]["attributes"].clone();
                if matches!(attributes["status"].as_str(), Some("complete" | "cancelled")) {
                    return attributes;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the job is over in time")
    }
}

async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
}

fn single(attributes: Value) -> Value {
    json!({"data": {"type": "profile", "attributes": attributes}})
}

fn job(profiles: &[Value], lists: &[&str]) -> Value {
    let profiles: Vec<Value> =
        profiles.iter().map(|attributes| json!({"type": "profile", "attributes": attributes})).collect();
    let lists: Vec<Value> = lists.iter().map(|id| json!({"type": "list", "id": id})).collect();
    json!({"data": {
        "type": "profile-bulk-import-job",
        "attributes": {"profiles": {"data": profiles}},
        "relationships": {"lists": {"data": lists}},
    }})
}

fn error_of(body: &Value) -> (&str, &str) {
    (body["errors"][0]["code"].as_str().unwrap(), body["errors"][0]["source"]["pointer"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn an_import_creates_then_updates() {
    let vendor = Vendor::start().await;
    let body = r#"{"data":{"type":"profile","attributes":{"email":"Ann@Example.com","properties":{"ltv":2840.50}}}}"#;
    let (status, body) = vendor.post("/api/profile-import", &serde_json::from_str(body).unwrap()).await;
    assert_eq!(status, 201);
    assert_eq!(body["data"]["attributes"]["email"], "ann@example.com");
    let (status, again) = vendor.import(json!({"email": "ann@example.com", "first_name": "Ann"})).await;
    assert_eq!((status.as_u16(), &again["data"]["id"]), (200, &body["data"]["id"]));
    assert_eq!(again["data"]["attributes"]["properties"]["ltv"].to_string(), "2840.50");
}

#[tokio::test]
async fn identifiers_of_two_people_are_answered_with_the_other_ones_id() {
    let vendor = Vendor::start().await;
    vendor.import(json!({"email": "a@example.com"})).await;
    let (_, other) = vendor.import(json!({"phone_number": "+15551230987"})).await;
    let (status, body) = vendor.import(json!({"email": "a@example.com", "phone_number": "+15551230987"})).await;
    assert_eq!(status, 409);
    assert_eq!(error_of(&body), ("duplicate_profile", "/data/attributes"));
    assert_eq!(body["errors"][0]["meta"]["duplicate_profile_id"], other["data"]["id"]);
}

#[tokio::test]
async fn a_created_profile_may_not_exist_and_a_patched_one_must() {
    let vendor = Vendor::start().await;
    let (status, body) = vendor.post("/api/profiles/", &single(json!({"email": "a@example.com"}))).await;
    assert_eq!(status, 201);
    assert_eq!(vendor.post("/api/profiles", &single(json!({"email": "a@example.com"}))).await.0, 409);
    let id = body["data"]["id"].as_str().unwrap();
    let patch = json!({"data": {"type": "profile", "id": id, "attributes": {"title": "Dr"}}});
    let (status, patched) = read(vendor.send(Method::PATCH, &format!("/api/profiles/{id}"), &patch).await).await;
    assert_eq!((status.as_u16(), &patched["data"]["attributes"]["title"]), (200, &json!("Dr")));
    assert_eq!(read(vendor.send(Method::PATCH, "/api/profiles/other", &patch).await).await.0, 400);
    assert_eq!(vendor.get("/api/profiles/nobody").await.0, 404);
}

#[tokio::test]
async fn who_asks_and_in_which_revision_is_checked() {
    let vendor = Vendor::start().await;
    let bare = vendor.client.get(format!("{}/api/lists", vendor.simulator.url()));
    let (status, body) = read(bare.try_clone().unwrap().send().await.unwrap()).await;
    assert_eq!((status.as_u16(), error_of(&body).0), (401, "not_authenticated"));
    let wrong = bare.try_clone().unwrap().header("authorization", "Klaviyo-API-Key pk_wrong");
    let (status, body) = read(wrong.send().await.unwrap()).await;
    assert_eq!((status.as_u16(), error_of(&body).0), (401, "authentication_failed"));
    let keyed = bare.header("authorization", format!("Klaviyo-API-Key {DEFAULT_API_KEY}"));
    assert_eq!(keyed.try_clone().unwrap().send().await.unwrap().status(), 400);
    assert_eq!(keyed.try_clone().unwrap().header("revision", "banana").send().await.unwrap().status(), 400);
    assert_eq!(keyed.header("revision", "2026-07-15").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_authorization_header_is_not_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("received.jsonl");
    let vendor = Vendor::with(Options { persist: Some(file.clone()), ..Options::default() }).await;
    vendor.import(json!({"email": "a@example.com"})).await;
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("a@example.com") && !text.contains(DEFAULT_API_KEY));
}

#[tokio::test]
async fn people_are_found_by_filter_page_by_page() {
    let vendor = Vendor::start().await;
    for index in 0..5 {
        vendor.import(json!({"email": format!("p{index}@example.com"), "external_id": index.to_string()})).await;
    }
    let (_, one) = vendor.get("/api/profiles?filter=equals(email,%22P3%40example.com%22)").await;
    assert_eq!(one["data"].as_array().unwrap().len(), 1);
    let (_, first) =
        vendor.get("/api/profiles?filter=any(external_id,[%220%22,%221%22,%222%22,%22x%22])&page[size]=2").await;
    assert_eq!(first["data"].as_array().unwrap().len(), 2);
    let next = first["links"]["next"].as_str().unwrap().strip_prefix(&vendor.simulator.url()).unwrap().to_owned();
    let (_, second) = vendor.get(&next).await;
    assert_eq!(second["data"].as_array().unwrap().len(), 1);
    assert_eq!(second["links"]["next"], Value::Null);
    assert_eq!(vendor.get("/api/profiles?page[size]=101").await.0, 400);
    let (status, body) = vendor.get("/api/profiles?filter=equals(nose,%22x%22)").await;
    assert_eq!((status.as_u16(), &body["errors"][0]["source"]["parameter"]), (400, &json!("filter")));
}

#[tokio::test]
async fn one_bad_profile_refuses_a_whole_job() {
    let vendor = Vendor::start().await;
    let (status, body) = vendor.job(&[json!({"email": "good@example.com"}), json!({"email": "bad"})], &[]).await;
    assert_eq!(status, 400);
    assert_eq!(error_of(&body), ("invalid", "/data/attributes/profiles/data/1/attributes/email"));
    assert!(vendor.simulator.profiles().is_empty());
    assert_eq!(vendor.get("/api/profile-bulk-import-jobs").await.1["data"], json!([]));
}

#[tokio::test]
async fn a_job_takes_time_and_puts_everybody_on_its_lists() {
    let vendor = Vendor::with(Options {
        limits: false,
        lists: vec![("WINBCK".into(), "Winback".into())],
        job_duration: JobDuration { base: Duration::from_millis(300), per_profile: Duration::ZERO },
        ..Options::default()
    })
    .await;
    let (status, body) =
        vendor.job(&[json!({"email": "a@example.com"}), json!({"email": "b@example.com"})], &["WINBCK"]).await;
    assert_eq!((status.as_u16(), &body["data"]["attributes"]["status"]), (202, &json!("queued")));
    assert!(vendor.simulator.profiles().is_empty(), "nobody has changed before the job is complete");
    let attributes = vendor.completed(body["data"]["id"].as_str().unwrap()).await;
    assert_eq!((&attributes["completed_count"], &attributes["failed_count"]), (&json!(2), &json!(0)));
    assert_eq!(vendor.simulator.list("WINBCK").unwrap()["count"], 2);
    assert_eq!(vendor.simulator.profile("email", "a@example.com").unwrap()["lists"], json!(["WINBCK"]));
    assert_eq!(vendor.job(&[json!({"email": "a@example.com"})], &["NOLIST"]).await.0, 400);
}

#[tokio::test]
async fn a_jobs_failures_are_listed_with_what_was_sent() {
    let vendor = Vendor::with(Options {
        limits: false,
        job_duration: JobDuration { base: Duration::ZERO, per_profile: Duration::ZERO },
        ..Options::default()
    })
    .await;
    vendor.import(json!({"email": "a@example.com"})).await;
    vendor.import(json!({"external_id": "7"})).await;
    let error = PrescribedImportError { code: "invalid".into(), detail: "no".into() };
    vendor.simulator.prescribe(Prescription::new(Effect::ImportError(error)).naming("c@example.com")).unwrap();
    let profiles = [
        json!({"email": "a@example.com", "external_id": "7"}),
        json!({"email": "c@example.com"}),
        json!({"email": "d@example.com"}),
    ];
    let (_, body) = vendor.job(&profiles, &[]).await;
    let id = body["data"]["id"].as_str().unwrap();
    let attributes = vendor.completed(id).await;
    assert_eq!((&attributes["completed_count"], &attributes["failed_count"]), (&json!(1), &json!(2)));
    let (_, errors) = vendor.get(&format!("/api/profile-bulk-import-jobs/{id}/import-errors?page[size]=1")).await;
    assert_eq!(errors["data"][0]["attributes"]["code"], "duplicate_profile");
    assert_eq!(errors["data"][0]["attributes"]["original_payload"]["attributes"]["external_id"], "7");
    let next = errors["links"]["next"].as_str().unwrap().strip_prefix(&vendor.simulator.url()).unwrap().to_owned();
    let (_, errors) = vendor.get(&next).await;
    assert_eq!(errors["data"][0]["attributes"]["original_payload"]["attributes"]["email"], "c@example.com");
}

#[tokio::test]
async fn a_job_can_be_cancelled_by_prescription() {
    let vendor = Vendor::start().await;
    vendor.simulator.prescribe(Prescription::new(Effect::CancelJob)).unwrap();
    let (_, body) = vendor.job(&[json!({"email": "a@example.com"})], &[]).await;
    assert_eq!(vendor.completed(body["data"]["id"].as_str().unwrap()).await["status"], "cancelled");
    assert!(vendor.simulator.profiles().is_empty());
}

#[tokio::test]
async fn the_bulk_limits_are_kept() {
    let vendor = Vendor::start().await;
    let many: Vec<Value> = (0..10_001).map(|index| json!({"external_id": index.to_string()})).collect();
    assert_eq!(vendor.job(&many, &[]).await.0, 400);
    assert_eq!(vendor.job(&many[..10_000], &[]).await.0, 202);
    let heavy = json!({"email": "a@example.com", "properties": {"text": "x".repeat(100_000)}});
    let (status, body) = vendor.job(std::slice::from_ref(&heavy), &[]).await;
    assert_eq!((status.as_u16(), error_of(&body).1), (400, "/data/attributes/profiles/data/0"));
    assert_eq!(vendor.import(heavy).await.0, 413);
    let wide: Vec<Value> = (0..60)
        .map(|index| json!({"external_id": index.to_string(), "properties": {"text": "x".repeat(90_000)}}))
        .collect();
    assert_eq!(vendor.job(&wide, &[]).await.0, 413);
}

#[tokio::test]
async fn list_members_come_and_go() {
    let vendor =
        Vendor::with(Options { limits: false, lists: vec![("L1".into(), "One".into())], ..Options::default() }).await;
    let (_, body) = vendor.import(json!({"email": "a@example.com"})).await;
    let path = "/api/lists/L1/relationships/profiles";
    let one = json!({"data": [{"type": "profile", "id": body["data"]["id"]}]});
    assert_eq!(vendor.post(path, &one).await, (StatusCode::NO_CONTENT, Value::Null));
    assert_eq!(vendor.get("/api/lists/L1/profiles").await.1["data"][0]["attributes"]["email"], "a@example.com");
    assert_eq!(vendor.send(Method::DELETE, path, &one).await.status(), 204);
    assert_eq!(vendor.simulator.list("L1").unwrap()["count"], 0);
    let unknown = json!({"data": [{"type": "profile", "id": "01NOBODY"}]});
    assert_eq!(vendor.post(path, &unknown).await.0, 404);
    assert_eq!(vendor.post("/api/lists/NONE/relationships/profiles", &one).await.0, 404);
    let many: Vec<Value> = (0..1_001).map(|_| json!({"type": "profile", "id": body["data"]["id"]})).collect();
    assert_eq!(vendor.post(path, &json!({ "data": many })).await.0, 400);
}

#[tokio::test]
async fn an_event_counts_once_per_unique_id() {
    let vendor = Vendor::start().await;
    let event = |unique: Option<&str>, email: &str| {
        json!({"data": {"type": "event", "attributes": {
            "properties": {"OrderId": "1"}, "time": "2026-01-01T00:00:00+00:00", "unique_id": unique,
            "metric": {"data": {"type": "metric", "attributes": {"name": "Placed Order"}}},
            "profile": {"data": {"type": "profile", "attributes": {"email": email}}},
        }}})
    };
    for _ in 0..2 {
        assert_eq!(
            vendor.post("/api/events", &event(Some("1"), "a@example.com")).await,
            (StatusCode::ACCEPTED, Value::Null)
        );
    }
    vendor.post("/api/events", &event(Some("2"), "a@example.com")).await;
    for _ in 0..2 {
        vendor.post("/api/events", &event(None, "a@example.com")).await;
    }
    assert_eq!(vendor.simulator.events().len(), 3);
    assert_eq!(vendor.simulator.stats().events_repeated, 2);
    assert_eq!(vendor.simulator.profiles().len(), 1);
    assert_eq!(vendor.post("/api/events", &event(None, "nobody")).await.0, 400);
}

#[tokio::test]
async fn limits_are_enforced_with_the_recorded_answer() {
    let vendor = Vendor::with(Options {
        tiers: Tiers { m: Tier { burst: 1_000, steady: 2 }, ..Tiers::default() },
        ..Options::default()
    })
    .await;
    let path = "/api/profile-bulk-import-jobs";
    let mut statuses = Vec::new();
    // Two minutes' windows hold four requests at most, so the fifth is refused even where the clock turns in between.
    for _ in 0..5 {
        let response = vendor.request(Method::GET, path).send().await.unwrap();
        if response.status() == 429 {
            assert!(response.headers().get("ratelimit-limit").is_none());
            let after: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=60).contains(&after));
            assert_eq!(error_of(&read(response).await.1), ("throttled", "/data"));
            statuses.push(429);
        } else {
            assert_eq!(response.headers()["ratelimit-limit"], "2, 1000;w=1, 2;w=60");
            statuses.push(response.status().as_u16());
        }
    }
    assert!(statuses.contains(&429) && statuses[0] == 200, "{statuses:?}");
    assert!(vendor.simulator.stats().throttled > 0);
}

#[tokio::test]
async fn prescribed_answers_come_first_and_end() {
    let vendor = Vendor::start().await;
    let body = json!({"path": "/api/profile-import", "times": 2, "answer": {"status": 503, "headers": [["retry-after", "7"]], "body": {"errors": []}}});
    let url = format!("{}/_simulator/prescribe", vendor.simulator.url());
    assert_eq!(vendor.client.post(&url).json(&body).send().await.unwrap().status(), 201);
    for _ in 0..2 {
        let answer = vendor.send(Method::POST, "/api/profile-import", &single(json!({"email": "a@example.com"}))).await;
        assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "7"));
    }
    assert!(vendor.simulator.profiles().is_empty());
    assert_eq!(vendor.import(json!({"email": "a@example.com"})).await.0, 201);
    assert_eq!(vendor.simulator.stats().prescribed, 2);
    let two = json!({"delay_ms": 1, "answer": {"status": 503}});
    assert!(vendor.client.post(&url).json(&two).send().await.unwrap().status().is_client_error());
}

#[tokio::test]
async fn a_broken_connection_has_no_answer_and_the_effect_that_was_prescribed() {
    let vendor = Vendor::start().await;
    for (index, (when, people)) in
        [(Disconnect::BeforeReading, 0), (Disconnect::AfterReading, 0), (Disconnect::AfterProcessing, 1)]
            .into_iter()
            .enumerate()
    {
        vendor
            .simulator
            .prescribe(Prescription::new(Effect::Disconnect(when)).on("POST", "/api/profile-import"))
            .unwrap();
        let body = single(json!({"email": format!("p{index}@example.com")})).to_string();
        let result = vendor.request(Method::POST, "/api/profile-import").body(body).send().await;
        assert!(result.is_err(), "{when:?}");
        assert_eq!(vendor.simulator.profiles().len(), people, "{when:?}");
    }
    let statuses: Vec<u16> = vendor.simulator.requests().iter().map(|received| received.status).collect();
    assert_eq!(statuses, [0, 0, 0]);
    assert_eq!(vendor.import(json!({"email": "a@example.com"})).await.0, 201);
}

#[tokio::test]
async fn what_is_not_simulated_is_a_counted_404() {
    let vendor = Vendor::start().await;
    let (status, body) = vendor.post("/api/profile-subscription-bulk-create-jobs", &json!({})).await;
    assert_eq!((status.as_u16(), error_of(&body).0), (404, "not_found"));
    assert_eq!(vendor.send(Method::DELETE, "/api/profiles", &json!({})).await.status(), 405);
    assert_eq!(vendor.simulator.stats().unknown, 2);
}

#[tokio::test]
async fn the_control_plane_shows_what_arrived_and_resets() {
    let vendor =
        Vendor::with(Options { limits: false, lists: vec![("L1".into(), "One".into())], ..Options::default() }).await;
    vendor.import(json!({"email": "a@example.com"})).await;
    vendor.import(json!({"email": "bad"})).await;
    let (_, requests) = vendor.get("/_simulator/requests?status=400&path=/api/profile").await;
    assert_eq!(requests["requests"][0]["number"], 2);
    assert_eq!(requests["requests"][0]["body"]["data"]["attributes"]["email"], "bad");
    let (_, profiles) = vendor.get("/_simulator/profiles?limit=1").await;
    assert_eq!(profiles["profiles"][0]["attributes"]["email"], "a@example.com");
    assert_eq!(vendor.get("/_simulator/profile?email=a@example.com").await.0, 200);
    let (_, stats) = vendor.get("/_simulator/stats").await;
    assert_eq!(stats["by_endpoint"]["POST /api/profile-import"], json!({"201": 1, "400": 1}));
    let list = json!({"id": "L2", "name": "Two"});
    let url = vendor.simulator.url();
    assert_eq!(vendor.client.post(format!("{url}/_simulator/lists")).json(&list).send().await.unwrap().status(), 201);
    assert_eq!(vendor.get("/api/lists/L2").await.0, 200);
    vendor.client.post(format!("{url}/_simulator/reset")).send().await.unwrap();
    assert_eq!(vendor.get("/_simulator/profiles").await.1["profiles"], json!([]));
    assert_eq!(
        (vendor.get("/api/lists/L1").await.0.as_u16(), vendor.get("/api/lists/L2").await.0.as_u16()),
        (200, 404)
    );
    vendor.simulator.stop().await.unwrap();
}

#[tokio::test]
async fn a_browser_gets_the_page_and_a_program_the_numbers() {
    let vendor = Vendor::start().await;
    let ask = |accept: &'static str| {
        vendor.client.get(format!("{}/_simulator/", vendor.simulator.url())).header("accept", accept).send()
    };
    let page = ask("text/html,application/xhtml+xml").await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    assert!(page.text().await.unwrap().starts_with("<!doctype html>"));
    assert_eq!(read(ask("*/*").await.unwrap()).await.1["simulator"], "klaviyo");
    assert_eq!(vendor.get("/_simulator/objects").await.1, json!({"objects": []}));
}
