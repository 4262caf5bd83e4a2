//! TLS on connections of clients and between servers: the accepting side, who the client's certificate says that he is, and
//! the connecting side.
//!
//! TLS 1.2 and 1.3 with rustls on ring; sessions are not resumed, so that every connection's certificate is checked as of
//! now. Handshakes are limited in time, not in number: what one computes, about a millisecond, it computes without waiting
//! in between, so no more are computed at a time than there are threads, in the order in which clients have spoken. Turns
//! that a client keeps while it is waited for would let a few hundred that dawdle keep out everybody else.
//!
//! Left out: renegotiation and the suites of block ciphers, which rustls does not have; lists of revoked certificates;
//! reading certificates again while the server runs.

mod client_certificate;
mod connector;
mod jks;
mod store;
mod subject;
mod trust;

pub use connector::{TlsConnector, names_host};
pub use store::{Store, StoreError};

use super::conversation::Stream;
use super::plain::cork;
use client_certificate::ClientVerifier;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ServerConfig, SupportedProtocolVersion};
use tokio_rustls::server::TlsStream;
use trust::Trust;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The first byte of a TLS connection. No client of ours begins a plain one with it: a length of 369 million, or a word
/// whose first letter is a control character.
pub const FIRST_BYTE: u8 = 0x16;

/// What is asked of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Nothing.
    Ignored,
    /// A certificate is checked where there is one.
    Wanted,
    /// No certificate, no connection.
    Needed,
}

/// How TLS is spoken. A password is in it: not to be printed.
#[derive(Clone)]
pub struct TlsOptions {
    /// What the names of the settings begin with, for errors: `ssl.` or `ssl.quorum.`.
    pub prefix: &'static str,
    /// Our key and certificate.
    pub key_store: Store,
    /// Who signs the certificates of the other side.
    pub trust_store: Option<Store>,
    /// What is asked of clients.
    pub client_certificate: ClientCertificate,
    /// Whether TLS 1.2 is spoken.
    pub tls12: bool,
    /// Whether TLS 1.3 is spoken.
    pub tls13: bool,
}

/// Why TLS cannot be spoken as configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The key store.
    #[error("the key store {location} cannot be used: {error}. It is set by {prefix}keyStore.location in zoo.cfg.", location = location.display())]
    KeyStore {
        /// `ssl.` or `ssl.quorum.`.
        prefix: &'static str,
        /// The file.
        location: PathBuf,
        /// What is wrong with it.
        #[source]
        error: StoreError,
    },
    /// Its key.
    #[error("the private key in the key store {0} cannot be used: {1}")]
    Key(PathBuf, String),
    /// The trust store.
    #[error("the trust store {location} cannot be used: {error}. It is set by {prefix}trustStore.location in zoo.cfg.", location = location.display())]
    TrustStore {
        /// `ssl.` or `ssl.quorum.`.
        prefix: &'static str,
        /// The file.
        location: PathBuf,
        /// What is wrong with it.
        #[source]
        error: StoreError,
    },
    /// Its certificates.
    #[error("the trust store {0} cannot be used: {1}")]
    Authorities(PathBuf, String),
    /// Nobody could connect.
    #[error(
        "who connects must show a certificate, and there is nothing to check it against: set {0}trustStore.location, or \
         {0}clientAuth=none if no certificate is needed"
    )]
    NoTrustStore(&'static str),
    /// Connecting to anybody would fail.
    #[error("there is nothing to check the certificates of other servers against: set {0}trustStore.location")]
    NoTrust(&'static str),
    /// rustls refuses the configuration.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] tokio_rustls::rustls::Error),
}

/// Why a handshake did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error("it was not finished in time")]
    TooLate,
    /// The two sides did not come together.
    #[error("{0}")]
    Failed(#[from] io::Error),
}

/// Who has connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The subject of his certificate, in the form of RFC 2253; `None` if he has shown none.
    pub subject: Option<String>,
}

impl Stream for TlsStream<TcpStream> {
    fn hold_for_shutdown(&self) {
        cork(self.get_ref().0);
    }
}

/// Speaks the server's side of TLS.
pub struct TlsAcceptor {
    acceptor: tokio_rustls::TlsAcceptor,
}

impl TlsAcceptor {
    /// Reads key and trust store.
    ///
    /// # Errors
    /// What is wrong with them, and which setting names them.
    pub fn new(options: &TlsOptions) -> Result<TlsAcceptor, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions(options))?;
        let builder = match verifier(options, &provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key(options)?)));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(TlsAcceptor {
            acceptor: Arc::new(config).into(),
        })
    }

    /// Does the handshake on `stream`, within `limit`.
    ///
    /// # Errors
    /// Why it did not succeed; the stream is closed.
    pub async fn accept<S>(&self, stream: S, limit: Duration) -> Result<(TlsStream<S>, Peer), HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = tokio::time::timeout(limit, self.acceptor.accept(stream))
            .await
            .map_err(|_| HandshakeError::TooLate)??;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let subject = certificate
            .and_then(|certificate| X509Certificate::from_der(certificate).ok())
            .map(|(_, certificate)| subject::render(certificate.subject()));
        Ok((stream, Peer { subject }))
    }
}

fn versions(options: &TlsOptions) -> Vec<&'static SupportedProtocolVersion> {
    let tls12 = options.tls12.then_some(&TLS12);
    let tls13 = options.tls13.then_some(&TLS13);
    tls12.into_iter().chain(tls13).collect()
}

fn verifier(options: &TlsOptions, provider: &Arc<CryptoProvider>) -> Result<Option<Arc<ClientVerifier>>, TlsError> {
    if options.client_certificate == ClientCertificate::Ignored {
        return Ok(None);
    }
    let trust = trust(options, provider)?.ok_or(TlsError::NoTrustStore(options.prefix))?;
    let required = options.client_certificate == ClientCertificate::Needed;
    ClientVerifier::new(trust, required, provider)
        .map(|verifier| Some(Arc::new(verifier)))
        .map_err(|error| unusable_authorities(options, error))
}

/// Reads the trust store, where there is one.
fn trust(options: &TlsOptions, provider: &CryptoProvider) -> Result<Option<Trust>, TlsError> {
    let Some(store) = &options.trust_store else {
        return Ok(None);
    };
    let authorities = store::read_trusted(store).map_err(|error| TlsError::TrustStore {
        prefix: options.prefix,
        location: store.location.clone(),
        error,
    })?;
    Trust::new(authorities, provider)
        .map(Some)
        .map_err(|error| unusable_authorities(options, error))
}

fn unusable_authorities(options: &TlsOptions, error: String) -> TlsError {
    let location = options.trust_store.as_ref().map(|store| store.location.clone());
    TlsError::Authorities(location.unwrap_or_default(), error)
}

fn certified_key(options: &TlsOptions) -> Result<CertifiedKey, TlsError> {
    let location = &options.key_store.location;
    let (key, chain) = store::read_key(&options.key_store).map_err(|error| TlsError::KeyStore {
        prefix: options.prefix,
        location: location.clone(),
        error,
    })?;
    let key =
        ring::sign::any_supported_type(&key).map_err(|error| TlsError::Key(location.clone(), error.to_string()))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Err(
            error @ tokio_rustls::rustls::Error::InconsistentKeys(tokio_rustls::rustls::InconsistentKeys::KeyMismatch),
        ) => Err(TlsError::Key(location.clone(), error.to_string())),
        // Certificates of X.509 version 1 cannot be looked into here, yet clients take them.
        _ => Ok(certified),
    }
}

#[cfg(test)]
pub(in crate::net) mod tests;
