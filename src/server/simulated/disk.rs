//! What of a simulated member survives its process.

use crate::proto::{Acl, SessionId, Zxid};
use crate::replica::{FOUNDING, MembersAt, Registry};
use crate::server::Failure;
use crate::server::fetcher::Values;
use crate::server::loading::{Bring, Groups, Piece, StoredNode};
use crate::state_machine::{
    AclId, Checkpoint, DataRecord, Fetched, Loader, NodeRecord, Record, Session, State, StoredStat, Totals, Value,
    place_of,
};
use crate::storage::file::memory::{self, Faults, MemoryFiles};
use crate::storage::log::LogPoint;
use crate::storage::tree::Meta;
use bytes::Bytes;
use protobuf::Message as _;
use raft::prelude::ConfState;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

/// A tree in memory, in the records of checkpoints.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoredTree {
    nodes: BTreeMap<(String, String), (StoredStat, Option<Value>)>,
    sessions: BTreeMap<SessionId, Session>,
    acls: BTreeMap<u32, Vec<Acl>>,
    ephemerals: BTreeSet<(SessionId, String)>,
    totals: Totals,
    /// What it leads to; `None` if nothing was ever stored.
    pub(super) meta: Option<Meta>,
}

impl StoredTree {
    pub(super) fn commit(&mut self, checkpoint: Checkpoint, applied: LogPoint, members: &MembersAt) {
        for record in checkpoint.records {
            match record {
                Record::Node {
                    parent,
                    name,
                    stat,
                    data,
                } => {
                    let key = (parent.as_str().to_owned(), name.as_str().to_owned());
                    let data = match data {
                        DataRecord::Set(data) => data,
                        DataRecord::Kept => self.nodes.get(&key).and_then(|(_, data)| data.clone()),
                    };
                    self.nodes.insert(key, (stat, data));
                }
                Record::NodeRemoved { parent, name } => {
                    self.nodes
                        .remove(&(parent.as_str().to_owned(), name.as_str().to_owned()));
                }
                Record::Session(session) => drop(self.sessions.insert(session.id, session)),
                Record::SessionRemoved(session) => drop(self.sessions.remove(&session)),
                Record::Ephemeral(session, path) => drop(self.ephemerals.insert((session, path.as_str().to_owned()))),
                Record::EphemeralRemoved(session, path) => {
                    self.ephemerals.remove(&(session, path.as_str().to_owned()));
                }
                Record::Acl(id, acl) => drop(self.acls.insert(id.0, acl.entries().to_vec())),
                Record::AclRemoved(id) => drop(self.acls.remove(&id.0)),
            }
        }
        self.totals = checkpoint.totals;
        self.meta = Some(Meta {
            applied,
            zxid: checkpoint.zxid.0,
            digest: checkpoint.digest,
            membership: members.conf_state.write_to_bytes().unwrap_or_default().into(),
            extension: members.registry.to_bytes(),
        });
    }

    /// The whole state.
    pub(super) fn load(&self) -> Result<State, Failure> {
        let Some(meta) = &self.meta else {
            return Ok(State::new());
        };
        let mut loader = self.loader()?;
        for ((parent, name), (stat, data)) in &self.nodes {
            let (stat, data) = (*stat, data.clone());
            loader.node(parent.as_bytes(), name.as_bytes(), NodeRecord { stat, data })?;
        }
        Ok(loader.finish(Zxid(meta.zxid), meta.digest)?)
    }

    /// What a start reads first; the rest comes in groups.
    pub(super) fn load_first(&self) -> Result<(State, Option<Box<dyn Groups>>), Failure> {
        let Some(meta) = &self.meta else {
            return Ok((State::new(), None));
        };
        let mut loader = self.loader()?;
        for ((parent, name), (stat, data)) in &self.nodes {
            if parent.is_empty() || parent == "/" || parent == "/zookeeper" || parent.starts_with("/zookeeper/") {
                let (stat, data) = (*stat, data.clone());
                loader.node(parent.as_bytes(), name.as_bytes(), NodeRecord { stat, data })?;
            }
        }
        let state = loader.finish_part(Zxid(meta.zxid), meta.digest, self.totals)?;
        let groups = SimulatedGroups {
            tree: self.clone(),
            last: (String::new(), String::new()),
        };
        Ok((state, Some(Box::new(groups))))
    }

    fn loader(&self) -> Result<Loader, Failure> {
        let mut loader = State::loader();
        for (id, acl) in &self.acls {
            loader.acl(AclId(*id), acl)?;
        }
        for session in self.sessions.values() {
            loader.session(*session)?;
        }
        for (session, path) in &self.ephemerals {
            loader.ephemeral(*session, path.as_bytes());
        }
        Ok(loader)
    }
}

/// A stored tree that is read while the member serves.
struct SimulatedGroups {
    tree: StoredTree,
    /// The last key that was given out.
    last: (String, String),
}

impl Groups for SimulatedGroups {
    fn next(&mut self, most: usize) -> Result<Vec<Piece>, Failure> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rest = self.tree.nodes.range((Excluded(&self.last), Unbounded)).peekable();
        for ((parent, name), (stat, data)) in rest.by_ref().take(most) {
            self.last = (parent.clone(), name.clone());
            let (stat, data) = (*stat, data.clone());
            let child = (Bytes::from(name.clone()), NodeRecord { stat, data });
            match pieces.last_mut() {
                Some(piece) if piece.parent == parent.as_bytes() => piece.children.push(child),
                _ => pieces.push(Piece {
                    parent: Bytes::from(parent.clone()),
                    children: vec![child],
                    is_last: true,
                }),
            }
        }
        if let (Some(piece), Some(((parent, _), _))) = (pieces.last_mut(), rest.peek()) {
            piece.is_last = piece.parent != parent.as_bytes();
        }
        Ok(pieces)
    }

    fn children(&mut self, parent: &[u8], most: usize, bring: &mut Bring<'_>) -> Result<(), Failure> {
        let records = self.tree.nodes.iter().filter(|((of, _), _)| of.as_bytes() == parent);
        let child = |((_, name), (stat, data)): (&(String, String), &(StoredStat, Option<Value>))| {
            let (stat, data) = (*stat, data.clone());
            (Bytes::from(name.clone()), NodeRecord { stat, data })
        };
        let mut rest: Vec<StoredNode> = records.map(child).collect();
        while rest.len() > most {
            bring(rest.drain(..most).collect(), false)?;
        }
        bring(rest, true)
    }

    fn end(self: Box<Self>) {}
}

impl Values for StoredTree {
    fn read(&self, paths: &mut dyn Iterator<Item = &[u8]>) -> Result<Vec<Option<Fetched>>, Failure> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let read = paths.map(|path| {
            let (parent, name) = place_of(path);
            let (stat, data) = self.nodes.get(&(text(parent), text(name)))?;
            Some(Fetched::new(path, stat.mzxid, data.as_deref()?))
        });
        Ok(read.collect())
    }
}

/// What of a member survives its process: files, tree, and whose they are.
#[derive(Debug)]
pub(crate) struct SimulatedDisk {
    pub(super) files: MemoryFiles,
    pub(super) committed: StoredTree,
    pub(super) durable: StoredTree,
    /// The life of this directory.
    pub(crate) incarnation: u64,
    pub(super) boots: u64,
}

impl SimulatedDisk {
    /// An empty one.
    pub(crate) fn new(incarnation: u64) -> SimulatedDisk {
        SimulatedDisk {
            files: MemoryFiles::new(),
            committed: StoredTree::default(),
            durable: StoredTree::default(),
            incarnation,
            boots: 0,
        }
    }

    /// That of a member of an ensemble that was just founded.
    pub(crate) fn founded(incarnation: u64, conf_state: &ConfState, registry: &Registry) -> SimulatedDisk {
        let mut disk = SimulatedDisk::new(incarnation);
        let (index, term) = FOUNDING;
        let members = MembersAt {
            index,
            conf_state: conf_state.clone(),
            registry: registry.clone(),
        };
        let checkpoint = State::new().take_dirty();
        disk.committed.commit(checkpoint, LogPoint { index, term }, &members);
        disk.durable = disk.committed.clone();
        disk
    }

    /// Whether nothing of `bytes` is in a write to a file that was not synced.
    pub(crate) fn has_stored(&self, bytes: &[u8]) -> bool {
        self.files.has_stored(bytes)
    }

    /// The power is cut: what was not synced is gone, or torn.
    pub(crate) fn cut_power(&mut self, chance: u64) {
        let mut chance = memory::Chance(chance);
        self.files = self.files.crash(&mut chance);
        if chance.below(2) == 0 {
            self.committed = self.durable.clone();
        }
        // Otherwise the tree's journal had reached the disk by itself.
        self.durable = self.committed.clone();
    }

    /// The process was killed: what it has written is there.
    pub(crate) fn kill(&mut self) {
        self.files = self.files.kill();
        self.durable = self.committed.clone();
    }

    /// The next fsync fails.
    pub(crate) fn fail_next_sync(&self) {
        self.files.set_faults(Faults {
            sync_fails_in: Some(0),
            ..Faults::default()
        });
    }
}
