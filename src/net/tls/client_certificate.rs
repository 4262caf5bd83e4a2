//! Whether a client's certificate is to be trusted.
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
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use x509_parser::asn1_rs::Any;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};
use x509_parser::x509::SubjectPublicKeyInfo;

/// Checks the certificates of clients.
#[derive(Debug)]
pub(super) struct Verifier {
    webpki: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
    /// The certificates that are trusted.
    authorities: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// A verifier that trusts `authorities`; `required`: whoever shows no certificate is refused.
    pub(super) fn new(
        authorities: Vec<CertificateDer<'static>>,
        required: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Verifier, String> {
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots
                .add(authority.clone())
                .map_err(|error| format!("a trusted certificate cannot be used: {error}"))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let builder = if required {
            builder
        } else {
            builder.allow_unauthenticated()
        };
        Ok(Verifier {
            webpki: builder.build().map_err(|error| error.to_string())?,
            algorithms: provider.signature_verification_algorithms,
            authorities,
        })
    }

    /// Checks a certificate of version 1 at the time `now`.
    fn verify_version_1(&self, der: &[u8], now: UnixTime) -> Result<ClientCertVerified, Error> {
        let certificate = parse(der)?;
        check_dates(&certificate, now)?;
        for authority in &self.authorities {
            let authority = parse(authority)?;
            if authority.subject().as_raw() == certificate.issuer().as_raw()
                && self.has_signed(authority.public_key(), der, &certificate)?
            {
                return Ok(ClientCertVerified::assertion());
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
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self
            .authorities
            .iter()
            .any(|trusted| trusted.as_ref() == end_entity.as_ref())
        {
            check_dates(&parse(end_entity)?, now)?;
            Ok(ClientCertVerified::assertion())
        } else if is_version_1(end_entity) {
            self.verify_version_1(end_entity, now)
        } else {
            self.webpki.verify_client_cert(end_entity, intermediates, now)
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if is_version_1(cert) {
            self.verify_handshake(message, cert, dss)
        } else {
            verify_tls12_signature(message, cert, dss, &self.algorithms)
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if is_version_1(cert) && is_of_tls13(dss.scheme) {
            self.verify_handshake(message, cert, dss)
        } else {
            verify_tls13_signature(message, cert, dss, &self.algorithms)
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
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
