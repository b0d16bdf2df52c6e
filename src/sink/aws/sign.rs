//! AWS Signature Version 4, in headers: what AWS's "Signing AWS API requests" page describes, for requests without a query.
//!
//! It is pure: the time is an argument, and what is signed is exactly the headers that it is given, with the host and its
//! own. It never signs a header that a proxy may change, because none is handed to it.

use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac as _};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, InvalidHeaderValue};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::secret::Secret;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";

/// Who asks.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Names the key.
    pub access_key_id: Secret,
    /// The key.
    pub secret_access_key: Secret,
    /// Part of keys that end.
    pub session_token: Option<Secret>,
}

/// Who is asked.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Such as `eu-west-1`.
    pub region: String,
    /// Such as `sqs`.
    pub service: &'static str,
}

/// Adds date, token and signature to the headers of a request.
///
/// # Errors
/// When a key or token is no header value; never says which text it was.
pub fn sign(
    method: &Method,
    url: &Url,
    headers: &mut HeaderMap,
    body: &[u8],
    scope: &Scope,
    credentials: &Credentials,
    now: DateTime<Utc>,
) -> Result<(), InvalidHeaderValue> {
    let (stamp, day) = (now.format("%Y%m%dT%H%M%SZ").to_string(), now.format("%Y%m%d").to_string());
    headers.insert("x-amz-date", HeaderValue::from_str(&stamp)?);
    if let Some(token) = &credentials.session_token {
        headers.insert("x-amz-security-token", secret_value(token.expose())?);
    }
    let (names, lines) = canonical_headers(url, headers);
    let path = encoded_path(url.path());
    let request = format!("{method}\n{path}\n\n{lines}\n{names}\n{}", hex(&Sha256::digest(body)));
    let place = format!("{day}/{}/{}/{TERMINATOR}", scope.region, scope.service);
    let to_sign = format!("{ALGORITHM}\n{stamp}\n{place}\n{}", hex(&Sha256::digest(request.as_bytes())));
    let parts = [day.as_str(), &scope.region, scope.service, TERMINATOR, &to_sign];
    let first = format!("AWS4{}", credentials.secret_access_key.expose()).into_bytes();
    let signature = hex(&parts.iter().fold(first, |key, part| hmac(&key, part.as_bytes())));
    let credential = format!("{}/{place}", credentials.access_key_id.expose());
    let authorization = format!("{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}");
    headers.insert(AUTHORIZATION, secret_value(&authorization)?);
    Ok(())
}

fn secret_value(text: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The names joined, and a line for each header, by name.
fn canonical_headers(url: &Url, headers: &HeaderMap) -> (String, String) {
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut named = vec![("host", host)];
    named.extend(headers.iter().map(|(name, value)| {
        let text = String::from_utf8_lossy(value.as_bytes());
        (name.as_str(), text.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
    }));
    named.sort();
    let names = named.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    (names, named.iter().map(|(name, value)| format!("{name}:{value}\n")).collect())
}

/// The path as it goes over the wire, encoded once more: every service but S3 reads it so.
fn encoded_path(path: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    path.bytes().map(encode).collect()
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    // HMAC takes a key of any length, so this cannot fail.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;
    use reqwest::header::HeaderName;

    use super::*;

    /// Of the published test suite (aws-sig-v4-test-suite).
    const SESSION_TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfI\
                                 eoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0w\
                                 q5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypN\
                                 C9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

    fn authorization(method: &Method, url: &str, given: &[(&str, &str)], body: &[u8], token: Option<&str>) -> String {
        let credentials = Credentials {
            access_key_id: Secret::new("AKIDEXAMPLE"),
            secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token: token.map(Secret::new),
        };
        let scope = Scope { region: "us-east-1".into(), service: "service" };
        let now = Utc.with_ymd_and_hms(2015, 8, 30, 12, 36, 0).single().expect("a valid time");
        let mut headers: HeaderMap = given
            .iter()
            .map(|(name, value)| {
                (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value).expect("a value"))
            })
            .collect();
        let url = Url::parse(url).expect("valid");
        sign(method, &url, &mut headers, body, &scope, &credentials, now).expect("signs");
        assert_eq!(headers["x-amz-date"], "20150830T123600Z");
        assert!(headers[AUTHORIZATION].is_sensitive());
        headers[AUTHORIZATION].to_str().expect("ASCII").to_owned()
    }

    #[test]
    fn the_published_vectors_are_signed_as_published() {
        let (get, post) = (Method::GET, Method::POST);
        let form: &[(&str, &str)] = &[("Content-Type", "application/x-www-form-urlencoded")];
        for (name, method, headers, body, token, signed, signature) in [
            (
                "get-vanilla",
                &get,
                &[][..],
                "",
                None,
                "host;x-amz-date",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "post-vanilla",
                &post,
                &[],
                "",
                None,
                "host;x-amz-date",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-header-key-sort",
                &post,
                &[("My-Header1", "value1")],
                "",
                None,
                "host;my-header1;x-amz-date",
                "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
            ),
            (
                "get-header-value-trim",
                &get,
                &[("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")],
                "",
                None,
                "host;my-header1;my-header2;x-amz-date",
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            ),
            (
                "post-x-www-form-urlencoded",
                &post,
                form,
                "Param1=value1",
                None,
                "content-type;host;x-amz-date",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
            (
                "post-sts-header-before",
                &post,
                &[],
                "",
                Some(SESSION_TOKEN),
                "host;x-amz-date;x-amz-security-token",
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
        ] {
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                 SignedHeaders={signed}, Signature={signature}"
            );
            let url = "https://example.amazonaws.com/";
            assert_eq!(authorization(method, url, headers, body.as_bytes(), token), expected, "{name}");
        }
    }

    #[test]
    fn port_path_and_body_are_part_of_it() {
        let of = |url: &str, body: &str| authorization(&Method::POST, url, &[], body.as_bytes(), None);
        let plain = of("https://example.amazonaws.com/", "");
        assert_eq!(of("https://example.amazonaws.com:443/", ""), plain);
        for (url, body) in [("https://example.amazonaws.com:8443/", ""), ("https://example.amazonaws.com/a", "")] {
            assert_ne!(of(url, body), plain, "{url}");
        }
        assert_ne!(of("https://example.amazonaws.com/", "x"), plain);
        assert_eq!(encoded_path("/a%20b/~c"), "/a%2520b/~c");
    }
}
