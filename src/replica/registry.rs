//! Which life of each member counts: a vote or an acknowledgement of another life is worth nothing, because that member
//! has forgotten what it had promised before.
//!
//! ```text
//!   registry   vector<{server:8, incarnation:8}>
//! ```

use super::peer::Peer;
use crate::proto::jute::{Decoder, Encode, Malformed};
use crate::state_machine::ServerId;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// The registered incarnation of every member that has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    incarnations: BTreeMap<ServerId, u64>,
}

impl Registry {
    /// A registry of these members.
    pub fn new(members: impl IntoIterator<Item = (ServerId, u64)>) -> Registry {
        Registry {
            incarnations: members.into_iter().collect(),
        }
    }

    /// The registered incarnation of a member.
    pub fn of(&self, server: ServerId) -> Option<u64> {
        self.incarnations.get(&server).copied()
    }

    /// Whether this life of the member is the one that counts. Where nothing is registered, as with a server that has
    /// always been alone, every life does.
    pub fn counts(&self, peer: Peer) -> bool {
        self.of(peer.server) == Some(peer.incarnation) || planted!(VoteAfterWipe)
    }

    /// Registers a member's life.
    pub fn set(&mut self, server: ServerId, incarnation: u64) {
        self.incarnations.insert(server, incarnation);
    }

    /// The member is no member any more.
    pub fn remove(&mut self, server: ServerId) {
        self.incarnations.remove(&server);
    }

    /// All members.
    pub fn iter(&self) -> impl Iterator<Item = (ServerId, u64)> {
        self.incarnations
            .iter()
            .map(|(server, incarnation)| (*server, *incarnation))
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.write_count(self.incarnations.len());
        for (server, incarnation) in &self.incarnations {
            out.put_u64(server.0);
            out.put_u64(*incarnation);
        }
        out.freeze()
    }

    /// Reads one; no bytes are an empty one.
    pub fn decode(bytes: &Bytes) -> Result<Registry, Malformed> {
        if bytes.is_empty() {
            return Ok(Registry::default());
        }
        let mut decoder = Decoder::new(bytes);
        let members = decoder.vector(16, |decoder| {
            Ok((
                ServerId(decoder.long()?.cast_unsigned()),
                decoder.long()?.cast_unsigned(),
            ))
        })?;
        Ok(Registry::new(members.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_survives_the_disk() {
        let registry = Registry::new([(ServerId(1), 7), (ServerId(2), u64::MAX)]);
        assert_eq!(Registry::decode(&registry.to_bytes()), Ok(registry));
        assert_eq!(Registry::decode(&Bytes::new()), Ok(Registry::default()));
    }
}
