//! One Vonage account as the configuration gives it.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::FixedOffset;
use url::Url;
use vigie_engine::diagnostic::Diagnostics;
use vigie_engine::time::parse_duration;

use super::client::Client;
use super::transport::{BuildError, HttpOptions, HttpTransport, Transport};
use super::{Start, VonageOptions, VonageSource};
use crate::clock::Clock;
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::secret::Secret;
use crate::source::stamp::Stamp;
use crate::source::{BuildContext, Built};

/// Where the API is.
pub const DEFAULT_BASE_URL: &str = "https://api.nexmo.com/beta/audit";

/// Options of the source kind `vonage_audit`.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "api_key",
        kind: OptionKind::Text,
        presence: Presence::Required,
        help: "the account's API key; keep it in the environment: ${VONAGE_API_KEY}",
    },
    OptionSpec {
        name: "api_secret",
        kind: OptionKind::Secret,
        presence: Presence::Required,
        help: "the account's API secret; keep it in the environment: ${VONAGE_API_SECRET}",
    },
    OptionSpec {
        name: "base_url",
        kind: OptionKind::Url(&["https", "http"]),
        presence: Presence::Default(DEFAULT_BASE_URL),
        help: "where the API is",
    },
    OptionSpec {
        name: "poll_interval",
        kind: OptionKind::Duration(200, 3_600_000),
        presence: Presence::Default("15s"),
        help: "how often the newest events are asked for",
    },
    OptionSpec {
        name: "start",
        kind: OptionKind::Text,
        presence: Presence::Default("now"),
        help: "from here on events are evaluated: now, how long ago (30d), or a stamp (2026-01-01T00:00:00Z); it counts at \
               the first run only, a later change has no effect and is warned of",
    },
    OptionSpec {
        name: "backfill",
        kind: OptionKind::Duration(3_600_000, 400 * 86_400_000),
        presence: Presence::Optional,
        help: "how far before `start` the history is read at the first start; stateful rules learn from it, nothing of it alerts",
    },
    OptionSpec {
        name: "lateness",
        kind: OptionKind::Duration(0, 7 * 86_400_000),
        presence: Presence::Optional,
        help: "how late an event may become visible before an absence counts it as missing; usually the first look-back",
    },
    OptionSpec {
        name: "ca_file",
        kind: OptionKind::File,
        presence: Presence::Optional,
        help: "PEM file with further roots that are trusted for this source",
    },
    OptionSpec {
        name: "proxy",
        kind: OptionKind::Url(&["http", "https"]),
        presence: Presence::Optional,
        help: "HTTP proxy for this source; the environment's proxy settings are not used",
    },
];

/// Builds the source from the options of its table, or says what is wrong with them. Opens no socket.
#[must_use]
pub fn build(options: &Options, name: &str, context: &BuildContext, diagnostics: &mut Diagnostics) -> Option<Built> {
    let start = start(options, diagnostics);
    let account = Account::from_options(options)?;
    let transport = account.transport().map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let (option, hint) = match &error {
            BuildError::BaseUrl => {
                ("base_url", "such as https://api.nexmo.com/beta/audit; key and secret have options")
            }
            BuildError::Credentials => ("api_secret", "look for a line end or a control character in the variable"),
            BuildError::Roots { .. } => ("ca_file", "a PEM file that this user can read"),
            BuildError::Tls(_) => ("ca_file", "a PEM file with certificates of authorities"),
            BuildError::Http(_) => ("proxy", "such as http://proxy.example.org:3128"),
        };
        let message = format!("source `{name}`: {error}{cause}");
        diagnostics.error("E0430", options.span_of(option), message, Some(hint.into()));
    });
    let poll_interval = options.duration("poll_interval")?;
    let (start, transport) = (start?, transport.ok()?);
    let mut source = VonageOptions::new(name, poll_interval, start);
    source.backfill = options.duration("backfill");
    source.lateness = options.duration("lateness").unwrap_or(source.lateness);
    let source = VonageSource::new(source, transport, context.clock.clone());
    Some(Built { source: Box::new(source), account: Some(account), reads_stdin: false })
}

fn start(options: &Options, diagnostics: &mut Diagnostics) -> Option<Start> {
    let text = options.text("start")?;
    let stamp = || Stamp::parse(text)?.at(FixedOffset::east_opt(0)?);
    let start = match text {
        "now" => Some(Start::Now),
        _ => parse_duration(text).ok().map(Start::Ago).or_else(|| stamp().map(Start::At)),
    };
    if start.is_none() {
        let hint = "now, how long ago (30d), or a stamp (2026-01-01T00:00:00Z)";
        diagnostics.error("E0403", options.span_of("start"), format!("`start` cannot be `{text}`"), Some(hint.into()));
    }
    start
}

/// Where an account is asked, and with what.
#[derive(Debug, Clone)]
pub struct Account {
    base_url: Url,
    api_key: String,
    api_secret: Secret,
    ca_file: Option<PathBuf>,
    proxy: Option<Url>,
}

impl Account {
    /// An account without a proxy or further roots.
    #[must_use]
    pub fn new(base_url: Url, api_key: String, api_secret: Secret) -> Self {
        Self { base_url, api_key, api_secret, ca_file: None, proxy: None }
    }

    /// From the options of its table. For what is missing something stands in, so that the rest can be judged.
    fn from_options(options: &Options) -> Option<Self> {
        let absent = || "absent".to_owned();
        Some(Self {
            base_url: options.url("base_url")?.clone(),
            api_key: options.text("api_key").map_or_else(absent, str::to_owned),
            api_secret: options.secret("api_secret").cloned().unwrap_or_else(|| Secret::new(absent())),
            ca_file: options.text("ca_file").map(PathBuf::from),
            proxy: options.url("proxy").cloned(),
        })
    }

    /// A client for it. Opens no socket.
    ///
    /// # Errors
    /// When the roots cannot be read.
    pub fn client(&self, clock: Arc<dyn Clock>) -> Result<Client, BuildError> {
        Ok(Client::new(self.transport()?, clock))
    }

    fn transport(&self) -> Result<Arc<dyn Transport>, BuildError> {
        let transport = HttpTransport::new(&HttpOptions {
            base_url: self.base_url.clone(),
            api_key: self.api_key.clone(),
            api_secret: self.api_secret.clone(),
            extra_roots: self.ca_file.clone(),
            proxy: self.proxy.clone(),
        })?;
        Ok(Arc::new(transport))
    }
}
