//! What befalls an ensemble: drawn from the seed, and always survivable by what the design promises.

use super::Lots;
use super::world::Scenario;

/// How rough a scenario is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// Nothing happens.
    Calm,
    /// Members die one at a time and come back; leadership is handed over. The network is whole.
    Deaths,
    /// All observers die, and stay away as long as clients work; nothing else happens.
    NoObservers,
    /// All of it: broken networks, pauses, bad disks, lost messages.
    Storm,
    /// Whoever leads stands still, long enough for others to be elected. The network is whole, and the way long.
    Frost,
    /// A member is cut off, another one loses its disk, and the third its power: what was acknowledged meanwhile is on that
    /// one alone, and the other two must wait for it.
    Amnesia,
}

impl Weather {
    /// Whether what was sent arrives, and nobody is missed but those who have died.
    pub(super) fn has_whole_network(self) -> bool {
        matches!(self, Weather::Calm | Weather::Deaths | Weather::NoObservers)
    }
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process is killed, to be started again after so long, µs.
    Kill { back_us: u64 },
    /// The power is cut, likewise.
    CutPower { back_us: u64 },
    /// The next fsync fails; the member must stop by itself.
    FailSync,
    /// Its disk is lost, and an empty one put in its place.
    Wipe { back_us: u64 },
    /// The process stands still for so long, µs.
    Pause { for_us: u64 },
    /// Its disk needs so long for each write, µs.
    SlowDisk { each_us: u64, for_us: u64 },
    /// It neither hears the others nor is heard.
    Isolate { for_us: u64 },
    /// It hears nobody.
    Deafen { for_us: u64 },
    /// Nobody hears it.
    Mute { for_us: u64 },
    /// It and the next one do not reach each other.
    Part { for_us: u64 },
    /// Its clients' connections break.
    DropClients,
    /// If it leads, another one is to.
    HandOver,
}

/// Who is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    /// Who leads then.
    Leader,
    /// This one.
    Member(usize),
}

/// What happens next, and how long it is until then, µs.
pub(super) fn next(weather: Weather, members: usize, lots: &mut Lots) -> Option<(u64, Victim, Fault)> {
    let victim = if weather == Weather::Frost || lots.below(2) == 0 {
        Victim::Leader
    } else {
        Victim::Member(lots.below(members))
    };
    let (wait_us, fault) = match weather {
        Weather::Calm | Weather::NoObservers | Weather::Amnesia => return None,
        Weather::Deaths => {
            let back_us = lots.between(100_000, 900_000);
            let fault = match lots.below(4) {
                0 => Fault::HandOver,
                1 => Fault::CutPower { back_us },
                _ => Fault::Kill { back_us },
            };
            // Whoever was hit has caught up by the time the next one is.
            (lots.between(1_800_000, 2_500_000), fault)
        }
        Weather::Frost => {
            let for_us = lots.between(700_000, 1_500_000);
            (lots.between(200_000, 900_000), Fault::Pause { for_us })
        }
        Weather::Storm => {
            let for_us = lots.between(50_000, 1_500_000);
            let fault = match lots.below(15) {
                0 | 1 => Fault::Kill { back_us: for_us },
                2 | 3 => Fault::CutPower { back_us: for_us },
                4 => Fault::FailSync,
                5 => Fault::Pause { for_us },
                6 => Fault::SlowDisk {
                    each_us: lots.between(2_000, 80_000),
                    for_us,
                },
                7 => Fault::Isolate { for_us },
                8 => Fault::Deafen { for_us },
                9 => Fault::Mute { for_us },
                10 | 11 => Fault::Part { for_us },
                12 => Fault::DropClients,
                13 => Fault::Wipe { back_us: for_us },
                _ => Fault::HandOver,
            };
            (lots.between(50_000, 700_000), fault)
        }
    };
    Some((wait_us, victim, fault))
}

/// When observers die that are to stay away, µs after the clients have begun.
const OBSERVERS_DIE_US: u64 = 300_000;

/// What happens at fixed times, µs after the clients have begun.
pub(super) fn script(scenario: &Scenario) -> Vec<(u64, usize, Fault)> {
    match scenario.weather {
        Weather::Amnesia => vec![
            (600_000, 2, Fault::Isolate { for_us: 900_000 }),
            (1_300_000, 1, Fault::Wipe { back_us: 10_000 }),
            (1_350_000, 0, Fault::CutPower { back_us: 4_500_000 }),
        ],
        Weather::NoObservers => (scenario.voters..scenario.members())
            .map(|observer| {
                let back_us = scenario.duration_us - OBSERVERS_DIE_US;
                (OBSERVERS_DIE_US, observer, Fault::Kill { back_us })
            })
            .collect(),
        _ => Vec::new(),
    }
}
