//! The admin server: probes for the orchestrator, metrics for Prometheus, the status for people.
//!
//! ```text
//! GET /livez    200 while every registered loop turns, else 503 with the loops that stand still
//! GET /readyz   200 when every registered part is ready, else 503 with what is missing
//! GET /metrics  Prometheus' text format
//! GET /status   JSON: what runs, what is paused and why, who owns what
//! ```
//!
//! It answers from memory, never waits for anybody, and must stay up while the process drains: otherwise nobody could see why it
//! takes so long. It has no authentication and shows no data of events; it listens on localhost unless the operator says otherwise.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use super::{Error, Telemetry};

/// Connections at the same time: an orchestrator, a Prometheus pair and a few people need a handful. Beyond it, new ones wait.
pub const CONNECTIONS_MAX: usize = 64;

/// The life of a connection, so that idle ones cannot keep a probe waiting for longer. Scrapers open a new one by themselves.
pub const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);

/// A server that listens but does not answer yet. Listening is apart from serving so that a port in use is an error at the start.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    connection_time_max: Duration,
}

impl Server {
    /// # Errors
    /// The address is in use or not ours.
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let listen = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(Self { listener, address, connection_time_max: CONNECTION_TIME_MAX })
    }

    /// The address it listens on; with port 0, the one that was given to it.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is done.
    ///
    /// # Errors
    /// The listener broke.
    pub async fn serve(
        self,
        telemetry: Telemetry,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        let address = self.address;
        let listener = Limited {
            listener: self.listener,
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            time_max: self.connection_time_max,
        };
        axum::serve(listener, routes(telemetry))
            .with_graceful_shutdown(stop)
            .await
            .map_err(|source| Error::Serve { address, source })
    }
}

fn routes(telemetry: Telemetry) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(telemetry)
}

async fn livez(State(telemetry): State<Telemetry>) -> Response {
    let stuck = telemetry.health().stuck();
    let lines = stuck.iter().map(|(name, age)| format!("{name} has not turned for {} s", age.as_secs()));
    probe("live", lines.collect())
}

async fn readyz(State(telemetry): State<Telemetry>) -> Response {
    probe("ready", telemetry.health().missing())
}

fn probe(good: &str, problems: Vec<String>) -> Response {
    if problems.is_empty() {
        (StatusCode::OK, format!("{good}\n")).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not {good}\n{}\n", problems.join("\n"))).into_response()
    }
}

async fn metrics(State(telemetry): State<Telemetry>) -> Response {
    match telemetry.metrics().render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics could not be rendered: {error}\n")).into_response()
        }
    }
}

async fn status(State(telemetry): State<Telemetry>) -> Response {
    axum::Json(telemetry.status_page()).into_response()
}

// === the listener ===

/// Accepts a bounded number of connections of bounded life.
struct Limited {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    time_max: Duration,
}

struct Connection {
    stream: TcpStream,
    ends: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl axum::serve::Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed, so there always is a permit in the end.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        (Connection { stream, ends: Box::pin(tokio::time::sleep(self.time_max)), _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ends.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.ends.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn server(
        telemetry: &Telemetry,
    ) -> (SocketAddr, tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<Result<(), Error>>) {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let telemetry = telemetry.clone();
        let task = tokio::spawn(server.serve(telemetry, async move {
            // A sender that was dropped stops the server as well.
            let _stopped = stopped.await;
        }));
        (address, stop, task)
    }

    async fn fetch(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    #[tokio::test]
    async fn the_probes_say_what_is_missing() {
        let telemetry = Telemetry::new().unwrap();
        let (address, _stop, _task) = server(&telemetry).await;
        assert_eq!(fetch(address, "/readyz").await, (503, "not ready\nthe process is starting\n".into()));
        let route = telemetry.readiness("route.klaviyo");
        assert_eq!(fetch(address, "/readyz").await, (503, "not ready\nroute.klaviyo: is starting\n".into()));
        route.ready();
        assert_eq!(fetch(address, "/readyz").await, (200, "ready\n".into()));
        assert_eq!(fetch(address, "/livez").await, (200, "live\n".into()));
    }

    #[tokio::test]
    async fn metrics_and_status_are_served() {
        let telemetry = Telemetry::new().unwrap();
        telemetry.metrics().merged();
        telemetry.status("source.ltv", serde_json::json!({"version": 4}));
        let (address, _stop, _task) = server(&telemetry).await;
        let (status, text) = fetch(address, "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("tailwater_merges_total 1"));
        let (status, text) = fetch(address, "/status").await;
        assert_eq!(status, 200);
        let page: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(page["source"]["ltv"]["version"], 4);
        assert_eq!(fetch(address, "/nonsense").await.0, 404);
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error_that_names_it() {
        let first = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = Server::bind(first.address()).await.unwrap_err();
        assert_eq!(error.code(), tailwater_core::code::ADMIN_LISTEN_FAILED);
        assert!(error.to_string().contains(&first.address().to_string()));
    }

    #[tokio::test]
    async fn it_stops_when_told() {
        let telemetry = Telemetry::new().unwrap();
        let (address, stop, task) = server(&telemetry).await;
        assert_eq!(fetch(address, "/livez").await.0, 200);
        stop.send(()).unwrap();
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_idle_connection_ends() {
        let mut server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        server.connection_time_max = Duration::from_millis(20);
        let address = server.address();
        let _task = tokio::spawn(server.serve(Telemetry::new().unwrap(), std::future::pending()));
        let mut idle = TcpStream::connect(address).await.unwrap();
        let mut bytes = Vec::new();
        let read = idle.read_to_end(&mut bytes).await;
        assert!(read.is_err() || bytes.is_empty());
    }
}
