//! `nats`: an alert as JSON, published to a JetStream stream, delivered once the stream acknowledges it.
//!
//! The delivery id is the `Nats-Msg-Id`, so a stream drops a copy within its window and says so, which counts as delivered. A
//! connection serves one attempt. Without an acknowledgement nothing counts: a subject that no stream takes loses what is
//! published to it, and the server is asked to say so (`no_responders`).

mod credentials;
mod protocol;

use std::io;

use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;
use vigie_engine::text::is_unsafe;

use self::credentials::Credentials;
use self::protocol::{Info, Message, Said, answer, next};
use super::bound::{Bound, Most, Unit};
use super::format::{FORMAT, Format};
use super::http::{ALLOW_PRIVATE, CA_FILE, CERTIFICATE_FILE, KEY_FILE, content};
use super::probe::{Probe, Probed};
use super::update::{CLOSING, UPDATES, Update};
use super::wire::{Conversation, Duplex, Wire, WireSpec};
use super::{
    AttemptReport, BuildContext, Delivery, Outcome, RenderContext, RenderError, RetryProfile, Sink, SinkKind, burst,
    rate,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;
use crate::secret::{Secret, unescaped};

const CREDENTIALS_FILE: OptionSpec = OptionSpec {
    name: "credentials_file",
    kind: OptionKind::File,
    presence: Presence::Optional,
    help: "credentials file (.creds) with the token and key of a user, as `nsc` makes it",
};

/// As the configuration knows it.
pub const NATS: SinkKind = SinkKind {
    kind: "nats",
    example: "stream:\n  nats:\n    url: tls://nats.example.org\n    subject: vigie.alerts\n    user: vigie\n    \
              password: ${NATS_PASSWORD}\n",
    bounds: &[Bound { what: "message", most: Most::Of(MAX_PAYLOAD_BYTES), unit: Unit::Bytes, used: <[u8]>::len }],
    options: &[&[
        OptionSpec {
            name: "url",
            kind: OptionKind::Url(&["nats", "tls"]),
            presence: Presence::Required,
            help: "nats://host, or tls://host (nothing without TLS, as with files for TLS); the port is 4222 unless the URL names one",
        },
        OptionSpec {
            name: "subject",
            kind: OptionKind::Text,
            presence: Presence::Default("vigie.alerts"),
            help: "subject of a JetStream stream",
        },
        OptionSpec {
            name: "user",
            kind: OptionKind::Text,
            presence: Presence::Optional,
            help: "who logs in, when the URL does not say it; with `password`",
        },
        OptionSpec { name: "password", kind: OptionKind::Secret, presence: Presence::Optional, help: "its password" },
        OptionSpec {
            name: "token",
            kind: OptionKind::Secret,
            presence: Presence::Optional,
            help: "token to log in with instead of user and password",
        },
        CREDENTIALS_FILE,
        OptionSpec {
            name: "handshake_first",
            kind: OptionKind::Flag,
            presence: Presence::Default("false"),
            help: "whether TLS comes before the first word, as a server with `handshake_first` wants it",
        },
        FORMAT,
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

const DEFAULT_PORT: u16 = 4222;
/// Longest message of a server that nobody configured, without room for headers.
const MAX_PAYLOAD_BYTES: usize = (1 << 20) - (1 << 10);
/// Longest subject: it stands in a line of which a server takes 4 KiB.
const MAX_SUBJECT_BYTES: usize = 256;

/// How a client says who it is.
enum LogIn {
    Nobody,
    User(String, Secret),
    Token(Secret),
    Credentials(Box<Credentials>),
}

/// The sink.
struct NatsSink {
    wire: Wire,
    subject: String,
    format: Format,
    log_in: LogIn,
    /// Nothing is said without TLS.
    needs_tls: bool,
    handshake_first: bool,
}

type Open = Conversation<Box<dyn Duplex>>;

fn build(
    options: &Options,
    _name: &str,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Box<dyn Sink>> {
    let url = options.url("url")?;
    let subject = options.text("subject")?;
    let is_subject = is_subject(subject);
    if !is_subject {
        let hint =
            "words with dots between them, such as vigie.alerts; no spaces, no `*`, no `>`, no `$` at the beginning";
        let message = "`subject` is none that can be published to".to_owned();
        diagnostics.error("E0454", options.span_of("subject"), message, Some(hint.into()));
    }
    let log_in = log_in(options, diagnostics);
    let secrets = log_in.as_ref().map(LogIn::secrets).unwrap_or_default();
    let spec = WireSpec { url_option: "url", default_port: DEFAULT_PORT, tls: true, secrets: &secrets };
    let wire = Wire::build(&spec, options, context, diagnostics)?;
    let handshake_first = options.flag("handshake_first");
    // Who names files for TLS does not mean a password to go in clear because a server says that it need not be.
    let names_files = [CA_FILE, CERTIFICATE_FILE, KEY_FILE].iter().any(|option| options.is_given(option.name));
    let needs_tls = url.scheme() == "tls" || handshake_first || names_files;
    let sink = NatsSink {
        wire,
        subject: subject.to_owned(),
        format: Format::of(options),
        log_in: log_in?,
        needs_tls,
        handshake_first,
    };
    is_subject.then(|| Box::new(sink) as Box<dyn Sink>)
}

/// Whether it can be published to and is not the server's own.
fn is_subject(subject: &str) -> bool {
    let is_good = |c: char| !c.is_whitespace() && !is_unsafe(c) && !matches!(c, '*' | '>');
    subject.len() <= MAX_SUBJECT_BYTES
        && subject.chars().all(is_good)
        && !subject.starts_with('$')
        && subject.split('.').all(|word| !word.is_empty())
}

/// The one way to log in that the options name.
fn log_in(options: &Options, diagnostics: &mut Diagnostics) -> Option<LogIn> {
    let url = options.url("url")?;
    let in_url = Some(unescaped(url.username())).filter(|user| !user.is_empty());
    let (user, token) = match (in_url, url.password()) {
        // As the clients of NATS read it.
        (Some(token), None) if options.secret("password").is_none() => (None, Some(Secret::new(token))),
        (user, _) => (user, None),
    };
    let user = options.text("user").map(str::to_owned).or(user);
    let token = options.secret("token").cloned().or(token);
    let password =
        options.secret("password").cloned().or_else(|| url.password().map(|text| Secret::new(unescaped(text))));
    let credentials = match content(options, CREDENTIALS_FILE, "E0456", diagnostics)? {
        None => None,
        Some(text) => match Credentials::read(&String::from_utf8_lossy(&text)) {
            Ok(credentials) => Some(credentials),
            Err(error) => {
                let (message, hint) = (format!("`{}`: {error}", CREDENTIALS_FILE.name), CREDENTIALS_FILE.help);
                diagnostics.error("E0456", options.span_of(CREDENTIALS_FILE.name), message, Some(hint.into()));
                return None;
            }
        },
    };
    match (user, password, token, credentials) {
        (None, None, None, None) => Some(LogIn::Nobody),
        (Some(user), Some(password), None, None) => Some(LogIn::User(user, password)),
        (None, None, Some(token), None) => Some(LogIn::Token(token)),
        (None, None, None, Some(credentials)) => Some(LogIn::Credentials(Box::new(credentials))),
        _ => {
            let message = "there is more than one way to log in, or half of one".to_owned();
            let hint = "user and password, or a token, or a credentials file";
            diagnostics.error("E0455", options.span(), message, Some(hint.into()));
            None
        }
    }
}

impl LogIn {
    fn secrets(&self) -> Vec<Secret> {
        match self {
            Self::Nobody => Vec::new(),
            Self::User(_, secret) | Self::Token(secret) => vec![secret.clone()],
            Self::Credentials(credentials) => credentials.secrets().to_vec(),
        }
    }

    /// The line that begins a connection, and a question that is answered once it is taken.
    fn connect(&self, info: &Info, is_tls: bool) -> String {
        let mut connect = json!({
            "verbose": false, "pedantic": false, "headers": true, "no_responders": true, "echo": true, "protocol": 1,
            "lang": "rust", "name": "vigie", "version": env!("CARGO_PKG_VERSION"), "tls_required": is_tls,
        });
        match self {
            Self::Nobody => {}
            Self::User(user, password) => {
                connect["user"] = user.as_str().into();
                connect["pass"] = password.expose().into();
            }
            Self::Token(token) => connect["auth_token"] = token.expose().into(),
            Self::Credentials(credentials) => {
                connect["jwt"] = credentials.jwt.expose().into();
                connect["sig"] = info.nonce.as_deref().map(|nonce| credentials.signature(nonce)).into();
            }
        }
        format!("CONNECT {connect}\r\nPING\r\n")
    }
}

impl NatsSink {
    async fn attempt(&self, delivery: &Delivery) -> AttemptReport {
        let deadline = Instant::now() + self.wire.limits.total;
        let (mut open, info) = match timeout_at(deadline, self.open()).await {
            Ok(Ok(open)) => open,
            Ok(Err(report)) => return report,
            Err(elapsed) => return self.wire.report(Outcome::Retry, "timed out", &elapsed.to_string()),
        };
        let headers = format!("NATS/1.0\r\nNats-Msg-Id: {}\r\n\r\n", delivery.delivery_id);
        let total_bytes = headers.len() + delivery.body.len();
        if let Some(most) = info.max_payload.filter(|most| total_bytes > *most) {
            let said = format!("it takes {most} bytes, the alert has {total_bytes} with its headers");
            return self.wire.report(Outcome::Degrade, "longer than the server takes", &said);
        }
        match timeout_at(deadline, self.publish(&mut open, &headers, &delivery.body)).await {
            Ok(Ok(report) | Err(report)) => report,
            Err(elapsed) => self.wire.report(Outcome::Retry, "not acknowledged in time", &elapsed.to_string()),
        }
    }

    /// A connection that the server has let us into.
    async fn open(&self) -> Result<(Open, Info), AttemptReport> {
        let lost = |error| self.lost(&error);
        let stream = self.wire.dial().await?;
        let (mut open, info, is_tls) = if self.handshake_first {
            let mut open = Conversation::new(self.wire.secure(stream).await?).boxed();
            let info = self.info(&mut open).await?;
            (open, info, true)
        } else {
            let mut clear = Conversation::new(stream);
            let info = self.info(&mut clear).await?;
            let is_tls = self.needs_tls || info.tls_required;
            if is_tls && !info.tls_required && !info.tls_available {
                return Err(self.wire.report(Outcome::Misconfigured, "the server offers no TLS", ""));
            }
            let open = if is_tls {
                let stream = clear.into_stream().map_err(lost)?;
                Conversation::new(self.wire.secure(stream).await?).boxed()
            } else {
                clear.boxed()
            };
            (open, info, is_tls)
        };
        if !info.headers {
            return Err(self.wire.report(
                Outcome::Misconfigured,
                "the server knows no headers, and so no JetStream",
                "",
            ));
        }
        open.say(self.log_in.connect(&info, is_tls).as_bytes()).await.map_err(lost)?;
        self.pong(&mut open).await?;
        Ok((open, info))
    }

    /// Waits until the server took what was said before a PING.
    async fn pong(&self, open: &mut Open) -> Result<(), AttemptReport> {
        match answer(open).await.map_err(|error| self.lost(&error))? {
            Said::Pong => Ok(()),
            Said::Wrong(words) => Err(self.wrong(&words)),
            _ => Err(self.wire.report(Outcome::Retry, "no NATS answer", "it answers what was not asked")),
        }
    }

    /// What the server says first.
    async fn info<S: Duplex>(&self, conversation: &mut Conversation<S>) -> Result<Info, AttemptReport> {
        match next(conversation).await.map_err(|error| self.lost(&error))? {
            Said::Info(info) => Ok(info),
            Said::Wrong(words) => Err(self.wrong(&words)),
            _ => Err(self.wire.report(Outcome::Retry, "no NATS answer", "it does not begin with INFO")),
        }
    }

    /// Publishes, and waits for what the stream says. Not before the server took the subscription: a message whose
    /// acknowledgement we may not hear would be stored at every attempt.
    async fn publish(&self, open: &mut Open, headers: &str, body: &[u8]) -> Result<AttemptReport, AttemptReport> {
        let lost = |error| self.lost(&error);
        let inbox = format!("_INBOX.{:032x}", rand::random::<u128>());
        let (subject, header_bytes, total_bytes) = (&self.subject, headers.len(), headers.len() + body.len());
        open.say(format!("SUB {inbox} 1\r\nPING\r\n").as_bytes()).await.map_err(lost)?;
        self.pong(open).await?;
        let asked = format!("HPUB {subject} {inbox} {header_bytes} {total_bytes}\r\n{headers}");
        open.say(&[asked.as_bytes(), body, b"\r\n"].concat()).await.map_err(lost)?;
        match answer(open).await.map_err(lost)? {
            Said::Message(message) => Ok(self.acknowledged(&message)),
            Said::Wrong(words) => Err(self.wrong(&words)),
            _ => Err(self.wire.report(Outcome::Retry, "no NATS answer", "it answers what was not asked")),
        }
    }

    fn acknowledged(&self, message: &Message) -> AttemptReport {
        const NO_RESPONDERS: u16 = 503;
        let said = String::from_utf8_lossy(&message.payload);
        if message.status == Some(NO_RESPONDERS) {
            let hint = format!("make a stream whose subjects hold `{}`, or name another subject", self.subject);
            return self.wire.report(Outcome::Misconfigured, "no stream takes the subject", &hint);
        }
        match serde_json::from_slice::<Acknowledgement>(&message.payload) {
            Ok(Acknowledgement { error: Some(error), .. }) => {
                let status = format!("NATS {}", error.err_code.unwrap_or(error.code));
                self.wire.report(outcome(&error), &status, &error.description)
            }
            Ok(Acknowledgement { stream: Some(stream), seq: Some(seq), duplicate, .. }) => {
                let status = if duplicate { "acknowledged, as a copy" } else { "acknowledged" };
                self.wire.report(Outcome::Delivered, status, &format!("{stream}, sequence {seq}"))
            }
            _ => self.wire.report(Outcome::Misconfigured, "answered by something that is no stream", &said),
        }
    }

    /// A server's `-ERR`, by its words: it has no codes.
    fn wrong(&self, words: &str) -> AttemptReport {
        let lower = words.to_lowercase();
        let has = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
        let outcome = match () {
            // The server was too slow to hear us, or is full.
            () if has(&["timeout", "maximum connections", "maximum account active"]) => Outcome::Retry,
            () if has(&[
                "authorization",
                "authentication",
                "permissions",
                "tls required",
                "subject",
                "no_responders",
            ]) =>
            {
                Outcome::Misconfigured
            }
            () if has(&["maximum payload"]) => Outcome::Degrade,
            () => Outcome::Retry,
        };
        self.wire.report(outcome, "refused by the server", words)
    }

    fn lost(&self, error: &io::Error) -> AttemptReport {
        let is_language = error.kind() == io::ErrorKind::InvalidData
            && error.get_ref().is_none_or(|cause| !cause.is::<rustls::Error>());
        if is_language {
            return self.wire.report(Outcome::Retry, "no NATS answer", &error.to_string());
        }
        self.wire.lost(error)
    }
}

/// What a stream answers.
#[derive(Deserialize)]
struct Acknowledgement {
    stream: Option<String>,
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
    error: Option<ApiError>,
}

/// Why a stream did not take it: a code like those of HTTP, one of its own, and words.
#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u16,
    err_code: Option<u16>,
    #[serde(default)]
    description: String,
}

/// By the server's own list of errors. A full stream is emptied by its consumers or by time; that one subject is full
/// (`maximum messages per subject`) is a setting which stays as long as all alerts have one subject.
fn outcome(error: &ApiError) -> Outcome {
    match (error.code, error.err_code.unwrap_or_default()) {
        // Message or headers too long for the stream.
        (_, 10_054 | 10_097) => Outcome::Degrade,
        // No JetStream (for this account), no such account or stream, no limits that apply.
        (_, 10_035 | 10_039 | 10_059 | 10_076 | 10_120) => Outcome::Misconfigured,
        (_, 10_077) if error.description.contains("per subject") => Outcome::Misconfigured,
        // The account is full; a copy is on its way.
        (_, 10_002 | 10_158) => Outcome::Retry,
        (429, _) => Outcome::Wait(None),
        // A sealed stream, one that takes something else: whatever it is, it is not about this alert.
        (400..=499, _) => Outcome::Misconfigured,
        _ => Outcome::Retry,
    }
}

impl Sink for NatsSink {
    fn kind(&self) -> &'static str {
        NATS.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Machine
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        self.format.alert(alert, context, MAX_PAYLOAD_BYTES)
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        self.format.update(update, context)
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(self.attempt(delivery))
    }

    fn probe(&self) -> Probe<'_> {
        Probe::Asks(Box::pin(async {
            let report = match timeout(self.wire.limits.total, self.open()).await {
                Ok(Ok(_)) => self.wire.report(Outcome::Delivered, "let in", ""),
                Ok(Err(report)) => report,
                Err(elapsed) => self.wire.report(Outcome::Retry, "timed out", &elapsed.to_string()),
            };
            vec![Probed { asked: "CONNECT", shows: "the server lets us in", report }]
        }))
    }
}

impl std::fmt::Debug for NatsSink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("NatsSink").field("wire", &self.wire).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
