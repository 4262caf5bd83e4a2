//! Auth packets: what turns a client's credentials into identities of its connection.
//!
//! Schemes: `digest` (any credentials give an identity; those of `superDigest` give `super` as well) and `ip` (the address,
//! which every connection has from the start). `world` and `auth` are words of ACLs and cannot be authenticated; `sasl`
//! has a request of its own.
//!
//! Source: Apache's `DigestAuthenticationProvider`, `IPAuthenticationProvider`.

use super::settings::Settings;
use crate::proto::Identity;
use crate::proto::request::AuthRequest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::Digest as _;

/// `DigestAuthenticationProvider.digestAlg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DigestAlgorithm {
    /// ZooKeeper's default.
    #[default]
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
    /// SHA3-256.
    Sha3With256Bits,
}

/// The credentials were refused: the client is told AUTHFAILED, and gives up for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the scheme is unknown or refuses the credentials")]
pub(super) struct Refused;

/// The identities that an auth packet adds to a connection from `address`.
pub(super) fn authenticate(
    request: &AuthRequest,
    address: &str,
    settings: &Settings,
) -> Result<Vec<Identity>, Refused> {
    match request.scheme.as_str() {
        "digest" if settings.digest_enabled => {
            // Empty credentials are some, null ones are none.
            let credentials = request.auth.as_deref().ok_or(Refused)?;
            let id = digest_id(credentials, settings.digest_algorithm);
            let mut identities = Vec::with_capacity(2);
            if settings.super_digest.as_deref() == Some(id.as_str()) {
                identities.push(Identity::new("super", ""));
            }
            identities.push(Identity::new("digest", &id));
            Ok(identities)
        }
        "ip" => Ok(vec![Identity::new("ip", address)]),
        _ => Err(Refused),
    }
}

/// `user:base64(hash("user:password"))`.
pub fn digest_id(credentials: &[u8], algorithm: DigestAlgorithm) -> String {
    let hash = match algorithm {
        DigestAlgorithm::Sha1 => STANDARD.encode(sha1::Sha1::digest(credentials)),
        DigestAlgorithm::Sha256 => STANDARD.encode(sha2::Sha256::digest(credentials)),
        DigestAlgorithm::Sha512 => STANDARD.encode(sha2::Sha512::digest(credentials)),
        DigestAlgorithm::Sha3With256Bits => STANDARD.encode(sha3::Sha3_256::digest(credentials)),
    };
    let user = credentials.split(|byte| *byte == b':').next().unwrap_or_default();
    format!("{}:{hash}", String::from_utf8_lossy(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_zookeepers() {
        // From ZooKeeper's documentation of `super:password`-like examples: sha1 of "user:password".
        let id = digest_id(b"super:admin", DigestAlgorithm::Sha1);
        assert_eq!(id, "super:xQJmxLMiHGwaqBvst5y6rkB6HQs=");
    }
}
