//! One SMTP conversation with the operator's mail relay: connect, secure, log in, hand one mail to several recipients.
//!
//! It uses lettre's connection and not its transport, because the fate of each recipient and the moment from which a lost
//! answer is in doubt (the end of DATA) must be known. The host is resolved once, vetted, and that address is connected to. What the relay says is
//! read up to a limit: lettre bounds an answer only once its line has ended.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::bounded::Bounded;
use crate::sink::Outcome;
use crate::sink::http::Lookup;
use crate::sink::http::guard::Policy;

/// Name and TCP.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// Everything: relays scan mail before they answer.
pub(super) const TOTAL: Duration = Duration::from_secs(60);
/// A greylisting relay takes a mail that comes again after this, and not before.
pub(super) const GREYLISTED: Duration = Duration::from_secs(300);
/// What a courtesy may take when the mail is already handed over.
const FAREWELL: Duration = Duration::from_secs(1);
/// What is said of a connection that ended for no reason which has a name.
const LOST: &str = "connection lost";
/// The service closes down: no verdict on the mail, whatever was asked.
const CLOSING: u16 = 421;

/// How the way to the relay is protected.
#[derive(Clone)]
pub(super) enum Security {
    /// TLS from the first byte.
    Implicit(TlsConnector, ServerName<'static>),
    /// Upgraded before anything else is said; without that nothing is sent.
    StartTls(TlsParameters),
    /// Loopback, or the operator insists.
    Plain,
}

/// A mail relay.
pub(super) struct Relay {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) security: Security,
    pub(super) lookup: Lookup,
    pub(super) credentials: Option<Credentials>,
    pub(super) policy: Policy,
    pub(super) sender: Address,
}

/// What became of each recipient.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// They have it.
    pub(super) taken: Vec<Address>,
    /// They will never have it, and why.
    pub(super) refused: Vec<Fate>,
    /// Not yet.
    pub(super) later: Vec<Fate>,
    /// What the relay said when it took the mail.
    pub(super) reply: String,
}

/// A recipient to whom the relay said no, or not yet.
#[derive(Debug, Clone)]
pub(super) struct Fate {
    pub(super) recipient: Address,
    pub(super) code: u16,
    pub(super) said: String,
}

/// The conversation ended before recipients could be told apart.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) outcome: Outcome,
    pub(super) status: String,
    pub(super) cause: String,
}

/// Where in the conversation a reply was given; it decides what a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    LogIn,
    Sender,
    Transfer,
}

impl Relay {
    /// One attempt, bounded in time.
    pub(super) async fn hand_over(&self, mail: &[u8], recipients: &[Address]) -> Result<Handover, Failure> {
        let in_doubt = AtomicBool::new(false);
        match timeout(TOTAL, self.converse(mail, recipients, &in_doubt)).await {
            Ok(result) => result.map_err(|failure| failure.marked(&in_doubt)),
            Err(_) => Err(Failure::retry("timed out", String::new()).marked(&in_doubt)),
        }
    }

    /// As far as the log-in, and good-bye; bounded in time.
    pub(super) async fn greet(&self) -> Result<(), Failure> {
        match timeout(TOTAL, self.open()).await {
            Ok(Ok(mut connection)) => {
                drop(timeout(FAREWELL, connection.quit()).await);
                Ok(())
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::retry("timed out", String::new())),
        }
    }

    /// What [`Self::greet`] says on the way.
    pub(super) fn steps(&self) -> &'static str {
        match (&self.security, self.credentials.is_some()) {
            (Security::StartTls(_), true) => "EHLO, STARTTLS, AUTH, QUIT",
            (Security::StartTls(_), false) => "EHLO, STARTTLS, QUIT",
            (Security::Implicit(..), true) => "TLS, EHLO, AUTH, QUIT",
            (Security::Implicit(..), false) => "TLS, EHLO, QUIT",
            (Security::Plain, true) => "EHLO, AUTH, QUIT",
            (Security::Plain, false) => "EHLO, QUIT",
        }
    }

    async fn converse(&self, mail: &[u8], recipients: &[Address], in_doubt: &AtomicBool) -> Result<Handover, Failure> {
        let mut connection = self.open().await?;
        let sender = Mail::new(Some(self.sender.clone()), Vec::new());
        connection.command(sender).await.map_err(|error| failure(Step::Sender, &error))?;
        let mut handover = Handover::default();
        for recipient in recipients {
            match connection.command(Rcpt::new(recipient.clone(), Vec::new())).await {
                Ok(_) => handover.taken.push(recipient.clone()),
                Err(error) => handover.put_off(vec![recipient.clone()], &error)?,
            }
        }
        if !handover.taken.is_empty() {
            match content(&mut connection, mail, in_doubt).await {
                Ok(reply) => handover.reply = reply,
                Err(error) => {
                    let nobody = std::mem::take(&mut handover.taken);
                    handover.put_off(nobody, &error)?;
                }
            }
        }
        // The mail is handed over or not by now; how the connection ends changes nothing.
        drop(timeout(FAREWELL, connection.quit()).await);
        Ok(handover)
    }

    async fn open(&self) -> Result<AsyncSmtpConnection, Failure> {
        let hello = ClientId::default();
        let stream = self.dial().await?;
        let address = stream.peer_addr().map_err(|error| Failure::lost(&error))?;
        let stream: Box<dyn AsyncTokioStream> = match &self.security {
            Security::Implicit(connector, name) => {
                match timeout(CONNECT, connector.connect(name.clone(), stream)).await {
                    Ok(Ok(secured)) => Box::new(Bounded::new(secured, address)),
                    Ok(Err(error)) => return Err(Failure::lost(&error)),
                    Err(elapsed) => return Err(Failure::retry("connect timed out", elapsed.to_string())),
                }
            }
            Security::StartTls(_) | Security::Plain => Box::new(Bounded::new(stream, address)),
        };
        let connection = AsyncSmtpConnection::connect_with_transport(stream, &hello);
        let mut connection = connection.await.map_err(|error| failure(Step::Open, &error))?;
        if let Security::StartTls(tls) = &self.security {
            if !connection.can_starttls() {
                return Err(Failure::misconfigured("the relay offers no STARTTLS", String::new()));
            }
            connection.starttls(tls.clone(), &hello).await.map_err(|error| failure(Step::Open, &error))?;
        }
        if let Some(credentials) = &self.credentials {
            let logged_in = connection.auth(DEFAULT_MECHANISMS, credentials).await;
            logged_in.map_err(|error| failure(Step::LogIn, &error))?;
        }
        Ok(connection)
    }

    /// The first of the vetted addresses that answers.
    async fn dial(&self) -> Result<TcpStream, Failure> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in self.resolve().await? {
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(Failure::lost(&last))
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, Failure> {
        let found = match timeout(CONNECT, (self.lookup)(self.host.clone())).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(Failure::retry("name not resolved", error.to_string())),
            Err(_) => return Err(Failure::retry("name not resolved", "timed out".into())),
        };
        let (allowed, refused): (Vec<_>, Vec<_>) = found
            .into_iter()
            .map(|address| (address, self.policy.vet_address(address.ip())))
            .partition(|(_, vetted)| vetted.is_ok());
        if allowed.is_empty() {
            let cause = refused.into_iter().find_map(|(_, vetted)| vetted.err()).map(|error| error.to_string());
            return Err(Failure::misconfigured("the relay's address is refused", cause.unwrap_or_default()));
        }
        Ok(allowed.into_iter().map(|(address, _)| SocketAddr::new(address.ip(), self.port)).collect())
    }
}

impl Handover {
    /// Files recipients under the reply that they got; without one there is no verdict on anybody.
    fn put_off(&mut self, recipients: Vec<Address>, error: &Error) -> Result<(), Failure> {
        let (code, fates) = match code(error) {
            None | Some(CLOSING) => return Err(failure(Step::Transfer, error)),
            Some(code) if code >= 500 => (code, &mut self.refused),
            Some(code) => (code, &mut self.later),
        };
        fates.extend(recipients.into_iter().map(|recipient| Fate { recipient, code, said: said(error) }));
        Ok(())
    }
}

impl Failure {
    fn retry(status: &str, cause: String) -> Self {
        Self { outcome: Outcome::Retry, status: status.into(), cause }
    }

    fn lost(error: &io::Error) -> Self {
        Self::retry(io_kind(error.kind()).unwrap_or(LOST), error.to_string())
    }

    fn misconfigured(status: &str, cause: String) -> Self {
        Self { outcome: Outcome::Misconfigured, status: status.into(), cause }
    }

    /// A mail whose last answer was lost may have been taken; the next copy has the same Message-ID.
    fn marked(mut self, in_doubt: &AtomicBool) -> Self {
        if in_doubt.load(Ordering::Relaxed) && !self.status.starts_with("SMTP") {
            self.status.push_str(" (in doubt: the answer after DATA was lost)");
        }
        self
    }
}

async fn content(connection: &mut AsyncSmtpConnection, mail: &[u8], in_doubt: &AtomicBool) -> Result<String, Error> {
    connection.command(Data).await?;
    in_doubt.store(true, Ordering::Relaxed);
    let reply = connection.message(mail).await?;
    Ok(format!("{} {}", reply.code(), reply.message().collect::<Vec<_>>().join(" ")))
}

/// The class of a reply that ended the conversation.
fn failure(step: Step, error: &Error) -> Failure {
    let outcome = match (code(error), step) {
        (Some(500..), Step::Open | Step::LogIn | Step::Sender) => Outcome::Misconfigured,
        (Some(code), Step::Sender) if code != CLOSING => Outcome::Wait(Some(GREYLISTED)),
        // No way to log in that both sides know.
        (None, Step::LogIn) if error.is_client() => Outcome::Misconfigured,
        _ => Outcome::Retry,
    };
    let status = match code(error) {
        Some(code) => format!("SMTP {code}"),
        None => kind(error).into(),
    };
    Failure { outcome, status, cause: said(error) }
}

fn code(error: &Error) -> Option<u16> {
    error.status().map(u16::from)
}

fn kind(error: &Error) -> &'static str {
    let io = chain(error).find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    match io.and_then(io_kind) {
        Some(known) => known,
        _ if error.is_tls() => "TLS failed",
        _ if error.is_response() => "no SMTP answer",
        _ if error.is_client() => "not possible with this relay",
        _ => LOST,
    }
}

fn io_kind(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::ConnectionRefused => Some("connection refused"),
        io::ErrorKind::TimedOut => Some("connect timed out"),
        io::ErrorKind::InvalidData => Some("TLS failed"),
        io::ErrorKind::FileTooLarge => Some("the answers are too long"),
        _ => None,
    }
}

/// What the relay said, or the innermost cause.
fn said(error: &Error) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

fn chain<'a>(error: &'a Error) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source())
}

impl fmt::Debug for Relay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        formatter.debug_struct("Relay").field("host", host).field("port", port).finish_non_exhaustive()
    }
}
