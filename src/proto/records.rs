//! Records that requests, replies and the tree share: Stat, ACL, identities.

use super::jute::{Decoder, Encode, Malformed, Text};
use super::{SessionId, Zxid};
use bytes::BytesMut;

/// The rights of an ACL entry, as bits ([`Permissions::READ`]…). Unknown bits are kept as they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Permissions(pub i32);

impl Permissions {
    /// Read data and Stat, list children.
    pub const READ: Permissions = Permissions(1);
    /// Set data.
    pub const WRITE: Permissions = Permissions(2);
    /// Create children.
    pub const CREATE: Permissions = Permissions(4);
    /// Delete children.
    pub const DELETE: Permissions = Permissions(8);
    /// Set the ACL.
    pub const ADMIN: Permissions = Permissions(16);
    /// All of them.
    pub const ALL: Permissions = Permissions(31);

    /// Whether any of the `wanted` rights is among these.
    pub fn intersects(self, wanted: Permissions) -> bool {
        self.0 & wanted.0 != 0
    }

    /// Either of the two.
    #[must_use]
    pub fn or(self, other: Permissions) -> Permissions {
        Permissions(self.0 | other.0)
    }
}

/// Who somebody is, in one scheme: an entry of an ACL names one, a connection has several.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `world`, `auth`, `digest`, `ip`, `super`, `x509`, `sasl`.
    pub scheme: Text,
    /// What the scheme calls him, such as `anyone`, `user:hash`, `10.0.0.0/8`.
    pub id: Text,
}

impl Identity {
    /// Fewest bytes on the wire: two empty strings.
    pub const LEAST_BYTES: usize = 8;

    /// An identity from two strings.
    pub fn new(scheme: &str, id: &str) -> Identity {
        Identity {
            scheme: scheme.into(),
            id: id.into(),
        }
    }

    /// `world:anyone`.
    pub const fn anyone() -> Identity {
        Identity {
            scheme: Text::from_static("world"),
            id: Text::from_static("anyone"),
        }
    }

    /// Reads one. A scheme that is null is one that nobody knows, like the empty one: the list is refused as an invalid
    /// one, not as malformed, and its id does not matter. Nor does that of `auth`, which kazoo writes as null.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Identity, Malformed> {
        let is_scheme_null = decoder.is_null();
        let scheme = decoder.text_or_empty()?;
        let id = if is_scheme_null || scheme.as_str() == "auth" {
            decoder.text_or_empty()?
        } else {
            decoder.text()?
        };
        Ok(Identity { scheme, id })
    }

    /// Writes it.
    pub fn encode(&self, out: &mut BytesMut) {
        out.write_text(&self.scheme);
        out.write_text(&self.id);
    }
}

/// An entry of an access control list: these rights for that identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acl {
    /// The rights.
    pub permissions: Permissions,
    /// Whose they are.
    pub identity: Identity,
}

impl Acl {
    /// Fewest bytes on the wire.
    pub const LEAST_BYTES: usize = 4 + Identity::LEAST_BYTES;

    /// Everything for everybody (`world:anyone:cdrwa`).
    pub const fn open() -> Acl {
        Acl {
            permissions: Permissions::ALL,
            identity: Identity::anyone(),
        }
    }

    /// Reads one.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Acl, Malformed> {
        Ok(Acl {
            permissions: Permissions(decoder.int()?),
            identity: Identity::decode(decoder)?,
        })
    }

    /// Writes it.
    pub fn encode(&self, out: &mut BytesMut) {
        out.write_int(self.permissions.0);
        self.identity.encode(out);
    }

    /// Reads a list; null counts as empty, which no operation accepts.
    pub fn decode_list(decoder: &mut Decoder<'_>) -> Result<Option<Vec<Acl>>, Malformed> {
        decoder.vector(Acl::LEAST_BYTES, Acl::decode)
    }

    /// Writes a list; `None` is null.
    pub fn encode_list(list: Option<&[Acl]>, out: &mut BytesMut) {
        let Some(list) = list else { return out.write_int(-1) };
        out.write_count(list.len());
        for acl in list {
            acl.encode(out);
        }
    }
}

/// What a client sees of a znode besides its data. Field order is wire order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// zxid that created it.
    pub czxid: Zxid,
    /// zxid that last set its data.
    pub mzxid: Zxid,
    /// When it was created: the leader's wall clock, ms since 1970.
    pub ctime: i64,
    /// When its data was last set: likewise.
    pub mtime: i64,
    /// How often its data was set. May wrap.
    pub version: i32,
    /// How often a child was created or deleted. May wrap.
    pub cversion: i32,
    /// How often its ACL was set. May wrap.
    pub aversion: i32,
    /// Its session, if it is an ephemeral; 0 for all others, containers and TTL znodes included.
    pub ephemeral_owner: SessionId,
    /// Bytes of data; 0 for null.
    pub data_length: i32,
    /// Number of children.
    pub num_children: i32,
    /// zxid of the last creation or deletion of a child.
    pub pzxid: Zxid,
}

impl Stat {
    /// Bytes on the wire, always.
    pub const BYTES: usize = 68;

    /// Reads one.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Stat, Malformed> {
        Ok(Stat {
            czxid: Zxid(decoder.long()?),
            mzxid: Zxid(decoder.long()?),
            ctime: decoder.long()?,
            mtime: decoder.long()?,
            version: decoder.int()?,
            cversion: decoder.int()?,
            aversion: decoder.int()?,
            ephemeral_owner: SessionId(decoder.long()?),
            data_length: decoder.int()?,
            num_children: decoder.int()?,
            pzxid: Zxid(decoder.long()?),
        })
    }

    /// Writes it.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(Stat::BYTES);
        out.write_long(self.czxid.0);
        out.write_long(self.mzxid.0);
        out.write_long(self.ctime);
        out.write_long(self.mtime);
        out.write_int(self.version);
        out.write_int(self.cversion);
        out.write_int(self.aversion);
        out.write_long(self.ephemeral_owner.0);
        out.write_int(self.data_length);
        out.write_int(self.num_children);
        out.write_long(self.pzxid.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(scheme: &str) -> Result<Identity, Malformed> {
        let mut out = BytesMut::new();
        out.write_text(scheme);
        out.write_int(-1);
        Identity::decode(&mut Decoder::new(&out.freeze()))
    }

    #[test]
    fn a_null_id_is_taken_only_where_nobody_looks_at_it() {
        assert_eq!(decoded("auth"), Ok(Identity::new("auth", "")));
        assert_eq!(decoded("world"), Err(Malformed::UnexpectedNull));
    }
}
