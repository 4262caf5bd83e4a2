//! The byte stream between two servers.

use super::LinkOptions;
use super::hello::Purpose;
use crate::net::{PlainStream, PromptWriter};
use socket2::SockRef;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// A connection between two servers after its hellos.
#[derive(Debug)]
pub struct PeerStream(Inner);

#[derive(Debug)]
enum Inner {
    Plain(PlainStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl PeerStream {
    pub(super) fn plain(stream: TcpStream) -> PeerStream {
        PeerStream(Inner::Plain(PlainStream::new(stream)))
    }

    pub(super) fn encrypted(stream: impl Into<TlsStream<TcpStream>>) -> PeerStream {
        PeerStream(Inner::Encrypted(Box::new(stream.into())))
    }

    /// The certificate that the other side has shown.
    pub(super) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match &self.0 {
            Inner::Plain(_) => None,
            Inner::Encrypted(stream) => stream.get_ref().1.peer_certificates()?.first(),
        }
    }

    /// For others than the task that has the stream, which TLS does not allow. Who sends must know that nobody else does.
    pub(super) fn writer(&self) -> Option<PromptWriter> {
        match &self.0 {
            Inner::Plain(stream) => Some(stream.writer()),
            Inner::Encrypted(_) => None,
        }
    }

    /// Sets when a peer counts as dead, which depends on what the connection is for.
    pub(super) fn set_purpose(&self, purpose: Purpose, options: &LinkOptions) -> io::Result<()> {
        set_dead_after(
            self.socket(),
            match purpose {
                Purpose::Messages => options.dead_after,
                Purpose::Snapshot => options.snapshot_dead_after,
            },
        )
    }

    fn socket(&self) -> &TcpStream {
        match &self.0 {
            Inner::Plain(stream) => stream.socket(),
            Inner::Encrypted(stream) => stream.get_ref().0,
        }
    }
}

/// What every connection between servers gets, on both sides.
pub(super) fn prepare(stream: &TcpStream, options: &LinkOptions) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_keepalive(options.keep_alive)?;
    set_dead_after(stream, options.dead_after)
}

/// What was sent and is not acknowledged by then breaks the connection: without it, the kernel tries for a quarter of an
/// hour.
fn set_dead_after(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    SockRef::from(stream).set_tcp_user_timeout(Some(limit))?;
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, limit);
    Ok(())
}

impl AsyncRead for PeerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Inner::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Inner::Encrypted(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Inner::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Inner::Encrypted(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Inner::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Inner::Encrypted(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Inner::Plain(stream) => stream.is_write_vectored(),
            Inner::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Inner::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Encrypted(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Inner::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Encrypted(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
