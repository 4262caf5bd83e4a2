//! What tests of single parts need of a server.

use super::{MemberPlan, NoWords, settings};
use crate::membership::Members;
use crate::proto::{OpCode, SessionId, Xid, Zxid};
use crate::server::admission::{LARGE_BYTES, LARGE_VALUES};
use crate::server::chance::Chance;
use crate::server::clock::{Clock, SimulatedTime};
use crate::server::connection::Connection;
use crate::server::loading::Loading;
use crate::server::memory::Memory;
use crate::server::pending::Intake;
use crate::server::shared::{DriverInput, Shared};
use crate::state_machine::{Command, ConnectionId, Origin, ServerId};
use crate::watch::{WatchLimits, Watches};
use bytes::Bytes;
use std::sync::Arc;

/// What the parts of a lone server share that is fresh, and has none of these parts.
pub(crate) fn shared_alone() -> Arc<Shared> {
    let plan = MemberPlan {
        server: ServerId(1),
        members: Members::default(),
        slot: 0,
        seed: 1,
        log_budget_bytes: 0,
        leaderless_ms: 0,
        linearizable_reads: false,
        values_leave: false,
        backlog_bytes: u64::MAX,
        outstanding_limit: 1000,
    };
    Arc::new(Shared::new(
        settings(&plan),
        (
            crate::state_machine::State::new(),
            Loading::new(None, 1),
            Memory::new(u64::MAX, Zxid::ZERO, 0),
        ),
        Watches::new(WatchLimits::default()),
        Box::new(NoWords),
        (
            Clock::simulated(Arc::new(SimulatedTime::default())),
            Chance::seeded(1),
            1,
        ),
    ))
}

/// A lone server on which as many large values are being written as may be.
pub(crate) struct LargeValues {
    shared: Arc<Shared>,
    writing: Vec<Arc<Connection>>,
}

impl LargeValues {
    pub(crate) fn begin() -> LargeValues {
        let shared = shared_alone();
        let writing: Vec<_> = (0..LARGE_VALUES).map(|_| admit(&shared)).collect();
        for connection in &writing {
            let begun = shared.begin_large_value(command(connection.id, 0, LARGE_BYTES));
            assert!(begun.is_some(), "there is a place");
        }
        LargeValues { shared, writing }
    }

    /// One of them is written: the next in line begins.
    pub(crate) fn end_one(&self) {
        self.shared.end_large_value(self.writing[0].id);
    }

    /// Another connection hands on a small command and a large value behind it; gives their numbers.
    pub(crate) fn hand_on_two(&self) -> [i32; 2] {
        let connection = admit(&self.shared);
        let sizes = [1, LARGE_BYTES];
        connection.hand_on(Intake {
            commands: [1, 2].map(|xid| command(connection.id, xid, sizes[xid - 1])).into(),
            barrier: false,
        });
        [1, 2]
    }

    /// The numbers of the commands that the driver has got, in order.
    pub(crate) fn submitted(&self) -> Vec<i32> {
        let mut inputs = Vec::new();
        self.shared.driver.take(&mut inputs);
        let commands = inputs.into_iter().flat_map(|input| match input {
            DriverInput::Commands(commands) => commands,
            _ => Vec::new(),
        });
        commands.map(|command| command.xid.0).collect()
    }
}

fn admit(shared: &Arc<Shared>) -> Arc<Connection> {
    let peer = "127.0.0.1:1".parse().expect("an address");
    shared.admit(peer).expect("there is room")
}

fn command(connection: ConnectionId, xid: usize, bytes: usize) -> Command {
    Command {
        origin: Origin {
            server: ServerId(1),
            connection,
        },
        session: SessionId(1),
        xid: Xid(i32::try_from(xid).expect("a small number")),
        identities: [].into(),
        op: OpCode::SetData,
        body: Bytes::from(vec![0; bytes]),
    }
}
