//! The options that all HTTP sinks share, and the endpoint that is made of them: what stands between a sink and its
//! destination is read here, so that no sink knows of it.
//!
//! Every mistake is told at its own option. A file that is named here is read once: a change of it reloads the
//! configuration, except for `bearer_token_file`, which is read before each request.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use vigie_engine::diagnostic::Diagnostics;

use super::authorization::{Authorization, TokenFile};
use super::file;
use super::guard::Policy;
use super::oauth2::{ClientAuth, Grant, Tokens};
use super::tls::{self, Identity, NoIdentity};
use super::{BuildError, Endpoint, EndpointSpec};
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::secret::{Secret, SinkUrl};
use crate::sink::BuildContext;

/// Options of every HTTP sink, read by [`endpoint`].
pub const TRANSPORT: &[OptionSpec] = &[
    CA_FILE,
    ALLOW_PRIVATE,
    CERTIFICATE_FILE,
    KEY_FILE,
    PROXY,
    HEADERS,
    BEARER_TOKEN_FILE,
    TOKEN_URL,
    CLIENT_ID,
    CLIENT_SECRET,
    SCOPES,
    AUDIENCE,
    CLIENT_AUTH,
];
/// The same for a sink that sends `Authorization` itself.
pub const KEYED_TRANSPORT: &[OptionSpec] = TRANSPORT.split_at(KEYED_COUNT).0;
/// How many of them say nothing of `Authorization`.
const KEYED_COUNT: usize = 6;

/// Option of every sink with TLS.
pub const CA_FILE: OptionSpec = OptionSpec {
    name: "ca_file",
    kind: OptionKind::File,
    presence: Presence::Optional,
    help: "PEM file with certificate authorities to trust besides the bundled ones",
};
/// Option of every sink with a network.
pub const ALLOW_PRIVATE: OptionSpec = OptionSpec {
    name: "allow_private",
    kind: OptionKind::Flag,
    presence: Presence::Default("true"),
    help: "whether the destination may be on a loopback or private address",
};
/// Option of every sink with TLS.
pub const CERTIFICATE_FILE: OptionSpec = OptionSpec {
    name: "certificate_file",
    kind: OptionKind::File,
    presence: Presence::Optional,
    help: "PEM file with the client certificate that the destination demands, its chain behind it",
};
/// Option beside [`CERTIFICATE_FILE`].
pub const KEY_FILE: OptionSpec = OptionSpec {
    name: "key_file",
    kind: OptionKind::File,
    presence: Presence::Optional,
    help: "PEM file with the key of the client certificate, unencrypted (PKCS#8, PKCS#1 or SEC1)",
};
const PROXY: OptionSpec = OptionSpec {
    name: "proxy",
    kind: OptionKind::Via(&["http", "https"]),
    presence: Presence::Optional,
    help: "HTTP proxy for this sink, with user:password@ if it asks for them; never taken from the environment",
};
const HEADERS: OptionSpec = OptionSpec {
    name: "headers",
    kind: OptionKind::Map,
    presence: Presence::Optional,
    help: "additional headers, such as Authorization or what a gateway asks for",
};
// No `File`: it is read before each request, so its change is no reason to reload.
const BEARER_TOKEN_FILE: OptionSpec = OptionSpec {
    name: "bearer_token_file",
    kind: OptionKind::Text,
    presence: Presence::Optional,
    help: "file whose content is sent as `Authorization: Bearer`, read before each request",
};
const TOKEN_URL: OptionSpec = OptionSpec {
    name: "oauth2_token_url",
    kind: OptionKind::Via(&["https", "http"]),
    presence: Presence::Optional,
    help: "where an OAuth 2.0 access token is fetched (client credentials), sent as `Authorization: Bearer`",
};
const CLIENT_ID: OptionSpec = OptionSpec {
    name: "oauth2_client_id",
    kind: OptionKind::Text,
    presence: Presence::Optional,
    help: "id of the client at `oauth2_token_url`",
};
const CLIENT_SECRET: OptionSpec = OptionSpec {
    name: "oauth2_client_secret",
    kind: OptionKind::Secret,
    presence: Presence::Optional,
    help: "secret of the client at `oauth2_token_url`",
};
const SCOPES: OptionSpec = OptionSpec {
    name: "oauth2_scopes",
    kind: OptionKind::Texts,
    presence: Presence::Optional,
    help: "scopes that are asked for",
};
const AUDIENCE: OptionSpec = OptionSpec {
    name: "oauth2_audience",
    kind: OptionKind::Text,
    presence: Presence::Optional,
    help: "audience that is asked for, where the token server wants one",
};
const CLIENT_AUTH: OptionSpec = OptionSpec {
    name: "oauth2_client_auth",
    kind: OptionKind::Choice(&["basic", "post"]),
    presence: Presence::Optional,
    help: "how id and secret are sent: basic as a header, which every server takes, or post in the form; basic without it",
};
/// What a grant cannot do without, and what it may have.
const GRANT: [&str; 3] = [TOKEN_URL.name, CLIENT_ID.name, CLIENT_SECRET.name];
const GRANT_MORE: [&str; 3] = [SCOPES.name, AUDIENCE.name, CLIENT_AUTH.name];

/// Headers that the request, a signature or another option owns.
const OWN_HEADERS: &[&str] = &[
    "host",
    "accept",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "accept-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "proxy-authorization",
    "proxy-connection",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-target",
];
/// How the headers begin that hold what CloudEvents says of an event.
const CLOUD_EVENT: &str = "ce-";

/// Largest PEM file in bytes: a bundle of all public authorities is a quarter of it.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// Something was reported; nothing more is to be said.
struct Told;

/// Builds the endpoint of a sink from its options, those of [`TRANSPORT`] among them, and says what is wrong where it stands.
pub fn endpoint(
    options: &Options,
    url_option: &'static str,
    secrets: Vec<Secret>,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Endpoint> {
    let url = SinkUrl::new(options.url(url_option)?.clone());
    endpoint_at(url, options, url_option, secrets, context, diagnostics)
}

/// The same for a URL that was made from an option.
pub fn endpoint_at(
    url: SinkUrl,
    options: &Options,
    url_option: &'static str,
    secrets: Vec<Secret>,
    context: &BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<Endpoint> {
    let policy = Policy { allow_private: options.flag(ALLOW_PRIVATE.name) };
    let vetted = vet(&url, policy, "E0421", url_option, options, diagnostics)
        .and_then(|()| no_login_beside_the_sinks_own(&url, url_option, options, diagnostics));
    let ca_pem = read(options, CA_FILE, "E0422", diagnostics);
    let identity = identity(options, diagnostics);
    let proxy = proxy(options, diagnostics);
    let headers = headers(options, diagnostics);
    let only = one_authorization(&url, options, diagnostics);
    let file = token_file(options, diagnostics);
    let grant = grant(policy, options, diagnostics);
    let mut spec = EndpointSpec::new(url, Arc::clone(&context.clock));
    spec.secrets = secrets;
    spec.secrets.extend(options.map(HEADERS.name).iter().map(|(_, value)| value.clone()));
    spec.secrets.extend(options.secret(CLIENT_SECRET.name).cloned());
    spec.policy = policy;
    spec.limits = context.http_limits;
    spec.lookup = Arc::clone(&context.lookup);
    (spec.ca_pem, spec.identity, spec.proxy) = (ca_pem.ok()?, identity.ok()?, proxy.ok()?);
    let tokens = match grant.ok()? {
        Some(grant) => Some(tokens(grant, &spec, options, diagnostics)?),
        None => None,
    };
    spec.headers = headers.ok()?;
    vetted.and(only).ok()?;
    let mut endpoint = build(spec, url_option, options, diagnostics)?;
    endpoint.authorization = file.ok()?.map(Authorization::of_file).or(tokens.map(Authorization::of_tokens));
    Some(endpoint)
}

/// The guard's word about a URL, told where the URL stands and beside all other mistakes.
fn vet(
    url: &SinkUrl,
    policy: Policy,
    code: &'static str,
    option: &'static str,
    options: &Options,
    diagnostics: &mut Diagnostics,
) -> Result<(), Told> {
    policy.vet_url(url.expose()).map_err(|refused| {
        let message = format!("`{option}`: the host of the URL is refused: {refused}");
        let hint = match option {
            _ if option == PROXY.name => "such as http://proxy.example.org:3128",
            _ if option == TOKEN_URL.name => "use the public name of the token server",
            _ => "use the public name of the service that takes alerts",
        };
        diagnostics.error(code, options.span_of(option), message, Some(hint.into()));
        Told
    })
}

fn build(
    spec: EndpointSpec,
    url_option: &'static str,
    options: &Options,
    diagnostics: &mut Diagnostics,
) -> Option<Endpoint> {
    let built = Endpoint::build(spec).map_err(|error| {
        let (code, option, hint) = match error {
            BuildError::Refused(_) => ("E0421", url_option, "use the public name of the service that takes alerts"),
            BuildError::Authorities => ("E0422", CA_FILE.name, CA_FILE.help),
            BuildError::Client(_) => ("E0423", url_option, "use a plain https:// URL"),
            BuildError::Proxy(_) => ("E0481", PROXY.name, "such as http://proxy.example.org:3128"),
        };
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        diagnostics.error(code, options.span_of(option), format!("`{option}`: {error}{cause}"), Some(hint.into()));
    });
    built.ok()
}

/// What a sink that speaks TLS without HTTP is set up with, by `ca_file`, `certificate_file` and `key_file`.
pub(in crate::sink) fn tls_config(
    options: &Options,
    url_option: &'static str,
    diagnostics: &mut Diagnostics,
) -> Option<rustls::ClientConfig> {
    let (ca_pem, identity) = (read(options, CA_FILE, "E0422", diagnostics), identity(options, diagnostics));
    let config = tls::config(ca_pem.ok()?.as_deref(), identity.ok()?).map_err(|error| {
        let (code, option, hint) = match error {
            BuildError::Authorities => ("E0422", CA_FILE.name, CA_FILE.help),
            _ => ("E0423", url_option, "TLS cannot be set up"),
        };
        diagnostics.error(code, options.span_of(option), format!("`{option}`: {error}"), Some(hint.into()));
    });
    config.ok()
}

/// The content of a file that an option names; `None` when it was reported that it cannot be read.
pub(in crate::sink) fn content(
    options: &Options,
    option: OptionSpec,
    code: &'static str,
    diagnostics: &mut Diagnostics,
) -> Option<Option<Vec<u8>>> {
    read(options, option, code, diagnostics).ok()
}

/// The content of a file that an option names, if it does.
fn read(
    options: &Options,
    option: OptionSpec,
    code: &'static str,
    diagnostics: &mut Diagnostics,
) -> Result<Option<Vec<u8>>, Told> {
    let Some(path) = options.text(option.name) else { return Ok(None) };
    file::read(Path::new(path), MAX_PEM_BYTES).map(Some).map_err(|why| {
        let message = format!("`{}`: `{path}` {why}", option.name);
        diagnostics.error(code, options.span_of(option.name), message, Some(option.help.into()));
        Told
    })
}

fn identity(options: &Options, diagnostics: &mut Diagnostics) -> Result<Option<Identity>, Told> {
    let pair = [CERTIFICATE_FILE.name, KEY_FILE.name];
    for (there, missing) in [(pair[0], pair[1]), (pair[1], pair[0])] {
        if options.is_given(there) && !options.is_given(missing) {
            let message = format!("`{there}` without `{missing}`");
            let hint = format!("a client certificate is both: add `{missing}: PATH`");
            diagnostics.error("E0480", options.span_of(there), message, Some(hint));
            return Err(Told);
        }
    }
    let certificate = read(options, CERTIFICATE_FILE, "E0480", diagnostics);
    let key = read(options, KEY_FILE, "E0480", diagnostics);
    let (Some(certificate), Some(key)) = (certificate?, key?) else { return Ok(None) };
    tls::identity(&certificate, &key).map(Some).map_err(|why| {
        let (option, why, hint) = match why {
            NoIdentity::Certificate(why) => (CERTIFICATE_FILE.name, why, CERTIFICATE_FILE.help),
            NoIdentity::Key(why) => (KEY_FILE.name, why, "make one without a password: openssl pkey -in KEY -out NEW"),
        };
        let message = format!("`{option}`: `{}` {why}", options.text(option).unwrap_or_default());
        diagnostics.error("E0480", options.span_of(option), message, Some(hint.into()));
        Told
    })
}

/// A proxy is named by the operator and seldom public, so it may be on a private address whatever the destination may.
fn proxy(options: &Options, diagnostics: &mut Diagnostics) -> Result<Option<SinkUrl>, Told> {
    let Some(url) = options.url(PROXY.name) else { return Ok(None) };
    let proxy = SinkUrl::new(url.clone());
    vet(&proxy, Policy { allow_private: true }, "E0481", PROXY.name, options, diagnostics)?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        let hint = "such as http://proxy.example.org:3128";
        let message = format!("`{}`: nothing may follow host and port", PROXY.name);
        diagnostics.error("E0481", options.span_of(PROXY.name), message, Some(hint.into()));
        return Err(Told);
    }
    Ok(Some(proxy))
}

fn headers(options: &Options, diagnostics: &mut Diagnostics) -> Result<HeaderMap, Told> {
    let mut headers = HeaderMap::new();
    let mut complete = true;
    for (header, value) in options.map(HEADERS.name) {
        let mut refuse = |why: &str, hint: &str| {
            let message = format!("header `{header}` {why}");
            diagnostics.error("E0426", options.span_of(HEADERS.name), message, Some(hint.into()));
            complete = false;
        };
        let Ok(parsed) = HeaderName::from_bytes(header.as_bytes()) else {
            refuse("is no header name", "letters, digits and `-`, such as X-Team");
            continue;
        };
        let is_key = parsed == AUTHORIZATION && !options.is_known(BEARER_TOKEN_FILE.name);
        if OWN_HEADERS.contains(&parsed.as_str()) || parsed.as_str().starts_with(CLOUD_EVENT) || is_key {
            refuse("is set by the sink itself", "remove it, or give it another name");
            continue;
        }
        match HeaderValue::from_str(value.expose()) {
            Ok(_) if headers.contains_key(&parsed) => {
                refuse("is there twice", "keep one; upper and lower case are one")
            }
            Ok(mut value) => {
                value.set_sensitive(true);
                headers.insert(parsed, value);
            }
            Err(_) => refuse("has a value that no header can carry", "visible ASCII on one line"),
        }
    }
    if complete { Ok(headers) } else { Err(Told) }
}

/// A request has one `Authorization`: whoever gives two would never see which one went out.
fn one_authorization(url: &SinkUrl, options: &Options, diagnostics: &mut Diagnostics) -> Result<(), Told> {
    let in_url = has_login(url);
    let is_header = |name: &str| name.eq_ignore_ascii_case(AUTHORIZATION.as_str());
    let in_headers = options.map(HEADERS.name).iter().any(|(name, _)| is_header(name));
    let ways = [
        (in_url, "the URL", None),
        (in_headers, "`headers`", Some(HEADERS.name)),
        (options.is_given(BEARER_TOKEN_FILE.name), "`bearer_token_file`", Some(BEARER_TOKEN_FILE.name)),
        (options.is_given(TOKEN_URL.name), "`oauth2_token_url`", Some(TOKEN_URL.name)),
    ];
    let mut given = ways.into_iter().filter(|(given, ..)| *given);
    let Some((_, first, _)) = given.next() else { return Ok(()) };
    let Some((_, second, Some(option))) = given.next() else { return Ok(()) };
    let message = format!("{first} and {second} both say what `Authorization` is");
    diagnostics.error("E0483", options.span_of(option), message, Some("keep one of them".into()));
    Err(Told)
}

/// A sink with a key of its own would drop what its URL says without a word.
fn no_login_beside_the_sinks_own(
    url: &SinkUrl,
    url_option: &'static str,
    options: &Options,
    diagnostics: &mut Diagnostics,
) -> Result<(), Told> {
    if options.is_known(BEARER_TOKEN_FILE.name) || !has_login(url) {
        return Ok(());
    }
    let message =
        format!("`{url_option}` holds a user or a password, and the sink itself says what `Authorization` is");
    let hint = "remove them from the URL; what it logs in with are options of their own";
    diagnostics.error("E0483", options.span_of(url_option), message, Some(hint.into()));
    Err(Told)
}

/// Whether the URL says who asks.
pub(super) fn has_login(url: &SinkUrl) -> bool {
    !url.expose().username().is_empty() || url.expose().password().is_some()
}

/// Whether the options say what `Authorization` is.
pub(super) fn authorizes(options: &Options) -> bool {
    let is_header = |name: &str| name.eq_ignore_ascii_case(AUTHORIZATION.as_str());
    options.is_given(BEARER_TOKEN_FILE.name)
        || options.is_given(TOKEN_URL.name)
        || options.map(HEADERS.name).iter().any(|(name, _)| is_header(name))
}

/// Read once for the check; what it holds now is not kept.
fn token_file(options: &Options, diagnostics: &mut Diagnostics) -> Result<Option<TokenFile>, Told> {
    let Some(path) = options.text(BEARER_TOKEN_FILE.name) else { return Ok(None) };
    let file = TokenFile::new(path);
    match file.read() {
        Ok(_) => Ok(Some(file)),
        Err(why) => {
            let message = format!("`{}`: `{path}` {why}", BEARER_TOKEN_FILE.name);
            let hint = "a file that this user can read, with the token on one line; the path counts from the working directory";
            diagnostics.error("E0484", options.span_of(BEARER_TOKEN_FILE.name), message, Some(hint.into()));
            Err(Told)
        }
    }
}

/// What a token is asked for with; an error when a part of it is missing.
fn grant(policy: Policy, options: &Options, diagnostics: &mut Diagnostics) -> Result<Option<Grant>, Told> {
    let Some(first) = GRANT.into_iter().chain(GRANT_MORE).find(|name| options.is_given(name)) else { return Ok(None) };
    if let Some(missing) = GRANT.into_iter().find(|name| !options.is_given(name)) {
        let message = format!("`{first}` without `{missing}`");
        let hint = format!("a token is fetched with all of {}", GRANT.join(", "));
        diagnostics.error("E0482", options.span_of(first), message, Some(hint));
        return Err(Told);
    }
    let (url, id, secret) = (options.url(GRANT[0]), options.text(GRANT[1]), options.secret(GRANT[2]));
    // What is given and cannot be used was reported where it was read.
    let (Some(url), Some(id), Some(secret)) = (url, id, secret) else { return Err(Told) };
    let url = SinkUrl::new(url.clone());
    vet(&url, policy, "E0421", TOKEN_URL.name, options, diagnostics)?;
    if has_login(&url) {
        let message = format!("`{}` holds a user or a password", TOKEN_URL.name);
        let hint = "id and secret of the client are options of their own";
        diagnostics.error("E0482", options.span_of(TOKEN_URL.name), message, Some(hint.into()));
        return Err(Told);
    }
    let client_auth = if options.text(CLIENT_AUTH.name) == Some("post") { ClientAuth::Post } else { ClientAuth::Basic };
    Ok(Some(Grant {
        url,
        client_id: id.to_owned(),
        client_secret: secret.clone(),
        scopes: options.texts(SCOPES.name).to_vec(),
        audience: options.text(AUDIENCE.name).map(str::to_owned),
        client_auth,
    }))
}

/// The token server is reached as the destination is: the same authorities, certificate, proxy, guard and limits.
fn tokens(grant: Grant, spec: &EndpointSpec, options: &Options, diagnostics: &mut Diagnostics) -> Option<Tokens> {
    let spec = EndpointSpec { url: grant.url.clone(), secrets: grant.secrets(), ..spec.clone() };
    build(spec, TOKEN_URL.name, options, diagnostics).map(|endpoint| Tokens::new(endpoint, &grant))
}

#[cfg(test)]
mod tests;
