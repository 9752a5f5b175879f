//! A vendor on localhost that answers by a script and keeps what it received: for the tests of connectors. Every request is checked when
//! it arrives, against the vendor's specification where there is one; the test fails at its end if one did not fit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

#[derive(Debug, Clone)]
pub struct Received {
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
    pub body_bytes: usize,
}

pub enum Reply {
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// The connection ends without an answer.
    Disconnect,
}

/// Whether a request fits.
pub type Check = fn(&Received) -> Result<(), String>;

pub struct Server {
    address: String,
    received: Arc<Mutex<Vec<Received>>>,
    misfits: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

type Script = Arc<dyn Fn(&Received, usize) -> Reply + Send + Sync>;

#[derive(Clone)]
struct Connection {
    script: Script,
    check: Check,
    content_type: &'static str,
    received: Arc<Mutex<Vec<Received>>>,
    misfits: Arc<Mutex<Vec<String>>>,
}

// === impl Reply ===

impl Reply {
    pub fn json(status: u16, body: &Value) -> Self {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        Self::Answer { status, headers: Vec::new(), body }
    }

    pub fn header(self, name: &'static str, value: &str) -> Self {
        match self {
            Self::Answer { status, mut headers, body } => {
                headers.push((name, value.to_owned()));
                Self::Answer { status, headers, body }
            }
            Self::Disconnect => Self::Disconnect,
        }
    }
}

// === impl Server ===

impl Server {
    /// Starts a vendor; the script is given each request and how many came before it.
    pub async fn start(check: Check, script: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_as("application/json", check, script).await
    }

    /// As [`Self::start`], for a vendor whose answers have another media type.
    pub async fn start_as(
        content_type: &'static str,
        check: Check,
        script: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (received, misfits) = (Arc::default(), Arc::default());
        let connection = Connection {
            script: Arc::new(script),
            check,
            content_type,
            received: Arc::clone(&received),
            misfits: Arc::clone(&misfits),
        };
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection.clone().serve(stream));
            }
        });
        Self { address, received, misfits, task }
    }

    pub fn url(&self) -> &str {
        &self.address
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The requests to paths that begin like this.
    pub fn received_at(&self, path: &str) -> Vec<Received> {
        self.received().into_iter().filter(|received| received.path.starts_with(path)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        let misfits = self.misfits.lock().unwrap();
        if !std::thread::panicking() {
            assert!(misfits.is_empty(), "requests that the vendor's specification does not have: {misfits:#?}");
        }
    }
}

// === impl Connection ===

impl Connection {
    async fn serve(self, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        while let Some(request) = read_request(&mut stream, &mut buffer).await {
            if let Err(misfit) = (self.check)(&request) {
                self.misfits.lock().unwrap().push(misfit);
            }
            let before = {
                let mut received = self.received.lock().unwrap();
                received.push(request.clone());
                received.len() - 1
            };
            let Reply::Answer { status, headers, body } = (self.script)(&request, before) else { return };
            let mut head = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: {}\r\ncontent-length: {}\r\n",
                self.content_type,
                body.len()
            );
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            head.push_str("\r\n");
            if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..head_end].to_vec()).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let body_bytes = headers.get("content-length").map_or(0, |value| value.parse().unwrap());
    while buffer.len() < head_end + body_bytes {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = &buffer[head_end..head_end + body_bytes];
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap() };
    buffer.drain(..head_end + body_bytes);
    let url = url::Url::parse(&format!("http://vendor{target}")).unwrap();
    let query = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    Some(Received { method, path: url.path().to_owned(), query, headers, body, body_bytes })
}
