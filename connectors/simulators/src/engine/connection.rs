//! Connections that can be broken on purpose: the transport of a prescribed disconnect.
//!
//! An HTTP server cannot be told from within a handler to hang up without an answer; so each connection has a switch beneath HTTP, and
//! once it is thrown every read and write fails and the peer sees a reset.
//!
//! For the same reason it is seen here whether an answer has left: the server flushes the transport once it has written the last byte of one,
//! and writes nothing between.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::observe::Leaving;

/// Throws the switch of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Switch(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    thrown: AtomicBool,
    answering: Mutex<Option<Answering>>,
}

/// An answer on its way through the connection.
#[derive(Debug)]
struct Answering {
    leaving: Leaving,
    status: u16,
    /// Some of it was written.
    begun: bool,
}

pub(super) struct Breakable {
    stream: TcpStream,
    switch: Switch,
}

pub(super) struct BreakableListener(pub TcpListener);

impl Switch {
    /// The next thing that happens on the connection is its end.
    pub fn throw(&self) {
        self.0.thrown.store(true, Ordering::Release);
    }

    /// The next bytes that are written are this answer.
    pub fn answering(&self, leaving: Leaving, status: u16) {
        self.set(Some(Answering { leaving, status, begun: false }));
    }

    fn set(&self, answering: Option<Answering>) {
        let before = {
            let mut place = self.0.answering.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *place, answering)
        };
        // Outside of the lock, because it tells an observer.
        drop(before);
    }

    fn wrote(&self) {
        if let Some(answering) = &mut *self.0.answering.lock().unwrap_or_else(PoisonError::into_inner) {
            answering.begun = true;
        }
    }

    fn flushed(&self) {
        let left = {
            let mut place = self.0.answering.lock().unwrap_or_else(PoisonError::into_inner);
            place.take_if(|answering| answering.begun)
        };
        if let Some(Answering { leaving, status, .. }) = left {
            leaving.written(status);
        }
    }
}

impl Connected<IncomingStream<'_, BreakableListener>> for Switch {
    fn connect_info(stream: IncomingStream<'_, BreakableListener>) -> Self {
        stream.io().switch.clone()
    }
}

impl Listener for BreakableListener {
    type Io = Breakable;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, peer) = Listener::accept(&mut self.0).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        (Breakable { stream, switch: Switch::default() }, peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl Breakable {
    fn check(&self) -> io::Result<()> {
        if self.switch.0.thrown.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was broken on purpose"));
        }
        Ok(())
    }
}

impl Drop for Breakable {
    fn drop(&mut self) {
        self.switch.set(None);
    }
}

impl AsyncRead for Breakable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Breakable {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.switch.wrote();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.switch.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        self.switch.wrote();
        Poll::Ready(Ok(written))
    }
}
