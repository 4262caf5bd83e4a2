//! Who watches one path, and how: one watcher within the path's entry, a few in a list, many in a bitmap per mode.

use super::modes::Modes;
use super::slab::Slab;
use roaring::RoaringBitmap;

/// Up to so many watchers stand in a list that is searched; beyond, in bitmaps, so that fifty thousand connections that
/// watch one path can each leave it in a moment, and take some two bytes each.
const LIST_LIMIT: usize = 64;

/// A watcher's number: it stands for a connection as long as that watches anything, and then for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WatcherNumber(pub(super) u32);

impl WatcherNumber {
    /// Numbers are below this, since the modes share their 32 bits. There are not so many sockets.
    pub(super) const LIMIT: u32 = 1 << (u32::BITS - Modes::BITS);
}

/// A watcher and its modes, in 32 bits: the modes are the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watching(u32);

impl Watching {
    fn new(watcher: WatcherNumber, modes: Modes) -> Watching {
        Watching(watcher.0 << Modes::BITS | modes.bits())
    }

    fn watcher(self) -> WatcherNumber {
        WatcherNumber(self.0 >> Modes::BITS)
    }

    fn modes(self) -> Modes {
        Modes::from_bits(self.0)
    }
}

/// The watchers of one path. Empty only while it is being made or unmade.
#[derive(Debug, Default)]
pub(super) enum Audience {
    #[default]
    Nobody,
    One(Watching),
    /// The crowd of this number: most paths have none, and should not carry the room for it.
    Crowd(u32),
}

/// More than one watcher of a path.
#[derive(Debug)]
pub(super) enum Crowd {
    Few(Vec<Watching>),
    Many(Box<Many>),
}

/// Very many: for each mode, those who watch in it.
#[derive(Debug, Default)]
pub(super) struct Many {
    by_mode: [RoaringBitmap; Modes::BITS as usize],
    /// How many stand in the data table, and in the child table.
    in_data: usize,
    in_child: usize,
}

impl Audience {
    pub(super) fn is_nobody(&self) -> bool {
        matches!(self, Audience::Nobody)
    }

    /// How `watcher` watches.
    pub(super) fn modes(&self, watcher: WatcherNumber, crowds: &Slab<Crowd>) -> Modes {
        match self {
            Audience::One(one) if one.watcher() == watcher => one.modes(),
            Audience::Nobody | Audience::One(_) => Modes::NONE,
            Audience::Crowd(number) => crowds.get(*number).map_or(Modes::NONE, |crowd| crowd.modes(watcher)),
        }
    }

    /// How many watch in any of `among`, which is one of the two tables.
    pub(super) fn count(&self, table: Modes, crowds: &Slab<Crowd>) -> usize {
        match self {
            Audience::Nobody => 0,
            Audience::One(one) => one.modes().has(table).into(),
            Audience::Crowd(number) => crowds.get(*number).map_or(0, |crowd| crowd.count(table)),
        }
    }

    /// Has `watcher` watch in just these modes; without any, it is gone.
    pub(super) fn set(&mut self, watcher: WatcherNumber, modes: Modes, crowds: &mut Slab<Crowd>) {
        match self {
            Audience::Nobody if modes.is_empty() => {}
            Audience::Nobody => *self = Audience::One(Watching::new(watcher, modes)),
            Audience::One(one) if one.watcher() == watcher => {
                *self = if modes.is_empty() {
                    Audience::Nobody
                } else {
                    Audience::One(Watching::new(watcher, modes))
                };
            }
            Audience::One(_) if modes.is_empty() => {}
            Audience::One(one) => {
                let crowd = Crowd::Few(vec![*one, Watching::new(watcher, modes)]);
                let Ok(number) = crowds.insert(crowd, u32::MAX) else {
                    unreachable!("there are fewer crowds than paths, which have a limit")
                };
                *self = Audience::Crowd(number);
            }
            Audience::Crowd(number) => {
                if let Some(crowd) = crowds.get_mut(*number) {
                    crowd.set(watcher, modes);
                }
                self.disband_if_empty(crowds);
            }
        }
    }

    /// Takes the one-shot modes among `among` from everybody, and calls `reached` for each who watches in any of `among`,
    /// with the modes that are left to him.
    pub(super) fn fire(
        &mut self,
        among: Modes,
        crowds: &mut Slab<Crowd>,
        mut reached: impl FnMut(WatcherNumber, Modes),
    ) {
        match self {
            Audience::Nobody => {}
            Audience::One(one) => {
                let (watcher, modes) = (one.watcher(), one.modes());
                if modes.has(among) {
                    let left = modes.without(among.within(Modes::ONCE));
                    self.set(watcher, left, crowds);
                    reached(watcher, left);
                }
            }
            Audience::Crowd(number) => {
                if let Some(crowd) = crowds.get_mut(*number) {
                    crowd.fire(among, reached);
                }
                self.disband_if_empty(crowds);
            }
        }
    }

    /// Calls `visit` for each who watches in any of `among`.
    pub(super) fn for_each(&self, among: Modes, crowds: &Slab<Crowd>, mut visit: impl FnMut(WatcherNumber)) {
        match self {
            Audience::Nobody => {}
            Audience::One(one) => {
                if one.modes().has(among) {
                    visit(one.watcher());
                }
            }
            Audience::Crowd(number) => match crowds.get(*number) {
                None => {}
                Some(Crowd::Few(list)) => {
                    let found = list.iter().filter(|watching| watching.modes().has(among));
                    found.for_each(|watching| visit(watching.watcher()));
                }
                Some(Crowd::Many(many)) => {
                    many.among(among)
                        .iter()
                        .for_each(|watcher| visit(WatcherNumber(watcher)));
                }
            },
        }
    }

    fn disband_if_empty(&mut self, crowds: &mut Slab<Crowd>) {
        if let Audience::Crowd(number) = self
            && crowds.get(*number).is_none_or(Crowd::is_empty)
        {
            crowds.remove(*number);
            *self = Audience::Nobody;
        }
    }
}

impl Crowd {
    fn modes(&self, watcher: WatcherNumber) -> Modes {
        match self {
            Crowd::Few(list) => list
                .iter()
                .find(|watching| watching.watcher() == watcher)
                .map_or(Modes::NONE, |watching| watching.modes()),
            Crowd::Many(many) => many.modes(watcher),
        }
    }

    fn count(&self, table: Modes) -> usize {
        match self {
            Crowd::Few(list) => list.iter().filter(|watching| watching.modes().has(table)).count(),
            Crowd::Many(many) if table == Modes::DATA_TABLE => many.in_data,
            Crowd::Many(many) => many.in_child,
        }
    }

    fn set(&mut self, watcher: WatcherNumber, modes: Modes) {
        match self {
            Crowd::Many(many) => many.set(watcher, modes),
            Crowd::Few(list) => match list.iter().position(|watching| watching.watcher() == watcher) {
                Some(place) if modes.is_empty() => {
                    list.swap_remove(place);
                }
                Some(place) => list[place] = Watching::new(watcher, modes),
                None if modes.is_empty() => {}
                None if list.len() < LIST_LIMIT => list.push(Watching::new(watcher, modes)),
                None => {
                    let mut many = Box::<Many>::default();
                    list.iter()
                        .for_each(|watching| many.set(watching.watcher(), watching.modes()));
                    many.set(watcher, modes);
                    *self = Crowd::Many(many);
                }
            },
        }
    }

    fn fire(&mut self, among: Modes, mut reached: impl FnMut(WatcherNumber, Modes)) {
        match self {
            Crowd::Many(many) => many.fire(among, reached),
            Crowd::Few(list) => list.retain_mut(|watching| {
                let (watcher, modes) = (watching.watcher(), watching.modes());
                if !modes.has(among) {
                    return true;
                }
                let left = modes.without(among.within(Modes::ONCE));
                *watching = Watching::new(watcher, left);
                reached(watcher, left);
                !left.is_empty()
            }),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Crowd::Few(list) => list.is_empty(),
            Crowd::Many(many) => many.by_mode.iter().all(RoaringBitmap::is_empty),
        }
    }
}

impl Many {
    fn modes(&self, watcher: WatcherNumber) -> Modes {
        let bits = self.by_mode.iter().enumerate();
        let bits = bits.map(|(place, watchers)| u32::from(watchers.contains(watcher.0)) << place);
        Modes::from_bits(bits.sum())
    }

    fn set(&mut self, watcher: WatcherNumber, modes: Modes) {
        let before = self.modes(watcher);
        for place in modes.without(before).each() {
            self.by_mode[place].insert(watcher.0);
        }
        for place in before.without(modes).each() {
            self.by_mode[place].remove(watcher.0);
        }
        let recount = |count: usize, table| count + usize::from(modes.has(table)) - usize::from(before.has(table));
        self.in_data = recount(self.in_data, Modes::DATA_TABLE);
        self.in_child = recount(self.in_child, Modes::CHILD_TABLE);
    }

    fn fire(&mut self, among: Modes, mut reached: impl FnMut(WatcherNumber, Modes)) {
        let told = self.among(among);
        for place in among.within(Modes::ONCE).each() {
            self.by_mode[place] = RoaringBitmap::new();
        }
        let count = |table| usize::try_from(self.among(table).len()).unwrap_or(usize::MAX);
        (self.in_data, self.in_child) = (count(Modes::DATA_TABLE), count(Modes::CHILD_TABLE));
        let is_over = self.in_data == 0 && self.in_child == 0;
        for watcher in told.iter().map(WatcherNumber) {
            reached(watcher, if is_over { Modes::NONE } else { self.modes(watcher) });
        }
    }

    fn among(&self, modes: Modes) -> RoaringBitmap {
        let mut union = RoaringBitmap::new();
        modes.each().for_each(|place| union |= &self.by_mode[place]);
        union
    }
}
