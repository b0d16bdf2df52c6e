//! The part of the NATS client protocol that one published message needs, as lines and lengths.
//!
//! What a server says is bounded in length and in number, and its text is nothing here but text.

use std::io;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::wire::Conversation;

/// Longest line: an INFO with the addresses of a large cluster.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// Longest message: an acknowledgement has a few hundred bytes.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Things said between ours and the answer to it: pings, news of the cluster.
const MAX_SAID: usize = 64;

/// What the server says of itself.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    /// Longest message with its headers.
    pub(super) max_payload: Option<usize>,
    /// Nothing but TLS may follow.
    pub(super) tls_required: bool,
    /// TLS may follow.
    pub(super) tls_available: bool,
    /// Messages may have headers.
    pub(super) headers: bool,
    /// To be signed by whoever has a key.
    pub(super) nonce: Option<String>,
}

/// What the server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// About itself.
    Info(Info),
    Ping,
    Pong,
    /// That something is wrong; the words without their quotes.
    Wrong(String),
    Message(Message),
}

/// A message on our inbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Of its headers, where it has one.
    pub(super) status: Option<u16>,
    pub(super) payload: Vec<u8>,
}

/// The next thing said; nothing is answered.
pub(super) async fn next<S>(conversation: &mut Conversation<S>) -> io::Result<Said>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let line = conversation.line(MAX_LINE_BYTES).await?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((&line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "INFO" => {
                let info = serde_json::from_str(rest).map_err(|_| not_nats("its INFO is no JSON"))?;
                return Ok(Said::Info(info));
            }
            "PING" => return Ok(Said::Ping),
            "PONG" => return Ok(Said::Pong),
            "-ERR" => return Ok(Said::Wrong(rest.trim().trim_matches('\'').to_owned())),
            verb @ ("MSG" | "HMSG") => return message(conversation, verb == "HMSG", rest).await.map(Said::Message),
            "+OK" => {}
            _ => return Err(not_nats("it speaks another language")),
        }
    }
}

/// The first thing that answers us: pings are answered, news is passed over.
pub(super) async fn answer<S>(conversation: &mut Conversation<S>) -> io::Result<Said>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for _ in 0..MAX_SAID {
        match next(conversation).await? {
            Said::Ping => conversation.say(b"PONG\r\n").await?,
            Said::Info(_) => {}
            said => return Ok(said),
        }
    }
    Err(not_nats("it talks and does not answer"))
}

/// `subject sid [reply] [header bytes] total bytes`, then that many bytes and the end of a line.
async fn message<S>(conversation: &mut Conversation<S>, with_headers: bool, arguments: &str) -> io::Result<Message>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut lengths = arguments.split_ascii_whitespace().rev().map_while(|word| word.parse::<usize>().ok());
    let total_bytes =
        lengths.next().filter(|total| *total <= MAX_MESSAGE_BYTES).ok_or(not_nats("a length is wrong"))?;
    let header_bytes = if with_headers { lengths.next() } else { Some(0) };
    let mut bytes = conversation.bytes(total_bytes + "\r\n".len()).await?;
    bytes.truncate(total_bytes);
    let split = header_bytes.and_then(|length| bytes.split_at_checked(length)).ok_or(not_nats("a length is wrong"))?;
    Ok(Message { status: status(split.0), payload: split.1.to_vec() })
}

/// `NATS/1.0 503 No Responders`, the first line of headers.
fn status(headers: &[u8]) -> Option<u16> {
    let first = headers.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(first).ok()?.strip_prefix("NATS/1.0")?.split_ascii_whitespace().next()?.parse().ok()
}

fn not_nats(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn said(bytes: &[u8]) -> io::Result<Vec<Said>> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all(bytes).await.expect("written");
        drop(theirs);
        let (mut conversation, mut said) = (Conversation::new(ours), Vec::new());
        loop {
            match next(&mut conversation).await {
                Ok(one) => said.push(one),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(said),
                Err(error) => return Err(error),
            }
        }
    }

    fn message(status: Option<u16>, payload: &str) -> Said {
        Said::Message(Message { status, payload: payload.into() })
    }

    #[tokio::test]
    async fn every_line_that_a_server_says_is_understood() {
        let text = "INFO {\"max_payload\":7,\"x\":1} \r\n+OK\r\nping\r\nPONG\r\n-ERR 'Stale Connection'\r\nMSG _INBOX.x 1 5\r\na\r\nbc\r\n\
                    MSG _INBOX.x 1 reply 0\r\n\r\nHMSG _INBOX.x 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n\
                    HMSG i 1 r 18 20\r\nNATS/1.0\r\nA: b\r\n\r\nok\r\n";
        let expected = vec![
            Said::Info(Info { max_payload: Some(7), ..Info::default() }),
            Said::Ping,
            Said::Pong,
            Said::Wrong("Stale Connection".into()),
            message(None, "a\r\nbc"),
            message(None, ""),
            message(Some(503), ""),
            message(None, "ok"),
        ];
        assert_eq!(said(text.as_bytes()).await.expect("understood"), expected);
    }

    #[tokio::test]
    async fn what_is_no_nats_or_too_long_is_refused() {
        let long = format!("MSG i 1 {}\r\n", MAX_MESSAGE_BYTES + 1);
        let endless = "a".repeat(MAX_LINE_BYTES + 1);
        for text in [
            "HTTP/1.1 400 Bad Request\r\n",
            "INFO [\r\n",
            "MSG\r\n",
            "MSG i 1 -5\r\n",
            "HMSG i 1 9 4\r\nabcd\r\n",
            &long,
            &endless,
        ] {
            let error = said(text.as_bytes()).await.expect_err("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{:.40}", text);
        }
        let most = format!("MSG i 1 {MAX_MESSAGE_BYTES}\r\n{}\r\n", "a".repeat(MAX_MESSAGE_BYTES));
        assert_eq!(said(most.as_bytes()).await.expect("understood").len(), 1);
    }

    #[tokio::test]
    async fn a_server_that_only_talks_is_left() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all("PING\r\n".repeat(MAX_SAID - 1).as_bytes()).await.expect("written");
        theirs.write_all(b"PONG\r\n").await.expect("written");
        let mut conversation = Conversation::new(ours);
        assert_eq!(answer(&mut conversation).await.expect("answered"), Said::Pong);
        theirs.write_all("PING\r\n".repeat(MAX_SAID).as_bytes()).await.expect("written");
        assert!(answer(&mut conversation).await.is_err());
    }
}
