//! The thread on which the links to the other servers live, apart from the clients.
//!
//! What the others say is heard however much there is to do for clients: an election does not begin because of them. And a
//! message that is alone wakes one thread: of the runtime that serves clients, whoever wakes to find work wakes a second one to
//! watch the sockets in his place.

use std::convert::Infallible;
use std::io;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The thread; it ends when this is dropped.
pub(super) struct LinkThread {
    runtime: Handle,
    _stop: oneshot::Sender<Infallible>,
}

impl LinkThread {
    pub(super) fn start() -> io::Result<LinkThread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        std::thread::Builder::new().name("links".into()).spawn(move || {
            // Nothing is ever sent: this waits until the sender is gone.
            let _ = runtime.block_on(stopped);
            // Without waiting for names that are being resolved.
            runtime.shutdown_background();
        })?;
        Ok(LinkThread {
            runtime: handle,
            _stop: stop,
        })
    }

    /// What runs there.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}
