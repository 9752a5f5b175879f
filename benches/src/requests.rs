//! A bare loop of requests: the bodies that the product sent, sent again by `reqwest` and nothing else.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tailwater_simulators::klaviyo::DEFAULT_API_KEY;

/// The pause between two questions about a job; as short as the product's shortest.
const JOB_PAUSE: Duration = Duration::from_millis(500);

/// What to send.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Requests {
    pub base: String,
    pub path: String,
    /// One body a line.
    pub bodies: PathBuf,
    pub at_once: usize,
    /// Whether an answer names a job that is asked for until it is complete.
    pub jobs: bool,
}

/// How long it took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Took {
    pub seconds: f64,
    pub processor_seconds: f64,
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    id: String,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Default, Deserialize)]
struct Attributes {
    #[serde(default)]
    status: String,
}

// === impl Requests ===

impl Requests {
    /// Sends everything and answers how long that took.
    pub fn run(self) -> Took {
        let text =
            std::fs::read_to_string(&self.bodies).unwrap_or_else(|error| panic!("{}: {error}", self.bodies.display()));
        let bodies: Arc<Vec<String>> = Arc::new(text.lines().map(str::to_owned).collect());
        drop(text);
        // As many threads as the product has for its calls.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap_or_else(|error| panic!("no runtime: {error}"));
        let (before, started) = (own_processor_seconds(), Instant::now());
        runtime.block_on(self.send(&bodies));
        Took { seconds: started.elapsed().as_secs_f64(), processor_seconds: own_processor_seconds() - before }
    }

    async fn send(self, bodies: &Arc<Vec<String>>) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap_or_else(|error| panic!("no client: {error}"));
        let next = Arc::new(AtomicUsize::new(0));
        let this = Arc::new(self);
        let workers: Vec<_> = (0..this.at_once)
            .map(|_| {
                let (this, client, bodies, next) =
                    (Arc::clone(&this), client.clone(), Arc::clone(bodies), Arc::clone(&next));
                tokio::spawn(async move {
                    while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                        this.one(&client, body.clone()).await;
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await.unwrap_or_else(|error| panic!("{error}"));
        }
    }

    async fn one(&self, client: &reqwest::Client, body: String) {
        let url = format!("{}{}", self.base, self.path);
        let answer = ask(client.post(&url).header("content-type", "application/vnd.api+json").body(body)).await;
        if !self.jobs {
            return;
        }
        let job: Answer = serde_json::from_slice(&answer).unwrap_or_else(|error| panic!("no job: {error}"));
        loop {
            tokio::time::sleep(JOB_PAUSE).await;
            let answer = ask(client.get(format!("{url}/{}", job.data.id))).await;
            let state: Answer = serde_json::from_slice(&answer).unwrap_or_else(|error| panic!("no job: {error}"));
            if state.data.attributes.status == "complete" {
                return;
            }
        }
    }
}

async fn ask(request: reqwest::RequestBuilder) -> Vec<u8> {
    let answer = request
        .header("authorization", format!("Klaviyo-API-Key {DEFAULT_API_KEY}"))
        .header("revision", "2026-07-15")
        .send()
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let status = answer.status();
    let body = answer.bytes().await.unwrap_or_else(|error| panic!("{error}"));
    assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    body.to_vec()
}

/// Processor seconds of this process, from the scheduler's own account of each thread.
fn own_processor_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds: u64 = tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    nanoseconds as f64 / 1e9
}
