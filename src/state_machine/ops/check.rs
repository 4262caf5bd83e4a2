//! check, within a multi. Order of checks: path, existence, right to read, version.

use super::{Context, acl_of, check_version, existing};
use crate::proto::request::PathVersion;
use crate::proto::{ErrorCode, Permissions};
use crate::state_machine::{State, path};

pub(super) fn apply(state: &State, context: Context<'_>, request: &PathVersion) -> Result<(), ErrorCode> {
    path::validate(request.path.bytes())?;
    let node = state.tree.node(existing(state, request.path.bytes())?);
    context.authorise(acl_of(state, node), Permissions::READ)?;
    check_version(node.stat.version, request.version)
}
