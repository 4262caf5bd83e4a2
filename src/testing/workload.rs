//! What simulated clients do all day. Each workload is after some promises; all of them touch the same few znodes, so that
//! they get in each other's way.

use super::Lots;
use super::checker::{Answer, Kind, Request};

/// Directories that are there from the beginning.
pub(super) const DIRECTORIES: [&str; 5] = ["/r", "/m", "/q", "/l", "/e"];
/// Registers, and pairs of znodes that only multis change.
pub(super) const REGISTERS: [&str; 5] = ["/r/0", "/r/1", "/r/2", "/m/a", "/m/b"];

/// A kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workload {
    /// Writes and reads registers, sometimes behind a sync.
    Register,
    /// Sets them by version.
    CompareAndSet,
    /// Changes pairs; some of it fails half-way.
    Multi,
    /// Puts sequential znodes into a queue and takes the first out.
    Queue,
    /// Waits for a lock by watching the one before it.
    Lock,
    /// Ephemerals come and go, with and without their session.
    Ephemerals,
    /// Watches everything that the others do.
    Mirror,
    /// Goes from server to server.
    Hop,
    /// Holds an ephemeral and says nothing but that it is alive.
    Quiet,
}

impl Workload {
    pub(super) const ALL: [Workload; 9] = [
        Workload::Register,
        Workload::CompareAndSet,
        Workload::Multi,
        Workload::Queue,
        Workload::Lock,
        Workload::Ephemerals,
        Workload::Mirror,
        Workload::Hop,
        Workload::Quiet,
    ];
}

/// What a client does beside asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Asks for these, one behind the other.
    Ask(Vec<Request>),
    /// Leaves its connection for another server.
    Move,
    /// Goes away without a word; somebody else comes.
    Vanish,
    /// Nothing, for now.
    Rest,
}

/// A client's plans and memory.
#[derive(Debug)]
pub(super) struct Worker {
    workload: Workload,
    name: usize,
    counter: u64,
    /// What was read last: path, version.
    read: Option<(String, i32)>,
    /// Its own place in the line for the lock, and whether it waits for somebody before it.
    place: Option<String>,
    waits: bool,
    queue: Vec<String>,
    ephemerals: Vec<String>,
}

impl Worker {
    pub(super) fn new(workload: Workload, name: usize) -> Worker {
        Worker {
            workload,
            name,
            counter: 0,
            read: None,
            place: None,
            waits: false,
            queue: Vec::new(),
            ephemerals: Vec::new(),
        }
    }

    /// A new session begins with nothing; a new connection has no watches. What it asks for first.
    pub(super) fn connected(&mut self, is_new: bool) -> Vec<Request> {
        self.waits = false;
        if is_new {
            self.place = None;
            self.ephemerals.clear();
        }
        match self.workload {
            Workload::Mirror => {
                let mut first: Vec<_> = DIRECTORIES[..3].iter().map(|path| watch_all(path, true)).collect();
                first.push(watch_all("/l", false));
                first.push(children("/e", true));
                first
            }
            Workload::Quiet if is_new => vec![self.create_ephemeral()],
            _ => Vec::new(),
        }
    }

    /// A value that nobody else writes, nor this one again.
    pub(super) fn value(&mut self) -> Vec<u8> {
        self.counter += 1;
        format!("{}.{}", self.name, self.counter).into_bytes()
    }

    fn create(&mut self, path: &str, ephemeral: bool, sequential: bool) -> Request {
        Request::Create {
            path: path.to_owned(),
            value: self.value(),
            ephemeral,
            sequential,
        }
    }

    fn create_ephemeral(&mut self) -> Request {
        let path = format!("/e/{}-{}", self.name, self.counter % 4);
        self.ephemerals.push(path.clone());
        self.create(&path, true, false)
    }

    fn set(&mut self, path: &str, version: i32) -> Request {
        Request::Set {
            path: path.to_owned(),
            value: self.value(),
            version,
        }
    }

    /// What to do next.
    pub(super) fn next(&mut self, lots: &mut Lots) -> Deed {
        let register = REGISTERS[lots.below(3)].to_owned();
        match self.workload {
            Workload::Register => Deed::Ask(match lots.below(10) {
                0..4 => vec![self.set(&register, -1)],
                4 => vec![self.set(&register, -1), get(&register, false), self.set(&register, -1)],
                5..8 => vec![get(&register, lots.below(3) == 0)],
                8 => vec![exists(&register, lots.below(2) == 0)],
                _ => vec![Request::Sync, get(&register, false)],
            }),
            Workload::CompareAndSet => Deed::Ask(match self.read.take() {
                Some((path, version)) => vec![self.set(&path, version)],
                None => vec![get(&register, false)],
            }),
            Workload::Multi => Deed::Ask(self.multi(lots)),
            Workload::Queue => Deed::Ask(match lots.below(4) {
                0 | 1 => vec![self.create("/q/n-", false, true)],
                2 => vec![children("/q", lots.below(2) == 0)],
                _ => match self.queue.pop() {
                    Some(name) => vec![delete(&format!("/q/{name}"))],
                    None => vec![children("/q", false)],
                },
            }),
            Workload::Lock => self.lock(),
            Workload::Ephemerals => self.ephemerals(lots),
            Workload::Mirror => Deed::Ask(match lots.below(3) {
                0 => vec![get(&register, true)],
                1 => vec![exists(REGISTERS[3 + lots.below(2)], true)],
                _ => vec![children("/e", true)],
            }),
            Workload::Hop => match lots.below(4) {
                0 => Deed::Move,
                1 => Deed::Ask(vec![self.set(&register, -1)]),
                _ => Deed::Ask(vec![get(&register, false)]),
            },
            Workload::Quiet => Deed::Rest,
        }
    }

    fn multi(&mut self, lots: &mut Lots) -> Vec<Request> {
        let (a, b) = (REGISTERS[3], REGISTERS[4]);
        match lots.below(6) {
            0 | 1 => vec![Request::Multi(vec![self.set(a, -1), self.set(b, -1)])],
            2 => vec![Request::Multi(vec![self.set(a, -1), self.set(b, 1 << 20)])],
            3 => {
                let extra = format!("/m/x{}", lots.below(2));
                let both = if lots.below(2) == 0 {
                    vec![self.create(&extra, false, false), self.set(b, -1)]
                } else {
                    vec![self.set(a, -1), delete(&extra)]
                };
                vec![Request::Multi(both)]
            }
            _ => vec![get(a, false), get(b, false), children("/m", false)],
        }
    }

    fn lock(&mut self) -> Deed {
        if self.waits {
            return Deed::Rest;
        }
        Deed::Ask(match &self.place {
            None => vec![self.create("/l/n-", true, true)],
            Some(_) => vec![children("/l", false)],
        })
    }

    fn ephemerals(&mut self, lots: &mut Lots) -> Deed {
        Deed::Ask(match lots.below(20) {
            0..8 => vec![self.create_ephemeral()],
            8..13 => match self.ephemerals.pop() {
                Some(path) => vec![delete(&path)],
                None => vec![children("/e", false)],
            },
            13..17 => match self.ephemerals.last() {
                Some(path) => vec![get(path, false)],
                None => vec![children("/e", true)],
            },
            17 => vec![children("/e", false)],
            18 => vec![Request::Close],
            _ => return Deed::Vanish,
        })
    }

    /// An answer has come; what follows from it at once.
    pub(super) fn answered(&mut self, request: &Request, result: &Result<Answer, i32>) -> Vec<Request> {
        match (self.workload, request, result) {
            (Workload::CompareAndSet, Request::Get { path, .. }, Ok(Answer::Data(_, stat))) => {
                self.read = Some((path.clone(), stat.version));
            }
            (Workload::Queue, Request::Children { .. }, Ok(Answer::Names(names))) => {
                self.queue.clone_from(names);
                self.queue.sort_unstable_by(|a, b| b.cmp(a));
                self.queue.reverse();
                self.queue.truncate(3);
            }
            (Workload::Lock, Request::Create { .. }, Ok(Answer::Created(path))) => self.place = Some(path.clone()),
            (Workload::Lock, Request::Children { .. }, Ok(Answer::Names(names))) => return self.in_line(names),
            (Workload::Lock, Request::Exists { .. }, Err(_)) => self.waits = false,
            (Workload::Lock, Request::Delete { .. }, _) => self.place = None,
            _ => {}
        }
        Vec::new()
    }

    fn in_line(&mut self, names: &[String]) -> Vec<Request> {
        let Some(place) = &self.place else { return Vec::new() };
        let mut names: Vec<_> = names.iter().map(|name| format!("/l/{name}")).collect();
        names.sort_unstable();
        match names.iter().position(|name| name == place) {
            // Nobody else deletes it: the session has ended with it.
            None => {
                self.place = None;
                Vec::new()
            }
            Some(0) => vec![delete(place)],
            Some(position) => {
                self.waits = true;
                vec![exists(&names[position - 1], true)]
            }
        }
    }

    /// An event has come.
    pub(super) fn fired(&mut self, kind: Kind) -> Vec<Request> {
        match self.workload {
            Workload::Lock => {
                self.waits = false;
                Vec::new()
            }
            Workload::Mirror if kind == Kind::ChildrenChanged => vec![children("/e", true)],
            _ => Vec::new(),
        }
    }
}

pub(super) fn get(path: &str, watch: bool) -> Request {
    let path = path.to_owned();
    Request::Get { path, watch }
}

pub(super) fn exists(path: &str, watch: bool) -> Request {
    let path = path.to_owned();
    Request::Exists { path, watch }
}

pub(super) fn children(path: &str, watch: bool) -> Request {
    let path = path.to_owned();
    Request::Children { path, watch }
}

fn delete(path: &str) -> Request {
    Request::Delete {
        path: path.to_owned(),
        version: -1,
    }
}

fn watch_all(path: &str, recursive: bool) -> Request {
    let path = path.to_owned();
    Request::AddWatch { path, recursive }
}
