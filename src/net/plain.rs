//! A plain connection's stream: its task reads and writes it, and whoever has just made something little for it may send that
//! without waking the task: the one reply that a client waits for, the one message that another server does.

use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The stream, as its task has it.
#[derive(Debug)]
pub struct PlainStream {
    reading: OwnedReadHalf,
    writing: Arc<OwnedWriteHalf>,
}

/// Its writing side, as others have it. The socket stays open as long as somebody has it.
#[derive(Clone, Debug)]
pub struct PromptWriter(Socket);

#[derive(Clone, Debug)]
enum Socket {
    Tcp(Arc<OwnedWriteHalf>),
    #[cfg(test)]
    Simulated(Arc<SimulatedSocket>),
}

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
        PromptWriter(Socket::Tcp(self.writing.clone()))
    }

    /// The socket, for its options.
    pub fn socket(&self) -> &TcpStream {
        self.writing.as_ref().as_ref()
    }

    /// Writes what the socket takes, or has the task woken when it takes something.
    fn poll_try(
        &self,
        cx: &mut Context<'_>,
        attempt: impl Fn(&OwnedWriteHalf) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match attempt(&self.writing) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready!(self.socket().poll_write_ready(cx))?,
                written => return Poll::Ready(written),
            }
        }
    }
}

impl PromptWriter {
    /// Sends what the socket takes now; gives how many bytes that is. An error too is 0: the task finds it.
    pub fn try_send(&self, bytes: &[u8]) -> usize {
        match &self.0 {
            Socket::Tcp(writing) => writing.try_write(bytes).unwrap_or(0),
            #[cfg(test)]
            Socket::Simulated(socket) => socket.take_in(bytes),
        }
    }

    /// The same of several pieces.
    pub fn try_send_vectored(&self, slices: &[IoSlice<'_>]) -> usize {
        match &self.0 {
            Socket::Tcp(writing) => writing.try_write_vectored(slices).unwrap_or(0),
            #[cfg(test)]
            Socket::Simulated(socket) => slices.first().map_or(0, |slice| socket.take_in(slice)),
        }
    }

    /// Of a simulation.
    #[cfg(test)]
    pub(crate) fn simulated(socket: Arc<SimulatedSocket>) -> PromptWriter {
        PromptWriter(Socket::Simulated(socket))
    }
}

/// What a simulation has instead of a socket. One time in four it takes a part only, or nothing.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct SimulatedSocket(parking_lot::Mutex<(rand::rngs::StdRng, bytes::BytesMut)>);

#[cfg(test)]
impl SimulatedSocket {
    pub(crate) fn new(seed: u64) -> SimulatedSocket {
        let lots = rand::SeedableRng::seed_from_u64(seed);
        SimulatedSocket(parking_lot::Mutex::new((lots, bytes::BytesMut::new())))
    }

    /// The task writes, and waits until all is taken.
    pub(crate) fn take_all(&self, bytes: &[u8]) {
        self.0.lock().1.extend_from_slice(bytes);
    }

    fn take_in(&self, bytes: &[u8]) -> usize {
        interleave!();
        let (lots, taken) = &mut *self.0.lock();
        let is_full = rand::Rng::random_ratio(lots, 1, 4);
        let room = if is_full {
            rand::Rng::random_range(lots, 0..bytes.len())
        } else {
            bytes.len()
        };
        taken.extend_from_slice(&bytes[..room]);
        room
    }

    /// What has been sent since the last call.
    pub(crate) fn sent(&self) -> bytes::Bytes {
        self.0.lock().1.split().freeze()
    }
}

impl AsyncRead for PlainStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reading).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PlainStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_try(cx, |writing| writing.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(cx, |writing| writing.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(self.socket()).shutdown(Shutdown::Write))
    }
}
