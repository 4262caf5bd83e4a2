//! A seed becomes a sequence: few names, so that operations meet; every operation; wrong arguments now and then.
//!
//! What is not generated, and why:
//! - deleteContainer: Apache's lets any client remove nodes with it, past every access control list; ours refuses it.
//! - createTTL without a TTL flag and with a negative ttl: Apache's accepts it and dies when it applies it.
//! - createContainer with an ephemeral's flag: Apache's makes a container, but removes it with the session if that is
//!   closed before the create is applied.
//! - quota texts that do not parse, and writes to `zookeeper_stats`: Apache's dies at the next write below the quota.
//! - setACL, auth, sasl, quota limits and writes under them in the middle of a burst: Apache's checks a write against what
//!   is applied already, so the answer depends on how far the burst has come. Auth is even answered out of order.
//! - requests that make the server close the connection, in the middle of a burst: it closes before or after the
//!   replies to the earlier ones. Only closeSession's place is certain. And nothing comes behind a closeSession:
//!   Apache's answers that with SESSIONEXPIRED or not at all.
//! - sequential znodes directly below `/`, and setACL on the nodes that outlive a run: later runs would see them.
//! - hard limits and multis in the same sequence: Apache's checks every operation of a multi against what is counted
//!   before the multi, so that one multi can go over the limit by as much as it likes; ours counts the earlier ones.
//! - a null path in a create that is wrong in another way too, and a null id in an access control list: Apache's fails
//!   at the null when it comes to it, ours when it decodes the request.
//! - getAllChildrenNumber of the empty path: it is the root, and Apache's counts the root among its own descendants.
//! - addWatch and setWatches with null paths: Apache's keeps them under a null key and fails later elsewhere. sync of a
//!   null path: Apache's echoes the null, ours calls it malformed.

use std::mem;

use crate::arguments::{Living, is_open, plain_create};
use crate::operation::{Action, RelativeZxid, Request, Resume, Step, Version, WatchLists, opcode};
use crate::player::{SESSIONS, USUAL_TIMEOUT_MS};
use crate::random::Random;

/// The most requests in most bursts.
const LONGEST_BURST: u64 = 12;
/// The most in a few: more than a server may want to hold at once, so that it stops reading in between. Less than
/// Apache's `globalOutstandingLimit` of 1,000.
const LONG_BURST: u64 = 600;
/// The most operations in one multi.
const LONGEST_MULTI: u64 = 6;

/// What a sequence dwells on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    Everything,
    Bursts,
    Watches,
    Rights,
    SoftQuotas,
    HardQuotas,
    Sessions,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Create,
    Delete,
    SetData,
    SetAcl,
    GetAcl,
    Read,
    Sync,
    Multi,
    MultiRead,
    AddWatch,
    Watches,
    SetWatches,
    GetEphemerals,
    GetAllChildrenNumber,
    WhoAmI,
    Ping,
    Auth,
    Sasl,
    Reconfig,
    CloseSession,
    /// A request after which the server closes the connection.
    Fatal,
    Mangled,
    Quota,
    Drop,
    Resume,
    Open,
    BadFrame,
}

/// A sequence of about `count` requests.
pub fn sequence(seed: u64, count: usize) -> Vec<Step> {
    let mut random = Random::new(seed);
    let theme = random.weighted(&[
        (4, Theme::Everything),
        (3, Theme::Bursts),
        (3, Theme::Watches),
        (3, Theme::Rights),
        (1, Theme::SoftQuotas),
        (2, Theme::HardQuotas),
        (1, Theme::Sessions),
    ]);
    let mut generator = Generator {
        random,
        theme,
        session: 0,
        doubtful: false,
        careful: false,
        living: vec![Living {
            path: "~".to_owned(),
            owner: None,
        }],
    };
    let mut steps = Vec::new();
    let mut requests = 0;
    while requests < count {
        let session = generator.random.below(SESSIONS as u64) as usize;
        generator.session = session;
        for action in generator.actions() {
            requests += match &action {
                Action::Send(sent) => sent.len(),
                Action::Open { behind, .. } => 1 + behind.len(),
                _ => 1,
            };
            steps.push(Step { session, action });
        }
    }
    steps
}

pub struct Generator {
    /// Where chance comes from.
    pub random: Random,
    /// What the sequence dwells on.
    pub theme: Theme,
    /// Whose turn it is.
    pub session: usize,
    /// Whether the request will probably fail, so that nothing it creates or deletes counts.
    pub doubtful: bool,
    /// Whether the next arguments should be such that the request succeeds.
    pub careful: bool,
    /// What probably exists, so that most operations meet something. A guess is enough.
    pub living: Vec<Living>,
}

impl Generator {
    fn actions(&mut self) -> Vec<Action> {
        if self.theme == Theme::Bursts && self.random.percent(50) {
            return vec![Action::Send(self.burst())];
        }
        let kind = self.kind();
        match kind {
            Kind::Drop => vec![Action::Drop],
            Kind::Resume => {
                let resume = self.random.weighted(&[
                    (4, Resume::AfterDrop),
                    (4, Resume::TakeOver),
                    (2, Resume::WrongPassword),
                    (1, Resume::Ahead),
                ]);
                let mut actions = vec![Action::Resume(resume)];
                if self.random.percent(60) {
                    actions.push(Action::Send(vec![self.set_watches()]));
                }
                actions
            }
            Kind::Open => {
                self.forget_session();
                let timeout_ms = *self.random.pick(&[USUAL_TIMEOUT_MS, 30_000, 1, 0, -5, i32::MAX]);
                let with_read_only_byte = self.random.percent(60);
                let behind = if self.theme != Theme::HardQuotas && self.random.percent(40) {
                    self.burst()
                } else {
                    Vec::new()
                };
                vec![Action::Open {
                    timeout_ms,
                    with_read_only_byte,
                    behind,
                }]
            }
            Kind::BadFrame => vec![Action::BadFrame(self.bad_frame())],
            Kind::Quota => self
                .quota()
                .into_iter()
                .map(|request| Action::Send(vec![request]))
                .collect(),
            _ => vec![Action::Send(vec![self.request(kind)])],
        }
    }

    fn kind(&mut self) -> Kind {
        let more = |wanted, theme, then: u64, otherwise: u64| if wanted == theme { then } else { otherwise };
        let theme = self.theme;
        self.random.weighted(&[
            (240, Kind::Create),
            (100, Kind::Delete),
            (100, Kind::SetData),
            (more(Theme::Rights, theme, 120, 10), Kind::SetAcl),
            (more(Theme::Rights, theme, 60, 12), Kind::GetAcl),
            (more(Theme::Watches, theme, 240, 160), Kind::Read),
            (12, Kind::Sync),
            (80, Kind::Multi),
            (25, Kind::MultiRead),
            (more(Theme::Watches, theme, 80, 15), Kind::AddWatch),
            (more(Theme::Watches, theme, 60, 15), Kind::Watches),
            (more(Theme::Watches, theme, 40, 12), Kind::SetWatches),
            (12, Kind::GetEphemerals),
            (12, Kind::GetAllChildrenNumber),
            (more(Theme::Rights, theme, 15, 5), Kind::WhoAmI),
            (6, Kind::Ping),
            (more(Theme::Rights, theme, 50, 6), Kind::Auth),
            (2, Kind::Sasl),
            (2, Kind::Reconfig),
            (more(Theme::Sessions, theme, 60, 10), Kind::CloseSession),
            (more(Theme::Sessions, theme, 30, 5), Kind::Fatal),
            (12, Kind::Mangled),
            (
                if matches!(theme, Theme::SoftQuotas | Theme::HardQuotas) {
                    60
                } else {
                    0
                },
                Kind::Quota,
            ),
            (more(Theme::Sessions, theme, 60, 8), Kind::Drop),
            (more(Theme::Sessions, theme, 100, 10), Kind::Resume),
            (more(Theme::Sessions, theme, 30, 4), Kind::Open),
            (more(Theme::Sessions, theme, 15, 2), Kind::BadFrame),
        ])
    }

    fn burst(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        if self.random.percent(5) {
            requests.push(self.request(Kind::Auth));
        } else if self.random.percent(10) {
            requests.push(self.request(Kind::SetWatches));
        }
        let longest = if self.random.percent(1) {
            LONG_BURST
        } else {
            LONGEST_BURST
        };
        for _ in 0..2 + self.random.below(longest - 1) {
            let kind = self.random.weighted(&[
                (30, Kind::Create),
                (18, Kind::Delete),
                (15, Kind::SetData),
                (25, Kind::Read),
                (3, Kind::Sync),
                (12, Kind::Multi),
                (4, Kind::MultiRead),
                (3, Kind::AddWatch),
                (2, Kind::Watches),
                (3, Kind::GetEphemerals),
                (2, Kind::GetAllChildrenNumber),
                (1, Kind::GetAcl),
                (1, Kind::WhoAmI),
                (1, Kind::Ping),
            ]);
            requests.push(self.request(kind));
        }
        if self.random.percent(8) {
            requests.push(self.request(Kind::CloseSession));
        }
        requests
    }

    fn request(&mut self, kind: Kind) -> Request {
        match kind {
            Kind::Create => self.create(),
            Kind::Delete => {
                let (mut path, version) = (self.path(), self.version());
                if path.as_deref() == Some("~") && self.random.percent(98) {
                    // Without its root the rest of a sequence meets nothing.
                    path = self.new_path();
                }
                if let (Some(path), Version::Exactly(-1) | Version::Seen(0), false) = (&path, version, self.doubtful) {
                    self.forget(path);
                }
                Request::Delete { path, version }
            }
            Kind::SetData => Request::SetData {
                path: self.path(),
                data: self.data(),
                version: self.version(),
            },
            Kind::SetAcl => Request::SetAcl {
                path: self.own_path(),
                acl: self.acl(60),
                version: self.version(),
            },
            Kind::GetAcl => Request::GetAcl { path: self.path() },
            Kind::Sync => Request::Sync {
                path: self.path().or_else(|| Some(String::new())),
            },
            Kind::Multi if self.theme == Theme::HardQuotas => self.create(),
            Kind::Multi => self.multi(),
            Kind::MultiRead => self.multi_read(),
            Kind::AddWatch => {
                let mode = self.random.weighted(&[(10, 0), (10, 1), (1, 2), (1, -1)]);
                Request::AddWatch {
                    path: Some(self.watched_path()),
                    mode,
                }
            }
            Kind::Watches => self.watches(),
            Kind::SetWatches => self.set_watches(),
            Kind::GetEphemerals => Request::GetEphemerals { prefix: self.prefix() },
            Kind::GetAllChildrenNumber => Request::GetAllChildrenNumber {
                path: self.path().filter(|path| !path.is_empty()),
            },
            Kind::WhoAmI => Request::WhoAmI,
            Kind::Ping => Request::Ping,
            Kind::Auth => self.auth(),
            Kind::Sasl => Request::Sasl {
                token: b"token"[..self.random.below(6) as usize].to_vec(),
            },
            Kind::Reconfig => Request::Reconfig {
                joining: Some("server.2=127.0.0.1:2888:3888;2181".to_owned()),
                leaving: None,
                members: None,
                config_id: -1,
            },
            Kind::CloseSession => {
                self.forget_session();
                Request::CloseSession
            }
            Kind::Fatal => self.fatal(),
            Kind::Mangled => self.mangled(),
            _ => self.read(),
        }
    }

    fn create(&mut self) -> Request {
        let mut path = self.new_path();
        let opcode = self.random.weighted(&[
            (50, opcode::CREATE),
            (35, opcode::CREATE2),
            (6, opcode::CREATE_CONTAINER),
            (9, opcode::CREATE_TTL),
        ]);
        let mut ttl = *self.random.pick(if self.careful {
            &[60_000]
        } else {
            &[60_000, 1_000_000, 1, 0xff_ffff_ffff, 0x100_0000_0000, 0, -1]
        });
        let flags = match opcode {
            opcode::CREATE_TTL if self.careful => 5,
            opcode::CREATE_CONTAINER if self.careful => 4,
            _ if self.careful => *self.random.pick(&[0, 0, 1, 2, 3]),
            opcode::CREATE_TTL => self.random.weighted(&[(10, 5), (10, 6), (1, 0), (1, 1), (1, 7)]),
            opcode::CREATE_CONTAINER => self.random.weighted(&[(10, 4), (1, 0), (1, 2), (1, 5)]),
            _ => self.random.weighted(&[
                (40, 0),
                (20, 1),
                (15, 2),
                (12, 3),
                (4, 4),
                (1, 5),
                (1, 6),
                (1, 7),
                (1, -1),
            ]),
        };
        if path.is_none() {
            return plain_create(None, Vec::new());
        }
        if opcode == opcode::CREATE_TTL && !(5..=6).contains(&flags) {
            ttl = i64::max(ttl, 0);
        }
        let percent = match self.theme {
            _ if self.careful => 0,
            Theme::Rights => 40,
            _ => 6,
        };
        let acl = self.acl(percent);
        if [2, 3, 6].contains(&flags) {
            let mut prefix = path
                .filter(|path| path.starts_with("~/"))
                .unwrap_or_else(|| "~/s".to_owned());
            prefix.push_str(self.random.weighted(&[(6, "/s"), (2, "/"), (2, "s"), (1, "")]));
            path = Some(prefix);
        } else if let Some(path) = path.as_deref().filter(|_| percent == 40 || is_open(&acl))
            && !self.doubtful
        {
            self.remember(path, flags == 1);
        }
        Request::Create {
            opcode,
            path,
            data: self.data(),
            acl,
            flags,
            ttl,
        }
    }

    fn read(&mut self) -> Request {
        let opcode = *self.random.pick(&[
            opcode::EXISTS,
            opcode::EXISTS,
            opcode::GET_DATA,
            opcode::GET_DATA,
            opcode::GET_CHILDREN,
            opcode::GET_CHILDREN2,
        ]);
        Request::Read {
            opcode,
            path: self.path(),
            watch: self.random.percent(50),
        }
    }

    fn multi(&mut self) -> Request {
        // A multi of random operations fails nearly always: most are made of operations that should succeed.
        self.careful = self.random.percent(65);
        let doubtful = mem::replace(&mut self.doubtful, !self.careful);
        let mut operations = Vec::new();
        for _ in 0..self.random.below(LONGEST_MULTI + 1) {
            let operation = match self.random.below(100) {
                0..=49 => self.create(),
                50..=69 => self.request(Kind::SetData),
                70..=84 => self.request(Kind::Delete),
                85..=98 => Request::Check {
                    path: self.path(),
                    version: self.version(),
                },
                _ if self.careful => self.create(),
                // Neither allowed in a multi: the whole is refused.
                _ => {
                    let kind = *self.random.pick(&[Kind::Read, Kind::SetAcl]);
                    self.request(kind)
                }
            };
            operations.push(operation);
        }
        self.careful = false;
        self.doubtful = doubtful;
        Request::Multi {
            opcode: opcode::MULTI,
            operations,
        }
    }

    fn multi_read(&mut self) -> Request {
        let mut operations = Vec::new();
        for _ in 0..self.random.below(LONGEST_MULTI) {
            let opcode = *self.random.pick(&[opcode::GET_DATA, opcode::GET_CHILDREN]);
            operations.push(Request::Read {
                opcode,
                path: self.path(),
                watch: self.random.percent(20),
            });
        }
        if self.random.percent(4) {
            operations.push(self.request(Kind::Delete));
        }
        Request::Multi {
            opcode: opcode::MULTI_READ,
            operations,
        }
    }

    fn watches(&mut self) -> Request {
        let opcode = *self.random.pick(&[opcode::CHECK_WATCHES, opcode::REMOVE_WATCHES]);
        let kind = self
            .random
            .weighted(&[(4, 1), (4, 2), (4, 3), (3, 4), (3, 5), (1, 0), (1, 6)]);
        Request::Watches {
            opcode,
            path: Some(self.watched_path()),
            kind,
        }
    }

    fn set_watches(&mut self) -> Request {
        let relative = match self.random.below(4) {
            0 => RelativeZxid::Zero,
            1 => RelativeZxid::Largest,
            _ => RelativeZxid::Back(self.random.below(20) as usize),
        };
        let mut lists = WatchLists {
            data: self.paths(),
            exist: self.paths(),
            child: self.paths(),
            persistent: None,
        };
        if self.random.percent(50) {
            lists.persistent = Some((self.paths(), self.paths()));
        }
        Request::SetWatches { relative, lists }
    }

    fn paths(&mut self) -> Vec<String> {
        (0..self.random.below(4)).map(|_| self.watched_path()).collect()
    }

    /// After these the server closes the connection.
    fn fatal(&mut self) -> Request {
        match self.random.below(5) {
            0 => Request::Check {
                path: self.path(),
                version: self.version(),
            },
            1 => Request::Auth {
                scheme: "unknown".to_owned(),
                credentials: Some(b"x".to_vec()),
            },
            2 => Request::Auth {
                scheme: "digest".to_owned(),
                credentials: None,
            },
            3 => Request::Auth {
                scheme: "world".to_owned(),
                credentials: Some(b"anyone".to_vec()),
            },
            _ => Request::Unknown {
                opcode: *self.random.pick(&[0, -1, 10, 23, 99, 108, 1000]),
            },
        }
    }

    fn mangled(&mut self) -> Request {
        let kind = *self.random.pick(&[
            Kind::Create,
            Kind::Delete,
            Kind::SetData,
            Kind::SetAcl,
            Kind::Read,
            Kind::Sync,
            Kind::Multi,
            Kind::MultiRead,
            Kind::AddWatch,
            Kind::Watches,
            Kind::GetEphemerals,
            Kind::GetAcl,
        ]);
        let doubtful = mem::replace(&mut self.doubtful, true);
        let request = Box::new(self.request(kind));
        self.doubtful = doubtful;
        let cut_bytes = if self.random.percent(70) {
            1 + self.random.below(12) as usize
        } else {
            0
        };
        let extra_bytes = if cut_bytes == 0 {
            1 + self.random.below(9) as usize
        } else {
            0
        };
        Request::Mangled {
            request,
            cut_bytes,
            extra_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_sequence_twice() {
        let shown = |seed| sequence(seed, 300).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(7), shown(7));
        assert_ne!(shown(7), shown(8));
    }
}
