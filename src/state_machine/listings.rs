//! Large listings, encoded once for all who ask: when a znode with many children changes, everybody who watches it comes for
//! the same list, and each would have the names gathered from all over the memory, and the state's lock held meanwhile.
//!
//! A listing is known by what any change of the children changes in their parent's stat, so nothing has to throw it away.

use super::node::{Node, NodeId};
use crate::proto::Zxid;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Children from which on a listing is kept: below, encoding it costs little more than copying it. Few in tests, so that those of
/// the whole state try it.
const MANY_CHILDREN: usize = if cfg!(test) { 2 } else { 1 << 10 };
/// Listings kept, the last ones used; beyond, the one goes that was not asked for the longest.
const MOST_LISTINGS: usize = 16;
/// Bytes kept, likewise; they take up to twice that of memory, since buffers grow by doubling. A larger listing is not kept.
const MOST_BYTES: usize = 8 << 20;

/// What a listing is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    node: NodeId,
    czxid: Zxid,
    pzxid: Zxid,
    creates: i32,
    children: usize,
}

impl Moment {
    fn of(id: NodeId, node: &Node) -> Moment {
        Moment {
            node: id,
            czxid: node.stat.czxid,
            pzxid: node.stat.pzxid,
            creates: node.stat.creates,
            children: node.children().len(),
        }
    }
}

/// The listings that are kept, the last used first.
#[derive(Debug, Default)]
pub(super) struct Listings(Mutex<VecDeque<(Moment, Bytes)>>);

impl Listings {
    /// The children of a znode as a reply has them, if they are many; `encode` makes it if it is not at hand.
    pub(super) fn of(&self, id: NodeId, node: &Node, encode: impl FnOnce() -> Bytes) -> Option<Bytes> {
        if node.children().len() < MANY_CHILDREN {
            return None;
        }
        let moment = Moment::of(id, node);
        if let Some(found) = self.find(moment) {
            return Some(found);
        }
        // Not under the lock: whoever lists another znode need not wait.
        let encoded = encode();
        self.keep(moment, encoded.clone());
        Some(encoded)
    }

    fn find(&self, moment: Moment) -> Option<Bytes> {
        let mut kept = self.0.lock();
        let position = kept.iter().position(|(of, _)| *of == moment)?;
        let found = kept.remove(position)?;
        let encoded = found.1.clone();
        kept.push_front(found);
        Some(encoded)
    }

    fn keep(&self, moment: Moment, encoded: Bytes) {
        if encoded.len() > MOST_BYTES {
            return;
        }
        let mut kept = self.0.lock();
        // An older one of the same znode will not be asked for again.
        kept.retain(|(of, _)| of.node != moment.node);
        kept.push_front((moment, encoded));
        kept.truncate(MOST_LISTINGS);
        let mut bytes = 0;
        kept.retain(|(_, encoded)| {
            bytes += encoded.len();
            bytes <= MOST_BYTES
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(node: u32, pzxid: i64) -> Moment {
        Moment {
            node: NodeId(node),
            czxid: Zxid(1),
            pzxid: Zxid(pzxid),
            creates: 9,
            children: 5,
        }
    }

    fn bytes_kept(listings: &Listings) -> usize {
        listings.0.lock().iter().map(|(_, encoded)| encoded.len()).sum()
    }

    #[test]
    fn a_listing_is_found_until_the_children_change() {
        let listings = Listings::default();
        listings.keep(moment(1, 4), Bytes::from_static(b"as of 4"));
        assert_eq!(listings.find(moment(1, 4)).as_deref(), Some(&b"as of 4"[..]));
        assert_eq!(listings.find(moment(1, 5)), None);
        assert_eq!(listings.find(moment(2, 4)), None);
        listings.keep(moment(1, 5), Bytes::from_static(b"as of 5"));
        assert_eq!(listings.find(moment(1, 5)).as_deref(), Some(&b"as of 5"[..]));
        assert_eq!(bytes_kept(&listings), 7);
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_and_bytes() {
        let listings = Listings::default();
        for node in 0..100 {
            listings.keep(moment(node, 1), Bytes::from_static(b"small"));
            assert!(listings.find(moment(0, 1)).is_some(), "it is asked for all the time");
        }
        assert_eq!(bytes_kept(&listings), MOST_LISTINGS * 5);
        let large = Bytes::from(vec![0; MOST_BYTES / 2]);
        for node in 200..203 {
            listings.keep(moment(node, 1), large.clone());
        }
        assert_eq!(bytes_kept(&listings), MOST_BYTES);
        assert!(listings.find(moment(200, 1)).is_none() && listings.find(moment(202, 1)).is_some());
        listings.keep(moment(300, 1), vec![0; MOST_BYTES + 1].into());
        assert!(listings.find(moment(300, 1)).is_none() && listings.find(moment(202, 1)).is_some());
    }
}
