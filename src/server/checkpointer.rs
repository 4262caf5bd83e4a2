//! The applier's thread, and behind it the store's: what was applied reaches the tree on disk in checkpoints.
//!
//! ```text
//!   applier thread   apply … apply ─ take what is dirty ─┐            apply … apply ─┐
//!   store thread                                         └▶ commit ─ … ─ persist     └▶ commit ─ …
//!   driver                                                              └▶ the log may be cut up to there
//! ```
//!
//! A checkpoint is one atomic batch together with the index that it leads to. It is taken only when the store has nothing
//! waiting: while the store is busy, changes of the same znodes coalesce. Nothing waits for the store, unless so much has
//! piled up that memory would run out: then a leader does, and with it those who propose; and others do where what they have
//! not stored is too much for their memoryBudget.

use super::applier::Applier;
use super::crew::{Part, Turned};
use super::inbox::Inbox;
use super::shared::{DriverInput, Shared};
use super::snapshot::{NewTree, SnapshotView};
use super::store::StoreInput;
use super::{ApplierInput, Failure, memory};
use crate::replica::Role;
use crate::state_machine::Checkpoint;
use crate::storage::log::LogPoint;
use parking_lot::RwLockWriteGuard;
use std::sync::Arc;
use std::time::Duration;

/// Commands that fail change no record; so many entries, or much log, are enough for a checkpoint without any, so that the log
/// can be cut.
const INDEX_LAG: u64 = 10_000;
/// Changed znodes that are taken under one hold of the state's lock: 0.15 to 0.4 ms.
const NODES_PER_HOLD: usize = 2048;
/// How long the applier waits for the store at a time.
const STORE_WAIT: Duration = Duration::from_millis(2);

/// When the tree on disk follows.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointSchedule {
    /// Time between two checkpoints at least, ms, unless there is much to write.
    pub interval_ms: u64,
    /// So many changed records are written without waiting for the interval.
    pub records: usize,
    /// So many bytes of changed data likewise, or fewer where memory is short.
    pub bytes: u64,
    /// Time between two points that are made durable, ms.
    pub persist_interval_ms: u64,
    /// So many bytes of log are not waited for longer: until a point is durable they stand in memory, and a start would
    /// replay them. Half of them make a checkpoint due.
    pub log_bytes: u64,
}

/// The applier with its surroundings, on its thread.
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    applier: Applier,
    store: Arc<Inbox<StoreInput>>,
    schedule: CheckpointSchedule,
    last_us: u64,
    /// Up to where the last checkpoint went.
    checkpointed: u64,
    /// Bytes of log that were applied since.
    log_bytes: u64,
    /// Whether it was told to stop.
    is_stopping: bool,
}

impl Checkpointer {
    pub(super) fn new(
        shared: Arc<Shared>,
        applier: Applier,
        store: Arc<Inbox<StoreInput>>,
        schedule: CheckpointSchedule,
    ) -> Checkpointer {
        Checkpointer {
            shared,
            applier,
            store,
            schedule,
            last_us: 0,
            checkpointed: 0,
            log_bytes: 0,
            is_stopping: false,
        }
    }

    /// Applies what `inputs` bring, and hands a checkpoint to the store if one is due; says whether it is told to stop.
    pub(super) fn step(&mut self, inputs: &mut Vec<ApplierInput>) -> Result<bool, Failure> {
        self.wait_for_store();
        self.apply(inputs)?;
        memory::keep_within_budget(&self.shared, || false);
        let stop = self.is_stopping;
        if stop || self.is_checkpoint_due() {
            self.checkpoint(stop);
        }
        if stop {
            self.store.push(StoreInput::Stop);
        }
        Ok(stop)
    }

    /// Applies what `inputs` bring.
    fn apply(&mut self, inputs: &mut Vec<ApplierInput>) -> Result<(), Failure> {
        let (before, _) = self.applier.position();
        for input in inputs.drain(..) {
            match input {
                ApplierInput::Entries { entries, members } => {
                    self.applier.apply(&entries, members)?;
                    self.log_bytes += entries.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
                }
                ApplierInput::Barriers(barriers) => self.applier.barriers(barriers),
                ApplierInput::Install {
                    state,
                    mut tree,
                    point,
                    own_from,
                } => {
                    let zxid = state.zxid();
                    self.applier.install(*state, *point, own_from, tree.values());
                    if !matches!(tree, NewTree::Founding) {
                        self.shared.memory.all_stored(zxid);
                    }
                    self.installed(tree);
                }
                ApplierInput::View(made) => {
                    self.checkpoint(true);
                    self.store
                        .push(StoreInput::View(Box::new(|view| made(view.map(SnapshotView::Tree)))));
                }
                ApplierInput::Stop => self.is_stopping = true,
            }
        }
        let (index, _) = self.applier.position();
        if index != before {
            let applied = self.applier.take_report();
            self.shared.driver.put(DriverInput::Applied(applied));
        }
        Ok(())
    }

    /// The state of a snapshot has taken the place of ours in memory; on disk it follows.
    fn installed(&mut self, tree: NewTree) {
        let (index, term) = self.applier.position();
        let applied = LogPoint { index, term };
        self.checkpointed = index;
        self.store.push(match tree {
            NewTree::Founding => StoreInput::Found {
                checkpoint: self.take_dirty(),
                applied,
                members: self.applier.members().clone(),
            },
            NewTree::Arrived(tree) => {
                let shared = self.shared.clone();
                StoreInput::Switch {
                    tree: Box::new(tree.keep()),
                    done: Box::new(move || shared.driver.push(DriverInput::Installed)),
                }
            }
            #[cfg(test)]
            NewTree::Simulated(tree) => StoreInput::Simulated(tree),
        });
    }

    /// Whether much that was applied is not in the store yet.
    fn has_piled_up(&self) -> bool {
        self.shared.unstored_bytes() > self.shared.memory.unstored_limit()
    }

    /// Waits until little enough has piled up. Members that do not lead take what the leader sends at its pace, while there is
    /// room: were they to wait, the same would pile up as entries, in which nothing coalesces. Where it keeps memory full that the
    /// budget does not give, they wait too, and take no more entries (`backlog`).
    fn wait_for_store(&mut self) {
        while self.has_piled_up() && self.is_to_wait() && !self.shared.is_stopping() {
            if self.shared.memory.bytes_on_their_way() == 0 {
                return self.checkpoint(true);
            }
            std::thread::sleep(STORE_WAIT);
        }
    }

    fn is_to_wait(&self) -> bool {
        self.shared.standing().role == Role::Leader || self.shared.memory.is_crowded()
    }

    fn is_checkpoint_due(&self) -> bool {
        let waited_us = self.shared.clock.now_us().saturating_sub(self.last_us);
        let waited = waited_us >= self.schedule.interval_ms * 1000;
        let is_much = || {
            if self.is_much_log() {
                return true;
            }
            let bytes = self.schedule.bytes.min(self.shared.memory.behind_bytes());
            let state = self.shared.state.read();
            state.dirty_len() >= self.schedule.records || state.dirty_bytes() >= bytes
        };
        (waited || is_much()) && self.store.is_empty()
    }

    fn is_much_log(&self) -> bool {
        self.log_bytes >= self.schedule.log_bytes / 2
    }

    /// Takes what has changed. Nobody else applies meanwhile; reads have their turns.
    fn take_dirty(&self) -> Checkpoint {
        let mut state = self.shared.state.write();
        let mut draft = state.begin_checkpoint();
        while state.draft_nodes(&mut draft, NODES_PER_HOLD) {
            RwLockWriteGuard::bump(&mut state);
        }
        state.finish_checkpoint(draft)
    }

    /// Hands what has changed to the store; `whole`: even if nothing has.
    fn checkpoint(&mut self, whole: bool) {
        let (index, term) = self.applier.position();
        let checkpoint = self.take_dirty();
        self.last_us = self.shared.clock.now_us();
        let far = index >= self.checkpointed + INDEX_LAG;
        if !checkpoint.records.is_empty() || far || self.is_much_log() || whole {
            self.checkpointed = index;
            self.shared.memory.checkpoint_taken(checkpoint.bytes());
            self.store.push(StoreInput::Checkpoint {
                checkpoint,
                log_bytes: std::mem::take(&mut self.log_bytes),
                applied: LogPoint { index, term },
                members: self.applier.members().clone(),
            });
        }
    }
}

impl Part for Checkpointer {
    type Input = ApplierInput;
    const NAME: &'static str = "applier";

    /// A checkpoint may take milliseconds: a thread that only lends a hand takes none.
    fn turn(&mut self, inputs: &mut Vec<ApplierInput>, is_lent: bool) -> Result<Turned, Failure> {
        if !is_lent {
            return Ok(if self.step(inputs)? {
                Turned::Ended
            } else {
                Turned::Done
            });
        }
        self.apply(inputs)?;
        let is_for_own_thread = self.is_stopping || self.is_checkpoint_due();
        Ok(if is_for_own_thread {
            Turned::WantsOwnThread
        } else {
            Turned::Done
        })
    }

    fn rest(&self) -> Duration {
        Duration::from_millis(self.schedule.interval_ms)
    }

    fn is_lendable(&self) -> bool {
        // What commands touch may have to be read from the disk first; or the store is behind.
        !self.shared.loading.is_under_way() && !self.has_piled_up()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::multi::MultiRequest;
    use crate::proto::request::{CreateRequest, SetDataRequest, Write};
    use crate::proto::{Acl, OpCode, SessionId, Xid, Zxid};
    use crate::replica::{MembersAt, Standing};
    use crate::server::simulated::shared_alone;
    use crate::state_machine::command::SessionBody;
    use crate::state_machine::{Batch, Command, ConnectionId, Origin, ServerId, Stamp};
    use bytes::{Bytes, BytesMut};
    use raft::prelude::Entry;
    use std::time::Instant;

    const SCHEDULE: CheckpointSchedule = CheckpointSchedule {
        interval_ms: 1000,
        records: 1000,
        bytes: 1 << 20,
        persist_interval_ms: 1000,
        log_bytes: 4 << 20,
    };

    /// Somebody who applies entries, and a store that nobody drains.
    fn checkpointer(shared: &Arc<Shared>) -> (Checkpointer, Arc<Inbox<StoreInput>>) {
        let applier = Applier::new(shared.clone(), 0, 0, MembersAt::default());
        let store = Arc::new(Inbox::default());
        let checkpointer = Checkpointer::new(shared.clone(), applier, store.clone(), SCHEDULE);
        (checkpointer, store)
    }

    /// The entry at `index`, with one command of a session.
    fn entry(index: u64, op: OpCode, body: Bytes) -> ApplierInput {
        let command = Command {
            origin: Origin {
                server: ServerId(2),
                connection: ConnectionId(1),
            },
            session: SessionId(7),
            xid: Xid(1),
            identities: [].into(),
            op,
            body,
        };
        let entry = Entry {
            index,
            term: 1,
            data: Batch::encode(Stamp::default(), &[command]),
            ..Entry::default()
        };
        ApplierInput::Entries {
            entries: vec![entry],
            members: Vec::new(),
        }
    }

    fn session(index: u64) -> ApplierInput {
        let body = SessionBody {
            timeout_ms: 30_000,
            password: [1; 16],
        };
        entry(index, OpCode::CreateSession, body.to_bytes())
    }

    fn write(index: u64, write: &Write) -> ApplierInput {
        let mut body = BytesMut::new();
        write.encode(&mut body);
        entry(index, write.op(), body.freeze())
    }

    fn create(path: &str) -> Write {
        let request = CreateRequest {
            path: path.into(),
            data: None,
            acl: Some(vec![Acl::open()]),
            flags: 0,
            ttl_ms: None,
        };
        Write::Create(OpCode::Create, request)
    }

    /// How many records the checkpoints have that wait for the store, and up to where they go.
    fn taken(store: &Inbox<StoreInput>) -> Vec<(usize, u64)> {
        let mut inputs = Vec::new();
        store.take(&mut inputs);
        let checkpoints = inputs.into_iter().filter_map(|input| match input {
            StoreInput::Checkpoint {
                checkpoint, applied, ..
            } => Some((checkpoint.records.len(), applied.index)),
            _ => None,
        });
        checkpoints.collect()
    }

    #[test]
    fn much_log_of_commands_that_fail_is_checkpointed() {
        let (mut checkpointer, store) = checkpointer(&shared_alone());
        checkpointer.step(&mut vec![session(1)]).expect("applied");
        checkpointer.checkpoint(true);
        taken(&store);
        let fails = Write::SetData(SetDataRequest {
            path: "/absent".into(),
            data: Some(Bytes::from(vec![1; 1 << 20])),
            version: -1,
        });
        // Twice what is not waited for longer.
        let mut pushed = Vec::new();
        for index in 2..=9 {
            checkpointer.step(&mut vec![write(index, &fails)]).expect("applied");
            pushed.extend(taken(&store));
        }
        assert_eq!(pushed, [(0, 3), (0, 5), (0, 7), (0, 9)]);
    }

    #[test]
    fn a_leader_waits_for_a_store_that_stands_still_though_no_values_are_written() {
        const CREATES_IN_ENTRY: usize = 1000;
        let mut shared = shared_alone();
        let only = Arc::get_mut(&mut shared).expect("nobody else has it");
        only.memory = memory::Memory::new(16 << 20, Zxid::ZERO, 0);
        shared.set_standing(Standing {
            role: Role::Leader,
            ..Standing::default()
        });
        let limit = shared.memory.unstored_limit();
        let (mut checkpointer, store) = checkpointer(&shared);
        let applying = std::thread::spawn(move || {
            checkpointer.step(&mut vec![session(1)]).expect("applied");
            for index in 2.. {
                let operations = (0..CREATES_IN_ENTRY).map(|number| create(&format!("/{index}-{number}")));
                let operations = operations.collect();
                let multi = Write::Multi(MultiRequest { operations });
                checkpointer.step(&mut vec![write(index, &multi)]).expect("applied");
                if checkpointer.shared.is_stopping() {
                    break;
                }
            }
        });
        // It comes to a halt with one checkpoint on its way, and the rest of what may pile up behind it.
        let unstored = || shared.unstored_bytes();
        let znodes = || shared.state.read().counts().znodes as u64;
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut before = 0;
        while (unstored() <= limit || znodes() > before) && znodes() * 100 < 3 * limit && Instant::now() < deadline {
            before = znodes();
            std::thread::sleep(Duration::from_millis(300));
        }
        let (queued, left) = (taken(&store), unstored());
        shared.set_stopping();
        applying.join().expect("ended");
        assert_eq!(queued.len(), 1, "{queued:?}");
        assert!(left > limit && left < limit / 2 * 3, "{left} of {limit}");
    }
}
