//! One connection through the proxy, from its acceptance to its end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Instant;

use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::pipe::Pipe;
use super::{Fault, Party};

/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing was cut off.
    Done,
    /// `since` is when the exchange began that was cut off, if there was one.
    Broken { by: Party, since: Option<Instant> },
}

/// What happened on a connection; the party whose socket failed comes with its error.
type Step = Result<Option<Ending>, (Party, io::Error)>;

struct Connection {
    client: TcpStream,
    server: TcpStream,
    upstream: Pipe,
    downstream: Pipe,
    exchange: Exchange,
    /// The server has closed; the client is told when it has everything.
    server_done: bool,
    buffer: Vec<u8>,
}

/// Where the latest request and its answer are. A client sends its next request only after the answer to the one before, so bytes of the
/// client behind bytes of the server begin another exchange.
#[derive(Debug, Default, Clone, Copy)]
struct Exchange {
    began: Option<Instant>,
    answered: bool,
}

/// Runs a connection to its end.
pub(super) async fn run(client: TcpStream, target: SocketAddr, mut faults: watch::Receiver<Fault>) -> Ending {
    if matches!(*faults.borrow_and_update(), Fault::Reset | Fault::Refuse) {
        reset(&client);
        return Ending::Broken { by: Party::Proxy, since: None };
    }
    let Ok(server) = TcpStream::connect(target).await else {
        reset(&client);
        return Ending::Broken { by: Party::Proxy, since: None };
    };
    for stream in [&client, &server] {
        if let Err(error) = stream.set_nodelay(true) {
            eprintln!("proxy: TCP_NODELAY could not be set: {error}");
        }
    }
    let connection = Connection {
        client,
        server,
        upstream: Pipe::default(),
        downstream: Pipe::default(),
        exchange: Exchange::default(),
        server_done: false,
        buffer: vec![0; READ_BYTES],
    };
    connection.run(faults).await
}

// === impl Connection ===

impl Connection {
    async fn run(mut self, mut faults: watch::Receiver<Fault>) -> Ending {
        loop {
            let fault = *faults.borrow_and_update();
            if matches!(fault, Fault::Reset | Fault::Refuse) {
                return self.cut();
            }
            if fault == Fault::HalfClose && self.open_since().is_some() {
                return self.half_close(faults).await;
            }
            let now = Instant::now();
            let (up, down) = (self.upstream.due(fault), self.downstream.due(fault));
            let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
            let wake = up.into_iter().chain(down).filter(|due| *due > now).min();
            let (client, vendor) = (|error| (Party::Client, error), |error| (Party::Vendor, error));
            let step: Step = tokio::select! {
                changed = faults.changed() => {
                    if changed.is_err() {
                        return Ending::Done;
                    }
                    let (fault, now) = (*faults.borrow(), Instant::now());
                    self.upstream.change(fault, now);
                    self.downstream.change(fault, now);
                    Ok(None)
                }
                ready = self.client.readable(), if self.upstream.has_room() => {
                    ready.and_then(|()| self.read_client(fault)).map_err(client)
                }
                ready = self.server.readable(), if !self.server_done && self.downstream.has_room() => {
                    ready.and_then(|()| self.read_server(fault)).map_err(vendor)
                }
                ready = self.server.writable(), if is_due(up) && !self.server_done => {
                    ready.and_then(|()| self.write_server(fault)).map_err(vendor)
                }
                ready = self.client.writable(), if is_due(down) => {
                    ready.and_then(|()| self.write_client(fault)).map_err(client)
                }
                () = sleep_until(wake.unwrap_or(now).into()), if wake.is_some() => Ok(None),
            };
            match step {
                Ok(Some(ending)) => return ending,
                Ok(None) if self.server_done && self.downstream.is_empty() => return self.closed_by_vendor(),
                Ok(None) => {}
                Err((_, error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                // One side has reset the connection; so the other one learns it in the same way.
                Err((by, _)) => {
                    reset(&self.client);
                    reset(&self.server);
                    return if by == Party::Client { self.closed_by_client() } else { self.closed_by_vendor() };
                }
            }
        }
    }

    fn read_client(&mut self, fault: Fault) -> io::Result<Option<Ending>> {
        let bytes = self.client.try_read(&mut self.buffer)?;
        if bytes == 0 {
            return Ok(Some(self.closed_by_client()));
        }
        let now = Instant::now();
        if self.exchange.began.is_none() || self.exchange.answered {
            self.exchange = Exchange { began: Some(now), answered: false };
        }
        self.upstream.push(self.buffer.get(..bytes).unwrap_or_default(), fault, now);
        Ok(None)
    }

    fn read_server(&mut self, fault: Fault) -> io::Result<Option<Ending>> {
        let bytes = self.server.try_read(&mut self.buffer)?;
        if bytes == 0 {
            self.server_done = true;
            return Ok(None);
        }
        self.downstream.push(self.buffer.get(..bytes).unwrap_or_default(), fault, Instant::now());
        Ok(None)
    }

    fn write_server(&mut self, fault: Fault) -> io::Result<Option<Ending>> {
        let bytes = self.server.try_write(self.upstream.portion(fault))?;
        self.upstream.wrote(bytes, fault, Instant::now());
        Ok(None)
    }

    fn write_client(&mut self, fault: Fault) -> io::Result<Option<Ending>> {
        let bytes = self.client.try_write(self.downstream.portion(fault))?;
        self.downstream.wrote(bytes, fault, Instant::now());
        self.exchange.answered = true;
        Ok(None)
    }

    /// When the exchange began that is not over.
    fn open_since(&self) -> Option<Instant> {
        let over = self.exchange.answered && self.downstream.is_empty();
        self.exchange.began.filter(|_| !over)
    }

    /// What is held of the client is dropped with it. If nothing is, the proxy has no part in this: a client that waits for an answer
    /// waits for the vendor's.
    fn closed_by_client(&self) -> Ending {
        if self.upstream.is_empty() && self.downstream.is_empty() {
            return Ending::Done;
        }
        Ending::Broken { by: Party::Client, since: self.open_since() }
    }

    fn closed_by_vendor(&self) -> Ending {
        match self.open_since() {
            Some(since) => Ending::Broken { by: Party::Vendor, since: Some(since) },
            None => Ending::Done,
        }
    }

    /// Both sides get a reset.
    fn cut(&self) -> Ending {
        reset(&self.client);
        reset(&self.server);
        Ending::Broken { by: Party::Proxy, since: self.open_since() }
    }

    /// Reads what the client sends and answers nothing, until the client closes or the fault is over.
    async fn half_close(self, mut faults: watch::Receiver<Fault>) -> Ending {
        let ending = Ending::Broken { by: Party::Proxy, since: self.open_since() };
        let Self { mut client, server, mut buffer, .. } = self;
        // Whatever of the request has not reached the vendor never does.
        reset(&server);
        drop(server);
        if std::future::poll_fn(|context| Pin::new(&mut client).poll_shutdown(context)).await.is_err() {
            return ending;
        }
        loop {
            tokio::select! {
                changed = faults.changed() => if changed.is_err() || *faults.borrow() != Fault::HalfClose { return ending },
                ready = client.readable() => match ready.and_then(|()| client.try_read(&mut buffer)) {
                    Ok(0) => return ending,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return ending,
                },
            }
        }
    }
}

/// Closing the stream sends a reset from now on, and what is still to be sent is thrown away.
fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        eprintln!("proxy: a connection could not be reset: {error}");
    }
}
