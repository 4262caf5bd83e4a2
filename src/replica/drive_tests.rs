//! Every small ensemble, driven from every membership to every other one.

use super::*;
use crate::membership::{PeerType, Server};
use std::collections::BTreeSet;

const LEADER: ServerId = ServerId(1);

/// What a server is, or shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Out,
    Learner,
    Voter,
}

/// Whether a server is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Away,
    Here,
    /// With another life than the one that is registered.
    Wiped,
}

const PARTS: [Part; 3] = [Part::Out, Part::Learner, Part::Voter];
const PRESENCES: [Presence; 3] = [Presence::Away, Presence::Here, Presence::Wiped];

/// An ensemble in small, with a leader that asks for the next step.
#[derive(Clone, Debug)]
struct World {
    leader: ServerId,
    conf_state: ConfState,
    registry: Registry,
    /// Who is there, in which life; the leader too.
    lives: BTreeMap<ServerId, u64>,
    wanted: Members,
    matched: BTreeMap<ServerId, u64>,
    committed: u64,
}

fn members(parts: impl IntoIterator<Item = (ServerId, Part)>) -> Members {
    let mut members = Members::default();
    for (id, part) in parts {
        let mut server = Server::parse("host:1:2").unwrap();
        server.peer_type = match part {
            Part::Out => continue,
            Part::Learner => PeerType::Observer,
            Part::Voter => PeerType::Participant,
        };
        members.servers.insert(id.member().unwrap(), server);
    }
    members
}

impl World {
    /// Servers 1, 2, … by what they are, what they shall be, and whether they are there. Who is in contact has caught up.
    fn new(servers: &[(Part, Part, Presence)]) -> World {
        let mut world = World {
            leader: LEADER,
            conf_state: ConfState::default(),
            registry: Registry::default(),
            lives: BTreeMap::new(),
            wanted: Members::default(),
            matched: BTreeMap::new(),
            committed: 5000,
        };
        let ids = || (1..).map(ServerId);
        for (id, (part, _, presence)) in ids().zip(servers) {
            match part {
                Part::Out => {}
                Part::Learner => world.conf_state.learners.push(id.0),
                Part::Voter => world.conf_state.voters.push(id.0),
            }
            if *part != Part::Out {
                world.registry.set(id, id.0 * 10);
            }
            match presence {
                Presence::Away => {}
                Presence::Here => _ = world.lives.insert(id, id.0 * 10),
                Presence::Wiped => _ = world.lives.insert(id, id.0 * 10 + 1),
            }
        }
        world.wanted = members(ids().zip(servers).map(|(id, (_, wanted, _))| (id, *wanted)));
        world.matched = world.lives.keys().map(|id| (*id, 5000)).collect();
        world
    }

    fn step(&self) -> Option<Step> {
        let mut contacts = self.lives.clone();
        contacts.remove(&self.leader);
        next_step(&Survey {
            own: self.leader,
            own_incarnation: self.leader.0 * 10,
            wanted: &self.wanted,
            conf_state: &self.conf_state,
            registry: &self.registry,
            contacts: &contacts,
            matched: &self.matched,
            committed: self.committed,
            is_changing: false,
        })
    }

    fn is_present(&self, server: u64) -> bool {
        let server = ServerId(server);
        self.lives.contains_key(&server) && self.lives.get(&server).copied() == self.registry.of(server)
    }

    /// How many voters more could fail; negative: too many have.
    fn spare(&self) -> isize {
        let voters = &self.conf_state.voters;
        let present = voters.iter().filter(|voter| self.is_present(**voter)).count();
        present.cast_signed() - (voters.len() / 2 + 1).cast_signed()
    }

    /// Does what raft does with a change.
    fn apply(&mut self, change: &ConfChangeV2) {
        assert_eq!(change.changes.len(), 1, "a step changes one member");
        let (server, kind) = (change.changes[0].node_id, change.changes[0].get_change_type());
        self.conf_state.voters.retain(|voter| *voter != server);
        self.conf_state.learners.retain(|learner| *learner != server);
        match kind {
            ConfChangeType::AddNode => self.conf_state.voters.push(server),
            ConfChangeType::AddLearnerNode => self.conf_state.learners.push(server),
            ConfChangeType::RemoveNode => self.registry.remove(ServerId(server)),
        }
        for (server, life) in Registry::decode(&change.context).unwrap().iter() {
            self.registry.set(server, life);
        }
    }

    /// Goes on until nothing is left to do; gives what was done.
    fn run(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(step) = self.step() {
            match step {
                Step::Change { what, change } => {
                    self.check(what);
                    self.apply(&change);
                    assert!(self.spare() >= 0, "{what}: no quorum is left in {self:?}");
                    told.push(what.to_string());
                }
                Step::HandOver => {
                    let mut others = self.conf_state.voters.iter().filter(|voter| **voter != self.leader.0);
                    let next = others.find(|voter| self.is_present(**voter)).copied();
                    self.leader = ServerId(next.expect("there is somebody to hand over to"));
                    told.push(format!("server {} leads", self.leader.0));
                }
            }
            assert!(told.len() < 30, "it comes to an end: {told:?}");
        }
        told
    }

    fn check(&self, what: Move) {
        match what {
            Move::Remove(server) | Move::Demote(server) => {
                assert_ne!(server, self.leader, "a leader does not touch its own vote");
                let is_wiped = self.lives.contains_key(&server) && !self.is_present(server.0);
                let removes = matches!(what, Move::Remove(_));
                assert!(
                    !removes || !self.is_present(server.0),
                    "{what}, which is there: {self:?}"
                );
                let shall = self.wanted.servers.get(&server.member().unwrap());
                let shall_stay = shall.is_some_and(|shall| shall.peer_type == PeerType::Participant);
                assert!(is_wiped || !shall_stay, "{what}, and why? {self:?}");
            }
            Move::Add(server, life) => {
                assert_eq!(self.registry.of(server), None, "{what}: as if it were the former one");
                assert_eq!(self.lives.get(&server), Some(&life));
            }
            Move::Promote(server) => {
                assert!(self.is_present(server.0));
                assert!(self.matched[&server] > 0);
            }
        }
    }

    fn parts(&self) -> BTreeMap<ServerId, Part> {
        let voters = self.conf_state.voters.iter().map(|id| (ServerId(*id), Part::Voter));
        let learners = self.conf_state.learners.iter().map(|id| (ServerId(*id), Part::Learner));
        voters.chain(learners).collect()
    }

    /// What there shall be: everybody who is wanted, and whoever belongs to it no more, but is still there.
    fn wanted_parts(&self) -> BTreeMap<ServerId, Part> {
        let part = |peer_type| match peer_type {
            PeerType::Participant => Part::Voter,
            PeerType::Observer => Part::Learner,
        };
        let servers = self.wanted.servers.iter();
        let wanted = servers.map(|(id, server)| (ServerId::from(*id), part(server.peer_type)));
        let staying = self.parts().into_keys().filter(|server| self.is_present(server.0));
        let mut parts: BTreeMap<ServerId, Part> = staying.map(|server| (server, Part::Learner)).collect();
        parts.extend(wanted);
        parts
    }
}

/// Every combination of server 1, which leads, and `others` more.
fn every_world(others: u32, mut visit: impl FnMut(World)) {
    let each: Vec<_> = PARTS
        .iter()
        .flat_map(|is| {
            PARTS
                .iter()
                .flat_map(move |wanted| PRESENCES.iter().map(move |here| (*is, *wanted, *here)))
        })
        .collect();
    for wanted in PARTS {
        for number in 0..each.len().pow(others) {
            let mut servers = vec![(Part::Voter, wanted, Presence::Here)];
            let mut rest = number;
            for _ in 0..others {
                servers.push(each[rest % each.len()]);
                rest /= each.len();
            }
            let world = World::new(&servers);
            // Without a participant nothing is wanted, and without a quorum nobody leads.
            if world.wanted.participants().count() > 0 && world.spare() >= 0 {
                visit(world);
            }
        }
    }
}

#[test]
fn every_ensemble_of_four_goes_as_far_as_it_can_and_keeps_its_quorum() {
    let (mut arrived, mut stuck) = (0, 0);
    every_world(3, |mut world| {
        let (before, start) = (world.spare(), world.clone());
        world.run();
        let everybody_is_there = world
            .wanted
            .servers
            .keys()
            .all(|id| world.lives.contains_key(&ServerId::from(*id)));
        if everybody_is_there {
            assert_eq!(world.parts(), world.wanted_parts(), "from {start:?}");
            arrived += 1;
        } else {
            // Whoever is wanted and there has come; nobody who is wanted was lost, unless it had forgotten everything.
            let (parts, wanted) = (world.parts(), world.wanted_parts());
            for (server, part) in &wanted {
                if world.is_present(server.0) && *server != world.leader {
                    assert!(
                        parts.contains_key(server),
                        "{server:?} is missing: from {start:?} to {world:?}"
                    );
                    assert!(
                        *part == Part::Learner || parts[server] == Part::Voter,
                        "from {start:?} to {world:?}"
                    );
                }
            }
            stuck += 1;
        }
        assert!(world.spare() >= 0 && before >= 0);
    });
    assert!(
        arrived > 10_000 && stuck > 10_000,
        "{arrived} arrived, {stuck} could not"
    );
}

#[test]
fn nothing_is_done_that_need_not_be() {
    every_world(2, |world| {
        let is_settled = world.parts() == world.wanted_parts();
        let nobody_forgot = world
            .lives
            .keys()
            .all(|server| world.registry.of(*server).is_none() || world.is_present(server.0));
        if is_settled && nobody_forgot {
            assert_eq!(world.step(), None, "{world:?}");
        }
    });
}

/// Servers, and what is done with them.
type Script<'a> = (&'a [(Part, Part, Presence)], &'a [&'a str]);

#[test]
fn the_order_of_steps_is_the_safe_one() {
    use Part::{Learner, Out, Voter};
    use Presence::{Away, Here, Wiped};
    let scripts: &[Script] = &[
        // A fourth member.
        (
            &[
                (Voter, Voter, Here),
                (Voter, Voter, Here),
                (Voter, Voter, Here),
                (Out, Voter, Here),
            ],
            &[
                "server 4 is added, without a vote until it has caught up",
                "server 4 has caught up and votes from now on",
            ],
        ),
        // An observer stays one.
        (
            &[(Voter, Voter, Here), (Voter, Voter, Here), (Out, Learner, Here)],
            &["server 3 is added, without a vote until it has caught up"],
        ),
        // Who is not there is waited for.
        (&[(Voter, Voter, Here), (Voter, Voter, Here), (Out, Voter, Away)], &[]),
        // A dead server is replaced: it goes first, for it is of no use.
        (
            &[
                (Voter, Voter, Here),
                (Voter, Voter, Here),
                (Voter, Out, Away),
                (Out, Voter, Here),
            ],
            &[
                "server 3 is removed",
                "server 4 is added, without a vote until it has caught up",
                "server 4 has caught up and votes from now on",
            ],
        ),
        // A living one loses its vote last, and stays until it goes.
        (
            &[
                (Voter, Voter, Here),
                (Voter, Voter, Here),
                (Voter, Out, Here),
                (Out, Voter, Here),
            ],
            &[
                "server 4 is added, without a vote until it has caught up",
                "server 4 has caught up and votes from now on",
                "server 3 votes no more",
            ],
        ),
        // One that has lost its memory comes back as a new one.
        (
            &[(Voter, Voter, Here), (Voter, Voter, Here), (Voter, Voter, Wiped)],
            &[
                "server 3 is removed",
                "server 3 is added, without a vote until it has caught up",
                "server 3 has caught up and votes from now on",
            ],
        ),
        // Who was removed and has gone is let go.
        (
            &[
                (Voter, Voter, Here),
                (Voter, Voter, Here),
                (Learner, Out, Away),
                (Learner, Out, Here),
            ],
            &["server 3 is removed"],
        ),
        // The leader goes last of all.
        (
            &[
                (Voter, Out, Here),
                (Voter, Voter, Here),
                (Voter, Out, Here),
                (Voter, Voter, Here),
            ],
            &["server 3 votes no more", "server 2 leads", "server 1 votes no more"],
        ),
        // The leader becomes an observer.
        (
            &[(Voter, Learner, Here), (Voter, Voter, Here), (Voter, Voter, Here)],
            &["server 2 leads", "server 1 votes no more"],
        ),
        // Everybody is replaced.
        (
            &[
                (Voter, Out, Here),
                (Voter, Out, Here),
                (Out, Voter, Here),
                (Out, Voter, Here),
            ],
            &[
                "server 3 is added, without a vote until it has caught up",
                "server 4 is added, without a vote until it has caught up",
                "server 3 has caught up and votes from now on",
                "server 4 has caught up and votes from now on",
                "server 2 votes no more",
                "server 3 leads",
                "server 1 votes no more",
            ],
        ),
        // One voter of three is away: another one, alive, cannot go before the newcomer votes.
        (
            &[
                (Voter, Voter, Here),
                (Voter, Out, Here),
                (Voter, Voter, Away),
                (Out, Voter, Away),
            ],
            &[],
        ),
    ];
    for (servers, expected) in scripts {
        assert_eq!(World::new(servers).run(), *expected, "{servers:?}");
    }
}

#[test]
fn nobody_votes_before_it_has_caught_up() {
    use Part::{Learner, Voter};
    let mut world = World::new(&[(Voter, Voter, Presence::Here), (Learner, Voter, Presence::Here)]);
    for (matched, committed, promoted) in [
        (0, 5, false),
        (0, 0, false),
        (1, 5, true),
        (4000, 5000, true),
        (3999, 5000, false),
        (6000, 5000, true),
    ] {
        world.matched.insert(ServerId(2), matched);
        world.committed = committed;
        assert_eq!(world.step().is_some(), promoted, "{matched} of {committed}");
    }
}

#[test]
fn a_server_that_was_alone_registers_itself_with_the_first_step() {
    let mut world = World::new(&[
        (Part::Voter, Part::Voter, Presence::Here),
        (Part::Out, Part::Voter, Presence::Here),
    ]);
    world.registry = Registry::default();
    let Some(Step::Change { what, change }) = world.step() else {
        panic!("server 2 is added")
    };
    assert_eq!(what, Move::Add(ServerId(2), 20));
    let registered = Registry::decode(&change.context).unwrap();
    assert_eq!(
        registered.iter().collect::<Vec<_>>(),
        [(ServerId(1), 10), (ServerId(2), 20)]
    );
}

#[test]
fn one_change_follows_another() {
    let world = World::new(&[
        (Part::Voter, Part::Voter, Presence::Here),
        (Part::Out, Part::Voter, Presence::Here),
    ]);
    let contacts = BTreeMap::from([(ServerId(2), 20)]);
    let survey = Survey {
        own: LEADER,
        own_incarnation: 10,
        wanted: &world.wanted,
        conf_state: &world.conf_state,
        registry: &world.registry,
        contacts: &contacts,
        matched: &world.matched,
        committed: 1,
        is_changing: false,
    };
    assert!(next_step(&survey).is_some());
    let changing = Survey {
        is_changing: true,
        ..survey
    };
    assert_eq!(next_step(&changing), None);
    let joint = ConfState {
        voters_outgoing: vec![1],
        ..world.conf_state.clone()
    };
    let in_between = Survey {
        conf_state: &joint,
        ..survey
    };
    assert_eq!(next_step(&in_between), None);
}

/// raft-rs itself takes every step, and comes to the same members.
#[test]
fn raft_takes_every_step() {
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let mut seen = BTreeSet::new();
    every_world(2, |mut world| {
        let storage = raft::storage::MemStorage::new_with_conf_state(world.conf_state.clone());
        let config = raft::Config {
            id: 1,
            ..raft::Config::default()
        };
        let mut node = raft::RawNode::new(&config, storage, &logger).unwrap();
        while let Some(Step::Change { what, change }) = world.step() {
            let next = node.apply_conf_change(&change).unwrap();
            world.apply(&change);
            let sorted = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
            assert_eq!(sorted(&next.voters), sorted(&world.conf_state.voters), "{what}");
            assert_eq!(sorted(&next.learners), sorted(&world.conf_state.learners), "{what}");
            seen.insert(match what {
                Move::Remove(_) => "remove",
                Move::Add(..) => "add",
                Move::Promote(_) => "promote",
                Move::Demote(_) => "demote",
            });
        }
    });
    assert_eq!(seen.len(), 4, "{seen:?}");
}
