//! What members say to each other.
//!
//! ```text
//!   message    kind:1  body
//!   raft       to_incarnation:8  protobuf
//!   forward    term:8 stream:8 first:8  command list
//!   taken      term:8 stream:8 next:8
//!   touches    number:8  vector<session:8>
//!   touched    number:8
//!   digest     zxid:8 digest:8
//!   founded    cluster_id:8
//!   holding    vector<{server:8 incarnation:8 index:8}>
//!   reach      index:8
//!   forgotten  index:8
//!   members    text
//!   short
//! ```
//!
//! A message comes over a link whose hello has told whose it is; links lose messages only as a whole tail, simulated ones
//! lose, repeat and reorder them as they like.

use crate::membership::Members;
use crate::proto::jute::{Decoder, Encode, Malformed};
use crate::proto::{SessionId, Zxid};
use crate::state_machine::{Command, ServerId};
use bytes::{BufMut, Bytes, BytesMut};
use protobuf::Message as _;
use raft::prelude::{Message, MessageType};

/// What an entry takes beside its data, about.
const ENTRY_BYTES: usize = 16;

const RAFT: u8 = 1;
const FORWARD: u8 = 2;
const TAKEN: u8 = 3;
const TOUCHES: u8 = 4;
const TOUCHED: u8 = 5;
const DIGEST: u8 = 6;
const FOUNDED: u8 = 7;
const HOLDING: u8 = 8;
const REACH: u8 = 9;
const FORGOTTEN: u8 = 10;
const MEMBERS: u8 = 11;
const SHORT: u8 = 12;

/// Who speaks: what the hello of its link has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// The member.
    pub server: ServerId,
    /// The life of its data directory. A member that has lost its data comes back with another one.
    pub incarnation: u64,
}

/// What one member tells another.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerMessage {
    /// raft's own.
    Raft {
        /// For which life of the receiver it is; 0 for any. What relies on the receiver's memory is for one life only.
        to_incarnation: u64,
        /// The message.
        message: Message,
    },
    /// Commands of the sender's sessions, for the leader.
    Forward {
        /// A leader takes only those of its own term.
        term: u64,
        /// See the outbox.
        stream: u64,
        /// Number of the first.
        first: u64,
        /// The commands, in order.
        commands: Vec<Command>,
    },
    /// The leader's answer: it waits for the command `next`.
    Taken {
        /// As forwarded.
        term: u64,
        /// As forwarded.
        stream: u64,
        /// What is to come next.
        next: u64,
    },
    /// Signs of life of the sender's sessions, for the leader.
    Touches {
        /// To be confirmed.
        number: u64,
        /// Whose.
        sessions: Vec<SessionId>,
    },
    /// The leader's answer.
    Touched {
        /// As sent.
        number: u64,
    },
    /// The sender's state had this digest at this zxid.
    Digest {
        /// When.
        zxid: Zxid,
        /// What.
        digest: u64,
    },
    /// The sender has founded the ensemble: for those who were linked with it before.
    Founded {
        /// How it is known from now on.
        cluster_id: u64,
    },
    /// The leader's: how far the members' logs reach for certain.
    Holding {
        /// Each member, and the last entry that it has acknowledged and that is committed.
        members: Vec<(Peer, u64)>,
    },
    /// How far the sender's log reaches.
    Reach {
        /// Its last entry on disk.
        index: u64,
    },
    /// Who belongs to the ensemble, as far as the sender knows: so that a newcomer, whose file names some of them, can
    /// answer all.
    Members(Members),
    /// The receiver's log reaches less far than it has acknowledged.
    Forgotten {
        /// How far it should reach.
        index: u64,
    },
    /// The sender's disk is short of space.
    Short,
}

impl PeerMessage {
    /// Whether it installs a snapshot.
    pub fn is_snapshot(&self) -> bool {
        matches!(self, PeerMessage::Raft { message, .. } if message.get_msg_type() == MessageType::MsgSnapshot)
    }

    /// Bytes of the entries that it brings, about: more than 0 if there is one, an empty one included.
    pub fn entries_bytes(&self) -> usize {
        match self {
            PeerMessage::Raft { message, .. } if message.get_msg_type() == MessageType::MsgAppend => {
                let entries = message.get_entries().iter();
                entries
                    .map(|entry| ENTRY_BYTES + entry.data.len() + entry.context.len())
                    .sum()
            }
            _ => 0,
        }
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            PeerMessage::Raft {
                to_incarnation,
                message,
            } => {
                let size_bytes = message.compute_size() as usize;
                out.reserve(9 + size_bytes);
                out.put_u8(RAFT);
                out.put_u64(*to_incarnation);
                // Writing into memory that grows cannot fail.
                let _ = message.write_to_writer(&mut (&mut out).writer());
            }
            PeerMessage::Forward {
                term,
                stream,
                first,
                commands,
            } => {
                out.reserve(29 + commands.iter().map(Command::size_bytes).sum::<usize>());
                out.put_u8(FORWARD);
                out.put_u64(*term);
                out.put_u64(*stream);
                out.put_u64(*first);
                Command::encode_list(commands, &mut out);
            }
            PeerMessage::Taken { term, stream, next } => {
                out.put_u8(TAKEN);
                out.put_u64(*term);
                out.put_u64(*stream);
                out.put_u64(*next);
            }
            PeerMessage::Touches { number, sessions } => {
                out.put_u8(TOUCHES);
                out.put_u64(*number);
                out.write_count(sessions.len());
                sessions.iter().for_each(|session| out.write_long(session.0));
            }
            PeerMessage::Touched { number } => {
                out.put_u8(TOUCHED);
                out.put_u64(*number);
            }
            PeerMessage::Digest { zxid, digest } => {
                out.put_u8(DIGEST);
                out.write_long(zxid.0);
                out.put_u64(*digest);
            }
            PeerMessage::Founded { cluster_id } => {
                out.put_u8(FOUNDED);
                out.put_u64(*cluster_id);
            }
            PeerMessage::Holding { members } => {
                out.put_u8(HOLDING);
                out.write_count(members.len());
                for (member, index) in members {
                    out.put_u64(member.server.0);
                    out.put_u64(member.incarnation);
                    out.put_u64(*index);
                }
            }
            PeerMessage::Reach { index } => {
                out.put_u8(REACH);
                out.put_u64(*index);
            }
            PeerMessage::Members(members) => {
                out.put_u8(MEMBERS);
                out.write_text(&members.to_string());
            }
            PeerMessage::Forgotten { index } => {
                out.put_u8(FORGOTTEN);
                out.put_u64(*index);
            }
            PeerMessage::Short => out.put_u8(SHORT),
        }
        out.freeze()
    }

    /// Reads one. Commands' bodies are slices of `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<PeerMessage, Malformed> {
        let (kind, rest) = bytes.split_first().ok_or(Malformed::Truncated)?;
        let rest = bytes.slice_ref(rest);
        let mut decoder = Decoder::new(&rest);
        let mut number = || Ok::<_, Malformed>(decoder.long()?.cast_unsigned());
        Ok(match *kind {
            RAFT => PeerMessage::Raft {
                to_incarnation: number()?,
                message: Message::parse_from_bytes(&decoder.take_rest()).map_err(|_| Malformed::UnknownKind)?,
            },
            FORWARD => PeerMessage::Forward {
                term: number()?,
                stream: number()?,
                first: number()?,
                commands: Command::decode_list(&mut decoder)?,
            },
            TAKEN => PeerMessage::Taken {
                term: number()?,
                stream: number()?,
                next: number()?,
            },
            TOUCHES => PeerMessage::Touches {
                number: number()?,
                sessions: decoder
                    .vector(8, |decoder| decoder.long().map(SessionId))?
                    .unwrap_or_default(),
            },
            TOUCHED => PeerMessage::Touched { number: number()? },
            DIGEST => PeerMessage::Digest {
                zxid: Zxid(number()?.cast_signed()),
                digest: number()?,
            },
            FOUNDED => PeerMessage::Founded { cluster_id: number()? },
            HOLDING => PeerMessage::Holding {
                members: decoder.vector(24, held)?.unwrap_or_default(),
            },
            REACH => PeerMessage::Reach { index: number()? },
            FORGOTTEN => PeerMessage::Forgotten { index: number()? },
            MEMBERS => {
                let members = Members::parse(&decoder.text()?).map_err(|_| Malformed::UnknownKind)?;
                PeerMessage::Members(members)
            }
            SHORT => PeerMessage::Short,
            _ => return Err(Malformed::UnknownKind),
        })
    }
}

fn held(decoder: &mut Decoder<'_>) -> Result<(Peer, u64), Malformed> {
    let member = Peer {
        server: ServerId(decoder.long()?.cast_unsigned()),
        incarnation: decoder.long()?.cast_unsigned(),
    };
    Ok((member, decoder.long()?.cast_unsigned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Identity, OpCode, Xid};
    use crate::state_machine::Origin;
    use raft::prelude::Entry;

    #[test]
    fn messages_survive_the_link() {
        let mut message = Message {
            term: 3,
            from: 1,
            to: 2,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgAppend);
        message.set_entries(
            vec![Entry {
                index: 9,
                data: b"data".as_ref().into(),
                ..Entry::default()
            }]
            .into(),
        );
        let command = Command {
            origin: Origin::default(),
            session: SessionId(4),
            xid: Xid(5),
            identities: [Identity::new("ip", "::1")].into(),
            op: OpCode::Delete,
            body: Bytes::from_static(b"body"),
        };
        for message in [
            PeerMessage::Raft {
                to_incarnation: 77,
                message,
            },
            PeerMessage::Forward {
                term: 1,
                stream: u64::MAX,
                first: 3,
                commands: vec![command],
            },
            PeerMessage::Taken {
                term: 1,
                stream: 2,
                next: 3,
            },
            PeerMessage::Touches {
                number: 1,
                sessions: vec![SessionId(-1), SessionId(2)],
            },
            PeerMessage::Touched { number: 1 },
            PeerMessage::Digest {
                zxid: Zxid(128),
                digest: u64::MAX,
            },
            PeerMessage::Founded { cluster_id: 8 },
            PeerMessage::Holding {
                members: vec![(
                    Peer {
                        server: ServerId(1),
                        incarnation: u64::MAX,
                    },
                    7,
                )],
            },
            PeerMessage::Reach { index: 4 },
            PeerMessage::Forgotten { index: 5 },
            PeerMessage::Members(Members::parse("server.1=a:1:2:participant\nversion=a0").unwrap()),
            PeerMessage::Short,
        ] {
            assert_eq!(PeerMessage::decode(&message.to_bytes()), Ok(message));
        }
        assert_eq!(PeerMessage::decode(&Bytes::new()), Err(Malformed::Truncated));
        assert_eq!(
            PeerMessage::decode(&Bytes::from_static(&[99])),
            Err(Malformed::UnknownKind)
        );
    }
}
