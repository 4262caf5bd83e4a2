//! The bytes of a znode's data: eight bytes in the znode, and one allocation of their own.

use bytes::Bytes;
use std::fmt;
use std::ops::Deref;
use triomphe::ThinArc;

/// Bytes that are shared between the tree and the checkpoints that write them: cheap to clone, whatever they weigh.
///
/// Not `Bytes`, which takes 32 bytes in the znode, and another 24 of its own as soon as a checkpoint has cloned it; not
/// `Arc<[u8]>`, which takes 16. Empty ones take no memory.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Value(Option<ThinArc<(), u8>>);

impl From<&[u8]> for Value {
    /// A copy, never a part of something larger that it would keep alive.
    fn from(bytes: &[u8]) -> Value {
        Value((!bytes.is_empty()).then(|| ThinArc::from_header_and_slice((), bytes)))
    }
}

impl Value {
    /// The same bytes, without a copy; costs an allocation.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for Value {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |shared| &shared.slice)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "b\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_take_a_word_in_their_owner() {
        assert_eq!((size_of::<Value>(), size_of::<Option<Value>>()), (8, 16));
        for bytes in [&b""[..], b"x", &[7; 3000]] {
            let value = Value::from(bytes);
            assert_eq!((&*value, &*value.clone(), &value.to_bytes()[..]), (bytes, bytes, bytes));
        }
        assert_eq!(format!("{:?}", Value::from(&b"a\0"[..])), "b\"a\\x00\"");
    }
}
