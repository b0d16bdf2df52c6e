//! TLS of sinks: bundled roots, more authorities if the operator names some, ring as provider of this configuration alone.
//!
//! It never reads the system's store (an image from scratch has none) and installs nothing process-wide, so no order of
//! start-up can make it panic.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::BuildError;

/// What a destination knows us by, in PEM: a certificate with those that vouch for it, and its key.
pub(in crate::sink) struct Identity {
    pub(in crate::sink) certificate_pem: Vec<u8>,
    pub(in crate::sink) key_pem: Vec<u8>,
}

pub(in crate::sink) fn config(
    ca_pem: Option<&[u8]>,
    identity: Option<&Identity>,
) -> Result<rustls::ClientConfig, BuildError> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(pem) = ca_pem {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| BuildError::Authorities)?;
            roots.add(certificate).map_err(|_| BuildError::Authorities)?;
        }
        if roots.len() == before {
            return Err(BuildError::Authorities);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| BuildError::Client(Box::new(error)))?;
    let config = versions.with_root_certificates(roots);
    let Some(identity) = identity else { return Ok(config.with_no_client_auth()) };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&identity.certificate_pem).collect();
    let chain = chain.map_err(|_| BuildError::Identity)?;
    let key = PrivateKeyDer::from_pem_slice(&identity.key_pem).map_err(|_| BuildError::Identity)?;
    if chain.is_empty() {
        return Err(BuildError::Identity);
    }
    config.with_client_auth_cert(chain, key).map_err(|_| BuildError::Identity)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::thread::JoinHandle;

    use rustls::{ServerConfig, ServerConnection, StreamOwned};
    use url::Url;

    use crate::secret::SinkUrl;
    use crate::sink::Outcome;
    use crate::sink::contract::StoppedClock;
    use crate::sink::http::{Endpoint, EndpointSpec};

    use super::*;

    const AUTHORITY: &[u8] = include_bytes!("../../../tests/tls/authority.pem");
    const SERVER: &[u8] = include_bytes!("../../../tests/tls/server.pem");
    const SERVER_KEY: &[u8] = include_bytes!("../../../tests/tls/server-key.pem");

    /// Answers one connection; gives what it read, which is nothing when the client refused the certificate.
    fn serve_once() -> (SocketAddr, JoinHandle<Vec<u8>>) {
        let certificate = CertificateDer::from_pem_slice(SERVER).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(SERVER_KEY).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let server = versions.expect("versions").with_no_client_auth().with_single_cert(vec![certificate], key);
        let server = Arc::new(server.expect("a server"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let mut stream = StreamOwned::new(ServerConnection::new(server).expect("a connection"), stream);
            let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
            while !read.ends_with(b"{}") {
                match stream.read(&mut buffer) {
                    Ok(count) if count > 0 => read.extend_from_slice(&buffer[..count]),
                    _ => return read,
                }
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("written");
            stream.flush().expect("sent");
            read
        });
        (address, thread)
    }

    async fn post(ca_pem: Option<Vec<u8>>) -> (Option<u16>, Option<(Outcome, String)>, usize) {
        let (address, server) = serve_once();
        let url = SinkUrl::new(Url::parse(&format!("https://{address}/")).expect("valid"));
        let endpoint = Endpoint::build(EndpointSpec { ca_pem, ..EndpointSpec::new(url, Arc::new(StoppedClock)) });
        let body = bytes::Bytes::from_static(b"{}");
        let sent = endpoint.expect("builds").send(reqwest::Method::POST, reqwest::header::HeaderMap::new(), body).await;
        let read_bytes = tokio::task::spawn_blocking(|| server.join()).await.expect("joined").expect("no panic").len();
        match sent {
            Ok(answer) => (Some(answer.status.as_u16()), None, read_bytes),
            Err(report) => (None, Some((report.outcome, report.status)), read_bytes),
        }
    }

    #[tokio::test]
    async fn an_unknown_authority_is_refused_unless_the_operator_named_it() {
        assert_eq!(post(None).await, (None, Some((Outcome::Retry, "TLS failed".into())), 0));
        let (status, report, read_bytes) = post(Some(AUTHORITY.to_vec())).await;
        assert_eq!((status, report), (Some(200), None));
        assert!(read_bytes > 2);
    }

    #[test]
    fn authorities_must_be_certificates() {
        let body = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in ["", "no PEM", body] {
            assert!(matches!(config(Some(pem.as_bytes()), None), Err(BuildError::Authorities)), "{pem}");
        }
        let bundled = webpki_roots::TLS_SERVER_ROOTS.len();
        assert!(bundled > 50 && config(None, None).is_ok(), "{bundled}");
    }
    #[test]
    fn a_certificate_of_ours_needs_its_own_key() {
        let identity = |certificate: &[u8], key: &[u8]| {
            let identity = Identity { certificate_pem: certificate.to_vec(), key_pem: key.to_vec() };
            config(None, Some(&identity)).map(|config| config.client_auth_cert_resolver.has_certs())
        };
        assert!(matches!(identity(SERVER, SERVER_KEY), Ok(true)));
        for (certificate, key) in [(AUTHORITY, SERVER_KEY), (SERVER, SERVER), (b"", SERVER_KEY), (SERVER_KEY, b"")] {
            assert!(matches!(identity(certificate, key), Err(BuildError::Identity)));
        }
    }
}
