//! A znode in memory: 128 bytes with a short name, besides its data and the list of its children.

use super::acl::AclId;
use super::data::Data;
use super::value::Value;
use crate::proto::{SessionId, Stat, Zxid};
use std::ops::Deref;

/// Where a znode lives in the arena. Reused after the znode is gone; never leaves this room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeId(pub(super) u32);

impl NodeId {
    /// `/`, which is made first and never deleted.
    pub(super) const ROOT: NodeId = NodeId(0);
    /// Nobody's id: the root's parent.
    pub(super) const NONE: NodeId = NodeId(u32::MAX);
}

/// What is kept of a znode besides name and data: Apache's `StatPersisted`, and the ACL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredStat {
    /// zxid that created it.
    pub czxid: Zxid,
    /// zxid that last set its data.
    pub mzxid: Zxid,
    /// zxid of the last creation or deletion of a child.
    pub pzxid: Zxid,
    /// When it was created, ms since 1970.
    pub ctime: i64,
    /// When its data was last set, ms since 1970.
    pub mtime: i64,
    /// 0; the session of an ephemeral; or what marks a container or TTL znode ([`Kind::from_owner`]).
    pub owner: i64,
    /// How often its data was set. Wraps.
    pub version: i32,
    /// How often a child was created, ever. Wraps. Sequential names are made of it.
    pub creates: i32,
    /// How often its ACL was set. Wraps.
    pub aversion: i32,
    /// Its ACL, by number.
    pub acl: AclId,
}

/// What decides how a znode ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// By delete only.
    Persistent,
    /// With its session.
    Ephemeral,
    /// When it has lost its last child.
    Container,
    /// When it has had no children and no change of data for so many ms.
    Ttl(i64),
}

/// The owner of containers.
pub(super) const CONTAINER_OWNER: i64 = i64::MIN;
/// The owner of TTL znodes is this and their ms, which have 40 bits.
const TTL_MASK: i64 = 0xff00_0000_0000_0000_u64.cast_signed();
/// The longest time to live, ms.
pub(super) const TTL_MOST_MS: i64 = 0x00ff_ffff_ffff;
/// The owner of TTL znodes as 3.5.3 stored them is the highest bit and their ms. They may come with an imported
/// snapshot; none is made any more, with or without `emulate353TTLNodes`, which in Apache is about reading them too.
const TTL_MOST_MS_353: i64 = i64::MAX;

impl Kind {
    /// The kind that a stored owner stands for. Session ids of servers 128 and 255 look like TTL marks, so whether the
    /// owner is a session that lives decides first: an ephemeral exists exactly as long as its session.
    pub(super) fn from_owner(owner: i64, session_lives: bool) -> Kind {
        match owner {
            0 => Kind::Persistent,
            _ if session_lives => Kind::Ephemeral,
            CONTAINER_OWNER => Kind::Container,
            _ if owner & TTL_MASK == TTL_MASK => Kind::Ttl(owner & TTL_MOST_MS),
            _ if owner < 0 => Kind::Ttl(owner & TTL_MOST_MS_353),
            _ => Kind::Ephemeral,
        }
    }

    /// The stored owner of a TTL znode.
    pub(super) fn ttl_owner(ttl_ms: i64) -> i64 {
        assert!(
            (1..=TTL_MOST_MS).contains(&ttl_ms),
            "a ttl is within 1..={TTL_MOST_MS} ms, this one is {ttl_ms}"
        );
        TTL_MASK | ttl_ms
    }
}

/// A znode's name: within the znode if it is short, because then a look-up reads one cache line less.
#[derive(Debug)]
pub(super) enum Name {
    Short { length: u8, bytes: [u8; SHORT_NAME_BYTES] },
    Long(Box<[u8]>),
}

/// Makes [`Name`] 24 bytes.
const SHORT_NAME_BYTES: usize = 22;

impl Name {
    fn new(name: &[u8]) -> Name {
        match u8::try_from(name.len()) {
            Ok(length) if name.len() <= SHORT_NAME_BYTES => {
                let mut bytes = [0; SHORT_NAME_BYTES];
                bytes[..name.len()].copy_from_slice(name);
                Name::Short { length, bytes }
            }
            _ => Name::Long(name.into()),
        }
    }

    /// What it takes in memory besides the znode, bytes.
    pub(super) fn resident_bytes(&self) -> u64 {
        match self {
            Name::Short { .. } => 0,
            Name::Long(name) => (name.len() as u64 + 8).next_multiple_of(16),
        }
    }
}

impl Deref for Name {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Name::Short { length, bytes } => &bytes[..usize::from(*length)],
            Name::Long(name) => name,
        }
    }
}

/// The children of a znode, in no order that means anything (but the same one on every member that applied the same
/// commands). Boxed by its owner, because most znodes have none.
#[derive(Debug, Default)]
pub(super) struct Children(pub(super) Vec<NodeId>);

/// Which of a znode's records the next checkpoint must write, and whether one has written it before: bits of one byte,
/// because every znode has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks(u8);

impl Marks {
    /// Its small record changed.
    pub(super) const STAT: Marks = Marks(1);
    /// Its data changed.
    pub(super) const DATA: Marks = Marks(1 << 1);
    /// A checkpoint holds a record under this path: if the znode goes, the record must.
    pub(super) const STORED: Marks = Marks(1 << 2);

    /// Whether any of `marks` is set.
    pub(super) fn has(self, marks: Marks) -> bool {
        self.0 & marks.0 != 0
    }

    /// These, and `marks`.
    #[must_use]
    pub(super) fn with(self, marks: Marks) -> Marks {
        Marks(self.0 | marks.0)
    }
}

/// A znode.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) stat: StoredStat,
    /// Its name without the parents; empty for the root.
    pub(super) name: Name,
    pub(super) data: Data,
    pub(super) children: Option<Box<Children>>,
    pub(super) parent: NodeId,
    /// Its place among the parent's children.
    pub(super) position: u32,
    /// CRC32 of path and data, from which the digest goes on.
    pub(super) body_checksum: u32,
    /// Below `/zookeeper`: no part of the digest.
    pub(super) is_hidden: bool,
    /// The kind is told by the owner, but for session ids that look like a TTL mark.
    pub(super) is_ephemeral: bool,
    pub(super) marks: Marks,
    /// Its children are still on the disk alone (`residency`): nobody may ask for them before they were brought.
    pub(super) children_absent: bool,
}

impl Node {
    pub(super) fn new(name: &[u8], stat: StoredStat, data: Option<Value>, is_ephemeral: bool) -> Node {
        Node {
            stat,
            name: Name::new(name),
            data: data.into(),
            children: None,
            parent: NodeId::NONE,
            position: 0,
            body_checksum: 0,
            is_hidden: false,
            is_ephemeral,
            marks: Marks::default(),
            children_absent: false,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        Kind::from_owner(self.stat.owner, self.is_ephemeral)
    }

    pub(super) fn children(&self) -> &[NodeId] {
        assert!(
            !self.children_absent,
            "Linear: the children of a znode are brought before anybody looks at them"
        );
        self.children.as_ref().map_or(&[], |children| &children.0)
    }

    pub(super) fn data_bytes(&self) -> usize {
        self.data.len()
    }

    /// What a client sees.
    pub(super) fn visible_stat(&self) -> Stat {
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let num_children = count(self.children().len());
        Stat {
            czxid: self.stat.czxid,
            mzxid: self.stat.mzxid,
            ctime: self.stat.ctime,
            mtime: self.stat.mtime,
            version: self.stat.version,
            // Creations and deletions together: every creation that is not a child any more was a deletion too.
            cversion: self.stat.creates.wrapping_mul(2).wrapping_sub(num_children),
            aversion: self.stat.aversion,
            ephemeral_owner: SessionId(if self.is_ephemeral { self.stat.owner } else { 0 }),
            data_length: count(self.data_bytes()),
            num_children,
            pzxid: self.stat.pzxid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_znode_takes_128_bytes() {
        assert_eq!((size_of::<Node>(), size_of::<Name>()), (128, 24));
    }

    #[test]
    fn names_of_any_length_are_kept() {
        for length in [0, 1, SHORT_NAME_BYTES, SHORT_NAME_BYTES + 1, 300] {
            let name = vec![b'n'; length];
            assert_eq!(*Name::new(&name), *name);
        }
    }

    #[test]
    fn owners_tell_the_kind_of_a_znode() {
        assert_eq!(Kind::from_owner(0, false), Kind::Persistent);
        assert_eq!(Kind::from_owner(CONTAINER_OWNER, false), Kind::Container);
        for ttl_ms in [1, 77, TTL_MOST_MS] {
            assert_eq!(Kind::from_owner(Kind::ttl_owner(ttl_ms), false), Kind::Ttl(ttl_ms));
        }
        assert_eq!(Kind::from_owner(i64::MIN | 77, false), Kind::Ttl(77));
        assert_eq!(Kind::from_owner(0x0100_0000_0000_0001, true), Kind::Ephemeral);
        assert_eq!(Kind::from_owner(TTL_MASK | 5, true), Kind::Ephemeral);
    }
}
