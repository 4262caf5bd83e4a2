//! In which ways a watcher watches a path: a set of four, since a persistent watch always stands in both tables.

use super::{WatchKind, WatchSelector};

/// A set of ways to watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Modes(u8);

impl Modes {
    /// How many bits there are.
    pub(super) const BITS: u32 = 4;
    pub(super) const NONE: Modes = Modes(0);
    /// One event of the data table.
    const DATA_ONCE: Modes = Modes(1);
    /// One event of the child table.
    const CHILD_ONCE: Modes = Modes(1 << 1);
    const PERSISTENT: Modes = Modes(1 << 2);
    pub(super) const RECURSIVE: Modes = Modes(1 << 3);
    pub(super) const ALL: Modes = Modes(15);
    /// Those that stand in the data table.
    pub(super) const DATA_TABLE: Modes = Modes(Modes::DATA_ONCE.0 | Modes::PERSISTENT.0 | Modes::RECURSIVE.0);
    /// Those that stand in the child table.
    pub(super) const CHILD_TABLE: Modes = Modes(Modes::CHILD_ONCE.0 | Modes::PERSISTENT.0);
    /// Those that are over once they have fired.
    pub(super) const ONCE: Modes = Modes(Modes::DATA_ONCE.0 | Modes::CHILD_ONCE.0);

    pub(super) fn of(kind: WatchKind) -> Modes {
        match kind {
            WatchKind::Data => Modes::DATA_ONCE,
            WatchKind::Child => Modes::CHILD_ONCE,
            WatchKind::Persistent => Modes::PERSISTENT,
            WatchKind::PersistentRecursive => Modes::RECURSIVE,
        }
    }

    pub(super) fn selected(selector: WatchSelector) -> Modes {
        match selector {
            WatchSelector::Any => Modes::ALL,
            WatchSelector::Only(kind) => Modes::of(kind),
        }
    }

    /// The set whose bits these are; others are ignored.
    pub(super) fn from_bits(bits: u32) -> Modes {
        Modes((bits & u32::from(Modes::ALL.0)) as u8)
    }

    pub(super) fn bits(self) -> u32 {
        self.0.into()
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has(self, any_of: Modes) -> bool {
        self.0 & any_of.0 != 0
    }

    pub(super) fn and(self, others: Modes) -> Modes {
        Modes(self.0 | others.0)
    }

    pub(super) fn within(self, others: Modes) -> Modes {
        Modes(self.0 & others.0)
    }

    pub(super) fn without(self, others: Modes) -> Modes {
        Modes(self.0 & !others.0)
    }

    /// In how many of the two tables a watcher with these modes has an entry.
    pub(super) fn tables(self) -> usize {
        usize::from(self.has(Modes::DATA_TABLE)) + usize::from(self.has(Modes::CHILD_TABLE))
    }

    /// The modes of the set, each alone, by the place of their bit.
    pub(super) fn each(self) -> impl Iterator<Item = usize> {
        (0..Modes::BITS as usize).filter(move |place| self.0 >> place & 1 == 1)
    }
}
