//! A link of a simulation: a real outbox, whose task and whose socket are here.

use super::Dropped;
use super::frame;
use super::outbox::Outbox;
use super::packing::Packed;
use crate::net::{PromptWriter, SimulatedSocket};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// A link that is up.
pub(crate) struct SimulatedLink {
    outbox: Outbox,
    socket: Arc<SimulatedSocket>,
    has_ended: AtomicBool,
}

impl SimulatedLink {
    /// `is_plain`: others than the task may send. At most `max_messages` wait.
    pub(crate) fn up(seed: u64, is_plain: bool, max_messages: usize) -> SimulatedLink {
        let socket = Arc::new(SimulatedSocket::new(seed));
        let outbox = Outbox::new(max_messages, usize::MAX);
        outbox.open(is_plain.then(|| PromptWriter::simulated(socket.clone())));
        SimulatedLink {
            outbox,
            socket,
            has_ended: AtomicBool::new(false),
        }
    }

    /// See [`super::Links::put`].
    pub(crate) fn put(&self, body: Bytes) -> Result<(), Dropped> {
        self.outbox.push(body)
    }

    /// See [`super::Links::flush`].
    pub(crate) fn flush(&self) {
        self.outbox.flush();
    }

    /// What the link's task does, until the link has ended.
    pub(crate) async fn talk(&self) {
        let mut packed = Packed::default();
        loop {
            self.outbox.filled().await;
            if self.has_ended.load(SeqCst) {
                return;
            }
            if self.outbox.take(&mut packed).is_some() {
                interleave!();
                self.socket.take_all(&packed.to_vec());
                packed = Packed::default();
                interleave!();
                self.outbox.taken();
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Has the task end. Nothing may wait.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, SeqCst);
        // Something to wake it with.
        let _ = self.outbox.push(Bytes::new());
        self.outbox.wake_task();
    }

    /// The bodies that have arrived, since the last call; `arrived` keeps what is only a part.
    pub(crate) fn received(&self, arrived: &mut BytesMut) -> Vec<Bytes> {
        arrived.extend_from_slice(&self.socket.sent());
        std::iter::from_fn(|| frame::split(arrived).expect("whole frames, one behind the other")).collect()
    }
}
