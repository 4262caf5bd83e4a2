//! The network, the clocks and the calendar of a simulated ensemble.
//!
//! Time goes from event to event. What a member does takes no time in itself; the time until its parts get their turns, and
//! until bytes arrive, is drawn from the seed.

mod course;
mod members;
mod misfortune;
mod sockets;

use super::checker::{Event, Expectations};
use super::client::Client;
use super::faults::{self, Fault, Weather};
use super::workload::{Worker, Workload};
use super::{Lots, Recorder};
use crate::membership::Members;
use crate::net::{Flow, Output, SimulatedSocket};
use crate::replica::{Peer, Registry, TICK_MS};
use crate::server::Connection;
use crate::server::simulated::{MemberPlan, Part, SimulatedDisk, SimulatedMember, SimulatedSnapshot, Verdict};
use crate::state_machine::ServerId;
use bytes::{Bytes, BytesMut};
use raft::prelude::ConfState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// The simulated time at which everything must be over, µs: an ensemble that has not come back by then never will.
const PATIENCE_US: u64 = 60_000_000;
/// A process that stood still has looked at all its sockets after so long, µs.
const WAKING_US: u64 = 4_000;
/// Numbers of clients' sockets begin above those of servers.
const CLIENTS: u64 = 1 << 32;
/// Wall time at the beginning, ms.
const WALL_MS: i64 = 1_700_000_000_000;

/// What is to be simulated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    /// Members that vote: the first ones.
    pub(super) voters: usize,
    /// Members that do not: those behind them.
    pub(super) observers: usize,
    pub(super) clients: usize,
    pub(super) weather: Weather,
    /// How long clients work and faults happen, µs.
    pub(super) duration_us: u64,
    /// What members keep of their log for others; beyond, snapshots are sent.
    pub(super) log_budget_bytes: usize,
    /// Whether half of the members let values leave memory as soon as they are stored.
    pub(super) values_leave: bool,
    /// A member takes no entries while so many bytes of them wait to be applied.
    pub(super) backlog_bytes: u64,
}

impl Scenario {
    /// What a seed stands for.
    pub(super) fn of_seed(seed: u64) -> Scenario {
        let mut lots = Lots::new(seed);
        let weather = match lots.below(20) {
            0 | 1 => Weather::Calm,
            2 => Weather::Amnesia,
            3..8 => Weather::Deaths,
            8 => Weather::Frost,
            _ => Weather::Storm,
        };
        let voters = match lots.below(10) {
            0 if weather != Weather::Deaths => 1,
            1..8 => 3,
            _ => 5,
        };
        let voters = match weather {
            Weather::Deaths | Weather::Frost => voters.max(3),
            Weather::Amnesia => 3,
            Weather::Calm | Weather::NoObservers | Weather::Storm => voters,
        };
        Scenario {
            seed,
            voters,
            clients: 5 + lots.below(6),
            weather,
            duration_us: lots.between(2_500_000, 5_000_000),
            log_budget_bytes: if lots.below(2) == 0 { 8 << 10 } else { 64 << 20 },
            values_leave: true,
            // Any command that waits to be applied is too much for some.
            backlog_bytes: if seed.is_multiple_of(4) { 1 } else { u64::MAX },
            observers: match lots.below(6) {
                0 if voters == 3 => 2,
                1 | 2 if voters == 3 => 1,
                _ => 0,
            },
        }
    }

    /// Whether every read waits for a barrier: always where that is hard, and now and then.
    fn has_linearizable_reads(&self) -> bool {
        self.weather == Weather::Frost || self.seed.is_multiple_of(5)
    }

    /// All of them.
    pub(super) fn members(&self) -> usize {
        self.voters + self.observers
    }

    pub(super) fn expectations(&self) -> Expectations {
        Expectations {
            only_deaths: self.weather.has_whole_network(),
            signs_arrive: self.weather.has_whole_network(),
            linearizable_reads: self.has_linearizable_reads(),
            drift_per_mille: 10,
        }
    }
}

/// What a run has left.
pub(super) struct Outcome {
    pub(super) history: Vec<Event>,
    /// Of all bytes that flowed, and when.
    pub(super) fingerprint: u64,
    pub(super) simulated_us: u64,
    /// Messages with entries that members did not take, in the lives that have not ended.
    pub(super) appends_refused: u64,
    /// Clients that had to wait because a member had not come as far, likewise.
    pub(super) clients_ahead: u64,
    /// Bytes to clients that others than their sockets' tasks have sent.
    pub(super) prompt_bytes: u64,
}

struct Member {
    plan: MemberPlan,
    disk: SimulatedDisk,
    running: Option<SimulatedMember>,
    /// Counts its starts: what was on its way to an earlier one is lost.
    life: u64,
    started_us: u64,
    /// Its clock runs so many millionths too fast.
    drift_ppm: i64,
    scheduled: BTreeSet<Part>,
    paused_until_us: u64,
    slow_disk: (u64, u64),
    is_failing: bool,
    seen_zxid: i64,
}

/// A client's connection.
struct Wire {
    client: usize,
    member: usize,
    life: u64,
    server: Option<Arc<Connection>>,
    socket: BytesMut,
    received: BytesMut,
    output: Output,
    /// Where others than the socket's task send, if they may.
    prompt: Option<Arc<SimulatedSocket>>,
    flow: Flow,
    /// Bytes stay in order: nothing arrives before these moments.
    at_server_us: u64,
    at_client_us: u64,
}

enum Happening {
    Turn {
        member: usize,
        life: u64,
        part: Part,
    },
    Tick {
        member: usize,
        life: u64,
    },
    Message {
        from: Peer,
        to: usize,
        life: u64,
        bytes: Bytes,
    },
    Snapshot {
        from: Peer,
        from_life: u64,
        to: usize,
        life: u64,
        snapshot: Box<SimulatedSnapshot>,
    },
    /// Whether the snapshot was taken.
    Verdict {
        sender: usize,
        life: u64,
        to: ServerId,
        verdict: Verdict,
    },
    SnapshotSent {
        member: usize,
        life: u64,
        to: ServerId,
        succeeded: bool,
    },
    Link {
        a: usize,
        b: usize,
    },
    Unlinked {
        at: usize,
        life: u64,
        peer: usize,
        is_gone: bool,
    },
    ToServer {
        wire: u64,
        bytes: Bytes,
    },
    ToClient {
        wire: u64,
        bytes: Bytes,
    },
    /// The client has closed it, and the server learns of it; or the other way round.
    HangupAtServer(u64),
    HangupAtClient(u64),
    Act(usize),
    Fault,
    Befall(usize, Fault),
    Start(usize),
    Heal(Cut),
}

/// A direction in which nothing arrives: from, to.
type Cut = (usize, usize);

pub(super) struct World {
    scenario: Scenario,
    lots: Lots,
    recorder: Recorder,
    calendar: BTreeMap<(u64, u64), Happening>,
    next_number: u64,
    members: Vec<Member>,
    clients: Vec<Client>,
    /// What each client is bound to, if it is.
    pinned: Vec<Option<usize>>,
    wires: BTreeMap<u64, Wire>,
    wire_of: Vec<Option<u64>>,
    next_wire: u64,
    /// How many faults cut a direction.
    cuts: BTreeMap<Cut, usize>,
    links: BTreeSet<Cut>,
    arrivals: BTreeMap<Cut, u64>,
    is_stormy: bool,
    /// Whether a voter's disk was wiped: once in a run, since two could be a majority.
    has_wiped: bool,
    prompt_bytes: u64,
    tells: bool,
}

impl World {
    pub(super) fn new(scenario: Scenario) -> World {
        let mut lots = Lots::new(scenario.seed ^ 0x5eed);
        let conf_state = ConfState {
            voters: (1..=scenario.voters as u64).collect(),
            learners: (scenario.voters as u64 + 1..=scenario.members() as u64).collect(),
            ..ConfState::default()
        };
        let incarnations: Vec<u64> = (0..scenario.members()).map(|_| lots.seed() | 1).collect();
        let lives = incarnations
            .iter()
            .zip(1..)
            .map(|(life, server)| (ServerId(server), *life));
        let registry = Registry::new(lives);
        let lines = (1..=scenario.members()).map(|server| {
            let role = if server > scenario.voters { ":observer" } else { "" };
            format!("server.{server}=host{server}:2888:3888{role}\n")
        });
        let configured = lines.collect::<String>() + "version=0";
        let configured = Members::parse(&configured).expect("lines as they should be");
        let members = incarnations.iter().enumerate().map(|(position, incarnation)| Member {
            plan: MemberPlan {
                server: ServerId(position as u64 + 1),
                members: configured.clone(),
                slot: position,
                seed: scenario.seed,
                log_budget_bytes: scenario.log_budget_bytes,
                leaderless_ms: 4_000,
                linearizable_reads: scenario.has_linearizable_reads(),
                // Some keep all in memory: what the others do must come to the same.
                values_leave: scenario.values_leave && (scenario.seed + position as u64).is_multiple_of(2),
                backlog_bytes: scenario.backlog_bytes,
                outstanding_limit: 1000,
            },
            disk: SimulatedDisk::founded(*incarnation, &conf_state, &registry),
            running: None,
            life: 0,
            started_us: 0,
            drift_ppm: 0,
            scheduled: BTreeSet::new(),
            paused_until_us: 0,
            slow_disk: (0, 0),
            is_failing: false,
            seen_zxid: -1,
        });
        let members = members.collect();
        World {
            scenario,
            lots,
            recorder: Recorder::new(),
            calendar: BTreeMap::new(),
            next_number: 0,
            members,
            clients: Vec::new(),
            pinned: Vec::new(),
            wires: BTreeMap::new(),
            wire_of: Vec::new(),
            next_wire: 1,
            cuts: BTreeMap::new(),
            links: BTreeSet::new(),
            arrivals: BTreeMap::new(),
            is_stormy: false,
            has_wiped: false,
            prompt_bytes: 0,
            tells: std::env::var_os("SIM_TELL").is_some(),
        }
    }

    /// Runs the whole scenario.
    pub(super) fn run(mut self) -> Outcome {
        for member in 0..self.members.len() {
            self.members[member].drift_ppm = self.lots.between(0, 10_000).cast_signed() - 5_000;
            self.start(member);
        }
        self.run_until("all members serve", World::all_serve);
        self.prepare();
        for client in 0..self.scenario.clients {
            let mut workload = Workload::ALL[(client + self.lots.below(3)) % Workload::ALL.len()];
            let mut timeout_ms = self.lots.between(1_500, 4_000);
            if self.scenario.weather == Weather::Frost && client % 2 == 0 {
                // Whoever comes while somebody stands still has seen what that one does not know of.
                (workload, timeout_ms) = (Workload::Hop, 1_000);
            }
            self.add_client(Worker::new(workload, client + 1), timeout_ms, None);
        }
        self.is_stormy = self.scenario.weather == Weather::Storm;
        self.schedule_fault();
        for (wait_us, victim, fault) in faults::script(&self.scenario) {
            self.after(wait_us, Happening::Befall(victim, fault));
        }
        let end_us = self.recorder.now_us + self.scenario.duration_us;
        self.run_until("the working day is over", |world| world.recorder.now_us >= end_us);
        self.heal();
        self.audit();
        let simulated_us = self.recorder.now_us;
        for event in &self.recorder.history {
            self.recorder.fingerprint.write(format!("{event:?}").as_bytes());
        }
        let running = || self.members.iter().filter_map(|member| member.running.as_ref());
        Outcome {
            fingerprint: self.recorder.fingerprint.finish(),
            history: self.recorder.history,
            simulated_us,
            appends_refused: running().map(SimulatedMember::appends_refused).sum(),
            clients_ahead: running().map(SimulatedMember::clients_ahead).sum(),
            prompt_bytes: self.prompt_bytes,
        }
    }

    fn all_serve(&self) -> bool {
        self.members
            .iter()
            .all(|member| member.running.as_ref().is_some_and(SimulatedMember::is_serving))
    }

    fn run_until(&mut self, goal: &str, reached: impl Fn(&World) -> bool) {
        let limit_us = self.recorder.now_us + PATIENCE_US;
        while !reached(self) {
            let Some(((at_us, _), happening)) = self.calendar.pop_first() else {
                panic!("nothing happens any more, and {goal:?} is not reached");
            };
            assert!(
                at_us < limit_us,
                "after {} s, {goal:?} is not reached: {}",
                PATIENCE_US / 1_000_000,
                self.picture()
            );
            self.recorder.now_us = self.recorder.now_us.max(at_us);
            self.happen(happening);
        }
    }

    /// Who is what, for whoever looks for the reason.
    fn picture(&self) -> String {
        let members = self.members.iter().map(|member| match &member.running {
            Some(running) => format!(
                "{:?} serving {} at {:?}",
                running.standing(),
                running.is_serving(),
                running.digest().0
            ),
            None => "down".to_owned(),
        });
        let members: Vec<_> = members.collect();
        let clients: Vec<_> = self
            .clients
            .iter()
            .map(|client| format!("{:?} done {}", client.phase, client.is_done()))
            .collect();
        format!("members {members:#?} clients {clients:?} cuts {:?}", self.cuts)
    }

    /// What befalls the ensemble, for whoever looks for the reason (`SIM_TELL=1`).
    fn tell(&self, what: impl Fn() -> String) {
        if self.tells {
            eprintln!("{:>9} {}", self.recorder.now_us, what());
        }
    }

    fn after(&mut self, delay_us: u64, happening: Happening) {
        self.at(self.recorder.now_us + delay_us, happening);
    }

    fn at(&mut self, at_us: u64, happening: Happening) {
        self.next_number += 1;
        self.calendar.insert((at_us, self.next_number), happening);
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(until_us) = self.sleeps(&happening) {
            return self.at(until_us, happening);
        }
        match happening {
            Happening::Turn { member, life, part } => {
                if self.is_alive(member, life) {
                    self.members[member].scheduled.remove(&part);
                    self.turn(member, part);
                }
            }
            Happening::Tick { member, life } => {
                if self.is_alive(member, life) {
                    self.after(TICK_MS * 1000, Happening::Tick { member, life });
                    for part in [Part::Driver, Part::Applier, Part::Store] {
                        self.schedule(member, part);
                    }
                }
            }
            Happening::Message { from, to, life, bytes } => {
                let is_cut = self.cuts.contains_key(&(from.server.0 as usize - 1, to));
                if self.is_alive(to, life) && !is_cut {
                    self.tell(|| {
                        format!(
                            "{} -> {}: {:?}",
                            from.server.0,
                            to + 1,
                            crate::replica::PeerMessage::decode(&bytes)
                        )
                    });
                    self.member(to).receive(from, &bytes);
                    self.settle(to);
                }
            }
            Happening::Snapshot {
                from,
                from_life,
                to,
                life,
                snapshot,
            } => self.snapshot_arrives(from, from_life, to, life, *snapshot),
            Happening::Verdict {
                sender,
                life,
                to,
                verdict,
            } => self.ask_for_verdict(sender, life, to, verdict),
            Happening::SnapshotSent {
                member,
                life,
                to,
                succeeded,
            } => {
                if self.is_alive(member, life) {
                    self.member(member).snapshot_sent(to, succeeded);
                    self.settle(member);
                }
            }
            Happening::Link { a, b } => self.link(a, b),
            Happening::Unlinked {
                at,
                life,
                peer,
                is_gone,
            } => {
                // A new link takes the place of the old one, whose end is then no news.
                let is_old = self.links.contains(&(at.min(peer), at.max(peer)));
                if self.is_alive(at, life) && !is_old {
                    self.member(at).unlinked(ServerId(peer as u64 + 1), is_gone);
                    self.settle(at);
                }
            }
            Happening::ToServer { wire, bytes } => self.at_server(wire, &bytes),
            Happening::ToClient { wire, bytes } => self.at_client(wire, &bytes),
            Happening::HangupAtServer(wire) => {
                if let Some(wire) = self.wires.remove(&wire)
                    && let Some(server) = &wire.server
                    && self.is_alive(wire.member, wire.life)
                {
                    SimulatedMember::ended(server);
                    self.settle(wire.member);
                }
            }
            Happening::HangupAtClient(wire) => self.hung_up(wire),
            Happening::Act(client) => {
                let wait_us = self.lots.between(1_000, 25_000);
                self.after(wait_us, Happening::Act(client));
                let wishes = self.clients[client].act(self.recorder.now_us, &mut self.lots, &mut self.recorder);
                self.fulfil(client, wishes);
            }
            Happening::Fault => self.fault(),
            Happening::Befall(victim, fault) => self.befall(victim, fault),
            Happening::Start(member) => {
                if self.members[member].running.is_none() {
                    self.start(member);
                }
            }
            Happening::Heal(cut) => self.mend(cut),
        }
    }

    /// Until when nothing can happen there, because its process stands still, or has only just come to and looks at others'
    /// sockets first: what has come by each is taken in its order, but whose comes first is chance.
    fn sleeps(&self, happening: &Happening) -> Option<u64> {
        let (member, socket) = match happening {
            Happening::Turn { member, .. } | Happening::Tick { member, .. } => (*member, None),
            Happening::Message { to, from, .. } | Happening::Snapshot { to, from, .. } => (*to, Some(from.server.0)),
            Happening::SnapshotSent { member, .. } => (*member, None),
            Happening::Unlinked { at, peer, .. } => (*at, Some(self.members[*peer].plan.server.0)),
            Happening::ToServer { wire, .. } | Happening::HangupAtServer(wire) => {
                (self.wires.get(wire)?.member, Some(CLIENTS + wire))
            }
            _ => return None,
        };
        let until_us = match (self.members[member].paused_until_us, socket) {
            (0, _) => return None,
            (until_us, None) => until_us,
            // The same for all pauses: what was put off until then must not be overtaken.
            (until_us, Some(socket)) => {
                let mut hasher = DefaultHasher::new();
                (self.scenario.seed, member, socket).hash(&mut hasher);
                until_us + hasher.finish() % WAKING_US
            }
        };
        (until_us > self.recorder.now_us).then_some(until_us)
    }

    fn is_alive(&self, member: usize, life: u64) -> bool {
        let known = &self.members[member];
        known.life == life && known.running.is_some()
    }

    /// A member that runs, its clocks set.
    fn member(&self, member: usize) -> &SimulatedMember {
        let now_us = self.recorder.now_us;
        let known = &self.members[member];
        let since_us = now_us - known.started_us;
        let drift_us = since_us.cast_signed() * known.drift_ppm / 1_000_000;
        let running = known.running.as_ref().expect("the caller has seen that it runs");
        let wall_ms = WALL_MS + now_us.cast_signed() / 1000 + known.drift_ppm;
        running.set_time(since_us.saturating_add_signed(drift_us), wall_ms);
        running
    }
}
