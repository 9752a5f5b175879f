//! Each fault as a real HTTP client meets it. Behind the proxy stands a server that answers at once, or when it is told to.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::{get, post};
use reqwest::{Client, Error};
use tokio::sync::Semaphore;

use super::*;
use crate::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy before a server, and a client that keeps its connections.
struct Scene {
    proxy: Proxy,
    client: Client,
    /// Requests that the server has read whole.
    read: Arc<AtomicUsize>,
    /// Lets the server answer `/wait`.
    go: Arc<Semaphore>,
}

impl Scene {
    fn new() -> Self {
        Self::with_timeout(Duration::from_millis(400))
    }

    fn with_timeout(timeout: Duration) -> Self {
        let read = Arc::new(AtomicUsize::new(0));
        let go = Arc::new(Semaphore::new(0));
        let (count, gate) = (Arc::clone(&read), Arc::clone(&go));
        let counted = Arc::clone(&read);
        let app = Router::new()
            .route(
                "/",
                post(move |_body: String| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    async { "done" }
                }),
            )
            .route(
                "/wait",
                get(move || {
                    count.fetch_add(1, Ordering::SeqCst);
                    async move {
                        if let Ok(permit) = gate.acquire().await {
                            permit.forget();
                        }
                        "done"
                    }
                }),
            );
        let listener = runtime().block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let target = listener.local_addr().unwrap();
        runtime().spawn(async move { axum::serve(listener, app).await });
        let client = Client::builder().timeout(timeout).build().unwrap();
        Self { proxy: Proxy::start(target), client, read, go }
    }

    fn post(&self) -> Result<String, Error> {
        self.post_bytes(1)
    }

    fn post_bytes(&self, bytes: usize) -> Result<String, Error> {
        let request = self.client.post(self.proxy.url()).body("x".repeat(bytes));
        runtime().block_on(async { request.send().await?.text().await })
    }

    /// A request that the server has read and not answered.
    fn waiting(&self) -> JoinHandle<Result<String, Error>> {
        let before = self.read();
        let request = self.client.get(format!("{}/wait", self.proxy.url()));
        let task = runtime().spawn(async { request.send().await?.text().await });
        eventually("the request is read", PATIENCE, || if self.read() > before { Ok(()) } else { Err(String::new()) });
        task
    }

    fn read(&self) -> usize {
        self.read.load(Ordering::SeqCst)
    }

    fn broken(&self, count: usize) -> Vec<Broken> {
        eventually("connections broke", PATIENCE, || {
            let broken = self.proxy.broken();
            if broken.len() >= count { Ok(broken) } else { Err(format!("{broken:?}")) }
        })
    }
}

fn outcome(task: JoinHandle<Result<String, Error>>) -> Result<String, Error> {
    runtime().block_on(task).unwrap()
}

#[test]
fn without_a_fault_requests_of_any_size_pass_and_nothing_breaks() {
    let scene = Scene::with_timeout(PATIENCE);
    assert_eq!(scene.post().unwrap(), "done");
    assert_eq!(scene.post_bytes(1_500_000).unwrap(), "done");
    assert_eq!(scene.proxy.accepted(), 1, "the connection is kept");
    assert!(scene.proxy.broken().is_empty());
    assert!(scene.proxy.spells().is_empty());
}

#[test]
fn latency_delays_both_directions() {
    let scene = Scene::with_timeout(PATIENCE);
    scene.proxy.set(Fault::Latency(Duration::from_millis(150)));
    let before = Instant::now();
    assert_eq!(scene.post().unwrap(), "done");
    assert!(before.elapsed() >= Duration::from_millis(300), "{:?}", before.elapsed());
}

#[test]
fn a_request_that_was_given_up_while_it_was_delayed_never_arrives() {
    let scene = Scene::new();
    scene.proxy.set(Fault::Latency(Duration::from_secs(3600)));
    assert!(scene.post().unwrap_err().is_timeout());
    let broken = scene.broken(1);
    assert_eq!(broken[0].by, Party::Client);
    assert!(broken[0].at - broken[0].since >= Duration::from_millis(300));
    scene.proxy.heal();
    assert_eq!(scene.post().unwrap(), "done");
    assert_eq!(scene.read(), 1, "only the second one");
}

#[test]
fn a_trickle_is_slow() {
    let scene = Scene::new();
    scene.proxy.set(Fault::Trickle { bytes_per_second: 50 });
    assert!(scene.post().unwrap_err().is_timeout());
    assert_eq!(scene.read(), 0);
    scene.proxy.set(Fault::Trickle { bytes_per_second: 1_000_000 });
    assert_eq!(scene.post().unwrap(), "done");
}

#[test]
fn a_reset_breaks_running_connections_and_new_ones() {
    let scene = Scene::new();
    let waiting = scene.waiting();
    scene.proxy.set(Fault::Reset);
    assert!(!outcome(waiting).unwrap_err().is_timeout());
    let error = scene.post().unwrap_err();
    assert!(!error.is_timeout(), "{error:?}");
    let broken = scene.broken(2);
    assert!(broken.iter().all(|broken| broken.by == Party::Proxy && broken.fault == Fault::Reset));
    assert!(broken.iter().any(|broken| broken.since < broken.at), "one of them cut an exchange off");
    assert_eq!(scene.proxy.disturbances().len(), broken.len());
    scene.proxy.heal();
    assert_eq!(scene.post().unwrap(), "done");
    let spells = scene.proxy.spells();
    assert!(spells.len() == 1 && spells[0].fault == Fault::Reset && spells[0].until.is_some());
}

#[test]
fn a_half_closed_connection_has_no_answer_for_what_was_read() {
    let scene = Scene::new();
    let waiting = scene.waiting();
    scene.proxy.set(Fault::HalfClose);
    assert!(!outcome(waiting).unwrap_err().is_timeout(), "the end of the answer is seen at once");
    assert!(!scene.post().unwrap_err().is_timeout());
    assert_eq!(scene.read(), 1, "the second one was read by the proxy alone");
    assert!(scene.broken(2).iter().all(|broken| broken.by == Party::Proxy));
    scene.proxy.heal();
    assert_eq!(scene.post().unwrap(), "done");
}

#[test]
fn an_idle_connection_is_half_closed_with_its_next_request() {
    let scene = Scene::new();
    assert_eq!(scene.post().unwrap(), "done");
    scene.proxy.set(Fault::HalfClose);
    assert!(!scene.post().unwrap_err().is_timeout());
    assert_eq!(scene.read(), 1);
}

#[test]
fn a_stall_passes_nothing_and_what_is_not_given_up_goes_on_afterwards() {
    let scene = Scene::with_timeout(PATIENCE);
    let waiting = scene.waiting();
    scene.proxy.set(Fault::Stall);
    scene.go.add_permits(1);
    let request = scene.client.post(scene.proxy.url()).body("x");
    let posted = runtime().spawn(async { request.send().await?.text().await });
    // A connection of its own, because the first one waits for its answer.
    eventually("the connection is accepted", PATIENCE, || match scene.proxy.accepted() {
        2 => Ok(()),
        accepted => Err(format!("{accepted} connections")),
    });
    assert!(!waiting.is_finished() && !posted.is_finished());
    assert_eq!(scene.read(), 1);
    scene.proxy.heal();
    assert_eq!(outcome(waiting).unwrap(), "done");
    assert_eq!(outcome(posted).unwrap(), "done");
    assert!(scene.proxy.broken().is_empty());
}

#[test]
fn what_was_given_up_in_a_stall_never_arrives() {
    let scene = Scene::new();
    scene.proxy.set(Fault::Stall);
    assert!(scene.post().unwrap_err().is_timeout());
    assert_eq!(scene.broken(1)[0].by, Party::Client);
    scene.proxy.heal();
    assert_eq!(scene.post().unwrap(), "done");
    assert_eq!(scene.read(), 1);
}

#[test]
fn nobody_listens_until_it_is_over() {
    let scene = Scene::new();
    assert_eq!(scene.post().unwrap(), "done");
    scene.proxy.set(Fault::Refuse);
    eventually("connections are refused", PATIENCE, || match scene.post() {
        Err(error) if error.is_connect() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    scene.proxy.heal();
    eventually("connections are taken", PATIENCE, || scene.post().map_err(|error| format!("{error:?}")));
}

#[test]
fn a_vendor_that_breaks_off_is_told_apart() {
    let scene = Scene::new();
    let closing = runtime().block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let target = closing.local_addr().unwrap();
    runtime().spawn(async move {
        while let Ok((stream, _)) = closing.accept().await {
            let mut bytes = [0; 8];
            while stream.readable().await.is_ok() && stream.try_read(&mut bytes).is_err() {}
        }
    });
    let proxy = Proxy::start(target);
    let request = scene.client.post(proxy.url()).body("x");
    let error = runtime().block_on(async { request.send().await }).unwrap_err();
    assert!(!error.is_timeout(), "{error:?}");
    let broken = eventually("it broke", PATIENCE, || {
        proxy.broken().first().copied().ok_or_else(|| format!("{error:?} {}", proxy.accepted()))
    });
    assert_eq!(broken.by, Party::Vendor);
    assert!(proxy.disturbances().is_empty());
}
