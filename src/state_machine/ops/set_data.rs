//! setData. Order of checks: path, existence, right to write, not an ensemble's configuration, quota, version, room.

use super::{Context, acl_of, check_version, existing};
use crate::proto::request::SetDataRequest;
use crate::proto::{ErrorCode, Permissions, Stat};
use crate::state_machine::command::Rules;
use crate::state_machine::path::{self, CONFIG};
use crate::state_machine::{Change, State, Value, quota};
use bytes::Bytes;

pub(super) fn apply(
    state: &mut State,
    context: Context<'_>,
    request: &SetDataRequest,
    changes: &mut Vec<Change>,
) -> Result<Stat, ErrorCode> {
    let path = request.path.bytes();
    path::validate(path)?;
    let id = existing(state, path)?;
    let node = state.tree.node(id);
    let acl = acl_of(state, node);
    context.authorise(acl, Permissions::WRITE)?;
    if path == CONFIG && state.membership().is_some() {
        // ZooKeeper lets an administrator write here what is not true; ours is what members go by.
        return Err(ErrorCode::BadArguments);
    }
    let more_bytes = request.data.as_ref().map_or(0, Bytes::len) as i64 - quota::data_bytes(node);
    if context.stamp.rules.has(Rules::ENFORCE_QUOTA) {
        state.check_quota(path, 0, more_bytes)?;
    }
    check_version(node.stat.version, request.version)?;
    context.allow_growth(more_bytes)?;

    changes.push(Change::DataChanged {
        path: request.path.clone(),
        acl: acl.clone(),
    });
    let data = request.data.as_deref().map(Value::from);
    state.replace_data(id, path, data, |stat| {
        stat.version = stat.version.wrapping_add(1);
        stat.mzxid = context.zxid;
        stat.mtime = context.stamp.time_ms;
    });
    state.count_usage(path, 0, more_bytes);
    Ok(state.tree.node(id).visible_stat())
}
