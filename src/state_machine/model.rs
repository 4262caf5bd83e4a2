//! What the state machine should do, written as plainly as possible: a map of paths, everything looked up and counted
//! anew each time, a multi tried on a copy. Slow and obviously right, so that the other can be compared with it.

use super::command::{Origin, Rules};
use super::{Applied, quota};
use crate::membership::{Allowed, ChangeError, Members};
use crate::proto::reply::MultiResult;
use crate::proto::request::{CreateMode, CreateRequest, ReconfigRequest, Write};
use crate::proto::{Acl, ErrorCode, Identity, OpCode, Permissions, Reply, SessionId, Stat, Zxid};
use bytes::Bytes;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    Persistent,
    Ephemeral(SessionId),
    Container,
    Ttl(i64),
}

#[derive(Clone, Debug)]
pub(super) struct ModelNode {
    pub(super) data: Option<Vec<u8>>,
    pub(super) acl: Vec<Acl>,
    pub(super) fate: Fate,
    stat: Stat,
    pub(super) creates: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModelSession {
    pub(super) timeout_ms: i32,
    pub(super) password: u8,
    pub(super) owner: Origin,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) zxid: i64,
    pub(super) now_ms: i64,
    pub(super) rules: Rules,
    /// `/` and what is below it.
    pub(super) nodes: BTreeMap<String, ModelNode>,
    pub(super) sessions: BTreeMap<SessionId, ModelSession>,
    /// What the last reconfig or setMembership wrote.
    pub(super) members: Option<Members>,
    /// What happened, as `tests::told` tells it.
    pub(super) told: Vec<String>,
}

type Outcome<T> = Result<T, ErrorCode>;

impl Model {
    pub(super) fn new(rules: Rules) -> Model {
        let mut model = Model {
            zxid: 0,
            now_ms: 0,
            rules,
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            members: None,
            told: Vec::new(),
        };
        for path in ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"] {
            let node = ModelNode {
                data: Some(Vec::new()),
                acl: vec![Acl::open()],
                fate: Fate::Persistent,
                stat: Stat::default(),
                creates: 0,
            };
            model.nodes.insert(path.to_owned(), node);
        }
        let config = model.nodes.get_mut("/zookeeper/config").unwrap();
        config.stat.aversion = -1;
        config.acl[0].permissions = Permissions::READ;
        model
    }

    /// Begins a command.
    pub(super) fn begin(&mut self, now_ms: i64) {
        self.zxid += 1;
        self.now_ms = now_ms;
        self.told.clear();
    }

    pub(super) fn applied(&self, result: Outcome<Reply>) -> Applied {
        Applied {
            zxid: Zxid(self.zxid),
            result,
        }
    }

    pub(super) fn open(&mut self, id: SessionId, session: ModelSession) -> Outcome<Reply> {
        if self.sessions.contains_key(&id) {
            return Err(ErrorCode::SystemError);
        }
        self.sessions.insert(id, session);
        self.told.push(format!("opened {id}"));
        Ok(Reply::Empty)
    }

    pub(super) fn attach(&mut self, id: SessionId, wanted: ModelSession) -> Outcome<Reply> {
        let session = self
            .sessions
            .get_mut(&id)
            .filter(|session| session.password == wanted.password);
        *session.ok_or(ErrorCode::SessionExpired)? = wanted;
        self.told.push(format!("attached {id}"));
        Ok(Reply::Empty)
    }

    pub(super) fn check_session(&self, id: SessionId, origin: Origin) -> Outcome<()> {
        let session = self.sessions.get(&id).ok_or(ErrorCode::SessionExpired)?;
        if session.owner == origin || origin.is_internal() {
            Ok(())
        } else {
            Err(ErrorCode::SessionMoved)
        }
    }

    pub(super) fn close(&mut self, id: SessionId, origin: Origin) -> Outcome<Reply> {
        self.check_session(id, origin)?;
        for path in self.ephemerals(id) {
            self.remove(&path);
        }
        self.sessions.remove(&id);
        self.told.push(format!("closed {id}"));
        Ok(Reply::Empty)
    }

    pub(super) fn ephemerals(&self, id: SessionId) -> Vec<String> {
        let mut paths: Vec<String> = self.nodes.keys().cloned().collect();
        paths.retain(|path| self.nodes[path].fate == Fate::Ephemeral(id));
        paths
    }

    /// deleteContainer.
    pub(super) fn sweep(&mut self, path: &str) -> Outcome<Reply> {
        let (key, node) = self.find(path)?;
        if self.children(&key).next().is_some() {
            return Err(ErrorCode::NotEmpty);
        }
        match node.fate {
            Fate::Container => {}
            Fate::Ttl(ttl_ms) if self.now_ms - node.stat.mtime > ttl_ms => {}
            Fate::Ttl(_) => return Err(ErrorCode::BadVersion),
            _ => return Err(ErrorCode::BadArguments),
        }
        self.remove(&key);
        Ok(Reply::Empty)
    }

    pub(super) fn removable(&self, now_ms: i64, max_never_used_ms: i64) -> Vec<String> {
        let is_due = |(path, node): &(&String, &ModelNode)| {
            let age_ms = now_ms - node.stat.mtime;
            self.children(path).next().is_none()
                && match node.fate {
                    Fate::Container => node.creates > 0 || (max_never_used_ms > 0 && age_ms > max_never_used_ms),
                    Fate::Ttl(ttl_ms) => age_ms > ttl_ms,
                    _ => false,
                }
        };
        self.nodes.iter().filter(is_due).map(|(path, _)| path.clone()).collect()
    }

    pub(super) fn write(&mut self, session: SessionId, caller: &[Identity], write: &Write) -> Outcome<Reply> {
        match write {
            Write::Multi(request) => {
                let before = self.clone();
                let mut results = Vec::new();
                for operation in &request.operations {
                    match self.single(session, caller, operation) {
                        Ok(result) => results.push(result),
                        Err(code) => {
                            *self = before;
                            let failed = results.len();
                            results.fill(MultiResult::Failed(None));
                            results.push(MultiResult::Failed(Some(code)));
                            let rest = MultiResult::Failed(Some(ErrorCode::RuntimeInconsistency));
                            results.resize(request.operations.len().max(failed), rest);
                            break;
                        }
                    }
                }
                Ok(Reply::Multi(results))
            }
            Write::SetAcl(request) => {
                check_path(&request.path)?;
                let acl = self.fix_up(caller, request.acl.as_deref())?;
                let (key, node) = self.find(&request.path)?;
                self.allow(&node.acl, Permissions::ADMIN, caller)?;
                check_version(request.version, node.stat.aversion)?;
                let size = |acl: &[Acl]| -> usize {
                    let sizes = acl
                        .iter()
                        .map(|Acl { identity, .. }| identity.scheme.len() + identity.id.len() + 1);
                    sizes.sum()
                };
                self.may_grow(size(&acl) > size(&node.acl))?;
                let node = self.nodes.get_mut(&key).unwrap();
                node.acl = acl;
                node.stat.aversion += 1;
                Ok(Reply::Stat(self.stat(&key).unwrap()))
            }
            Write::Check(_) => Err(ErrorCode::Unimplemented),
            Write::Reconfig(request) => self.reconfig(caller, request),
            single => Ok(match self.single(session, caller, single)? {
                MultiResult::Create(path) => Reply::Path(path),
                MultiResult::Create2(path, stat) => Reply::PathStat(path, stat),
                MultiResult::SetData(stat) => Reply::Stat(stat),
                _ => Reply::Empty,
            }),
        }
    }

    fn reconfig(&mut self, caller: &[Identity], request: &ReconfigRequest) -> Outcome<Reply> {
        if !self.rules.has(Rules::RECONFIG) {
            return Err(ErrorCode::ReconfigDisabled);
        }
        let current = self.members.clone().ok_or(ErrorCode::Unimplemented)?;
        if ![-1, current.version.cast_signed()].contains(&request.config_version) {
            return Err(ErrorCode::BadVersion);
        }
        let allowed = Allowed {
            lone_server_stands_alone: true,
            ..Allowed::default()
        };
        let next = match &request.members {
            Some(members) => current.replaced(members, allowed),
            None => current.changed(request.joining.as_deref(), request.leaving.as_deref(), allowed),
        };
        let allowed = self.allow(&self.nodes["/zookeeper/config"].acl, Permissions::WRITE, caller);
        let mut next = next.map_err(|error| match error {
            ChangeError::Malformed(_) => ErrorCode::MarshallingError,
            ChangeError::Refused(_) => ErrorCode::BadArguments,
            ChangeError::NoNumber(_) => allowed.err().unwrap_or(ErrorCode::BadArguments),
        })?;
        allowed?;
        next.version = self.zxid.cast_unsigned().max(current.version + 1);
        let text = Bytes::from(next.to_string());
        self.set_members(next);
        Ok(Reply::DataStat(text, self.stat("/zookeeper/config").unwrap()))
    }

    /// setMembership.
    pub(super) fn found(&mut self, replaces: Option<u64>, mut members: Members) -> Outcome<Reply> {
        if replaces != self.members.as_ref().map(|members| members.version) {
            return Err(ErrorCode::BadVersion);
        }
        if members.version == 0 {
            members.version = self.zxid.cast_unsigned();
        }
        self.set_members(members);
        Ok(Reply::Empty)
    }

    fn set_members(&mut self, members: Members) {
        let config = self.nodes.get_mut("/zookeeper/config").unwrap();
        config.data = Some(members.to_string().into_bytes());
        config.stat.version = -1;
        config.stat.mzxid = Zxid(self.zxid);
        config.stat.mtime = self.now_ms;
        self.members = Some(members);
        self.told.push("changed /zookeeper/config".to_owned());
    }

    fn single(&mut self, session: SessionId, caller: &[Identity], write: &Write) -> Outcome<MultiResult> {
        match write {
            Write::Create(op, request) => {
                let (path, stat) = self.create(session, caller, *op, request)?;
                let path = path.as_str().into();
                Ok(if *op == OpCode::Create {
                    MultiResult::Create(path)
                } else {
                    MultiResult::Create2(path, stat)
                })
            }
            Write::Delete(request) => {
                let path = request.path.as_str();
                let slash = path.rfind('/').ok_or(ErrorCode::BadArguments)?;
                let always = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];
                if path.contains('\0') || always.contains(&path) {
                    return Err(ErrorCode::BadArguments);
                }
                let parent = self.find(&path[..slash])?.1;
                self.allow(&parent.acl, Permissions::DELETE, caller)?;
                let (key, node) = self.find(path)?;
                check_version(request.version, node.stat.version)?;
                if self.children(&key).next().is_some() {
                    return Err(ErrorCode::NotEmpty);
                }
                self.remove(&key);
                Ok(MultiResult::Delete)
            }
            Write::SetData(request) => {
                check_path(&request.path)?;
                let (key, node) = self.find(&request.path)?;
                self.allow(&node.acl, Permissions::WRITE, caller)?;
                if key == "/zookeeper/config" && self.members.is_some() {
                    return Err(ErrorCode::BadArguments);
                }
                let more_bytes = length(request.data.as_deref()) - length(node.data.as_deref());
                self.check_quota(&key, 0, more_bytes)?;
                check_version(request.version, node.stat.version)?;
                self.may_grow(more_bytes > 0)?;
                let (zxid, now_ms) = (Zxid(self.zxid), self.now_ms);
                let node = self.nodes.get_mut(&key).unwrap();
                node.data = request.data.as_ref().map(|data| data.to_vec());
                node.stat.version += 1;
                node.stat.mzxid = zxid;
                node.stat.mtime = now_ms;
                self.use_quota(&key, 0, more_bytes);
                self.told.push(format!("changed {key}"));
                Ok(MultiResult::SetData(self.stat(&key).unwrap()))
            }
            Write::Check(request) => {
                check_path(&request.path)?;
                let (_, node) = self.find(&request.path)?;
                self.allow(&node.acl, Permissions::READ, caller)?;
                check_version(request.version, node.stat.version)?;
                Ok(MultiResult::Check)
            }
            other => panic!("{other:?} is no single operation"),
        }
    }

    fn create(
        &mut self,
        session: SessionId,
        caller: &[Identity],
        op: OpCode,
        wanted: &CreateRequest,
    ) -> Outcome<(String, Stat)> {
        let mode = CreateMode::from_flags(wanted.flags).ok_or(ErrorCode::BadArguments)?;
        if mode.is_ttl() && !self.rules.has(Rules::EXTENDED_TYPES) {
            return Err(ErrorCode::Unimplemented);
        }
        let ttl_is_right = wanted
            .ttl_ms
            .is_some_and(|ttl_ms| ttl_ms > 0 && ttl_ms <= 0xff_ffff_ffff);
        if mode.is_ttl() != ttl_is_right || (op == OpCode::CreateTtl) != mode.is_ttl() {
            return Err(ErrorCode::BadArguments);
        }
        let mut path = wanted.path.as_str().to_owned();
        let slash = path.rfind('/').ok_or(ErrorCode::BadArguments)?;
        if path.contains('\0') {
            return Err(ErrorCode::BadArguments);
        }
        let acl = self.fix_up(caller, wanted.acl.as_deref())?;
        let (parent_key, parent) = self.find(&path[..slash])?;
        self.allow(&parent.acl, Permissions::CREATE, caller)?;
        if mode.is_sequential() {
            path += &format!("{:010}", parent.creates);
        }
        check_path(&path)?;
        if self.nodes.contains_key(&path) {
            return Err(ErrorCode::NodeExists);
        }
        if matches!(parent.fate, Fate::Ephemeral(_)) {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        let bytes = length(wanted.data.as_deref());
        self.check_quota(&path, 1, bytes)?;
        self.may_grow(true)?;

        let fate = match mode {
            _ if op == OpCode::CreateContainer => Fate::Container,
            _ if mode.is_ttl() => Fate::Ttl(wanted.ttl_ms.unwrap()),
            _ if mode.is_ephemeral() => Fate::Ephemeral(session),
            _ => Fate::Persistent,
        };
        let zxid = Zxid(self.zxid);
        let stat = Stat {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: self.now_ms,
            mtime: self.now_ms,
            ..Stat::default()
        };
        let node = ModelNode {
            data: wanted.data.as_ref().map(|data| data.to_vec()),
            acl,
            fate,
            stat,
            creates: 0,
        };
        self.nodes.insert(path.clone(), node);
        // What the server fills in itself is not shown yet.
        let shown = self.stat(&path).unwrap();
        let parent = self.nodes.get_mut(&parent_key).unwrap();
        parent.creates += 1;
        parent.stat.pzxid = zxid;
        if let Some(counted) = path
            .strip_prefix("/zookeeper/quota")
            .and_then(|rest| rest.strip_suffix("/zookeeper_stats"))
        {
            let below = format!("{counted}/");
            let counts = |key: &str| key == counted || key.starts_with(&below) || counted.is_empty();
            let found: Vec<&ModelNode> = self
                .nodes
                .iter()
                .filter(|(key, _)| counts(key))
                .map(|(_, node)| node)
                .collect();
            let bytes: i64 = found.iter().map(|node| length(node.data.as_deref())).sum();
            let text = format!("count={},bytes={bytes}", found.len());
            self.nodes.get_mut(&path).unwrap().data = Some(text.into_bytes());
        }
        self.use_quota(&path, 1, bytes);
        self.told.push(format!("created {path}"));
        Ok((path, shown))
    }

    fn remove(&mut self, key: &str) {
        let node = self.nodes.remove(key).unwrap();
        let parent = match &key[..key.rfind('/').unwrap()] {
            "" => "/",
            parent => parent,
        };
        self.nodes.get_mut(parent).unwrap().stat.pzxid = Zxid(self.zxid);
        self.use_quota(key, -1, -length(node.data.as_deref()));
        self.told.push(format!("deleted {key}"));
    }

    /// The longest prefix of `path` that has limits.
    fn quota_of(&self, path: &str) -> Option<String> {
        let limits = |prefix: &str| format!("/zookeeper/quota{prefix}/zookeeper_limits");
        let ends = path
            .char_indices()
            .filter(|(at, character)| *at > 0 && *character == '/')
            .map(|(at, _)| at);
        let mut prefixes: Vec<&str> = ends.map(|at| &path[..at]).collect();
        prefixes.push(path);
        prefixes.retain(|prefix| *prefix != "/" && self.nodes.contains_key(&limits(prefix)));
        prefixes.last().map(|prefix| (*prefix).to_owned())
    }

    fn numbers(&self, path: &str) -> Option<BTreeMap<String, i64>> {
        let data = self.nodes.get(path)?.data.clone().unwrap_or_default();
        let text = String::from_utf8(data).unwrap();
        let pair = |pair: &str| {
            let (name, value) = pair.trim_end_matches('=').split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Some(text.split([',', ';']).filter_map(pair).collect())
    }

    fn may_grow(&self, grows: bool) -> Outcome<()> {
        if grows && self.rules.has(Rules::NO_GROWTH) {
            return Err(ErrorCode::SystemError);
        }
        Ok(())
    }

    fn check_quota(&self, path: &str, more_znodes: i64, more_bytes: i64) -> Outcome<()> {
        let Some(prefix) = self.quota_of(path).filter(|_| self.rules.has(Rules::ENFORCE_QUOTA)) else {
            return Ok(());
        };
        let limits = self.numbers(&format!("/zookeeper/quota{prefix}/zookeeper_limits"));
        let stats = self.numbers(&format!("/zookeeper/quota{prefix}/zookeeper_stats"));
        let (Some(limits), Some(stats)) = (limits, stats) else {
            return Ok(());
        };
        for (used, limit, more) in [
            ("count", "countHardLimit", more_znodes),
            ("bytes", "byteHardLimit", more_bytes),
        ] {
            let limit = limits.get(limit).copied().unwrap_or(-1);
            if more != 0 && limit > -1 && stats.get(used).copied().unwrap_or(-1) + more > limit {
                return Err(ErrorCode::QuotaExceeded);
            }
        }
        Ok(())
    }

    fn use_quota(&mut self, path: &str, more_znodes: i64, more_bytes: i64) {
        let Some(prefix) = self.quota_of(path) else { return };
        let stats = format!("/zookeeper/quota{prefix}/zookeeper_stats");
        let Some(mut numbers) = self.numbers(&stats) else {
            return;
        };
        *numbers.entry("count".to_owned()).or_insert(-1) += more_znodes;
        *numbers.entry("bytes".to_owned()).or_insert(-1) += more_bytes;
        let text = numbers
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(",");
        // The text's form is tested with the type that writes it.
        let text = quota::Numbers::parse(Some(text.as_bytes())).to_string();
        self.nodes.get_mut(&stats).unwrap().data = Some(text.into_bytes());
    }

    fn find(&self, path: &str) -> Outcome<(String, ModelNode)> {
        let key = if path.is_empty() { "/" } else { path };
        let node = self.nodes.get(key).ok_or(ErrorCode::NoNode)?;
        Ok((key.to_owned(), node.clone()))
    }

    pub(super) fn children<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let prefix = if key == "/" { String::new() } else { key.to_owned() } + "/";
        self.nodes.keys().filter_map(move |path| {
            let name = path.strip_prefix(&prefix)?;
            (!name.is_empty() && !name.contains('/')).then_some(name)
        })
    }

    pub(super) fn stat(&self, key: &str) -> Option<Stat> {
        let node = self.nodes.get(key)?;
        let num_children = i32::try_from(self.children(key).count()).unwrap();
        Some(Stat {
            cversion: 2 * node.creates - num_children,
            ephemeral_owner: match node.fate {
                Fate::Ephemeral(session) => session,
                _ => SessionId(0),
            },
            data_length: i32::try_from(length(node.data.as_deref())).unwrap(),
            num_children,
            ..node.stat
        })
    }

    /// Apache's digest, from scratch.
    pub(super) fn digest(&self) -> u64 {
        let of = |(path, node): (&String, &ModelNode)| {
            if path.starts_with("/zookeeper/") {
                return 0;
            }
            let mut bytes = if path == "/" {
                Vec::new()
            } else {
                path.clone().into_bytes()
            };
            bytes.extend(node.data.clone().unwrap_or_default());
            let stat = node.stat;
            for long in [stat.czxid.0, stat.mzxid.0, stat.pzxid.0, stat.ctime, stat.mtime] {
                bytes.extend(long.to_be_bytes());
            }
            for int in [stat.version, node.creates, stat.aversion] {
                bytes.extend(int.to_be_bytes());
            }
            let owner = match node.fate {
                Fate::Persistent => 0,
                Fate::Ephemeral(session) => session.0,
                Fate::Container => i64::MIN,
                Fate::Ttl(ttl_ms) => ttl_ms | 0xff00_0000_0000_0000_u64.cast_signed(),
            };
            bytes.extend(owner.to_be_bytes());
            u64::from(crc32fast::hash(&bytes))
        };
        self.nodes.iter().map(of).fold(0, u64::wrapping_add)
    }

    fn allow(&self, acl: &[Acl], wanted: Permissions, caller: &[Identity]) -> Outcome<()> {
        let is_super = caller.iter().any(|identity| identity.scheme.as_str() == "super");
        let allows = |entry: &Acl| {
            entry.permissions.intersects(wanted)
                && (entry.identity == Identity::anyone() || caller.contains(&entry.identity))
        };
        if self.rules.has(Rules::SKIP_ACL) || is_super || acl.iter().any(allows) {
            Ok(())
        } else {
            Err(ErrorCode::NoAuth)
        }
    }

    fn fix_up(&self, caller: &[Identity], wanted: Option<&[Acl]>) -> Outcome<Vec<Acl>> {
        let mut seen = Vec::new();
        let mut fixed = Vec::new();
        for entry in wanted.unwrap_or_default() {
            if seen.contains(&entry) {
                continue;
            }
            seen.push(entry);
            match entry.identity.scheme.as_str() {
                "auth" => {
                    let before = fixed.len();
                    for identity in caller.iter().filter(|identity| identity.scheme.as_str() == "digest") {
                        fixed.push(Acl {
                            permissions: entry.permissions,
                            identity: identity.clone(),
                        });
                    }
                    if fixed.len() == before {
                        return Err(ErrorCode::InvalidAcl);
                    }
                }
                "world" | "digest" | "ip" => fixed.push(entry.clone()),
                _ => return Err(ErrorCode::InvalidAcl),
            }
        }
        if fixed.is_empty() {
            Err(ErrorCode::InvalidAcl)
        } else {
            Ok(fixed)
        }
    }
}

fn length(data: Option<&[u8]>) -> i64 {
    data.map_or(0, |data| i64::try_from(data.len()).unwrap())
}

fn check_version(expected: i32, current: i32) -> Outcome<()> {
    if [-1, current].contains(&expected) {
        Ok(())
    } else {
        Err(ErrorCode::BadVersion)
    }
}

fn check_path(path: &str) -> Outcome<()> {
    let is_valid = path == "/"
        || path.starts_with('/')
            && !path.ends_with('/')
            && !path.contains('\0')
            && path[1..].split('/').all(|name| !["", ".", ".."].contains(&name));
    if is_valid { Ok(()) } else { Err(ErrorCode::BadArguments) }
}
