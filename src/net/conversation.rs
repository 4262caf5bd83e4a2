//! The bytes of one connection, in both directions.

use super::output::Output;
use bytes::{Buf, BufMut, BytesMut};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio_util::io::{poll_read_buf, poll_write_buf};

/// Bytes that one read takes at most: bounds how much one connection does before the others get their turn.
const READ_BYTES: usize = 64 << 10;

/// Bytes whose writing takes a thread so long that somebody else should look after the sockets meanwhile.
const LARGE_OUTPUT_BYTES: usize = 64 << 10;

thread_local! {
    /// Where reads land before the exact number of bytes is kept: so that an idle connection needs no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// How to go on after [`Conversation::advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Read more.
    Read,
    /// Do not read before the next wake.
    Pause,
    /// There is more to do than one call should: send what the socket takes, let the other connections have their turn, and
    /// come back.
    Yield,
    /// Send what is in `output`, then close.
    Close,
    /// Close at once.
    Abort,
}

/// The other side of a socket: what the bytes mean.
pub trait Conversation: Send + Sync {
    /// Called when bytes have been added at the end of `received`, and after every wake. Takes what it understands off the
    /// front of `received`. Puts what is to be sent into `output` if that is empty, else keeps it for the next call.
    fn advance(&self, received: &mut BytesMut, output: &mut Output) -> Flow;

    /// Notified when there is something to send, or to go on with.
    fn wake(&self) -> &Notify;
}

/// Where the bytes come from and go to.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// What is written from here on is the last, and the shutdown follows at once: they may leave together.
    fn hold_for_shutdown(&self) {}
}

/// What one turn on the socket came to.
enum Turn {
    Received,
    Sent,
    Ended,
}

/// Serves one connection until it ends; an error is the peer's or the network's.
pub async fn converse<S: Stream>(mut stream: S, conversation: &impl Conversation) -> io::Result<()> {
    let mut received = BytesMut::new();
    let mut output = Output::new();
    let mut flushed = true;
    loop {
        let flow = conversation.advance(&mut received, &mut output);
        if received.is_empty() {
            received = BytesMut::new();
        }
        if flow == Flow::Abort {
            return Ok(());
        }
        if flow == Flow::Yield {
            poll_fn(|cx| Poll::Ready(poll_send(cx, &mut stream, &mut output, &mut flushed))).await?;
            tokio::task::yield_now().await;
            continue;
        }
        let turn = tokio::select! {
            biased;
            turn = poll_fn(|cx| turn(cx, &mut stream, flow, &mut received, &mut output, &mut flushed)) => turn?,
            () = conversation.wake().notified() => Turn::Received,
        };
        if matches!(turn, Turn::Ended) {
            return Ok(());
        }
    }
}

/// Sends what there is, then reads what has come. Gives a turn as soon as something came of it.
fn turn<S: Stream>(
    cx: &mut Context<'_>,
    stream: &mut S,
    flow: Flow,
    received: &mut BytesMut,
    output: &mut Output,
    flushed: &mut bool,
) -> Poll<io::Result<Turn>> {
    if flow == Flow::Close && !output.is_empty() {
        stream.hold_for_shutdown();
    }
    let sent = poll_send(cx, stream, output, flushed)?;
    if flow == Flow::Close {
        return if output.is_empty() {
            Pin::new(stream).poll_shutdown(cx).map(|_| Ok(Turn::Ended))
        } else {
            Poll::Pending
        };
    }
    if flow == Flow::Read {
        let read = poll_receive(cx, stream, received)?;
        match read {
            Poll::Ready(0) => return Poll::Ready(Ok(Turn::Ended)),
            Poll::Ready(_) => return Poll::Ready(Ok(Turn::Received)),
            Poll::Pending => {}
        }
    }
    if sent && output.is_empty() {
        Poll::Ready(Ok(Turn::Sent))
    } else {
        Poll::Pending
    }
}

/// Reads once, to the end of `received`; gives how many bytes have come.
fn poll_receive<S: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    stream: &mut S,
    received: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    let has_room = received.capacity() - received.len() >= READ_BYTES;
    if has_room {
        // Room was made for a large frame.
        return poll_read_buf(Pin::new(stream), cx, &mut received.limit(READ_BYTES));
    }
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        Pin::new(stream).poll_read(cx, &mut buffer).map_ok(|()| {
            received.extend_from_slice(buffer.filled());
            buffer.filled().len()
        })
    })
}

/// Writes as much of `output` as the socket takes; says whether it took anything. `flushed`: whether nothing is held back
/// between us and the socket.
fn poll_send<S: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    stream: &mut S,
    output: &mut Output,
    flushed: &mut bool,
) -> io::Result<bool> {
    let mut sent = false;
    if output.len() >= LARGE_OUTPUT_BYTES {
        have_another_thread_poll();
    }
    while !output.is_empty() {
        let written = if output.is_one_piece() {
            let written = Pin::new(&mut *stream).poll_write(cx, output.chunk())?;
            written.map(|bytes| {
                output.advance(bytes);
                bytes
            })
        } else {
            poll_write_buf(Pin::new(&mut *stream), cx, output)?
        };
        match written {
            Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(_) => sent = true,
            Poll::Pending => break,
        }
    }
    *flushed &= !sent;
    if !*flushed {
        // TLS holds records back while the socket is full, until it is told again; on a plain socket this is nothing.
        *flushed = Pin::new(stream).poll_flush(cx)?.is_ready();
    }
    Ok(sent)
}

/// Wakes another of the runtime's threads, if one sleeps. The one that a socket has woken is otherwise the only one that learns of
/// other sockets, and does so only after this task, even while the others have nothing to do. The runtime wakes one as soon as
/// two tasks wait on this thread; these do nothing else.
fn have_another_thread_poll() {
    for _ in 0..2 {
        tokio::spawn(async {});
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::PlainStream;
    use std::io::{Read as _, Write as _};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;
    use tokio::net::TcpStream;

    /// A stream that holds back what is written until a flush succeeds, as TLS does; the first flush finds it full.
    #[derive(Default)]
    struct Holding {
        held: Vec<u8>,
        passed: Vec<u8>,
        was_full: bool,
    }

    impl AsyncRead for &mut Holding {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            // The peer ends once everything has reached it.
            if self.held.is_empty() && !self.passed.is_empty() {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        }
    }

    impl AsyncWrite for &mut Holding {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.held.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if !std::mem::replace(&mut self.was_full, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let held = std::mem::take(&mut self.held);
            self.passed.extend(held);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Stream for &mut Holding {}

    #[derive(Default)]
    struct SaysOnce {
        said: AtomicBool,
        wake: Notify,
    }

    impl Conversation for SaysOnce {
        fn advance(&self, _: &mut BytesMut, output: &mut Output) -> Flow {
            if !self.said.swap(true, Ordering::Relaxed) {
                output.last().extend_from_slice(b"once");
            }
            Flow::Read
        }

        fn wake(&self) -> &Notify {
            &self.wake
        }
    }

    #[tokio::test]
    async fn what_a_full_stream_holds_back_is_flushed_when_it_takes_more() {
        let mut stream = Holding::default();
        let conversation = SaysOnce::default();
        tokio::time::timeout(Duration::from_secs(60), converse(&mut stream, &conversation))
            .await
            .expect("the bytes are stuck")
            .unwrap();
        assert_eq!(stream.passed, b"once");
    }

    /// Answers each byte with `reply_bytes` of them.
    struct Answers {
        reply_bytes: usize,
        wake: Notify,
    }

    impl Conversation for Answers {
        fn advance(&self, received: &mut BytesMut, output: &mut Output) -> Flow {
            let replies = std::mem::take(received).len();
            output.last().put_bytes(7, replies * self.reply_bytes);
            Flow::Read
        }

        fn wake(&self) -> &Notify {
            &self.wake
        }
    }

    /// A socket that takes what is written to it only when somebody says so, and keeps the thread until then.
    struct Reluctant {
        socket: TcpStream,
        is_writing: Arc<AtomicBool>,
        may_go_on: std::sync::mpsc::Receiver<()>,
    }

    impl AsyncRead for Reluctant {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.socket).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Reluctant {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.is_writing.store(true, Ordering::Release);
            // An end without a word is the test's failure, which says so itself.
            let _ = self.may_go_on.recv_timeout(Duration::from_secs(20));
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Stream for Reluctant {}

    #[test]
    fn other_sockets_are_served_while_a_thread_writes_a_large_reply() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_io()
            .build()
            .unwrap();
        let connect = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let server = listener.accept().unwrap().0;
            server.set_nonblocking(true).unwrap();
            let _guard = runtime.enter();
            (client, TcpStream::from_std(server).unwrap())
        };
        let serve = |reply_bytes| Answers {
            reply_bytes,
            wake: Notify::new(),
        };
        let ((mut large, socket), (mut small, other)) = (connect(), connect());
        let is_writing = Arc::new(AtomicBool::new(false));
        let (go_on, may_go_on) = std::sync::mpsc::channel();
        let reluctant = Reluctant {
            socket,
            is_writing: is_writing.clone(),
            may_go_on,
        };
        runtime.spawn(async move { converse(reluctant, &serve(LARGE_OUTPUT_BYTES)).await });
        runtime.spawn(async move { converse(PlainStream::new(other), &serve(1)).await });
        // Both workers sleep, one of them in the poller.
        small.write_all(b"?").unwrap();
        small.read_exact(&mut [0]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        large.write_all(b"?").unwrap();
        while !is_writing.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        small.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        small.write_all(b"?").unwrap();
        small.read_exact(&mut [0]).expect("nobody looks after the other socket");
        go_on.send(()).unwrap();
        runtime.shutdown_background();
    }
}
