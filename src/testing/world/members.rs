//! Members in the world: their lives, the turns of their parts, and what they say to each other.

use super::{Happening, WALL_MS, World};
use crate::net::Conversation as _;
use crate::replica::{Peer, TICK_MS};
use crate::server::Connection;
use crate::server::simulated::{Part, SimulatedMember, SimulatedSnapshot, Verdict};
use crate::state_machine::ServerId;
use crate::testing::checker::What;
use crate::testing::faults::Weather;
use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Waker};
use tokio::sync::oneshot::error::TryRecvError;

impl World {
    pub(super) fn start(&mut self, member: usize) {
        let now_us = self.recorder.now_us;
        let known = &mut self.members[member];
        let wall_ms = WALL_MS + now_us.cast_signed() / 1000 + known.drift_ppm;
        let running = SimulatedMember::start(&mut known.disk, &known.plan, wall_ms)
            .unwrap_or_else(|failure| panic!("server {} does not start: {failure}", member + 1));
        known.running = Some(running);
        known.life += 1;
        known.started_us = now_us;
        known.scheduled.clear();
        known.seen_zxid = -1;
        known.is_failing = false;
        let life = known.life;
        self.recorder.see(What::Up(member as u64 + 1));
        self.after(TICK_MS * 1000, Happening::Tick { member, life });
        for peer in (0..self.members.len()).filter(|peer| *peer != member) {
            let wait_us = self.lots.between(500, 5_000);
            self.after(wait_us, Happening::Link { a: member, b: peer });
        }
        self.settle(member);
    }

    /// The process ends at this moment.
    pub(super) fn crash(&mut self, member: usize, power: bool) {
        if self.members[member].running.take().is_none() {
            return;
        }
        self.recorder.see(What::Down(member as u64 + 1));
        let chance = self.lots.seed();
        let known = &mut self.members[member];
        if power {
            known.disk.cut_power(chance);
        } else {
            known.disk.kill();
        }
        for peer in (0..self.members.len()).filter(|peer| *peer != member) {
            if self.links.remove(&(peer.min(member), peer.max(member))) {
                // A dead process is told by its host; a dead host by nobody.
                let wait_us = if power {
                    self.lots.between(200_000, 1_500_000)
                } else {
                    self.lots.between(100, 2_000)
                };
                let life = self.members[peer].life;
                self.after(
                    wait_us,
                    Happening::Unlinked {
                        at: peer,
                        life,
                        peer: member,
                        is_gone: !power,
                    },
                );
            }
        }
        let broken: Vec<u64> = self
            .wires
            .iter()
            .filter(|(_, wire)| wire.member == member)
            .map(|(id, _)| *id)
            .collect();
        for wire in broken {
            let wait_us = self.lots.between(100, 2_000);
            self.after(wait_us, Happening::HangupAtClient(wire));
        }
    }

    pub(super) fn turn(&mut self, member: usize, part: Part) {
        self.member(member);
        let known = &mut self.members[member];
        let running = known.running.as_mut().expect("the caller has seen that it runs");
        match running.turn(part, &mut known.disk) {
            Ok(()) => {
                if part == Part::Applier {
                    let (zxid, digest) = running.digest();
                    if zxid.0 != known.seen_zxid {
                        known.seen_zxid = zxid.0;
                        self.recorder.see(What::Digest {
                            server: member as u64 + 1,
                            zxid: zxid.0,
                            digest,
                        });
                    }
                }
                if part == Part::Driver {
                    self.check_acknowledged(member);
                }
                self.settle(member);
            }
            Err(failure) => {
                assert!(known.is_failing, "server {} has stopped: {failure}", member + 1);
                // What it did not sync is as good as not written.
                self.crash(member, true);
                let wait_us = self.lots.between(50_000, 800_000);
                self.after(wait_us, Happening::Start(member));
            }
        }
    }

    /// What a leader counts as acknowledged by a voter is on that member's disk; one that was wiped has forgotten what it had.
    fn check_acknowledged(&self, leader: usize) {
        if self.has_wiped || self.scenario.weather == Weather::Amnesia {
            return;
        }
        let Some(running) = &self.members[leader].running else {
            return;
        };
        let acknowledged = running.acknowledged().into_iter();
        for (server, index) in acknowledged.filter(|(server, _)| server.0 as usize <= self.scenario.voters) {
            let member = &self.members[server.0 as usize - 1];
            if let Some(reach) = member.running.as_ref().map(SimulatedMember::reach) {
                assert!(
                    index <= reach,
                    "server {} counts entry {index} as acknowledged by server {}, which has entries up to {reach}",
                    leader + 1,
                    server.0
                );
            }
        }
    }

    /// After something has happened at a member: woken connections speak, messages leave, parts get their turns.
    pub(super) fn settle(&mut self, member: usize) {
        loop {
            let own = self.wires.iter().filter(|(_, wire)| wire.member == member);
            let own: Vec<(u64, bool)> = own
                .map(|(id, wire)| (*id, wire.server.as_deref().is_some_and(is_woken)))
                .collect();
            for (id, _) in &own {
                self.sent_promptly(*id);
            }
            let mut woken = own.iter().filter(|(_, is_woken)| *is_woken).peekable();
            if woken.peek().is_none() {
                break;
            }
            for (id, _) in woken {
                self.advance(*id);
            }
        }
        self.send_messages(member);
        self.send_snapshots(member);
        for part in Part::ALL {
            if self.members[member]
                .running
                .as_ref()
                .is_some_and(|running| running.is_busy(part))
            {
                self.schedule(member, part);
            }
        }
    }

    pub(super) fn schedule(&mut self, member: usize, part: Part) {
        if !self.members[member].scheduled.insert(part) {
            return;
        }
        let (each_us, until_us) = self.members[member].slow_disk;
        let delay_us = match part {
            Part::Driver => self.lots.between(5, 60),
            Part::Applier => self.lots.between(5, 200),
            Part::Log if until_us > self.recorder.now_us => self.lots.between(each_us / 2, each_us),
            Part::Log => self.lots.between(60, 600),
            Part::Store => self.lots.between(500, 40_000),
            Part::Loader => self.lots.between(500, 60_000),
            Part::Values => self.lots.between(100, 30_000),
        };
        let life = self.members[member].life;
        self.after(delay_us, Happening::Turn { member, life, part });
    }

    pub(super) fn send_messages(&mut self, member: usize) {
        let Some(running) = &self.members[member].running else {
            return;
        };
        let from = Peer {
            server: self.members[member].plan.server,
            incarnation: self.members[member].disk.incarnation,
        };
        for (to, bytes) in running.take_messages() {
            let to = to.0 as usize - 1;
            if self.cuts.contains_key(&(member, to)) || self.members[to].running.is_none() {
                continue;
            }
            self.recorder.bytes(&bytes);
            let life = self.members[to].life;
            let copies = match self.is_stormy {
                true if self.lots.per_mille(15) => 0,
                true if self.lots.per_mille(15) => 2,
                _ => 1,
            };
            for _ in 0..copies {
                // Far from each other, something is always on its way when somebody stands still.
                let (least_us, most_us) = match self.scenario.weather {
                    Weather::Frost => (5_000, 15_000),
                    _ => (80, 900),
                };
                let mut at_us = self.recorder.now_us + self.lots.between(least_us, most_us);
                if self.is_stormy && self.lots.per_mille(20) {
                    at_us += self.lots.between(1_000, 60_000);
                } else {
                    let last_us = self.arrivals.entry((member, to)).or_default();
                    at_us = at_us.max(*last_us);
                    *last_us = at_us;
                }
                let bytes = bytes.clone();
                self.at(at_us, Happening::Message { from, to, life, bytes });
            }
        }
    }

    /// Snapshots go out; some are lost on the way.
    fn send_snapshots(&mut self, member: usize) {
        let Some(running) = &self.members[member].running else {
            return;
        };
        let from = Peer {
            server: self.members[member].plan.server,
            incarnation: self.members[member].disk.incarnation,
        };
        for (server, snapshot) in running.take_snapshots() {
            let to = server.0 as usize - 1;
            let (from_life, life) = (self.members[member].life, self.members[to].life);
            let wait_us = self.lots.between(2_000, 150_000);
            let is_lost = self.is_stormy && self.lots.below(4) == 0;
            self.after(
                wait_us,
                if is_lost {
                    Happening::SnapshotSent {
                        member,
                        life: from_life,
                        to: server,
                        succeeded: false,
                    }
                } else {
                    Happening::Snapshot {
                        from,
                        from_life,
                        to,
                        life,
                        snapshot: Box::new(snapshot),
                    }
                },
            );
        }
    }

    pub(super) fn snapshot_arrives(
        &mut self,
        from: Peer,
        from_life: u64,
        to: usize,
        life: u64,
        snapshot: SimulatedSnapshot,
    ) {
        let sender = from.server.0 as usize - 1;
        let is_cut = self.cuts.contains_key(&(sender, to));
        if !self.is_alive(to, life) || !self.is_alive(sender, from_life) || is_cut {
            return self.snapshot_ends(sender, from_life, ServerId(to as u64 + 1), false);
        }
        let verdict = self.member(to).receive_snapshot(from, snapshot);
        let verdict = verdict.unwrap_or_else(|failure| panic!("a snapshot cannot be loaded: {failure}"));
        self.settle(to);
        self.ask_for_verdict(sender, from_life, ServerId(to as u64 + 1), verdict);
    }

    pub(super) fn ask_for_verdict(&mut self, sender: usize, life: u64, to: ServerId, mut verdict: Verdict) {
        match verdict.try_recv() {
            Ok(taken) => self.snapshot_ends(sender, life, to, taken),
            Err(TryRecvError::Closed) => self.snapshot_ends(sender, life, to, false),
            Err(TryRecvError::Empty) => self.after(
                2_000,
                Happening::Verdict {
                    sender,
                    life,
                    to,
                    verdict,
                },
            ),
        }
    }

    fn snapshot_ends(&mut self, member: usize, life: u64, to: ServerId, succeeded: bool) {
        let wait_us = self.lots.between(100, 2_000);
        self.after(
            wait_us,
            Happening::SnapshotSent {
                member,
                life,
                to,
                succeeded,
            },
        );
    }

    pub(super) fn link(&mut self, a: usize, b: usize) {
        let is_cut = self.cuts.contains_key(&(a, b)) || self.cuts.contains_key(&(b, a));
        let both = self.members[a].running.is_some() && self.members[b].running.is_some();
        if is_cut || !both || !self.links.insert((a.min(b), a.max(b))) {
            return;
        }
        for (at, peer) in [(a, b), (b, a)] {
            let peer = Peer {
                server: self.members[peer].plan.server,
                incarnation: self.members[peer].disk.incarnation,
            };
            self.member(at).linked(peer);
            self.settle(at);
        }
    }
}

/// Whether there is something to be done on a connection.
fn is_woken(connection: &Connection) -> bool {
    let notified = pin!(connection.wake().notified());
    notified.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}
