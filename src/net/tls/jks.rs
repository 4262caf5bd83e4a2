//! Java's own key store format, JKS: read only.
//!
//! ```text
//!   magic, version, count
//!   count × { 1, alias, time, protected key, chain  |  2, alias, time, certificate }
//!   SHA-1 of password, "Mighty Aphrodite" and all of the above
//! ```
//!
//! Numbers are big endian. A key is protected with a key stream of chained SHA-1, and checked with another. All of it is
//! weak by today's measure, yet what many installations have; `keytool` writes PKCS#12 since Java 9, also under this ending.
//!
//! Source: the JDK's `JavaKeyStore` and `KeyProtector`.

use super::store::{Contents, StoreError};
use sha1::{Digest as _, Sha1};
use x509_parser::asn1_rs::{Any, FromDer as _};

/// The first four bytes.
pub(super) const MAGIC: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];
/// What Java's authors mixed into the checksum.
const SALT: &[u8] = b"Mighty Aphrodite";
const SHA1_BYTES: usize = 20;
/// Certificates of one chain and entries of one store at most: real ones have a handful to a few hundred.
const MOST: u32 = 10_000;

/// Reads a store.
pub(super) fn read(bytes: &[u8], password: &str) -> Result<Contents, StoreError> {
    let password: Vec<u8> = password.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let split = bytes.len().checked_sub(SHA1_BYTES).ok_or(StoreError::Damaged)?;
    let (body, checksum) = bytes.split_at(split);
    let hash = Sha1::new()
        .chain_update(&password)
        .chain_update(SALT)
        .chain_update(body)
        .finalize();
    if hash.as_slice() != checksum {
        return Err(StoreError::Password);
    }
    let mut reader = Reader(body);
    if reader.bytes(4)? != MAGIC {
        return Err(StoreError::Damaged);
    }
    let version = reader.number()?;
    let mut contents = Contents::default();
    for _ in 0..reader.count()? {
        let kind = reader.number()?;
        reader.text()?;
        reader.bytes(8)?;
        match kind {
            1 => {
                let protected = reader.buffer()?;
                let mut chain = Vec::new();
                for _ in 0..reader.count()? {
                    chain.push(reader.certificate(version)?.to_vec().into());
                }
                if contents.key.is_none() {
                    let key = unprotect(protected, &password)?;
                    contents.key = Some((key.into(), chain));
                }
            }
            2 => contents.trusted.push(reader.certificate(version)?.to_vec().into()),
            _ => return Err(StoreError::Damaged),
        }
    }
    Ok(contents)
}

/// Takes the protection off a key; gives its PKCS#8 form.
fn unprotect(protected: &[u8], password: &[u8]) -> Result<Vec<u8>, StoreError> {
    // EncryptedPrivateKeyInfo: a sequence of the algorithm, of which Java has one alone, and an octet string.
    let damaged = |_| StoreError::Damaged;
    let (_, outer) = Any::from_der(protected).map_err(damaged)?;
    let (rest, _algorithm) = Any::from_der(outer.data).map_err(damaged)?;
    let (_, octets) = Any::from_der(rest).map_err(damaged)?;
    let data = octets.data;
    if data.len() < 2 * SHA1_BYTES {
        return Err(StoreError::Damaged);
    }
    let (salt, rest) = data.split_at(SHA1_BYTES);
    let (hidden, check) = rest.split_at(rest.len() - SHA1_BYTES);
    let mut stream = salt.to_vec();
    let mut key = Vec::with_capacity(hidden.len());
    for block in hidden.chunks(SHA1_BYTES) {
        stream = Sha1::new()
            .chain_update(password)
            .chain_update(&stream)
            .finalize()
            .to_vec();
        key.extend(block.iter().zip(&stream).map(|(hidden, stream)| hidden ^ stream));
    }
    let hash = Sha1::new().chain_update(password).chain_update(&key).finalize();
    if hash.as_slice() == check {
        Ok(key)
    } else {
        Err(StoreError::KeyPassword)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(StoreError::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32, StoreError> {
        let bytes = self.bytes(4)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn count(&mut self) -> Result<u32, StoreError> {
        Some(self.number()?)
            .filter(|count| *count <= MOST)
            .ok_or(StoreError::Damaged)
    }

    fn buffer(&mut self) -> Result<&'a [u8], StoreError> {
        let length = self.number()?;
        self.bytes(length as usize)
    }

    fn text(&mut self) -> Result<&'a [u8], StoreError> {
        let length = self
            .bytes(2)?
            .iter()
            .fold(0, |number, byte| number << 8 | usize::from(*byte));
        self.bytes(length)
    }

    /// A certificate; since version 2 its kind stands before it.
    fn certificate(&mut self, version: u32) -> Result<&'a [u8], StoreError> {
        if version >= 2 && self.text()? != b"X.509" {
            return Err(StoreError::Damaged);
        }
        self.buffer()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A store with one trusted certificate, and a key with its chain if there is one. Written as Java writes it.
    pub(in crate::net::tls) fn write(trusted: &[u8], key: Option<(&[u8], &[u8])>, password: &str) -> Vec<u8> {
        let password: Vec<u8> = password.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let mut out = MAGIC.to_vec();
        let number = |out: &mut Vec<u8>, number: usize| out.extend(u32::try_from(number).unwrap().to_be_bytes());
        let text = |out: &mut Vec<u8>, text: &str| {
            out.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
            out.extend(text.as_bytes());
        };
        let certificate = |out: &mut Vec<u8>, certificate: &[u8]| {
            text(out, "X.509");
            number(out, certificate.len());
            out.extend(certificate);
        };
        number(&mut out, 2);
        number(&mut out, 1 + usize::from(key.is_some()));
        number(&mut out, 2);
        text(&mut out, "the authority");
        out.extend([0; 8]);
        certificate(&mut out, trusted);
        if let Some((key, leaf)) = key {
            number(&mut out, 1);
            text(&mut out, "the server");
            out.extend([0; 8]);
            let protected = protect(key, &password);
            number(&mut out, protected.len());
            out.extend(protected);
            number(&mut out, 1);
            certificate(&mut out, leaf);
        }
        let hash = Sha1::new()
            .chain_update(&password)
            .chain_update(SALT)
            .chain_update(&out);
        out.extend(hash.finalize());
        out
    }

    fn protect(key: &[u8], password: &[u8]) -> Vec<u8> {
        let salt = [9; SHA1_BYTES];
        let mut data = salt.to_vec();
        let mut stream = salt.to_vec();
        for block in key.chunks(SHA1_BYTES) {
            stream = Sha1::new()
                .chain_update(password)
                .chain_update(&stream)
                .finalize()
                .to_vec();
            data.extend(block.iter().zip(&stream).map(|(a, b)| a ^ b));
        }
        data.extend(Sha1::new().chain_update(password).chain_update(key).finalize());
        let algorithm = [0x30, 0x0e, 6, 10, 0x2b, 6, 1, 4, 1, 0x2a, 2, 0x11, 1, 1, 5, 0];
        let octets = tagged(4, &data);
        tagged(0x30, &[&algorithm[..], &octets].concat())
    }

    fn tagged(tag: u8, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        [&[tag, 0x82][..], &length, data].concat()
    }

    #[test]
    fn keys_chains_and_trusted_certificates_are_read() {
        let key: Vec<u8> = (0..100).collect();
        let bytes = write(b"authority", Some((&key, b"leaf")), "pässword");
        let contents = read(&bytes, "pässword").unwrap();
        let (read_key, chain) = contents.key.unwrap();
        assert_eq!(read_key.secret_pkcs8_der(), key);
        assert_eq!(chain, [b"leaf".to_vec().into()]);
        assert_eq!(contents.trusted, [b"authority".to_vec().into()]);
    }

    #[test]
    fn a_wrong_password_and_damage_are_told() {
        let bytes = write(b"authority", None, "right");
        assert!(matches!(read(&bytes, "wrong"), Err(StoreError::Password)));
        assert!(matches!(read(&bytes[..10], "right"), Err(StoreError::Damaged)));
        let mut damaged = bytes;
        damaged[30] ^= 1;
        assert!(matches!(read(&damaged, "right"), Err(StoreError::Password)));
    }
}
