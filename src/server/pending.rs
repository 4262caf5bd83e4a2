//! A request in the pipeline, until it is answered; what requests ask others to do; and why connections end.

use super::local::Local;
use crate::proto::frame::BadFrameLength;
use crate::proto::request::Query;
use crate::proto::{ErrorCode, Identity, Malformed, Text, Xid, Zxid};
use crate::state_machine::Command;
use std::sync::Arc;

/// A request that was not answered yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) xid: Xid,
    pub(super) op: i32,
    pub(super) arrived_us: u64,
    pub(super) size_bytes: usize,
    /// Whether it is a read behind which writes wait until it is answered.
    pub(super) holds_writes: bool,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// `Some`: not handed on yet, since it stands behind a sync.
    Write(Option<Box<Command>>),
    /// `path`: what to reply; `None` for the barrier before a linearizable read, which is not answered itself.
    Sync { path: Option<Text>, barrier: Barrier },
    Local {
        request: Local,
        identities: Arc<[Identity]>,
    },
    /// The answer, an error mostly, ends the connection.
    Last {
        error: Option<ErrorCode>,
        /// `None`: the state's.
        zxid: Option<Zxid>,
        /// The refusal of a SASL token alone has a body: a null token.
        null_token: bool,
        closing: Closing,
    },
}

/// How far a sync has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Barrier {
    Unasked,
    Asked,
    Passed,
}

impl Kind {
    /// Whether it is answered with what a znode holds, which may be much.
    pub(super) fn may_be_large(&self) -> bool {
        matches!(
            self,
            Kind::Local {
                request: Local::Query(
                    Query::GetData(_)
                        | Query::GetChildren(_)
                        | Query::GetChildren2(_)
                        | Query::GetAcl(_)
                        | Query::GetEphemerals(_)
                ),
                ..
            }
        )
    }

    /// Whether it may take long to be answered: nobody but its own connection's task should have to.
    pub(super) fn may_take_long(&self) -> bool {
        matches!(
            self,
            Kind::Local {
                request: Local::Query(Query::MultiRead(_) | Query::GetAllChildrenNumber(_)),
                ..
            }
        )
    }

    /// Whether it is answered with the data of znodes.
    pub(super) fn reads_data(&self) -> bool {
        matches!(
            self,
            Kind::Local {
                request: Local::Query(Query::GetData(_) | Query::MultiRead(_)),
                ..
            }
        )
    }
}

impl Pending {
    /// Gives what is for others to do, once.
    pub(super) fn hand_on(&mut self, intake: &mut Intake) {
        match &mut self.kind {
            Kind::Write(command) => intake.commands.extend(command.take().map(|command| *command)),
            Kind::Sync { barrier, .. } if *barrier == Barrier::Unasked => {
                *barrier = Barrier::Asked;
                intake.barrier = true;
            }
            _ => {}
        }
    }

    /// Whether what stands behind it must wait.
    pub(super) fn holds_back(&self) -> bool {
        self.holds_writes
            || matches!(
                self.kind,
                Kind::Sync {
                    barrier: Barrier::Unasked | Barrier::Asked,
                    ..
                }
            )
    }
}

/// What came of received bytes, for others to do.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// For the log, in order.
    pub(super) commands: Vec<Command>,
    /// Whether a read barrier is to be asked for.
    pub(super) barrier: bool,
}

/// Why a connection is closed by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Closing {
    #[error("{0}")]
    BadLength(#[from] BadFrameLength),
    #[error("a request has no header: {0}")]
    NoHeader(Malformed),
    #[error("the first bytes are no handshake: {0}")]
    NoHandshake(Malformed),
    #[error("the client has seen zxid {seen}, this server has only come to {here}")]
    Behind { seen: Zxid, here: Zxid },
    #[error(
        "its client has seen zxid {seen}, and this ensemble has only come to {here}: the client was with another one, or this \
         one was set back"
    )]
    Ahead { seen: Zxid, here: Zxid },
    #[error("operation {0} is unknown here")]
    UnknownOperation(i32),
    #[error("an auth packet cannot be read: {0}")]
    BadAuth(Malformed),
    #[error("authentication failed")]
    AuthenticationFailed,
    #[error("the client has not authenticated as it must")]
    AuthenticationRequired,
    #[error("the session is gone, or has moved to another connection")]
    SessionGone,
    #[error("the session was closed by the client")]
    SessionClosed,
    #[error("this server is stopping")]
    Stopping,
    #[error("this server is not serving requests yet")]
    NotServing,
    #[error("there is no leader, and the client has not asked to be served read-only")]
    NoLeader,
    #[error("there is no leader, and sessions of the ensemble are not resumed read-only")]
    EnsemblesSession,
    #[error("there are too many read-only sessions")]
    TooManySessions,
    #[error("the client does not take what is sent to it")]
    SlowClient,
    #[error("a read in front of a write needs data that has just left memory")]
    DataAway,
    #[error("replies and requests do not match: a defect of this server")]
    Confused,
}
