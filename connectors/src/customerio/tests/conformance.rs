//! Behavior that every destination owes the send stage, whatever the vendor.

use std::collections::HashSet;

use serde_json::json;
use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Outcome};

use super::spec::check_request;
use super::{customerio, deliver_all, event, join, owned, relate, upserts};
use crate::customerio::Api;
use crate::destination::{Context, Destination};
use crate::scripted::{Reply, Server};

/// `batch` holds deliveries that the vendor takes.
pub(super) async fn conforms(destination: &dyn Destination, batch: &[Delivery]) {
    let spec = destination.spec();
    assert!(batch.len() <= spec.limits.batch_deliveries_max);
    assert!(!spec.identifier_fields.is_empty() && spec.limits.calls_max > 0);
    assert!(destination.target().starts_with(spec.kind));
    assert!(deliver_all(destination, &[], &owned()).await.is_empty());
    for delivery in batch {
        spec.supported(delivery.operation.kind).unwrap();
    }
    let planned: HashSet<usize> = destination.plan(batch).into_iter().flat_map(|planned| planned.deliveries).collect();
    assert_eq!(planned, (0..batch.len()).collect(), "every delivery is in some request that is shown");
    for outcome in deliver_all(destination, batch, &Context { still_owned: &|| false }).await {
        assert!(matches!(&outcome, Outcome::Retry { reason, .. } if reason.code == code::NOT_OWNED), "{outcome:?}");
    }
    for round in ["first", "repeated"] {
        for outcome in deliver_all(destination, batch, &owned()).await {
            assert_eq!(outcome, Outcome::Delivered, "a {round} delivery");
        }
    }
}

#[tokio::test]
async fn customerio_conforms_with_both_apis() {
    let server = Server::start(check_request, |_, _| Reply::json(200, &json!({}))).await;
    for api in [Api::Track, Api::Pipelines] {
        let customerio = customerio(server.url(), api);
        let mut batch = upserts(&customerio, 3);
        batch.push(event(&customerio, 3));
        batch.push(relate(&customerio, 4, "acme"));
        if api == Api::Track {
            batch.push(join(&customerio, 5, 7));
        }
        conforms(&customerio, &batch).await;
    }
}
