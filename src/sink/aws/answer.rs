//! What an AWS service means by its answer: the error's code decides, then the status.
//!
//! JSON services give the code as `__type` and query services as an element of XML. It reads no more of XML than the text
//! of a named element, and never shows more of a code than its letters.

use serde_json::Value;

use crate::sink::Outcome;
use crate::sink::http::answer::Answer;

/// Longest code that is shown; the longest known has some forty characters.
const MAX_CODE_CHARS: usize = 60;
/// The operator's: keys, rights, names, and the machine's clock.
const CODES_MISCONFIGURED: &[&str] = &[
    "AccessDenied",
    "AuthorizationError",
    "EndpointDisabled",
    "ExpiredToken",
    "IDPRejectedClaim",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidAddress",
    "InvalidClientTokenId",
    "InvalidIdentityToken",
    "InvalidSecurity",
    "InvalidSignature",
    "MissingAuthenticationToken",
    "NonExistentQueue",
    "NotAuthorized",
    "NotFound",
    "OptInRequired",
    "PlatformApplicationDisabled",
    "QueueDeletedRecently",
    "QueueDoesNotExist",
    "RegionDisabled",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
    "UnsupportedOperation",
];
/// The machine's clock, and so the operator's too.
const CODES_CLOCK: &[&str] = &["RequestExpired", "RequestTimeTooSkewed", "RequestInTheFuture"];
/// Parts of a refused signature's message that say the same.
const WORDS_CLOCK: &[&str] = &["signature expired", "signature not yet current"];
/// Part of a refusal of SNS which says that the topic's name is none, and not that the message is wrong.
const WORDS_TOPIC: &[&str] = &["topicarn", "topic name"];
/// Slower, and the same again.
const CODES_THROTTLED: &[&str] = &["RequestThrottled", "RequestLimitExceeded", "TooManyRequests", "SlowDown"];
/// The same again.
const CODES_RETRY: &[&str] =
    &["ServiceUnavailable", "InternalFailure", "InternalError", "InternalServerError", "IDPCommunicationError"];

/// The outcome of an answer. Whether a success holds what it must is for the caller.
pub fn outcome(answer: &Answer) -> Outcome {
    if answer.status.is_success() {
        return answer.outcome();
    }
    let code = code(answer).unwrap_or_default();
    let is = |codes: &[&str]| codes.contains(&code.as_str());
    let lower = code.to_ascii_lowercase();
    if is(CODES_THROTTLED) || lower.contains("throttl") {
        return Outcome::Wait(answer.pause());
    }
    if is(CODES_RETRY) {
        return Outcome::Retry;
    }
    // Of an encryption key: that it is gone, switched off, or not for us.
    if is(CODES_MISCONFIGURED) || lower.starts_with("kms") || is_clock(answer) {
        return Outcome::Misconfigured;
    }
    match code.as_str() {
        "InvalidParameter" if says(answer, WORDS_TOPIC) => Outcome::Misconfigured,
        _ => answer.outcome_unless(&[]),
    }
}

/// `HTTP 400 QueueDoesNotExist`, and what a code does not say by itself.
pub fn status(answer: &Answer) -> String {
    let status = answer.status.as_u16();
    let code = code(answer).filter(|_| !answer.status.is_success()).map(|code| format!(" {code}"));
    let hint = if is_clock(answer) { ": the clock of this machine is wrong" } else { "" };
    format!("HTTP {status}{}{hint}", code.unwrap_or_default())
}

/// Keys that were good have ended.
pub fn is_expired(answer: &Answer) -> bool {
    code(answer).is_some_and(|code| code == "ExpiredToken")
}

/// The keys are known, and what was asked for is not for them.
pub fn is_denied(answer: &Answer) -> bool {
    code(answer).is_some_and(|code| matches!(code.as_str(), "AccessDenied" | "AuthorizationError"))
}

/// The text of the first element of that name.
pub fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Some(entities.iter().fold(text.trim().to_owned(), |text, (entity, character)| text.replace(entity, character)))
}

fn is_clock(answer: &Answer) -> bool {
    let code = code(answer).unwrap_or_default();
    let is_signature = matches!(code.as_str(), "SignatureDoesNotMatch" | "InvalidSignature");
    CODES_CLOCK.contains(&code.as_str()) || (is_signature && says(answer, WORDS_CLOCK))
}

fn says(answer: &Answer, words: &[&str]) -> bool {
    let said = String::from_utf8_lossy(&answer.body).to_lowercase();
    words.iter().any(|word| said.contains(word))
}

/// The code without what stands around it: `com.amazonaws.sqs#QueueDoesNotExist`, `AWS.SimpleQueueService.NonExistentQueue`,
/// `ExpiredTokenException`.
fn code(answer: &Answer) -> Option<String> {
    if answer.status.is_success() {
        return None;
    }
    let json = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    let in_json = ["__type", "code", "Code"].iter().find_map(|name| json[name].as_str()).map(str::to_owned);
    let given = in_json.or_else(|| element(&String::from_utf8_lossy(&answer.body), "Code"))?;
    let bare = given.rsplit(['#', '.']).next().unwrap_or_default().split(':').next().unwrap_or_default().trim();
    let bare = bare.strip_suffix("Exception").unwrap_or(bare);
    let is_code =
        !bare.is_empty() && bare.len() <= MAX_CODE_CHARS && bare.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_code.then(|| bare.to_owned())
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;
    use crate::clock::Clock as _;
    use crate::sink::contract::StoppedClock;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: reqwest::header::HeaderMap::new(),
            body: body.into(),
            complete: true,
            received_at: StoppedClock.now(),
        }
    }

    #[test]
    fn the_code_decides_in_either_form() {
        use Outcome::{Degrade, Misconfigured, Retry, Wait};
        for (status, code, expected) in [
            (400, "com.amazonaws.sqs#QueueDoesNotExist", Misconfigured),
            (400, "AWS.SimpleQueueService.NonExistentQueue", Misconfigured),
            (400, "com.amazonaws.sqs#RequestThrottled", Wait(None)),
            (400, "ThrottlingException", Wait(None)),
            (403, "Throttling", Wait(None)),
            (400, "KmsThrottled", Wait(None)),
            (400, "KMSThrottlingException", Wait(None)),
            (400, "KmsAccessDenied", Misconfigured),
            (400, "KMSDisabled", Misconfigured),
            (400, "InternalFailure", Retry),
            (503, "ServiceUnavailable", Retry),
            (500, "InternalError", Retry),
            (403, "AccessDenied", Misconfigured),
            (400, "AccessDeniedException", Misconfigured),
            (403, "InvalidClientTokenId", Misconfigured),
            (400, "UnrecognizedClientException", Misconfigured),
            (403, "SignatureDoesNotMatch", Misconfigured),
            (404, "NotFound", Misconfigured),
            (400, "ExpiredTokenException", Misconfigured),
            (400, "RequestExpired", Misconfigured),
            (403, "RequestTimeTooSkewed", Misconfigured),
            (400, "com.amazonaws.sqs#InvalidMessageContents", Degrade),
            (400, "InvalidParameterValue", Degrade),
            (413, "SomethingElse", Degrade),
            (400, "IDPCommunicationError", Retry),
        ] {
            let json = format!(r#"{{"__type":"{code}","message":"no"}}"#);
            let xml = format!("<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>");
            for body in [json, xml] {
                assert_eq!(outcome(&answer(status, &body)), expected, "{status} {body}");
            }
        }
    }

    #[test]
    fn the_status_names_the_code_and_a_wrong_clock_is_told() {
        let shown = |code: &str, message: &str| {
            status(&answer(403, &format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>")))
        };
        assert_eq!(shown("AccessDenied", "no"), "HTTP 403 AccessDenied");
        for told in [
            shown("RequestTimeTooSkewed", ""),
            shown("SignatureDoesNotMatch", "Signature expired: 20150830T123600Z is now earlier than"),
            shown("SignatureDoesNotMatch", "Signature not yet current: 20150830T123600Z"),
        ] {
            assert!(told.ends_with(": the clock of this machine is wrong"), "{told}");
        }
        assert_eq!(shown("SignatureDoesNotMatch", "check your key"), "HTTP 403 SignatureDoesNotMatch");
        for code in ["", "a b", "<b>", &"x".repeat(MAX_CODE_CHARS + 1), "x\u{1b}[2J"] {
            assert_eq!(shown(code, "no"), "HTTP 403", "{code}");
        }
        assert_eq!(shown(&"x".repeat(MAX_CODE_CHARS), "no").len(), "HTTP 403 ".len() + MAX_CODE_CHARS);
    }

    #[test]
    fn a_wrong_topic_is_the_operators_and_a_wrong_message_is_not() {
        let refused = |message: &str| {
            let body = format!("<Error><Code>InvalidParameter</Code><Message>{message}</Message></Error>");
            outcome(&answer(400, &body))
        };
        assert_eq!(refused("Invalid parameter: TopicArn Reason: An ARN must have at least 6"), Outcome::Misconfigured);
        assert_eq!(refused("Invalid parameter: Message too long"), Outcome::Degrade);
    }

    #[test]
    fn an_element_is_its_text() {
        let xml = "<a><Code> x&lt;&amp;lt;&quot; </Code><Code>second</Code><Open>";
        assert_eq!(element(xml, "Code").as_deref(), Some("x<&lt;\""));
        assert_eq!((element(xml, "Open"), element(xml, "None")), (None, None));
    }
}
