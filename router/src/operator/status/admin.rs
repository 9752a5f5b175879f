//! Asks the admin endpoint of a process. One request, one answer, a short wait: no more of HTTP is needed here.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long a process may take to answer; it answers from memory.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The status page of the process at this address; `None` if nobody answers, or somebody else.
pub fn page(address: SocketAddr) -> Option<Value> {
    let mut stream = TcpStream::connect_timeout(&reachable(address), WAIT_MAX).ok()?;
    stream.set_read_timeout(Some(WAIT_MAX)).ok()?;
    stream.set_write_timeout(Some(WAIT_MAX)).ok()?;
    // HTTP 1.0: no chunks, and the end of the answer is the end of the connection.
    stream.write_all(format!("GET /status HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).ok()?;
    let text = String::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    if !head.lines().next()?.contains(" 200 ") {
        return None;
    }
    serde_json::from_str(body).ok()
}

/// A process that listens everywhere is asked on this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Telemetry, admin};

    #[tokio::test]
    async fn a_process_that_runs_tells_its_status() {
        let telemetry = Telemetry::new().unwrap();
        telemetry.status("source.ltv", serde_json::json!({"state": "failing"}));
        let server = admin::Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address();
        let task = tokio::spawn(server.serve(telemetry, std::future::pending()));
        let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        let page = tokio::task::spawn_blocking(move || page(everywhere)).await.unwrap().unwrap();
        assert_eq!(page["source"]["ltv"]["state"], "failing");
        task.abort();
    }

    #[test]
    fn nobody_there_is_no_error() {
        assert_eq!(page("127.0.0.1:1".parse().unwrap()), None);
    }
}
