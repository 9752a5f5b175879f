//! What every destination owes the send stage, with what only Klaviyo has: list sets and jobs, held against its specification. The suite
//! that runs over all kinds is `connectors/tests/conformance`.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_core::delivery::{Delivery, Outcome};

use super::server::{Reply, Server};
use super::{config, confirm_all, deliver_all, klaviyo, upserts};
use crate::destination::{Context, Destination};

/// Polls that a job may take before the suite gives up, and the time between two of them.
const POLLS_MAX: usize = 500;
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Delivers a batch to its end: jobs are asked for until they have one.
pub(super) async fn settle(destination: &dyn Destination, batch: &[Delivery], context: &Context<'_>) -> Vec<Outcome> {
    let mut outcomes = deliver_all(destination, batch, context).await;
    assert_eq!(outcomes.len(), batch.len(), "one outcome per delivery");
    for _ in 0..POLLS_MAX {
        let Some(ticket) = outcomes
            .iter()
            .find_map(|outcome| if let Outcome::Accepted(ticket) = outcome { Some(ticket.clone()) } else { None })
        else {
            return outcomes;
        };
        let running: Vec<usize> = (0..batch.len())
            .filter(|&index| matches!(&outcomes[index], Outcome::Accepted(own) if *own == ticket))
            .collect();
        let members: Vec<_> = running.iter().map(|&index| batch[index].clone()).collect();
        let confirmed = confirm_all(destination, &ticket, &members, context).await;
        assert_eq!(confirmed.len(), members.len(), "one outcome per member");
        for (index, outcome) in running.into_iter().zip(confirmed) {
            outcomes[index] = outcome;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    panic!("a job has no end: {outcomes:?}");
}

/// The suite. `batch` holds deliveries that the vendor takes.
pub(super) async fn conforms(destination: &dyn Destination, batch: &[Delivery]) {
    let owned = Context { still_owned: &|| true };
    let spec = destination.spec();
    assert!(batch.len() <= spec.limits.batch_deliveries_max);
    assert!(!spec.identifier_fields.is_empty() && spec.limits.calls_max > 0);
    assert!(destination.target().starts_with(spec.kind));
    assert!(deliver_all(destination, &[], &owned).await.is_empty());

    let planned: HashSet<usize> = destination.plan(batch).into_iter().flat_map(|planned| planned.deliveries).collect();
    assert_eq!(planned, (0..batch.len()).collect(), "every delivery is in some request that is shown");

    let lost = deliver_all(destination, batch, &Context { still_owned: &|| false }).await;
    assert_eq!(lost.len(), batch.len());
    for outcome in lost {
        assert!(
            matches!(&outcome, Outcome::Retry { reason, .. } if reason.code == tailwater_core::code::NOT_OWNED),
            "{outcome:?}"
        );
    }

    for round in ["first", "repeated"] {
        for outcome in settle(destination, batch, &owned).await {
            assert_eq!(outcome, Outcome::Delivered, "a {round} delivery");
        }
    }
}

#[tokio::test]
async fn klaviyo_conforms_one_by_one_and_in_bulk() {
    let polls = Mutex::new(0);
    let server = Server::start(move |received, _| match (received.method.as_str(), received.path.as_str()) {
        ("POST", "/api/profile-import") => {
            Reply::json(200, &json!({"data": {"type": "profile", "id": "01", "attributes": {}}}))
        }
        ("POST", "/api/profile-bulk-import-jobs") => {
            Reply::json(202, &json!({"data": {"type": "profile-bulk-import-job", "id": "JOB"}}))
        }
        ("GET", "/api/profile-bulk-import-jobs/JOB") => {
            let mut polls = polls.lock().unwrap();
            *polls += 1;
            let status = if *polls % 3 == 0 { "complete" } else { "processing" };
            Reply::json(200, &json!({"data": {"attributes": {"status": status}}}))
        }
        _ => Reply::json(204, &Value::Null),
    })
    .await;
    let klaviyo = klaviyo(server.url(), config());
    conforms(&klaviyo, &upserts(&klaviyo, 2, &["AAAAAA"])).await;
    conforms(&klaviyo, &upserts(&klaviyo, 40, &["AAAAAA"])).await;
}
