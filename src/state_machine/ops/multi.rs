//! multi: every operation sees the ones before it; if one fails, all are taken back.

use super::{Context, check, create, delete, set_data};
use crate::proto::multi::MultiRequest;
use crate::proto::reply::MultiResult;
use crate::proto::request::Write;
use crate::proto::{ErrorCode, OpCode};
use crate::state_machine::{Change, State};

/// The results, one for each operation. The multi itself never fails: its reply says which operation did.
pub(super) fn apply(
    state: &mut State,
    context: Context<'_>,
    request: &MultiRequest,
    changes: &mut Vec<Change>,
) -> Vec<MultiResult> {
    let changes_before = changes.len();
    let digest_before = state.digest;
    let mut results = Vec::with_capacity(request.operations.len());
    state.begin();
    for operation in &request.operations {
        match one(state, context, operation, changes) {
            Ok(result) => results.push(result),
            Err(code) if planted!(HalfMulti) => {
                state.commit();
                return failure(results.len(), code, request.operations.len());
            }
            Err(code) => {
                state.roll_back();
                changes.truncate(changes_before);
                assert_eq!(
                    state.digest, digest_before,
                    "Atomic: a multi that failed leaves the tree as it was"
                );
                return failure(results.len(), code, request.operations.len());
            }
        }
    }
    state.commit();
    results
}

fn one(
    state: &mut State,
    context: Context<'_>,
    operation: &Write,
    changes: &mut Vec<Change>,
) -> Result<MultiResult, ErrorCode> {
    Ok(match operation {
        Write::Create(op, request) => {
            let (path, stat) = create::apply(state, context, *op, request, changes)?;
            if *op == OpCode::Create {
                MultiResult::Create(path)
            } else {
                MultiResult::Create2(path, stat)
            }
        }
        Write::Delete(request) => {
            delete::apply(state, context, request, changes)?;
            MultiResult::Delete
        }
        Write::SetData(request) => MultiResult::SetData(set_data::apply(state, context, request, changes)?),
        Write::Check(request) => {
            check::apply(state, context, request)?;
            MultiResult::Check
        }
        // The decoder lets no other operation into a multi.
        Write::SetAcl(_) | Write::Multi(_) | Write::Reconfig(_) => return Err(ErrorCode::Unimplemented),
    })
}

/// The results of `count` operations of which the one at `failed` gave `code`.
fn failure(failed: usize, code: ErrorCode, count: usize) -> Vec<MultiResult> {
    let result = |position: usize| match position {
        _ if position < failed => None,
        _ if position == failed => Some(code),
        _ => Some(ErrorCode::RuntimeInconsistency),
    };
    (0..count)
        .map(|position| MultiResult::Failed(result(position)))
        .collect()
}
