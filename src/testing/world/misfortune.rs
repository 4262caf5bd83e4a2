//! Faults as they befall members and the network between them.

use super::{Cut, Happening, Member, WAKING_US, World};
use crate::replica::Role;
use crate::server::simulated::SimulatedDisk;
use crate::testing::faults::{self, Fault, Victim};

impl World {
    pub(super) fn schedule_fault(&mut self) {
        let next = faults::next(self.scenario.weather, self.members.len(), &mut self.lots);
        if let Some((wait_us, _, _)) = next {
            self.after(wait_us, Happening::Fault);
        }
    }

    pub(super) fn fault(&mut self) {
        let next = faults::next(self.scenario.weather, self.members.len(), &mut self.lots);
        self.schedule_fault();
        let Some((_, victim, fault)) = next else { return };
        let leads = |member: &Member| {
            let running = member.running.as_ref();
            running.is_some_and(|running| running.standing().role == Role::Leader)
        };
        let victim = match victim {
            Victim::Leader => self.members.iter().position(leads).unwrap_or(0),
            Victim::Member(member) => member,
        };
        self.befall(victim, fault);
    }

    pub(super) fn befall(&mut self, victim: usize, fault: Fault) {
        self.tell(|| format!("server {}: {fault:?}", victim + 1));
        let now_us = self.recorder.now_us;
        let others: Vec<usize> = (0..self.members.len()).filter(|other| *other != victim).collect();
        match fault {
            Fault::Kill { back_us } | Fault::CutPower { back_us } => {
                self.crash(victim, matches!(fault, Fault::CutPower { .. }));
                self.after(back_us, Happening::Start(victim));
            }
            Fault::Wipe { back_us } => {
                // Two empty disks may be a majority, and a single voter has nobody to ask. Observers do not count.
                let is_survivable = match victim < self.scenario.voters {
                    true => !std::mem::replace(&mut self.has_wiped, true) && self.scenario.voters > 2,
                    false => true,
                };
                if is_survivable {
                    self.crash(victim, true);
                    self.members[victim].disk = SimulatedDisk::new(self.lots.seed() | 1);
                    self.after(back_us, Happening::Start(victim));
                }
            }
            Fault::FailSync => {
                if self.members[victim].running.is_some() {
                    self.members[victim].disk.fail_next_sync();
                    self.members[victim].is_failing = true;
                }
            }
            Fault::Pause { for_us } => {
                // Neither longer nor shorter, once it stands still: what was put off until then would be overtaken.
                let until_us = &mut self.members[victim].paused_until_us;
                if now_us > *until_us + WAKING_US {
                    *until_us = now_us + for_us;
                }
            }
            Fault::SlowDisk { each_us, for_us } => self.members[victim].slow_disk = (each_us, now_us + for_us),
            Fault::Isolate { for_us } => {
                for other in others {
                    self.cut((victim, other), for_us);
                    self.cut((other, victim), for_us);
                }
            }
            Fault::Deafen { for_us } => others.into_iter().for_each(|other| self.cut((other, victim), for_us)),
            Fault::Mute { for_us } => others.into_iter().for_each(|other| self.cut((victim, other), for_us)),
            Fault::Part { for_us } => {
                if let Some(other) = others.first() {
                    self.cut((victim, *other), for_us);
                    self.cut((*other, victim), for_us);
                }
            }
            Fault::DropClients => {
                let broken = self.wires.iter().filter(|(_, wire)| wire.member == victim);
                let broken: Vec<u64> = broken.map(|(id, _)| *id).collect();
                for wire in broken {
                    self.after(200, Happening::HangupAtClient(wire));
                }
            }
            Fault::HandOver => {
                if self.members[victim].running.is_some() && self.members[victim].paused_until_us <= now_us {
                    self.member(victim).hand_over();
                    self.settle(victim);
                }
            }
        }
    }

    pub(super) fn cut(&mut self, cut: Cut, for_us: u64) {
        *self.cuts.entry(cut).or_default() += 1;
        self.after(for_us, Happening::Heal(cut));
        let (a, b) = (cut.0.min(cut.1), cut.0.max(cut.1));
        if self.links.remove(&(a, b)) {
            for (at, peer) in [(a, b), (b, a)] {
                let wait_us = self.lots.between(100_000, 800_000);
                let life = self.members[at].life;
                self.after(
                    wait_us,
                    Happening::Unlinked {
                        at,
                        life,
                        peer,
                        is_gone: false,
                    },
                );
            }
        }
    }

    pub(super) fn mend(&mut self, cut: Cut) {
        if let Some(faults) = self.cuts.get_mut(&cut) {
            *faults -= 1;
            if *faults == 0 {
                self.cuts.remove(&cut);
            }
        }
        let wait_us = self.lots.between(1_000, 30_000);
        self.after(wait_us, Happening::Link { a: cut.0, b: cut.1 });
    }
}
