//! setACL. Order of checks: path, the list, existence, right to administer, version, room.

use super::{Context, acl_of, check_version, existing};
use crate::proto::request::SetAclRequest;
use crate::proto::{Acl, ErrorCode, Permissions, Stat};
use crate::state_machine::{State, acl, path};

pub(super) fn apply(state: &mut State, context: Context<'_>, request: &SetAclRequest) -> Result<Stat, ErrorCode> {
    let path = request.path.bytes();
    path::validate(path)?;
    let list = acl::fix_up(request.acl.as_deref(), context.caller, context.stamp.rules)?;
    let id = existing(state, path)?;
    let node = state.tree.node(id);
    context.authorise(acl_of(state, node), Permissions::ADMIN)?;
    check_version(node.stat.aversion, request.version)?;
    context.allow_growth(list_bytes(&list) - list_bytes(acl_of(state, node).entries()))?;

    let before = node.stat.acl;
    let after = state.acquire_acl(&list);
    state.edit_stat(id, |stat| {
        stat.aversion = stat.aversion.wrapping_add(1);
        stat.acl = after;
    });
    state.release_acl(before);
    Ok(state.tree.node(id).visible_stat())
}

/// About what a list takes: an entry more is never free.
fn list_bytes(entries: &[Acl]) -> i64 {
    let bytes = |entry: &Acl| 1 + entry.identity.scheme.len() + entry.identity.id.len();
    entries.iter().map(bytes).sum::<usize>() as i64
}
