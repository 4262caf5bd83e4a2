use super::barriers::RETRY_TICKS;
use super::*;
use crate::proto::request::ReconfigRequest;
use crate::state_machine::LeaderKnowledge;
use bytes::BytesMut;
use raft::prelude::{ConfState, Entry, EntryType, HardState, MessageType};

fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

fn options(server: u64) -> ReplicaOptions {
    ReplicaOptions {
        server: ServerId(server),
        incarnation: server * 11,
        stream: 1,
        rules: Rules::default(),
        election_ticks: 10,
        election_slot: usize::try_from(server).unwrap(),
        log_budget_bytes: 1 << 20,
    }
}

/// A member in its first life.
fn peer(server: u64) -> Peer {
    Peer {
        server: ServerId(server),
        incarnation: server * 11,
    }
}

fn members(servers: &[u64]) -> (ConfState, Registry) {
    let conf_state = ConfState {
        voters: servers.to_vec(),
        ..ConfState::default()
    };
    let registry = Registry::new(servers.iter().map(|server| (ServerId(*server), server * 11)));
    (conf_state, registry)
}

fn single() -> Replica {
    let (conf_state, registry) = members(&[1]);
    let recovered = Recovered {
        conf_state,
        registry,
        ..Recovered::default()
    };
    let options = ReplicaOptions {
        log_budget_bytes: 0,
        ..options(1)
    };
    Replica::new(options, recovered, &logger()).unwrap()
}

fn command(xid: i32) -> Command {
    Command {
        origin: Origin {
            server: ServerId(1),
            ..Origin::default()
        },
        session: SessionId(1),
        xid: Xid(xid),
        identities: [].into(),
        op: OpCode::SetData,
        body: Bytes::new(),
    }
}

/// How many commands of clients an entry holds.
fn own(entry: &Entry) -> usize {
    let commands = commands(entry);
    commands.iter().filter(|command| command.op == OpCode::SetData).count()
}

fn commands(entry: &Entry) -> Vec<Command> {
    if entry.data.is_empty() || entry.get_entry_type() != EntryType::EntryNormal {
        return Vec::new();
    }
    Batch::decode(&entry.data).unwrap().commands
}

/// Runs a replica with a perfect disk until it has nothing to do; gives all that was to be applied.
fn run(replica: &mut Replica) -> Vec<Command> {
    let mut applied = Vec::new();
    while let Some(work) = replica.poll(5).unwrap() {
        for entry in &work.apply {
            applied.extend(commands(entry));
            replica.applied(entry.index, entry.term, own(entry));
        }
        if let Some(append) = work.append {
            replica.persisted(append.number);
        }
    }
    applied
}

#[test]
fn a_lone_voter_leads_at_once_and_applies_in_order() {
    let mut replica = single();
    replica.submit((0..2000).map(command));
    let xids: Vec<i32> = run(&mut replica).iter().map(|command| command.xid.0).collect();
    assert!(replica.is_leader());
    assert_eq!(xids, (0..2000).collect::<Vec<_>>());
}

#[test]
fn nothing_is_applied_before_it_is_on_disk() {
    let mut replica = single();
    run(&mut replica);
    replica.submit([command(1)]);
    let mut last = 0;
    while let Some(work) = replica.poll(5).unwrap() {
        assert!(work.apply.is_empty());
        last = work.append.unwrap().number;
    }
    replica.persisted(last);
    let work = replica.poll(5).unwrap().unwrap();
    assert_eq!(work.apply.len(), 1);
}

#[test]
fn a_barrier_waits_for_what_was_committed_before_it() {
    let mut replica = single();
    run(&mut replica);
    replica.submit([command(1)]);
    run(&mut replica);
    replica.barrier(42);
    let work = replica.poll(5).unwrap().unwrap();
    assert_eq!(
        work.barriers,
        [PassedBarriers {
            index: 2,
            tokens: vec![42]
        }]
    );
}

#[test]
fn a_barrier_that_a_new_leader_is_asked_for_waits_for_no_tick() {
    let mut replica = single();
    let mut passed = Vec::new();
    let mut is_asked = false;
    while let Some(work) = replica.poll(5).unwrap() {
        if work.standing.is_some_and(|standing| standing.leader.is_some()) {
            // Before it has committed anything.
            replica.barrier(42);
            is_asked = true;
        }
        passed.extend(work.barriers);
        for entry in &work.apply {
            replica.applied(entry.index, entry.term, own(entry));
        }
        if let Some(append) = work.append {
            replica.persisted(append.number);
        }
    }
    assert!(is_asked && passed.len() == 1, "{passed:?}");
}

#[test]
fn a_silent_session_is_closed_by_the_leader() {
    let mut replica = single();
    run(&mut replica);
    replica.session_opened(SessionId(9), 1000);
    let mut closed = Vec::new();
    for tick in 1..=21 {
        assert!(closed.is_empty(), "closed before tick {tick}");
        replica.tick();
        closed = run(&mut replica);
    }
    assert_eq!((closed[0].op, closed[0].session), (OpCode::CloseSession, SessionId(9)));
}

#[test]
fn a_member_goes_on_from_its_log() {
    let mut replica = single();
    replica.submit((0..3).map(command));
    let mut entries = Vec::new();
    let mut hard_state = HardState::default();
    while let Some(work) = replica.poll(5).unwrap() {
        for entry in &work.apply {
            replica.applied(entry.index, entry.term, own(entry));
        }
        if let Some(append) = work.append {
            entries.extend(append.entries);
            hard_state = append.hard_state.unwrap_or(hard_state);
            replica.persisted(append.number);
        }
    }
    // The commit index on disk is older than what was applied: the tree's word counts.
    hard_state.commit = 0;
    let (conf_state, registry) = members(&[1]);
    let recovered = Recovered {
        entries,
        hard_state,
        applied_index: 1,
        conf_state,
        registry,
        ..Recovered::default()
    };
    let mut again = Replica::new(options(1), recovered, &logger()).unwrap();
    let mut applied = 0;
    while let Some(work) = again.poll(5).unwrap() {
        for entry in &work.apply {
            applied += own(entry);
            again.applied(entry.index, entry.term, 0);
        }
        if let Some(append) = work.append {
            again.persisted(append.number);
        }
    }
    assert_eq!(applied, 3);
}

#[test]
fn a_lone_server_holds_no_applied_entry_and_its_log_is_cut_where_the_tree_is_durable() {
    let mut replica = single();
    for xid in 0..9 {
        replica.submit([command(xid)]);
        run(&mut replica);
    }
    assert_eq!(replica.log_bytes(), 0);
    assert_eq!(replica.compact(3), 4, "the disk keeps what a start must apply again");
}

#[test]
fn a_batch_holds_at_least_one_command_and_at_most_its_limits() {
    let large = Command {
        body: vec![0; BATCH_BYTES].into(),
        ..command(0)
    };
    assert_eq!(next_batch(&[large.clone(), command(1)]), 1);
    assert_eq!(next_batch(&[command(1), large]), 1);
    assert_eq!(next_batch(&(0..2000).map(command).collect::<Vec<_>>()), BATCH_COMMANDS);
}

/// Members with perfect disks, and a network that loses what a test wants it to lose.
struct Ensemble {
    members: BTreeMap<u64, Replica>,
    applied: BTreeMap<u64, Vec<i32>>,
    cut: BTreeSet<u64>,
    /// What the first says the second does not hear.
    mute: BTreeSet<(u64, u64)>,
    /// Messages of this kind get lost.
    lost: Option<MessageType>,
    /// What the first says to the second is held back.
    hold: BTreeSet<(u64, u64)>,
    held: Vec<(u64, PeerMessage)>,
    mail: VecDeque<(u64, u64, PeerMessage)>,
    /// Barriers that members have passed, by their tokens.
    passed: Vec<(u64, u64)>,
    /// Acknowledged appends that were delivered.
    acknowledgements: usize,
}

impl Ensemble {
    fn new(servers: &[u64]) -> Ensemble {
        Ensemble::with_observers(servers, 0)
    }

    /// The last so many servers do not vote.
    fn with_observers(servers: &[u64], observers: usize) -> Ensemble {
        let (mut conf_state, registry) = members(servers);
        conf_state.learners = conf_state.voters.split_off(servers.len() - observers);
        let member = |server: &u64| {
            let recovered = Recovered {
                conf_state: conf_state.clone(),
                registry: registry.clone(),
                ..Recovered::default()
            };
            (*server, Replica::new(options(*server), recovered, &logger()).unwrap())
        };
        Ensemble {
            members: servers.iter().map(member).collect(),
            applied: BTreeMap::new(),
            cut: BTreeSet::new(),
            mute: BTreeSet::new(),
            lost: None,
            hold: BTreeSet::new(),
            held: Vec::new(),
            mail: VecDeque::new(),
            passed: Vec::new(),
            acknowledgements: 0,
        }
    }

    fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.members.values_mut().for_each(Replica::tick);
            self.settle();
        }
    }

    fn settle(&mut self) {
        loop {
            for (server, replica) in &mut self.members {
                while let Some(work) = replica.poll(5).unwrap() {
                    self.mail
                        .extend(work.send.into_iter().map(|(to, message)| (*server, to.0, message)));
                    let tokens = work.barriers.into_iter().flat_map(|passed| passed.tokens);
                    self.passed.extend(tokens.map(|token| (*server, token)));
                    for entry in &work.apply {
                        let commands = commands(entry);
                        let mine = commands.iter().filter(|command| command.origin.server.0 == *server);
                        let mine = mine.filter(|command| command.op == OpCode::SetData).count();
                        replica.applied(entry.index, entry.term, mine);
                        let xids = commands.iter().map(|command| command.xid.0);
                        self.applied.entry(*server).or_default().extend(xids);
                    }
                    if let Some(append) = work.append {
                        replica.persisted(append.number);
                    }
                }
            }
            let Some((from, to, message)) = self.mail.pop_front() else {
                return;
            };
            if self.cut.contains(&from) || self.cut.contains(&to) || self.mute.contains(&(from, to)) {
                continue;
            }
            let message = PeerMessage::decode(&message.to_bytes()).unwrap();
            if is_raft(&message, |message| Some(message.get_msg_type()) == self.lost) {
                continue;
            }
            if self.hold.contains(&(from, to)) {
                self.held.push((from, message));
                continue;
            }
            if let PeerMessage::Raft { message, .. } = &message {
                self.acknowledgements += usize::from(message.get_msg_type() == MessageType::MsgAppendResponse);
            }
            self.members.get_mut(&to).unwrap().step(peer(from), message).unwrap();
        }
    }

    fn leader(&self) -> u64 {
        let leads = |(_, replica): &(&u64, &Replica)| replica.is_leader();
        let leaders = self.members.iter().filter(leads);
        *leaders.max_by_key(|(_, replica)| replica.standing().term).unwrap().0
    }

    /// One that does not lead.
    fn follower(&self) -> u64 {
        let leader = self.leader();
        *self.members.keys().find(|server| **server != leader).unwrap()
    }

    fn submit(&mut self, server: u64, xids: std::ops::Range<i32>) {
        let commands = xids.map(|xid| Command {
            origin: Origin {
                server: ServerId(server),
                ..Origin::default()
            },
            ..command(xid)
        });
        self.members.get_mut(&server).unwrap().submit(commands);
    }
}

#[test]
fn every_member_applies_the_commands_of_all_in_one_order() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(40);
    for server in [1, 2, 3] {
        let base = i32::try_from(server).unwrap() * 1000;
        ensemble.submit(server, base..base + 700);
    }
    ensemble.run(10);
    let first = &ensemble.applied[&1];
    assert_eq!(first.len(), 2100);
    assert_eq!((first, first), (&ensemble.applied[&2], &ensemble.applied[&3]));
}

#[test]
fn a_write_is_acknowledged_once_by_each_follower() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(40);
    let before = ensemble.acknowledgements;
    ensemble.submit(ensemble.leader(), 0..1);
    ensemble.settle();
    assert_eq!(
        ensemble.acknowledgements - before,
        2,
        "that it is committed need not be"
    );
    assert_eq!(ensemble.applied[&ensemble.follower()], [0]);
}

#[test]
fn an_acknowledgement_that_was_lost_is_given_again_when_the_leader_asks() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(40);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let other = 6 - leader - follower;
    ensemble.mute.insert((follower, leader));
    ensemble.submit(leader, 0..1);
    ensemble.settle();
    ensemble.mute.clear();
    ensemble.run(2 * HEARTBEAT_TICKS);
    // From now on it depends on the one that was not heard.
    ensemble.cut.insert(other);
    let known: BTreeMap<_, _> = ensemble.members[&leader].progress().collect();
    assert_eq!(known[&ServerId(follower)], ensemble.members[&leader].committed());
    ensemble.submit(leader, 1..2);
    ensemble.settle();
    assert_eq!(ensemble.applied[&leader], [0, 1]);
}

#[test]
fn when_the_leader_dies_pending_commands_are_applied_exactly_once_and_in_order() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(40);
    let dead = ensemble.leader();
    let survivor = ensemble.members.keys().copied().find(|server| *server != dead).unwrap();
    ensemble.submit(survivor, 0..50);
    ensemble.run(1);
    ensemble.submit(survivor, 50..100);
    // Forwarded, and lost with the leader.
    let replica = ensemble.members.get_mut(&survivor).unwrap();
    while replica.poll(5).unwrap().is_some() {}
    ensemble.cut.insert(dead);
    ensemble.submit(survivor, 100..150);
    ensemble.run(60);
    assert_ne!(ensemble.leader(), dead);
    assert_eq!(ensemble.applied[&survivor], (0..150).collect::<Vec<_>>());
    ensemble.cut.clear();
    ensemble.run(60);
    assert_eq!(ensemble.applied[&dead], ensemble.applied[&survivor]);
}

#[test]
fn a_leader_without_a_quorum_steps_down() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(40);
    let leader = ensemble.leader();
    ensemble.cut.insert(leader);
    ensemble.run(25);
    assert!(!ensemble.members[&leader].is_leader());
}

#[test]
fn an_observer_that_hears_nothing_of_its_leader_knows_of_none() {
    let mut ensemble = Ensemble::with_observers(&[1, 2, 3, 4], 1);
    ensemble.run(40);
    let leader = ServerId(ensemble.leader());
    let seen = |ensemble: &Ensemble| ensemble.members[&4].standing();
    assert_eq!(seen(&ensemble).leader, Some(leader));
    ensemble.cut.insert(4);
    ensemble.run(10);
    assert_eq!(seen(&ensemble).leader, Some(leader), "a few ticks may be bad luck");
    ensemble.run(40);
    assert_eq!(seen(&ensemble).leader, None);
    ensemble.submit(4, 0..3);
    ensemble.cut.clear();
    ensemble.run(10);
    assert_eq!(seen(&ensemble).leader, Some(leader));
    assert_eq!(
        ensemble.applied[&4],
        [0, 1, 2],
        "what it was given meanwhile is done, once"
    );
}

#[test]
fn leadership_is_handed_over_without_an_election_timeout_at_any_moment() {
    for wait in 0..12 {
        let mut ensemble = Ensemble::new(&[1, 2, 3]);
        ensemble.run(40 + wait);
        let leader = ensemble.leader();
        let replica = ensemble.members.get_mut(&leader).unwrap();
        for server in [1, 2, 3] {
            replica.linked(peer(server));
        }
        // Once in an election timeout, raft forgets who is alive until the next answers come.
        replica.tick();
        let next = replica.hand_over().unwrap();
        ensemble.run(2);
        assert_eq!(ensemble.leader(), next.0);
    }
}

#[test]
fn a_barrier_of_a_follower_waits_for_what_was_committed_before_it() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(40);
    let leader = ensemble.leader();
    let follower = ensemble.follower();
    ensemble.submit(leader, 0..1);
    ensemble.run(4);
    let committed = ensemble.members[&leader].committed();
    ensemble.members.get_mut(&follower).unwrap().barrier(42);
    let mut passed = Vec::new();
    for _ in 0..10 {
        while let Some(work) = ensemble.members.get_mut(&follower).unwrap().poll(5).unwrap() {
            let sent = work.send.into_iter().map(|(to, message)| (follower, to.0, message));
            ensemble.mail.extend(sent);
            passed.extend(work.barriers);
            if let Some(append) = work.append {
                ensemble.members.get_mut(&follower).unwrap().persisted(append.number);
            }
        }
        let Some((from, to, message)) = ensemble.mail.pop_front() else {
            break;
        };
        ensemble
            .members
            .get_mut(&to)
            .unwrap()
            .step(peer(from), message)
            .unwrap();
        let others: Vec<u64> = ensemble
            .members
            .keys()
            .copied()
            .filter(|server| *server != follower)
            .collect();
        for server in others {
            while let Some(work) = ensemble.members.get_mut(&server).unwrap().poll(5).unwrap() {
                let sent = work.send.into_iter().map(|(to, message)| (server, to.0, message));
                ensemble.mail.extend(sent);
                if let Some(append) = work.append {
                    ensemble.members.get_mut(&server).unwrap().persisted(append.number);
                }
            }
        }
    }
    assert_eq!(
        passed,
        [PassedBarriers {
            index: committed,
            tokens: vec![42]
        }]
    );
}

/// A follower's question is answered, but the answer is lost, and so it asks again. The leader has lost its office by then and
/// does not know it; what it still hears was said while it had it.
#[test]
fn a_barrier_is_not_passed_by_what_was_said_before_it_was_asked_for() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(40);
    let leader = ensemble.leader();
    let follower = ensemble.follower();
    let third = 1 + 2 + 3 - leader - follower;
    let carries_question =
        |message: &Message| !message.context.is_empty() || message.get_msg_type() == MessageType::MsgReadIndex;

    ensemble.lost = Some(MessageType::MsgReadIndexResp);
    ensemble.hold.insert((third, leader));
    ensemble.members.get_mut(&follower).unwrap().barrier(42);
    ensemble.settle();
    let late = std::mem::take(&mut ensemble.held);
    assert!(
        late.iter().any(|(_, message)| is_raft(message, carries_question)),
        "{late:?}"
    );
    assert!(ensemble.passed.is_empty());
    ensemble.hold = [(follower, leader)].into();
    while !ensemble
        .held
        .iter()
        .any(|(_, message)| is_raft(message, carries_question))
    {
        ensemble.members.get_mut(&follower).unwrap().tick();
        ensemble.settle();
    }
    let again = std::mem::take(&mut ensemble.held);
    ensemble.hold.clear();

    ensemble.cut.insert(leader);
    ensemble.members.get_mut(&leader).unwrap().barrier(43);
    ensemble.settle();
    for (from, message) in again.into_iter().chain(late) {
        if is_raft(&message, carries_question) {
            ensemble
                .members
                .get_mut(&leader)
                .unwrap()
                .step(peer(from), message)
                .unwrap();
            ensemble.settle();
        }
    }
    assert!(ensemble.members[&leader].is_leader(), "or nothing was tried");
    assert_eq!(ensemble.passed, []);
}

/// The same with a question of the leader's own, which is answered in the moment in which it would be asked again.
#[test]
fn a_barrier_is_not_passed_by_what_was_said_to_an_earlier_question_of_the_leader() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(40);
    let leader = ensemble.leader();
    let others = [1, 2, 3].into_iter().filter(|server| *server != leader);
    ensemble.hold = others.map(|server| (server, leader)).collect();
    ensemble.members.get_mut(&leader).unwrap().barrier(42);
    ensemble.settle();
    let mut answers = std::mem::take(&mut ensemble.held);
    answers.retain(|(_, message)| is_raft(message, |message| !message.context.is_empty()));
    assert_eq!(answers.len(), 2);

    ensemble.cut.insert(leader);
    for _ in 1..RETRY_TICKS {
        ensemble.members.get_mut(&leader).unwrap().tick();
        ensemble.settle();
    }
    ensemble.members.get_mut(&leader).unwrap().barrier(43);
    ensemble.settle();
    ensemble.members.get_mut(&leader).unwrap().tick();
    for (from, message) in answers {
        let replica = ensemble.members.get_mut(&leader).unwrap();
        replica.step(peer(from), message).unwrap();
        ensemble.settle();
    }
    assert!(ensemble.members[&leader].is_leader(), "or nothing was tried");
    assert_eq!(ensemble.passed, [(leader, 42)]);
}

fn is_raft(message: &PeerMessage, is_so: impl FnOnce(&Message) -> bool) -> bool {
    match message {
        PeerMessage::Raft { message, .. } => is_so(message),
        _ => false,
    }
}

#[test]
fn a_barrier_waits_for_no_tick_when_there_is_another_leader() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(40);
    let leader = ensemble.leader();
    let follower = ensemble.follower();
    // Whoever is asked by then does not answer.
    ensemble.cut.insert(leader);
    for server in [leader, follower] {
        ensemble.members.get_mut(&server).unwrap().barrier(42);
    }
    ensemble.settle();
    ensemble.members.get_mut(&leader).unwrap().barrier(43);
    let has_another = |ensemble: &Ensemble| {
        let mut members = ensemble.members.iter();
        members.any(|(server, replica)| *server != leader && replica.is_leader())
    };
    while !has_another(&ensemble) {
        assert!(ensemble.passed.is_empty(), "nobody can know: {:?}", ensemble.passed);
        ensemble.run(1);
    }
    assert_eq!(ensemble.passed, [(follower, 42)]);
    // The leader that was learns of the new one, and no further tick comes.
    ensemble.cut.clear();
    let knows_another = |ensemble: &Ensemble| {
        let known = ensemble.members[&leader].standing().leader;
        known.is_some_and(|known| known.0 != leader)
    };
    while !knows_another(&ensemble) {
        ensemble.run(1);
    }
    ensemble.passed.sort_unstable();
    let mut all = [(leader, 42), (leader, 43), (follower, 42)];
    all.sort_unstable();
    assert_eq!(ensemble.passed, all);
}

#[test]
fn the_word_of_a_member_that_has_lost_its_memory_does_not_count() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(1);
    let candidate = ensemble.members.get_mut(&1).unwrap();
    candidate.stand().unwrap();
    let mut vote = Message {
        from: 2,
        to: 1,
        term: candidate.raft.raft.term + 1,
        ..Message::default()
    };
    vote.set_msg_type(MessageType::MsgRequestPreVoteResponse);
    let message = PeerMessage::Raft {
        to_incarnation: 0,
        message: vote,
    };
    let forgetful = Peer {
        server: ServerId(2),
        incarnation: 999,
    };
    candidate.step(forgetful, message.clone()).unwrap();
    assert_eq!(candidate.raft.raft.state, StateRole::PreCandidate);
    let faithful = Peer {
        incarnation: 22,
        ..forgetful
    };
    candidate.step(faithful, message).unwrap();
    assert_eq!(candidate.raft.raft.state, StateRole::Candidate);
}

#[test]
fn signs_of_life_on_a_follower_keep_a_session_alive() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(40);
    let leader = ensemble.leader();
    let follower = ensemble.follower();
    for replica in ensemble.members.values_mut() {
        replica.session_opened(SessionId(9), 1000);
    }
    let before = ensemble.members[&leader].committed();
    for _ in 0..10 {
        ensemble.members.get_mut(&follower).unwrap().touch(&[SessionId(9)]);
        ensemble.run(15);
    }
    assert_eq!(ensemble.members[&leader].committed(), before, "nothing was closed");
    ensemble.run(40);
    assert!(ensemble.members[&leader].committed() > before, "silence closes it");
}

/// A leader does not learn at once that there is another one. What its clients say meanwhile it must pass on.
#[test]
fn signs_of_life_at_a_deposed_leader_reach_the_next_one() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(40);
    let deposed = ensemble.leader();
    for replica in ensemble.members.values_mut() {
        replica.session_opened(SessionId(9), 2000);
        replica.session_opened(SessionId(10), 1000);
    }
    ensemble.run(1);
    ensemble.cut.insert(deposed);
    for (server, replica) in &mut ensemble.members {
        if *server != deposed {
            replica.is_gone(ServerId(deposed));
        }
    }
    let mut waited = 0;
    while ensemble.members[&deposed].is_leader() {
        ensemble.members.get_mut(&deposed).unwrap().touch(&[SessionId(9)]);
        ensemble.run(1);
        waited += 1;
        assert!(waited <= 2 * 10, "it steps down");
    }
    ensemble.cut.clear();
    let closed = |ensemble: &Ensemble| {
        let leader = &ensemble.members[&ensemble.leader()];
        let entries = leader.raft.raft.raft_log.all_entries();
        let commands = entries.iter().flat_map(commands);
        let closings = commands.filter(|command| command.op == OpCode::CloseSession);
        closings.map(|command| command.session.0).collect::<BTreeSet<_>>()
    };
    ensemble.run(39);
    assert_ne!(ensemble.leader(), deposed);
    assert_eq!(closed(&ensemble), [10].into());
    ensemble.run(20);
    assert_eq!(closed(&ensemble), [9, 10].into());
}

#[test]
fn a_founder_begins_behind_an_entry_that_never_was() {
    let mut replica = Replica::new(options(1), Recovered::default(), &logger()).unwrap();
    let (conf_state, registry) = members(&[1]);
    assert!(replica.found(conf_state.clone(), &registry));
    assert!(!replica.found(conf_state.clone(), &registry), "only once");
    let work = replica.poll(5).unwrap().unwrap();
    let point = work.restore.unwrap();
    assert_eq!((point.members.index, point.term), FOUNDING);
    assert_eq!(
        (point.members.conf_state, point.members.registry),
        (conf_state, registry)
    );
    // Its disk is slow, and somebody is impatient.
    for _ in 0..3 * 10 {
        replica.tick();
        replica.stand().unwrap();
        assert!(replica.poll(5).unwrap().is_none());
    }
    replica.persisted(work.append.unwrap().number);
    replica.stand().unwrap();
    assert!(replica.poll(5).unwrap().is_none(), "its state is not there yet");
    replica.applied(1, 1, 0);
    replica.stand().unwrap();
    replica.submit([command(7)]);
    assert_eq!(run(&mut replica).len(), 1);
}

#[test]
fn a_member_that_was_put_back_from_an_old_copy_is_told_and_not_believed() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    for server in [1, 2, 3] {
        for other in [1, 2, 3].into_iter().filter(|other| *other != server) {
            ensemble.members.get_mut(&server).unwrap().linked(peer(other));
        }
    }
    ensemble.run(40);
    ensemble.submit(ensemble.leader(), 0..50);
    ensemble.run(30);
    let leader = ensemble.leader();
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|server| *server != leader).collect();
    let (restored, witness) = (others[0], others[1]);
    // As it was at its first start; the leader that it has acknowledged to is gone.
    ensemble.cut.insert(leader);
    let (conf_state, registry) = members(&[1, 2, 3]);
    let recovered = Recovered {
        conf_state,
        registry,
        ..Recovered::default()
    };
    let mut old = Replica::new(options(restored), recovered, &logger()).unwrap();
    old.linked(peer(witness));
    let mut said = Vec::new();
    while let Some(work) = old.poll(5).unwrap() {
        said.extend(work.send);
        if let Some(append) = work.append {
            old.persisted(append.number);
        }
    }
    let witness = ensemble.members.get_mut(&witness).unwrap();
    for (_, message) in said {
        witness.step(peer(restored), message).unwrap();
    }
    assert!(witness.witness.suspects(peer(restored)));
    let answers: Vec<_> = std::iter::from_fn(|| witness.poll(5).unwrap())
        .flat_map(|work| work.send)
        .collect();
    let (_, told) = answers
        .into_iter()
        .find(|(_, message)| matches!(message, PeerMessage::Forgotten { .. }))
        .unwrap();
    let outcome = old.step(peer(others[1]), told);
    assert!(matches!(outcome, Err(ReplicaError::Forgotten { last: 0, acknowledged }) if acknowledged > 0));
}

/// Server 2 of three, with entries up to 5, those up to 3 committed.
fn second_of_three(options: ReplicaOptions) -> Replica {
    let (conf_state, registry) = members(&[1, 2, 3]);
    let entries = (1..=5).map(|index| Entry {
        index,
        term: 1,
        ..Entry::default()
    });
    let recovered = Recovered {
        entries: entries.collect(),
        hard_state: HardState {
            term: 1,
            commit: 3,
            ..HardState::default()
        },
        conf_state,
        registry,
        ..Recovered::default()
    };
    Replica::new(options, recovered, &logger()).unwrap()
}

/// What server 1 says to server 2, in the first term unless another one is given.
fn from_leader(kind: MessageType, mut message: Message) -> PeerMessage {
    (message.from, message.to, message.term) = (1, 2, message.term.max(1));
    message.set_msg_type(kind);
    PeerMessage::Raft {
        to_incarnation: peer(2).incarnation,
        message,
    }
}

/// A snapshot of the first term, for server 2.
fn snapshot_up_to(index: u64) -> PeerMessage {
    let (conf_state, registry) = members(&[1, 2, 3]);
    let mut message = Message::default();
    let snapshot = message.mut_snapshot();
    snapshot.data = registry.to_bytes();
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (index, 1);
    metadata.set_conf_state(conf_state);
    from_leader(MessageType::MsgSnapshot, message)
}

#[test]
fn what_another_leader_has_cut_off_is_not_vouched_for() {
    // What it tells of its log to whom it is linked with, and its last append.
    let tells = |replica: &mut Replica| {
        let mut last = 0;
        while let Some(work) = replica.poll(5).unwrap() {
            last = work.append.map_or(last, |append| append.number);
        }
        replica.linked(peer(3));
        let said = replica.poll(5).unwrap().unwrap().send;
        let told = said.into_iter().filter_map(|(_, message)| match message {
            PeerMessage::Reach { index } => Some(index),
            _ => None,
        });
        (told.collect::<Vec<_>>(), last)
    };
    let mut replica = second_of_three(options(2));
    assert_eq!(tells(&mut replica).0, [5]);
    let entry = Entry {
        index: 4,
        term: 2,
        ..Entry::default()
    };
    let append = Message {
        term: 2,
        index: 3,
        log_term: 1,
        commit: 3,
        entries: vec![entry].into(),
        ..Message::default()
    };
    replica
        .step(peer(1), from_leader(MessageType::MsgAppend, append))
        .unwrap();
    let (told, last) = tells(&mut replica);
    assert_eq!(told, [3], "what takes the place is not on disk");
    replica.persisted(last);
    assert_eq!(tells(&mut replica).0, [4]);

    let mut replica = second_of_three(options(2));
    tells(&mut replica);
    let PeerMessage::Raft { mut message, .. } = snapshot_up_to(4) else {
        panic!("it is raft's")
    };
    message.term = 2;
    message.mut_snapshot().mut_metadata().term = 2;
    replica
        .step(peer(1), from_leader(MessageType::MsgSnapshot, message))
        .unwrap();
    assert_eq!(tells(&mut replica).0, [4], "the log ends with the snapshot");
}

#[test]
fn nobody_stands_for_election_while_a_snapshot_is_installed() {
    let mut replica = second_of_three(options(2));
    replica.step(peer(1), snapshot_up_to(10)).unwrap();
    replica
        .step(peer(1), from_leader(MessageType::MsgTimeoutNow, Message::default()))
        .unwrap();
    let mut last = 0;
    let mut restored = 0;
    for _ in 0..3 * 10 {
        // Its leader is gone, or hands over.
        replica.is_gone(ServerId(1));
        replica
            .step(peer(1), from_leader(MessageType::MsgTimeoutNow, Message::default()))
            .unwrap();
        replica.tick();
        while let Some(work) = replica.poll(5).unwrap() {
            restored += usize::from(work.restore.is_some());
            last = work.append.map_or(last, |append| append.number);
        }
        assert_eq!(replica.standing().role, Role::Follower);
    }
    assert_eq!(restored, 1);
    assert_eq!(replica.standing().leader, None, "it is not believed in for ever");
    replica.persisted(last);
    for _ in 0..3 * 10 {
        replica.tick();
    }
    while replica.poll(5).unwrap().is_some() {}
    assert_eq!(replica.standing().role, Role::Follower, "its state is not there yet");
    replica.applied(10, 1, 0);
    replica.tick();
    while replica.poll(5).unwrap().is_some() {}
    assert_eq!(replica.standing().role, Role::Looking, "it has waited long enough");
}

#[test]
fn nobody_stands_for_election_before_the_report_of_what_the_log_has_dropped() {
    let mut replica = second_of_three(ReplicaOptions {
        log_budget_bytes: 1,
        ..options(2)
    });
    let work = replica.poll(5).unwrap().unwrap();
    assert_eq!(work.apply.len(), 3);
    replica.persisted(work.append.unwrap().number);
    // The tree that holds it is durable, and the applier's thread stands still.
    assert_eq!(replica.compact(3), 4);
    for _ in 0..3 * 10 {
        replica.tick();
        while replica.poll(5).unwrap().is_some() {}
    }
    assert_eq!(replica.standing().role, Role::Follower);
    replica.applied(3, 1, 0);
    replica.tick();
    while replica.poll(5).unwrap().is_some() {}
    assert_eq!(replica.standing().role, Role::Looking);
}

#[test]
fn a_member_that_is_given_a_snapshot_has_forgotten_nothing() {
    let mut replica = second_of_three(options(2));
    replica.step(peer(1), snapshot_up_to(10)).unwrap();
    // Its leader knows of what this member has acknowledged, and speaks of it before the snapshot is installed.
    replica.step(peer(1), PeerMessage::Forgotten { index: 5 }).unwrap();
    let forgotten = replica.step(peer(1), PeerMessage::Forgotten { index: 6 });
    assert!(matches!(forgotten, Err(ReplicaError::Forgotten { last: 5, .. })));
}

#[test]
fn a_follower_notices_that_its_leader_does_not_hear_it() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(80);
    let leader = ensemble.leader();
    let follower = ensemble.follower();
    assert!(ensemble.members[&follower].unanswered_ticks() <= 2 * CONTACT_TICKS);
    assert_eq!(ensemble.members[&leader].unanswered_ticks(), 0);
    ensemble.mute.insert((follower, leader));
    ensemble.run(100);
    assert_eq!(ensemble.leader(), leader, "it is heard, so nobody stands");
    assert!(ensemble.members[&follower].unanswered_ticks() >= 100 - 2 * CONTACT_TICKS);
    ensemble.mute.clear();
    ensemble.run(30);
    assert!(ensemble.members[&follower].unanswered_ticks() <= 2 * CONTACT_TICKS);
}

/// What asks for session 9, of a client of `server`.
fn attach(server: u64) -> Command {
    Command {
        origin: Origin {
            server: ServerId(server),
            ..Origin::default()
        },
        op: OpCode::AttachSession,
        session: SessionId(9),
        ..command(0)
    }
}

#[test]
fn a_follower_notices_that_its_leader_does_not_hear_it_though_it_stands_for_election_now_and_then() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(80);
    let leader = ensemble.leader();
    let follower = ensemble.follower();
    ensemble.mute.insert((follower, leader));
    ensemble.members.get_mut(&follower).unwrap().options.election_slot = 0;
    let mut stood = 0;
    for tick in 0..100_u64 {
        if tick.is_multiple_of(19) {
            // What it hears of its leader's host is wrong.
            ensemble.members.get_mut(&follower).unwrap().is_gone(ServerId(leader));
        }
        ensemble.run(1);
        let replica = &ensemble.members[&follower];
        stood += usize::from(replica.standing().role == Role::Looking);
        assert!(replica.unanswered_ticks() <= tick + 2 * CONTACT_TICKS);
    }
    ensemble.run(HEARTBEAT_TICKS);
    assert!(stood >= 2, "or nothing was tried");
    assert_eq!(ensemble.leader(), leader, "the others hear it");
    assert!(ensemble.members[&follower].unanswered_ticks() >= 100 - 2 * CONTACT_TICKS);
    // Another leader is another matter.
    ensemble.cut.insert(leader);
    ensemble.members.get_mut(&follower).unwrap().options.election_slot = 4;
    let third = 1 + 2 + 3 - leader - follower;
    for server in [third, follower] {
        ensemble.members.get_mut(&server).unwrap().is_gone(ServerId(leader));
        ensemble.run(2);
    }
    ensemble.run(20);
    assert_eq!(ensemble.leader(), third);
    assert!(ensemble.members[&follower].unanswered_ticks() <= 2 * CONTACT_TICKS);
}

#[test]
fn who_has_shown_to_live_in_the_last_tick_of_a_session_resumes_it() {
    let mut replica = single();
    run(&mut replica);
    replica.session_opened(SessionId(9), 1000);
    for _ in 0..20 {
        replica.tick();
    }
    replica.touch(&[SessionId(9)]);
    replica.submit([attach(1)]);
    replica.tick();
    let proposed: Vec<OpCode> = std::iter::from_fn(|| replica.poll(5).unwrap())
        .flat_map(|work| work.append)
        .flat_map(|append| append.entries)
        .flat_map(|entry| commands(&entry))
        .map(|command| command.op)
        .collect();
    assert_eq!(proposed, [OpCode::AttachSession]);
}

/// A reconfig that asks for nothing, and the same as a leader proposes it that is in contact with these.
fn reconfig(in_contact: &[u64]) -> (Command, Command) {
    let request = ReconfigRequest {
        joining: None,
        leaving: None,
        members: None,
        config_version: -1,
    };
    let mut body = BytesMut::new();
    request.encode(&mut body);
    let asked = Command {
        op: OpCode::Reconfig,
        body: body.freeze(),
        ..command(0)
    };
    let knowledge = LeaderKnowledge {
        in_contact: in_contact.iter().copied().map(ServerId).collect(),
    };
    (asked.clone(), asked.with_leader_knowledge(&knowledge))
}

#[test]
fn a_leader_is_in_contact_with_a_newcomer_that_it_hears() {
    let mut replica = single();
    run(&mut replica);
    let is_in_contact = |replica: &mut Replica, with: &[u64]| {
        let (asked, proposed) = reconfig(with);
        replica.submit([asked]);
        assert_eq!(run(replica), [proposed]);
    };
    is_in_contact(&mut replica, &[1]);
    replica.step(peer(2), PeerMessage::Reach { index: 0 }).unwrap();
    is_in_contact(&mut replica, &[1, 2]);
    replica.linked(peer(3));
    replica.step(peer(3), PeerMessage::Reach { index: 0 }).unwrap();
    is_in_contact(&mut replica, &[1, 2, 3]);
    for _ in 0..4 * WITNESS_TICKS {
        replica.tick();
    }
    is_in_contact(&mut replica, &[1, 3]);
}

#[test]
fn a_leader_is_not_in_contact_with_a_member_that_it_hears_and_cannot_reach() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(40);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let (asked, proposed) = reconfig(&[leader, 9]);
    let replica = ensemble.members.get_mut(&leader).unwrap();
    for server in [follower, 9] {
        replica.step(peer(server), PeerMessage::Reach { index: 9999 }).unwrap();
    }
    replica.submit([asked]);
    ensemble.settle();
    let entries = ensemble.members[&leader].raft.raft.raft_log.all_entries();
    let commands = entries.iter().flat_map(commands);
    let reconfigs: Vec<_> = commands.filter(|command| command.op == OpCode::Reconfig).collect();
    assert_eq!(reconfigs, [proposed]);
}

#[test]
fn who_only_asks_for_a_session_does_not_keep_it_alive() {
    let mut ensemble = Ensemble::new(&[1, 2, 3]);
    ensemble.run(40);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let closings = |ensemble: &Ensemble| {
        let entries = ensemble.members[&leader].raft.raft.raft_log.all_entries();
        let commands = entries.iter().flat_map(commands);
        commands.filter(|command| command.op == OpCode::CloseSession).count()
    };
    for asked in [leader, follower] {
        for replica in ensemble.members.values_mut() {
            replica.session_opened(SessionId(9), 1000);
        }
        let before = closings(&ensemble);
        for _ in 0..6 {
            // The password is wrong, and so nothing changes when this is applied.
            ensemble.members.get_mut(&asked).unwrap().submit([attach(asked)]);
            ensemble.run(15);
        }
        let is_closed = closings(&ensemble) > before;
        assert!(is_closed, "its owner is silent, and server {asked} was asked");
    }
}
