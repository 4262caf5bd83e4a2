//! Handing leadership over because an operator wants it: asked of the driver, and waited for.

use super::shared::{DriverInput, Shared};
use crate::replica::Role;
use crate::state_machine::ServerId;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long an operator waits until another server leads. raft itself gives an attempt up after an election timeout.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two looks at who leads.
const LOOK: Duration = Duration::from_millis(5);

/// Leadership was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOver {
    /// Who led: this server.
    pub from: ServerId,
    /// Who leads now.
    pub to: ServerId,
}

/// Why leadership was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotHandedOver {
    /// Another one leads, or nobody.
    #[error("this server does not lead, server {0} does: ask that one")]
    NotLeader(u64),
    /// Nobody leads.
    #[error("this server does not lead, and knows nobody who does: a majority of the participants must be up")]
    NoLeader,
    /// There is nobody else.
    #[error(
        "nobody can take over: no other participant is up, in contact with this server, and votes. This server leads on"
    )]
    Nobody,
    /// The other one has not taken over.
    #[error(
        "server {0} was to take over and has not done so within {limit_s} s: it may be busy catching up. See who leads, and \
         try again",
        limit_s = PATIENCE.as_secs()
    )]
    NotTaken(u64),
    /// The driver does not answer.
    #[error("this server is too busy to answer, or stops")]
    NoAnswer,
}

impl Shared {
    /// Hands leadership to the participant that is closest behind, and waits for it, a few seconds at most: for operators,
    /// on a thread that may wait.
    pub fn hand_over(&self) -> Result<HandedOver, NotHandedOver> {
        let standing = self.standing();
        if standing.role != Role::Leader {
            let leader = standing.leader.ok_or(NotHandedOver::NoLeader)?;
            return Err(NotHandedOver::NotLeader(leader.0));
        }
        let (answer, answered) = mpsc::channel();
        self.driver.push(DriverInput::HandOverAsked(answer));
        let asked = answered.recv_timeout(PATIENCE).map_err(|_| NotHandedOver::NoAnswer)?;
        let wanted = asked.ok_or(NotHandedOver::Nobody)?;
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let now = self.standing();
            if let (Role::Follower, Some(to)) = (now.role, now.leader) {
                let from = self.settings.server;
                return Ok(HandedOver { from, to });
            }
            std::thread::sleep(LOOK);
        }
        Err(NotHandedOver::NotTaken(wanted.0))
    }
}
