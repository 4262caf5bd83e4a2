//! A snapshot on its way through the driver: at its maker's, and at its receiver's.

use super::fetcher::Values;
use super::transfer::ArrivedTree;
use crate::replica::{Peer, PeerMessage};
use crate::state_machine::State;
use crate::storage::tree::{Meta, TreeView};
use std::sync::Arc;
use tokio::sync::oneshot;

/// The tree on disk as of one checkpoint, to be sent.
pub(super) enum SnapshotView {
    /// Of the keyspace.
    Tree(TreeView),
    /// Of a simulated one.
    #[cfg(test)]
    #[allow(dead_code)]
    Simulated(Meta, Box<dyn std::any::Any + Send>),
}

impl SnapshotView {
    /// Up to where it goes, and with which members.
    pub(super) fn meta(&self) -> &Meta {
        match self {
            SnapshotView::Tree(view) => view.meta(),
            #[cfg(test)]
            SnapshotView::Simulated(meta, _) => meta,
        }
    }
}

/// Where a state that takes the place of ours is on disk.
pub(super) enum NewTree {
    /// Nowhere yet: it founds an ensemble, and is written into our own tree, which is empty.
    Founding,
    /// In a directory of its own.
    Arrived(Box<ArrivedTree>),
    /// In a simulated one.
    #[cfg(test)]
    #[allow(dead_code)]
    Simulated(Box<dyn std::any::Any + Send>),
}

impl NewTree {
    /// Where the values are that are away, if that is another place than before.
    pub(super) fn values(&mut self) -> Option<Arc<dyn Values>> {
        match self {
            NewTree::Founding => None,
            NewTree::Arrived(tree) => Some(Arc::new(tree.reader())),
            #[cfg(test)]
            NewTree::Simulated(_) => None,
        }
    }
}

/// A state that may take the place of ours.
pub(super) struct Arrived {
    pub(super) state: State,
    pub(super) tree: NewTree,
    /// Told whether it did; dropped if the server stops before that.
    pub(super) answer: Option<oneshot::Sender<bool>>,
}

/// A snapshot that a peer has sent: complete, durable and loaded.
pub(super) struct SnapshotArrived {
    pub(super) from: Peer,
    /// raft's message, which installs it.
    pub(super) message: PeerMessage,
    pub(super) arrived: Arrived,
}
