//! Which values are secrets where the schema cannot tell: options that are passed through to librdkafka and object stores.

use tailwater_connectors::config::secret_inline;

use super::problem::{Path, Problem};

/// Parts of names that mark a secret: librdkafka's (`sasl.password`, `ssl.key.pem`, `sasl.oauthbearer.client.secret`,
/// `sasl.oauthbearer.assertion.private.key.passphrase`) and the object stores' (`aws_secret_access_key`, `aws_session_token`,
/// `azure_storage_account_key`, `azure_storage_sas_token`, `google_service_account_key`).
const MARKS: &[&str] = &[
    "password",
    "secret",
    "passphrase",
    "token",
    "keypem",
    "privatekey",
    "jaas",
    "accountkey",
    "accesskey",
    "masterkey",
    "sas",
    "credential",
];

/// Names that hold a mark and no secret.
const HARMLESS: &[&str] = &[
    "accesskeyid",
    "tokenendpointurl",
    "credentialspath",
    "passwordfile",
    "tokenfile",
    "tokenpath",
    "keylocation",
    "keyfile",
];

/// Whether an option of that name carries a secret. In doubt it does: a reference costs nothing.
pub fn is_secret_name(name: &str) -> bool {
    let plain: String = name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    // `sas` alone would mark every `sasl.*` option.
    let marked = MARKS
        .iter()
        .any(|mark| if *mark == "sas" { plain.replace("sasl", "").contains("sas") } else { plain.contains(mark) });
    marked && !HARMLESS.iter().any(|harmless| plain.ends_with(harmless))
}

pub(super) fn inline(path: &Path) -> Problem {
    Problem { path: path.to_string(), ..Problem::of_connector(&Path::default(), secret_inline("")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        for name in [
            "sasl.password",
            "ssl.key.password",
            "ssl.keystore.password",
            "ssl.key.pem",
            "sasl.oauthbearer.client.secret",
            "sasl.jaas.config",
            "aws_secret_access_key",
            "AWS_SESSION_TOKEN",
            "azure_storage_account_key",
            "azure_storage_sas_token",
            "google_service_account_key_secret",
            "sasl.oauthbearer.assertion.private.key.passphrase",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "sasl.mechanism",
            "sasl.username",
            "security.protocol",
            "linger.ms",
            "aws_region",
            "aws_access_key_id",
            "ssl.key.location",
            "ssl.ca.pem",
            "sasl.oauthbearer.token.endpoint.url",
            "message.max.bytes",
            "socket.keepalive.enable",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
