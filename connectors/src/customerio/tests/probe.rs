use serde_json::json;
use tailwater_core::code;

use super::spec::check_request;
use super::{account, customerio};
use crate::customerio::{Api, Customerio, Region};
use crate::destination::Destination;
use crate::scripted::{Reply, Server};

#[tokio::test]
async fn a_key_that_works_passes_without_changing_anything() {
    let server = Server::start(check_request, |received, _| match received.path.as_str() {
        "/api/v1/accounts/region" => {
            Reply::json(200, &json!({"url": "https://track.customer.io", "region": "us", "environment_id": 3}))
        }
        // Strict mode may refuse a batch without calls.
        _ => Reply::json(400, &json!({"meta": {"errors": ["batch is empty"]}})),
    })
    .await;
    customerio(server.url(), Api::Track).probe().await.unwrap();
    customerio(server.url(), Api::Pipelines).probe().await.unwrap();
    assert_eq!(server.received()[1].body, json!({"batch": []}));
}

#[tokio::test]
async fn a_refused_key_is_told_and_where_it_works_instead() {
    let server = Server::start(check_request, |received, _| match received.path.as_str() {
        "/v1/batch" => Reply::json(200, &json!({})),
        _ => Reply::json(401, &json!({"meta": {"error": "unauthorized"}})),
    })
    .await;
    let error = customerio(server.url(), Api::Track).probe().await.unwrap_err();
    assert_eq!(error.code, code::UNAUTHORIZED);
    assert!(error.message.contains("the same key works with `api: pipelines`"), "{error}");
    assert!(!error.message.contains("0123456789"), "{error}");

    let server = Server::start(check_request, |_, _| Reply::json(401, &json!({}))).await;
    let error = customerio(server.url(), Api::Pipelines).probe().await.unwrap_err();
    assert!(!error.message.contains("works with"), "{error}");
}

#[test]
fn another_region_is_told() {
    let mut config = account("", Api::Track);
    config.base_url = None;
    let connection = crate::customerio::Connection::new(&config).unwrap();
    let options = crate::customerio::Options {
        create: true,
        implicit_create: false,
        nulls: crate::output::Nulls::Omit,
        non_finite: crate::output::NonFinite::Omit,
        milliseconds: crate::customerio::Milliseconds::Convert,
        state_timestamps: false,
    };
    let destination = Customerio::new(
        std::sync::Arc::new(connection),
        crate::customerio::Config::new(&options, &super::shared()).unwrap(),
    );
    assert_eq!(destination.target(), "customerio sk_…4f2a at track.customer.io, track API");
    assert!(destination.check_region("x", Some(Region::Us)).is_ok());
    let error = destination.check_region("x", Some(Region::Eu)).unwrap_err();
    assert!(error.message.contains("write `region: eu`"), "{error}");
}
