//! A plain connection's stream: its task reads and writes it, and whoever has just made the one reply that it waits for may
//! send that without waking the task.

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The stream, as its task has it.
pub struct PlainStream {
    reading: OwnedReadHalf,
    writing: Arc<OwnedWriteHalf>,
}

/// Its writing side, as others have it. The socket stays open as long as somebody has it.
#[derive(Clone, Debug)]
pub struct PromptWriter(Arc<OwnedWriteHalf>);

impl PlainStream {
    /// Of a connected socket.
    pub fn new(stream: TcpStream) -> PlainStream {
        let (reading, writing) = stream.into_split();
        PlainStream {
            reading,
            writing: Arc::new(writing),
        }
    }

    /// For others than the task. Who sends must know that nobody else does.
    pub fn writer(&self) -> PromptWriter {
        PromptWriter(self.writing.clone())
    }
}

impl PromptWriter {
    /// Sends what the socket takes now; gives how many bytes that is. An error too is 0: the task finds it.
    pub fn try_send(&self, bytes: &[u8]) -> usize {
        self.0.try_write(bytes).unwrap_or(0)
    }
}

impl AsyncRead for PlainStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reading).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PlainStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.writing.try_write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.writing.as_ref().as_ref().poll_write_ready(cx))?;
                }
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream: &TcpStream = self.writing.as_ref().as_ref();
        Poll::Ready(socket2::SockRef::from(stream).shutdown(Shutdown::Write))
    }
}
