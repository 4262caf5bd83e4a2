//! The side that connects: how a server speaks TLS to another one, and whether that one's certificate is to be trusted.

use super::trust::Trust;
use super::{TlsError, TlsOptions, certified_key, trust, versions};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// Speaks the client's side of TLS, with a certificate of its own.
pub struct TlsConnector(tokio_rustls::TlsConnector);

impl TlsConnector {
    /// Reads key and trust store. `check_host_names`: the certificate of the other side must name the host that was called.
    ///
    /// # Errors
    /// What is wrong with them, and which setting names them.
    pub fn new(options: &TlsOptions, check_host_names: bool) -> Result<TlsConnector, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let trust = trust(options, &provider)?.ok_or(TlsError::NoTrust(options.prefix))?;
        let verifier = ServerVerifier {
            trust,
            check_host_names,
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(options))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key(options)?)));
        config.resumption = Resumption::disabled();
        Ok(TlsConnector(Arc::new(config).into()))
    }

    /// Does the handshake with `host`, a name or an address, which was found at `ip`.
    ///
    /// # Errors
    /// Why it did not succeed; the stream is closed.
    pub async fn connect<S>(&self, stream: S, host: &str, ip: IpAddr) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // Names that TLS does not know as such, with an underscore say, are those of hosts all the same.
        let name = server_name(host).unwrap_or_else(|| ServerName::from(ip));
        self.0.connect(name, stream).await
    }
}

fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).ok()
}

/// Whether a certificate names `host`, a name or an IP address, among its subject's alternative names. Its common name does
/// not count.
pub fn names_host(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let Some(name) = server_name(host) else {
        return false;
    };
    ParsedCertificate::try_from(certificate).is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
}

/// Checks the certificates of servers.
#[derive(Debug)]
struct ServerVerifier {
    trust: Trust,
    check_host_names: bool,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.trust.verify_beyond_webpki(end_entity, now) {
            Some(verified) => verified?,
            None => verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                &self.trust.roots,
                intermediates,
                now,
                self.trust.algorithms.all,
            )?,
        }
        if self.check_host_names {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trust.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trust.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms.supported_schemes()
    }
}
