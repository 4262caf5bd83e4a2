//! Who may run the commands that touch data: who has every right on the root znode, by the header `Authorization`.

use crate::proto::request::AuthRequest;
use crate::proto::{Permissions, Text};
use crate::server::{Shared, authentication};
use bytes::Bytes;
use std::net::IpAddr;

/// Why a command is not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error("Auth info is missing for the command")]
    NoCredentials,
    #[error("Not authenticated")]
    NotAuthenticated,
    #[error("Not authorized")]
    NotAuthorized,
}

/// Every right, one by one: each may come from another entry of the ACL.
const RIGHTS: [Permissions; 5] = [
    Permissions::READ,
    Permissions::WRITE,
    Permissions::CREATE,
    Permissions::DELETE,
    Permissions::ADMIN,
];

/// Checks a header like `digest user:password`, or `ip`.
pub(super) fn check(shared: &Shared, authorization: Option<&str>, peer: IpAddr) -> Result<(), Denied> {
    let request = credentials(authorization.ok_or(Denied::NoCredentials)?)?;
    let address = peer.to_canonical().to_string();
    let identities =
        authentication::authenticate(&request, &address, &shared.settings).map_err(|_| Denied::NotAuthenticated)?;
    if shared.settings.skip_acl {
        return Ok(());
    }
    let acl = shared.state.read().acl_of("/").ok_or(Denied::NotAuthorized)?;
    if RIGHTS.iter().all(|right| acl.permits(*right, &identities)) {
        Ok(())
    } else {
        Err(Denied::NotAuthorized)
    }
}

fn credentials(authorization: &str) -> Result<AuthRequest, Denied> {
    let mut parts = authorization.split(' ');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(scheme), auth, None) if !scheme.is_empty() => Ok(AuthRequest {
            kind: 0,
            scheme: Text::from(scheme),
            auth: auth.map(|auth| Bytes::copy_from_slice(auth.as_bytes())),
        }),
        _ => Err(Denied::NotAuthenticated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_scheme_and_at_most_one_more_word() {
        let parsed = credentials("digest user:password").unwrap();
        assert_eq!(parsed.scheme.as_str(), "digest");
        assert_eq!(parsed.auth.as_deref(), Some(&b"user:password"[..]));
        assert_eq!(credentials("ip").unwrap().auth, None);
        for wrong in ["", " ", "digest a b"] {
            assert!(credentials(wrong).is_err(), "{wrong:?}");
        }
    }
}
