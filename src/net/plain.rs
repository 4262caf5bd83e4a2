//! A plain connection's stream: its task reads and writes it, and whoever has just made something little for it may send that
//! without waking the task: the one reply that a client waits for, the one message that another server does.

use super::conversation::Stream;
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

impl Stream for PlainStream {
    fn hold_for_shutdown(&self) {
        cork(self.socket());
    }
}

/// What is written from here on goes together with the shutdown: one segment for the client to receive, and to be woken by,
/// instead of two. Where that cannot be had, it is two.
pub(super) fn cork(socket: &TcpStream) {
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(socket).set_tcp_cork(true);
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Conversation, Flow, Output, converse};
    use bytes::BytesMut;
    use std::io::Read as _;
    use tokio::sync::Notify;

    /// Says goodbye to whoever comes.
    #[derive(Default)]
    struct Goodbye {
        said: std::sync::atomic::AtomicBool,
        wake: Notify,
    }

    impl Conversation for Goodbye {
        fn advance(&self, _: &mut BytesMut, output: &mut Output) -> Flow {
            if !self.said.swap(true, std::sync::atomic::Ordering::Relaxed) {
                output.last().extend_from_slice(b"goodbye");
            }
            Flow::Close
        }

        fn wake(&self) -> &Notify {
            &self.wake
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_last_reply_and_the_end_arrive_together() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let server = std::thread::spawn(move || {
            // Two that arrive one after the other are seen apart in one connection of a few.
            for _ in 0..300 {
                let (stream, _) = listener.accept().unwrap();
                stream.set_nonblocking(true).unwrap();
                runtime.block_on(async {
                    let stream = PlainStream::new(TcpStream::from_std(stream).unwrap());
                    converse(stream, &Goodbye::default()).await.unwrap();
                });
            }
        });
        for _ in 0..300 {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            let mut received = [0; 16];
            assert_eq!(client.read(&mut received).unwrap(), 7);
            client.set_nonblocking(true).unwrap();
            assert_eq!(client.read(&mut received).expect("the end is not there yet"), 0);
        }
        server.join().unwrap();
    }
}
