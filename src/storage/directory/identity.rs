//! Who a data directory belongs to, and the file that says so.

use std::fmt;

use crate::storage::sealed::seal;

/// The version of the layout and of the identity's file.
pub(super) const FORMAT_VERSION: u32 = 1;

const FIRST_LINE: &str = "Menagerie: do not edit, do not copy into another server's directory";

/// Who a data directory belongs to. Peers exchange it before anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The ensemble: a random number, drawn when it was founded; 0 as long as this member is of no ensemble yet.
    pub cluster_id: u64,
    /// The member: ZooKeeper's myid.
    pub server_id: u64,
    /// The member's life: a random number, drawn when this directory was created. A member that comes back with another
    /// one has lost what it had promised.
    pub incarnation: u64,
}

impl Identity {
    pub(super) fn encode(&self) -> String {
        let Identity {
            cluster_id,
            server_id,
            incarnation,
        } = self;
        let body = format!(
            "{FIRST_LINE}\nformat={FORMAT_VERSION}\ncluster={cluster_id:016x}\nserver={server_id}\nincarnation={incarnation:016x}\n"
        );
        seal(&body)
    }

    pub(super) fn decode(text: &str) -> Result<Identity, IdentityFault> {
        let mut values = [None; 5];
        for (line, number) in text.lines().zip(0..) {
            let found = match (number, line.split_once('=')) {
                (0, _) if line == FIRST_LINE => continue,
                (1, Some(("format", value))) => value.parse().ok(),
                (2, Some(("cluster", value))) | (4, Some(("incarnation", value))) => {
                    u64::from_str_radix(value, 16).ok()
                }
                (3, Some(("server", value))) => value.parse().ok(),
                (5, Some(("checksum", value))) => u64::from_str_radix(value, 16).ok(),
                _ => None,
            };
            let Some(found) = found else {
                return Err(IdentityFault::Unreadable);
            };
            if number == 1 && found != u64::from(FORMAT_VERSION) {
                return Err(IdentityFault::Format(found));
            }
            values[number - 1] = Some(found);
        }
        let [Some(_), Some(cluster_id), Some(server_id), Some(incarnation), Some(_)] = values else {
            return Err(IdentityFault::Unreadable);
        };
        let identity = Identity {
            cluster_id,
            server_id,
            incarnation,
        };
        if identity.encode() == text {
            Ok(identity)
        } else {
            Err(IdentityFault::Unreadable)
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity {
            cluster_id,
            server_id,
            incarnation,
        } = self;
        if *cluster_id == 0 {
            write!(
                formatter,
                "server {server_id} of no ensemble yet, incarnation {incarnation:016x}"
            )
        } else {
            write!(
                formatter,
                "server {server_id} of ensemble {cluster_id:016x}, incarnation {incarnation:016x}"
            )
        }
    }
}

pub(super) enum IdentityFault {
    Unreadable,
    Format(u64),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_identity_comes_back_as_it_went(numbers in any::<(u64, u64, u64)>(), at in any::<prop::sample::Index>(), byte in 0u8..128) {
            let (cluster_id, server_id, incarnation) = numbers;
            let identity = Identity { cluster_id, server_id, incarnation };
            let text = identity.encode();
            prop_assert!(matches!(Identity::decode(&text), Ok(decoded) if decoded == identity));
            let mut damaged = text.clone().into_bytes();
            let at = at.index(damaged.len());
            damaged[at] = byte;
            let damaged = String::from_utf8(damaged).expect("ASCII");
            prop_assert!(damaged == text || Identity::decode(&damaged).is_err());
        }
    }
}
