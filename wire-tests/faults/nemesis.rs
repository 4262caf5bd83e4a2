//! Who torments the ensemble: one fault at a time, the next only when all members serve again.

use super::ensemble::{Ensemble, Flavour};
use super::history::{Abandoned, Disconnect, History, Moment};
use super::proxy::Cut;
use super::random::Random;
use super::stage::Stage;
use rustix::process::Signal;
use std::time::Duration;

/// What can happen to an ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, and a restart.
    KillLeader,
    KillFollower,
    /// At once: the third has no quorum.
    KillTwo,
    KillAll,
    /// SIGSTOP, and SIGCONT after a while.
    FreezeLeader,
    FreezeFollower,
    /// Nothing goes between the leader and the others.
    PartLeader,
    PartFollower,
    /// What the leader sends does not arrive; what is sent to it does.
    MuteLeader,
    /// SIGTERM, and a restart.
    HandOver,
    StopFollower,
    /// All of them, one after the other, by SIGTERM.
    Roll,
    /// SIGKILL, the data directory removed, and a restart.
    Wipe,
    /// SIGKILL, the files of the tree overwritten in places, and a restart.
    Damage,
}

impl Fault {
    /// All of them, and how often each is drawn.
    const ALL: [(u64, Fault, &'static str); 14] = [
        (14, Fault::KillLeader, "kill-leader"),
        (8, Fault::KillFollower, "kill-follower"),
        (6, Fault::KillTwo, "kill-two"),
        (5, Fault::KillAll, "kill-all"),
        (8, Fault::FreezeLeader, "freeze-leader"),
        (5, Fault::FreezeFollower, "freeze-follower"),
        (8, Fault::PartLeader, "part-leader"),
        (5, Fault::PartFollower, "part-follower"),
        (5, Fault::MuteLeader, "mute-leader"),
        (10, Fault::HandOver, "hand-over"),
        (4, Fault::StopFollower, "stop-follower"),
        (3, Fault::Roll, "roll"),
        (5, Fault::Wipe, "wipe"),
        (4, Fault::Damage, "damage"),
    ];

    pub(crate) fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, fault, _)| *fault == self);
        found.map_or("?", |(_, _, name)| name)
    }

    /// Those that the target can suffer, or those of them that `only` names, with their weights.
    pub(crate) fn chosen(flavour: Flavour, only: &str) -> Vec<(u64, Fault)> {
        let names: Vec<&str> = only.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        for name in &names {
            assert!(
                Self::ALL.iter().any(|(_, _, known)| known == name),
                "FAULTS_ONLY: no fault {name}"
            );
        }
        // Apache's members cannot be parted here (ensemble.rs), and have no protection from their own amnesia: a wiped
        // member may vote for a leader that lacks what was acknowledged.
        // What it does about damage is its own affair.
        let ours_alone = [
            Fault::PartLeader,
            Fault::PartFollower,
            Fault::MuteLeader,
            Fault::Wipe,
            Fault::Damage,
        ];
        Self::ALL
            .iter()
            .filter(|(_, fault, name)| {
                (names.is_empty() || names.contains(name)) && (flavour == Flavour::Ours || !ours_alone.contains(fault))
            })
            .map(|(weight, fault, _)| (*weight, *fault))
            .collect()
    }
}

/// A fault, from its first moment to the next one's.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) fault: Fault,
    /// The members that something was done to.
    pub(crate) hit: Vec<usize>,
    pub(crate) began: Moment,
    pub(crate) ended: Moment,
}

/// Connections that were lost although their member was left alone and the ensemble had a quorum.
pub(crate) fn unexplained(history: &History, spans: &[Span]) -> Vec<String> {
    let in_vain = |disconnect: &&Disconnect| {
        let position = spans
            .iter()
            .position(|span| (span.began..span.ended).contains(&disconnect.at));
        // Before the first fault nothing was done to anybody.
        let Some(position) = position else { return true };
        let span = &spans[position];
        // A member that comes to when its fault is over may find a handshake from then, even if the next fault has begun.
        let earliest = spans[position.saturating_sub(1)].began;
        let was_hit = |abandoned: &Abandoned| {
            let mut during = spans
                .iter()
                .filter(|span| span.began < abandoned.at && abandoned.asked < span.ended);
            during.any(|span| span.hit.contains(&abandoned.member))
        };
        let took_it_up = |abandoned: &Abandoned| {
            abandoned.worker == disconnect.worker
                && (earliest..disconnect.at).contains(&abandoned.at)
                && was_hit(abandoned)
        };
        let is_explained =
            span.hit.contains(&disconnect.member) || span.hit.len() > 1 || history.abandoned.iter().any(took_it_up);
        !is_explained
    };
    history
        .disconnects
        .iter()
        .filter(in_vain)
        .map(|disconnect| {
            let span = spans.iter().find(|span| (span.began..span.ended).contains(&disconnect.at));
            let during = span.map_or_else(|| "without a fault".to_owned(), |span| {
                let hit: Vec<usize> = span.hit.iter().map(|member| member + 1).collect();
                format!("{:.3} s into {} of server {hit:?}", (disconnect.at - span.began) as f64 / 1e9, span.fault.name())
            });
            format!(
                "NoReconnectOnFailover: worker {} lost its connection to server {} ({}, {} requests pending) at {:.3} s, {during}",
                disconnect.worker,
                disconnect.member + 1,
                disconnect.reason,
                disconnect.pending,
                disconnect.at as f64 / 1e9
            )
        })
        .collect()
}

pub(crate) struct Nemesis<'run> {
    ensemble: &'run mut Ensemble,
    stage: &'run Stage,
    random: Random,
    spans: Vec<Span>,
}

impl<'run> Nemesis<'run> {
    pub(crate) fn new(ensemble: &'run mut Ensemble, stage: &'run Stage, random: Random) -> Self {
        Self {
            ensemble,
            stage,
            random,
            spans: Vec::new(),
        }
    }

    /// So many faults. Returns what was done, and why it could not go on if it could not.
    pub(crate) fn torment(&mut self, count: u64, kinds: &[(u64, Fault)]) -> (Vec<Span>, Option<String>) {
        let mut failure = None;
        self.rest();
        for number in 1..=count {
            let fault = self.random.weighted(kinds);
            let result = self
                .strike(fault)
                .and_then(|()| self.ensemble.await_all())
                .and_then(|()| self.ensemble.await_votes());
            let hit: Vec<usize> = self
                .spans
                .last()
                .map_or(Vec::new(), |span| span.hit.iter().map(|member| member + 1).collect());
            eprintln!(
                "{:8.3} s fault {number}: {} of {hit:?}",
                self.stage.now() as f64 / 1e9,
                fault.name()
            );
            if let Err(reason) = result {
                failure = Some(format!("fault {number} ({}): {reason}", fault.name()));
                break;
            }
            (0..self.ensemble.size()).for_each(|member| self.stage.suspect(member, false));
            self.rest();
        }
        self.end_span();
        (std::mem::take(&mut self.spans), failure)
    }

    fn rest(&mut self) {
        self.pause(100, 500);
    }

    fn pause(&mut self, least_ms: u64, more_ms: u64) {
        std::thread::sleep(Duration::from_millis(least_ms + self.random.below(more_ms)));
    }

    fn end_span(&mut self) {
        let now = self.stage.now();
        if let Some(last) = self.spans.last_mut() {
            last.ended = now;
        }
    }

    /// From now on these members are hit. A member stays suspect until all is well again.
    fn begin(&mut self, fault: Fault, hit: &[usize]) {
        self.end_span();
        for member in hit {
            self.stage.suspect(*member, true);
        }
        // A fault without a quorum concerns the survivors too.
        if hit.len() > 1 {
            (0..self.ensemble.size()).for_each(|member| self.stage.suspect(member, true));
        }
        self.spans.push(Span {
            fault,
            hit: hit.to_vec(),
            began: self.stage.now(),
            ended: Moment::MAX,
        });
    }

    fn follower(&mut self) -> Result<usize, String> {
        let leader = self.ensemble.leader()?;
        let other = 1 + self.random.below(self.ensemble.size() as u64 - 1) as usize;
        Ok((leader + other) % self.ensemble.size())
    }

    fn strike(&mut self, fault: Fault) -> Result<(), String> {
        let size = self.ensemble.size();
        match fault {
            Fault::KillLeader | Fault::KillFollower | Fault::KillTwo | Fault::KillAll => {
                let leader = self.ensemble.leader()?;
                let hit = match fault {
                    Fault::KillLeader => vec![leader],
                    Fault::KillFollower => vec![self.follower()?],
                    Fault::KillTwo => {
                        let spared = self.random.below(size as u64) as usize;
                        (0..size).filter(|member| *member != spared).collect()
                    }
                    _ => (0..size).collect(),
                };
                self.kill(fault, &hit);
                Ok(())
            }
            Fault::Wipe | Fault::Damage => {
                let victim = self.random.below(size as u64) as usize;
                self.kill(fault, &[victim]);
                Ok(())
            }
            Fault::FreezeLeader | Fault::FreezeFollower => self.freeze(fault),
            Fault::PartLeader | Fault::PartFollower | Fault::MuteLeader => self.part(fault),
            Fault::HandOver => {
                let leader = self.ensemble.leader()?;
                self.restart(fault, leader)
            }
            Fault::StopFollower => {
                let follower = self.follower()?;
                self.restart(fault, follower)
            }
            Fault::Roll => {
                for member in 0..size {
                    self.restart(fault, member)?;
                    self.ensemble.await_all()?;
                    self.stage.suspect(member, false);
                }
                Ok(())
            }
        }
    }

    fn kill(&mut self, fault: Fault, hit: &[usize]) {
        self.begin(fault, hit);
        for member in hit {
            self.ensemble.kill(*member);
        }
        self.pause(50, 900);
        for member in hit {
            match fault {
                Fault::Wipe => self.ensemble.wipe(*member),
                Fault::Damage => self.ensemble.damage(*member),
                _ => {}
            }
            self.ensemble.start(*member);
        }
    }

    fn freeze(&mut self, fault: Fault) -> Result<(), String> {
        let victim = if fault == Fault::FreezeLeader {
            self.ensemble.leader()?
        } else {
            self.follower()?
        };
        self.begin(fault, &[victim]);
        self.ensemble.signal(victim, Signal::STOP);
        self.pause(200, 3_000);
        self.ensemble.signal(victim, Signal::CONT);
        Ok(())
    }

    fn part(&mut self, fault: Fault) -> Result<(), String> {
        let victim = if fault == Fault::PartFollower {
            self.follower()?
        } else {
            self.ensemble.leader()?
        };
        let cut = *self.random.pick(&[Cut::Refuse, Cut::Stall]);
        self.begin(fault, &[victim]);
        for other in (0..self.ensemble.size()).filter(|other| *other != victim) {
            self.ensemble.part(victim, other, cut);
            if fault != Fault::MuteLeader {
                self.ensemble.part(other, victim, cut);
            }
        }
        self.pause(300, 3_000);
        self.ensemble.network.heal();
        Ok(())
    }

    fn restart(&mut self, fault: Fault, member: usize) -> Result<(), String> {
        self.begin(fault, &[member]);
        self.ensemble.terminate(member)?;
        self.pause(20, 300);
        self.ensemble.start(member);
        Ok(())
    }
}
