use serde_json::{Value, json};

use super::shared;
use crate::connector::Shared;
use crate::customerio::{Account, Options};

fn problems(account: &Value) -> Vec<(String, String)> {
    let account: Account = serde_json::from_value(account.clone()).unwrap();
    account.check().iter().map(|problem| (problem.place(), problem.message.clone())).collect()
}

fn options(account: &Value, options: &Value, shared: &Shared) -> Vec<String> {
    let account: Account = serde_json::from_value(account.clone()).unwrap();
    let options: Options = serde_json::from_value(options.clone()).unwrap();
    options.check(&account, shared).iter().map(crate::Problem::place).collect()
}

#[test]
fn old_and_new_credentials_are_taken_each_with_the_api_that_they_are_for() {
    for good in [
        json!({"secret_key": "sk_0123456789"}),
        json!({"secret_key": "sk_0123456789", "api": "pipelines", "region": "eu"}),
        json!({"site_id": "site", "api_key": "0123456789"}),
        json!({"api_key": "0123456789", "api": "pipelines"}),
        json!({"secret_key": "sk_1", "rate": 1000}),
        json!({"secret_key": "sk_1", "rate": 50_000, "base_url": "http://127.0.0.1:8080"}),
    ] {
        assert!(problems(&good).is_empty(), "{good}: {:?}", problems(&good));
    }
    for (wrong, key, message) in [
        (json!({}), "secret_key", "no credentials"),
        (json!({"site_id": "site"}), "secret_key", "no credentials"),
        (json!({"api_key": "k"}), "site_id", "`site_id` and `api_key` together"),
        (json!({"site_id": "site", "api_key": "k", "api": "pipelines"}), "site_id", "no `site_id`"),
        (json!({"secret_key": "sk_1", "api_key": "k"}), "secret_key", "one kind of credentials"),
        (json!({"secret_key": "pk_1"}), "secret_key", "public key"),
        (json!({"site_id": "site", "api_key": "sk_1"}), "api_key", "new kind"),
        (json!({"site_id": "a:b", "api_key": "k"}), "site_id", "a colon"),
        (json!({"secret_key": "sk 1"}), "secret_key", "blank"),
        (json!({"secret_key": "sk_1", "rate": 0}), "rate", "between 1 and 1000"),
        (json!({"secret_key": "sk_1", "rate": 1001}), "rate", "between 1 and 1000"),
        (json!({"secret_key": "sk_1", "base_url": "http://track.customer.io"}), "base_url", "unencrypted"),
    ] {
        let found = problems(&wrong);
        assert!(found.iter().any(|(at, text)| at == key && text.contains(message)), "{wrong}: {found:?}");
        assert!(!format!("{found:?}").contains("sk 1"));
    }
}

#[test]
fn a_destination_fits_the_api_of_its_account() {
    let track = json!({"secret_key": "sk_1"});
    let pipelines = json!({"secret_key": "sk_1", "api": "pipelines"});
    let (creating, careful) = (json!({"create": true}), json!({"create": false}));
    assert!(options(&track, &careful, &shared()).is_empty());
    assert!(options(&pipelines, &creating, &shared()).is_empty());
    assert_eq!(options(&pipelines, &careful, &shared()), ["create"]);
    let by_email = Shared { identifier: "email".to_owned(), ..shared() };
    assert!(options(&track, &creating, &by_email).is_empty());
    assert_eq!(options(&pipelines, &creating, &by_email), ["identifier"]);
    let by_browser = Shared {
        identifier: "browser".to_owned(),
        identifiers: [("anonymous_id".to_owned(), "browser".to_owned())].into(),
        ..shared()
    };
    assert_eq!(options(&track, &creating, &by_browser), ["identifier"]);
    // It must be said whether people may be created.
    assert!(serde_json::from_value::<Options>(json!({})).is_err());
    assert!(serde_json::from_value::<Options>(json!({"create": true, "creat": true})).is_err());
}
