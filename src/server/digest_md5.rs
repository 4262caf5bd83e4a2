//! The server's side of DIGEST-MD5 (RFC 2831), as ZooKeeper's clients speak it: one challenge, one response, no
//! protection of what follows.
//!
//! The hash is broken, and the mechanism was retired (RFC 6331): it is here because it is what unmodified clients have.
//! Who wants more uses TLS below it, or certificates.
//!
//! Pure: the nonce comes in as an argument.
//!
//! Source: RFC 2831; for what it leaves open, the JDK's server, which Apache ZooKeeper uses.

use md5::{Digest as _, Md5};
use std::collections::BTreeMap;

/// Bytes of a response at most, as in the JDK; a longer one is refused.
const RESPONSE_BYTES: usize = 4096;

/// What the client proves against. Clients must name the same `service/host`.
const REALM: &str = "zk-sasl-md5";
const DIGEST_URI: &str = "zookeeper/zk-sasl-md5";

/// Why a response is refused. The client is only told that it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the response is longer than {RESPONSE_BYTES} bytes")]
    TooLong,
    #[error("the response is no list of directives")]
    NoDirectives,
    #[error("the directive {0} has two values")]
    Twice(String),
    #[error("the directive {0} is missing")]
    Missing(&'static str),
    #[error("the directive {0} is not what it must be")]
    Wrong(&'static str),
    #[error("the user {0:?} is unknown")]
    UnknownUser(String),
    #[error("the password of the user {0:?} is wrong")]
    WrongPassword(String),
    #[error("the exchange has ended already")]
    Ended,
}

/// The challenge that begins an exchange.
pub(super) fn challenge(nonce: &str) -> String {
    format!("realm=\"{REALM}\",nonce=\"{nonce}\",charset=utf-8,algorithm=md5-sess")
}

/// Who has answered the challenge, and what proves to him that we know his password too.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authenticated {
    pub(super) user: String,
    pub(super) proof: String,
}

/// Checks the response to the challenge with this `nonce`. `password_of` gives a user's password.
///
/// An authorization id in the response takes part in the hash and has no other effect, as in Apache: nobody may act as
/// somebody else.
pub(super) fn check<'a>(
    response: &[u8],
    nonce: &str,
    password_of: impl FnOnce(&str) -> Option<&'a str>,
) -> Result<Authenticated, Refusal> {
    let directives = Directives::parse(response)?;
    let user = directives.text("username")?;
    directives.must_be("realm", |value| value == REALM.as_bytes())?;
    directives.must_be("nonce", |value| value == nonce.as_bytes())?;
    directives.must_be("nc", |value| value == b"00000001")?;
    directives.must_be("digest-uri", |value| value.eq_ignore_ascii_case(DIGEST_URI.as_bytes()))?;
    if directives.find("qop").is_some() {
        directives.must_be("qop", |value| value == b"auth")?;
    }
    let password = password_of(&user).ok_or_else(|| Refusal::UnknownUser(user.clone()))?;
    let exchange = Exchange {
        user: &user,
        realm: REALM,
        password,
        nonce: nonce.as_bytes(),
        cnonce: directives.required("cnonce")?,
        authorization: directives.find("authzid"),
        digest_uri: directives.required("digest-uri")?,
    };
    if !same(
        exchange.hash("AUTHENTICATE").as_bytes(),
        directives.required("response")?,
    ) {
        return Err(Refusal::WrongPassword(user));
    }
    let proof = format!("rspauth={}", exchange.hash(""));
    Ok(Authenticated { user, proof })
}

/// What both sides hash.
struct Exchange<'a> {
    user: &'a str,
    realm: &'a str,
    password: &'a str,
    nonce: &'a [u8],
    cnonce: &'a [u8],
    authorization: Option<&'a [u8]>,
    digest_uri: &'a [u8],
}

impl Exchange<'_> {
    /// RFC 2831, 2.1.2.1: the client's proof with the method `AUTHENTICATE`, the server's with none.
    fn hash(&self, method: &str) -> String {
        let secret = [narrow(self.user), narrow(self.realm), narrow(self.password)].join(&b':');
        let mut first = Md5::digest(secret).to_vec();
        for part in [Some(self.nonce), Some(self.cnonce), self.authorization]
            .into_iter()
            .flatten()
        {
            first.push(b':');
            first.extend_from_slice(part);
        }
        let second = [method.as_bytes(), self.digest_uri].join(&b':');
        let both = [
            hexadecimal(&first).as_bytes(),
            self.nonce,
            b"00000001",
            self.cnonce,
            b"auth",
            hexadecimal(&second).as_bytes(),
        ]
        .join(&b':');
        hexadecimal(&both)
    }
}

/// The MD5 of `bytes`, written out.
fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let hash = Md5::digest(bytes);
    hash.iter().fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Names and passwords are hashed as ISO 8859-1 where that has all their characters, else as UTF-8.
fn narrow(text: &str) -> Vec<u8> {
    let narrow: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
    narrow.unwrap_or_else(|_| text.as_bytes().to_vec())
}

/// Compares without giving away, by the time that it takes, where two texts begin to differ.
fn same(ours: &[u8], theirs: &[u8]) -> bool {
    let difference = ours.iter().zip(theirs).fold(0, |all, (a, b)| all | (a ^ b));
    ours.len() == theirs.len() && difference == 0
}

/// The directives of a response, by name.
struct Directives(BTreeMap<String, Vec<u8>>);

impl Directives {
    /// Reads `name=value, name="value"`; in quotes, a backslash escapes the next character.
    fn parse(bytes: &[u8]) -> Result<Directives, Refusal> {
        if bytes.len() > RESPONSE_BYTES {
            return Err(Refusal::TooLong);
        }
        let mut directives = BTreeMap::new();
        let mut rest = bytes.trim_ascii();
        while !rest.is_empty() {
            let equals = rest
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or(Refusal::NoDirectives)?;
            let (name, behind) = (rest[..equals].trim_ascii(), rest[equals + 1..].trim_ascii_start());
            let (value, behind) = match behind.split_first() {
                Some((b'"', behind)) => quoted(behind)?,
                _ => {
                    let end = behind.iter().position(|byte| *byte == b',').unwrap_or(behind.len());
                    (behind[..end].trim_ascii_end().to_vec(), &behind[end..])
                }
            };
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            if name.is_empty() {
                return Err(Refusal::NoDirectives);
            }
            match directives.get(&name) {
                Some(earlier) if *earlier != value => return Err(Refusal::Twice(name)),
                _ => _ = directives.insert(name, value),
            }
            rest = behind.trim_ascii_start();
            while let Some((b',', behind)) = rest.split_first() {
                rest = behind.trim_ascii_start();
            }
        }
        Ok(Directives(directives))
    }

    fn find(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    fn required(&self, name: &'static str) -> Result<&[u8], Refusal> {
        self.find(name).ok_or(Refusal::Missing(name))
    }

    fn must_be(&self, name: &'static str, right: impl FnOnce(&[u8]) -> bool) -> Result<(), Refusal> {
        if right(self.required(name)?) {
            Ok(())
        } else {
            Err(Refusal::Wrong(name))
        }
    }

    /// A value as text, in the character set that the response names: UTF-8, or ISO 8859-1 if it names none.
    fn text(&self, name: &'static str) -> Result<String, Refusal> {
        let bytes = self.required(name)?;
        match self.find("charset") {
            Some(charset) if charset.eq_ignore_ascii_case(b"utf-8") => {
                String::from_utf8(bytes.to_vec()).map_err(|_| Refusal::Wrong(name))
            }
            Some(_) => Err(Refusal::Wrong("charset")),
            None => Ok(bytes.iter().copied().map(char::from).collect()),
        }
    }
}

/// The text up to the closing quote, and what follows it.
fn quoted(bytes: &[u8]) -> Result<(Vec<u8>, &[u8]), Refusal> {
    let mut value = Vec::new();
    let mut rest = bytes.iter();
    loop {
        match rest.next() {
            Some(b'"') => return Ok((value, rest.as_slice())),
            Some(b'\\') => value.push(*rest.next().ok_or(Refusal::NoDirectives)?),
            Some(byte) => value.push(*byte),
            None => return Err(Refusal::NoDirectives),
        }
    }
}

/// What a client with this password answers.
#[cfg(test)]
pub(super) fn answer(user: &str, password: &str, nonce: &str) -> String {
    let exchange = Exchange {
        user,
        realm: REALM,
        password,
        nonce: nonce.as_bytes(),
        cnonce: b"client\"s",
        authorization: None,
        digest_uri: DIGEST_URI.as_bytes(),
    };
    let hash = exchange.hash("AUTHENTICATE");
    format!(
        "charset=utf-8,username=\"{user}\",realm=\"{REALM}\",nonce=\"{nonce}\",nc=00000001,cnonce=\"client\\\"s\",\
         digest-uri=\"{DIGEST_URI}\",maxbuf=65536,response={hash},qop=auth"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password_of_bob(user: &str) -> Option<&'static str> {
        match user {
            "bob" => Some("secret"),
            "bö" => Some("gehéim"),
            "北" => Some("京"),
            _ => None,
        }
    }

    #[test]
    fn the_hashes_are_those_of_rfc_2831() {
        // Section 4: an IMAP and an ACAP session.
        for (uri, nonce, cnonce, response, proof) in [
            (
                "imap/elwood.innosoft.com",
                "OA6MG9tEQGm2hh",
                "OA6MHXh6VqTrRk",
                "d388dad90d4bbd760a152321f2143af7",
                "ea40f60335c427b5527b84dbabcdfffd",
            ),
            (
                "acap/elwood.innosoft.com",
                "OA9BSXrbuRhWay",
                "OA9BSuZWMSpW8m",
                "6084c6db3fede7352c551284490fd0fc",
                "2f0b3d7c3c2e486600ef710726aa2eae",
            ),
        ] {
            let exchange = Exchange {
                user: "chris",
                realm: "elwood.innosoft.com",
                password: "secret",
                nonce: nonce.as_bytes(),
                cnonce: cnonce.as_bytes(),
                authorization: None,
                digest_uri: uri.as_bytes(),
            };
            assert_eq!(exchange.hash("AUTHENTICATE"), response);
            assert_eq!(exchange.hash(""), proof);
        }
    }

    #[test]
    fn a_user_with_the_right_password_is_authenticated() {
        for (user, password) in [("bob", "secret"), ("bö", "gehéim"), ("北", "京")] {
            let response = answer(user, password, "n0nce");
            let authenticated = check(response.as_bytes(), "n0nce", password_of_bob).unwrap();
            assert_eq!(authenticated.user, user);
            assert!(authenticated.proof.starts_with("rspauth="));
            assert_eq!(authenticated.proof.len(), 8 + 32);
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        let good = answer("bob", "secret", "n0nce");
        let nobody = answer("eve", "secret", "n0nce");
        let wrong = answer("bob", "wrong", "n0nce");
        let replaces = |from: &str, to: &str| good.replace(from, to);
        for (response, refusal) in [
            (nobody, Refusal::UnknownUser("eve".to_owned())),
            (wrong, Refusal::WrongPassword("bob".to_owned())),
            (replaces("n0nce", "other"), Refusal::Wrong("nonce")),
            (replaces("nc=00000001", "nc=00000002"), Refusal::Wrong("nc")),
            (
                replaces("zk-sasl-md5\",nonce", "elsewhere\",nonce"),
                Refusal::Wrong("realm"),
            ),
            (replaces("zookeeper/", "imap/"), Refusal::Wrong("digest-uri")),
            (replaces("qop=auth", "qop=auth-int"), Refusal::Wrong("qop")),
            (replaces("utf-8", "latin-9"), Refusal::Wrong("charset")),
            (replaces("cnonce=", "dnonce="), Refusal::Missing("cnonce")),
            (replaces("response=", "respond="), Refusal::Missing("response")),
            (replaces("realm=", "dream="), Refusal::Missing("realm")),
            (replaces("maxbuf=", "nc="), Refusal::Twice("nc".to_owned())),
            (replaces("response=", "response=\""), Refusal::NoDirectives),
            ("nonsense".to_owned(), Refusal::NoDirectives),
            ("=,=".to_owned(), Refusal::NoDirectives),
            (String::new(), Refusal::Missing("username")),
            ("x".repeat(RESPONSE_BYTES + 1), Refusal::TooLong),
        ] {
            assert_eq!(
                check(response.as_bytes(), "n0nce", password_of_bob),
                Err(refusal),
                "{response}"
            );
        }
    }

    #[test]
    fn blanks_and_empty_elements_between_directives_do_no_harm() {
        let directives = Directives::parse(b" a = b , ,c=\"d\\\\e\" ,\n").unwrap();
        assert_eq!(directives.find("a"), Some(&b"b"[..]));
        assert_eq!(directives.find("c"), Some(&br"d\e"[..]));
        assert_eq!(directives.0.len(), 2);
    }
}
