//! Key and trust stores: PEM, PKCS#12 and JKS.
//!
//! The form is told by the first bytes, not by the file's ending: since Java 9 `keytool` writes PKCS#12 into files that
//! end in `.jks`, and Java reads either.

use super::jks;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12ImportPolicy};
use std::path::PathBuf;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Bytes of a store at most; a larger file is refused. The trust stores of operating systems have about 200 KiB.
const STORE_BYTES: u64 = 16 << 20;

/// A key or trust store.
#[derive(Clone)]
pub struct Store {
    /// The file.
    pub location: PathBuf,
    /// What opens it; empty for none.
    pub password: String,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file.
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] std::io::Error),
    /// It is larger than any store.
    #[error("it is larger than {STORE_BYTES} bytes")]
    TooLarge,
    /// Bouncy Castle's form, or something else.
    #[error(
        "its form is unknown: it is neither PEM nor PKCS#12 nor JKS. BCFKS is not available here; `keytool -importkeystore` \
         turns it into PKCS#12"
    )]
    UnknownForm,
    /// It begins well and goes on badly.
    #[error("it is damaged")]
    Damaged,
    /// What PKCS#12 says.
    #[error("it is damaged, or its password is wrong: {0}")]
    Pkcs12(#[source] p12_keystore::error::Error),
    /// The checksum of JKS depends on the password.
    #[error("its password is wrong, or it is damaged")]
    Password,
    /// The key has a password of its own.
    #[error("the password of its private key is wrong; it must be that of the store")]
    KeyPassword,
    /// Nothing to show.
    #[error("it has no private key with a certificate")]
    NoKey,
    /// Nobody to trust.
    #[error("it has no trusted certificate")]
    NoTrusted,
}

/// What a store holds.
#[derive(Default)]
pub(super) struct Contents {
    /// The first private key, and the certificates that belong to it, its own first.
    pub(super) key: Option<(PrivatePkcs8KeyDer<'static>, Vec<CertificateDer<'static>>)>,
    /// Certificates that stand alone.
    pub(super) trusted: Vec<CertificateDer<'static>>,
}

/// A private key and its chain.
pub(super) type Key = (PrivateKeyDer<'static>, Vec<CertificateDer<'static>>);

/// The private key of a store and its chain.
pub(super) fn read_key(store: &Store) -> Result<Key, StoreError> {
    let bytes = read_file(store)?;
    if is_pem(&bytes) {
        return read_pem_key(&bytes, &store.password);
    }
    let (key, chain) = read(&bytes, &store.password)?.key.ok_or(StoreError::NoKey)?;
    if chain.is_empty() {
        return Err(StoreError::NoKey);
    }
    Ok((key.into(), chain))
}

/// The trusted certificates of a store.
pub(super) fn read_trusted(store: &Store) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let bytes = read_file(store)?;
    let trusted = if is_pem(&bytes) {
        pem_certificates(&bytes)?
    } else {
        read(&bytes, &store.password)?.trusted
    };
    if trusted.is_empty() {
        return Err(StoreError::NoTrusted);
    }
    Ok(trusted)
}

fn read_file(store: &Store) -> Result<Vec<u8>, StoreError> {
    let size = std::fs::metadata(&store.location)
        .map_err(StoreError::Unreadable)?
        .len();
    if size > STORE_BYTES {
        return Err(StoreError::TooLarge);
    }
    std::fs::read(&store.location).map_err(StoreError::Unreadable)
}

fn is_pem(bytes: &[u8]) -> bool {
    bytes.windows(10).any(|window| window == b"-----BEGIN")
}

fn read(bytes: &[u8], password: &str) -> Result<Contents, StoreError> {
    if bytes.starts_with(&jks::MAGIC) {
        jks::read(bytes, password)
    } else if is_pkcs12(bytes) {
        read_pkcs12(bytes, password)
    } else {
        Err(StoreError::UnknownForm)
    }
}

/// A PFX is a sequence that begins with the number 3. (BCFKS is a sequence, too.)
fn is_pkcs12(bytes: &[u8]) -> bool {
    let header = match bytes {
        [0x30, length, ..] if *length <= 0x80 => 2,
        [0x30, length, ..] => 2 + usize::from(length & 0x7f),
        _ => return false,
    };
    bytes
        .get(header..)
        .is_some_and(|content| content.starts_with(&[2, 1, 3]))
}

fn read_pkcs12(bytes: &[u8], password: &str) -> Result<Contents, StoreError> {
    let store = KeyStore::from_pkcs12(bytes, password, Pkcs12ImportPolicy::Strict).map_err(StoreError::Pkcs12)?;
    let mut contents = Contents::default();
    for (_, entry) in store.entries() {
        match entry {
            KeyStoreEntry::PrivateKeyChain(chain) if contents.key.is_none() => {
                let certificates = chain
                    .certs()
                    .iter()
                    .map(|certificate| certificate.as_der().to_vec().into());
                contents.key = Some((chain.key().as_der().to_vec().into(), certificates.collect()));
            }
            KeyStoreEntry::Certificate(certificate) => contents.trusted.push(certificate.as_der().to_vec().into()),
            KeyStoreEntry::PrivateKeyChain(_) | KeyStoreEntry::Secret(_) => {}
        }
    }
    Ok(contents)
}

fn pem_certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|_| StoreError::Damaged)
}

/// Key and chain of a PEM file. The key may be protected with the password (PKCS#8).
fn read_pem_key(bytes: &[u8], password: &str) -> Result<Key, StoreError> {
    let chain = pem_certificates(bytes)?;
    if chain.is_empty() {
        return Err(StoreError::NoKey);
    }
    let key = match protected_key(bytes)? {
        Some(protected) => {
            let protected =
                pkcs8::EncryptedPrivateKeyInfoRef::try_from(protected.as_slice()).map_err(|_| StoreError::Damaged)?;
            let key = protected.decrypt(password).map_err(|_| StoreError::KeyPassword)?;
            PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into()
        }
        None => PrivateKeyDer::from_pem_slice(bytes).map_err(|_| StoreError::NoKey)?,
    };
    Ok((key, chain))
}

/// The section of a PEM file that holds a protected key.
fn protected_key(bytes: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let text = String::from_utf8_lossy(bytes);
    let Some((_, rest)) = text.split_once("-----BEGIN ENCRYPTED PRIVATE KEY-----") else {
        return Ok(None);
    };
    let (section, _) = rest
        .split_once("-----END ENCRYPTED PRIVATE KEY-----")
        .ok_or(StoreError::Damaged)?;
    let base64: String = section.split_ascii_whitespace().collect();
    STANDARD.decode(base64).map(Some).map_err(|_| StoreError::Damaged)
}
