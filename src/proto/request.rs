//! Requests: the header, the op codes, and the typed bodies.

use super::jute::{Decoder, Encode, Malformed, Text};
use super::multi::{MultiReadRequest, MultiRequest};
use super::records::Acl;
use super::{Xid, Zxid};
use bytes::{Bytes, BytesMut};

macro_rules! op_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// What a request asks for. Numbers are those of Apache's `ZooDefs.OpCode`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum OpCode { $($(#[$doc])* $name = $code,)* }

        impl OpCode {
            /// Every op code, for tables and tests.
            pub const ALL: &[OpCode] = &[$(OpCode::$name,)*];

            /// The op code with this number on the wire, if there is one.
            pub fn from_wire(code: i32) -> Option<OpCode> {
                match code { $($code => Some(OpCode::$name),)* _ => None }
            }
        }
    };
}

op_codes! {
    /// Create a znode; the reply has its path.
    Create = 1,
    /// Delete a znode.
    Delete = 2,
    /// Stat of a znode, or that there is none.
    Exists = 3,
    /// Data and Stat.
    GetData = 4,
    /// Set the data.
    SetData = 5,
    /// ACL and Stat.
    GetAcl = 6,
    /// Set the ACL.
    SetAcl = 7,
    /// Names of the children.
    GetChildren = 8,
    /// Wait until this server has applied all that was committed before.
    Sync = 9,
    /// Sign of life.
    Ping = 11,
    /// Names of the children, and Stat.
    GetChildren2 = 12,
    /// Check a version; only within a multi.
    Check = 13,
    /// Several writes, all or none.
    Multi = 14,
    /// Create a znode; the reply has path and Stat.
    Create2 = 15,
    /// Change the ensemble's membership.
    Reconfig = 16,
    /// Whether a watch is registered.
    CheckWatches = 17,
    /// Remove watches.
    RemoveWatches = 18,
    /// Create a container.
    CreateContainer = 19,
    /// Remove an empty container or TTL znode: proposed by the leader, refused from clients.
    DeleteContainer = 20,
    /// Create a TTL znode.
    CreateTtl = 21,
    /// Several reads.
    MultiRead = 22,
    /// Add an identity to the connection.
    Auth = 100,
    /// Register one-shot watches again after a reconnect.
    SetWatches = 101,
    /// A step of a SASL exchange.
    Sasl = 102,
    /// The session's ephemerals below a prefix.
    GetEphemerals = 103,
    /// Number of all descendants.
    GetAllChildrenNumber = 104,
    /// Register watches of all kinds again after a reconnect.
    SetWatches2 = 105,
    /// Register a persistent watch.
    AddWatch = 106,
    /// The connection's identities.
    WhoAmI = 107,
    /// Open a session (in the log only).
    CreateSession = -10,
    /// Close the session.
    CloseSession = -11,
    /// Bind a session to another connection (in the log only; not an op code of ZooKeeper's).
    AttachSession = -20,
    /// Write the membership that the leader's configuration names (in the log only; not an op code of ZooKeeper's).
    SetMembership = -21,
}

impl OpCode {
    /// The number of this op code on the wire.
    pub fn to_wire(self) -> i32 {
        self as i32
    }
}

/// What stands before every body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The client's number for this request.
    pub xid: Xid,
    /// The op code, not yet known to be one: [`OpCode::from_wire`].
    pub op: i32,
}

impl RequestHeader {
    /// Reads one.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<RequestHeader, Malformed> {
        Ok(RequestHeader {
            xid: Xid(decoder.int()?),
            op: decoder.int()?,
        })
    }

    /// Writes it.
    pub fn encode(&self, out: &mut BytesMut) {
        out.write_int(self.xid.0);
        out.write_int(self.op);
    }
}

/// Body of create, create2, createContainer and createTTL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRequest {
    /// Where; a sequential znode's number is appended.
    pub path: Text,
    /// Its data; null is not empty.
    pub data: Option<Bytes>,
    /// Its ACL.
    pub acl: Option<Vec<Acl>>,
    /// Its mode, see [`CreateMode`].
    pub flags: i32,
    /// Time to live in ms, in createTTL's body only.
    pub ttl_ms: Option<i64>,
}

/// The kinds of znode that create's flags can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CreateMode {
    /// Stays until it is deleted.
    Persistent,
    /// Likewise, with a number appended to its name.
    PersistentSequential,
    /// Lives as long as its session.
    Ephemeral,
    /// Likewise, with a number appended to its name.
    EphemeralSequential,
    /// Removed some time after its last child is.
    Container,
    /// Removed when it has had no children and no change for its time to live.
    Ttl,
    /// Likewise, with a number appended to its name.
    TtlSequential,
}

impl CreateMode {
    /// The mode of create's flags, if there is one.
    pub fn from_flags(flags: i32) -> Option<CreateMode> {
        Some(match flags {
            0 => CreateMode::Persistent,
            1 => CreateMode::Ephemeral,
            2 => CreateMode::PersistentSequential,
            3 => CreateMode::EphemeralSequential,
            4 => CreateMode::Container,
            5 => CreateMode::Ttl,
            6 => CreateMode::TtlSequential,
            _ => return None,
        })
    }

    /// Whether a number is appended to the name.
    pub fn is_sequential(self) -> bool {
        matches!(
            self,
            CreateMode::PersistentSequential | CreateMode::EphemeralSequential | CreateMode::TtlSequential
        )
    }

    /// Whether the znode goes with its session.
    pub fn is_ephemeral(self) -> bool {
        matches!(self, CreateMode::Ephemeral | CreateMode::EphemeralSequential)
    }

    /// Whether the znode has a time to live.
    pub fn is_ttl(self) -> bool {
        matches!(self, CreateMode::Ttl | CreateMode::TtlSequential)
    }
}

/// Declares a body whose fields are read and written in the order in which they stand.
macro_rules! bodies {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ident,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $name { $($(#[$field_doc])* pub $field: bodies!(@type $kind),)* }

            impl $name {
                /// Reads one.
                pub fn decode(decoder: &mut Decoder<'_>) -> Result<$name, Malformed> {
                    Ok($name { $($field: bodies!(@decode $kind, decoder),)* })
                }

                /// Writes it.
                pub fn encode(&self, out: &mut BytesMut) {
                    $(bodies!(@encode $kind, self.$field, out);)*
                }
            }
        )*
    };
    (@type text) => { Text };
    (@type text_or_empty) => { Text };
    (@type nullable_text) => { Option<Text> };
    (@type bool) => { bool };
    (@type int) => { i32 };
    (@type long) => { i64 };
    (@type zxid) => { Zxid };
    (@type buffer) => { Option<Bytes> };
    (@type acl) => { Option<Vec<Acl>> };
    (@type texts) => { Vec<Text> };
    (@decode text, $d:ident) => { $d.text()? };
    (@decode text_or_empty, $d:ident) => { $d.text_or_empty()? };
    (@decode nullable_text, $d:ident) => { $d.nullable_text()? };
    (@decode bool, $d:ident) => { $d.bool()? };
    (@decode int, $d:ident) => { $d.int()? };
    (@decode long, $d:ident) => { $d.long()? };
    (@decode zxid, $d:ident) => { Zxid($d.long()?) };
    (@decode buffer, $d:ident) => { $d.buffer()? };
    (@decode acl, $d:ident) => { Acl::decode_list($d)? };
    (@decode texts, $d:ident) => { $d.vector(4, Decoder::text)?.ok_or(Malformed::UnexpectedNull)? };
    (@encode text, $v:expr, $o:ident) => { $o.write_text(&$v) };
    (@encode text_or_empty, $v:expr, $o:ident) => { $o.write_text(&$v) };
    (@encode nullable_text, $v:expr, $o:ident) => { $o.write_buffer($v.as_ref().map(|text| text.bytes().as_ref())) };
    (@encode bool, $v:expr, $o:ident) => { $o.write_bool($v) };
    (@encode int, $v:expr, $o:ident) => { $o.write_int($v) };
    (@encode long, $v:expr, $o:ident) => { $o.write_long($v) };
    (@encode zxid, $v:expr, $o:ident) => { $o.write_long($v.0) };
    (@encode buffer, $v:expr, $o:ident) => { $o.write_buffer($v.as_deref()) };
    (@encode acl, $v:expr, $o:ident) => { Acl::encode_list($v.as_deref(), $o) };
    (@encode texts, $v:expr, $o:ident) => {
        $o.write_count($v.len());
        for text in &$v { $o.write_text(text); }
    };
}

bodies! {
    /// Body of delete, and of check within a multi.
    PathVersion {
        /// Which znode.
        path: text,
        /// The version that it must have; -1 for any.
        version: int,
    }
    /// Body of exists, getData, getChildren and getChildren2.
    PathWatch {
        /// Which znode.
        path: text,
        /// Whether to tell this connection of the next change.
        watch: bool,
    }
    /// Body of setData. Within a multi its path must not be null.
    SetDataRequest {
        /// Which znode; null is as bad a path as the empty one.
        path: text_or_empty,
        /// Its new data; null is not empty.
        data: buffer,
        /// The version that it must have; -1 for any.
        version: int,
    }
    /// Body of setACL.
    SetAclRequest {
        /// Which znode; null is as bad a path as the empty one.
        path: text_or_empty,
        /// Its new ACL.
        acl: acl,
        /// The aversion that it must have; -1 for any.
        version: int,
    }
    /// Body of getACL, sync and getAllChildrenNumber.
    PathOnly {
        /// Which znode.
        path: text,
    }
    /// Body of getEphemerals.
    Prefix {
        /// What the paths must begin with; null is as good as empty.
        path: text_or_empty,
    }
    /// Body of checkWatches and removeWatches.
    PathKind {
        /// Which znode.
        path: text,
        /// 1 children, 2 data, 3 any, 4 persistent, 5 persistent recursive.
        kind: int,
    }
    /// Body of addWatch.
    AddWatchRequest {
        /// Which znode.
        path: text,
        /// 0 persistent, 1 persistent recursive.
        mode: int,
    }
    /// Body of auth.
    AuthRequest {
        /// 0 in every version there is.
        kind: int,
        /// Which scheme; null is none that there is.
        scheme: text_or_empty,
        /// What the scheme wants to see.
        auth: buffer,
    }
    /// Body of sasl.
    SaslRequest {
        /// What the mechanism wants to see.
        token: buffer,
    }
    /// Body of reconfig.
    ReconfigRequest {
        /// Servers to add or change.
        joining: nullable_text,
        /// Servers to remove.
        leaving: nullable_text,
        /// All servers there shall be, instead of the other two.
        members: nullable_text,
        /// The version that the configuration must have; -1 for any.
        config_version: long,
    }
    /// Body of setWatches.
    SetWatchesRequest {
        /// The zxid up to which the client has seen changes.
        relative_zxid: zxid,
        /// Data watches.
        data: texts,
        /// Watches of znodes that did not exist.
        exist: texts,
        /// Child watches.
        child: texts,
    }
    /// Body of setWatches2.
    SetWatches2Request {
        /// The zxid up to which the client has seen changes.
        relative_zxid: zxid,
        /// Data watches.
        data: texts,
        /// Watches of znodes that did not exist.
        exist: texts,
        /// Child watches.
        child: texts,
        /// Persistent watches.
        persistent: texts,
        /// Persistent recursive watches.
        recursive: texts,
    }
}

impl CreateRequest {
    /// Reads one; `op` says whether a time to live stands at the end.
    pub fn decode(op: OpCode, decoder: &mut Decoder<'_>) -> Result<CreateRequest, Malformed> {
        Ok(CreateRequest {
            path: decoder.text()?,
            data: decoder.buffer()?,
            acl: Acl::decode_list(decoder)?,
            flags: decoder.int()?,
            ttl_ms: if op == OpCode::CreateTtl {
                Some(decoder.long()?)
            } else {
                None
            },
        })
    }

    /// Writes it.
    pub fn encode(&self, out: &mut BytesMut) {
        out.write_text(&self.path);
        out.write_buffer(self.data.as_deref());
        Acl::encode_list(self.acl.as_deref(), out);
        out.write_int(self.flags);
        if let Some(ttl_ms) = self.ttl_ms {
            out.write_long(ttl_ms);
        }
    }
}

/// A request that changes the tree, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// create, create2, createContainer, createTTL: the op code says which.
    Create(OpCode, CreateRequest),
    /// delete.
    Delete(PathVersion),
    /// setData.
    SetData(SetDataRequest),
    /// setACL.
    SetAcl(SetAclRequest),
    /// check, within a multi.
    Check(PathVersion),
    /// multi.
    Multi(MultiRequest),
    /// reconfig.
    Reconfig(ReconfigRequest),
}

/// A request that is answered from the local state, decoded. Those that register watches say so in their body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// exists.
    Exists(PathWatch),
    /// getData.
    GetData(PathWatch),
    /// getACL.
    GetAcl(PathOnly),
    /// getChildren.
    GetChildren(PathWatch),
    /// getChildren2.
    GetChildren2(PathWatch),
    /// getEphemerals.
    GetEphemerals(Prefix),
    /// getAllChildrenNumber.
    GetAllChildrenNumber(PathOnly),
    /// multiRead.
    MultiRead(MultiReadRequest),
}

impl Query {
    /// Reads the body of `op`; `None` if that is not a query.
    pub fn decode(op: OpCode, decoder: &mut Decoder<'_>) -> Option<Result<Query, Malformed>> {
        Some(match op {
            OpCode::Exists => PathWatch::decode(decoder).map(Query::Exists),
            OpCode::GetData => PathWatch::decode(decoder).map(Query::GetData),
            OpCode::GetAcl => PathOnly::decode(decoder).map(Query::GetAcl),
            OpCode::GetChildren => PathWatch::decode(decoder).map(Query::GetChildren),
            OpCode::GetChildren2 => PathWatch::decode(decoder).map(Query::GetChildren2),
            OpCode::GetEphemerals => Prefix::decode(decoder).map(Query::GetEphemerals),
            OpCode::GetAllChildrenNumber => PathOnly::decode(decoder).map(Query::GetAllChildrenNumber),
            OpCode::MultiRead => MultiReadRequest::decode(decoder).map(Query::MultiRead),
            _ => return None,
        })
    }

    /// Writes the body.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Query::Exists(body) | Query::GetData(body) | Query::GetChildren(body) | Query::GetChildren2(body) => {
                body.encode(out);
            }
            Query::GetAcl(body) | Query::GetAllChildrenNumber(body) => body.encode(out),
            Query::GetEphemerals(body) => body.encode(out),
            Query::MultiRead(body) => body.encode(out),
        }
    }
}

impl Write {
    /// Reads the body of `op`; `None` if that is not a write of the tree.
    pub fn decode(op: OpCode, decoder: &mut Decoder<'_>) -> Option<Result<Write, Malformed>> {
        Some(match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                CreateRequest::decode(op, decoder).map(|body| Write::Create(op, body))
            }
            OpCode::Delete => PathVersion::decode(decoder).map(Write::Delete),
            OpCode::SetData => SetDataRequest::decode(decoder).map(Write::SetData),
            OpCode::SetAcl => SetAclRequest::decode(decoder).map(Write::SetAcl),
            OpCode::Check => PathVersion::decode(decoder).map(Write::Check),
            OpCode::Multi => MultiRequest::decode(decoder).map(Write::Multi),
            OpCode::Reconfig => ReconfigRequest::decode(decoder).map(Write::Reconfig),
            _ => return None,
        })
    }

    /// Writes the body.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Write::Create(_, body) => body.encode(out),
            Write::Delete(body) | Write::Check(body) => body.encode(out),
            Write::SetData(body) => body.encode(out),
            Write::SetAcl(body) => body.encode(out),
            Write::Multi(body) => body.encode(out),
            Write::Reconfig(body) => body.encode(out),
        }
    }

    /// The op code that this body belongs to.
    pub fn op(&self) -> OpCode {
        match self {
            Write::Create(op, _) => *op,
            Write::Delete(_) => OpCode::Delete,
            Write::SetData(_) => OpCode::SetData,
            Write::SetAcl(_) => OpCode::SetAcl,
            Write::Check(_) => OpCode::Check,
            Write::Multi(_) => OpCode::Multi,
            Write::Reconfig(_) => OpCode::Reconfig,
        }
    }
}
