//! Which certificates are trusted, and whether the peer has their key. The same for clients and for servers.
//!
//! webpki decides, with two additions that Java has and simple set-ups rely on:
//! - A certificate that stands in the trust store itself needs no authority, also if it claims to be one.
//! - Certificates of the old X.509 version 1, which webpki does not read, are accepted when an authority of the trust store
//!   has signed them. Such a certificate cannot say what it may be used for, so that it is never accepted as an authority.

use std::sync::Arc;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::asn1_rs::Any;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};
use x509_parser::x509::SubjectPublicKeyInfo;

/// The trust store, and what signatures are understood.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    /// The certificates that are trusted.
    authorities: Vec<CertificateDer<'static>>,
    /// The same, for webpki.
    pub(super) roots: Arc<RootCertStore>,
}

impl Trust {
    pub(super) fn new(authorities: Vec<CertificateDer<'static>>, provider: &CryptoProvider) -> Result<Trust, String> {
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots
                .add(authority.clone())
                .map_err(|error| format!("a trusted certificate cannot be used: {error}"))?;
        }
        Ok(Trust {
            algorithms: provider.signature_verification_algorithms,
            authorities,
            roots: roots.into(),
        })
    }

    /// Checks at the time `now` what webpki would refuse; `None`: it is webpki's to decide.
    pub(super) fn verify_beyond_webpki(
        &self,
        end_entity: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Option<Result<(), Error>> {
        let mut trusted = self.authorities.iter();
        if trusted.any(|trusted| trusted.as_ref() == end_entity.as_ref()) {
            Some(parse(end_entity).and_then(|certificate| check_dates(&certificate, now)))
        } else if is_version_1(end_entity) {
            Some(self.verify_version_1(end_entity, now))
        } else {
            None
        }
    }

    /// Checks a certificate of version 1 at the time `now`.
    fn verify_version_1(&self, der: &[u8], now: UnixTime) -> Result<(), Error> {
        let certificate = parse(der)?;
        check_dates(&certificate, now)?;
        for authority in &self.authorities {
            let authority = parse(authority)?;
            if authority.subject().as_raw() == certificate.issuer().as_raw()
                && self.has_signed(authority.public_key(), der, &certificate)?
            {
                return Ok(());
            }
        }
        Err(CertificateError::UnknownIssuer.into())
    }

    /// Whether the owner of `key` has signed the certificate.
    fn has_signed(
        &self,
        key: &SubjectPublicKeyInfo<'_>,
        der: &[u8],
        certificate: &X509Certificate<'_>,
    ) -> Result<bool, Error> {
        let key_algorithm = first_part(key.raw)?;
        let (_, outer) = Any::from_der(der).map_err(bad_encoding)?;
        let (behind, _) = Any::from_der(outer.data).map_err(bad_encoding)?;
        let (_, algorithm) = Any::from_der(behind).map_err(bad_encoding)?;
        Ok(self.algorithms.all.iter().any(|candidate| {
            fits(*candidate, key_algorithm)
                && candidate.signature_alg_id().as_ref() == algorithm.data
                && candidate
                    .verify_signature(
                        &key.subject_public_key.data,
                        certificate.tbs_certificate.as_ref(),
                        &certificate.signature_value.data,
                    )
                    .is_ok()
        }))
    }

    /// Checks that the peer, who showed a certificate of version 1, has its key.
    fn verify_handshake(
        &self,
        message: &[u8],
        der: &[u8],
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate = parse(der)?;
        let key = certificate.public_key();
        let key_algorithm = first_part(key.raw)?;
        let candidates = self
            .algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == signed.scheme)
            .map_or(&[][..], |(_, algorithms)| algorithms);
        let valid = candidates.iter().any(|candidate| {
            fits(*candidate, key_algorithm)
                && candidate
                    .verify_signature(&key.subject_public_key.data, message, signed.signature())
                    .is_ok()
        });
        if valid {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }

    /// Checks a signature of a handshake of TLS 1.2.
    pub(super) fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if is_version_1(certificate) {
            self.verify_handshake(message, certificate, signed)
        } else {
            verify_tls12_signature(message, certificate, signed, &self.algorithms)
        }
    }

    /// Checks a signature of a handshake of TLS 1.3.
    pub(super) fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if is_version_1(certificate) && is_of_tls13(signed.scheme) {
            self.verify_handshake(message, certificate, signed)
        } else {
            verify_tls13_signature(message, certificate, signed, &self.algorithms)
        }
    }
}

fn check_dates(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), Error> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < certificate.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > certificate.validity().not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// TLS 1.3 has no signatures with PKCS#1 padding any more.
fn is_of_tls13(scheme: SignatureScheme) -> bool {
    !matches!(
        scheme,
        SignatureScheme::RSA_PKCS1_SHA256 | SignatureScheme::RSA_PKCS1_SHA384 | SignatureScheme::RSA_PKCS1_SHA512
    )
}

fn is_version_1(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| certificate.version() == X509Version::V1)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(bad_encoding)
}

/// The content of the first element of a sequence: of a key, its algorithm.
fn first_part(sequence: &[u8]) -> Result<&[u8], Error> {
    let (_, outer) = Any::from_der(sequence).map_err(bad_encoding)?;
    let (_, first) = Any::from_der(outer.data).map_err(bad_encoding)?;
    Ok(first.data)
}

fn fits(candidate: &dyn SignatureVerificationAlgorithm, key_algorithm: &[u8]) -> bool {
    candidate.public_key_alg_id().as_ref() == key_algorithm
}

fn bad_encoding<E>(_: E) -> Error {
    CertificateError::BadEncoding.into()
}
