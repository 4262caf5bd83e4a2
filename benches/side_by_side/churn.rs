//! Sessions that open and close: a fixed number of clients, each of which connects, opens a session, closes it when
//! it is granted, and starts anew when the close is answered.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::fleet::{SESSION_TIMEOUT_MS, poll_once};
use crate::measure::Sample;
use crate::recorder::{Plan, Recorder, Run};
use crate::wire::{self, op};

/// Readiness events taken from epoll at a time.
const EVENTS_PER_POLL: usize = 256;
/// Answers to a handshake and to a close are a few dozen bytes each.
const READ_BYTES: usize = 512;

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    /// When it began to connect.
    started: Instant,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connecting,
    Opening,
    Closing,
}

/// Opens and closes sessions, `clients` at a time, as `plan` says. One operation is one session, from the connect to
/// the answer of its close. The clients are spread over the addresses.
///
/// # Errors
/// A connection that fails, a session that is refused, a close that is not answered.
pub(crate) fn run(
    addresses: &[SocketAddr],
    clients: u32,
    plan: Plan,
    sample: &dyn Fn() -> Sample,
) -> Result<Run, String> {
    let address = |index: usize| addresses[index % addresses.len()];
    let mut poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
    let mut recorder = Recorder::new(plan, sample);
    let mut open = Vec::with_capacity(clients as usize);
    for index in 0..clients as usize {
        open.push(Some(Client::start(address(index), index, &poll)?));
    }
    let mut events = Events::with_capacity(EVENTS_PER_POLL);
    while open.iter().any(Option::is_some) {
        poll_once(&mut poll, &mut events)?;
        let over = recorder.advance(sample);
        for event in &events {
            let Token(index) = event.token();
            let Some(client) = &mut open[index] else { continue };
            if client
                .advance()
                .map_err(|error| format!("client {index} ({:?}): {error}", client.step))?
            {
                recorder.record(client.started, Instant::now());
                open[index] = if over {
                    None
                } else {
                    Some(Client::start(address(index), index, &poll)?)
                };
            }
        }
    }
    Ok(recorder.finish(sample))
}

impl Client {
    fn start(address: SocketAddr, index: usize, poll: &Poll) -> Result<Self, String> {
        let started = Instant::now();
        let mut stream = TcpStream::connect(address).map_err(|error| format!("connect to {address}: {error}"))?;
        poll.registry()
            .register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)
            .map_err(|error| format!("epoll: {error}"))?;
        Ok(Self {
            stream,
            received: Vec::new(),
            started,
            step: Step::Connecting,
        })
    }

    /// Goes as far as the socket allows; returns whether the close has been answered.
    fn advance(&mut self) -> Result<bool, String> {
        if self.step == Step::Connecting {
            if let Some(error) = self.stream.take_error().map_err(|error| error.to_string())? {
                return Err(error.to_string());
            }
            if self.stream.peer_addr().is_err() {
                return Ok(false);
            }
            self.stream.set_nodelay(true).map_err(|error| error.to_string())?;
            let mut hello = Vec::with_capacity(64);
            wire::connect_request(&mut hello, SESSION_TIMEOUT_MS);
            self.send(&hello, Step::Opening)?;
        }
        while self.receive()? {
            let Some(payload) = wire::first_frame(&self.received)?.map(<[u8]>::to_vec) else {
                continue;
            };
            self.received.drain(..4 + payload.len());
            if self.step == Step::Closing {
                let answered = wire::i32_at(&payload, 0) == Some(1) && wire::i32_at(&payload, 12) == Some(0);
                return if answered {
                    Ok(true)
                } else {
                    Err("closeSession was answered with an error".to_owned())
                };
            }
            wire::granted_session(&payload).ok_or("the session was refused")?;
            let mut goodbye = Vec::with_capacity(16);
            wire::request(&mut goodbye, 1, op::CLOSE_SESSION, |_| ());
            self.send(&goodbye, Step::Closing)?;
        }
        Ok(false)
    }

    fn send(&mut self, bytes: &[u8], next: Step) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|error| error.to_string())?;
        self.step = next;
        Ok(())
    }

    /// Reads once; returns whether anything was there.
    fn receive(&mut self) -> Result<bool, String> {
        let mut bytes = [0; READ_BYTES];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err("the server closed the connection".to_owned()),
            Ok(received) => {
                self.received.extend_from_slice(&bytes[..received]);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }
}
