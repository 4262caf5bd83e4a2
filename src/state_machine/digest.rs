//! A number that two members share exactly if their trees are equal: Apache's digest, version 2.
//!
//! ```text
//!   sum over znodes, mod 2^64, of CRC32( path ‖ data ‖ czxid mzxid pzxid ctime mtime version creates aversion owner )
//! ```
//! Znodes below `/zookeeper` count nothing, because quota stats change without a zxid there; the root's path is empty.
//! The CRC of path and data is kept in the znode ([`body`]), so that a new child costs its parent 60 bytes of CRC
//! whatever the parent's data weighs.

use super::node::{Node, StoredStat};
use crc32fast::Hasher;

/// Bytes of the stat in a digest.
const STAT_BYTES: usize = 60;

/// The CRC32 of path and data.
pub(super) fn body(path: &[u8], data: Option<&[u8]>) -> u32 {
    let mut hasher = Hasher::new();
    if path != b"/" {
        hasher.update(path);
    }
    hasher.update(data.unwrap_or_default());
    hasher.finalize()
}

/// What a znode adds to the sum.
pub(super) fn of(node: &Node) -> u64 {
    if node.is_hidden {
        return 0;
    }
    let mut hasher = Hasher::new_with_initial(node.body_checksum);
    hasher.update(&stat_bytes(&node.stat));
    u64::from(hasher.finalize())
}

fn stat_bytes(stat: &StoredStat) -> [u8; STAT_BYTES] {
    let mut bytes = [0; STAT_BYTES];
    let longs = [stat.czxid.0, stat.mzxid.0, stat.pzxid.0, stat.ctime, stat.mtime];
    for (place, long) in bytes.chunks_exact_mut(8).zip(longs) {
        place.copy_from_slice(&long.to_be_bytes());
    }
    for (place, int) in bytes[40..52]
        .chunks_exact_mut(4)
        .zip([stat.version, stat.creates, stat.aversion])
    {
        place.copy_from_slice(&int.to_be_bytes());
    }
    bytes[52..].copy_from_slice(&stat.owner.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Zxid;
    use crate::state_machine::Value;

    #[test]
    fn going_on_from_the_body_is_the_same_as_hashing_everything() {
        let stat = StoredStat {
            czxid: Zxid(1),
            mzxid: Zxid(2),
            pzxid: Zxid(3),
            ctime: 4,
            mtime: 5,
            owner: -6,
            version: 7,
            creates: 8,
            aversion: 9,
            ..StoredStat::default()
        };
        let mut node = Node::new(b"b", stat, Some(Value::from(&b"data"[..])), false);
        node.body_checksum = body(b"/a/b", node.data.bytes());
        let mut whole = b"/a/bdata".to_vec();
        for long in [1_i64, 2, 3, 4, 5] {
            whole.extend(long.to_be_bytes());
        }
        for int in [7_i32, 8, 9] {
            whole.extend(int.to_be_bytes());
        }
        whole.extend((-6_i64).to_be_bytes());
        assert_eq!(of(&node), u64::from(crc32fast::hash(&whole)));
    }
}
