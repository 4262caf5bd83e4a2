//! Who belongs to an ensemble, as values and as text: the grammar of `server.N`, and the text of `/zookeeper/config`.
//!
//! ```text
//!   zoo.cfg, zoo.cfg.dynamic.* ─ config ─┐                     ┌─▶ /zookeeper/config, reply of reconfig
//!   reconfig's joining, leaving, members ┼─▶ Members, Server ──┼─▶ zoo.cfg.dynamic.*
//!   /zookeeper/config (from the disk) ───┘                     └─▶ what raft's configuration is driven towards
//! ```
//!
//! Invariants:
//! - One grammar, whoever reads: what a member was given in its file means the same when a client sends it.
//! - What [`Members`] shows, [`Members::parse`] reads back as the same value.
//! - Nothing here knows what was decided: these are values, the truth about them is in the state and in raft.
//!
//! Left out on purpose: weights and groups of servers (a plain majority of the participants decides), resolving names,
//! and raft's own configuration, which follows this one step by step.

mod address;
mod change;
mod server;

pub use address::{Address, Host, ServerId};
pub use change::{Allowed, ChangeError};
pub use server::{PeerAddress, PeerType, SERVER_LINE, Server};

use std::collections::BTreeMap;
use std::fmt;

/// The members of an ensemble and the version of that list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// All of them, by their ids.
    pub servers: BTreeMap<ServerId, Server>,
    /// Grows with every change: the zxid of the reconfig that made this list; 0 before the ensemble was founded.
    pub version: u64,
}

/// The text is not one of `/zookeeper/config`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the membership, {text:?}: {problem}")]
pub struct BadMembers {
    line: usize,
    text: String,
    problem: String,
}

impl Members {
    /// Reads the text of `/zookeeper/config`: a line `server.N=…` for each member and a last one with the version.
    ///
    /// # Errors
    /// A line is neither, or names a server a second time.
    pub fn parse(text: &str) -> Result<Members, BadMembers> {
        let mut members = Members::default();
        for (index, line) in text.lines().enumerate() {
            members.take_line(line).map_err(|problem| BadMembers {
                line: index + 1,
                text: line.to_owned(),
                problem,
            })?;
        }
        Ok(members)
    }

    fn take_line(&mut self, line: &str) -> Result<(), String> {
        let (key, value) = line.split_once('=').ok_or("expected server.N=… or version=…")?;
        if key == "version" {
            self.version = u64::from_str_radix(value, 16).map_err(|_| "the version is no hexadecimal number")?;
            return Ok(());
        }
        let id = key.strip_prefix("server.").and_then(|number| number.parse().ok());
        let id = id
            .and_then(ServerId::new)
            .ok_or("expected server.N with N from 1 to 254")?;
        match self.servers.insert(id, Server::parse(value)?) {
            Some(_) => Err(format!("server {id} has a line already")),
            None => Ok(()),
        }
    }

    /// The members that vote, or shall once they have caught up.
    pub fn participants(&self) -> impl Iterator<Item = (ServerId, &Server)> {
        self.of_type(PeerType::Participant)
    }

    /// The members that never vote.
    pub fn observers(&self) -> impl Iterator<Item = (ServerId, &Server)> {
        self.of_type(PeerType::Observer)
    }

    fn of_type(&self, wanted: PeerType) -> impl Iterator<Item = (ServerId, &Server)> {
        let all = self.servers.iter().map(|(id, server)| (*id, server));
        all.filter(move |(_, server)| server.peer_type == wanted)
    }

    /// Whether `server` is one of the participants.
    pub fn is_participant(&self, server: ServerId) -> bool {
        self.servers
            .get(&server)
            .is_some_and(|server| server.peer_type == PeerType::Participant)
    }

    /// Whether those participants of which `is_there` holds are more than half of all.
    pub fn have_majority(&self, is_there: impl Fn(ServerId) -> bool) -> bool {
        let there = self.participants().filter(|(id, _)| is_there(*id)).count();
        there * 2 > self.participants().count()
    }
}

/// The text of `/zookeeper/config`, without a newline at its end.
impl fmt::Display for Members {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, server) in &self.servers {
            writeln!(formatter, "server.{id}={server}")?;
        }
        write!(formatter, "version={:x}", self.version)
    }
}

#[cfg(test)]
mod tests;
