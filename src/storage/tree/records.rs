//! Every byte that the tree's keyspace holds: keys, and the records under them. Every encoder has its decoder beside it.
//!
//! ```text
//!   meta        01 │ 01                               format, applied (index, term), zxid, digest, membership, extension
//!   salt        01 │ 02                               eight bytes, drawn when the store was created
//!   totals      01 │ 03                               applied (index, term), znodes, bytes of paths and data
//!   ACL list    02 │ id u32                           the list as the caller encodes it
//!   session     03 │ id u64                           timeout, password, owner
//!   znode       04 │ parent │ 00 │ name               stat, and the data if it is short
//!   chunk       05 │ parent │ 00 │ name │ 00 │ n u32  longer data, in pieces
//!   long znode  06 │ fingerprint 20                   as znode, for paths too long for a key
//!   long chunk  07 │ fingerprint 20 │ n u32           parent, name and data of a long znode, in pieces
//!   ephemeral   08 │ session u64 │ path               nothing: that the session holds the ephemeral, unless that is long
//! ```
//!
//! Numbers in keys are big-endian, so that they sort; in records little-endian. A path holds no NUL, so siblings stand side
//! by side, a parent comes before its children, and chunks stand in the order of their znodes.
//!
//! No record in fjall's journal reaches 4 KiB: a page that a power cut left unwritten inside one larger value makes fjall
//! refuse to open (building-blocks §2). So a batch with a large chunk does not go through the journal, and data that may has
//! small ones. Short data stands in its znode's record, which saves half of the records of an ordinary tree; rewriting it with
//! the stat costs at most [`INLINE_BYTES`].
//!
//! Totals and ephemerals can be derived from the znodes: they are there so that a server can serve before it has read
//! those. Servers that do not know them pass them by, and leave them as they were; so they count only if they are of the
//! same applied entry as the meta, and do not change the format's version. They are not sent to peers.

use bytes::{Buf, BufMut, Bytes};
use sha1::{Digest, Sha1};

use crate::storage::log::LogPoint;

/// The version of keys and records. It changes when an older server would misread them.
///
/// Version 2 has large chunks beside the small ones of version 1, and reads both.
pub const FORMAT_VERSION: u32 = 2;

/// The oldest version whose keys and records are read as they are.
pub const OLDEST_FORMAT_VERSION: u32 = 1;

/// Data up to this size, in bytes, stands in its znode's record.
pub(super) const INLINE_BYTES: usize = 1024;

/// Content up to this size, in bytes, stands in small chunks.
const SMALL_CONTENT_BYTES: usize = 4 * 1024;

/// How long chunks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkSize {
    /// Small enough for the journal.
    Small,
    /// Each costs whoever reads it a search, and whoever writes or merges it some work: fewer are better.
    Large,
}

impl ChunkSize {
    pub(super) const fn bytes(self) -> usize {
        match self {
            ChunkSize::Small => 3 * 1024,
            ChunkSize::Large => 64 * 1024,
        }
    }

    /// What it adds to a record's form.
    const fn form(self) -> u8 {
        match self {
            ChunkSize::Small => 0,
            ChunkSize::Large => 2,
        }
    }
}

/// A znode whose parent and name are longer than this together, in bytes, is stored under a fingerprint: fjall's keys
/// end at 64 KiB, a path only at the request's limit.
pub(super) const KEY_PATH_BYTES: usize = 2048;

/// Ephemerals with longer paths than this, in bytes, are not noted: their znodes stand under fingerprints.
pub(super) const EPHEMERAL_PATH_BYTES: usize = KEY_PATH_BYTES + 1;

/// Kinds of keys: the first byte of each. The numbers are on disk: they never change, and none is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum KeyKind {
    /// What the store as a whole is.
    Meta = 1,
    /// A list of rights.
    Acl = 2,
    /// A session.
    Session = 3,
    /// A znode.
    Node = 4,
    /// A piece of a znode's data.
    Chunk = 5,
    /// A znode with a long path.
    LongNode = 6,
    /// A piece of such a znode's parent, name and data.
    LongChunk = 7,
    /// An ephemeral, by its session.
    Ephemeral = 8,
}

impl KeyKind {
    /// The kind of a key.
    pub(super) fn of(key: &[u8]) -> Option<KeyKind> {
        let all = [
            KeyKind::Meta,
            KeyKind::Acl,
            KeyKind::Session,
            KeyKind::Node,
            KeyKind::Chunk,
            KeyKind::LongNode,
            KeyKind::LongChunk,
            KeyKind::Ephemeral,
        ];
        all.into_iter().find(|kind| key.first() == Some(&(*kind as u8)))
    }
}

/// The key of [`Meta`].
pub(super) const META_KEY: [u8; 2] = [KeyKind::Meta as u8, 1];
/// The key of the salt.
pub(super) const SALT_KEY: [u8; 2] = [KeyKind::Meta as u8, 2];

/// The key of [`StoredTotals`].
pub(super) const TOTALS_KEY: [u8; 2] = [KeyKind::Meta as u8, 3];

/// A record that cannot be what this version wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedRecord {
    /// It ends too early, or goes on too long.
    #[error("its length is wrong")]
    Length,
    /// A number that stands for nothing.
    #[error("it has the unknown form {0}")]
    Form(u8),
    /// The key is of no known kind or shape.
    #[error("its key is of no known kind")]
    Key,
    /// A piece of its data is not there.
    #[error("piece {0} of its data is missing")]
    MissingChunk(u32),
}

impl From<bytes::TryGetError> for MalformedRecord {
    fn from(_: bytes::TryGetError) -> MalformedRecord {
        MalformedRecord::Length
    }
}

/// What the store as a whole is: the state after one applied entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// The last applied entry.
    pub applied: LogPoint,
    /// The last zxid.
    pub zxid: i64,
    /// The state's digest.
    pub digest: u64,
    /// The membership as of `applied`, as its owner encodes it.
    pub membership: Bytes,
    /// Whatever else belongs to the state as a whole, as its owner encodes it.
    pub extension: Bytes,
}

impl Meta {
    /// As it is stored, and sent to a peer; begins with the format version.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48 + self.membership.len() + self.extension.len());
        out.put_u32_le(FORMAT_VERSION);
        out.put_u64_le(self.applied.index);
        out.put_u64_le(self.applied.term);
        out.put_i64_le(self.zxid);
        out.put_u64_le(self.digest);
        out.put_u32_le(self.membership.len() as u32);
        out.put_slice(&self.membership);
        out.put_slice(&self.extension);
        out
    }

    /// The format version alone: all that is read of another version's record.
    pub fn format_version(mut record: &[u8]) -> Result<u32, MalformedRecord> {
        Ok(record.try_get_u32_le()?)
    }

    /// The reverse of [`Meta::encode`]; the format version was looked at before.
    pub fn decode(mut record: &[u8]) -> Result<Meta, MalformedRecord> {
        record.try_get_u32_le()?;
        let applied = LogPoint {
            index: record.try_get_u64_le()?,
            term: record.try_get_u64_le()?,
        };
        let zxid = record.try_get_i64_le()?;
        let digest = record.try_get_u64_le()?;
        let membership_bytes = record.try_get_u32_le()? as usize;
        let (membership, extension) = record
            .split_at_checked(membership_bytes)
            .ok_or(MalformedRecord::Length)?;
        Ok(Meta {
            applied,
            zxid,
            digest,
            membership: Bytes::copy_from_slice(membership),
            extension: Bytes::copy_from_slice(extension),
        })
    }
}

/// How much there is, as of one applied entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoredTotals {
    /// The entry.
    pub applied: LogPoint,
    /// Znodes.
    pub nodes: u64,
    /// Bytes of all paths and data.
    pub data_bytes: u64,
}

impl StoredTotals {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        for number in [self.applied.index, self.applied.term, self.nodes, self.data_bytes] {
            out.put_u64_le(number);
        }
        out
    }

    pub(super) fn decode(mut record: &[u8]) -> Result<StoredTotals, MalformedRecord> {
        Ok(StoredTotals {
            applied: LogPoint {
                index: record.try_get_u64_le()?,
                term: record.try_get_u64_le()?,
            },
            nodes: record.try_get_u64_le()?,
            data_bytes: record.try_get_u64_le()?,
        })
    }
}

/// What is kept of a znode besides its path and data; the fields of ZooKeeper's persisted stat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeStat {
    /// zxid that created it.
    pub czxid: i64,
    /// zxid that last set its data.
    pub mzxid: i64,
    /// zxid of the last creation or deletion of a child.
    pub pzxid: i64,
    /// When it was created, ms since 1970.
    pub ctime_ms: i64,
    /// When its data was last set, ms since 1970.
    pub mtime_ms: i64,
    /// The ephemeral owner, raw: sessions, and the marks of container and TTL znodes.
    pub owner: i64,
    /// How often its data was set.
    pub version: i32,
    /// How often a child was created.
    pub creates: i32,
    /// How often its rights were set.
    pub aversion: i32,
    /// Its list of rights.
    pub acl_id: u32,
}

/// Bytes of an encoded stat.
const STAT_BYTES: usize = 6 * 8 + 3 * 4 + 4;

impl NodeStat {
    fn put(&self, out: &mut Vec<u8>) {
        for number in [
            self.czxid,
            self.mzxid,
            self.pzxid,
            self.ctime_ms,
            self.mtime_ms,
            self.owner,
        ] {
            out.put_i64_le(number);
        }
        for number in [self.version, self.creates, self.aversion] {
            out.put_i32_le(number);
        }
        out.put_u32_le(self.acl_id);
    }

    fn take(record: &mut &[u8]) -> Result<NodeStat, MalformedRecord> {
        if record.len() < STAT_BYTES {
            return Err(MalformedRecord::Length);
        }
        Ok(NodeStat {
            czxid: record.get_i64_le(),
            mzxid: record.get_i64_le(),
            pzxid: record.get_i64_le(),
            ctime_ms: record.get_i64_le(),
            mtime_ms: record.get_i64_le(),
            owner: record.get_i64_le(),
            version: record.get_i32_le(),
            creates: record.get_i32_le(),
            aversion: record.get_i32_le(),
            acl_id: record.get_u32_le(),
        })
    }
}

/// Where a znode's data is. Null is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoredData<'a> {
    /// It has none.
    Null,
    /// Here.
    Inline(&'a [u8]),
    /// In the chunks (for a long znode: with its path).
    Chunked(Content),
    /// The chunks hold a long path, and no data.
    ChunkedNull(Content),
}

/// What chunks hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) bytes: u32,
    pub(super) chunk_size: ChunkSize,
}

impl Content {
    /// As content of so many bytes is written.
    pub(super) fn of(bytes: usize) -> Content {
        Content {
            bytes: bytes as u32,
            chunk_size: if bytes > SMALL_CONTENT_BYTES {
                ChunkSize::Large
            } else {
                ChunkSize::Small
            },
        }
    }

    /// How many chunks there are.
    pub(super) fn chunks(self) -> u32 {
        self.bytes.div_ceil(self.chunk_size.bytes() as u32)
    }

    /// Bytes up to the end of the chunk of this number.
    pub(super) fn end_of(self, number: u32) -> usize {
        (self.bytes as usize).min((number as usize + 1) * self.chunk_size.bytes())
    }
}

impl StoredData<'_> {
    /// How many chunks there are.
    pub(super) fn chunks(self) -> u32 {
        match self {
            StoredData::Null | StoredData::Inline(_) => 0,
            StoredData::Chunked(content) | StoredData::ChunkedNull(content) => content.chunks(),
        }
    }

    fn form(self) -> u8 {
        match self {
            StoredData::Null => 0,
            StoredData::Inline(_) => 1,
            StoredData::Chunked(content) => 2 + content.chunk_size.form(),
            StoredData::ChunkedNull(content) => 3 + content.chunk_size.form(),
        }
    }
}

/// A znode's record.
pub(super) fn encode_node(stat: &NodeStat, data: StoredData<'_>) -> Vec<u8> {
    let inline_bytes = if let StoredData::Inline(bytes) = data {
        bytes.len()
    } else {
        4
    };
    let mut out = Vec::with_capacity(1 + STAT_BYTES + inline_bytes);
    out.put_u8(data.form());
    stat.put(&mut out);
    match data {
        StoredData::Null => {}
        StoredData::Inline(bytes) => out.put_slice(bytes),
        StoredData::Chunked(content) | StoredData::ChunkedNull(content) => out.put_u32_le(content.bytes),
    }
    out
}

/// The reverse of [`encode_node`].
pub(super) fn decode_node(mut record: &[u8]) -> Result<(NodeStat, StoredData<'_>), MalformedRecord> {
    let form = record.try_get_u8()?;
    let stat = NodeStat::take(&mut record)?;
    let mut content = |chunk_size| {
        let bytes = record.try_get_u32_le()?;
        Ok::<Content, MalformedRecord>(Content { bytes, chunk_size })
    };
    let data = match form {
        0 => StoredData::Null,
        1 => return Ok((stat, StoredData::Inline(record))),
        2 => StoredData::Chunked(content(ChunkSize::Small)?),
        3 => StoredData::ChunkedNull(content(ChunkSize::Small)?),
        4 => StoredData::Chunked(content(ChunkSize::Large)?),
        5 => StoredData::ChunkedNull(content(ChunkSize::Large)?),
        other => return Err(MalformedRecord::Form(other)),
    };
    if record.is_empty() {
        Ok((stat, data))
    } else {
        Err(MalformedRecord::Length)
    }
}

/// A session, whose id is in its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its id.
    pub id: i64,
    /// The negotiated timeout.
    pub timeout_ms: i32,
    /// Who has it may resume the session.
    pub password: [u8; 16],
    /// Who may write on its behalf, as its owner encodes it.
    pub owner: Bytes,
}

impl SessionRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20 + self.owner.len());
        out.put_i32_le(self.timeout_ms);
        out.put_slice(&self.password);
        out.put_slice(&self.owner);
        out
    }

    pub(super) fn decode(id: i64, mut record: &[u8]) -> Result<SessionRecord, MalformedRecord> {
        let timeout_ms = record.try_get_i32_le()?;
        let (password, owner) = record.split_first_chunk().ok_or(MalformedRecord::Length)?;
        Ok(SessionRecord {
            id,
            timeout_ms,
            password: *password,
            owner: Bytes::copy_from_slice(owner),
        })
    }
}

/// The key of a session.
pub(super) fn session_key(id: i64) -> Vec<u8> {
    let mut key = vec![KeyKind::Session as u8];
    key.put_i64(id);
    key
}

/// The reverse of [`session_key`].
pub(super) fn session_id(key: &[u8]) -> Result<i64, MalformedRecord> {
    let id = key.get(1..).and_then(|id| id.try_into().ok());
    id.map(i64::from_be_bytes).ok_or(MalformedRecord::Key)
}

/// The key of an ephemeral.
pub(super) fn ephemeral_key(session: i64, path: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + path.len());
    key.put_u8(KeyKind::Ephemeral as u8);
    key.put_i64(session);
    key.put_slice(path);
    key
}

/// The reverse of [`ephemeral_key`].
pub(super) fn ephemeral_path(key: &[u8]) -> Result<(i64, &[u8]), MalformedRecord> {
    let (session, path) = key
        .get(1..)
        .and_then(|rest| rest.split_first_chunk())
        .ok_or(MalformedRecord::Key)?;
    Ok((i64::from_be_bytes(*session), path))
}

/// The key of a list of rights.
pub(super) fn acl_key(id: u32) -> Vec<u8> {
    let mut key = vec![KeyKind::Acl as u8];
    key.put_u32(id);
    key
}

/// The reverse of [`acl_key`].
pub(super) fn acl_id(key: &[u8]) -> Result<u32, MalformedRecord> {
    let id = key.get(1..).and_then(|id| id.try_into().ok());
    id.map(u32::from_be_bytes).ok_or(MalformedRecord::Key)
}

/// Where a znode is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeKey {
    /// The key of its record.
    pub(super) key: Vec<u8>,
    /// Whether its path stands in chunks.
    pub(super) is_long: bool,
}

impl NodeKey {
    /// The key of the znode `name` below `parent`; both empty for the root. Neither may hold a NUL.
    pub(super) fn new(parent: &[u8], name: &[u8], salt: u64) -> NodeKey {
        let path_bytes = parent.len() + name.len();
        if path_bytes > KEY_PATH_BYTES {
            // The salt keeps clients from making two paths with one fingerprint.
            let digest = Sha1::new().chain_update(salt.to_le_bytes());
            let fingerprint = digest
                .chain_update(parent)
                .chain_update([0])
                .chain_update(name)
                .finalize();
            let key = [&[KeyKind::LongNode as u8], fingerprint.as_slice()].concat();
            return NodeKey { key, is_long: true };
        }
        let mut key = Vec::with_capacity(2 + path_bytes);
        key.put_u8(KeyKind::Node as u8);
        key.put_slice(parent);
        key.put_u8(0);
        key.put_slice(name);
        NodeKey { key, is_long: false }
    }

    /// The key of its `number`th chunk.
    pub(super) fn chunk(&self, number: u32) -> Vec<u8> {
        let mut key = chunk_prefix(&self.key);
        key.put_u32(number);
        key
    }
}

/// What the keys of a znode's chunks begin with; `key` is the znode's.
pub(super) fn chunk_prefix(key: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(key.len() + 5);
    if key.first() == Some(&(KeyKind::LongNode as u8)) {
        prefix.put_u8(KeyKind::LongChunk as u8);
        prefix.put_slice(&key[1..]);
    } else {
        prefix.put_u8(KeyKind::Chunk as u8);
        prefix.put_slice(key.get(1..).unwrap_or_default());
        prefix.put_u8(0);
    }
    prefix
}

/// Parent and name of a [`KeyKind::Node`] key.
pub(super) fn node_path(key: &[u8]) -> Result<(&[u8], &[u8]), MalformedRecord> {
    let path = key.get(1..).ok_or(MalformedRecord::Key)?;
    let separator = path.iter().position(|byte| *byte == 0).ok_or(MalformedRecord::Key)?;
    Ok((&path[..separator], &path[separator + 1..]))
}

/// What the chunks of a long znode hold.
pub(super) fn encode_long_content(parent: &[u8], name: &[u8], data: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(8 + parent.len() + name.len() + data.len());
    content.put_u32_le(parent.len() as u32);
    content.put_u32_le(name.len() as u32);
    content.put_slice(parent);
    content.put_slice(name);
    content.put_slice(data);
    content
}

/// What [`encode_long_content`] was given: parent, name and data.
type LongContent<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// The reverse of [`encode_long_content`].
pub(super) fn decode_long_content(mut content: &[u8]) -> Result<LongContent<'_>, MalformedRecord> {
    let parent_bytes = content.try_get_u32_le()? as usize;
    let name_bytes = content.try_get_u32_le()? as usize;
    let (parent, content) = content.split_at_checked(parent_bytes).ok_or(MalformedRecord::Length)?;
    let (name, data) = content.split_at_checked(name_bytes).ok_or(MalformedRecord::Length)?;
    Ok((parent, name, data))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_stat() -> impl Strategy<Value = NodeStat> {
        let zxids = any::<(i64, i64, i64)>();
        let times = any::<(i64, i64, i64)>();
        let versions = any::<(i32, i32, i32, u32)>();
        (zxids, times, versions).prop_map(
            |((czxid, mzxid, pzxid), (ctime_ms, mtime_ms, owner), versions)| NodeStat {
                czxid,
                mzxid,
                pzxid,
                ctime_ms,
                mtime_ms,
                owner,
                version: versions.0,
                creates: versions.1,
                aversion: versions.2,
                acl_id: versions.3,
            },
        )
    }

    fn any_bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..most)
    }

    fn any_name() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(1u8..=255, 1..12)
    }

    proptest! {
        #[test]
        fn a_znode_comes_back_as_it_went(stat in any_stat(), data in any_bytes(300), form in 0..4, bytes in any::<u32>(), is_large in any::<bool>()) {
            let chunk_size = if is_large { ChunkSize::Large } else { ChunkSize::Small };
            let content = Content { bytes, chunk_size };
            let data = match form {
                0 => StoredData::Null,
                1 => StoredData::Inline(&data),
                2 => StoredData::Chunked(content),
                _ => StoredData::ChunkedNull(content),
            };
            let record = encode_node(&stat, data);
            prop_assert_eq!(decode_node(&record), Ok((stat, data)));
        }

        #[test]
        fn meta_and_sessions_come_back_as_they_went(
            numbers in any::<(u64, u64, i64, u64)>(), membership in any_bytes(50), extension in any_bytes(50),
            id in any::<i64>(), timeout_ms in any::<i32>(), password in any::<[u8; 16]>(),
        ) {
            let (index, term, zxid, digest) = numbers;
            let applied = LogPoint { index, term };
            let (owner, extension) = (Bytes::from(extension.clone()), Bytes::from(extension));
            let meta = Meta { applied, zxid, digest, membership: membership.into(), extension };
            prop_assert_eq!(Meta::decode(&meta.encode()), Ok(meta));
            let session = SessionRecord { id, timeout_ms, password, owner };
            prop_assert_eq!(session_id(&session_key(id)), Ok(id));
            prop_assert_eq!(SessionRecord::decode(id, &session.encode()), Ok(session));
            let totals = StoredTotals { applied, nodes: term, data_bytes: digest };
            prop_assert_eq!(StoredTotals::decode(&totals.encode()), Ok(totals));
        }

        #[test]
        fn paths_come_back_from_keys(parent in any_name(), name in any_name(), acl in any::<u32>()) {
            let key = NodeKey::new(&parent, &name, 7);
            prop_assert_eq!(node_path(&key.key), Ok((&parent[..], &name[..])));
            prop_assert_eq!(KeyKind::of(&key.key), Some(KeyKind::Node));
            prop_assert_eq!(acl_id(&acl_key(acl)), Ok(acl));
            let ephemeral = ephemeral_key(i64::from(acl) - 7, &parent);
            prop_assert_eq!(ephemeral_path(&ephemeral), Ok((i64::from(acl) - 7, &parent[..])));
            prop_assert_eq!(KeyKind::of(&ephemeral), Some(KeyKind::Ephemeral));
            let content = encode_long_content(&parent, &name, &parent);
            prop_assert_eq!(decode_long_content(&content), Ok((&parent[..], &name[..], &parent[..])));
        }

        #[test]
        fn chunks_stand_in_the_order_of_their_znodes(
            first in (any_name(), any_name()), second in (any_name(), any_name()), number in any::<u32>(),
        ) {
            let first = NodeKey::new(&first.0, &first.1, 7);
            let second = NodeKey::new(&second.0, &second.1, 7);
            if first != second {
                prop_assert_eq!(first.key < second.key, first.chunk(number) < second.chunk(0));
            }
        }

        #[test]
        fn any_bytes_decode_or_are_refused(record in any_bytes(200)) {
            let _ = (Meta::decode(&record), decode_node(&record), SessionRecord::decode(1, &record));
            let _ = (decode_long_content(&record), node_path(&record), session_id(&record), acl_id(&record));
            let _ = (StoredTotals::decode(&record), ephemeral_path(&record));
        }
    }

    #[test]
    fn a_parent_stands_before_its_children() {
        let path = |parent: &str, name: &str| NodeKey::new(parent.as_bytes(), name.as_bytes(), 7).key;
        let sorted = [
            path("", ""),
            path("/", "a"),
            path("/", "a-b"),
            path("/", "b"),
            path("/a", "x"),
            path("/a-b", "x"),
            path("/a/x", "y"),
        ];
        assert!(sorted.is_sorted());
    }

    #[test]
    fn no_record_of_the_journal_reaches_the_size_that_a_torn_page_can_hide_in() {
        let node = encode_node(&NodeStat::default(), StoredData::Inline(&[0; INLINE_BYTES])).len();
        let largest = node.max(ChunkSize::Small.bytes());
        assert!(largest + KEY_PATH_BYTES < 6 * 1024 && largest < 4096);
    }
}
