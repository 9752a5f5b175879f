//! A vendor on this machine that answers by a script, well or badly, and keeps what it received.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

#[derive(Debug, Clone)]
pub struct Received {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub body: String,
}

#[derive(Debug, Clone)]
pub enum Reply {
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// The answer comes after this time.
    Late(Duration, Box<Reply>),
    /// The connection ends without an answer.
    Disconnect,
    /// The server stays silent and keeps the connection.
    Hang,
    /// It stops in the middle of the head and hangs up.
    HalfHead,
    /// It promises more than it sends, and hangs up.
    HalfBody,
    /// It ends its side without an answer, and keeps listening.
    HalfClosed,
    /// It sends a byte now and then, without end.
    Trickle,
    /// It sends as fast as it can, without end.
    Endless,
}

pub struct Server {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

type Script = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

// === impl Reply ===

impl Reply {
    pub fn json(status: u16, body: &Value) -> Self {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        Self::Answer { status, headers: Vec::new(), body }
    }

    pub fn text(status: u16, body: &str) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.as_bytes().to_vec() }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }
}

// === impl Server ===

impl Server {
    pub async fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let script: Script = Arc::new(script);
        let task = tokio::spawn({
            let received = Arc::clone(&received);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&received)));
                }
            }
        });
        Self { url, received, task }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Script, received: Arc<Mutex<Vec<Received>>>) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        received.lock().unwrap().push(request.clone());
        let mut reply = script(&request);
        while let Reply::Late(wait, then) = reply {
            tokio::time::sleep(wait).await;
            reply = *then;
        }
        if answer(&mut stream, reply).await.is_none() {
            return;
        }
    }
}

/// Answers a request; `None` when the connection has ended.
async fn answer(stream: &mut TcpStream, reply: Reply) -> Option<()> {
    const HEAD: &[u8] = b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\n";
    match reply {
        Reply::Answer { status, headers, body } => {
            let mut head = format!("HTTP/1.1 {status} X\r\n");
            if status >= 200 && status != 204 && status != 304 {
                head.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
            }
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            head.push_str("\r\n");
            stream.write_all(head.as_bytes()).await.ok()?;
            if status != 204 && status != 304 {
                stream.write_all(&body).await.ok()?;
            }
            return Some(());
        }
        Reply::Late(..) | Reply::Disconnect => {}
        Reply::Hang => tokio::time::sleep(Duration::from_secs(60)).await,
        Reply::HalfHead => stream.write_all(HEAD).await.ok()?,
        Reply::HalfBody => {
            stream.write_all(HEAD).await.ok()?;
            stream.write_all(b"content-length: 100\r\n\r\n{\"half\":").await.ok()?;
        }
        Reply::HalfClosed => {
            stream.shutdown().await.ok()?;
            let mut rest = [0; 1024];
            while stream.read(&mut rest).await.ok()? > 0 {}
        }
        Reply::Trickle | Reply::Endless => {
            stream.write_all(HEAD).await.ok()?;
            stream.write_all(b"content-length: 9000000000\r\n\r\n").await.ok()?;
            let slow = matches!(reply, Reply::Trickle);
            let chunk = vec![b' '; if slow { 1 } else { 65_536 }];
            loop {
                stream.write_all(&chunk).await.ok()?;
                if slow {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    None
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
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let length = lines
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.trim().parse().unwrap_or(0));
    while buffer.len() < head_end + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8_lossy(&buffer[head_end..head_end + length]).into_owned();
    buffer.drain(..head_end + length);
    let path = target.split('?').next().unwrap_or_default().to_owned();
    Some(Received { method, path, body })
}
