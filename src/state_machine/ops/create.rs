//! create, create2, createContainer, createTTL.
//!
//! Order of checks, as in Apache's `pRequest2TxnCreate`: flags, TTL and mode, slash and NUL, ACL, parent, right to create
//! there, the whole path, existence, ephemeral parent, quota; and of our own at the end: room on the disk.

use super::{Context, acl_of, existing};
use crate::proto::request::{CreateMode, CreateRequest};
use crate::proto::{ErrorCode, OpCode, Permissions, Stat, Text};
use crate::state_machine::command::Rules;
use crate::state_machine::node::{self, Kind, Node, StoredStat};
use crate::state_machine::{Change, State, Value, acl, path};
use bytes::Bytes;

pub(super) fn apply(
    state: &mut State,
    context: Context<'_>,
    op: OpCode,
    request: &CreateRequest,
    changes: &mut Vec<Change>,
) -> Result<(Text, Stat), ErrorCode> {
    let mode = CreateMode::from_flags(request.flags).ok_or(ErrorCode::BadArguments)?;
    let owner = owner(context, op, mode, request.ttl_ms)?;
    let parent_path = path::parent(request.path.bytes())?;
    let rules = context.stamp.rules;
    let acl = acl::fix_up(request.acl.as_deref(), context.caller, rules)?;

    let parent = existing(state, parent_path)?;
    let above = state.tree.node(parent);
    let parent_acl = acl_of(state, above).clone();
    context.authorise(&parent_acl, Permissions::CREATE)?;
    let path = full_path(&request.path, mode, above.stat.creates);
    path::validate(path.bytes())?;
    let name = path::name(path.bytes());
    // The root is the only path whose name is empty; it exists.
    if name.is_empty() || state.tree.child(parent, name).is_some() {
        return Err(ErrorCode::NodeExists);
    }
    if above.kind() == Kind::Ephemeral {
        return Err(ErrorCode::NoChildrenForEphemerals);
    }
    let bytes = request.data.as_ref().map_or(0, Bytes::len) as i64;
    if rules.has(Rules::ENFORCE_QUOTA) {
        state.check_quota(path.bytes(), 1, bytes)?;
    }
    context.allow_growth((name.len() as i64 + bytes).max(1))?;

    let stat = StoredStat {
        czxid: context.zxid,
        mzxid: context.zxid,
        pzxid: context.zxid,
        ctime: context.stamp.time_ms,
        mtime: context.stamp.time_ms,
        owner,
        acl: state.acquire_acl(&acl),
        ..StoredStat::default()
    };
    let data = request.data.as_deref().map(Value::from);
    let is_ephemeral = mode.is_ephemeral() && op != OpCode::CreateContainer;
    let id = state.add(parent, path.bytes(), Node::new(name, stat, data, is_ephemeral));
    state.edit_stat(parent, |stat| {
        stat.creates = stat.creates.wrapping_add(1);
        stat.pzxid = context.zxid;
    });
    // What the server fills in itself is not shown yet.
    let shown = state.tree.node(id).visible_stat();
    state.measure_usage(id, path.bytes());
    state.count_usage(path.bytes(), 1, bytes);
    changes.push(Change::Created {
        path: path.clone(),
        acl: state.acls.get(stat.acl).clone(),
        parent_acl,
    });
    Ok((path, shown))
}

/// What is stored as the znode's owner. The op code decides what a container is, whatever the flags say, as in Apache.
fn owner(context: Context<'_>, op: OpCode, mode: CreateMode, ttl_ms: Option<i64>) -> Result<i64, ErrorCode> {
    if mode.is_ttl() && !context.stamp.rules.has(Rules::EXTENDED_TYPES) {
        return Err(ErrorCode::Unimplemented);
    }
    match ttl_ms {
        Some(ttl_ms) if mode.is_ttl() && (1..=node::TTL_MOST_MS).contains(&ttl_ms) => {
            return Ok(Kind::ttl_owner(ttl_ms));
        }
        None if !mode.is_ttl() => {}
        _ => return Err(ErrorCode::BadArguments),
    }
    Ok(match op {
        OpCode::CreateContainer => node::CONTAINER_OWNER,
        _ if mode.is_ephemeral() => context.session.0,
        _ => 0,
    })
}

/// The path that was asked for, and its number if it is sequential: how many children the parent has ever had.
fn full_path(wanted: &Text, mode: CreateMode, creates: i32) -> Text {
    if mode.is_sequential() {
        Text::from(format!("{}{creates:010}", wanted.as_str()))
    } else {
        wanted.clone()
    }
}
