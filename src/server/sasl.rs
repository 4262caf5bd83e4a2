//! SASL: from the tokens of a connection to its identity.
//!
//! ```text
//!   client                     server
//!   any token          ──▶
//!                      ◀──     challenge
//!   response           ──▶     sasl:<user>, and super if he is one of the super users
//!                      ◀──     proof, or AUTHFAILED and the end
//! ```
//!
//! One exchange per connection: what comes after it is refused, as in Apache. Left out: GSSAPI (Kerberos).

use super::digest_md5::{self, Refusal};
use crate::proto::Identity;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Bytes of chance that a challenge is made of.
pub(super) const NONCE_BYTES: usize = 16;

/// Who may authenticate with SASL.
#[derive(Clone, Default)]
pub struct SaslUsers {
    /// Users and their passwords.
    pub passwords: BTreeMap<String, String>,
    /// Who of them may do everything (`superUser`, `superUser.N`).
    pub super_users: BTreeSet<String>,
    /// `allowSaslFailedClients`: a connection whose exchange failed goes on without an identity.
    pub allow_failed: bool,
}

impl fmt::Debug for SaslUsers {
    /// Without the passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslUsers")
            .field("users", &self.passwords.keys())
            .field("super_users", &self.super_users)
            .field("allow_failed", &self.allow_failed)
            .finish()
    }
}

/// How far a connection's exchange has come.
#[derive(Debug)]
pub(super) enum Exchange {
    /// It has the chance for its challenge.
    NotBegun([u8; NONCE_BYTES]),
    /// The challenge with this chance was sent.
    Challenged([u8; NONCE_BYTES]),
    /// It has succeeded or failed.
    Ended,
}

/// What a token came to.
pub(super) struct Step {
    /// What the client is answered.
    pub(super) token: Bytes,
    /// What it has proven to be.
    pub(super) identities: Vec<Identity>,
}

impl Exchange {
    /// Takes the client's next token.
    pub(super) fn step(&mut self, token: &[u8], users: &SaslUsers) -> Result<Step, Refusal> {
        match std::mem::replace(self, Exchange::Ended) {
            // Whatever the first token holds, as in Apache.
            Exchange::NotBegun(chance) => {
                *self = Exchange::Challenged(chance);
                Ok(Step {
                    token: digest_md5::challenge(&STANDARD.encode(chance)).into(),
                    identities: Vec::new(),
                })
            }
            Exchange::Challenged(chance) => {
                let password_of = |user: &str| users.passwords.get(user).map(String::as_str);
                let authenticated = digest_md5::check(token, &STANDARD.encode(chance), password_of)?;
                let mut identities = vec![Identity::new("sasl", &authenticated.user)];
                if users.super_users.contains(&authenticated.user) {
                    identities.push(Identity::new("super", ""));
                }
                Ok(Step {
                    token: authenticated.proof.into(),
                    identities,
                })
            }
            Exchange::Ended => Err(Refusal::Ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> SaslUsers {
        SaslUsers {
            passwords: BTreeMap::from([("bob".to_owned(), "bobsecret".to_owned())]),
            super_users: BTreeSet::from(["bob".to_owned()]),
            allow_failed: false,
        }
    }

    #[test]
    fn an_exchange_gives_identities_once() {
        let mut exchange = Exchange::NotBegun([7; NONCE_BYTES]);
        let challenge = exchange.step(b"", &users()).ok().unwrap();
        assert!(challenge.identities.is_empty());
        let nonce = STANDARD.encode([7; NONCE_BYTES]);
        assert_eq!(challenge.token, digest_md5::challenge(&nonce));
        let response = digest_md5::answer("bob", "bobsecret", &nonce);
        let step = exchange.step(response.as_bytes(), &users()).ok().unwrap();
        assert_eq!(
            step.identities,
            [Identity::new("sasl", "bob"), Identity::new("super", "")]
        );
        assert_eq!(exchange.step(b"", &users()).err(), Some(Refusal::Ended));
    }

    #[test]
    fn an_exchange_begins_with_any_token_and_ends_with_a_wrong_one() {
        let mut exchange = Exchange::NotBegun([7; NONCE_BYTES]);
        assert!(exchange.step(b"username=bob", &users()).is_ok());
        assert!(exchange.step(b"nonsense", &users()).is_err());
        assert_eq!(exchange.step(b"", &users()).err(), Some(Refusal::Ended));
    }

    #[test]
    fn passwords_do_not_show_in_logs() {
        assert!(!format!("{:?}", users()).contains("bobsecret"));
    }
}
