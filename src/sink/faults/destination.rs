//! A destination with one kind of trouble, in the language of a protocol: HTTP, SMTP, NATS or syslog over TCP.
//!
//! It is healed once and stays so. It counts what it said, and the alerts that it took while it was well.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;
use vigie_engine::yaml::Node;

use crate::sink::contract::text_node;
use crate::sink::wire::tests::TLS_FILES;
use crate::sink::wire::{Conversation, Duplex};

/// Longest line that a client says.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// Little is kept by the kernel of what is said to nobody.
const SEND_BUFFER_BYTES: u32 = 16 * 1024;
/// Connections that wait beyond those that are accepted.
const BACKLOG: u32 = 64;
/// What follows an assent over HTTP, so that an answer has a middle: white space to every reader.
const REST: &[u8] = &[b' '; 64];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// Its port is closed.
    Refuses,
    /// A connection never comes to be.
    NeverAccepts,
    /// A certificate that no client must take.
    Certificate(&'static str),
    ByteASecond,
    ResetsInRequest,
    ResetsInAnswer,
    /// It can take nothing now.
    Busy,
    /// It asks for a pause.
    Limits,
    /// It says yes, and more without end.
    Endless,
    /// It says yes in a body that would be large if it were decompressed.
    Bomb,
    /// It says yes in a page of somebody else.
    Page,
}

/// What it speaks.
#[derive(Debug)]
pub(super) enum Language {
    /// With this assent.
    Http(String),
    Smtp,
    Nats,
    Syslog,
    /// syslog over UDP.
    Datagram,
}

struct Shared {
    language: Language,
    /// TLS begins in the middle of the conversation.
    upgrades: bool,
    trouble: Trouble,
    is_healed: AtomicBool,
    copies: AtomicUsize,
    /// Most that was said on one connection while it was in trouble.
    said_bytes: AtomicUsize,
}

pub(super) struct Destination {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Bound, until it listens.
    waits: Mutex<Option<Waits>>,
}

enum Waits {
    Bound(TcpSocket),
    /// With the connections that keep others out.
    Full {
        listener: TcpListener,
        _filler: TcpStream,
    },
}

type Talk = Conversation<Box<dyn Duplex>>;

impl Destination {
    pub(super) async fn start(language: Language, upgrades: bool, trouble: Trouble) -> Self {
        // Made before anybody waits for them.
        LazyLock::force(&ACCEPTORS);
        LazyLock::force(&BOMB);
        let shared = Arc::new(Shared {
            language,
            upgrades,
            trouble,
            is_healed: AtomicBool::new(false),
            copies: AtomicUsize::new(0),
            said_bytes: AtomicUsize::new(0),
        });
        if matches!(shared.language, Language::Datagram) {
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
            let address = socket.local_addr().expect("bound");
            if trouble != Trouble::Refuses {
                receive(socket, Arc::clone(&shared));
            }
            return Self { address, shared, waits: Mutex::new(None) };
        }
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_send_buffer_size(SEND_BUFFER_BYTES).expect("set");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("loopback");
        let address = socket.local_addr().expect("bound");
        let waits = match trouble {
            Trouble::Refuses => Some(Waits::Bound(socket)),
            Trouble::NeverAccepts => {
                // One that is not accepted fills a queue of none.
                let listener = socket.listen(0).expect("listens");
                let filler = TcpStream::connect(address).await.expect("the first comes through");
                Some(Waits::Full { listener, _filler: filler })
            }
            _ => {
                accept(socket.listen(BACKLOG).expect("listens"), Arc::clone(&shared));
                None
            }
        };
        Self { address, shared, waits: Mutex::new(waits) }
    }

    /// Where it is, as a sink's option says it, and the options that go with it.
    pub(super) fn place(&self) -> (String, Vec<(&'static str, Node)>) {
        let (is_tls, upgrades) = (self.shared.is_tls(), self.shared.upgrades);
        let mut more = Vec::new();
        let (scheme, path) = match (&self.shared.language, is_tls) {
            (Language::Http(_), true) => ("https", "/hooks/x"),
            (Language::Http(_), false) => ("http", "/hooks/x"),
            (Language::Smtp, true) if !upgrades => ("smtps", ""),
            (Language::Smtp, _) => ("smtp", ""),
            (Language::Nats, false) => ("nats", ""),
            (Language::Syslog, false) => ("tcp", ""),
            (Language::Datagram, _) => ("udp", ""),
            (Language::Nats | Language::Syslog, true) => ("tls", ""),
        };
        match (&self.shared.language, is_tls) {
            (Language::Smtp, false) => more.push(("insecure", text_node("true"))),
            (Language::Nats, true) if !upgrades => more.push(("handshake_first", text_node("true"))),
            _ => {}
        }
        more.extend(is_tls.then(|| ("ca_file", text_node(&format!("{TLS_FILES}/faults-authority.pem")))));
        (format!("{scheme}://faults.test:{}{path}", self.address.port()), more)
    }

    pub(super) fn heal(&self) {
        self.shared.is_healed.store(true, Ordering::SeqCst);
        if matches!(self.shared.language, Language::Datagram) && self.shared.trouble == Trouble::Refuses {
            let socket = std::net::UdpSocket::bind(self.address).expect("nobody else took it");
            socket.set_nonblocking(true).expect("set");
            receive(UdpSocket::from_std(socket).expect("of this runtime"), Arc::clone(&self.shared));
        }
        match self.waits.lock().expect("not poisoned").take() {
            Some(Waits::Bound(socket)) => accept(socket.listen(BACKLOG).expect("listens"), Arc::clone(&self.shared)),
            Some(Waits::Full { listener, .. }) => accept(listener, Arc::clone(&self.shared)),
            None => {}
        }
    }

    /// Alerts that it took while it was well.
    pub(super) fn copies(&self) -> usize {
        self.shared.copies.load(Ordering::SeqCst)
    }

    pub(super) fn said_bytes(&self) -> usize {
        self.shared.said_bytes.load(Ordering::SeqCst)
    }
}

fn accept(listener: TcpListener, shared: Arc<Shared>) {
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                // A client that goes away ends its connection; what was taken before is counted.
                shared.serve(stream).await.unwrap_or_default();
            });
        }
    });
}

fn receive(socket: UdpSocket, shared: Arc<Shared>) {
    tokio::spawn(async move {
        while socket.recv(&mut [0; MAX_LINE_BYTES]).await.is_ok() {
            shared.took();
        }
    });
}

/// Made once: what it costs is not the sinks' time.
static ACCEPTORS: LazyLock<HashMap<&str, TlsAcceptor>> =
    LazyLock::new(|| ["good", "expired", "elsewhere"].map(|name| (name, acceptor(name))).into());

fn acceptor(certificate: &str) -> TlsAcceptor {
    let read = |name: &str| std::fs::read(format!("{TLS_FILES}/faults-{name}.pem")).expect("there");
    let certificate = CertificateDer::from_pem_slice(&read(certificate)).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(&read("key")).expect("a key");
    let versions = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let versions = versions.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    TlsAcceptor::from(Arc::new(versions.with_single_cert(vec![certificate], key).expect("they fit")))
}

impl Shared {
    fn is_tls(&self) -> bool {
        self.upgrades || matches!(self.trouble, Trouble::Certificate(_))
    }

    fn acceptor(&self) -> &'static TlsAcceptor {
        match self.now() {
            Trouble::Certificate(name) => &ACCEPTORS[name],
            _ => &ACCEPTORS["good"],
        }
    }

    async fn upgrade(&self, talk: Talk) -> io::Result<Talk> {
        let stream: Box<dyn Duplex> = Box::new(self.acceptor().accept(talk.into_stream()?).await?);
        Ok(Conversation::new(stream))
    }

    fn now(&self) -> Trouble {
        if self.is_healed.load(Ordering::SeqCst) { Trouble::None } else { self.trouble }
    }

    async fn serve(&self, stream: TcpStream) -> io::Result<()> {
        if matches!(self.now(), Trouble::ResetsInRequest | Trouble::ResetsInAnswer) {
            stream.set_zero_linger()?;
        }
        let stream: Box<dyn Duplex> = match self.is_tls() && !self.upgrades {
            true => Box::new(self.acceptor().accept(stream).await?),
            false => Box::new(stream),
        };
        match &self.language {
            Language::Http(yes) => self.http(Conversation::new(stream), yes).await,
            Language::Smtp => self.smtp(Conversation::new(stream)).await,
            Language::Nats => self.nats(Conversation::new(stream)).await,
            Language::Syslog | Language::Datagram => self.syslog(stream).await,
        }
    }

    /// Says it as the trouble wants it.
    async fn say(&self, talk: &mut Talk, bytes: &[u8]) -> io::Result<()> {
        match self.now() {
            Trouble::ByteASecond => {
                for byte in bytes {
                    talk.say(&[*byte]).await?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok(())
            }
            _ => talk.say(bytes).await,
        }
    }

    async fn endless(&self, talk: &mut Talk, chunk: &[u8]) -> io::Result<()> {
        let mut said = 0;
        loop {
            talk.say(chunk).await?;
            said += chunk.len();
            self.said_bytes.fetch_max(said, Ordering::SeqCst);
        }
    }

    fn took(&self) {
        if self.now() == Trouble::None {
            self.copies.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn http(&self, mut talk: Talk, yes: &str) -> io::Result<()> {
        loop {
            let mut length = 0;
            loop {
                let line = String::from_utf8_lossy(&talk.line(MAX_LINE_BYTES).await?).to_lowercase();
                if line.is_empty() {
                    break;
                }
                length = line.strip_prefix("content-length: ").and_then(|text| text.parse().ok()).unwrap_or(length);
            }
            if self.now() == Trouble::ResetsInRequest {
                return talk.bytes(length / 2).await.map(|_| ());
            }
            talk.bytes(length).await?;
            self.took();
            let body = [yes.as_bytes(), REST].concat();
            let answer = |status: &str, body: &[u8]| {
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
                [head.as_bytes(), body].concat()
            };
            let whole = answer("200 OK", &body);
            match self.now() {
                Trouble::ResetsInAnswer => {
                    return talk.say(&whole[..whole.len() - REST.len() - yes.len() / 2]).await;
                }
                Trouble::Busy => self.say(&mut talk, &answer("503 Busy", b"busy")).await?,
                Trouble::Limits => {
                    self.say(&mut talk, &answer("429 Too Many\r\nRetry-After: 120", b"later")).await?;
                }
                Trouble::Page => self.say(&mut talk, &answer("200 OK", b"<html>upstream is away</html>")).await?,
                Trouble::Endless => {
                    talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                    let chunk = [b"1000\r\n".as_slice(), &[b'a'; 0x1000], b"\r\n"].concat();
                    return self.endless(&mut talk, &chunk).await;
                }
                Trouble::Bomb => {
                    let answer = answer("200 OK\r\nContent-Encoding: gzip", &BOMB);
                    for (index, chunk) in answer.chunks(0x1000).enumerate() {
                        talk.say(chunk).await?;
                        self.said_bytes.fetch_max(index * 0x1000, Ordering::SeqCst);
                    }
                }
                _ => self.say(&mut talk, &whole).await?,
            }
        }
    }

    async fn smtp(&self, mut talk: Talk) -> io::Result<()> {
        match self.now() {
            Trouble::Endless => return self.endless(&mut talk, &[b'2'; 0x1000]).await,
            Trouble::Page => return talk.say(b"HTTP/1.1 400 Bad Request\r\n\r\n").await,
            _ => self.say(&mut talk, b"220 relay.example ready\r\n").await?,
        }
        let mut is_clear = self.upgrades;
        loop {
            let line = String::from_utf8_lossy(&talk.line(MAX_LINE_BYTES).await?).into_owned();
            let said = match line.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" if is_clear => "250-relay.example\r\n250 STARTTLS",
                "STARTTLS" => "220 go on",
                _ if is_clear => "530 5.7.0 not in the clear",
                "EHLO" => "250-relay.example\r\n250 SIZE 1000000",
                "RCPT" if self.now() == Trouble::Limits => "450 4.2.1 slower",
                "MAIL" if self.now() == Trouble::Busy => "421 4.3.2 closing down",
                "DATA" => "354 go on",
                "QUIT" => "221 bye",
                _ => "250 fine",
            };
            self.say(&mut talk, format!("{said}\r\n").as_bytes()).await?;
            if said.starts_with("220") {
                talk = self.upgrade(talk).await?;
                is_clear = false;
            }
            if said.starts_with("354") {
                if self.now() == Trouble::ResetsInRequest {
                    return talk.line(MAX_LINE_BYTES).await.map(|_| ());
                }
                while talk.line(MAX_LINE_BYTES).await? != b"." {}
                self.took();
                if self.now() == Trouble::ResetsInAnswer {
                    return talk.say(b"250 2.0.0 que").await;
                }
                self.say(&mut talk, b"250 2.0.0 queued\r\n").await?;
            }
        }
    }

    async fn nats(&self, mut talk: Talk) -> io::Result<()> {
        if self.now() == Trouble::Endless {
            return self.endless(&mut talk, &[b'I'; 0x1000]).await;
        }
        let info = r#"INFO {"server_id":"x","max_payload":1048576,"headers":true,"tls_available":true}"#;
        self.say(&mut talk, format!("{info}\r\n").as_bytes()).await?;
        if self.upgrades {
            talk = self.upgrade(talk).await?;
        }
        loop {
            let line = String::from_utf8_lossy(&talk.line(MAX_LINE_BYTES).await?).into_owned();
            let words: Vec<&str> = line.split(' ').collect();
            match words.first().copied().unwrap_or_default() {
                "PING" => self.say(&mut talk, b"PONG\r\n").await?,
                "HPUB" => {
                    let length: usize = words[4].parse().expect("a length");
                    if self.now() == Trouble::ResetsInRequest {
                        return talk.bytes(length / 2).await.map(|_| ());
                    }
                    talk.bytes(length + 2).await?;
                    self.took();
                    let payload = match self.now() {
                        Trouble::Busy => r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages"}}"#,
                        Trouble::Limits => r#"{"error":{"code":429,"err_code":10167,"description":"too many"}}"#,
                        Trouble::Page => "hello",
                        _ => r#"{"stream":"ALERTS","seq":7}"#,
                    };
                    let answer = format!("MSG {} 1 {}\r\n{payload}\r\n", words[2], payload.len());
                    if self.now() == Trouble::ResetsInAnswer {
                        return talk.say(&answer.as_bytes()[..answer.len() / 2]).await;
                    }
                    self.say(&mut talk, answer.as_bytes()).await?;
                }
                _ => {}
            }
        }
    }

    async fn syslog(&self, mut stream: Box<dyn Duplex>) -> io::Result<()> {
        match self.now() {
            Trouble::ResetsInRequest => stream.read_exact(&mut [0; 16]).await.map(|_| ()),
            Trouble::Endless => {
                let mut said = 0;
                loop {
                    stream.write_all(&[b'a'; 0x1000]).await?;
                    said += 0x1000;
                    self.said_bytes.fetch_max(said, Ordering::SeqCst);
                }
            }
            _ => {
                let mut read = Vec::new();
                stream.read_to_end(&mut read).await?;
                (!read.is_empty()).then(|| self.took());
                Ok(())
            }
        }
    }
}

/// For `Content-Encoding: gzip`: 2 MiB that would become 330.
static BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| bomb(1 << 24));

/// About so many bits, each 13 of which would become 258 zeros: one literal, then copies of it (RFC 1951, 3.2.6), by the
/// fixed codes.
fn bomb(bits: usize) -> Vec<u8> {
    let (copy, count) = (0b1_1000_1010_0000_u16, bits / 13);
    // Last block, fixed codes, the literal 0.
    let begin = [1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0];
    let copies = (0..count).flat_map(|_| (0..13).rev().map(|at| u8::from(copy >> at & 1 == 1)));
    let bits: Vec<u8> = begin.into_iter().chain(copies).chain([0; 7]).collect();
    let mut body = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    body.extend(bits.chunks(8).map(|byte| byte.iter().enumerate().fold(0, |sum, (at, bit)| sum | bit << at)));
    body
}
