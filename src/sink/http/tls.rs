//! TLS of sinks: bundled roots, more authorities if the operator names some, a client certificate if the destination demands
//! one, ring as provider of this configuration alone.
//!
//! It never reads the system's store (an image from scratch has none) and installs nothing process-wide, so no order of
//! start-up can make it panic.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, InconsistentKeys};

use super::BuildError;

/// A client certificate with its chain, and the key to it.
pub type Identity = Arc<CertifiedKey>;

/// Why a certificate and a key are no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoIdentity {
    Certificate(&'static str),
    Key(&'static str),
}

/// Reads both from PEM; the key may stand as PKCS#8, PKCS#1 or SEC1.
pub(super) fn identity(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Identity, NoIdentity> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate_pem).collect();
    let chain = chain.map_err(|_| NoIdentity::Certificate("is no PEM"))?;
    if chain.is_empty() {
        return Err(NoIdentity::Certificate("holds no certificate"));
    }
    let key =
        PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| NoIdentity::Key("holds no private key in the clear"))?;
    let key = provider().key_provider.load_private_key(key);
    let key = key.map_err(|_| NoIdentity::Key("holds a key that cannot be used"))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(NoIdentity::Key("is the key of another certificate")),
        Err(_) => Err(NoIdentity::Certificate("holds no usable certificate")),
    }
}

/// A client's side of TLS with these authorities beside the bundled ones.
pub(in crate::sink) fn config(
    ca_pem: Option<&[u8]>,
    identity: Option<Identity>,
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
    let versions = rustls::ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| BuildError::Client(Box::new(error)))?;
    let rooted = versions.with_root_certificates(roots);
    Ok(match identity {
        Some(identity) => rooted.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
        None => rooted.with_no_client_auth(),
    })
}

/// Whether the other side says that it does not take our certificate, or misses one.
pub(in crate::sink) fn refuses_client(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
        )
    )
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::thread::JoinHandle;

    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
    use url::Url;

    use crate::secret::SinkUrl;
    use crate::sink::Outcome;
    use crate::sink::contract::StoppedClock;
    use crate::sink::http::{Endpoint, EndpointSpec};

    use super::*;

    const AUTHORITY: &[u8] = include_bytes!("../../../tests/tls/authority.pem");
    const SERVER: &[u8] = include_bytes!("../../../tests/tls/server.pem");
    const SERVER_KEY: &[u8] = include_bytes!("../../../tests/tls/server-key.pem");
    const CLIENTS: &[u8] = include_bytes!("../../../tests/tls/client-authority.pem");
    const CLIENT: &[u8] = include_bytes!("../../../tests/tls/client.pem");
    const CLIENT_KEY: &[u8] = include_bytes!("../../../tests/tls/client-key.pem");
    const CLIENT_KEY_SEC1: &[u8] = include_bytes!("../../../tests/tls/client-key-sec1.pem");
    const CLIENT_RSA: &[u8] = include_bytes!("../../../tests/tls/client-rsa.pem");
    const CLIENT_RSA_KEY: &[u8] = include_bytes!("../../../tests/tls/client-rsa-key.pem");

    /// Of one connection: what was read, which is nothing when either side refused the other, and the client's certificate.
    pub(crate) type Served = (Vec<u8>, Option<CertificateDer<'static>>);

    /// Answers one connection, whose client must show a certificate if `demands` says so.
    pub(crate) fn serve_once(demands: bool) -> (SocketAddr, JoinHandle<Served>) {
        let certificate = CertificateDer::from_pem_slice(SERVER).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(SERVER_KEY).expect("a key");
        let versions = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let versions = versions.expect("versions");
        let versions = if demands {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(CLIENTS).expect("a certificate")).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
            versions.with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            versions.with_no_client_auth()
        };
        let server = Arc::new(versions.with_single_cert(vec![certificate], key).expect("a server"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let mut stream = StreamOwned::new(ServerConnection::new(server).expect("a connection"), stream);
            let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
            while !read.ends_with(b"{}") {
                match stream.read(&mut buffer) {
                    Ok(count) if count > 0 => read.extend_from_slice(&buffer[..count]),
                    _ => {
                        // What the client still sends is taken, or a reset would overtake the alert.
                        stream.flush().unwrap_or_default();
                        stream.sock.shutdown(std::net::Shutdown::Write).unwrap_or_default();
                        while stream.sock.read(&mut buffer).is_ok_and(|count| count > 0) {}
                        return (read, None);
                    }
                }
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("written");
            stream.flush().expect("sent");
            let shown = stream.conn.peer_certificates().and_then(|chain| chain.first()).cloned();
            (read, shown.map(CertificateDer::into_owned))
        });
        (address, thread)
    }

    type Posted = (Option<u16>, Option<(Outcome, String)>, Served);

    async fn post(ca_pem: Option<Vec<u8>>, identity: Option<Identity>, demands: bool) -> Posted {
        let (address, server) = serve_once(demands);
        let url = SinkUrl::new(Url::parse(&format!("https://{address}/")).expect("valid"));
        let spec = EndpointSpec { ca_pem, identity, ..EndpointSpec::new(url, Arc::new(StoppedClock)) };
        let endpoint = Endpoint::build(spec).expect("builds");
        let body = bytes::Bytes::from_static(b"{}");
        let sent = endpoint.send(reqwest::Method::POST, reqwest::header::HeaderMap::new(), body).await;
        drop(endpoint);
        let served = tokio::task::spawn_blocking(|| server.join()).await.expect("joined").expect("no panic");
        match sent {
            Ok(answer) => (Some(answer.status.as_u16()), None, served),
            Err(report) => (None, Some((report.outcome, report.status)), served),
        }
    }

    #[tokio::test]
    async fn an_unknown_authority_is_refused_unless_the_operator_named_it() {
        let (status, report, (read, _)) = post(None, None, false).await;
        assert_eq!((status, report, read.len()), (None, Some((Outcome::Retry, "TLS failed".into())), 0));
        let (status, report, (read, shown)) = post(Some(AUTHORITY.to_vec()), None, false).await;
        assert_eq!((status, report, shown), (Some(200), None, None));
        assert!(read.len() > 2);
    }

    #[tokio::test]
    async fn a_destination_that_demands_a_certificate_sees_ours() {
        for (certificate, key) in [(CLIENT, CLIENT_KEY), (CLIENT, CLIENT_KEY_SEC1), (CLIENT_RSA, CLIENT_RSA_KEY)] {
            let ours = identity(certificate, key).expect("an identity");
            let (status, report, (_, shown)) = post(Some(AUTHORITY.to_vec()), Some(ours), true).await;
            let own = CertificateDer::from_pem_slice(certificate).expect("a certificate");
            assert_eq!((status, report, shown), (Some(200), None, Some(own)));
        }
    }

    #[tokio::test]
    async fn a_destination_that_refuses_our_certificate_is_for_the_operator() {
        let stranger = identity(SERVER, SERVER_KEY).expect("an identity");
        for ours in [None, Some(stranger)] {
            let (status, report, (read, _)) = post(Some(AUTHORITY.to_vec()), ours, true).await;
            let told = Some((Outcome::Misconfigured, "the client certificate is refused".into()));
            assert_eq!((status, report, read.len()), (None, told, 0));
        }
    }

    #[test]
    fn a_certificate_and_its_key_belong_together() {
        let body = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cases: [(&[u8], &[u8], NoIdentity); 6] = [
            (b"", CLIENT_KEY, NoIdentity::Certificate("holds no certificate")),
            (CLIENT_KEY, CLIENT_KEY, NoIdentity::Certificate("holds no certificate")),
            (body, CLIENT_KEY, NoIdentity::Certificate("holds no usable certificate")),
            (CLIENT, b"", NoIdentity::Key("holds no private key in the clear")),
            (CLIENT, CLIENT, NoIdentity::Key("holds no private key in the clear")),
            (CLIENT, CLIENT_RSA_KEY, NoIdentity::Key("is the key of another certificate")),
        ];
        for (certificate, key, expected) in cases {
            assert_eq!(identity(certificate, key).err(), Some(expected));
        }
        let broken = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(identity(CLIENT, broken).err(), Some(NoIdentity::Key("holds a key that cannot be used")));
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
}
