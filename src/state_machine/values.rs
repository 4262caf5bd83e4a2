//! Values leave memory when there is too much of them, and come back when they are read.
//!
//! ```text
//!   here ── let_values_go: stored, and not read of late ──▶ away ── put_back: read from the disk, compared ──▶ here
//! ```
//!
//! Invariants:
//! - A value leaves only once a checkpoint that holds it is committed: what is away is the data of the znode's record on
//!   disk, which is that of the same mzxid.
//! - Nothing at or below `/zookeeper` leaves: commands look at data there. No command looks at data elsewhere, so whether
//!   values are here or away makes no difference to what commands do, nor to the digest.
//! - What comes back is compared with the CRC that the znode kept: wrong bytes are never served.
//!
//! Whose turn it is: a hand goes round the arena; a value that was read since it last came by stays (second chance).

use super::node::{Marks, NodeId};
use super::value::Value;
use super::{Missing, State, digest};
use crate::proto::Zxid;

/// About what a znode takes besides its data and a long name, bytes: itself, its place in the index, and in its parent's
/// list of children.
const NODE_BYTES: u64 = 128 + 16;

/// What is known of the values' memory.
#[derive(Debug)]
pub(super) struct Residency {
    /// A loader keeps values until the state takes so many bytes.
    pub(super) loaded_bytes: u64,
    /// Whether values may be away, now or soon: then readers leave a trace.
    pub(super) may_leave: bool,
    /// Bytes that values take in memory.
    resident_bytes: u64,
    /// Bytes that names take which have no room in their znodes.
    name_bytes: u64,
    /// How many values are away.
    away: u64,
    /// Where the hand is.
    hand: u32,
}

impl Default for Residency {
    fn default() -> Residency {
        Residency {
            loaded_bytes: u64::MAX,
            may_leave: false,
            resident_bytes: 0,
            name_bytes: 0,
            away: 0,
            hand: 0,
        }
    }
}

/// What let go of values came to.
#[derive(Debug, Default)]
pub struct Gone {
    /// The values: freeing them is for whoever holds no lock any more.
    pub values: Vec<Value>,
    /// Bytes of memory that they take.
    pub bytes: u64,
}

/// A value as it was read from the disk.
#[derive(Debug)]
pub struct Fetched {
    mzxid: Zxid,
    value: Value,
    checksum: u32,
}

impl Fetched {
    /// Of the znode at `path`, whose record has this mzxid.
    pub fn new(path: &[u8], mzxid: Zxid, bytes: &[u8]) -> Fetched {
        Fetched {
            mzxid,
            value: Value::from(bytes),
            checksum: digest::body(path, Some(bytes)),
        }
    }
}

/// What became of a value that was brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutBack {
    /// It is here, or nobody needs it any more.
    Done,
    /// The data was set since it was asked for, and is away again.
    Changed,
    /// What is stored is not what was let go.
    Damaged,
}

impl State {
    /// About how much memory the state takes, bytes. Costs nothing.
    pub fn memory_bytes(&self) -> u64 {
        let nodes = self.tree.len() as u64 * NODE_BYTES;
        nodes + self.residency.name_bytes + self.residency.resident_bytes + self.acls.bytes()
    }

    /// About how much it would take if all of it were in memory, bytes.
    pub fn expected_memory_bytes(&self) -> u64 {
        self.totals().nodes * NODE_BYTES + self.data_bytes + self.acls.bytes()
    }

    /// How many values are away.
    pub fn values_away(&self) -> u64 {
        self.residency.away
    }

    /// Values may leave from now on, or will not: then readers need not leave a trace.
    pub fn set_values_may_leave(&mut self, may_leave: bool) {
        self.residency.may_leave = may_leave;
    }

    /// Lets values go until `wanted_bytes` are free or `most_nodes` were looked at. `stored` is the last command of the last
    /// checkpoint that is committed.
    pub fn let_values_go(&mut self, stored: Zxid, most_nodes: usize, wanted_bytes: u64) -> Gone {
        assert!(self.undo.is_none(), "values go between two commands");
        let mut gone = Gone::default();
        for _ in 0..most_nodes {
            if gone.bytes >= wanted_bytes {
                break;
            }
            let id = NodeId(self.residency.hand);
            let is_last = id.0 as usize + 1 >= self.tree.places();
            self.residency.hand = if is_last { 0 } else { id.0 + 1 };
            if !self.tree.is_live(id) {
                continue;
            }
            let node = self.tree.node_mut(id);
            let is_stored = !node.marks.has(Marks::DATA) && node.marks.has(Marks::STORED) && node.stat.mzxid <= stored;
            let bytes = node.data.resident_bytes();
            if bytes == 0 || node.is_hidden || !is_stored || node.data.take_was_read() {
                continue;
            }
            gone.values.push(node.data.let_go());
            gone.bytes += bytes;
        }
        self.residency.away += gone.values.len() as u64;
        self.residency.resident_bytes -= gone.bytes;
        gone
    }

    /// Puts a value back that was asked for when the data had `asked` as its mzxid, and read after that; `None`: nothing is
    /// stored.
    pub fn put_back(&mut self, path: &[u8], asked: Zxid, fetched: Option<Fetched>) -> PutBack {
        let mut groups = Missing::default();
        self.missing_for_znode(path, &mut groups);
        if !groups.is_empty() {
            return PutBack::Done;
        }
        let found = self.tree.find(path).map(|id| self.tree.node_mut(id));
        let Some(node) = found.filter(|node| node.data.is_away()) else {
            return PutBack::Done;
        };
        if node.stat.mzxid != asked {
            return PutBack::Changed;
        }
        let is_it = |fetched: &Fetched| {
            (fetched.mzxid, fetched.value.len(), fetched.checksum) == (asked, node.data.len(), node.body_checksum)
        };
        let Some(fetched) = fetched.filter(is_it) else {
            return PutBack::Damaged;
        };
        node.data.put_back(fetched.value);
        self.residency.resident_bytes += node.data.resident_bytes();
        self.residency.away -= 1;
        PutBack::Done
    }

    /// A znode that is loaded: whether its value can stay in memory.
    pub(super) fn has_room_for(&self, value_bytes: usize) -> bool {
        self.memory_bytes().saturating_add(value_bytes as u64) <= self.residency.loaded_bytes
    }

    /// Lets the value of a znode go that was just loaded.
    pub(super) fn leave_on_disk(&mut self, id: NodeId) {
        let node = self.tree.node_mut(id);
        let bytes = node.data.resident_bytes();
        if bytes > 0 && !node.is_hidden {
            node.data.let_go();
            self.residency.resident_bytes -= bytes;
            self.residency.away += 1;
        }
    }

    /// A znode is there now.
    pub(super) fn count_in_memory(&mut self, id: NodeId) {
        let node = self.tree.node(id);
        self.residency.name_bytes += node.name.resident_bytes();
        self.residency.resident_bytes += node.data.resident_bytes();
        self.residency.away += u64::from(node.data.is_away());
    }

    /// A znode is about to go.
    pub(super) fn count_out_of_memory(&mut self, id: NodeId) {
        let node = self.tree.node(id);
        self.residency.name_bytes -= node.name.resident_bytes();
        self.residency.resident_bytes -= node.data.resident_bytes();
        self.residency.away -= u64::from(node.data.is_away());
    }
}
