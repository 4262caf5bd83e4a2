//! The store's thread: checkpoints go into the tree on disk; and its reading back at a start, whole or the first of it.
//!
//! Here the state's records and those of the keyspace meet: what is typed in `state_machine` (identities, rights, owners)
//! is opaque bytes in `storage`.

use super::Failure;
use super::checkpointer::CheckpointSchedule;
use super::inbox::Inbox;
use super::recorded;
use super::recovery::Loaded;
use super::shared::{DriverInput, Shared};
use crate::proto::{Acl, Decoder, Malformed, SessionId, Zxid};
use crate::replica::{MembersAt, Registry};
use crate::state_machine::{
    AclId, Checkpoint, ConnectionId, DataRecord, LoadError, Loader, NodeRecord, Origin, Record, ServerId, Session,
    State, StoredStat, Totals, Value,
};
use crate::storage::generations::Generations;
use crate::storage::log::LogPoint;
use crate::storage::tree::{
    CheckpointBatch, DataChange, LoadVisitor, Meta, NodeStat, SessionRecord, StoredGroups, TreeError, TreeStore,
    TreeView,
};
use bytes::{BufMut, Bytes, BytesMut};
use protobuf::Message as _;
use raft::prelude::ConfState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How often it is looked whether the store has made tables of what it holds in memory.
const TABLES_LOOK: Duration = Duration::from_millis(2);
/// How long that is waited for.
const TABLES_PATIENCE: Duration = Duration::from_secs(10);

/// Intervals between checkpoints after which the store is at rest if they brought none. Where a little is written all the time,
/// one checkpoint comes in each, and a table more for each of them would have to be merged.
const INTERVALS_TO_REST: u64 = 2;
/// What the store may hold in memory at rest: less is not worth a table.
const MEMTABLES_AT_REST_BYTES: u64 = 1 << 20;
/// How often it is asked to let go of more: twice is enough, unless somebody reads it.
const LET_GO_CALLS: u32 = 3;

/// Larger data is shared with the store and not copied for it.
const SHARED_BYTES: usize = 4096;

/// What the store's thread is told.
pub(super) enum StoreInput {
    /// Write this: it leads to the entry `applied`, with the members as of then, over so many bytes of log.
    Checkpoint {
        checkpoint: Checkpoint,
        log_bytes: u64,
        applied: LogPoint,
        members: Arc<MembersAt>,
    },
    /// Write this whole state into the empty tree, and make it durable: the log may then begin behind it.
    Found {
        checkpoint: Checkpoint,
        applied: LogPoint,
        members: Arc<MembersAt>,
    },
    /// All that a start had left in the tree was read.
    GroupsRead(Box<StoredGroups>),
    /// Somebody wants to read the tree as of the last checkpoint. `None`: there was none yet.
    View(Box<dyn FnOnce(Option<TreeView>) + Send>),
    /// Go on with this tree, which came as a snapshot and is complete and durable. Checkpoints that were handed in
    /// before belong to the former one, those after to this one.
    Switch {
        tree: Box<TreeStore>,
        /// Told once the switch is durable: the log may be reset then, and not before.
        done: Box<dyn FnOnce() + Send>,
    },
    /// Go on with this tree of a simulated store.
    #[cfg(test)]
    #[allow(dead_code)]
    Simulated(Box<dyn std::any::Any + Send>),
    /// Make everything durable and end.
    Stop,
}

/// Why a stored record cannot be taken.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("a list of rights or a session's owner cannot be read: {0}")]
    Malformed(#[from] Malformed),
    #[error("nobody waits for it any more")]
    GivenUp,
}

/// Why a tree's records do not become a state.
#[derive(Debug)]
pub(super) enum Unloadable {
    Tree(TreeError),
    Load(LoadError),
}

impl From<Unloadable> for Failure {
    fn from(unloadable: Unloadable) -> Failure {
        match unloadable {
            Unloadable::Tree(error) => Failure::Tree(error),
            Unloadable::Load(error) => Failure::Load(error),
        }
    }
}

fn loader(kept_bytes: u64) -> Loader {
    let mut loader = State::loader();
    loader.keep_values_within(kept_bytes);
    loader
}

/// Reads all records of a tree that leads to `meta`, and compares the state's digest. Ends early once `given_up` is set.
pub(super) fn load_state(
    tree: &mut TreeStore,
    meta: &Meta,
    kept_bytes: u64,
    given_up: &AtomicBool,
) -> Result<State, Unloadable> {
    let mut visitor = Visitor {
        loader: loader(kept_bytes),
        given_up,
    };
    let summary = tree.load(&mut visitor).map_err(Unloadable::Tree)?;
    tracing::debug!(?summary, "a stored tree was read");
    let finished = visitor.loader.finish(Zxid(meta.zxid), meta.digest);
    finished.map_err(Unloadable::Load)
}

/// Reads the stored state; a store that was never written gives a fresh one.
pub(super) fn load(tree: &mut TreeStore, kept_bytes: u64) -> Result<Loaded, Failure> {
    let Some(meta) = tree.committed().cloned() else {
        return Ok(Loaded {
            state: State::new(),
            applied: LogPoint::default(),
            members: MembersAt::default(),
            is_new: true,
            rest: None,
        });
    };
    let given_up = AtomicBool::new(false);
    let (state, rest) = match load_first(tree, &meta, kept_bytes, &given_up)? {
        Some((state, rest)) => (state, Some(rest)),
        None => (load_state(tree, &meta, kept_bytes, &given_up)?, None),
    };
    let members = decode_members(&meta)?;
    Ok(Loaded {
        state,
        applied: meta.applied,
        members,
        is_new: false,
        rest,
    })
}

/// Reads what it takes to serve, if the tree is such that the rest can follow.
fn load_first(
    tree: &mut TreeStore,
    meta: &Meta,
    kept_bytes: u64,
    given_up: &AtomicBool,
) -> Result<Option<(State, StoredGroups)>, Unloadable> {
    let mut visitor = Visitor {
        loader: loader(kept_bytes),
        given_up,
    };
    let Some((totals, rest)) = tree.load_first(&mut visitor).map_err(Unloadable::Tree)? else {
        return Ok(None);
    };
    let totals = Totals {
        nodes: totals.nodes,
        data_bytes: totals.data_bytes,
    };
    let finished = visitor.loader.finish_part(Zxid(meta.zxid), meta.digest, totals);
    Ok(Some((finished.map_err(Unloadable::Load)?, rest)))
}

/// Writes checkpoints until it is told to stop, and makes a point durable every now and then.
pub(super) fn run(
    shared: &Shared,
    inbox: &Inbox<StoreInput>,
    mut tree: TreeStore,
    generations: &Generations,
    schedule: CheckpointSchedule,
) -> Result<(), Failure> {
    let mut inputs = Vec::new();
    let times = metrics::histogram!("snapshottime");
    let mut last_persist_us = shared.clock.now_us();
    let mut is_written = false;
    // Bytes of log that wait for the next durable point.
    let mut waiting_bytes = 0;
    let (mut last_checkpoint_us, mut let_go_calls) = (last_persist_us, 0);
    loop {
        inbox.await_batch(&mut inputs, Duration::from_millis(schedule.persist_interval_ms));
        let mut stop = false;
        for input in inputs.drain(..) {
            match input {
                StoreInput::Checkpoint {
                    checkpoint,
                    log_bytes,
                    applied,
                    members,
                } => {
                    is_written = true;
                    (last_checkpoint_us, let_go_calls) = (shared.clock.now_us(), 0);
                    waiting_bytes += log_bytes;
                    wait_for_tables(&mut tree, shared.memory.unflushed_limit(), || shared.is_stopping())?;
                    let (zxid, started) = (checkpoint.zxid, Instant::now());
                    commit(&mut tree, &checkpoint, applied, &members)?;
                    recorded::checkpoint(&times, started.elapsed());
                    shared.checkpoint_stored(zxid, checkpoint.bytes());
                    shared.statistics.checkpointed(zxid.0, shared.clock.wall_ms());
                }
                StoreInput::GroupsRead(groups) => tree.groups_read(*groups),
                StoreInput::View(answer) => answer(tree.view()?),
                StoreInput::Switch { tree: new, done } => {
                    generations.switch(new.directory())?;
                    let former = std::mem::replace(&mut tree, *new);
                    (is_written, waiting_bytes) = (false, 0);
                    let zxid = tree.durable().map_or(0, |meta| meta.zxid);
                    shared.statistics.checkpointed(zxid, shared.clock.wall_ms());
                    done();
                    discard(generations, former);
                }
                StoreInput::Found {
                    checkpoint,
                    applied,
                    members,
                } => {
                    commit(&mut tree, &checkpoint, applied, &members)?;
                    shared.memory.all_stored(checkpoint.zxid);
                    tree.persist()?;
                    shared.driver.push(DriverInput::Installed);
                }
                #[cfg(test)]
                StoreInput::Simulated(_) => {}
                StoreInput::Stop => stop = true,
            }
        }
        let now_us = shared.clock.now_us();
        let due = now_us.saturating_sub(last_persist_us) >= schedule.persist_interval_ms * 1000;
        // A large checkpoint is durable as it is.
        let is_durable = || tree.durable() == tree.committed();
        if is_written && (due || waiting_bytes >= schedule.log_bytes || stop || is_durable()) {
            (is_written, waiting_bytes) = (false, 0);
            last_persist_us = now_us;
            if let Some(meta) = tree.persist()? {
                shared.driver.push(DriverInput::Durable {
                    index: meta.applied.index,
                });
            }
        }
        if stop {
            return Ok(());
        }
        // Else it would hold them until so much more has come that they are full, and a start would read them from the journal.
        let is_at_rest = now_us.saturating_sub(last_checkpoint_us) >= INTERVALS_TO_REST * schedule.interval_ms * 1000;
        if is_at_rest && let_go_calls < LET_GO_CALLS && tree.memtable_bytes() > MEMTABLES_AT_REST_BYTES {
            let_go_calls += 1;
            tree.let_go_soon()?;
        }
        shared.statistics.memtable_bytes.store(tree.memtable_bytes(), Relaxed);
    }
}

/// Waits until the store holds at most `limit` bytes in memory. Those who propose wait then, once enough has piled up behind this. A store
/// that holds too much for [`TABLES_PATIENCE`] gets one more checkpoint all the same: better too much memory than no writes.
fn wait_for_tables(tree: &mut TreeStore, limit: u64, is_stopping: impl Fn() -> bool) -> Result<(), TreeError> {
    if tree.unflushed_bytes() <= limit {
        return Ok(());
    }
    tree.flush_soon()?;
    let started = Instant::now();
    while tree.unflushed_bytes() > limit && !is_stopping() {
        if started.elapsed() > TABLES_PATIENCE {
            tracing::warn!(
                unflushed_bytes = tree.unflushed_bytes(),
                "the store has held too much in memory for long, and writes wait for it: is the disk overloaded? It takes one more checkpoint"
            );
            break;
        }
        std::thread::sleep(TABLES_LOOK);
    }
    Ok(())
}

/// Closes a tree that is no longer in use, and removes it. May take a second for a large one.
fn discard(generations: &Generations, former: TreeStore) {
    let directory = former.directory().to_path_buf();
    if former.is_viewed() {
        tracing::info!(
            directory = %directory.display(),
            "the former tree is still being read, by a peer perhaps; its directory is removed at the next start"
        );
        return;
    }
    drop(former);
    generations.remove(&directory);
}

/// Writes a checkpoint, without making it durable.
pub(super) fn commit(
    tree: &mut TreeStore,
    checkpoint: &Checkpoint,
    applied: LogPoint,
    members: &MembersAt,
) -> Result<(), Failure> {
    let mut batch = tree.batch()?;
    for record in &checkpoint.records {
        put(&mut batch, record)?;
    }
    batch.totals(checkpoint.totals.nodes, checkpoint.totals.data_bytes);
    batch.commit(Meta {
        applied,
        zxid: checkpoint.zxid.0,
        digest: checkpoint.digest,
        membership: members.conf_state.write_to_bytes().unwrap_or_default().into(),
        extension: members.registry.to_bytes(),
    })?;
    Ok(())
}

/// The members as of the entry that the stored tree ends with.
pub(super) fn decode_members(meta: &Meta) -> Result<MembersAt, Failure> {
    let conf_state = ConfState::parse_from_bytes(&meta.membership).map_err(|_| Failure::Members)?;
    let registry = Registry::decode(&meta.extension).map_err(|_| Failure::Members)?;
    Ok(MembersAt {
        index: meta.applied.index,
        conf_state,
        registry,
    })
}

fn put(batch: &mut CheckpointBatch<'_>, record: &Record) -> Result<(), Failure> {
    match record {
        Record::Node {
            parent,
            name,
            stat,
            data,
        } => {
            let data = match data {
                DataRecord::Kept => DataChange::Keep,
                DataRecord::Set(Some(data)) if data.len() > SHARED_BYTES => DataChange::Share(data.to_bytes()),
                DataRecord::Set(data) => DataChange::Set(data.as_deref()),
            };
            batch.put_node(parent.bytes(), name.bytes(), &to_stored(stat), data)?;
        }
        Record::NodeRemoved { parent, name } => batch.remove_node(parent.bytes(), name.bytes())?,
        Record::Session(session) => batch.put_session(&SessionRecord {
            id: session.id.0,
            timeout_ms: session.timeout_ms,
            password: session.password,
            owner: encode_origin(session.owner),
        }),
        Record::SessionRemoved(session) => batch.remove_session(session.0),
        Record::Ephemeral(session, path) => batch.put_ephemeral(session.0, path.bytes()),
        Record::EphemeralRemoved(session, path) => batch.remove_ephemeral(session.0, path.bytes()),
        Record::Acl(id, acl) => {
            let mut entries = BytesMut::new();
            Acl::encode_list(Some(acl.entries()), &mut entries);
            batch.put_acl(id.0, &entries);
        }
        Record::AclRemoved(id) => batch.remove_acl(id.0),
    }
    Ok(())
}

/// Hands the records of the keyspace to the state's loader.
struct Visitor<'a> {
    loader: Loader,
    given_up: &'a AtomicBool,
}

impl LoadVisitor for Visitor<'_> {
    type Error = Refused;

    fn acl(&mut self, id: u32, entries: &[u8]) -> Result<(), Refused> {
        let bytes = Bytes::copy_from_slice(entries);
        let list = Acl::decode_list(&mut Decoder::new(&bytes))?.ok_or(Malformed::UnexpectedNull)?;
        Ok(self.loader.acl(AclId(id), &list)?)
    }

    fn session(&mut self, session: SessionRecord) -> Result<(), Refused> {
        Ok(self.loader.session(Session {
            id: SessionId(session.id),
            timeout_ms: session.timeout_ms,
            password: session.password,
            owner: decode_origin(&session.owner)?,
        })?)
    }

    fn ephemeral(&mut self, session: i64, path: &[u8]) -> Result<(), Refused> {
        self.loader.ephemeral(SessionId(session), path);
        Ok(())
    }

    fn node(&mut self, parent: &[u8], name: &[u8], stat: NodeStat, data: Option<Bytes>) -> Result<(), Refused> {
        if self.given_up.load(Relaxed) {
            return Err(Refused::GivenUp);
        }
        Ok(self.loader.node(
            parent,
            name,
            NodeRecord {
                stat: from_stored(&stat),
                data: data.as_deref().map(Value::from),
            },
        )?)
    }
}

fn to_stored(stat: &StoredStat) -> NodeStat {
    NodeStat {
        czxid: stat.czxid.0,
        mzxid: stat.mzxid.0,
        pzxid: stat.pzxid.0,
        ctime_ms: stat.ctime,
        mtime_ms: stat.mtime,
        owner: stat.owner,
        version: stat.version,
        creates: stat.creates,
        aversion: stat.aversion,
        acl_id: stat.acl.0,
    }
}

pub(super) fn from_stored(stat: &NodeStat) -> StoredStat {
    StoredStat {
        czxid: Zxid(stat.czxid),
        mzxid: Zxid(stat.mzxid),
        pzxid: Zxid(stat.pzxid),
        ctime: stat.ctime_ms,
        mtime: stat.mtime_ms,
        owner: stat.owner,
        version: stat.version,
        creates: stat.creates,
        aversion: stat.aversion,
        acl: AclId(stat.acl_id),
    }
}

/// server:8 connection:8
fn encode_origin(origin: Origin) -> Bytes {
    let mut out = BytesMut::with_capacity(16);
    out.put_u64(origin.server.0);
    out.put_u64(origin.connection.0);
    out.freeze()
}

fn decode_origin(bytes: &Bytes) -> Result<Origin, Malformed> {
    let mut decoder = Decoder::new(bytes);
    Ok(Origin {
        server: ServerId(decoder.long()?.cast_unsigned()),
        connection: ConnectionId(decoder.long()?.cast_unsigned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::tree::TreeOptions;

    #[test]
    fn a_stat_and_an_owner_survive_the_disk() {
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
            acl: AclId(10),
        };
        assert_eq!(from_stored(&to_stored(&stat)), stat);
        let origin = Origin {
            server: ServerId(3),
            connection: ConnectionId(u64::MAX),
        };
        assert_eq!(decode_origin(&encode_origin(origin)), Ok(origin));
    }

    #[test]
    fn a_checkpoint_waits_until_what_the_store_holds_stands_in_tables() {
        const LIMIT: u64 = 1 << 20;
        let place = tempfile::tempdir().unwrap();
        // Nothing becomes a table of itself.
        let options = TreeOptions {
            memtable_bytes: 64 << 20,
            ..TreeOptions::new(7)
        };
        let mut tree = TreeStore::open(place.path(), options).unwrap();
        for index in 1..=3 {
            let mut batch = tree.batch().unwrap();
            batch.put_acl(index, &vec![index as u8; 1 << 20]);
            let applied = LogPoint {
                index: index.into(),
                term: 1,
            };
            let meta = Meta {
                applied,
                zxid: index.into(),
                digest: 0,
                membership: Bytes::new(),
                extension: Bytes::new(),
            };
            batch.commit(meta).unwrap();
        }
        let held = tree.unflushed_bytes();
        assert!(held > 3 * LIMIT, "{held}");
        wait_for_tables(&mut tree, 2 * held, || false).unwrap();
        assert_eq!(tree.unflushed_bytes(), held, "there is room");
        wait_for_tables(&mut tree, LIMIT, || false).unwrap();
        let held = tree.unflushed_bytes();
        assert!(held <= LIMIT, "{held}");
    }
}
