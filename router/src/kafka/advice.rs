//! What librdkafka's texts about a failed connection mean for a configuration.

/// What to check, if the text is one that a mistake in the configuration leads to.
pub fn of(reason: &str) -> Option<String> {
    let has = |part: &str| reason.contains(part);
    let closed = has("closed by peer") && has("SSL_HANDSHAKE");
    let advice = if has("connecting to a PLAINTEXT broker listener") || has("wrong version number") || closed {
        "TLS is configured, and the broker's port does not speak TLS: use the port of the broker's TLS listener in `kafka.brokers`, or set \
         `security.protocol` under `kafka.options` to `plaintext` (`sasl_plaintext` with a login)"
    } else if has("connecting to a SSL listener") || has("incorrect security.protocol") {
        "the broker's port ends the connection at once, as a TLS listener does to a client without TLS, and a port that is not Kafka's: set \
         `security.protocol` under `kafka.options` to `ssl` (`sasl_ssl` with a login), or check the port in `kafka.brokers`"
    } else if let Some(what) = foreign(reason) {
        return Some(format!(
            "something other than Kafka answers at this port ({what}): check the port in `kafka.brokers` (Kafka's own is usually 9092)"
        ));
    } else if has("certificate verify failed") || has("certificate could not be verified") {
        "the broker's certificate is signed by an authority that is not known here: set `ssl.ca.location` under `kafka.options` to the file \
         with the authority's certificate"
    } else if has("hostname mismatch") || has("Hostname mismatch") || has("IP address mismatch") {
        "the broker's certificate is for another name: use the name that is in it in `kafka.brokers` (and in the brokers' `advertised.listeners`)"
    } else if has("certificate required") || has("bad certificate") || has("handshake failure") {
        "the broker asks for a client certificate that it accepts: set `ssl.certificate.location` and `ssl.key.location` under `kafka.options`"
    } else if has("Unsupported SASL mechanism") || has("mechanism handshake failed") {
        "the broker does not offer this kind of login: set `sasl.mechanism` under `kafka.options` to one that it offers"
    } else if has("SASL authentication error") || has("Authentication failed") {
        "the broker refuses the login: check `sasl.username` and `sasl.password` under `kafka.options`"
    } else if has("ApiVersionRequest failed") || has("in state APIVERSION_QUERY") {
        "something takes the connection and does not answer as Kafka does: check the port in `kafka.brokers`, and `security.protocol` under \
         `kafka.options`"
    } else if has("Failed to resolve") {
        "the name is not known to this machine's DNS: check `kafka.brokers`, and the `advertised.listeners` of the brokers"
    } else if has("Connection refused") {
        "nothing listens at this port: check that the broker runs, and `kafka.brokers`"
    } else {
        return None;
    };
    Some(advice.to_owned())
}

/// Who answered instead of Kafka. The first four bytes of an answer are taken for its size, so that a text gives an absurd one.
fn foreign(reason: &str) -> Option<String> {
    let rest = reason.split_once("nvalid response size ")?.1;
    let digits: String = rest.chars().take_while(|char| char.is_ascii_digit() || *char == '-').collect();
    let size: i32 = digits.parse::<i64>().ok().and_then(|size| i32::try_from(size).ok())?;
    let bytes = size.to_be_bytes();
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let is_text = bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    Some(match text.as_str() {
        "HTTP" => "a web server".to_owned(),
        "SSH-" => "an SSH server".to_owned(),
        _ if is_text => format!("its answer begins with {text:?}"),
        _ => "its answer is not one of Kafka".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 10, D. The texts are those of librdkafka, seen at a plaintext broker, a TLS listener, a web server and a silent port.
    #[test]
    fn texts_of_the_client_lead_to_what_has_to_be_checked() {
        for (reason, expected) in [
            (
                "ssl://127.0.0.1:9092/bootstrap: SSL handshake failed: error:0A00010B:SSL routines::wrong version number: connecting to a PLAINTEXT broker listener? (after 1ms in state SSL_HANDSHAKE)",
                "does not speak TLS",
            ),
            (
                "ssl://127.0.0.1:9092/bootstrap: Disconnected: SSL connection closed by peer (after 2ms in state SSL_HANDSHAKE)",
                "does not speak TLS",
            ),
            (
                "127.0.0.1:9093/bootstrap: Disconnected while requesting ApiVersion: might be caused by incorrect security.protocol configuration (connecting to a SSL listener?) or broker version is < 0.10 (see api.version.request) (after 2ms in state APIVERSION_QUERY)",
                "as a TLS listener does",
            ),
            (
                "127.0.0.1:8080/bootstrap: Receive failed: Invalid response size 1213486160 (0..100000000): increase receive.message.max.bytes",
                "a web server",
            ),
            (
                "127.0.0.1:22/bootstrap: Receive failed: Invalid response size 1397966893 (0..100000000): increase receive.message.max.bytes",
                "an SSH server",
            ),
            (
                "ssl://b:9093/1: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified",
                "ssl.ca.location",
            ),
            ("sasl_ssl://b:9093/1: SASL authentication error: Authentication failed", "sasl.password"),
            ("b:9092/bootstrap: Failed to resolve 'b:9092': Name or service not known", "DNS"),
            ("127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused", "nothing listens"),
        ] {
            let advice = of(reason).unwrap_or_default();
            assert!(advice.contains(expected), "{reason}: {advice}");
        }
        assert_eq!(of("Broker transport failure"), None);
    }
}
