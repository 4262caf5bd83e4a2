use super::*;

fn single() -> Replica {
    let options = ReplicaOptions {
        server: ServerId(1),
        voters: vec![ServerId(1)],
        rules: Rules::default(),
        election_jitter_ticks: 0,
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    Replica::new(options, Recovered::default(), &logger).unwrap()
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

/// Runs a replica with a perfect disk until it has nothing to do; gives all that was to be applied.
fn run(replica: &mut Replica) -> Vec<Command> {
    let mut applied = Vec::new();
    while let Some(work) = replica.poll(5).unwrap() {
        for entry in &work.apply {
            if !entry.data.is_empty() {
                applied.extend(Batch::decode(&entry.data).unwrap().commands);
            }
            replica.applied(entry.index);
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
        let append = work.append.unwrap();
        entries.extend(append.entries);
        hard_state = append.hard_state.unwrap_or(hard_state);
        replica.persisted(append.number);
    }
    // The commit index on disk is older than what was applied: the tree's word counts.
    hard_state.commit = 0;
    let recovered = Recovered {
        entries,
        hard_state,
        applied_index: 1,
        ..Recovered::default()
    };
    let options = replica.options.clone();
    let mut again = Replica::new(options, recovered, &slog::Logger::root(slog::Discard, slog::o!())).unwrap();
    assert_eq!(run(&mut again).len(), 3);
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
