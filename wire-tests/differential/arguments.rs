//! The arguments of random requests: paths, versions, data, access control lists, credentials, quotas, broken frames.

use crate::generator::{Generator, Theme};
use crate::operation::{Access, AccessList, Data, Path, Request, Version, opcode};

/// How many levels below the root a path that we build on may have.
const DEEPEST: usize = 4;
/// Large enough to span several reads of a socket.
const LARGE_DATA_BYTES: usize = 150_000;

/// A znode that probably exists.
pub struct Living {
    /// Where it is.
    pub path: String,
    /// The session that takes it along, if it is ephemeral.
    pub owner: Option<usize>,
}

impl Generator {
    pub fn path(&mut self) -> Path {
        if self.careful {
            return self.own_path();
        }
        match self.random.below(100) {
            0 => None,
            1..=3 => Some(self.odd_path()),
            4 => Some(
                (*self
                    .random
                    .pick(&["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config", ""]))
                .to_owned(),
            ),
            5 => Some("/zookeeper~".to_owned()),
            _ => self.own_path(),
        }
    }

    /// A path for a create: mostly a child of something that is there.
    pub fn new_path(&mut self) -> Path {
        if !self.careful && self.random.percent(30) {
            return self.path();
        }
        let parents: Vec<&Living> = self.living.iter().filter(|living| living.owner.is_none()).collect();
        let parent = self.random.pick(&parents).path.clone();
        Some(format!("{parent}/{}", self.name()))
    }

    pub fn remember(&mut self, path: &str, ephemeral: bool) {
        let Some((parent, _)) = path.rsplit_once('/') else {
            return;
        };
        let deep = path.matches('/').count() > DEEPEST;
        let known = |path: &str| self.living.iter().any(|living| living.path == path);
        if !deep && !known(path) && known(parent) {
            self.living.push(Living {
                path: path.to_owned(),
                owner: ephemeral.then_some(self.session),
            });
        }
    }

    pub fn forget(&mut self, path: &str) {
        let child = format!("{path}/");
        if path != "~" && !self.living.iter().any(|living| living.path.starts_with(&child)) {
            self.living.retain(|living| living.path != path);
        }
    }

    pub fn forget_session(&mut self) {
        let session = self.session;
        self.living.retain(|living| living.owner != Some(session));
    }

    /// A path below the run's root, or the root.
    pub fn own_path(&mut self) -> Path {
        if self.careful || self.random.percent(70) {
            return Some(self.random.pick(&self.living).path.clone());
        }
        let depth = self.random.weighted(&[(1, 0), (30, 1), (30, 2), (12, 3), (4, 4)]);
        let mut path = "~".to_owned();
        for _ in 0..depth {
            path.push('/');
            path.push_str(self.name());
        }
        Some(path)
    }

    pub fn name(&mut self) -> &'static str {
        self.random.weighted(&[
            (40, "a"),
            (30, "b"),
            (12, "c"),
            (2, "ü€"),
            (3, "s0000000000"),
            (3, "s0000000001"),
            (2, "s0000000002"),
        ])
    }

    pub fn watched_path(&mut self) -> String {
        self.own_path().unwrap_or_default()
    }

    pub fn odd_path(&mut self) -> String {
        (*self.random.pick(&[
            "",
            "~",
            "~/",
            "~/a/",
            "~//a",
            "~/.",
            "~/..",
            "~/a/../b",
            "~/./a",
            "a",
            "a/b",
            "~/a\0b",
            "~/\u{1}",
            "~/\u{7f}",
            "~/\u{9f}",
            "~/\u{a0}",
            "~/\u{d7ff}",
            "~/\u{e000}",
            "~/\u{f8ff}",
            "~/\u{f900}",
            "~/\u{ffef}",
            "~/\u{fff0}",
            "~/\u{fffd}",
            "~/😀",
            "~/…",
            "~/a b",
            "~/...",
            "~/a/.b",
            "//",
            "/../~",
        ]))
        .to_owned()
    }

    pub fn prefix(&mut self) -> Path {
        match self.random.below(6) {
            0 => Some(String::new()),
            1 => Some("/".to_owned()),
            2 => Some("   ".to_owned()),
            3 => None,
            4 => Some("~/a".to_owned()),
            _ => self.own_path(),
        }
    }

    pub fn data(&mut self) -> Data {
        match self.random.below(20) {
            0 | 1 => None,
            2 | 3 => Some(Vec::new()),
            4 if self.random.percent(10) => {
                let byte = self.random.next() as u8;
                Some(vec![byte; LARGE_DATA_BYTES + usize::from(byte)])
            }
            _ => {
                let length = self.random.below(24) as usize;
                Some((0..length).map(|_| b'a' + (self.random.below(26) as u8)).collect())
            }
        }
    }

    pub fn version(&mut self) -> Version {
        if self.careful {
            return Version::Exactly(-1);
        }
        match self.random.below(20) {
            0..=10 => Version::Exactly(-1),
            11..=12 => Version::Exactly(self.random.below(3) as i32),
            13 => Version::Exactly(*self.random.pick(&[-2, i32::MIN, i32::MAX])),
            14 => Version::Seen(1),
            _ => Version::Seen(0),
        }
    }

    /// A list of which so many in a hundred are not simply open to all.
    pub fn acl(&mut self, percent: u64) -> AccessList {
        if !self.random.percent(percent) {
            return Some(vec![access(31, "world", "anyone")]);
        }
        match self.random.below(40) {
            0 => return None,
            1 => return Some(Vec::new()),
            2 => {
                return Some(vec![Access {
                    permissions: 31,
                    scheme: None,
                    id: None,
                }]);
            }
            _ => {}
        }
        let mut list = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            list.push(self.access());
        }
        if self.random.percent(10) {
            list.push(list[0].clone());
        }
        Some(list)
    }

    pub fn access(&mut self) -> Access {
        let permissions = *self
            .random
            .pick(&[31, 31, 31, 1, 3, 7, 15, 16, 17, 29, 30, 2, 4, 8, 0, 64, -1]);
        let (scheme, id) = self.random.weighted(&[
            (8, ("world", "anyone")),
            (6, ("auth", "")),
            (1, ("auth", "ignored")),
            (5, ("digest", "ann:grDcJ7OS1jCu/cG2TyJHw/I9L8o=")),
            (5, ("digest", "bob:yqVrLFrvoaI9z9fohteaNPJvRu8=")),
            (3, ("ip", "127.0.0.1")),
            (2, ("ip", "127.0.0.0/8")),
            (2, ("ip", "10.1.2.3")),
            (1, ("ip", "0.0.0.0/0")),
            (1, ("ip", "127.0.0.1/32")),
            (1, ("ip", "127.0.0.1/33")),
            (1, ("ip", "127.0.0.1/-1")),
            (1, ("ip", "127.0.0.1/")),
            (1, ("ip", "127.0.0")),
            (1, ("ip", "::1")),
            (1, ("ip", "nowhere")),
            (1, ("digest", "no-colon")),
            (1, ("digest", "a:b:c")),
            (1, ("digest", "")),
            (1, ("world", "somebody")),
            (1, ("unknown", "x")),
            (1, ("", "")),
            (1, ("super", "")),
        ]);
        access(permissions, scheme, id)
    }

    pub fn auth(&mut self) -> Request {
        let (scheme, credentials) = self.random.weighted::<(&str, Option<&[u8]>)>(&[
            (10, ("digest", Some(b"ann:one"))),
            (10, ("digest", Some(b"bob:two"))),
            (4, ("digest", Some(b"ann:wrong"))),
            (2, ("digest", Some(b"super:secret"))),
            (1, ("digest", Some(b"super:wrong"))),
            (1, ("digest", Some(b"no-colon"))),
            (1, ("digest", Some(b""))),
            (1, ("digest", Some(b"a:b:c"))),
            (1, ("ip", Some(b"10.1.2.3"))),
        ]);
        Request::Auth {
            scheme: scheme.to_owned(),
            credentials: credentials.map(<[u8]>::to_vec),
        }
    }

    /// Lengths that no server accepts, and a frame too short for a header.
    pub fn bad_frame(&mut self) -> Vec<u8> {
        self.random
            .pick(&[
                vec![0xff, 0xff, 0xff, 0xff],
                vec![0x80, 0, 0, 0],
                vec![0x7f, 0xff, 0xff, 0xff],
                vec![0, 0, 0, 0],
                vec![0, 0, 0, 2, 1, 2],
            ])
            .clone()
    }

    /// A quota as `setquota` makes it, or its end.
    pub fn quota(&mut self) -> Vec<Request> {
        let base = (*self.random.pick(&["~", "~/a", "~/b", "~/a/a"])).to_owned();
        let limits = format!("/zookeeper/quota{base}/zookeeper_limits");
        let stats = format!("/zookeeper/quota{base}/zookeeper_stats");
        let soft = [
            "count=3,bytes=-1",
            "count=-1,bytes=40",
            "count=2,bytes=10=;byteHardLimit=-1;countHardLimit=-1",
        ];
        let hard = [
            "count=5,bytes=100=;byteHardLimit=60;countHardLimit=4",
            "count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=6",
            "count=-1,bytes=-1=;byteHardLimit=50;countHardLimit=-1",
        ];
        let texts = if self.theme == Theme::HardQuotas { hard } else { soft };
        let text = self.random.pick(&texts).as_bytes().to_vec();
        match self.random.below(10) {
            0..=3 => {
                let mut requests = Vec::new();
                let mut path = "/zookeeper/quota~".to_owned();
                requests.push(plain_create(Some(path.clone()), Vec::new()));
                for name in base.split('/').skip(1) {
                    path = format!("{path}/{name}");
                    requests.push(plain_create(Some(path.clone()), Vec::new()));
                }
                requests.push(plain_create(Some(limits), text));
                requests.push(plain_create(Some(stats), b"count=0,bytes=0".to_vec()));
                requests
            }
            4 => vec![Request::SetData {
                path: Some(limits),
                data: Some(text),
                version: Version::Exactly(-1),
            }],
            5 => vec![
                Request::Delete {
                    path: Some(limits),
                    version: Version::Exactly(-1),
                },
                Request::Delete {
                    path: Some(stats),
                    version: Version::Exactly(-1),
                },
            ],
            _ => vec![
                Request::Read {
                    opcode: opcode::GET_DATA,
                    path: Some(stats),
                    watch: self.random.percent(50),
                },
                Request::Read {
                    opcode: opcode::GET_DATA,
                    path: Some(limits),
                    watch: self.random.percent(50),
                },
            ],
        }
    }
}

/// One entry of a list.
pub fn access(permissions: i32, scheme: &str, id: &str) -> Access {
    Access {
        permissions,
        scheme: Some(scheme.to_owned()),
        id: Some(id.to_owned()),
    }
}

/// Whether everybody may do everything.
pub fn is_open(acl: &AccessList) -> bool {
    matches!(acl.as_deref(), Some([only]) if only.permissions == 31 && only.id.as_deref() == Some("anyone"))
}

/// A persistent znode that everybody may do everything with.
pub fn plain_create(path: Option<String>, data: Vec<u8>) -> Request {
    Request::Create {
        opcode: opcode::CREATE,
        path,
        data: Some(data),
        acl: Some(vec![access(31, "world", "anyone")]),
        flags: 0,
        ttl: 0,
    }
}
