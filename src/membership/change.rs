//! What a client may ask for: servers that join and leave, or a whole new list.
//!
//! The order of the checks, and what counts as malformed rather than refused, is ZooKeeper's, as far as it can be seen
//! from outside; there the difference is often an exception that nobody caught.

use super::{Host, Members, Server, ServerId};
use std::net::IpAddr;

/// The list of members cannot be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// What should be a number is none, or the list is one that ZooKeeper fails to look at.
    #[error("malformed: {0}")]
    Malformed(String),
    /// It can be read, and must not be.
    #[error("refused: {0}")]
    Refused(String),
    /// ZooKeeper would take a server of this number: who asks must have the right to it before it is refused.
    #[error("a server's number is from 1 to 254, {0} is none: in session ids there is room for these alone")]
    NoNumber(i64),
}

/// What the configuration of the leader allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `multiAddress.enabled`: a server may have several addresses.
    pub several_addresses: bool,
    /// `standaloneEnabled`: an ensemble has at least two participants, because one alone stands alone.
    pub lone_server_stands_alone: bool,
}

fn malformed<T>(what: &str) -> Result<T, ChangeError> {
    Err(ChangeError::Malformed(what.to_owned()))
}

fn refused<T>(what: &str) -> Result<T, ChangeError> {
    Err(ChangeError::Refused(what.to_owned()))
}

impl Members {
    /// This list without the servers in `leaving` (ids with commas between), then with those in `joining` (`server.N=…`
    /// with commas between), which replace those of the same id. The version stays.
    ///
    /// # Errors
    /// As [`ChangeError`] says. A server that joins must have a client port, and no address that another one has.
    pub fn changed(
        &self,
        joining: Option<&str>,
        leaving: Option<&str>,
        allowed: Allowed,
    ) -> Result<Members, ChangeError> {
        let mut next = self.clone();
        for leaving in parts(leaving.unwrap_or_default(), ',') {
            let Ok(number) = leaving.parse() else {
                return malformed("a server that leaves is named by its number alone");
            };
            if let Some(id) = ServerId::new(number) {
                next.servers.remove(&id);
            }
        }
        for joining in parts(joining.unwrap_or_default(), ',') {
            next.join(joining, allowed)?;
        }
        next.checked(allowed)
    }

    fn join(&mut self, line: &str, allowed: Allowed) -> Result<(), ChangeError> {
        let halves: Vec<&str> = parts(line, '=').collect();
        let [key, value] = halves.as_slice() else {
            return refused("a server that joins has the form server.N=…");
        };
        let number = key.rsplit_once('.').map_or(*key, |(_, number)| number);
        let number = parse_number(number)?;
        let server = parse_server(value, allowed)?;
        if server.client.is_none() {
            return refused("a server that joins needs a client port");
        }
        let id = ServerId::new(number).ok_or(ChangeError::NoNumber(number))?;
        let mut others = self.servers.iter().filter(|(other, _)| **other != id);
        if others.any(|(_, other)| share_an_address(&server, other)) {
            return refused("another server has this address");
        }
        self.servers.insert(id, server);
        Ok(())
    }

    /// The list that `text` says, in lines or with commas between; a version in it means nothing. The version of the
    /// result is that of `self`.
    ///
    /// # Errors
    /// As [`ChangeError`] says. Weights and groups are refused, which ZooKeeper takes: a plain majority decides here.
    pub fn replaced(&self, text: &str, allowed: Allowed) -> Result<Members, ChangeError> {
        let text = text.replace(',', "\n");
        let entries: Vec<(&str, &str)> = text.lines().filter_map(entry).collect();
        if entries
            .iter()
            .any(|(key, _)| !key.starts_with("server.") && *key != "version")
        {
            return refused("a line is neither server.N=… nor the version");
        }
        let mut next = Members {
            version: self.version,
            ..Members::default()
        };
        for (key, value) in entries {
            match key.strip_prefix("server.") {
                // As in Java's properties, the last of two lines counts.
                Some(number) => {
                    let number = parse_number(number)?;
                    let server = parse_server(value, allowed)?;
                    let id = ServerId::new(number).ok_or(ChangeError::NoNumber(number))?;
                    next.servers.insert(id, server);
                }
                None if i64::from_str_radix(value, 16).is_err() => return malformed("the version is no number"),
                None => {}
            }
        }
        let (participants, observers) = (next.participants().count(), next.observers().count());
        let lone = allowed.lone_server_stands_alone;
        if (participants == 0 && !lone) || (participants <= usize::from(lone) && observers > 0) {
            return malformed("observers need participants");
        }
        next.checked(allowed)
    }

    fn checked(self, allowed: Allowed) -> Result<Members, ChangeError> {
        let least = if allowed.lone_server_stands_alone { 2 } else { 1 };
        if self.participants().count() < least {
            return Err(ChangeError::Refused(format!(
                "there must be {least} participants at least"
            )));
        }
        Ok(self)
    }

    /// The version of a list that takes the place of this one at `zxid`: the zxid, unless an imported list had a greater
    /// one, for a version never goes back.
    #[must_use]
    pub fn next_version(&self, zxid: u64) -> u64 {
        zxid.max(self.version.saturating_add(1))
    }
}

/// The parts of a list, without those that are blank.
fn parts(list: &str, separator: char) -> impl Iterator<Item = &str> {
    list.split(separator).map(str::trim).filter(|part| !part.is_empty())
}

/// Key and value of a line in the form of Java's properties, but for its escapes, which no membership needs. `None` for a
/// blank line and a comment.
fn entry(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', '!']) {
        return None;
    }
    let end = line.find(['=', ':', ' ', '\t']).unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start();
    Some((key, rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start()))
}

fn parse_number(number: &str) -> Result<i64, ChangeError> {
    let Ok(number) = number.trim().parse() else {
        return malformed("the N of server.N is no number");
    };
    Ok(number)
}

fn parse_server(value: &str, allowed: Allowed) -> Result<Server, ChangeError> {
    let server = Server::parse(value).map_err(ChangeError::Refused)?;
    if server.addresses.len() > 1 && !allowed.several_addresses {
        return refused("several addresses need multiAddress.enabled=true");
    }
    Ok(server)
}

/// Whether any address of one server is one of the other. Those of this machine alone and "all of this machine's" mean
/// another place on each server. Names are compared as they stand: resolving them would give each member its own answer.
fn share_an_address(one: &Server, other: &Server) -> bool {
    let others: Vec<_> = telling_addresses(other).collect();
    telling_addresses(one).any(|address| others.contains(&address))
}

fn telling_addresses(server: &Server) -> impl Iterator<Item = (String, u16)> {
    let peers = server.addresses.iter().flat_map(|address| {
        [
            (&address.host, address.quorum_port),
            (&address.host, address.election_port),
        ]
    });
    let client = server.client.iter().map(|address| (&address.host, address.port));
    peers.chain(client).filter_map(|(host, port)| match host {
        Host::Any => None,
        Host::Ip(ip) if is_loopback(*ip) => None,
        Host::Name(name) if name.eq_ignore_ascii_case("localhost") => None,
        host => Some((host.to_string().to_ascii_lowercase(), port)),
    })
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
