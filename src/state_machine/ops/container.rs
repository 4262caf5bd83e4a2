//! deleteContainer: the leader removes containers and TTL znodes that have had their time.
//!
//! Between the leader's look and this command, a child may have been created or the data set: all is checked again.

use super::{existing, remove};
use crate::proto::{Decoder, ErrorCode, Reply, Text};
use crate::state_machine::command::{Command, Stamp};
use crate::state_machine::node::Kind;
use crate::state_machine::{Change, State};

pub(super) fn apply(
    state: &mut State,
    stamp: &Stamp,
    command: &Command,
    changes: &mut Vec<Change>,
) -> Result<Reply, ErrorCode> {
    let path = decode(command)?;
    let id = existing(state, path.bytes())?;
    let node = state.tree.node(id);
    if !node.children().is_empty() {
        return Err(ErrorCode::NotEmpty);
    }
    match node.kind() {
        Kind::Container => {}
        Kind::Ttl(ttl_ms) if stamp.time_ms.saturating_sub(node.stat.mtime) > ttl_ms => {}
        // Its data was set since, and its time began anew.
        Kind::Ttl(_) => return Err(ErrorCode::BadVersion),
        Kind::Persistent | Kind::Ephemeral => return Err(ErrorCode::BadArguments),
    }
    remove(state, state.zxid, id, path, changes);
    Ok(Reply::Empty)
}

/// The path, which this body has as a buffer.
fn decode(command: &Command) -> Result<Text, ErrorCode> {
    Decoder::new(&command.body)
        .text()
        .map_err(|_| ErrorCode::MarshallingError)
}
