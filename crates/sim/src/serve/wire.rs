//! A small HTTP/1.1 reader and writer for one connection.
//! It never holds more than a bounded head and body of a request; what it cannot read it refuses and closes.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::api::{SimRequest, SimResponse, Transport, reason};

/// Largest request line with headers. A full query with a long search text stays below 8 KiB.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Largest request body; the API's requests have none, so it is read and dropped.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Bytes read at a time.
const READ_BYTES: usize = 4 * 1024;

/// What came in.
pub(super) enum Received {
    /// The client closed the connection.
    End,
    /// Something that is answered with this status, after which the connection closes.
    Refused(u16),
    /// A request.
    Request {
        /// For the stand-in.
        request: SimRequest,
        /// Whether the client wants the connection to stay.
        keep_alive: bool,
    },
}

/// One connection.
pub(super) struct Wire {
    stream: TcpStream,
    /// Read and not yet used: bytes of a further request.
    ahead: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// Reads one request.
    pub(super) async fn receive(&mut self) -> io::Result<Received> {
        let head = loop {
            if let Some(end) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.ahead.split_off(end + 4);
                break std::mem::replace(&mut self.ahead, rest);
            }
            if self.ahead.len() > MAX_HEAD_BYTES {
                return Ok(Received::Refused(431));
            }
            if self.read_more().await? == 0 {
                return Ok(Received::End);
            }
        };
        let Some(head) = Head::parse(&head) else { return Ok(Received::Refused(400)) };
        if head.is_chunked || head.body_bytes > MAX_BODY_BYTES {
            return Ok(Received::Refused(413));
        }
        while self.ahead.len() < head.body_bytes {
            if self.read_more().await? == 0 {
                return Ok(Received::End);
            }
        }
        self.ahead.drain(..head.body_bytes);
        Ok(Received::Request { request: head.request, keep_alive: head.keep_alive })
    }

    /// Waits. False when the client went away meanwhile.
    pub(super) async fn pause(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            let is_full = self.ahead.len() > MAX_HEAD_BYTES;
            tokio::select! {
                () = sleep_until(until) => return true,
                read = self.read_more(), if !is_full => if !matches!(read, Ok(1..)) {
                    return false;
                },
            }
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    async fn read_more(&mut self) -> io::Result<usize> {
        self.ahead.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.ahead).await
    }
}

/// The answer to what could not be read as a request.
pub(super) fn refusal(status: u16) -> SimResponse {
    SimResponse { status, headers: Vec::new(), body: Bytes::new(), transport: Transport::Whole }
}

/// Status line and headers of a response, with the length of the whole body.
pub(super) fn head(response: &SimResponse, keep_alive: bool) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status));
    for (name, value) in &response.headers {
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value);
        head.push_str("\r\n");
    }
    if response.status != 204 {
        head.push_str("Content-Length: ");
        head.push_str(&response.body.len().to_string());
        head.push_str("\r\n");
    }
    if !keep_alive {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

struct Head {
    request: SimRequest,
    keep_alive: bool,
    body_bytes: usize,
    is_chunked: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() || !target.starts_with('/') || !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
            return None;
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut head = Self {
            request: SimRequest {
                method: method.to_owned(),
                path: path.to_owned(),
                query: query.to_owned(),
                authorization: None,
            },
            keep_alive: version == "HTTP/1.1",
            body_bytes: 0,
            is_chunked: false,
        };
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "authorization" => head.request.authorization = Some(value.to_owned()),
                "content-length" => head.body_bytes = value.parse().ok()?,
                "transfer-encoding" => head.is_chunked = true,
                "connection" if value.eq_ignore_ascii_case("close") => head.keep_alive = false,
                "connection" if value.eq_ignore_ascii_case("keep-alive") => head.keep_alive = true,
                _ => {}
            }
        }
        Some(head)
    }
}
