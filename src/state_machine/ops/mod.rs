//! The writes: one file for each. A file says what is checked, in which order, and what changes.
//!
//! Every check comes before every edit, so that an operation that fails has edited nothing; only a multi, whose later
//! operations see the earlier ones, has something to take back.

mod check;
mod container;
mod create;
mod delete;
mod multi;
pub(super) mod reconfig;
mod session;
mod set_acl;
mod set_data;

use super::acl::AclRef;
use super::command::{Command, LeaderKnowledge, Rules, Stamp};
use super::node::{Node, NodeId};
use super::{Change, State};
use crate::proto::request::Write;
use crate::proto::{Decoder, ErrorCode, Identity, OpCode, Permissions, Reply, SessionId, Text, Zxid};

/// What an operation knows besides its body.
#[derive(Clone, Copy)]
struct Context<'a> {
    zxid: Zxid,
    stamp: &'a Stamp,
    session: SessionId,
    caller: &'a [Identity],
}

impl Context<'_> {
    /// Whether the caller has any of the `wanted` rights.
    fn authorise(&self, acl: &AclRef, wanted: Permissions) -> Result<(), ErrorCode> {
        if acl.permits(wanted, self.caller) || self.stamp.rules.has(Rules::SKIP_ACL) {
            Ok(())
        } else {
            Err(ErrorCode::NoAuth)
        }
    }

    /// Refuses what makes the state larger while the leader's disk is short of space.
    fn allow_growth(&self, more_bytes: i64) -> Result<(), ErrorCode> {
        if more_bytes > 0 && self.stamp.rules.has(Rules::NO_GROWTH) {
            return Err(ErrorCode::SystemError);
        }
        Ok(())
    }
}

/// Does what a command says.
pub(super) fn apply(
    state: &mut State,
    stamp: &Stamp,
    command: &Command,
    changes: &mut Vec<Change>,
) -> Result<Reply, ErrorCode> {
    match command.op {
        OpCode::CreateSession => return session::open(state, command, changes),
        OpCode::AttachSession => return session::attach(state, command, changes),
        // From a client it is unknown: Apache takes it, and asks for no right to delete.
        OpCode::DeleteContainer if command.origin.is_internal() => {
            return container::apply(state, stamp, command, changes);
        }
        OpCode::SetMembership if command.origin.is_internal() => {
            return reconfig::set(state, stamp, command, changes).map(|()| Reply::Empty);
        }
        _ => {}
    }
    state.sessions.check(command)?;
    if command.op == OpCode::CloseSession {
        return Ok(session::close(state, command.session, changes));
    }
    let context = Context {
        zxid: state.zxid,
        stamp,
        session: command.session,
        caller: &command.identities,
    };
    let mut decoder = Decoder::new(&command.body);
    let write = Write::decode(command.op, &mut decoder).ok_or(ErrorCode::Unimplemented)?;
    let write = write.map_err(|_| ErrorCode::MarshallingError)?;
    match write {
        Write::Create(op, request) => {
            let (path, stat) = create::apply(state, context, op, &request, changes)?;
            Ok(if op == OpCode::Create {
                Reply::Path(path)
            } else {
                Reply::PathStat(path, stat)
            })
        }
        Write::Delete(request) => delete::apply(state, context, &request, changes).map(|()| Reply::Empty),
        Write::SetData(request) => set_data::apply(state, context, &request, changes).map(Reply::Stat),
        Write::SetAcl(request) => set_acl::apply(state, context, &request).map(Reply::Stat),
        Write::Multi(request) => Ok(Reply::Multi(multi::apply(state, context, &request, changes))),
        Write::Reconfig(request) => {
            let knowledge = LeaderKnowledge::decode(&mut decoder);
            let config = reconfig::apply(state, context, &request, knowledge.as_ref(), changes)?;
            Ok(Reply::DataStat(config.0, config.1))
        }
        // Alone it says nothing; the server closes the connection of a client that sends it.
        Write::Check(_) => Err(ErrorCode::Unimplemented),
    }
}

/// The znode at `path`.
fn existing(state: &State, path: &[u8]) -> Result<NodeId, ErrorCode> {
    state.tree.find(path).ok_or(ErrorCode::NoNode)
}

/// The rights of a znode.
fn acl_of<'a>(state: &'a State, node: &Node) -> &'a AclRef {
    state.acls.get(node.stat.acl)
}

/// Whether `current` is the `expected` version; -1 expects any.
fn check_version(current: i32, expected: i32) -> Result<(), ErrorCode> {
    if expected == -1 || expected == current {
        Ok(())
    } else {
        Err(ErrorCode::BadVersion)
    }
}

/// Removes a znode without children, in the name of the command at `zxid`.
fn remove(state: &mut State, zxid: Zxid, id: NodeId, path: Text, changes: &mut Vec<Change>) {
    let node = state.tree.node(id);
    let (parent, bytes) = (node.parent, super::quota::data_bytes(node));
    changes.push(Change::Deleted {
        acl: acl_of(state, node).clone(),
        parent_acl: acl_of(state, state.tree.node(parent)).clone(),
        path: path.clone(),
    });
    state.remove(id, path.bytes());
    state.edit_stat(parent, |stat| stat.pzxid = zxid);
    state.count_usage(path.bytes(), -1, -bytes);
}
