//! delete. Order of checks: special paths, parent, right to delete there, znode, version, children.

use super::{Context, acl_of, check_version, existing, remove};
use crate::proto::request::PathVersion;
use crate::proto::{ErrorCode, Permissions};
use crate::state_machine::{Change, State, path};

pub(super) fn apply(
    state: &mut State,
    context: Context<'_>,
    request: &PathVersion,
    changes: &mut Vec<Change>,
) -> Result<(), ErrorCode> {
    let path = request.path.bytes();
    let parent_path = path::parent(path)?;
    if path::ALWAYS_THERE.contains(&path.as_ref()) {
        return Err(ErrorCode::BadArguments);
    }
    let parent = state.tree.node(existing(state, parent_path)?);
    context.authorise(acl_of(state, parent), Permissions::DELETE)?;
    let id = existing(state, path)?;
    let node = state.tree.node(id);
    check_version(node.stat.version, request.version)?;
    if !node.children().is_empty() {
        return Err(ErrorCode::NotEmpty);
    }
    remove(state, context.zxid, id, request.path.clone(), changes);
    Ok(())
}
