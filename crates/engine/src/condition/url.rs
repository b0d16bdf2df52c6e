//! Hosts of URLs, for `urlhost` and `url_outside`.
//!
//! `url_outside` guards a list of trusted domains, so whatever cannot be shown to lie inside counts as outside: a text with
//! `://` that does not parse, a backslash or a space in it, a user name before the host.

use url::{Host, Url};

use crate::text::is_unsafe;

/// What stands between the URLs of a list in one text.
const BETWEEN_URLS: [char; 3] = [',', ';', '|'];
/// Schemes whose host some clients read without `//` before it.
const SCHEMES_WITH_A_HOST: [&str; 5] = ["https:", "http:", "wss:", "ws:", "ftp:"];

/// A domain or address that hosts are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostRule(Host<String>);

impl HostRule {
    /// Reads `example.org`, or an address where `addresses` are allowed.
    ///
    /// # Errors
    /// What is wrong and how to mend it.
    pub(crate) fn parse(text: &str, addresses: bool) -> Result<Self, (String, Option<String>)> {
        let text = text.trim().trim_end_matches('.');
        let wrong = |hint: String| Err((format!("`{text}` is not a domain"), Some(hint)));
        if let Some(below) = text.strip_prefix("*.").or_else(|| text.strip_prefix('.')) {
            return wrong(format!("write `{below}`: it covers the hosts below it too"));
        }
        if let Ok(url) = Url::parse(text)
            && let Some(host) = url.host_str().filter(|host| !host.is_empty())
        {
            return wrong(format!("write only the host: `{host}`"));
        }
        let plain = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "/@:*?%".contains(c));
        let bracketed = text.trim_start_matches('[').trim_end_matches(']');
        match Host::parse(text) {
            Ok(Host::Domain(domain)) if plain => Ok(Self(Host::Domain(domain))),
            Ok(Host::Ipv4(_) | Host::Ipv6(_)) if !addresses => {
                wrong("an address always counts as outside; leave it out".into())
            }
            Ok(host @ (Host::Ipv4(_) | Host::Ipv6(_))) => Ok(Self(host)),
            _ => match bracketed.parse() {
                Ok(address) if addresses => Ok(Self(Host::Ipv6(address))),
                _ => wrong("write a host name such as `example.org`, without scheme, port or path".into()),
            },
        }
    }

    fn covers(&self, host: &Host<&str>) -> bool {
        match (&self.0, host) {
            (Host::Domain(domain), Host::Domain(host)) => {
                let host = host.trim_end_matches('.');
                host.strip_suffix(domain.as_str()).is_some_and(|below| below.is_empty() || below.ends_with('.'))
            }
            (Host::Ipv4(address), Host::Ipv4(host)) => address == host,
            (Host::Ipv4(address), Host::Ipv6(host)) => host.to_ipv4_mapped() == Some(*address),
            (Host::Ipv6(address), Host::Ipv6(host)) => address == host,
            _ => false,
        }
    }
}

/// Whether a text is a URL whose host is one of these or below one.
pub(crate) fn has_host(text: &str, rules: &[HostRule]) -> bool {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || is_unsafe(c));
    // Without a scheme the page that shows it lends its own.
    let absolute = text.starts_with("//").then(|| format!("https:{text}"));
    let Ok(url) = Url::parse(absolute.as_deref().unwrap_or(text)) else { return false };
    // A scheme of its own keeps its host as written: read it as https to compare hosts alike.
    let read = match url.host() {
        Some(Host::Domain(_)) if !url.is_special() => {
            text.split_once("://").and_then(|(_, rest)| Url::parse(&format!("https://{rest}")).ok()).unwrap_or(url)
        }
        _ => url,
    };
    read.host().is_some_and(|host| rules.iter().any(|rule| rule.covers(&host)))
}

/// Whether a text holds a URL that cannot be shown to be https on a host inside the domains.
pub(crate) fn is_outside(text: &str, rules: &[HostRule]) -> bool {
    // A list of URLs reads as one URL whose path holds the rest, so every piece is judged as well.
    let is_foreign = |piece: &str| begins_as_url(piece) && text_is_outside(piece, rules);
    text_is_outside(text, rules) || text.split(BETWEEN_URLS).skip(1).any(is_foreign)
}

fn text_is_outside(text: &str, rules: &[HostRule]) -> bool {
    let Some(start) = looks_like_url(text) else { return false };
    let strange = |c: char| c == '\\' || c.is_whitespace() || c.is_control();
    let authority = start.split(['/', '?', '#']).next().unwrap_or_default();
    if text.contains(strange) || authority.contains('@') {
        return true;
    }
    let inside = |url: Url| {
        url.scheme() == "https"
            && url
                .host()
                .is_some_and(|host| matches!(host, Host::Domain(_)) && rules.iter().any(|rule| rule.covers(&host)))
    };
    !Url::parse(text).is_ok_and(inside)
}

/// Not the tail of another URL, such as `d?to=https://evil.com`.
fn begins_as_url(piece: &str) -> bool {
    let is_scheme = |text: &str| text.chars().all(|c| c.is_alphanumeric() || "+-.".contains(c));
    piece.split_once("://").is_none_or(|(scheme, _)| is_scheme(scheme.trim()))
}

/// What follows the scheme, if the text holds a URL in any spelling that some client would follow.
fn looks_like_url(text: &str) -> Option<&str> {
    if let Some((_, rest)) = text.split_once("://") {
        return Some(rest);
    }
    let trimmed = text.trim_start_matches(|c: char| c.is_whitespace() || is_unsafe(c));
    let slashes = |c: char| c == '/' || c == '\\';
    let scheme_end = SCHEMES_WITH_A_HOST.into_iter().find_map(|scheme| {
        let head: String = trimmed.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).take(scheme.len()).collect();
        head.eq_ignore_ascii_case(scheme).then_some(())
    });
    let relative = trimmed.starts_with("//") || trimmed.starts_with("\\\\");
    match (scheme_end, relative) {
        (Some(()), _) => trimmed.split_once(':').map(|(_, rest)| rest.trim_start_matches(slashes)),
        (None, true) => Some(trimmed.trim_start_matches(slashes)),
        (None, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(domains: &[&str]) -> Vec<HostRule> {
        domains.iter().map(|domain| HostRule::parse(domain, true).expect("a host")).collect()
    }

    #[test]
    fn a_host_is_the_domain_or_below_it() {
        let rules = rules(&["example.org", "bücher.example", "192.0.2.7", "2001:db8::1"]);
        for inside in [
            "https://example.org/a",
            "http://a.b.EXAMPLE.org.:8080/?q#f",
            "https://user:pw@example.org/",
            "wss://api.example.org",
            "custom://api.EXAMPLE.org/x",
            "https://xn--bcher-kva.example/",
            "https://192.0.2.7/",
            "https://0xc0000207/",
            "https://[2001:db8::1]:9/",
            "https://[::ffff:192.0.2.7]/",
            "//example.org/x",
            "\u{200b} https://example.org",
        ] {
            assert!(has_host(inside, &rules), "{inside}");
        }
        for outside in
            ["https://notexample.org", "https://example.org.evil.com", "example.org", "", "sip:a@example.org"]
        {
            assert!(!has_host(outside, &rules), "{outside}");
        }
    }

    #[test]
    fn whatever_is_not_surely_inside_is_outside() {
        let rules = rules(&["example.org"]);
        for inside in [
            "https://example.org",
            "https://a.example.org:8443/x?y=z",
            "HTTPS://EXAMPLE.ORG./",
            "https:example.org",
            "https://example.org/a,b;c|d?to=https://evil.com",
            "https://example.org/,https://a.example.org/",
        ] {
            assert!(!is_outside(inside, &rules), "{inside}");
        }
        for outside in [
            "http://example.org/",
            "https://evil.com/example.org",
            "https://192.0.2.7/",
            "https://2130706433/",
            "https://example.org@evil.com/",
            "https://evil.com@example.org/",
            "https://evil.com\\@example.org/",
            "https:\\\\evil.com",
            "//evil.com/x",
            "ht\ttp://evil.com",
            "see https://example.org",
            "https://",
            "wss://example.org/",
            " https://example.org.evil.com ",
            "https:evil.com",
            "wss:evil.com",
            "\u{200b}https:evil.com",
            "\u{feff}//evil.com",
            "https://example.org/,https://evil.com/",
            "https://example.org/a;//evil.com",
            "https://example.org|http://example.org",
            "https://example.org,evil.com/",
        ] {
            assert!(is_outside(outside, &rules), "{outside}");
        }
        for no_url in ["POST", "", "example.org", "sip:a@b.c", "12:30", "a/b"] {
            assert!(!is_outside(no_url, &rules), "{no_url}");
        }
    }

    #[test]
    fn domains_are_checked() {
        for (bad, hint) in [
            ("*.example.org", "write `example.org`"),
            (".example.org", "write `example.org`"),
            ("https://example.org/x", "write only the host: `example.org`"),
            ("example.org:443", "without scheme"),
            ("a b", "host name"),
            ("", "host name"),
            ("192.0.2.7", "leave it out"),
        ] {
            let (_, given) = HostRule::parse(bad, false).expect_err(bad);
            assert!(given.as_deref().is_some_and(|given| given.contains(hint)), "{bad}: {given:?}");
        }
    }
}
