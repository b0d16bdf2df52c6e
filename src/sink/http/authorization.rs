//! `Authorization: Bearer` with a token that changes: from a file, or from a token server.
//!
//! A token is never kept in what is rendered or stored, and what went out last is known to the redactor, so that a
//! destination that repeats it does not get it into the ledger.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderValue;

use super::file;
use super::oauth2::Tokens;
use crate::secret::Secret;
use crate::sink::{AttemptReport, Outcome};

/// Largest token file in bytes: a token of any kind is far smaller.
const MAX_TOKEN_FILE_BYTES: u64 = 64 * 1024;
/// How long a file is waited for: that of a file system over the network may hang.
const MAX_READ: Duration = Duration::from_secs(5);
/// Status of an attempt without a token.
const NO_TOKEN: &str = "no bearer token";

/// A file with a token, such as Kubernetes projects and renews one.
#[derive(Debug, Clone)]
pub(super) struct TokenFile(PathBuf);

impl TokenFile {
    pub(super) fn new(path: &str) -> Self {
        Self(PathBuf::from(path))
    }

    /// What it holds now; why not as the rest of a sentence that begins with the file.
    pub(super) fn read(&self) -> Result<Secret, String> {
        let text = file::read(&self.0, MAX_TOKEN_FILE_BYTES)?;
        let text = String::from_utf8(text).map_err(|_| "is not UTF-8".to_owned())?;
        let token = text.trim();
        match bearer(token) {
            _ if token.is_empty() => Err("is empty".into()),
            None => Err("holds what no header can carry".into()),
            Some(_) => Ok(Secret::new(token)),
        }
    }
}

/// The header's value; `None` when no header can carry it.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Where the token of a request comes from.
enum Origin {
    File(TokenFile),
    Server(Box<Tokens>),
}

/// What an endpoint sends as `Authorization`.
pub(super) struct Authorization {
    origin: Origin,
    /// The token that went out last.
    spoken: Mutex<Option<Secret>>,
}

/// The token of one request.
pub(super) struct Credential {
    pub(super) header: HeaderValue,
    token: Secret,
    /// It was used before and is not fetched for this request.
    is_kept: bool,
}

impl Authorization {
    pub(super) fn of_file(file: TokenFile) -> Self {
        Self { origin: Origin::File(file), spoken: Mutex::new(None) }
    }

    pub(super) fn of_tokens(tokens: Tokens) -> Self {
        Self { origin: Origin::Server(Box::new(tokens)), spoken: Mutex::new(None) }
    }

    /// The token for the next request.
    ///
    /// # Errors
    /// A finished report when there is none; the caller redacts nothing in it.
    pub(super) async fn credential(&self) -> Result<Credential, AttemptReport> {
        let (token, is_kept) = match &self.origin {
            Origin::File(file) => (from_file(file.clone()).await?, false),
            Origin::Server(tokens) => tokens.token().await?,
        };
        *self.spoken.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        match bearer(token.expose()) {
            Some(header) => Ok(Credential { header, token, is_kept }),
            None => Err(unusable(NO_TOKEN, "the token is no header value")),
        }
    }

    /// The destination refused it (401): a token that was fetched is not sent again. Whether another one may do: one that
    /// was fetched for this very request and is refused is for the operator.
    pub(super) async fn refused(&self, credential: &Credential) -> bool {
        let Origin::Server(tokens) = &self.origin else { return false };
        tokens.forget(&credential.token).await;
        credential.is_kept
    }

    /// The token that went out last.
    pub(super) fn spoken(&self) -> Option<Secret> {
        self.spoken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn from_file(file: TokenFile) -> Result<Secret, AttemptReport> {
    let path = file.0.display().to_string();
    let reading = tokio::task::spawn_blocking(move || file.read());
    match tokio::time::timeout(MAX_READ, reading).await {
        Ok(Ok(Ok(token))) => Ok(token),
        Ok(Ok(Err(why))) => Err(unusable(NO_TOKEN, &format!("{path} {why}"))),
        Ok(Err(_)) => Err(unusable(NO_TOKEN, "reading the file failed")),
        Err(_) => {
            let excerpt = "the file cannot be read in time".to_owned();
            Err(AttemptReport { outcome: Outcome::Retry, status: NO_TOKEN.into(), excerpt, spent: None })
        }
    }
}

/// The operator can mend it, so the backlog is kept.
pub(super) fn unusable(status: &str, why: &str) -> AttemptReport {
    let excerpt = vigie_engine::text::single_line(why, crate::sink::MAX_EXCERPT_CHARS);
    AttemptReport { outcome: Outcome::Misconfigured, status: status.into(), excerpt, spent: None }
}
