//! Requests that are answered where they arrive: queries, watches, ping, auth and their like.

use super::pipeline::Surroundings;
use crate::proto::jute::Encode;
use crate::proto::request::{AddWatchRequest, PathKind, Query, SetWatches2Request, SetWatchesRequest};
use crate::proto::{
    Decoder, ErrorCode, EventKind, Identity, Malformed, OpCode, Permissions, SessionId, SharedPart, Text, WatchEvent,
    Zxid,
};
use crate::state_machine::{Missing, State};
use crate::watch::{WatchKind, WatchSelector, WatcherId};
use bytes::{Bytes, BytesMut};
use std::sync::atomic::Ordering::Relaxed;

/// A request that needs no log, decoded.
#[derive(Debug)]
pub(super) enum Local {
    Ping,
    Query(Query),
    WhoAmI,
    AddWatch(AddWatchRequest),
    CheckWatches(PathKind),
    RemoveWatches(PathKind),
    SetWatches(Box<SetWatches2Request>),
    /// The answer is known already.
    Answered(Result<(), ErrorCode>),
    /// So is a SASL token; it is null where SASL is not configured.
    SaslToken(Option<Bytes>),
}

/// What an execution may look at.
pub(super) struct Asker<'a> {
    pub(super) watcher: WatcherId,
    pub(super) session: SessionId,
    pub(super) identities: &'a [Identity],
}

impl Local {
    /// Reads the body of `op`; `None` if such a request is not answered locally.
    pub(super) fn decode(op: OpCode, decoder: &mut Decoder<'_>) -> Option<Result<Local, Malformed>> {
        Some(match op {
            OpCode::Ping => Ok(Local::Ping),
            OpCode::WhoAmI => Ok(Local::WhoAmI),
            OpCode::AddWatch => AddWatchRequest::decode(decoder).map(Local::AddWatch),
            OpCode::CheckWatches => PathKind::decode(decoder).map(Local::CheckWatches),
            OpCode::RemoveWatches => PathKind::decode(decoder).map(Local::RemoveWatches),
            OpCode::SetWatches => {
                SetWatchesRequest::decode(decoder).map(|body| Local::SetWatches(Box::new(with_no_persistent(body))))
            }
            OpCode::SetWatches2 => SetWatches2Request::decode(decoder).map(|body| Local::SetWatches(Box::new(body))),
            op => return Some(Query::decode(op, decoder)?.map(Local::Query)),
        })
    }

    /// Notes what it looks at that is not in memory.
    pub(super) fn note_missing(&self, state: &State, missing: &mut Missing) {
        match self {
            Local::Query(query) => state.missing_for_query(query, missing),
            Local::SetWatches(body) => {
                for path in body.data.iter().chain(&body.exist).chain(&body.child) {
                    state.missing_for_znode(path.bytes(), missing);
                }
            }
            _ => {}
        }
    }

    /// Writes the body of the reply, but for a part that it gives; for setWatches the events that the client missed go to `events`, to be sent before.
    pub(super) fn execute(
        &self,
        state: &State,
        asker: &Asker<'_>,
        surroundings: &Surroundings<'_>,
        out: &mut BytesMut,
    ) -> Result<Option<SharedPart>, ErrorCode> {
        match self {
            Local::Ping => {}
            Local::Answered(answer) => (*answer)?,
            Local::SaslToken(token) => out.write_buffer(token.as_deref()),
            Local::Query(query) => return execute_query(query, state, asker, surroundings, out),
            Local::WhoAmI => who_am_i(asker.identities, out),
            Local::AddWatch(body) => {
                let kind = match body.mode {
                    0 => WatchKind::Persistent,
                    1 => WatchKind::PersistentRecursive,
                    _ => return Err(ErrorCode::MarshallingError),
                };
                register(surroundings, asker, &body.path, kind)?;
                // Apache answers with an ErrorResponse that holds no error.
                out.write_int(0);
            }
            Local::CheckWatches(body) => {
                let selector = WatchSelector::from_wire(body.kind).ok_or(ErrorCode::MarshallingError)?;
                let found = surroundings.watches.contains(asker.watcher, &body.path, selector);
                if !found {
                    return Err(ErrorCode::NoWatcher);
                }
            }
            Local::RemoveWatches(body) => {
                let selector = WatchSelector::from_wire(body.kind).ok_or(ErrorCode::MarshallingError)?;
                let found = surroundings.watches.remove(asker.watcher, &body.path, selector);
                if !found {
                    return Err(ErrorCode::NoWatcher);
                }
            }
            Local::SetWatches(body) => set_watches(body, surroundings, asker, state)?,
        }
        Ok(None)
    }

    /// The events that setWatches makes up for what the client missed: they leave before its reply.
    pub(super) fn missed_events(
        &self,
        state: &State,
        asker: &Asker<'_>,
        surroundings: &Surroundings<'_>,
        mut send: impl FnMut(WatchEvent),
    ) {
        let Local::SetWatches(body) = self else { return };
        for_each_missed(body, state, asker, surroundings, |kind, path| {
            if let Some(kind) = kind {
                send(WatchEvent {
                    kind,
                    path: path.clone(),
                });
            }
        });
    }
}

fn with_no_persistent(body: SetWatchesRequest) -> SetWatches2Request {
    SetWatches2Request {
        relative_zxid: body.relative_zxid,
        data: body.data,
        exist: body.exist,
        child: body.child,
        persistent: Vec::new(),
        recursive: Vec::new(),
    }
}

fn register(surroundings: &Surroundings<'_>, asker: &Asker<'_>, path: &str, kind: WatchKind) -> Result<(), ErrorCode> {
    surroundings.watches.add(asker.watcher, path, kind).map_err(|limit| {
        let refused = surroundings.statistics.watches_refused.fetch_add(1, Relaxed) + 1;
        // Less and less often: a client may go on for ever.
        if refused.is_power_of_two() {
            tracing::warn!(session = %asker.session, path, refused, "a watch is refused: {limit}");
        }
        ErrorCode::ThrottledOp
    })
}

fn execute_query(
    query: &Query,
    state: &State,
    asker: &Asker<'_>,
    surroundings: &Surroundings<'_>,
    out: &mut BytesMut,
) -> Result<Option<SharedPart>, ErrorCode> {
    let answer = state.query(
        query,
        asker.session,
        asker.identities,
        surroundings.settings.skip_acl,
        out,
    );
    match (query, &answer) {
        (Query::Exists(body), Ok(_) | Err(ErrorCode::NoNode)) | (Query::GetData(body), Ok(_)) if body.watch => {
            register(surroundings, asker, &body.path, WatchKind::Data)?;
        }
        (Query::GetChildren(body) | Query::GetChildren2(body), Ok(_)) if body.watch => {
            register(surroundings, asker, &body.path, WatchKind::Child)?;
        }
        _ => {}
    }
    answer
}

/// Every identity of the connection; of a digest, only the user.
fn who_am_i(identities: &[Identity], out: &mut BytesMut) {
    out.write_count(identities.len());
    for identity in identities {
        out.write_text(&identity.scheme);
        let id = identity.id.as_str();
        let shown = if identity.scheme.as_str() == "digest" {
            id.split(':').next().unwrap_or(id)
        } else {
            id
        };
        out.write_text(shown);
    }
}

/// Calls `found` for each of the one-shot watches that a client had before it reconnected: with the event that it missed,
/// or with none where nothing has happened and the watch is to be registered again.
///
/// A client that may not read a znode is not told of it here either, but gets its watch back; Apache tells it.
fn for_each_missed<'a>(
    body: &'a SetWatches2Request,
    state: &State,
    asker: &Asker<'_>,
    surroundings: &Surroundings<'_>,
    mut found: impl FnMut(Option<EventKind>, &'a Text),
) {
    let readable = |path: &str| {
        surroundings.settings.skip_acl
            || state
                .acl_of(path)
                .is_none_or(|acl| acl.permits(Permissions::READ, asker.identities))
    };
    let changed = |changed_at: Zxid, kind| {
        if changed_at > body.relative_zxid {
            Some(kind)
        } else {
            None
        }
    };
    for path in &body.data {
        let event = match state.stat(path) {
            None => Some(EventKind::Deleted),
            Some(stat) => changed(stat.mzxid, EventKind::DataChanged).filter(|_| readable(path)),
        };
        found(event, path);
    }
    for path in &body.exist {
        found(
            state
                .stat(path)
                .and(Some(EventKind::Created))
                .filter(|_| readable(path)),
            path,
        );
    }
    for path in &body.child {
        let event = match state.stat(path) {
            None => Some(EventKind::Deleted),
            Some(stat) => changed(stat.pzxid, EventKind::ChildrenChanged).filter(|_| readable(path)),
        };
        found(event, path);
    }
}

fn set_watches(
    body: &SetWatches2Request,
    surroundings: &Surroundings<'_>,
    asker: &Asker<'_>,
    state: &State,
) -> Result<(), ErrorCode> {
    let one_shots = body.data.len() + body.exist.len();
    let mut position = 0;
    let mut outcome = Ok(());
    for_each_missed(body, state, asker, surroundings, |event, path| {
        let kind = if position < one_shots {
            WatchKind::Data
        } else {
            WatchKind::Child
        };
        position += 1;
        if event.is_none() && outcome.is_ok() {
            outcome = register(surroundings, asker, path, kind);
        }
    });
    outcome?;
    for path in &body.persistent {
        register(surroundings, asker, path, WatchKind::Persistent)?;
    }
    for path in &body.recursive {
        register(surroundings, asker, path, WatchKind::PersistentRecursive)?;
    }
    Ok(())
}
