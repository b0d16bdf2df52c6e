//! The guarded way to a destination that speaks no HTTP: TCP, TLS over it, and datagrams.
//!
//! It connects only to addresses that were vetted just before, says nothing by itself, and reads no more than its caller
//! allows. Time-outs are those of HTTP sinks, and failures are told in the same words: a ledger has one list to learn.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::{Host, Url};
use vigie_engine::diagnostic::Diagnostics;

use super::http::guard::{Policy, Refused};
use super::http::redact::Redactor;
use super::http::resolve::vetted;
use super::http::{ALLOW_PRIVATE, Limits, Lookup, chain, refuses_client, root, tls_config};
use super::{AttemptReport, BuildContext, Outcome};
use crate::options::Options;
use crate::secret::Secret;

/// Addresses of one name that are tried, each in its share of the time: two families with a spare each.
const MAX_TRIED: usize = 4;
/// What is read at once.
const READ_BYTES: usize = 4 * 1024;

/// Where a sink connects to, and how.
pub struct Wire {
    host: String,
    port: u16,
    policy: Policy,
    lookup: Lookup,
    /// Time-outs; the total is for the sink to keep.
    pub limits: Limits,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    redactor: Redactor,
}

/// What a sink says of its wire besides its options.
pub struct WireSpec<'a> {
    /// Option that holds the URL.
    pub url_option: &'static str,
    /// Where the URL names no port.
    pub default_port: u16,
    /// Whether TLS is spoken, or may be: without it the options for TLS have no meaning and are refused.
    pub tls: bool,
    /// What must never show in an excerpt, besides what the URL holds.
    pub secrets: &'a [Secret],
}

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A connection that is read by lines and by lengths, both bounded.
pub struct Conversation<S> {
    stream: S,
    unread: Vec<u8>,
}

impl Wire {
    /// Builds it from a sink's options; opens nothing.
    pub fn build(
        spec: &WireSpec<'_>,
        options: &Options,
        context: &BuildContext,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let url = options.url(spec.url_option)?;
        let policy = Policy { allow_private: options.flag(ALLOW_PRIVATE.name) };
        let (host, port) = place(url, spec, policy, options, diagnostics)?;
        let tls = match spec.tls {
            true => Some(connector(&host, spec, options, diagnostics)?),
            false => None,
        };
        let redactor = Redactor::new(url, spec.secrets);
        let (limits, lookup) = (context.http_limits, Arc::clone(&context.lookup));
        Some(Self { host, port, policy, lookup, limits, tls, redactor })
    }

    /// A TCP connection to the first of the vetted addresses that answers.
    ///
    /// # Errors
    /// A finished report when there is none.
    pub async fn dial(&self) -> Result<TcpStream, AttemptReport> {
        let dialled = timeout(self.limits.connect, async {
            let addresses = self.addresses().await?;
            let share = self.limits.connect / u32::try_from(addresses.len()).unwrap_or(1).max(1);
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for address in addresses {
                match timeout(share, TcpStream::connect(address)).await {
                    Ok(Ok(stream)) => {
                        stream.set_nodelay(true)?;
                        return Ok(stream);
                    }
                    Ok(Err(error)) => last = error,
                    Err(_) => last = io::ErrorKind::TimedOut.into(),
                }
            }
            Err(last.into())
        });
        self.connected(dialled.await)
    }

    /// TLS over a connection.
    ///
    /// # Errors
    /// A finished report when the two do not come together, or TLS was not set up.
    pub async fn secure(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, AttemptReport> {
        let Some((connector, name)) = &self.tls else {
            return Err(self.report(Outcome::Misconfigured, "TLS failed", "it is not set up"));
        };
        let secured = timeout(self.limits.connect, connector.connect(name.clone(), stream)).await;
        self.connected(secured.map(|secured| secured.map_err(Into::into)))
    }

    /// A socket that sends to the first of the vetted addresses and hears from it only.
    ///
    /// # Errors
    /// A finished report when there is none.
    pub async fn datagram(&self) -> Result<UdpSocket, AttemptReport> {
        let bound = timeout(self.limits.connect, async {
            let address = self.addresses().await?.into_iter().next();
            let address = address.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
            let any = match address {
                SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            };
            let socket = UdpSocket::bind(any).await?;
            socket.connect(address).await?;
            Ok(socket)
        });
        self.connected(bound.await)
    }

    /// A report on a connection that was there.
    #[must_use]
    pub fn lost(&self, error: &io::Error) -> AttemptReport {
        self.explain(error, "connection lost")
    }

    /// A report in the sink's words, and in what the destination said, without secrets.
    #[must_use]
    pub fn report(&self, outcome: Outcome, status: &str, said: &str) -> AttemptReport {
        AttemptReport {
            outcome,
            status: status.into(),
            excerpt: self.redactor.excerpt(said.as_bytes()),
            spent: None,
            receipt: None,
        }
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, Box<dyn StdError + Send + Sync>> {
        let mut addresses = vetted(self.policy, &self.lookup, &self.host).await?;
        addresses.truncate(MAX_TRIED);
        addresses.iter_mut().for_each(|address| address.set_port(self.port));
        Ok(addresses)
    }

    fn connected<T>(
        &self,
        result: Result<Result<T, Box<dyn StdError + Send + Sync>>, tokio::time::error::Elapsed>,
    ) -> Result<T, AttemptReport> {
        match result {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => Err(self.explain(&*error, "connect failed")),
            Err(elapsed) => Err(self.report(Outcome::Retry, "connect timed out", &elapsed.to_string())),
        }
    }

    fn explain(&self, error: &(dyn StdError + 'static), otherwise: &str) -> AttemptReport {
        let cause = root(error).to_string();
        if chain(error).any(|cause| cause.is::<Refused>()) {
            return self.report(Outcome::Misconfigured, "refused by the address guard", &cause);
        }
        let mut tls = chain(error).filter_map(|cause| cause.downcast_ref::<rustls::Error>());
        if tls.any(refuses_client) {
            return self.report(Outcome::Misconfigured, "the client certificate is refused", &cause);
        }
        let kinds = chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        let status = match kinds.last() {
            _ if chain(error).any(|cause| cause.is::<rustls::Error>()) => "TLS failed",
            Some(io::ErrorKind::TimedOut) => "connect timed out",
            Some(io::ErrorKind::ConnectionRefused) => "connection refused",
            Some(io::ErrorKind::ConnectionReset) => "connection reset",
            _ => otherwise,
        };
        self.report(Outcome::Retry, status, &cause)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, policy, .. } = self;
        let mut shown = formatter.debug_struct("Wire");
        shown.field("host", host).field("port", port).field("policy", policy).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    /// Over a connection of which nothing was read.
    pub fn new(stream: S) -> Self {
        Self { stream, unread: Vec::new() }
    }

    /// The connection, for TLS to go over it.
    ///
    /// # Errors
    /// When the other side went on talking: whatever it said in clear must not count as said under TLS.
    pub fn into_stream(self) -> io::Result<S> {
        if self.unread.is_empty() { Ok(self.stream) } else { Err(unexpected("it speaks out of turn")) }
    }

    /// The same, whatever it goes over.
    pub fn boxed<'a>(self) -> Conversation<Box<dyn Duplex + 'a>>
    where
        S: Send + 'a,
    {
        Conversation { stream: Box::new(self.stream), unread: self.unread }
    }

    /// Says all of it.
    ///
    /// # Errors
    /// As the connection gives them.
    pub async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next line without its end.
    ///
    /// # Errors
    /// When the connection ends, or the line is longer than `max_bytes`.
    pub async fn line(&mut self, max_bytes: usize) -> io::Result<Vec<u8>> {
        loop {
            let end = self.unread.iter().position(|byte| *byte == b'\n');
            if end.unwrap_or(self.unread.len()) > max_bytes {
                return Err(unexpected("a line is too long"));
            }
            if let Some(end) = end {
                let mut line: Vec<u8> = self.unread.drain(..=end).collect();
                line.truncate(line.trim_ascii_end().len());
                return Ok(line);
            }
            self.read().await?;
        }
    }

    /// The next bytes, as many as `count_bytes`; the caller bounds it.
    ///
    /// # Errors
    /// When the connection ends before.
    pub async fn bytes(&mut self, count_bytes: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < count_bytes {
            self.read().await?;
        }
        Ok(self.unread.drain(..count_bytes).collect())
    }

    async fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; READ_BYTES];
        let count_bytes = self.stream.read(&mut buffer).await?;
        if count_bytes == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side ended the connection"));
        }
        self.unread.extend_from_slice(buffer.get(..count_bytes).unwrap_or_default());
        Ok(())
    }
}

fn unexpected(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Host and port of the URL, once they may be reached.
fn place(
    url: &Url,
    spec: &WireSpec<'_>,
    policy: Policy,
    options: &Options,
    diagnostics: &mut Diagnostics,
) -> Option<(String, u16)> {
    let mut refuse = |code, message: String, hint: &str| {
        let message = format!("`{}`: {message}", spec.url_option);
        diagnostics.error(code, options.span_of(spec.url_option), message, Some(hint.to_owned()));
    };
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() || url.port() == Some(0) {
        refuse("E0451", "nothing but a port may follow the host".into(), "such as tls://logs.example.org:6514");
        return None;
    }
    // URLs of schemes that browsers do not know keep their host as it was written.
    let host = match Host::parse(url.host_str()?) {
        Ok(Host::Domain(name)) => name,
        Ok(Host::Ipv4(address)) => address.to_string(),
        Ok(Host::Ipv6(address)) => address.to_string(),
        Err(error) => {
            refuse("E0451", error.to_string(), "write a host name or an address");
            return None;
        }
    };
    if let Err(refused) = policy.vet_host(&host) {
        refuse("E0421", format!("the host of the URL is refused: {refused}"), "use the name of the service itself");
        return None;
    }
    Some((host, url.port().unwrap_or(spec.default_port)))
}

fn connector(
    host: &str,
    spec: &WireSpec<'_>,
    options: &Options,
    diagnostics: &mut Diagnostics,
) -> Option<(TlsConnector, ServerName<'static>)> {
    let config = tls_config(options, spec.url_option, diagnostics)?;
    match ServerName::try_from(host.to_owned()) {
        Ok(name) => Some((TlsConnector::from(Arc::new(config)), name)),
        Err(error) => {
            let message = format!("`{}`: {error}", spec.url_option);
            let hint = "TLS needs the name that the certificate holds";
            diagnostics.error("E0451", options.span_of(spec.url_option), message, Some(hint.into()));
            None
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rustls::RootCertStore;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::server::WebPkiClientVerifier;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use vigie_engine::yaml::Node;

    use super::*;
    use crate::options::{self, OptionSpec};
    use crate::sink::contract::{CANARY, TEST_LIMITS, context, map_node, text_node};
    use crate::sink::http::{CA_FILE, CERTIFICATE_FILE, KEY_FILE};

    pub(in crate::sink) const TLS_FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls");

    const OPTIONS: &[OptionSpec] = &[
        OptionSpec {
            name: "url",
            kind: options::OptionKind::Url(&["tls", "tcp", "udp"]),
            presence: options::Presence::Required,
            help: "where to connect to",
        },
        CA_FILE,
        CERTIFICATE_FILE,
        KEY_FILE,
        ALLOW_PRIVATE,
    ];

    /// A server's side of TLS; `knows_clients` asks for a certificate.
    pub(in crate::sink) fn acceptor(knows_clients: bool) -> TlsAcceptor {
        let read = |name: &str| std::fs::read(format!("{TLS_FILES}/{name}")).expect("there");
        let certificate = |name: &str| CertificateDer::from_pem_slice(&read(name)).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(&read("server-key.pem")).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
        let versions = versions.with_safe_default_protocol_versions().expect("versions");
        let config = if knows_clients {
            let mut roots = RootCertStore::empty();
            roots.add(certificate("client-authority.pem")).expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            versions.with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            versions.with_no_client_auth()
        };
        let config = config.with_single_cert(vec![certificate("server.pem")], key).expect("a server");
        TlsAcceptor::from(Arc::new(config))
    }

    fn wire(entries: Vec<(&str, Node)>) -> Result<Wire, String> {
        let mut diagnostics = Diagnostics::default();
        let expand = |text: &str| Ok(text.to_owned());
        let options = options::read(&map_node(entries), "x", OPTIONS, &expand, &mut diagnostics).expect("a map");
        let is_tls = options.url("url").is_some_and(|url| url.scheme() == "tls");
        let secrets = [Secret::new(CANARY)];
        let spec = WireSpec { url_option: "url", default_port: 1, tls: is_tls, secrets: &secrets };
        let mut context = context().0;
        context.http_limits = TEST_LIMITS;
        let built = Wire::build(&spec, &options, &context, &mut diagnostics).filter(|_| options.is_whole());
        let told = format!("{:?}", diagnostics.sorted());
        assert!(!told.contains(CANARY), "{told}");
        built.ok_or(told)
    }

    fn at(url: &str) -> Wire {
        wire(vec![("url", text_node(url))]).expect("builds")
    }

    #[test]
    fn the_host_is_vetted_in_every_spelling_that_a_url_keeps() {
        for url in [
            "tcp://169.254.169.254",
            "udp://0xa9fea9fe:514",
            "tcp://2852039166",
            "tls://[fe80::1]:6514",
            "tcp://[::ffff:169.254.169.254]",
            "udp://%31%36%39.254.169.254",
            "tcp://metadata.google.internal.",
        ] {
            let told = wire(vec![("url", text_node(url))]).expect_err(url);
            assert!(told.contains("E0421"), "{url}: {told}");
        }
        let strict = |url| wire(vec![("url", text_node(url)), ("allow_private", text_node("false"))]);
        assert!(strict("tcp://127.1").is_err() && strict("tcp://[::1]").is_err() && strict("tcp://8.8.8.8").is_ok());
    }

    #[test]
    fn host_and_port_are_all_that_a_url_may_hold() {
        assert_eq!((at("udp://logs.example.org").port, at("udp://logs.example.org:514/").port), (1, 514));
        assert_eq!(
            (at("tcp://[2001:db8::1]").host, at("tcp://0x7f.1").host),
            ("2001:db8::1".into(), "127.0.0.1".into())
        );
        for url in ["tcp://h/x", "tcp://h?x", "tcp://h#x", "tcp://h:0", "tcp://a%20b"] {
            let told = wire(vec![("url", text_node(url))]).expect_err(url);
            assert!(told.contains("E0451"), "{url}: {told}");
        }
    }

    #[test]
    fn files_for_tls_are_read_when_it_is_built() {
        let file = |name: &str| text_node(&format!("{TLS_FILES}/{name}"));
        let told = |more: Vec<(&'static str, Node)>| {
            wire([vec![("url", text_node("tls://h"))], more].concat()).map(|_| ()).err().unwrap_or_default()
        };
        let pair = |certificate, key| vec![("certificate_file", file(certificate)), ("key_file", file(key))];
        assert_eq!(told(pair("client.pem", "client-key.pem")), "");
        assert_eq!(told(vec![("ca_file", file("authority.pem"))]), "");
        for (more, code) in [
            (pair("client.pem", "server-key.pem"), "E0480"),
            (pair("client.pem", "absent.pem"), "E0480"),
            (vec![("certificate_file", file("client.pem"))], "E0480"),
            (vec![("key_file", file("client-key.pem"))], "E0480"),
            (vec![("ca_file", file("client-key.pem"))], "E0422"),
            (vec![("ca_file", file("absent.pem"))], "E0422"),
        ] {
            assert!(told(more.clone()).contains(code), "{more:?}: {}", told(more.clone()));
        }
    }

    #[tokio::test]
    async fn every_address_of_a_name_is_vetted_before_any_is_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let mut wire = at(&format!("tcp://rebind.example:{port}"));
        let resolving = |addresses: &'static [&'static str]| -> Lookup {
            Arc::new(move |_| {
                let parsed = addresses.iter().map(|text| text.parse().expect("an address")).collect();
                Box::pin(async move { Ok(parsed) })
            })
        };
        for addresses in [&["127.0.0.1:0", "169.254.169.254:0"] as &[&str], &["[fd00:ec2::254]:0"]] {
            wire.lookup = resolving(addresses);
            for report in [wire.dial().await.err(), wire.datagram().await.err()] {
                let report = report.expect("refused");
                assert_eq!(report.outcome, Outcome::Misconfigured, "{report:?}");
                assert_eq!(report.status, "refused by the address guard");
            }
        }
        wire.lookup = resolving(&["127.0.0.1:0"]);
        assert_eq!(wire.dial().await.expect("connected").peer_addr().expect("connected").port(), port);
        wire.lookup = resolving(&[]);
        assert_eq!(wire.dial().await.err().map(|report| report.status), Some("connect failed".into()));
        wire.lookup = Arc::new(|_| Box::pin(async { Err(io::Error::new(io::ErrorKind::NotFound, CANARY)) }));
        let report = wire.dial().await.expect_err("fails");
        assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "connect failed"));
        assert_eq!(report.excerpt, "[redacted]");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_without_an_answer_costs_no_more_than_the_time_to_connect() {
        let mut wire = at("tcp://slow.example");
        wire.lookup = Arc::new(|_| Box::pin(std::future::pending()));
        let started = tokio::time::Instant::now();
        let report = wire.dial().await.expect_err("fails");
        assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "connect timed out"));
        assert_eq!(started.elapsed(), TEST_LIMITS.connect);
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_never_speaks_tls_costs_no_more_than_the_time_to_connect() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let stream = std::net::TcpStream::connect(address).expect("connected");
        stream.set_nonblocking(true).expect("set");
        let stream = TcpStream::from_std(stream).expect("of this runtime");
        let wire = at(&format!("tls://{address}"));
        let report = wire.secure(stream).await.expect_err("fails");
        assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "connect timed out"));
    }

    #[tokio::test]
    async fn lines_and_lengths_are_bounded() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let mut conversation = Conversation::new(ours);
        theirs.write_all(b"one\r\ntwo\n12345rest").await.expect("written");
        drop(theirs);
        assert_eq!(conversation.line(4).await.expect("read"), b"one");
        assert_eq!(conversation.line(3).await.expect("read"), b"two");
        assert_eq!(conversation.bytes(5).await.expect("read"), b"12345");
        assert_eq!(conversation.line(3).await.map_err(|error| error.kind()), Err(io::ErrorKind::InvalidData));
        let error = Conversation::into_stream(conversation).expect_err("something is left");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);

        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let mut conversation = Conversation::new(ours);
        theirs.write_all(&[b'a'; 16 * 1024]).await.expect("written");
        drop(theirs);
        assert_eq!(conversation.line(4096).await.map_err(|error| error.kind()), Err(io::ErrorKind::InvalidData));
        assert!(conversation.unread.len() <= 4096 + READ_BYTES, "{}", conversation.unread.len());

        let (ours, theirs) = tokio::io::duplex(16);
        drop(theirs);
        let ended = Conversation::new(ours).bytes(1).await;
        assert_eq!(ended.map_err(|error| error.kind()), Err(io::ErrorKind::UnexpectedEof));
    }
}
