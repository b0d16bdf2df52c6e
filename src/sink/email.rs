//! `email`: each alert as one mail over SMTP, text and HTML, rendered whole at ingest and sent as those bytes.
//!
//! From and To come from the configuration only. Message-ID is the delivery's, so that a copy is known as one; mails of one
//! dedup key share a thread. Recipients are told apart: one that is refused or not ready keeps the mail from no other. A mail
//! that somebody will never have is a dead letter, whoever else has it: nobody would hear of it otherwise.

mod body;
mod bounded;
mod relay;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MessageBuilder, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, TlsParameters};
use lettre::{Address, address::AddressError};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;
use url::Url;
use vigie_engine::alert::Alert;
use vigie_engine::diagnostic::Diagnostics;
use vigie_engine::text::{is_unsafe, single_line};

use self::body::{Content, headline, thread_id};
use self::relay::{Fate, GREYLISTED, Handover, Relay, Security};
use super::bound::{Bound, Most, Unit};
use super::http::guard::{Policy, Refused};
use super::http::redact::Redactor;
use super::http::{ALLOW_PRIVATE, CA_FILE, client_tls, system_lookup};
use super::probe::{Probe, Probed};
use super::update::{CLOSING, UPDATES, Update};
use super::{
    AttemptReport, BuildContext, DIGEST, Delivery, Form, Outcome, RenderContext, RenderError, RetryProfile, Sink,
    SinkKind,
};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::pipeline::BoxFuture;
use crate::secret::{Secret, unescaped};

/// As the configuration knows it.
pub const EMAIL: SinkKind = SinkKind {
    kind: "email",
    example: "mail:\n  email:\n    smtp: smtps://vigie:${SMTP_PASSWORD}@mail.example.org\n    from: Vigie <vigie@example.org>\n    \
              to: [soc@example.org]\n",
    bounds: &[Bound {
        what: "a line",
        most: Most::Of(MAX_LINE_BYTES),
        unit: Unit::Bytes,
        used: |mail| mail.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end().len()).max().unwrap_or(0),
    }],
    options: &[OPTIONS],
    build,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "smtp",
        kind: OptionKind::Url(&["smtps", "smtp", "smtp+starttls"]),
        presence: Presence::Required,
        help: "smtps://user:password@host (TLS) or smtp://host (STARTTLS; plain text to loopback only)",
    },
    OptionSpec {
        name: "user",
        kind: OptionKind::Text,
        presence: Presence::Optional,
        help: "who logs in, when the URL does not say it",
    },
    OptionSpec {
        name: "password",
        kind: OptionKind::Secret,
        presence: Presence::Optional,
        help: "its password as it is, for one with characters that a URL would need encoded",
    },
    OptionSpec {
        name: "from",
        kind: OptionKind::Text,
        presence: Presence::Required,
        help: "the sender, such as vigie@example.org or Vigie <vigie@example.org>",
    },
    OptionSpec { name: "to", kind: OptionKind::Texts, presence: Presence::Required, help: "one recipient or a list" },
    OptionSpec {
        name: "insecure",
        kind: OptionKind::Flag,
        presence: Presence::Default("false"),
        help: "whether smtp:// may send in plain text beyond loopback",
    },
    DIGEST,
    UPDATES,
    CLOSING,
    // 30 in any minute at most, which is what the strictest of the large relays take (Exchange Online).
    super::rate(Presence::Default("20/m")),
    super::burst("10"),
    CA_FILE,
    ALLOW_PRIVATE,
];

/// RFC 5322, 2.1.1: a line without its end. Mails are encoded so that lines are far shorter.
const MAX_LINE_BYTES: usize = 998;

/// Recipients of one sink: each costs a command of the conversation, and the whole is bounded in time.
pub const MAX_RECIPIENTS: usize = 50;
/// Mails that some recipients have and others not (yet), remembered so that another attempt reaches the others only.
const MAX_PARTIAL: usize = 512;
/// In place of what is wrong or missing, while the rest of the options is looked at; nothing that is built with it is used.
const STAND_IN: &str = "absent@example.org";
/// Longest value of a header of ours.
const MAX_HEADER_CHARS: usize = 200;
/// Longest subject of an update: a title and what it says of it.
const MAX_SUBJECT_CHARS: usize = 240;

/// What an e-mail sink is made of.
#[derive(Debug, Clone)]
pub struct EmailOptions {
    /// Relay: `smtps`, `smtp+starttls` or `smtp`, perhaps with user and password.
    pub smtp: Url,
    /// Takes the place of the URL's user.
    pub user: Option<String>,
    /// Takes the place of the URL's password.
    pub password: Option<Secret>,
    /// Sender.
    pub from: String,
    /// Recipients.
    pub to: Vec<String>,
    /// PEM of additional authorities.
    pub ca_pem: Option<Vec<u8>>,
    /// Plain text beyond loopback.
    pub insecure: bool,
    /// What may be reached.
    pub policy: Policy,
}

/// Why an e-mail sink cannot be built; names the option.
#[derive(Debug, thiserror::Error)]
pub enum EmailError {
    /// The guard refuses the relay's host.
    #[error("the host of the URL is refused")]
    Refused(#[source] Refused),
    /// A text is no mail address.
    #[error("`{address}` is no mail address")]
    Address {
        /// `from` or `to`.
        option: &'static str,
        /// As written, made inert.
        address: String,
        /// Why, by the parser.
        #[source]
        source: Option<AddressError>,
    },
    /// More than [`MAX_RECIPIENTS`].
    #[error("more than {MAX_RECIPIENTS} recipients")]
    TooManyRecipients,
    /// Something in the URL or beside it has no meaning.
    #[error("{0}")]
    Url(&'static str),
    /// The additional authorities are no PEM certificates.
    #[error("the CA file holds no usable certificate")]
    Authorities,
    /// TLS could not be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] lettre::transport::smtp::Error),
}

/// The sink.
#[derive(Debug)]
pub struct EmailSink {
    from: Mailbox,
    to: Vec<Mailbox>,
    relay: Relay,
    redactor: Redactor,
    partial: Mutex<VecDeque<Partial>>,
}

/// A mail that some recipients have.
#[derive(Debug, Clone, Default)]
struct Partial {
    delivery_id: String,
    taken: Vec<Address>,
    refused: Vec<Fate>,
}

/// Builds it from its options.
fn build(
    options: &Options,
    _name: &str,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Box<dyn Sink>> {
    let ca_pem = options.text(CA_FILE.name).map(|path| (path, std::fs::read(path)));
    if let Some((path, Err(error))) = &ca_pem {
        let message = format!("CA file `{path}` cannot be read: {error}");
        diagnostics.error("E0422", options.span_of(CA_FILE.name), message, Some(CA_FILE.help.into()));
    }
    let has_authorities = ca_pem.as_ref().is_none_or(|(_, read)| read.is_ok());
    let (from, to) = (options.text("from").unwrap_or(STAND_IN), options.texts("to"));
    let mut errors: Vec<EmailError> = mailbox("from", from).err().into_iter().collect();
    errors.extend(to.iter().filter_map(|text| mailbox("to", text).err()));
    // With a stand-in for what is wrong, the way to the relay is looked at all the same.
    let (good_from, good_to) = (
        mailbox("from", from).map_or(STAND_IN, |_| from),
        to.iter().filter(|text| mailbox("to", text).is_ok()).cloned().collect(),
    );
    let stand_in = |name: &str| options.is_refused(name).then(|| STAND_IN.to_owned());
    let built = options.url("smtp").map(|smtp| {
        EmailSink::new(EmailOptions {
            smtp: smtp.clone(),
            user: options.text("user").map(str::to_owned).or_else(|| stand_in("user")),
            password: options.secret("password").cloned().or_else(|| stand_in("password").map(Secret::new)),
            from: good_from.to_owned(),
            to: good_to,
            ca_pem: ca_pem.and_then(|(_, read)| read.ok()),
            insecure: options.flag("insecure") && !options.is_refused("insecure"),
            policy: Policy { allow_private: options.flag(ALLOW_PRIVATE.name) },
        })
    });
    let sink = match built {
        Some(Ok(mut sink)) => {
            sink.relay.lookup = Arc::clone(&context.lookup);
            Some(sink)
        }
        Some(Err(error)) => {
            errors.push(error);
            None
        }
        None => None,
    };
    errors.iter().for_each(|error| report(error, options, diagnostics));
    sink.filter(|_| errors.is_empty() && has_authorities).map(|sink| Box::new(sink) as Box<dyn Sink>)
}

fn report(error: &EmailError, options: &Options, diagnostics: &mut Diagnostics) {
    let (code, option, hint) = match error {
        EmailError::Refused(_) => ("E0421", "smtp", Some("use the public name of the mail relay")),
        EmailError::Authorities => ("E0422", CA_FILE.name, Some(CA_FILE.help)),
        EmailError::Address { option, .. } => ("E0427", *option, Some("write it as name@example.org")),
        EmailError::TooManyRecipients => ("E0427", "to", Some("use the address of a group")),
        EmailError::Url(_) | EmailError::Tls(_) => ("E0428", "smtp", Some("smtps://user:password@mail.example.org")),
    };
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let hint = hint.map(str::to_owned);
    diagnostics.error(code, options.span_of(option), format!("`{option}`: {error}{cause}"), hint);
}

impl EmailSink {
    /// Builds it; opens nothing.
    ///
    /// # Errors
    /// When an option cannot be used.
    pub fn new(options: EmailOptions) -> Result<Self, EmailError> {
        let from = mailbox("from", &options.from)?;
        let to = options.to.iter().map(|text| mailbox("to", text)).collect::<Result<Vec<_>, _>>()?;
        if to.len() > MAX_RECIPIENTS {
            return Err(EmailError::TooManyRecipients);
        }
        let url = &options.smtp;
        let host = url.host_str().ok_or(EmailError::Url("it has no host"))?.to_owned();
        options.policy.vet_host(&host).map_err(EmailError::Refused)?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(EmailError::Url("nothing may follow host and port"));
        }
        let user = options.user.clone().or_else(|| Some(unescaped(url.username())).filter(|user| !user.is_empty()));
        let password = options.password.clone().or_else(|| url.password().map(|text| Secret::new(unescaped(text))));
        let (credentials, secrets) = match (user, password) {
            (Some(user), Some(password)) => {
                (Some(Credentials::new(user.clone(), password.expose().to_owned())), spellings(&user, &password))
            }
            (None, None) => (None, Vec::new()),
            _ => return Err(EmailError::Url("user and password go together")),
        };
        let security = security(&options, &host)?;
        let default_port = match &security {
            Security::Implicit(..) => 465,
            Security::StartTls(_) => 587,
            Security::Plain => 25,
        };
        let bare_host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let relay = Relay {
            host: bare_host,
            port: url.port().unwrap_or(default_port),
            security,
            lookup: system_lookup(),
            credentials,
            policy: options.policy,
            sender: from.email.clone(),
        };
        let redactor = Redactor::new(url, &secrets);
        Ok(Self { from, to, relay, redactor, partial: Mutex::new(VecDeque::new()) })
    }

    async fn attempt(&self, delivery: &Delivery) -> AttemptReport {
        let before = self.partial(&delivery.delivery_id);
        let settled = |address: &Address| {
            before.taken.contains(address) || before.refused.iter().any(|fate| fate.recipient == *address)
        };
        let pending: Vec<Address> =
            self.to.iter().map(|mailbox| mailbox.email.clone()).filter(|address| !settled(address)).collect();
        match self.relay.hand_over(&delivery.body, &pending).await {
            Ok(handover) => self.judge(before, handover),
            Err(failure) => AttemptReport {
                outcome: failure.outcome,
                status: failure.status,
                excerpt: self.redactor.excerpt(failure.cause.as_bytes()),
                spent: None,
                receipt: None,
            },
        }
    }

    /// What the recipients' fates make of the delivery, this attempt and earlier ones taken together.
    fn judge(&self, mut known: Partial, handover: Handover) -> AttemptReport {
        let Handover { taken, refused, later, reply } = handover;
        known.taken.extend(taken);
        known.refused.extend(refused);
        let outcome = match (known.taken.is_empty(), known.refused.is_empty(), later.is_empty()) {
            (_, true, true) => Outcome::Delivered,
            (_, false, true) => Outcome::Dead,
            (false, _, false) => Outcome::Later(GREYLISTED),
            (true, _, false) => Outcome::Wait(Some(GREYLISTED)),
        };
        let decided = later.first().or(known.refused.first()).map_or(250, |fate| fate.code);
        let status = match standing(&known, later.len()) {
            Some(standing) => format!("SMTP {decided} ({standing})"),
            None => format!("SMTP {decided}"),
        };
        let fates = later.iter().chain(&known.refused).map(|fate| format!("{}: {}", fate.recipient, fate.said));
        let reply = Some(reply).filter(|reply| !reply.is_empty());
        let excerpt = reply.into_iter().chain(fates).collect::<Vec<_>>().join("; ");
        let excerpt = self.redactor.excerpt(excerpt.as_bytes());
        if outcome == Outcome::Dead {
            // Sent again by hand, it asks for those who have not got it, and for nobody else.
            known.refused.clear();
        }
        self.remember(known, outcome != Outcome::Delivered);
        AttemptReport { outcome, status, excerpt, spent: None, receipt: None }
    }

    fn partial(&self, delivery_id: &str) -> Partial {
        let partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let known = partial.iter().find(|known| known.delivery_id == delivery_id).cloned();
        known.unwrap_or_else(|| Partial { delivery_id: delivery_id.to_owned(), ..Partial::default() })
    }

    /// Forgotten at a restart: then the recipients who have it get one more copy with the same Message-ID.
    fn remember(&self, known: Partial, is_open: bool) {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        partial.retain(|other| other.delivery_id != known.delivery_id);
        if is_open {
            if partial.len() >= MAX_PARTIAL {
                partial.pop_front();
            }
            partial.push_back(known);
        }
    }

    /// Of a mail about an alert, or about an update of it.
    fn headers(&self, alert: &Alert, about: Option<&Update<'_>>, context: &RenderContext<'_>) -> MessageBuilder {
        let domain = self.from.email.domain();
        let thread = format!("<{}@{domain}>", thread_id(alert));
        let builder = Message::builder()
            .date(context.now.into())
            .from(self.from.clone())
            .subject(about.map_or_else(|| headline(alert), |update| single_line(&update.headline(), MAX_SUBJECT_CHARS)))
            .message_id(Some(format!("<{}@{domain}>", context.delivery_id)));
        // An update answers the mail of its alert.
        let builder = match about.map(|update| format!("<{}@{domain}>", update.alert_delivery_id)) {
            Some(alert_mail) => builder.in_reply_to(alert_mail.clone()).references(format!("{thread} {alert_mail}")),
            None => builder.in_reply_to(thread.clone()).references(thread),
        };
        let builder = self.to.iter().fold(builder, |builder, mailbox| builder.to(mailbox.clone()));
        let rows: [(HeaderName, &str); 7] = [
            (HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated"),
            (HeaderName::new_from_ascii_str("X-Auto-Response-Suppress"), "All"),
            (HeaderName::new_from_ascii_str("X-Vigie-Alert-Id"), &alert.alert_id),
            (HeaderName::new_from_ascii_str("X-Vigie-Delivery-Id"), context.delivery_id),
            (HeaderName::new_from_ascii_str("X-Vigie-Rule"), &alert.rule.id),
            (HeaderName::new_from_ascii_str("X-Vigie-Severity"), super::text::severity_word(alert.rule.severity)),
            (HeaderName::new_from_ascii_str("X-Vigie-Source"), &alert.source),
        ];
        rows.into_iter().fold(builder, |builder, (name, value)| {
            builder.raw_header(HeaderValue::new(name, single_line(value, MAX_HEADER_CHARS)))
        })
    }
}

impl Sink for EmailSink {
    fn kind(&self) -> &'static str {
        EMAIL.kind
    }

    fn retry_profile(&self) -> RetryProfile {
        RetryProfile::Person
    }

    fn render(&self, alert: &Alert, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let content = Content::new(alert, context.delivery_id);
        let headers = self.headers(alert, None, context);
        let mail = match context.form {
            Form::Plain => headers.singlepart(SinglePart::plain(content.text())),
            Form::Full => headers.multipart(
                MultiPart::alternative()
                    .boundary(format!("vigie-{}", context.delivery_id))
                    .singlepart(SinglePart::plain(content.text()))
                    .singlepart(SinglePart::html(content.html())),
            ),
        };
        mail.map(|mail| mail.formatted()).map_err(|error| RenderError(error.to_string()))
    }

    fn render_update(&self, update: &Update<'_>, context: &RenderContext<'_>) -> Result<Vec<u8>, RenderError> {
        let headers = self.headers(update.alert, Some(update), context);
        let mail = headers.singlepart(SinglePart::plain(body::update(update, context.delivery_id)));
        mail.map(|mail| mail.formatted()).map_err(|error| RenderError(error.to_string()))
    }

    fn send<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, AttemptReport> {
        Box::pin(self.attempt(delivery))
    }

    fn probe(&self) -> Probe<'_> {
        Probe::Asks(Box::pin(async {
            let (outcome, status, cause) = match self.relay.greet().await {
                Ok(()) => (Outcome::Delivered, "let in".to_owned(), String::new()),
                Err(failure) => (failure.outcome, failure.status, failure.cause),
            };
            let excerpt = self.redactor.excerpt(cause.as_bytes());
            let report = AttemptReport { outcome, status, excerpt, spent: None, receipt: None };
            vec![Probed { asked: self.relay.steps(), shows: "the relay lets us in", report }]
        }))
    }
}

/// How the recipients stand, if not all alike; it names the refused, for this is what the operator is told.
fn standing(known: &Partial, waiting: usize) -> Option<String> {
    let refused: Vec<String> = known.refused.iter().map(|fate| fate.recipient.to_string()).collect();
    let parts = [
        (known.taken.len(), format!("{} taken", known.taken.len())),
        (refused.len(), format!("{} refused: {}", refused.len(), refused.join(", "))),
        (waiting, format!("{waiting} not yet")),
    ];
    let parts: Vec<String> = parts.into_iter().filter(|(count, _)| *count > 0).map(|(_, part)| part).collect();
    (parts.len() > 1).then(|| parts.join(", "))
}

fn security(options: &EmailOptions, host: &str) -> Result<Security, EmailError> {
    let implicit = options.smtp.scheme() == "smtps";
    let plain = options.smtp.scheme() == "smtp" && (options.insecure || is_loopback(host));
    if options.insecure && !plain {
        return Err(EmailError::Url("`insecure` has a meaning with smtp:// only"));
    }
    if plain {
        return Ok(Security::Plain);
    }
    let mut tls = TlsParameters::builder(host.to_owned()).certificate_store(CertificateStore::WebpkiRoots);
    if let Some(pem) = &options.ca_pem {
        let found = CertificateDer::pem_slice_iter(pem).filter(Result::is_ok).count();
        let certificate = Certificate::from_pem(pem).map_err(|_| EmailError::Authorities)?;
        if found == 0 {
            return Err(EmailError::Authorities);
        }
        tls = tls.add_root_certificate(certificate);
    }
    let tls = tls.build_rustls().map_err(EmailError::Tls)?;
    if !implicit {
        return Ok(Security::StartTls(tls));
    }
    let bare_host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare_host);
    let name = name.map_err(|_| EmailError::Url("TLS needs the name that the certificate holds"))?;
    let config = client_tls(options.ca_pem.as_deref(), None).map_err(|_| EmailError::Authorities)?;
    Ok(Security::Implicit(TlsConnector::from(Arc::new(config)), name))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A control character in a display name makes the library panic, and an address beyond ASCII needs a relay that few are.
fn mailbox(option: &'static str, text: &str) -> Result<Mailbox, EmailError> {
    let refuse = |source| EmailError::Address { option, address: single_line(text, MAX_HEADER_CHARS), source };
    if text.chars().any(is_unsafe) {
        return Err(refuse(None));
    }
    let mailbox: Mailbox = text.trim().parse().map_err(|error| refuse(Some(error)))?;
    if mailbox.email.to_string().is_ascii() { Ok(mailbox) } else { Err(refuse(None)) }
}

/// The forms in which a relay could repeat the log-in.
fn spellings(user: &str, password: &Secret) -> Vec<Secret> {
    let password = password.expose();
    let plain = STANDARD.encode(format!("\0{user}\0{password}"));
    vec![Secret::new(password), Secret::new(STANDARD.encode(password)), Secret::new(plain)]
}

#[cfg(test)]
mod tests;
