//! reconfig: another membership is wanted. And the leader's own command that writes the first one.
//!
//! The state holds the membership that is *wanted*, as the data of `/zookeeper/config`. The leader then drives raft's
//! configuration towards it, one change at a time, and lets servers vote only when they have caught up; so that what is
//! wanted may be a while ahead of what is.
//!
//! Order of checks, as in ZooKeeper: enabled, part of an ensemble, version, arguments, quorum of the new configuration,
//! right to write. What only a leader can know comes with the command ([`LeaderKnowledge`]).
//!
//! ReconfigInProgress is never given: ZooKeeper's is for a membership that is proposed and not in force, and here one is in
//! force as soon as it is applied. How far raft has come with it is no reason to refuse the next one; a server that never
//! comes would stand in the way of its own removal.
//!
//! Differences: ZooKeeper demands that a majority of the new participants has *caught up*, because they vote at once. Ours
//! vote when they have, so that being in contact is enough. And setData on `/zookeeper/config` is refused in an ensemble
//! (`set_data`), where ZooKeeper lets the text say what is not true.

use super::{Context, acl_of, existing};
use crate::membership::{Allowed, ChangeError, Members};
use crate::proto::request::ReconfigRequest;
use crate::proto::{ErrorCode, Permissions, Stat, Zxid};
use crate::state_machine::command::{Command, LeaderKnowledge, MembershipBody, Rules, Stamp};
use crate::state_machine::{Change, State, Value, path, quota};
use bytes::Bytes;

/// The version of the znode, which every reconfig writes anew: so that data that a setData wrote is never taken for a
/// membership.
pub(crate) const CONFIG_VERSION: i32 = -1;

pub(super) fn apply(
    state: &mut State,
    context: Context<'_>,
    request: &ReconfigRequest,
    knowledge: Option<&LeaderKnowledge>,
    changes: &mut Vec<Change>,
) -> Result<(Bytes, Stat), ErrorCode> {
    let rules = context.stamp.rules;
    if !rules.has(Rules::RECONFIG) {
        return Err(ErrorCode::ReconfigDisabled);
    }
    let current = match state.membership() {
        Some(current) if !rules.has(Rules::STANDALONE) => current,
        _ => return Err(ErrorCode::Unimplemented),
    };
    let expected = request.config_version;
    if expected != -1 && expected.cast_unsigned() != current.version {
        return Err(ErrorCode::BadVersion);
    }
    let may_write = || {
        let node = state.tree.node(existing(state, path::CONFIG)?);
        context.authorise(acl_of(state, node), Permissions::WRITE)
    };
    let mut next = match wanted(current, request, rules) {
        Ok(next) => next,
        Err(ChangeError::Malformed(_)) => return Err(ErrorCode::MarshallingError),
        Err(ChangeError::Refused(_)) => return Err(ErrorCode::BadArguments),
        Err(ChangeError::NoNumber(_)) => {
            may_write()?;
            return Err(ErrorCode::BadArguments);
        }
    };
    let has_quorum = |knowledge: &LeaderKnowledge| next.have_majority(|server| knowledge.is_in_contact(server));
    if !knowledge.is_none_or(has_quorum) {
        return Err(ErrorCode::NewConfigNoQuorum);
    }
    may_write()?;

    next.version = current.next_version(context.zxid.0.cast_unsigned());
    let stat = write(state, context.zxid, context.stamp, next, changes)?;
    let text = state.tree.node(existing(state, path::CONFIG)?).data.bytes();
    Ok((Bytes::copy_from_slice(text.unwrap_or_default()), stat))
}

fn wanted(current: &Members, request: &ReconfigRequest, rules: Rules) -> Result<Members, ChangeError> {
    let allowed = Allowed {
        several_addresses: rules.has(Rules::MULTI_ADDRESS),
        lone_server_stands_alone: rules.has(Rules::STANDALONE_ENABLED),
    };
    match &request.members {
        Some(members) => current.replaced(members, allowed),
        None => current.changed(request.joining.as_deref(), request.leaving.as_deref(), allowed),
    }
}

/// setMembership, the leader's own: the first membership of an ensemble, or one that its configuration put in the place of
/// another.
pub(super) fn set(
    state: &mut State,
    stamp: &Stamp,
    command: &Command,
    changes: &mut Vec<Change>,
) -> Result<(), ErrorCode> {
    let body = MembershipBody::decode(&command.body).map_err(|_| ErrorCode::MarshallingError)?;
    if body.replaces != state.membership().map(|current| current.version) {
        return Err(ErrorCode::BadVersion);
    }
    let mut members = body.members;
    if members.version == 0 {
        // As ZooKeeper's first leader does: what was agreed on outranks what a configuration file says.
        members.version = state.zxid.0.cast_unsigned();
    }
    write(state, state.zxid, stamp, members, changes).map(drop)
}

fn write(
    state: &mut State,
    zxid: Zxid,
    stamp: &Stamp,
    members: Members,
    changes: &mut Vec<Change>,
) -> Result<Stat, ErrorCode> {
    let id = existing(state, path::CONFIG)?;
    let node = state.tree.node(id);
    let text = Value::from(members.to_string().as_bytes());
    let more_bytes = text.len() as i64 - quota::data_bytes(node);
    changes.push(Change::DataChanged {
        path: path::CONFIG_TEXT,
        acl: acl_of(state, node).clone(),
    });
    state.replace_data(id, path::CONFIG, Some(text), |stat| {
        stat.version = CONFIG_VERSION;
        stat.mzxid = zxid;
        stat.mtime = stamp.time_ms;
    });
    state.count_usage(path::CONFIG, 0, more_bytes);
    state.membership = Some(members);
    Ok(state.tree.node(id).visible_stat())
}
