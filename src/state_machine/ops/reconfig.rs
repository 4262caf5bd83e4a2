//! reconfig: membership cannot be changed yet; the answers are those of Apache's standalone server.

use crate::proto::ErrorCode;
use crate::state_machine::command::Rules;

pub(super) fn apply(rules: Rules) -> ErrorCode {
    if rules.has(Rules::RECONFIG) {
        ErrorCode::Unimplemented
    } else {
        ErrorCode::ReconfigDisabled
    }
}
