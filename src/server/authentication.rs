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

/// Identities of one connection at most, and bytes of their schemes and ids together: each of its writes carries them all into
/// the log. Credentials beyond that are refused.
pub const IDENTITIES: usize = 128;
/// See [`IDENTITIES`].
pub const IDENTITY_BYTES: usize = 16 << 10;

/// Characters of a scheme that the log shows.
const SCHEME_SHOWN: usize = 32;

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
pub enum Refused {
    /// The scheme has nothing to say for them.
    #[error("the scheme is unknown or refuses the credentials")]
    Credentials,
    /// See [`IDENTITIES`].
    #[error("a connection has {IDENTITIES} identities at most, of {IDENTITY_BYTES} bytes together")]
    TooMany,
}

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
        let proven = authenticate(&request, self.address(), surroundings.settings);
        Ok(match proven.and_then(|new| self.add_identities(new)) {
            Ok(()) => self.answered(Ok(())),
            Err(refused) => {
                surroundings.statistics.auth_failed.fetch_add(1, Relaxed);
                // Escaped, and not all of it: the client may have put anything there.
                let scheme: String = request.scheme.chars().take(SCHEME_SHOWN).collect();
                tracing::warn!(session = %self.session, ?scheme, "authentication failed: {refused}");
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
                Ok(step) => match self.add_identities(step.identities) {
                    Ok(()) => Some(step.token),
                    Err(_) => return Ok(sasl_failed(false)),
                },
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
    ///
    /// # Errors
    /// [`Refused::TooMany`]; then nothing is added.
    pub(super) fn add_identities(&mut self, new: Vec<Identity>) -> Result<(), Refused> {
        let mut identities = self.identities.to_vec();
        for identity in new {
            if !identities.contains(&identity) {
                identities.push(identity);
            }
        }
        let sizes = identities.iter().map(|Identity { scheme, id }| scheme.len() + id.len());
        if identities.len() > IDENTITIES || sizes.sum::<usize>() > IDENTITY_BYTES {
            return Err(Refused::TooMany);
        }
        self.identities = identities.into();
        Ok(())
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
            let credentials = request.auth.as_deref().ok_or(Refused::Credentials)?;
            let id = digest_id(credentials, settings.digest_algorithm);
            let mut identities = Vec::with_capacity(2);
            if settings.super_digest.as_deref() == Some(id.as_str()) {
                identities.push(Identity::new("super", ""));
            }
            identities.push(Identity::new("digest", &id));
            Ok(identities)
        }
        "ip" => Ok(vec![Identity::new("ip", address)]),
        _ => Err(Refused::Credentials),
    }
}

/// `user:base64(hash("user:password"))`. What is no UTF-8 is replaced first, as where Apache makes a string of it.
pub fn digest_id(credentials: &[u8], algorithm: DigestAlgorithm) -> String {
    let credentials = String::from_utf8_lossy(credentials);
    let bytes = credentials.as_bytes();
    let hash = match algorithm {
        DigestAlgorithm::Sha1 => STANDARD.encode(sha1::Sha1::digest(bytes)),
        DigestAlgorithm::Sha256 => STANDARD.encode(sha2::Sha256::digest(bytes)),
        DigestAlgorithm::Sha512 => STANDARD.encode(sha2::Sha512::digest(bytes)),
        DigestAlgorithm::Sha3With256Bits => STANDARD.encode(sha3::Sha3_256::digest(bytes)),
    };
    let user = credentials.split(':').next().unwrap_or_default();
    format!("{user}:{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_machine::Origin;

    #[test]
    fn the_digest_is_zookeepers() {
        // From ZooKeeper's documentation of `super:password`-like examples: sha1 of "user:password".
        let id = digest_id(b"super:admin", DigestAlgorithm::Sha1);
        assert_eq!(id, "super:xQJmxLMiHGwaqBvst5y6rkB6HQs=");
    }

    #[test]
    fn a_connection_has_so_many_identities_and_their_bytes_are_bounded() {
        let mut pipeline = Pipeline::new(Origin::default(), [].into(), [0; 16]);
        let digest = |id: &str| vec![Identity::new("digest", id)];
        for number in 0..IDENTITIES {
            let added = pipeline.add_identities(digest(&format!("{number}:hash")));
            assert_eq!(added, Ok(()), "{number}");
        }
        assert_eq!(pipeline.add_identities(digest("more:hash")), Err(Refused::TooMany));
        assert_eq!(pipeline.add_identities(digest("0:hash")), Ok(()), "known already");
        assert_eq!(pipeline.identities.len(), IDENTITIES);

        let mut pipeline = Pipeline::new(Origin::default(), [].into(), [0; 16]);
        assert_eq!(
            pipeline.add_identities(digest(&"u".repeat(IDENTITY_BYTES))),
            Err(Refused::TooMany)
        );
        assert!(pipeline.identities.is_empty());
    }
}
