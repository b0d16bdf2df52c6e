//! How a sink logs in where its options say so: by name and password, by a token, by a key of Elasticsearch.
//!
//! It is put in when sending and never stored. Every value is sensitive to the HTTP library and a secret to the excerpt, in
//! the form that is sent as well: a destination that repeats a request must not tell the key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use vigie_engine::diagnostic::Diagnostics;

use super::Endpoint;
use super::transport;
use crate::options::{OptionKind, OptionSpec, Options, Presence};
use crate::secret::{Secret, SinkUrl};
use crate::sink::BuildContext;

/// Option of a sink that logs in by name.
pub const USER: OptionSpec = OptionSpec {
    name: "user",
    kind: OptionKind::Text,
    presence: Presence::Optional,
    help: "name to log in with (basic authentication), together with `password`",
};
/// Option beside [`USER`].
pub const PASSWORD: OptionSpec =
    OptionSpec { name: "password", kind: OptionKind::Secret, presence: Presence::Optional, help: "password of `user`" };
/// Option of a sink that logs in by token.
pub const TOKEN: OptionSpec = OptionSpec {
    name: "token",
    kind: OptionKind::Secret,
    presence: Presence::Optional,
    help: "token to log in with, in place of `user` and `password` (Authorization: Bearer)",
};
/// Option of a sink that logs in by a key of Elasticsearch.
pub const API_KEY: OptionSpec = OptionSpec {
    name: "api_key",
    kind: OptionKind::Secret,
    presence: Presence::Optional,
    help: "key to log in with, encoded as Kibana shows it (Authorization: ApiKey)",
};

/// Options with one secret that is sent as it is, and the scheme before it.
const SCHEMES: [(OptionSpec, &str); 2] = [(TOKEN, "Bearer"), (API_KEY, "ApiKey")];

/// The endpoint of a sink that logs in by whichever of these options it has.
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
    let (asking, complete) = authorization(options, diagnostics);
    let secrets = secrets.into_iter().chain(own_secrets(options)).collect();
    let in_url = transport::has_login(&url);
    let endpoint = transport::endpoint_at(url, options, url_option, secrets, context, diagnostics);
    let mut endpoint = endpoint.filter(|_| complete)?;
    let Some(asking) = asking else { return Some(endpoint) };
    if in_url || endpoint.headers.contains_key(AUTHORIZATION) || endpoint.authorization.is_some() {
        let message = match in_url {
            true => "there are two ways to log in, one of them in the URL",
            false => "there are two ways to log in, one of them among `headers` and tokens",
        };
        diagnostics.error("E0461", options.span(), message, Some("keep one of them".into()));
        return None;
    }
    match HeaderValue::from_str(asking.expose()) {
        Ok(mut value) => {
            value.set_sensitive(true);
            endpoint.headers.insert(AUTHORIZATION, value);
            Some(endpoint)
        }
        Err(_) => {
            let message = "what it is to log in with is nothing that a header can carry";
            let hint = "a token is visible ASCII on one line; look at the variable or file that it comes from";
            diagnostics.error("E0461", options.span(), message, Some(hint.into()));
            None
        }
    }
}

/// All that must not show of it.
fn own_secrets(options: &Options) -> Vec<Secret> {
    let single = SCHEMES.iter().filter_map(|(option, _)| options.secret(option.name).cloned());
    let password = options.secret(PASSWORD.name).cloned();
    // With its scheme: an excerpt leaves out what stands behind it alone, too.
    single.chain(password).chain(basic(options)).collect()
}

/// Whether the options say how to log in.
#[must_use]
pub fn logs_in(options: &Options) -> bool {
    [PASSWORD.name, TOKEN.name, API_KEY.name].into_iter().any(|name| options.is_given(name))
        || transport::authorizes(options)
}

fn basic(options: &Options) -> Option<Secret> {
    let (user, password) = (options.text(USER.name)?, options.secret(PASSWORD.name)?);
    Some(Secret::new(format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.expose())))))
}

/// The value of `Authorization`, and whether nothing was wrong with it.
fn authorization(options: &Options, diagnostics: &mut Diagnostics) -> (Option<Secret>, bool) {
    let mut refuse = |option: &str, message: &str, code, hint: &str| {
        diagnostics.error(code, options.span_of(option), message, Some(hint.into()));
        (None, false)
    };
    let (user, has_password) = (options.text(USER.name), options.secret(PASSWORD.name).is_some());
    let is_refused = |option: OptionSpec| options.is_refused(option.name);
    match (user, has_password) {
        (Some(_), false) if !is_refused(PASSWORD) => {
            return refuse("user", "`user` has no password", "E0460", PASSWORD.help);
        }
        (None, true) if !is_refused(USER) => return refuse("password", "`password` has no user", "E0460", USER.help),
        (Some(user), _) if user.contains(':') => {
            let hint = "basic authentication ends the name at the first colon";
            return refuse("user", "`user` holds a colon", "E0460", hint);
        }
        _ => {}
    }
    let single = SCHEMES.iter().filter_map(|(option, scheme)| {
        let secret = options.secret(option.name)?;
        Some(Secret::new(format!("{scheme} {}", secret.expose().trim())))
    });
    let mut ways = single.chain(basic(options));
    let (first, second) = (ways.next(), ways.next());
    if second.is_some() {
        return refuse("password", "there are two ways to log in", "E0461", "keep one of them");
    }
    (first, true)
}

#[cfg(test)]
mod tests {
    use vigie_engine::yaml::Node;

    use crate::sink::contract::{self, CANARY, Loopback, Reply, map_node, text_node};

    fn built(more: Vec<(&'static str, Node)>) -> Result<Box<dyn crate::sink::Sink>, String> {
        let url = ("url", text_node("https://hooks.example.org/x"));
        contract::build("webhook", std::iter::once(url).chain(more).collect(), &contract::context().0)
    }

    #[tokio::test]
    async fn a_password_is_sent_and_shows_nowhere_in_no_form() {
        let server = Loopback::start(Reply::Echo("401 Unauthorized")).await;
        let url = server.url("/");
        let options =
            vec![("url", text_node(url.as_str())), ("user", text_node("vigie")), ("password", text_node("hunter2"))];
        let sink = contract::build("webhook", options, &contract::context().0).expect("builds");
        let report = contract::attempt(&*sink).await;
        assert_eq!(server.received()[0].header("authorization"), Some("Basic dmlnaWU6aHVudGVyMg=="));
        assert!(report.excerpt.contains("authorization: [redacted]"), "{report:?}");
        assert!(!report.excerpt.contains("hunter2") && !report.excerpt.contains("dmlnaWU6"), "{report:?}");

        let mut url = url;
        url.set_username("vigie").and_then(|()| url.set_password(Some("hunt@r2"))).expect("a URL with a host");
        let sink = contract::build("webhook", vec![("url", text_node(url.as_str()))], &contract::context().0);
        let report = contract::attempt(&*sink.expect("builds")).await;
        assert_eq!(server.received()[1].header("authorization"), Some("Basic dmlnaWU6aHVudEByMg=="));
        assert!(report.excerpt.contains("authorization: Basic [redacted]"), "{report:?}");
    }

    #[test]
    fn one_way_to_log_in_and_a_whole_one() {
        let text = |name, value: &str| (name, text_node(value));
        let header = ("headers", map_node(vec![("Authorization", text_node(CANARY))]));
        for (options, code) in [
            (vec![text("user", "a")], "E0460"),
            (vec![text("password", CANARY)], "E0460"),
            (vec![text("user", "a:b"), text("password", CANARY)], "E0460"),
            (vec![text("user", "a"), text("password", CANARY), header], "E0461"),
        ] {
            let told = built(options).err().expect("refused");
            assert!(told.contains(code), "{code}: {told}");
        }
        let in_url = |part: &str| {
            let url = text("url", &format!("https://{part}@hooks.example.org/x"));
            contract::build("webhook", vec![url, text("user", "a"), text("password", "p")], &contract::context().0)
        };
        for part in ["u", &format!("u:{CANARY}")] {
            let told = in_url(part).err().expect("refused");
            assert!(told.contains("E0461") && told.contains("in the URL"), "{told}");
        }
        assert!(built(vec![text("user", "a"), text("password", "p: q é")]).is_ok(), "in base64 anything goes");
        let jira = |token: &str| {
            let options = vec![
                text("url", "https://jira.example.org"),
                text("project", "SEC"),
                text("token", token),
                text("user", "a"),
                text("password", CANARY),
            ];
            contract::build("jira", options, &contract::context().0)
        };
        let told = jira("x").err().expect("refused");
        assert!(told.contains("E0461") && told.contains("two ways"), "{told}");
        let options = vec![text("url", "https://a.example.org"), text("api_key", &format!("{CANARY}\nX-Y: z"))];
        let told = contract::build("elasticsearch", options, &contract::context().0).err().expect("refused");
        assert!(told.contains("E0461"), "{told}");
    }
}
