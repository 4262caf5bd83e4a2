//! Commands: what the log holds.
//!
//! One raft entry is a [`Batch`]: the leader's [`Stamp`] and the commands that were waiting. A command carries the
//! request's jute body as it was received; nothing is encoded anew on its way from the client to the log.
//!
//! ```text
//!   entry    version:1  time_ms:8  rules:4  count:4  command*
//!   command  server:8 connection:8 session:8 xid:4 op:4  identities: vector<{scheme, id}>  body: buffer
//! ```

use crate::membership::{Members, ServerId as MemberId};
use crate::proto::connect::PASSWORD_BYTES;
use crate::proto::jute::{Decoder, Encode, Malformed};
use crate::proto::request::ReconfigRequest;
use crate::proto::{Identity, OpCode, SessionId, Xid};
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;

/// First byte of every entry; another one belongs to a format that this program does not know.
const FORMAT_VERSION: u8 = 1;

/// A member of the ensemble: ZooKeeper's `myid`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u64);

impl From<MemberId> for ServerId {
    fn from(member: MemberId) -> ServerId {
        ServerId(u64::from(member.get()))
    }
}

impl ServerId {
    /// The id as it stands in a membership; `None` if no member can have it.
    pub fn member(self) -> Option<MemberId> {
        MemberId::new(i64::try_from(self.0).ok()?)
    }
}

/// A client connection of one server, numbered from 1 by that server since it started. 0 stands for the server itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Where a command came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The server that took the request.
    pub server: ServerId,
    /// Its connection; 0 for commands that a leader proposes of itself (expiry, container removal).
    pub connection: ConnectionId,
}

impl Origin {
    /// Whether the leader proposed this command of itself.
    pub fn is_internal(self) -> bool {
        self.connection.0 == 0
    }
}

/// Settings of the leader that decide outcomes. They travel with each entry, so that members whose configuration files
/// differ still agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules(pub u32);

impl Rules {
    /// `skipACL`: nothing is forbidden.
    pub const SKIP_ACL: Rules = Rules(1);
    /// `enforceQuota`: hard quotas refuse.
    pub const ENFORCE_QUOTA: Rules = Rules(1 << 1);
    /// `extendedTypesEnabled`: TTL znodes may be created.
    pub const EXTENDED_TYPES: Rules = Rules(1 << 2);
    /// `emulate353TTLNodes`: TTLs are stored as 3.5.3 stored them.
    pub const EMULATE_353_TTL: Rules = Rules(1 << 3);
    /// `reconfigEnabled`.
    pub const RECONFIG: Rules = Rules(1 << 4);
    /// This server is configured to be alone: reconfig has no meaning.
    pub const STANDALONE: Rules = Rules(1 << 5);
    /// `DigestAuthenticationProvider.enabled`: the digest scheme may be named in ACLs.
    pub const DIGEST_SCHEME: Rules = Rules(1 << 6);
    /// The sasl scheme may be named in ACLs.
    pub const SASL_SCHEME: Rules = Rules(1 << 7);
    /// The x509 scheme may be named in ACLs.
    pub const X509_SCHEME: Rules = Rules(1 << 8);
    /// `standaloneEnabled`: a reconfig must leave two participants at least.
    pub const STANDALONE_ENABLED: Rules = Rules(1 << 9);
    /// `multiAddress.enabled`: a server may have several addresses.
    pub const MULTI_ADDRESS: Rules = Rules(1 << 10);
    /// The leader's disk is short of space: what makes the state larger fails with [`SystemError`], after all other
    /// checks. Deletes, sessions that open and close, and writes that leave the size as it is go on.
    ///
    /// That code, because every client knows it, takes it as a failure that changed nothing, and repeats nothing by itself.
    /// `QuotaExceeded` would say more, but Java clients before 3.7 and kazoo throw at a code that they do not know;
    /// `OperationTimeout` is repeated by Curator, kazoo and HBase, and says that the write may have happened.
    ///
    /// [`SystemError`]: crate::proto::ErrorCode::SystemError
    pub const NO_GROWTH: Rules = Rules(1 << 11);

    /// Whether all of `rules` are set.
    pub fn has(self, rules: Rules) -> bool {
        self.0 & rules.0 == rules.0
    }

    /// These rules, and `rules` if `on`.
    #[must_use]
    pub fn with(self, rules: Rules, on: bool) -> Rules {
        if on { Rules(self.0 | rules.0) } else { self }
    }

    /// These rules but for `rules`.
    #[must_use]
    pub fn without(self, rules: Rules) -> Rules {
        Rules(self.0 & !rules.0)
    }
}

/// What the leader says about all commands of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The leader's wall clock, ms since 1970.
    pub time_ms: i64,
    /// Its rules.
    pub rules: Rules,
}

/// Something to be done to the state, in the order of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Where it came from.
    pub origin: Origin,
    /// On behalf of which session.
    pub session: SessionId,
    /// The request's number.
    pub xid: Xid,
    /// Who asks: the connection's identities when the request arrived.
    pub identities: Arc<[Identity]>,
    /// What to do.
    pub op: OpCode,
    /// The request's body as received; for session commands a [`SessionBody`]; for deleteContainer the path as a buffer;
    /// for setMembership a [`MembershipBody`]. The leader has appended what it knows to a reconfig
    /// ([`Command::with_leader_knowledge`]).
    pub body: Bytes,
}

/// One raft entry's worth of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The leader's stamp.
    pub stamp: Stamp,
    /// The commands, in order.
    pub commands: Vec<Command>,
}

/// Body of createSession and attachSession.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionBody {
    /// The negotiated timeout, ms.
    pub timeout_ms: i32,
    /// createSession: the new session's password, made by the origin. attachSession: what the client gave.
    pub password: [u8; PASSWORD_BYTES],
}

impl SessionBody {
    /// Reads one.
    pub fn decode(body: &Bytes) -> Result<SessionBody, Malformed> {
        let mut decoder = Decoder::new(body);
        let timeout_ms = decoder.int()?;
        let password = decoder
            .take_rest()
            .as_ref()
            .try_into()
            .map_err(|_| Malformed::BadLength)?;
        Ok(SessionBody { timeout_ms, password })
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(4 + PASSWORD_BYTES);
        out.write_int(self.timeout_ms);
        out.put_slice(&self.password);
        out.freeze()
    }
}

/// Body of setMembership: `replaces:8 (-1: none)  text of the membership`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipBody {
    /// The version of the membership whose place it takes; `None`: there is none yet. Else nothing happens, so that the
    /// first leader and the second do not both write one.
    pub replaces: Option<u64>,
    /// Who belongs to the ensemble. With the version 0, it gets the zxid of the command as its version.
    pub members: Members,
}

impl MembershipBody {
    /// Reads one.
    ///
    /// # Errors
    /// The text is no membership, or is cut off.
    pub fn decode(body: &Bytes) -> Result<MembershipBody, Malformed> {
        let mut decoder = Decoder::new(body);
        let replaces = decoder.long()?;
        let members = Members::parse(&decoder.text()?).map_err(|_| Malformed::UnknownKind)?;
        Ok(MembershipBody {
            replaces: u64::try_from(replaces).ok(),
            members,
        })
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        let replaces = self.replaces.map(|version| i64::try_from(version).unwrap_or(i64::MAX));
        out.write_long(replaces.unwrap_or(-1));
        out.write_text(&self.members.to_string());
        out.freeze()
    }
}

/// What only a leader can say of a reconfig. It stands behind the request's body: `servers:vector<8>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderKnowledge {
    /// The servers that the leader is in contact with, itself included.
    pub in_contact: Vec<ServerId>,
}

impl LeaderKnowledge {
    /// Whether the leader is in contact with `server`.
    pub fn is_in_contact(&self, server: MemberId) -> bool {
        self.in_contact.contains(&server.into())
    }

    /// What stands behind the body that was read; `None` if nothing does that could be it.
    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Option<LeaderKnowledge> {
        let in_contact = decoder.vector(8, Decoder::long).ok()??;
        Some(LeaderKnowledge {
            in_contact: in_contact.into_iter().map(|id| ServerId(id.cast_unsigned())).collect(),
        })
    }

    fn encode(&self, out: &mut BytesMut) {
        out.write_count(self.in_contact.len());
        for server in &self.in_contact {
            out.write_long(server.0.cast_signed());
        }
    }
}

impl Command {
    /// This command as a leader proposes it: with what it knows, if this is a reconfig. Every reconfig has to pass through
    /// here, whoever took it from its client, for whatever the client wrote behind its request is cut off. A body that
    /// cannot be read stays as it is, and fails when it is applied.
    #[must_use]
    pub fn with_leader_knowledge(mut self, knowledge: &LeaderKnowledge) -> Command {
        let mut decoder = Decoder::new(&self.body);
        if self.op == OpCode::Reconfig && ReconfigRequest::decode(&mut decoder).is_ok() {
            let request_bytes = self.body.len() - decoder.remaining();
            let mut body = BytesMut::from(&self.body[..request_bytes]);
            knowledge.encode(&mut body);
            self.body = body.freeze();
        }
        self
    }

    /// Fewest bytes in an entry.
    const LEAST_BYTES: usize = 8 + 8 + 8 + 4 + 4 + 4 + 4;

    /// About how many bytes it takes in an entry, for limits of batches and queues.
    pub fn size_bytes(&self) -> usize {
        let identities: usize = self
            .identities
            .iter()
            .map(|identity| 8 + identity.scheme.len() + identity.id.len())
            .sum();
        Command::LEAST_BYTES + identities + self.body.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64(self.origin.server.0);
        out.put_u64(self.origin.connection.0);
        out.write_long(self.session.0);
        out.write_int(self.xid.0);
        out.write_int(self.op.to_wire());
        out.write_count(self.identities.len());
        for identity in self.identities.iter() {
            identity.encode(out);
        }
        out.write_buffer(Some(&self.body));
    }

    fn decode<'a>(decoder: &mut Decoder<'a>, known: &mut KnownIdentities<'a>) -> Result<Command, Malformed> {
        Ok(Command {
            origin: Origin {
                server: ServerId(decoder.long()?.cast_unsigned()),
                connection: ConnectionId(decoder.long()?.cast_unsigned()),
            },
            session: SessionId(decoder.long()?),
            xid: Xid(decoder.int()?),
            op: OpCode::from_wire(decoder.int()?).ok_or(Malformed::UnknownKind)?,
            identities: known.decode(decoder)?,
            body: decoder.buffer()?.ok_or(Malformed::UnexpectedNull)?,
        })
    }
}

impl Command {
    /// A list of commands on its way to the leader, as in an entry.
    pub fn encode_list(commands: &[Command], out: &mut BytesMut) {
        out.write_count(commands.len());
        for command in commands {
            command.encode(out);
        }
    }

    /// Reads one. Bodies are slices of what the decoder reads.
    pub fn decode_list(decoder: &mut Decoder<'_>) -> Result<Vec<Command>, Malformed> {
        let mut known = KnownIdentities::default();
        decoder
            .vector(Command::LEAST_BYTES, |decoder| Command::decode(decoder, &mut known))?
            .ok_or(Malformed::UnexpectedNull)
    }
}

/// The identities of the command before: those of neighbours are mostly the same, and are then neither read nor allocated
/// again.
#[derive(Default)]
struct KnownIdentities<'a> {
    /// Their bytes. A list says how long it is, so that the same bytes are the same list.
    encoded: &'a [u8],
    identities: Arc<[Identity]>,
}

impl<'a> KnownIdentities<'a> {
    fn decode(&mut self, decoder: &mut Decoder<'a>) -> Result<Arc<[Identity]>, Malformed> {
        if self.encoded.is_empty() || !decoder.skip(self.encoded) {
            let before = decoder.rest();
            self.identities = decoder
                .vector(Identity::LEAST_BYTES, Identity::decode)?
                .ok_or(Malformed::UnexpectedNull)?
                .into();
            self.encoded = &before[..before.len() - decoder.remaining()];
        }
        Ok(self.identities.clone())
    }
}

impl Batch {
    /// The bytes of a raft entry. `Command` is taken by reference so that the origin can keep what it waits for.
    pub fn encode(stamp: Stamp, commands: &[Command]) -> Bytes {
        let size_bytes = 17 + commands.iter().map(Command::size_bytes).sum::<usize>();
        let mut out = BytesMut::with_capacity(size_bytes);
        out.put_u8(FORMAT_VERSION);
        out.write_long(stamp.time_ms);
        out.put_u32(stamp.rules.0);
        Command::encode_list(commands, &mut out);
        out.freeze()
    }

    /// Reads a raft entry. Bodies are slices of `entry`: whatever outlives the entry must be copied out of it.
    pub fn decode(entry: &Bytes) -> Result<Batch, Malformed> {
        let (version, rest) = entry.split_first().ok_or(Malformed::Truncated)?;
        if *version != FORMAT_VERSION {
            return Err(Malformed::UnknownKind);
        }
        let rest = entry.slice_ref(rest);
        let mut decoder = Decoder::new(&rest);
        let time_ms = decoder.long()?;
        let rules = Rules(decoder.int()?.cast_unsigned());
        let commands = Command::decode_list(&mut decoder)?;
        Ok(Batch {
            stamp: Stamp { time_ms, rules },
            commands,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_survives_the_log() {
        let command = Command {
            origin: Origin {
                server: ServerId(3),
                connection: ConnectionId(9),
            },
            session: SessionId(-5),
            xid: Xid(17),
            identities: [Identity::new("ip", "127.0.0.1"), Identity::new("digest", "a:b")].into(),
            op: OpCode::SetData,
            body: Bytes::from_static(b"body"),
        };
        let stamp = Stamp {
            time_ms: 1234,
            rules: Rules::ENFORCE_QUOTA,
        };
        let entry = Batch::encode(stamp, &[command.clone(), command.clone()]);
        assert_eq!(
            Batch::decode(&entry),
            Ok(Batch {
                stamp,
                commands: vec![command.clone(), command]
            })
        );
    }

    #[test]
    fn commands_keep_their_own_identities() {
        let lists: [Vec<Identity>; 5] = [
            vec![Identity::new("ip", "127.0.0.1")],
            vec![Identity::new("ip", "127.0.0.1")],
            // Begins as the one before.
            vec![Identity::new("ip", "127.0.0.1"), Identity::new("digest", "a:b")],
            vec![],
            vec![Identity::new("ip", "127.0.0.10")],
        ];
        let commands = lists.map(|identities| Command {
            origin: Origin::default(),
            session: SessionId(1),
            xid: Xid(1),
            identities: identities.into(),
            op: OpCode::Delete,
            body: Bytes::from_static(b"body"),
        });
        let entry = Batch::encode(Stamp::default(), &commands);
        assert_eq!(Batch::decode(&entry).map(|batch| batch.commands), Ok(commands.to_vec()));
    }

    #[test]
    fn an_entry_of_another_format_is_refused() {
        assert_eq!(
            Batch::decode(&Bytes::from_static(&[9, 0, 0])),
            Err(Malformed::UnknownKind)
        );
        assert_eq!(Batch::decode(&Bytes::new()), Err(Malformed::Truncated));
    }
}
