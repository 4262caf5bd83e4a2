//! Auth packets and SASL tokens: what turns a client's credentials into identities of its connection.
//!
//! Schemes: `digest` (any credentials give an identity; those of `superDigest` give `super` as well) and `ip` (the address,
//! which every connection has from the start). `world` and `auth` are words of ACLs and cannot be authenticated; `sasl`
//! has a request of its own (see [`super::sasl`]).
//!
//! Source: Apache's `DigestAuthenticationProvider`, `IPAuthenticationProvider`.

use super::local::Local;
use super::pending::{Closing, Kind};
use super::pipeline::{Pipeline, Surroundings, last};
use super::settings::Settings;
use crate::proto::request::{AuthRequest, SaslRequest};
use crate::proto::{Decoder, ErrorCode, Identity, Zxid};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::Digest as _;
use std::sync::atomic::Ordering::Relaxed;

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
pub struct Refused;

impl Pipeline {
    /// `enforce.auth` and `sessionRequireClientSASLAuth`: whether the connection has an identity of a scheme that will do.
    pub(super) fn may_speak(&self, settings: &Settings) -> bool {
        settings.required_schemes.is_empty()
            || self.identities.iter().any(|identity| {
                settings
                    .required_schemes
                    .iter()
                    .any(|scheme| scheme.as_str() == identity.scheme.as_str())
            })
    }

    /// Where it comes from, as the `ip` scheme writes it: an identity that every connection has from the start.
    fn address(&self) -> &str {
        let ip = self.identities.iter().find(|identity| identity.scheme.as_str() == "ip");
        ip.map_or("", |identity| identity.id.as_str())
    }

    /// New identities count from the next request on.
    pub(super) fn auth(&mut self, decoder: &mut Decoder<'_>, surroundings: &Surroundings<'_>) -> Result<Kind, Closing> {
        let request = AuthRequest::decode(decoder).map_err(Closing::BadAuth)?;
        Ok(match authenticate(&request, self.address(), surroundings.settings) {
            Ok(new) => {
                self.add_identities(new);
                self.answered(Ok(()))
            }
            Err(refused) => {
                surroundings.statistics.auth_failed.fetch_add(1, Relaxed);
                tracing::warn!(session = %self.session, scheme = %request.scheme, "authentication failed: {refused}");
                last(ErrorCode::AuthFailed, Zxid(0), Closing::AuthenticationFailed)
            }
        })
    }

    /// As with auth packets, new identities count from the next request on. Where SASL is not set up, the client is
    /// answered without a token, and goes on without.
    pub(super) fn sasl(&mut self, decoder: &mut Decoder<'_>, surroundings: &Surroundings<'_>) -> Result<Kind, Closing> {
        let request = SaslRequest::decode(decoder).map_err(Closing::BadAuth)?;
        let token = match &surroundings.settings.sasl {
            None => None,
            Some(users) => match self.sasl.step(request.token.as_deref().unwrap_or_default(), users) {
                Ok(step) => {
                    self.add_identities(step.identities);
                    Some(step.token)
                }
                Err(refusal) => {
                    surroundings.statistics.auth_failed.fetch_add(1, Relaxed);
                    tracing::warn!(session = %self.session, "SASL authentication failed: {refusal}");
                    let required = surroundings
                        .settings
                        .required_schemes
                        .iter()
                        .any(|scheme| scheme == "sasl");
                    if required || !users.allow_failed {
                        return Ok(sasl_failed(required));
                    }
                    None
                }
            },
        };
        Ok(Kind::Local {
            request: Local::SaslToken(token),
            identities: self.identities.clone(),
        })
    }

    /// Adds what a connection has proven to be; what it has proven before stays.
    pub(super) fn add_identities(&mut self, new: Vec<Identity>) {
        let mut identities = self.identities.to_vec();
        for identity in new {
            if !identities.contains(&identity) {
                identities.push(identity);
            }
        }
        self.identities = identities.into();
    }
}

/// The only error that has a body.
fn sasl_failed(required: bool) -> Kind {
    let (error, closing) = if required {
        (ErrorCode::SessionClosedRequireSaslAuth, Closing::AuthenticationRequired)
    } else {
        (ErrorCode::AuthFailed, Closing::AuthenticationFailed)
    };
    Kind::Last {
        error: Some(error),
        zxid: Some(Zxid(0)),
        null_token: true,
        closing,
    }
}

/// The identities that an auth packet adds to a connection from `address`.
pub fn authenticate(request: &AuthRequest, address: &str, settings: &Settings) -> Result<Vec<Identity>, Refused> {
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
