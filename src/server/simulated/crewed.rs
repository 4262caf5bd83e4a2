//! A simulated member whose parts have threads, as in production: [`Crew`] and the log's writer.

use super::{Parting, SimulatedMember, admit};
use crate::net::PromptWriter;
use crate::server::LogInput;
use crate::server::connection::Connection;
use crate::server::crew::{Crew, Post};
use crate::server::fan_out;
use crate::server::inbox::Inbox;
use crate::server::shared::{DriverInput, Shared};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// What is left of a member when its parts have threads. Its store has none: nothing is checkpointed, nor read back.
pub(crate) struct CrewedMember {
    shared: Arc<Shared>,
    log: Arc<Inbox<LogInput>>,
    driver_has_ended: Arc<AtomicBool>,
    _parting: Parting,
}

/// What a thread is to do until it is told to stop.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// What a thread waits for.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl SimulatedMember {
    /// Gives its parts to threads: the first work is the log's, the others end first. `wait_for` runs a task on its thread.
    pub(crate) fn with_crew(self, wait_for: fn(Task)) -> (CrewedMember, Vec<Work>) {
        let SimulatedMember {
            shared,
            parting,
            driver,
            log: writer,
            checkpointer,
            log_inbox,
            applier_inbox,
            ..
        } = self;
        let crew = Arc::new(Crew {
            log: Post::new(writer, log_inbox.clone()),
            driver: Post::new(driver, shared.driver.clone()),
            applier: Post::new(checkpointer, applier_inbox),
            tasks_at_the_disk: 0.into(),
            links: None,
        });
        // Nobody else sets it.
        let _ = shared.crew.set(crew.clone());
        let (of_log, of_driver) = (crew.clone(), crew.clone());
        let driver_has_ended = Arc::<AtomicBool>::default();
        let ends = driver_has_ended.clone();
        let of_fan_out = shared.clone();
        let works: Vec<Work> = vec![
            Box::new(move || of_log.serve_log().expect("the log is written")),
            Box::new(move || {
                of_driver.serve_driver().expect("the driver ends in order");
                ends.store(true, SeqCst);
            }),
            Box::new(move || crew.serve_applier().expect("the applier ends in order")),
            Box::new(move || wait_for(Box::pin(fan_out::run(of_fan_out)))),
        ];
        let member = CrewedMember {
            shared,
            log: log_inbox,
            driver_has_ended,
            _parting: parting,
        };
        (member, works)
    }
}

impl CrewedMember {
    /// See [`SimulatedMember::admit`].
    pub(crate) fn admit(&self, peer: SocketAddr, writer: Option<PromptWriter>) -> Option<Arc<Connection>> {
        admit(&self.shared, peer, writer)
    }

    /// Whoever brings a command next is taken for a client that is alone.
    pub(crate) fn be_quiet(&self) {
        self.shared.signs.set_quiet();
    }

    /// Has driver, applier and fan-out end. Ticks, which there are none of here, would write what nobody waits for.
    pub(crate) fn stop(&self) {
        self.shared.driver.push(DriverInput::Stop);
        self.shared.set_stopping();
        interleave_until!({
            self.log.wake();
            self.driver_has_ended.load(SeqCst)
        });
    }

    /// Has the log's writer end, which must be the last.
    pub(crate) fn stop_log(&self) {
        self.log.push(LogInput::Stop);
    }
}
