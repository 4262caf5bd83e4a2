//! What an idle session weighs.

use std::time::Duration;

use crate::figure::{Reading, Target, short};
use crate::fleet::Fleet;
use crate::measure::{resident_bytes, settle};
use crate::process::Server;

/// Opened and closed first: what a server takes for its first sessions is not theirs.
const WARM_UP_SESSIONS: u32 = 500;
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn title(sessions: u32) -> String {
    format!("{} idle sessions", short(f64::from(sessions)))
}

/// Opens the sessions, waits until the server has come to rest, and weighs it.
///
/// # Errors
/// The server's.
pub(crate) fn run(server: &Server, sessions: u32) -> Result<Vec<Reading>, String> {
    let pid = server.pid().ok_or("the server does not run")?;
    let resident = || {
        settle(pid, SETTLE_LIMIT);
        resident_bytes(pid).unwrap_or(0) as f64
    };
    Fleet::open(&[server.address], WARM_UP_SESSIONS, 1)?.close()?;
    let before = resident();
    let fleet = Fleet::open(&[server.address], sessions, 1)?;
    let with_sessions = resident();
    fleet.close()?;
    let after = resident();
    let each = |bytes: f64| (bytes - before) / f64::from(sessions);
    Ok(vec![
        Reading::new("RSS for each, bytes", each(with_sessions), &[Target::AtMost(4_096.0)]),
        Reading::new("RSS that stays when they are closed, for each, bytes", each(after), &[]),
    ])
}
