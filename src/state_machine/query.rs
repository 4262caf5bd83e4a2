//! Reads: answered from memory, written straight into the connection's buffer; a large listing or large data is given to be shared
//! instead, and copied for nobody.
//!
//! Paths of reads are not validated: one that no znode can have finds none. The empty path is the root, as in Apache.

use super::acl::AclRef;
use super::node::{Node, NodeId};
use super::{Missing, State};
use crate::proto::jute::Encode;
use crate::proto::multi::{MultiHeader, MultiReadRequest, ReadOperation};
use crate::proto::request::Query;
use crate::proto::{Acl, ErrorCode, Identity, OpCode, Permissions, SessionId, SharedPart, Text};
use bytes::BytesMut;

/// Bytes from which on data and listings are not copied into a reply. Few in tests, so that those of the whole state try it.
const SHARED_BYTES: usize = if cfg!(test) { 8 } else { 32 << 10 };

/// Bytes of a multiRead's answer beyond which no further operation is begun: a few bytes ask for a megabyte again and again.
const MULTI_READ_BYTES: usize = 16 << 20;

/// Who asks, and whether that matters.
#[derive(Clone, Copy)]
struct Caller<'a> {
    identities: &'a [Identity],
    skip_acl: bool,
}

impl Caller<'_> {
    fn authorise(self, acl: &AclRef, wanted: Permissions) -> Result<(), ErrorCode> {
        if acl.permits(wanted, self.identities) || self.skip_acl {
            Ok(())
        } else {
            Err(ErrorCode::NoAuth)
        }
    }
}

impl State {
    /// Answers a read: appends the body of its reply to `out`, but for a part that is too large to be copied, which it gives.
    /// `skip_acl`: nothing is forbidden.
    ///
    /// # Errors
    /// `NoNode`, `NoAuth`; for exists also `BadArguments`, as for a multiRead whose answer would be too large. What was appended
    /// before an error means nothing.
    pub fn query(
        &self,
        query: &Query,
        session: SessionId,
        caller: &[Identity],
        skip_acl: bool,
        out: &mut BytesMut,
    ) -> Result<Option<SharedPart>, ErrorCode> {
        let caller = Caller {
            identities: caller,
            skip_acl,
        };
        match query {
            Query::Exists(request) => {
                if request.path.bytes().contains(&0) {
                    return Err(ErrorCode::BadArguments);
                }
                self.readable(&request.path, caller)?.1.visible_stat().encode(out);
            }
            Query::GetData(request) => return self.get_data(&request.path, caller, out),
            Query::GetAcl(request) => self.get_acl(&request.path, caller, out)?,
            Query::GetChildren(request) => {
                let (id, _) = self.readable(&request.path, caller)?;
                return Ok(self.share_children(id, out));
            }
            Query::GetChildren2(request) => {
                let (id, node) = self.readable(&request.path, caller)?;
                let shared = self.share_children(id, out);
                node.visible_stat().encode(out);
                return Ok(shared);
            }
            Query::GetEphemerals(request) => self.get_ephemerals(session, &request.path, out),
            Query::GetAllChildrenNumber(request) => self.get_all_children_number(&request.path, caller, out)?,
            Query::MultiRead(request) => self.multi_read(request, caller, out)?,
        }
        Ok(None)
    }

    /// Notes the values that `query` would answer with and that are away, once no group is missing for it. What the caller
    /// may not read is not brought for him.
    pub fn note_away(&self, query: &Query, caller: &[Identity], skip_acl: bool, missing: &mut Missing) {
        let caller = Caller {
            identities: caller,
            skip_acl,
        };
        let mut note = |path: &Text| {
            let Ok((_, node)) = self.readable(path, caller) else {
                return 0;
            };
            node.data.note_read();
            if node.data.is_away() {
                missing.value(path.bytes(), node.stat.mzxid, node.data_bytes());
            }
            node.data_bytes()
        };
        match query {
            Query::GetData(request) => {
                note(&request.path);
            }
            Query::MultiRead(request) => {
                // The answer is at least as long, so that what is behind the limit is not looked at either.
                let mut bytes = 0;
                for operation in &request.operations {
                    if let ReadOperation::GetData(body) = operation
                        && bytes <= MULTI_READ_BYTES
                    {
                        bytes += note(&body.path);
                    }
                }
            }
            _ => {}
        }
    }

    fn existing(&self, path: &Text) -> Result<NodeId, ErrorCode> {
        self.tree.find(path.bytes()).ok_or(ErrorCode::NoNode)
    }

    /// The znode at `path`, if the caller may read it.
    fn readable(&self, path: &Text, caller: Caller<'_>) -> Result<(NodeId, &Node), ErrorCode> {
        let id = self.existing(path)?;
        let node = self.tree.node(id);
        caller.authorise(self.acls.get(node.stat.acl), Permissions::READ)?;
        Ok((id, node))
    }

    fn get_data(&self, path: &Text, caller: Caller<'_>, out: &mut BytesMut) -> Result<Option<SharedPart>, ErrorCode> {
        let (_, node) = self.readable(path, caller)?;
        let shared = self.share_data(node, out);
        node.visible_stat().encode(out);
        Ok(shared)
    }

    fn write_data(&self, node: &Node, out: &mut BytesMut) {
        if let Some(SharedPart { bytes, .. }) = self.share_data(node, out) {
            out.extend_from_slice(&bytes);
        }
    }

    /// Writes the data, or its length alone and gives the data itself, which is too large to be copied.
    fn share_data(&self, node: &Node, out: &mut BytesMut) -> Option<SharedPart> {
        if self.residency.may_leave {
            node.data.note_read();
        }
        if node.data_bytes() >= SHARED_BYTES
            && let Some(Some(data)) = node.data.shared()
        {
            out.write_count(data.len());
            let (at, bytes) = (out.len(), data.to_bytes());
            return Some(SharedPart { at, bytes });
        }
        out.write_buffer(node.data.bytes());
        None
    }

    /// Who may not administer the znode does not see the hashes of others.
    fn get_acl(&self, path: &Text, caller: Caller<'_>, out: &mut BytesMut) -> Result<(), ErrorCode> {
        let node = self.tree.node(self.existing(path)?);
        let acl = self.acls.get(node.stat.acl);
        caller.authorise(acl, Permissions::READ.or(Permissions::ADMIN))?;
        if caller.authorise(acl, Permissions::ADMIN).is_ok() {
            Acl::encode_list(Some(acl.entries()), out);
        } else {
            out.write_count(acl.entries().len());
            for entry in acl.entries() {
                write_masked(entry, out);
            }
        }
        node.visible_stat().encode(out);
        Ok(())
    }

    fn write_children(&self, id: NodeId, out: &mut BytesMut) {
        if let Some(SharedPart { bytes, .. }) = self.share_children(id, out) {
            out.extend_from_slice(&bytes);
        }
    }

    /// Writes the children, or gives what is too large to be copied.
    fn share_children(&self, id: NodeId, out: &mut BytesMut) -> Option<SharedPart> {
        let node = self.tree.node(id);
        let encode = |out: &mut BytesMut| {
            out.write_count(node.children().len());
            for child in node.children() {
                out.write_buffer(Some(&self.tree.node(*child).name));
            }
        };
        let encoded = self.listings.of(id, node, || {
            let mut encoded = BytesMut::new();
            encode(&mut encoded);
            encoded.freeze()
        });
        match encoded {
            Some(bytes) if bytes.len() >= SHARED_BYTES => return Some(SharedPart { at: out.len(), bytes }),
            Some(encoded) => out.extend_from_slice(&encoded),
            None => encode(out),
        }
        None
    }

    /// Blank and `/` ask for all; anything else is the beginning of a string, not of a path.
    fn get_ephemerals(&self, session: SessionId, prefix: &Text, out: &mut BytesMut) {
        let mut paths = self.ephemeral_paths(session);
        if !matches!(prefix.trim(), "" | "/") {
            paths.retain(|path| path.bytes().starts_with(prefix.bytes()));
        }
        out.write_count(paths.len());
        for path in paths {
            out.write_buffer(Some(path.bytes()));
        }
    }

    fn get_all_children_number(&self, path: &Text, caller: Caller<'_>, out: &mut BytesMut) -> Result<(), ErrorCode> {
        let (id, _) = self.readable(path, caller)?;
        let mut count = 0;
        if id == NodeId::ROOT {
            count = usize::try_from(self.totals().nodes).unwrap_or(usize::MAX);
        } else {
            self.tree.walk(id, |_, _| count += 1);
        }
        out.write_count(count - 1);
        Ok(())
    }

    /// Each operation is answered for itself, as long as there is room.
    fn multi_read(&self, request: &MultiReadRequest, caller: Caller<'_>, out: &mut BytesMut) -> Result<(), ErrorCode> {
        let before_bytes = out.len();
        for operation in &request.operations {
            if out.len() - before_bytes > MULTI_READ_BYTES {
                return Err(ErrorCode::BadArguments);
            }
            let (op, path) = match operation {
                ReadOperation::GetData(body) => (OpCode::GetData, &body.path),
                ReadOperation::GetChildren(body) => (OpCode::GetChildren, &body.path),
            };
            match self.readable(path, caller) {
                Ok((id, node)) => {
                    MultiHeader::result(op).encode(out);
                    if op == OpCode::GetData {
                        self.write_data(node, out);
                        node.visible_stat().encode(out);
                    } else {
                        self.write_children(id, out);
                    }
                }
                Err(code) => {
                    MultiHeader::error(code.to_wire()).encode(out);
                    out.write_int(code.to_wire());
                }
            }
        }
        MultiHeader::END.encode(out);
        Ok(())
    }
}

fn write_masked(entry: &Acl, out: &mut BytesMut) {
    let Identity { scheme, id } = &entry.identity;
    if scheme.bytes().as_ref() != b"digest" {
        return entry.encode(out);
    }
    out.write_int(entry.permissions.0);
    out.write_text(scheme);
    match id.split_once(':') {
        Some((user, _)) => out.write_text(&format!("{user}:x")),
        None => out.write_text(id),
    }
}
