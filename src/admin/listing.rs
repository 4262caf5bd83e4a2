//! Listings of what there may be very many of: sessions, ephemerals, connections, watches.
//!
//! They are gathered up to a limit, so that one question of an operator never takes the memory that the server's work
//! needs; what lies beyond is left out, and the listing says so. Locks are held for one session, or one shard of the watch
//! tables, at a time.

use super::java;
use crate::proto::SessionId;
use crate::server::{ConnectionView, EnsembleRole, Shared};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// Bytes of paths, and of what stands beside them, that one listing gathers at most. Beyond, it is cut.
pub(super) const LISTING_BYTES: usize = 16 << 20;
/// What an entry costs besides its path: its line's decoration, and its place in a table.
const ENTRY_BYTES: usize = 32;

/// How much a listing may still gather.
#[derive(Debug)]
struct Budget {
    left: usize,
    is_cut: bool,
}

impl Budget {
    fn new(bytes: usize) -> Budget {
        Budget {
            left: bytes,
            is_cut: false,
        }
    }

    fn takes(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes + ENTRY_BYTES) {
            Some(left) if !self.is_cut => self.left = left,
            _ => self.is_cut = true,
        }
        !self.is_cut
    }
}

/// Sessions or connections by the time at which they expire: wall time, ms.
pub(super) type Expiries<T> = BTreeMap<i64, Vec<T>>;

/// What `dump` shows.
#[derive(Debug, Default)]
pub(super) struct Dump {
    pub(super) sessions: Expiries<SessionId>,
    /// The sessions with their timeouts, ms, where another server judges when they expire.
    pub(super) judged_elsewhere: Option<Vec<(SessionId, i32)>>,
    pub(super) ephemerals: BTreeMap<SessionId, Vec<String>>,
    pub(super) connections: Expiries<(SocketAddr, SessionId)>,
    /// Whether ephemerals were left out.
    pub(super) is_cut: bool,
}

impl Dump {
    /// Gathers it. `interval_ms` is the width of the sets by which sessions are shown, ZooKeeper's tickTime.
    pub(super) fn gather(shared: &Shared, interval_ms: u32) -> Dump {
        let mut dump = Dump::default();
        let views = shared.connection_views();
        let (now_us, now_ms) = (shared.clock.now_us(), shared.clock.wall_ms());
        if matches!(
            shared.ensemble().role,
            EnsembleRole::Follower | EnsembleRole::Observer | EnsembleRole::ReadOnly
        ) {
            let state = shared.state.read();
            let sessions = state.sessions().take(LISTING_BYTES / ENTRY_BYTES);
            let sessions: Vec<_> = sessions.map(|session| (session.id, session.timeout_ms)).collect();
            dump.is_cut = sessions.len() < state.counts().sessions;
            dump.judged_elsewhere = Some(sessions);
        }
        for (session, remaining_ms) in shared.session_deadlines() {
            let at = round_up(
                now_ms.saturating_add(i64::try_from(remaining_ms).unwrap_or(i64::MAX)),
                interval_ms,
            );
            dump.sessions.entry(at).or_default().push(session);
        }
        for view in &views {
            let at = round_up(
                connection_deadline_ms(shared, view, now_us, now_ms),
                CONNECTION_INTERVAL_MS,
            );
            dump.connections.entry(at).or_default().push((view.peer, view.session));
        }
        let holders: Vec<SessionId> = shared.state.read().ephemeral_owners().collect();
        let mut budget = Budget::new(LISTING_BYTES);
        for session in holders {
            let paths = shared.state.read().ephemeral_paths(session);
            let mut kept = Vec::new();
            for path in &paths {
                if !budget.takes(path.len()) {
                    break;
                }
                kept.push(path.to_string());
            }
            if budget.is_cut {
                dump.is_cut = true;
                break;
            }
            dump.ephemerals.insert(session, kept);
        }
        dump
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::from("SessionTracker dump:\n");
        // Writing to a string cannot fail.
        if let Some(sessions) = &self.judged_elsewhere {
            let _ = writeln!(text, "Global Sessions({}):", sessions.len());
            for (session, timeout_ms) in sessions {
                let _ = writeln!(text, "0x{:x}\t{timeout_ms}ms", session.0);
            }
        } else {
            text.push_str("Session ");
            expiries(&mut text, &self.sessions, |session| format!("0x{:x}", session.0));
        }
        let _ = writeln!(
            text,
            "ephemeral nodes dump:\nSessions with Ephemerals ({}):",
            self.ephemerals.len()
        );
        for (session, paths) in &self.ephemerals {
            let _ = writeln!(text, "0x{:x}:", session.0);
            for path in paths {
                let _ = writeln!(text, "\t{path}");
            }
        }
        cut(&mut text, self.is_cut);
        text.push_str("Connections dump:\nConnections ");
        expiries(&mut text, &self.connections, |(peer, session)| {
            format!("ip: /{} sessionId: 0x{:x}", java::socket_address(*peer), session.0)
        });
        text
    }
}

/// The width of the sets by which connections are shown: ZooKeeper's `nio.sessionlessCnxnTimeout`.
const CONNECTION_INTERVAL_MS: u32 = 10_000;

/// When a connection would be closed if nothing more came from it: wall time, ms.
fn connection_deadline_ms(shared: &Shared, view: &ConnectionView, now_us: u64, now_ms: i64) -> i64 {
    if view.session.0 == 0 {
        let allowed = i64::try_from(shared.settings.handshake_timeout_ms).unwrap_or(i64::MAX);
        return view.established_ms.saturating_add(allowed);
    }
    let silent_us = now_us.saturating_sub(view.numbers.last_reply_us);
    now_ms + i64::from(view.timeout_ms) - i64::try_from(silent_us / 1000).unwrap_or(0)
}

fn round_up(at_ms: i64, interval_ms: u32) -> i64 {
    let interval_ms = i64::from(interval_ms.max(1));
    (at_ms.div_euclid(interval_ms) + 1).saturating_mul(interval_ms)
}

fn expiries<T>(text: &mut String, sets: &Expiries<T>, show: impl Fn(&T) -> String) {
    let elements: usize = sets.values().map(Vec::len).sum();
    let _ = writeln!(text, "Sets ({})/({elements}):", sets.len());
    for (at, elements) in sets {
        let _ = writeln!(text, "{} expire at {}:", elements.len(), java::date(*at));
        for element in elements {
            let _ = writeln!(text, "\t{}", show(element));
        }
    }
}

fn cut(text: &mut String, is_cut: bool) {
    if is_cut {
        let _ = writeln!(text, "(cut here: more than {LISTING_BYTES} bytes)");
    }
}

/// Who watches what, in the data table, as ZooKeeper lists it.
#[derive(Debug, Default)]
pub(super) struct WatchListing {
    /// Pairs, sorted by their first.
    pub(super) pairs: Vec<(String, SessionId)>,
    pub(super) is_cut: bool,
}

impl WatchListing {
    pub(super) fn gather(shared: &Shared) -> WatchListing {
        // Looked up beforehand: no connection's lock may be taken inside the watch tables.
        let mut sessions = BTreeMap::new();
        shared.for_each_connection(|connection| {
            sessions.insert(connection.id.0, connection.view().session);
        });
        let mut budget = Budget::new(LISTING_BYTES);
        let mut listing = WatchListing::default();
        shared.watches.for_each(|path, watcher| {
            if let Some(session) = sessions.get(&watcher.0)
                && budget.takes(path.len())
            {
                listing.pairs.push((path.to_owned(), *session));
            }
        });
        listing.is_cut = budget.is_cut;
        listing
    }

    pub(super) fn by_path(mut self) -> (Vec<(String, Vec<SessionId>)>, bool) {
        self.pairs.sort_unstable();
        let mut groups: Vec<(String, Vec<SessionId>)> = Vec::new();
        for (path, session) in self.pairs {
            match groups.last_mut() {
                Some((last, sessions)) if *last == path => sessions.push(session),
                _ => groups.push((path, vec![session])),
            }
        }
        (groups, self.is_cut)
    }

    pub(super) fn by_session(self) -> (BTreeMap<SessionId, Vec<String>>, bool) {
        let mut groups: BTreeMap<SessionId, Vec<String>> = BTreeMap::new();
        for (path, session) in self.pairs {
            groups.entry(session).or_default().push(path);
        }
        groups.values_mut().for_each(|paths| paths.sort_unstable());
        (groups, self.is_cut)
    }

    /// `wchp`.
    pub(super) fn into_text_by_path(self) -> String {
        let (groups, is_cut) = self.by_path();
        let mut text = String::new();
        for (path, sessions) in groups {
            let _ = writeln!(text, "{path}");
            for session in sessions {
                let _ = writeln!(text, "\t0x{:x}", session.0);
            }
        }
        cut(&mut text, is_cut);
        text.push('\n');
        text
    }

    /// `wchc`.
    pub(super) fn into_text_by_session(self) -> String {
        let (groups, is_cut) = self.by_session();
        let mut text = String::new();
        for (session, paths) in groups {
            let _ = writeln!(text, "0x{:x}", session.0);
            for path in paths {
                let _ = writeln!(text, "\t{path}");
            }
        }
        cut(&mut text, is_cut);
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dump_is_apaches() {
        assert_eq!(
            Dump::default().to_text(),
            "SessionTracker dump:\nSession Sets (0)/(0):\nephemeral nodes dump:\nSessions with Ephemerals (0):\n\
             Connections dump:\nConnections Sets (0)/(0):\n"
        );
        let at = round_up(1_795_361_230_001, 1000);
        let dump = Dump {
            sessions: [(at, vec![SessionId(0x10), SessionId(-1)])].into(),
            ephemerals: [(SessionId(0x10), vec!["/a".to_owned(), "/b/c".to_owned()])].into(),
            connections: [(at, vec![("127.0.0.1:5".parse().unwrap(), SessionId(0x10))])].into(),
            is_cut: false,
            ..Dump::default()
        };
        assert_eq!(
            dump.to_text(),
            "SessionTracker dump:\nSession Sets (1)/(2):\n2 expire at Sun Nov 22 15:27:11 UTC 2026:\n\t0x10\n\
             \t0xffffffffffffffff\nephemeral nodes dump:\nSessions with Ephemerals (1):\n0x10:\n\t/a\n\t/b/c\n\
             Connections dump:\nConnections Sets (1)/(1):\n1 expire at Sun Nov 22 15:27:11 UTC 2026:\n\
             \tip: /127.0.0.1:5 sessionId: 0x10\n"
        );
    }

    #[test]
    fn a_follower_lists_sessions_with_their_timeouts_for_it_does_not_judge_them() {
        let dump = Dump {
            judged_elsewhere: Some(vec![(SessionId(0x10), 30_000), (SessionId(-1), 4_000)]),
            ..Dump::default()
        };
        assert_eq!(
            dump.to_text(),
            "SessionTracker dump:\nGlobal Sessions(2):\n0x10\t30000ms\n0xffffffffffffffff\t4000ms\n\
             ephemeral nodes dump:\nSessions with Ephemerals (0):\nConnections dump:\nConnections Sets (0)/(0):\n"
        );
    }

    fn listing() -> WatchListing {
        let pair = |path: &str, session| (path.to_owned(), SessionId(session));
        WatchListing {
            pairs: vec![pair("/b", 1), pair("/a", 2), pair("/a", 1)],
            is_cut: false,
        }
    }

    #[test]
    fn watches_are_listed_as_apache_lists_them() {
        assert_eq!(listing().into_text_by_path(), "/a\n\t0x1\n\t0x2\n/b\n\t0x1\n\n");
        assert_eq!(listing().into_text_by_session(), "0x1\n\t/a\n\t/b\n0x2\n\t/a\n\n");
        assert_eq!(WatchListing::default().into_text_by_session(), "\n");
    }

    #[test]
    fn a_listing_beyond_its_limit_says_so() {
        let mut budget = Budget::new(2 * ENTRY_BYTES + 3);
        assert!(budget.takes(1));
        assert!(budget.takes(2));
        assert!(!budget.takes(0));
        let cut = WatchListing {
            is_cut: true,
            ..listing()
        };
        assert!(
            cut.into_text_by_path()
                .ends_with("\t0x1\n(cut here: more than 16777216 bytes)\n\n")
        );
    }
}
