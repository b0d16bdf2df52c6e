//! Where the keys come from: the configuration, the shared credentials file, or a role for which an identity token stands
//! (IRSA of Kubernetes).
//!
//! A file is read again at each attempt, so that keys that were rotated are taken up without a reload. A role's keys are
//! kept until shortly before their end, and one attempt at a time asks for new ones. It never asks a metadata service for
//! the role of an instance: the address guard refuses those on purpose.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Mutex;
use tokio::time::timeout;
use url::form_urlencoded;

use super::answer::{self, element};
use super::sign::Credentials;
use crate::clock::Clock;
use crate::secret::Secret;
use crate::sink::http::Endpoint;
use crate::sink::http::answer::Answer;
use crate::sink::{AttemptReport, Outcome};

/// A credentials file has a few hundred bytes a profile, an identity token one or two thousand.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// A file that stands on a server which is away is not waited for.
const READ_WAIT: Duration = Duration::from_secs(5);
/// A role's keys are renewed this long before their end, as the SDKs do.
const RENEW_BEFORE: TimeDelta = TimeDelta::minutes(5);
/// Who waited for a renewal that failed does not ask at once again: eight that do would hold the lane up for minutes.
const FAILED_FOR: Duration = Duration::from_secs(5);
/// What the role's sessions are called in AWS's logs.
const SESSION_NAME: &str = "vigie";

/// Where keys come from.
pub enum Source {
    /// The configuration.
    Keys(Credentials),
    /// The shared credentials file.
    File(Profile),
    /// AssumeRoleWithWebIdentity.
    Role(Box<Role>),
}

/// A section of a credentials file.
pub struct Profile {
    /// The file.
    pub path: String,
    /// Name of the section.
    pub name: String,
}

/// A role and what stands for it.
pub struct Role {
    /// Whose keys are asked for.
    pub arn: String,
    /// File with the identity token; whoever wrote it replaces it before it ends.
    pub token_file: String,
    /// The Security Token Service.
    pub sts: Endpoint,
    /// For the end of keys, and of a failure.
    pub clock: Arc<dyn Clock>,
    /// What came of it so far.
    pub state: Mutex<RoleState>,
}

/// Keys of a role, and the last failure to get some.
#[derive(Default)]
pub struct RoleState {
    known: Option<(Credentials, DateTime<Utc>)>,
    failed: Option<(AttemptReport, DateTime<Utc>)>,
}

impl Source {
    /// Keys to sign with, and whether they are a role's that were kept from an earlier attempt.
    ///
    /// # Errors
    /// A finished report when there are none.
    pub async fn credentials(&self) -> Result<(Credentials, bool), AttemptReport> {
        match self {
            Self::Keys(credentials) => Ok((credentials.clone(), false)),
            Self::File(profile) => {
                let text = read(&profile.path).await.map_err(|error| unread("the credentials file", &error))?;
                in_profile(&text, &profile.name).map(|credentials| (credentials, false)).ok_or_else(|| {
                    let status = "the credentials file holds no keys for the profile";
                    report(Outcome::Misconfigured, status, String::new())
                })
            }
            Self::Role(role) => role.credentials().await,
        }
    }

    /// The keys have ended although they were held to be good; new ones are asked for next time.
    pub async fn forget(&self) {
        if let Self::Role(role) = self {
            role.state.lock().await.known = None;
        }
    }
}

impl Role {
    async fn credentials(&self) -> Result<(Credentials, bool), AttemptReport> {
        let mut state = self.state.lock().await;
        let now = self.clock.now();
        if let Some((credentials, ends_at)) = &state.known
            && now + RENEW_BEFORE < *ends_at
        {
            return Ok((credentials.clone(), true));
        }
        let steady = self.clock.steady();
        let age = |at: DateTime<Utc>| (steady - at).to_std().unwrap_or_default();
        let recent = state.failed.take().filter(|(_, at)| age(*at) < FAILED_FOR);
        let failure = match recent {
            Some((report, at)) => (report, at),
            None => match self.assume().await {
                Ok((credentials, ends_at)) => {
                    state.known = Some((credentials.clone(), ends_at));
                    return Ok((credentials, false));
                }
                Err(report) => (report, self.clock.steady()),
            },
        };
        let report = failure.0.clone();
        state.failed = Some(failure);
        // Those that end soon are still good.
        match &state.known {
            Some((credentials, ends_at)) if now < *ends_at => Ok((credentials.clone(), true)),
            _ => Err(report),
        }
    }

    async fn assume(&self) -> Result<(Credentials, DateTime<Utc>), AttemptReport> {
        let token = read(&self.token_file).await.map_err(|error| unread("the identity token", &error))?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", "AssumeRoleWithWebIdentity")
            .append_pair("Version", "2011-06-15")
            .append_pair("RoleArn", &self.arn)
            .append_pair("RoleSessionName", SESSION_NAME)
            .append_pair("WebIdentityToken", token.trim())
            .finish();
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, form_type)]);
        let answer = self
            .sts
            .send(Method::POST, headers, Bytes::from(form))
            .await
            .map_err(|report| AttemptReport { status: format!("keys of the role: {}", report.status), ..report })?;
        match answer.status.is_success().then(|| granted(&answer)).flatten() {
            Some(granted) => Ok(granted),
            None => Err(self.refused(&answer)),
        }
    }

    /// Nothing of the answer is kept but its code: the rest may hold keys, or the token.
    fn refused(&self, answer: &Answer) -> AttemptReport {
        let outcome = match answer::outcome(answer) {
            Outcome::Delivered | Outcome::Accepted => Outcome::Retry,
            // Whatever is wrong with the role, the alert is not.
            Outcome::Degrade | Outcome::Dead => Outcome::Misconfigured,
            outcome => outcome,
        };
        report(outcome, &format!("keys of the role: {}", answer::status(answer)), String::new())
    }
}

fn granted(answer: &Answer) -> Option<(Credentials, DateTime<Utc>)> {
    let text = String::from_utf8_lossy(&answer.body);
    let secret = |name: &str| Some(Secret::new(element(&text, name).filter(|text| !text.is_empty())?));
    let credentials = Credentials {
        access_key_id: secret("AccessKeyId")?,
        secret_access_key: secret("SecretAccessKey")?,
        session_token: Some(secret("SessionToken")?),
    };
    let ends_at = DateTime::parse_from_rfc3339(&element(&text, "Expiration")?).ok()?;
    Some((credentials, ends_at.to_utc()))
}

/// The whole of a small file.
async fn read(path: &str) -> io::Result<String> {
    let whole = async {
        let mut text = String::new();
        tokio::fs::File::open(path).await?.take(MAX_FILE_BYTES).read_to_string(&mut text).await?;
        Ok(text)
    };
    timeout(READ_WAIT, whole).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The keys of one section of a credentials file; of a name that stands twice, the last.
pub fn in_profile(text: &str, profile: &str) -> Option<Credentials> {
    let (mut is_in, mut keys) = (false, [None, None, None]);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            let section = section.trim();
            is_in = section == profile || section.strip_prefix("profile ").map(str::trim) == Some(profile);
        } else if let Some((name, value)) = line.split_once('=').filter(|_| is_in) {
            let names = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
            let place = names.iter().position(|known| name.trim().eq_ignore_ascii_case(known));
            let value = Some(value.trim()).filter(|value| !value.is_empty()).map(Secret::new);
            if let Some(key) = place.and_then(|place| keys.get_mut(place)) {
                *key = value;
            }
        }
    }
    let [access_key_id, secret_access_key, session_token] = keys;
    Some(Credentials { access_key_id: access_key_id?, secret_access_key: secret_access_key?, session_token })
}

fn unread(what: &str, error: &io::Error) -> AttemptReport {
    report(Outcome::Misconfigured, &format!("{what} cannot be read"), error.to_string())
}

fn report(outcome: Outcome, status: &str, excerpt: String) -> AttemptReport {
    AttemptReport { outcome, status: status.to_owned(), excerpt, spent: None, receipt: None }
}
