//! `syslog`: each alert as one message of RFC 5424, over TLS (RFC 5425), TCP (RFC 6587, counted) or UDP; as JSON, CEF, LEEF or
//! plain text.
//!
//! Syslog has no answer, so what was handed over is `Accepted`, never `Delivered`. What can be known without an answer is
//! asked for: a connection serves one attempt and is closed in order, our side first, and the other side's end is waited
//! for. Bytes that go into a connection which the receiver has left meet a reset, which a connection kept open would only
//! show to a later alert, when this one counts as gone. Over UDP the same is a port that is told to be closed.

mod header;
mod pairs;

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;
use vigie_engine::text::Untrusted;

use self::header::{FACILITIES, Header, is_sd_id, is_word, machine};
use self::pairs::{Pairs, Room};
use super::bound::{Bound, Most, Unit};
use super::format::{alert_json_within, lean_alert_json};
use super::http::{ALLOW_PRIVATE, CA_FILE, CERTIFICATE_FILE, KEY_FILE};
use super::probe::{Probe, Probed};
use super::text::{Extent, alert_text_within};
use super::update::{CLOSING, UPDATES, Update, update_json, update_text};
use super::wire::{Wire, WireSpec};
use super::{
    AttemptReport, BuildContext, Delivery, Form, Outcome, RenderContext, RenderError, RetryProfile, Sink, SinkKind,
    burst, rate,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;

/// As the configuration knows it.
pub const SYSLOG: SinkKind = SinkKind {
    kind: "syslog",
    example: "siem:\n  syslog:\n    url: tls://logs.example.org:6514\n    format: cef\n",
    bounds: &[Bound { what: "message", most: Most::Option("max_message"), unit: Unit::Bytes, used: <[u8]>::len }],
    options: &[&[
        OptionSpec {
            name: "url",
            kind: OptionKind::Url(&["tls", "tcp", "udp"]),
            presence: Presence::Required,
            help: "tls://host, tcp://host or udp://host; ports are 6514, 601 and 514 unless the URL names one",
        },
        OptionSpec {
            name: "format",
            kind: OptionKind::Choice(&["json", "cef", "leef", "text"]),
            presence: Presence::Default("json"),
            help: "how the message is written: Alert JSON, CEF:0 (ArcSight, Sentinel), LEEF:2.0 (QRadar), or one line of text",
        },
        OptionSpec {
            name: "facility",
            kind: OptionKind::Choice(FACILITIES),
            // `authpriv` fits by name, and there programs that ban addresses read the receiver's own log-ins.
            presence: Presence::Default("local0"),
            help: "facility by its name, by which receivers sort",
        },
        OptionSpec {
            name: "app_name",
            kind: OptionKind::Text,
            presence: Presence::Default("vigie"),
            help: "APP-NAME of each message, at most 48 printable characters",
        },
        OptionSpec {
            name: "hostname",
            kind: OptionKind::Text,
            presence: Presence::Optional,
            help: "HOSTNAME of each message; without it the name of this machine",
        },
        OptionSpec {
            name: "sd_id",
            kind: OptionKind::Text,
            presence: Presence::Default("vigie@32473"),
            help: "name of the structured data; who has an enterprise number puts it behind the @",
        },
        OptionSpec {
            name: "max_message",
            kind: OptionKind::Size(MIN_MESSAGE_BYTES, 1 << 20),
            presence: Presence::Default("8KiB"),
            help: "longest message that the receiver takes, header included; what does not fit is left out, the event last",
        },
        UPDATES,
        CLOSING,
        rate(Presence::Optional),
        burst("1"),
        CA_FILE,
        CERTIFICATE_FILE,
        KEY_FILE,
        ALLOW_PRIVATE,
    ]],
    build,
};

/// What every receiver should take (RFC 5424, 6.1); the least form of an alert is below it whatever an event holds.
const MIN_MESSAGE_BYTES: u64 = 2 << 10;
/// What one datagram can carry over IPv4.
const MAX_DATAGRAM_BYTES: usize = 65_507;
/// Longest HOSTNAME (RFC 5424, 6.2.4).
const MAX_HOSTNAME_CHARS: usize = 255;
/// Longest APP-NAME (RFC 5424, 6.2.5).
const MAX_APP_NAME_CHARS: usize = 48;
/// Longest text of an event in the least form.
const MAX_LEAST_CHARS: usize = 32;
/// How long is waited for a sign that nobody listens: a closed port told from near, or a proxy that has found nobody behind
/// it and ends a connection unasked. From further away it comes too late, and the message counts as taken.
const REFUSAL: Duration = Duration::from_millis(25);
/// How long is waited for the receiver's end of the connection. Some never end theirs, and have the message all the same.
const FAREWELL: Duration = Duration::from_secs(1);
/// What is read of a receiver that talks, before it counts as one that is there.
const MAX_TALK_BYTES: usize = 4 * 1024;
/// Marks UTF-8 (RFC 5424, 6.4); text in ASCII needs none, and JSON must not have it.
const BOM: &str = "\u{feff}";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
    Tls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Pairs(Pairs),
    Text,
}

/// The sink.
#[derive(Debug)]
struct SyslogSink {
    wire: Wire,
    transport: Transport,
    format: Format,
    header: Header,
    max_message_bytes: usize,
}

fn build(
    options: &Options,
    _name: &str,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Box<dyn Sink>> {
    let (transport, default_port) = match options.url("url")?.scheme() {
        "udp" => (Transport::Udp, 514),
        "tcp" => (Transport::Tcp, 601),
        _ => (Transport::Tls, 6514),
    };
    let spec = WireSpec { url_option: "url", default_port, tls: transport == Transport::Tls, secrets: &[] };
    let header = header(options, diagnostics);
    let is_free = without_meaning(transport, options, diagnostics);
    let wire = Wire::build(&spec, options, context, diagnostics);
    let format = match options.text("format")? {
        "cef" => Format::Pairs(Pairs::Cef),
        "leef" => Format::Pairs(Pairs::Leef),
        "text" => Format::Text,
        _ => Format::Json,
    };
    let max_message_bytes = usize::try_from(options.integer("max_message")?).unwrap_or(usize::MAX);
    let most = if transport == Transport::Udp { MAX_DATAGRAM_BYTES } else { usize::MAX };
    let max_message_bytes = max_message_bytes.min(most);
    Some(Box::new(SyslogSink {
        wire: wire.filter(|_| is_free)?,
        transport,
        format,
        header: header?,
        max_message_bytes,
    }))
}

fn header(options: &Options, diagnostics: &mut Diagnostics) -> Option<Header> {
    let facility = FACILITIES.iter().position(|name| Some(*name) == options.text("facility"));
    let header = Header {
        facility: facility?,
        hostname: options.text("hostname").map_or_else(machine, str::to_owned),
        app_name: options.text("app_name")?.to_owned(),
        sd_id: options.text("sd_id")?.to_owned(),
    };
    let checks = [
        ("hostname", is_word(&header.hostname, MAX_HOSTNAME_CHARS), "at most 255 printable characters without spaces"),
        ("app_name", is_word(&header.app_name, MAX_APP_NAME_CHARS), "at most 48 printable characters without spaces"),
        ("sd_id", is_sd_id(&header.sd_id), "at most 32 printable characters without spaces, `=`, `]` and `\"`"),
    ];
    let mut is_good = true;
    for (option, _, hint) in checks.into_iter().filter(|(_, is_good, _)| !is_good) {
        let message = format!("`{option}` cannot stand in the header of a message");
        diagnostics.error("E0452", options.span_of(option), message, Some(hint.into()));
        is_good = false;
    }
    is_good.then_some(header)
}

/// Files for TLS where there is none: whoever names them believes that the way is protected.
fn without_meaning(transport: Transport, options: &Options, diagnostics: &mut Diagnostics) -> bool {
    let files = [CA_FILE, CERTIFICATE_FILE, KEY_FILE];
    let named = files.iter().find(|file| options.text(file.name).is_some()).filter(|_| transport != Transport::Tls);
    if let Some(file) = named {
        let message = format!("`{}` has a meaning with tls:// only", file.name);
        diagnostics.error("E0453", options.span_of(file.name), message, Some("write the URL as tls://host".into()));
    }
    named.is_none()
}

impl SyslogSink {
    fn message(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let id = context.delivery_id;
        let header = self.header.of(alert, id, "alert");
        let room = self.max_message_bytes.saturating_sub(header.len());
        let is_lean = context.form == Form::Plain;
        let text = match self.format {
            Format::Json if is_lean => least_json(alert, id)?,
            Format::Json => json_within(alert, id, room)?,
            Format::Pairs(pairs) => pairs_within(pairs, alert, id, if is_lean { 0 } else { room }).into_bytes(),
            Format::Text => {
                let text = alert_text_within(alert, id, |text| one_line(text).len() <= room);
                cut(&one_line(&text), room).as_bytes().to_vec()
            }
        };
        Ok([header.into_bytes(), text].concat())
    }

    async fn attempt(&self, delivery: &Delivery) -> AttemptReport {
        let sent = async {
            match self.transport {
                Transport::Udp => self.send_datagram(&delivery.body).await,
                Transport::Tcp => {
                    let stream = self.wire.dial().await?;
                    self.hand_over(stream, &delivery.body).await
                }
                Transport::Tls => {
                    let stream = self.wire.dial().await?;
                    let stream = self.wire.secure(stream).await?;
                    self.hand_over(stream, &delivery.body).await
                }
            }
        };
        match timeout(self.wire.limits.total, sent).await {
            Ok(Ok(report) | Err(report)) => report,
            Err(elapsed) => self.wire.report(Outcome::Retry, "timed out", &elapsed.to_string()),
        }
    }

    async fn send_datagram(&self, message: &[u8]) -> Result<AttemptReport, AttemptReport> {
        let socket = self.wire.datagram().await?;
        let lost = |error| self.wire.lost(&error);
        socket.send(message).await.map_err(lost)?;
        // Nothing is expected but the error that the socket has when the port was told to be closed.
        if let Ok(heard) = timeout(REFUSAL, socket.recv(&mut [0; 1])).await {
            heard.map_err(lost)?;
        }
        Ok(self.wire.report(Outcome::Accepted, "sent", ""))
    }

    async fn hand_over<S>(&self, mut stream: S, message: &[u8]) -> Result<AttemptReport, AttemptReport>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let frame = [format!("{} ", message.len()).as_bytes(), message].concat();
        let lost = |error| self.wire.lost(&error);
        stream.write_all(&frame).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;
        if let Ok(unasked) = timeout(REFUSAL, end(&mut stream)).await {
            unasked.map_err(lost)?;
            return Err(self.wire.report(Outcome::Retry, "closed by the receiver", "it ended the connection unasked"));
        }
        stream.shutdown().await.map_err(lost)?;
        if let Ok(Err(error)) = timeout(FAREWELL, end(&mut stream)).await {
            // Without the farewell of TLS: common, and no sign of anything once we have said ours.
            if error.kind() != io::ErrorKind::UnexpectedEof {
                return Err(lost(error));
            }
        }
        Ok(self.wire.report(Outcome::Accepted, "sent", ""))
    }
}

/// Returns when the other side ended the connection; one that talks on and on is there, and does not end.
async fn end<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut buffer = [0; MAX_TALK_BYTES];
    let mut read_bytes = 0;
    while read_bytes < MAX_TALK_BYTES {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count_bytes => read_bytes += count_bytes,
        }
    }
    std::future::pending().await
}

impl Sink for SyslogSink {
    fn kind(&self) -> &'static str {
        SYSLOG.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Machine
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let message = self.message(alert, context)?;
        if message.len() > self.max_message_bytes {
            return Err(RenderError(format!("it is longer than {} bytes", self.max_message_bytes)));
        }
        Ok(message)
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let id = context.delivery_id;
        let header = self.header.of(update.alert, id, "update");
        let room = self.max_message_bytes.saturating_sub(header.len());
        let text = match self.format {
            Format::Json => {
                let json = update_json(update, id)?;
                if json.len() <= room {
                    json
                } else {
                    update_json(&Update { alert: &least(update.alert), ..*update }, id)?
                }
            }
            Format::Pairs(pairs) => cut(&pairs.update(update, id), room).as_bytes().to_vec(),
            Format::Text => cut(&one_line(&update_text(update, id)), room).as_bytes().to_vec(),
        };
        Ok([header.into_bytes(), text].concat())
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(self.attempt(delivery))
    }

    fn probe(&self) -> Probe<'_> {
        let connected = async |is_secured: bool| {
            let stream = self.wire.dial().await?;
            if is_secured {
                self.wire.secure(stream).await?;
            }
            Ok(self.wire.report(Outcome::Delivered, "connected", ""))
        };
        let (is_secured, shows) = match self.transport {
            Transport::Udp => return Probe::Nothing("a datagram is answered by nobody"),
            Transport::Tcp => (false, "the receiver takes connections"),
            Transport::Tls => (true, "the receiver takes connections, and both sides trust each other's certificate"),
        };
        Probe::Asks(Box::pin(async move {
            let report = match timeout(self.wire.limits.total, connected(is_secured)).await {
                Ok(Ok(report) | Err(report)) => report,
                Err(elapsed) => self.wire.report(Outcome::Retry, "timed out", &elapsed.to_string()),
            };
            vec![Probed { asked: "a connection", shows, report }]
        }))
    }
}

fn json_within(alert: &Alert, delivery_id: &str, room_bytes: usize) -> Result<Vec<u8>, RenderError> {
    for json in [alert_json_within(alert, delivery_id, room_bytes)?, lean_alert_json(alert, delivery_id)?] {
        if json.len() <= room_bytes {
            return Ok(json);
        }
    }
    least_json(alert, delivery_id)
}

fn least_json(alert: &Alert, delivery_id: &str) -> Result<Vec<u8>, RenderError> {
    lean_alert_json(&least(alert), delivery_id)
}

/// The exception goes first, then the events behind the finding, then the event, then all but what identifies it.
fn pairs_within(pairs: Pairs, alert: &Alert, delivery_id: &str, room_bytes: usize) -> String {
    let with = [true, false].into_iter().flat_map(|event| Extent::ALL.map(|extent| Room::Much(extent, event)));
    let mut texts = with.map(|room| pairs.alert(alert, delivery_id, room));
    texts.find(|text| text.len() <= room_bytes).unwrap_or_else(|| pairs.alert(alert, delivery_id, Room::Least))
}

/// What identifies an alert, and the beginning of what it says.
fn least(alert: &Alert) -> Alert {
    let short = |text: &Untrusted| Untrusted::new(text.single_line(MAX_LEAST_CHARS));
    let mut least = alert.clone();
    (least.title, least.account_id) = (short(&alert.title), alert.account_id.as_ref().map(short));
    (least.key, least.reason, least.finding) = (Vec::new(), Vec::new(), None);
    least.events.truncate(1);
    least.events.retain(|id| id.chars().count() <= MAX_LEAST_CHARS * 2);
    let rule = &mut least.rule;
    (rule.tags, rule.response, rule.title) = (Vec::new(), String::new(), String::new());
    least
}

/// Our own lines side by side: a line feed within a message comes out of a receiver as an escape, or as two messages.
fn one_line(text: &str) -> String {
    // A label is padded; a value keeps its spaces, for they may be quoted in an exception.
    let narrow = |line: &str| match line.trim_start().split_once(' ') {
        Some((label, value)) => format!("{label} {}", value.trim_start()),
        None => line.trim_start().to_owned(),
    };
    let lines: Vec<String> = text.lines().map(narrow).collect();
    let line = lines.join(" | ");
    if line.is_ascii() { line } else { format!("{BOM}{line}") }
}

/// As much of a text as fits.
fn cut(text: &str, max_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests;
