//! What tests of single parts need of a server.

use super::{MemberPlan, NoWords, settings};
use crate::membership::Members;
use crate::proto::Zxid;
use crate::server::chance::Chance;
use crate::server::clock::{Clock, SimulatedTime};
use crate::server::loading::Loading;
use crate::server::memory::Memory;
use crate::server::shared::Shared;
use crate::state_machine::ServerId;
use crate::watch::{WatchLimits, Watches};
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
