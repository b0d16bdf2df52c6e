//! CloudEvents 1.0: the Alert JSON as the data of an event, in one JSON document or with the attributes as HTTP headers.
//!
//! The attributes are read from the Alert JSON itself, so that an alert and an update need no code of their own, and what is
//! stored is the body alone. The type is the schema's name with points; the subject is the alert's id, which an alert and
//! its updates have in common.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::RenderError;

/// Version of the specification.
const VERSION: &str = "1.0";
/// What the data is.
const DATA_TYPE: &str = "application/json";

/// The members of an Alert JSON or an update that attributes are made of.
#[derive(Deserialize)]
struct Native {
    schema: String,
    alert_id: String,
    delivery_id: String,
    source: String,
    last_at: String,
}

#[derive(Serialize)]
struct Attributes {
    specversion: &'static str,
    id: String,
    source: String,
    r#type: String,
    subject: String,
    time: String,
}

#[derive(Serialize)]
struct Structured<'a> {
    #[serde(flatten)]
    attributes: Attributes,
    datacontenttype: &'static str,
    data: &'a RawValue,
}

impl Attributes {
    fn of(native: &[u8]) -> Result<Self, serde_json::Error> {
        let native: Native = serde_json::from_slice(native)?;
        Ok(Self {
            specversion: VERSION,
            id: native.delivery_id,
            source: format!(
                "vigie:{}",
                percent_encoded(&native.source, |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
            ),
            r#type: native.schema.replace('/', "."),
            subject: native.alert_id,
            time: native.last_at,
        })
    }
}

/// One JSON document.
pub(super) fn structured(native: &[u8]) -> Result<String, RenderError> {
    let refused = |error: serde_json::Error| RenderError(error.to_string());
    let attributes = Attributes::of(native).map_err(refused)?;
    let data: &RawValue = serde_json::from_slice(native).map_err(refused)?;
    serde_json::to_string(&Structured { attributes, datacontenttype: DATA_TYPE, data }).map_err(refused)
}

/// The attributes as headers; none for a body that is no Alert JSON.
pub(super) fn headers(body: &[u8]) -> Vec<(&'static str, String)> {
    let Ok(attributes) = Attributes::of(body) else { return Vec::new() };
    // The HTTP binding, 3.1.3.2: printable ASCII but the quote and the percent sign, everything else percent-encoded.
    let value = |text: &str| percent_encoded(text, |byte| byte.is_ascii_graphic() && !b"\"%".contains(&byte));
    vec![
        ("ce-specversion", attributes.specversion.to_owned()),
        ("ce-id", value(&attributes.id)),
        ("ce-source", value(&attributes.source)),
        ("ce-type", value(&attributes.r#type)),
        ("ce-subject", value(&attributes.subject)),
        ("ce-time", value(&attributes.time)),
    ]
}

fn percent_encoded(text: &str, stays: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if stays(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::super::tests::{context, update};
    use super::super::{Format, alert_json};
    use super::*;
    use crate::sink::contract::{HOSTILE, alert_titled};

    #[test]
    fn a_structured_event_holds_the_alert_as_its_data() {
        let alert = alert_titled("t");
        let event = Format::CloudEvents.alert(&alert, &context(), usize::MAX).expect("renders");
        let data = String::from_utf8(alert_json(&alert, "d1").expect("encodes")).expect("UTF-8");
        let expected = format!(
            concat!(
                r#"{{"specversion":"1.0","id":"d1","source":"vigie:main","type":"vigie.alert.v1","#,
                r#""subject":"0123456789abcdef0123456789abcdef","time":"2026-03-04T05:01:01Z","#,
                r#""datacontenttype":"application/json","data":{data}}}"#,
            ),
            data = data
        );
        assert_eq!(String::from_utf8(event).expect("UTF-8"), expected);
        let event = String::from_utf8(update(Format::CloudEvents)).expect("UTF-8");
        assert!(event.contains(r#""type":"vigie.update.v1","subject":"0123456789abcdef"#), "{event}");
        assert!(event.contains(r#""data":{"schema":"vigie/update/v1","#), "{event}");
    }

    #[test]
    fn headers_are_printable_whatever_the_source_is_called() {
        let mut alert = alert_titled(HOSTILE);
        alert.source = "a b\"%é🦀\r\nX-Y: z".into();
        let body = Format::CloudEventsBinary.alert(&alert, &context(), usize::MAX).expect("renders");
        assert_eq!(body, alert_json(&alert, "d1").expect("encodes"));
        let headers = headers(&body);
        let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["ce-specversion", "ce-id", "ce-source", "ce-type", "ce-subject", "ce-time"]);
        assert_eq!(headers[2].1, "vigie:a%2520b%2522%2525%25C3%25A9%25F0%259F%25A6%2580%250D%250AX-Y%253A%2520z");
        assert!(headers.iter().all(|(_, value)| value.bytes().all(|byte| byte.is_ascii_graphic())), "{headers:?}");
        assert_eq!(percent_encoded("Euro € 😀", |byte| byte.is_ascii_graphic()), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        let ecs = Format::Ecs.alert(&alert, &context(), usize::MAX).expect("renders");
        assert!(super::headers(&ecs).is_empty(), "a body of before");
    }
}
