//! A mail relay on loopback that takes what it is given, or refuses the log-in and repeats it aloud. It knows nobody whose
//! name begins with `gone`.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A running relay. It ends with the test's runtime.
pub(crate) struct Relay {
    pub(crate) port: u16,
    mails: Arc<Mutex<Vec<String>>>,
}

impl Relay {
    /// With `refuse_log_in` every log-in is refused, in words that hold what was sent.
    pub(crate) async fn start(refuse_log_in: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let mails: Arc<Mutex<Vec<String>>> = Arc::default();
        let taken = Arc::clone(&mails);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let taken = Arc::clone(&taken);
                // A client that goes away ends its conversation, and what it handed over before counts.
                tokio::spawn(async move { converse(stream, &taken, refuse_log_in).await.unwrap_or_default() });
            }
        });
        Self { port, mails }
    }

    pub(crate) fn mails(&self) -> Vec<Mail> {
        let mails = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        mails.iter().map(|raw| Mail::parse(raw)).collect()
    }
}

async fn converse(stream: TcpStream, mails: &Mutex<Vec<String>>, refuse_log_in: bool) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 relay.example\r\n").await?;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let word: String = line.chars().take_while(char::is_ascii_alphabetic).collect();
        let reply = match word.to_ascii_uppercase().as_str() {
            "EHLO" => "250-relay.example\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n".to_owned(),
            "AUTH" if refuse_log_in => {
                let given = line.split_whitespace().last().unwrap_or_default();
                let plain = STANDARD.decode(given).unwrap_or_default();
                let said = String::from_utf8_lossy(&plain).replace('\0', " ");
                format!("535 5.7.8 no such log-in: {given} {said}\r\n")
            }
            "AUTH" => "235 welcome\r\n".to_owned(),
            "RCPT" if line.contains("<gone") => "550 5.1.1 no such user\r\n".to_owned(),
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                let mut mail = String::new();
                while !mail.ends_with("\r\n.\r\n") {
                    if stream.read_line(&mut mail).await? == 0 {
                        return Ok(());
                    }
                }
                mails.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
                "250 taken\r\n".to_owned()
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            _ => "250 ok\r\n".to_owned(),
        };
        stream.write_all(reply.as_bytes()).await?;
    }
}

/// A mail or a part of one: unfolded headers and the decoded body, or the parts.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) parts: Vec<Mail>,
}

impl Mail {
    fn parse(raw: &str) -> Self {
        let (head, body) = raw.split_once("\r\n\r\n").expect("an empty line after the headers");
        let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
        let headers: Vec<(String, String)> = unfolded
            .split("\r\n")
            .map(|line| line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?}")))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut mail = Self { headers, ..Self::default() };
        let boundary = mail.header("content-type").split_once("boundary=\"").map(|(_, rest)| rest.to_owned());
        if let Some(boundary) = boundary.as_deref().and_then(|rest| rest.split('"').next()) {
            let mark = format!("--{boundary}");
            let parts = body.split(&mark).skip(1).filter(|part| !part.starts_with("--"));
            mail.parts = parts.map(|part| Self::parse(part.trim_start_matches("\r\n"))).collect();
        } else {
            mail.body = decoded(mail.header("content-transfer-encoding"), body);
        }
        mail
    }

    /// The value of a header that is there at most once.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        let value = found.next().map_or("", |(_, value)| value);
        assert!(found.next().is_none(), "{name} twice");
        value
    }
}

fn decoded(encoding: &str, body: &str) -> String {
    let bytes = match encoding {
        "base64" => {
            let packed: String = body.split_whitespace().collect();
            STANDARD.decode(packed).expect("base64")
        }
        "quoted-printable" => unquoted(body),
        _ => body.as_bytes().to_vec(),
    };
    String::from_utf8(bytes).expect("UTF-8")
}

fn unquoted(body: &str) -> Vec<u8> {
    let joined = body.replace("=\r\n", "");
    let mut bytes = Vec::new();
    let mut rest = joined.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'=', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).expect("ASCII");
                bytes.push(u8::from_str_radix(digits, 16).expect("hex digits"));
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    bytes
}
