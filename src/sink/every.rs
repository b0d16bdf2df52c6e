//! Every kind of sink as tests build it that go over all of them: the least of options, and the destination's assent.
//!
//! It says nothing of a kind that is not in `sink::KINDS`, and a kind that is there and not here fails whoever asks.

use vigie_engine::yaml::Node;

use super::contract::{CANARY, build, list_node, text_node};
use super::{BuildContext, KINDS, Sink};

/// What stands in an assent for the delivery that is meant.
pub(super) const DELIVERY: &str = "DELIVERY";

/// One kind.
pub(super) struct Every {
    pub(super) kind: &'static str,
    /// Option that says where to.
    place: &'static str,
    /// Its other options.
    more: &'static [(&'static str, &'static str)],
    /// Words of its option `format`, the default first; one that is empty where it has none.
    pub(super) formats: &'static [&'static str],
    /// The body with which a destination over HTTP says yes.
    pub(super) yes: &'static str,
}

const fn every(kind: &'static str, place: &'static str, yes: &'static str) -> Every {
    Every { kind, place, more: &[], formats: &[""], yes }
}

const KEYS: &[(&str, &str)] = &[("access_key_id", "AKIDEXAMPLE"), ("secret_access_key", CANARY)];
const QUEUE: &[(&str, &str)] = &[KEYS[0], KEYS[1], ("queue_url", "https://sqs.eu-west-1.amazonaws.com/1/alerts")];
const TOPIC: &[(&str, &str)] = &[KEYS[0], KEYS[1], ("topic_arn", "arn:aws:sns:eu-west-1:123456789012:alerts")];
const SHAPES: &[&str] = &["native", "ecs", "ocsf", "cloudevents"];
const HEADED: &[&str] = &["native", "ecs", "ocsf", "cloudevents", "cloudevents-binary"];
const BULK: &str = r#"{"errors":false,"items":[{"create":{"_id":"DELIVERY","status":201,"result":"created"}}]}"#;
const PUBLISHED: &str = "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult><MessageId>\
                         567910cd</MessageId></PublishResult></PublishResponse>";

const EVERY: &[Every] = &[
    Every { formats: &["text", "json", "ecs", "ocsf", "cloudevents"], ..every("stdout", "", "") },
    Every { formats: SHAPES, ..every("file", "path", "") },
    Every { formats: HEADED, ..every("webhook", "url", "") },
    Every { more: &[("from", "vigie@example.org"), ("to", "soc@example.org")], ..every("email", "smtp", "") },
    every("slack", "webhook_url", "ok"),
    Every {
        more: &[("token", CANARY), ("channel", "C0123ABCD")],
        ..every("slack_bot", "url", r#"{"ok":true,"channel":"C0123ABCD","ts":"1.2"}"#)
    },
    every("teams", "webhook_url", ""),
    every("discord", "webhook_url", r#"{"id":"1"}"#),
    every("mattermost", "webhook_url", "ok"),
    every("google_chat", "webhook_url", r#"{"name":"x"}"#),
    Every { more: &[("bot_token", CANARY), ("chat_id", "-100123")], ..every("telegram", "api_url", r#"{"ok":true}"#) },
    Every {
        more: &[("routing_key", "0123456789abcdef0123456789abcdef")],
        ..every("pagerduty", "url", r#"{"status":"success"}"#)
    },
    Every {
        more: &[("token", CANARY)],
        formats: &["native", "ecs", "ocsf"],
        ..every("splunk_hec", "url", r#"{"text":"Success","code":0}"#)
    },
    Every { more: &[("api_key", CANARY)], ..every("elasticsearch", "url", BULK) },
    Every { more: &[("token", CANARY), ("project", "SEC")], ..every("jira", "url", r#"{"key":"SEC-1"}"#) },
    Every { more: &[("token", CANARY)], ..every("servicenow", "url", r#"{"result":{}}"#) },
    Every { more: &[("token", CANARY)], ..every("thehive", "url", r#"{"_id":"~1"}"#) },
    every("tines", "url", "Ok"),
    Every { more: &[("hostname", "h1")], formats: &["json", "cef", "leef", "text"], ..every("syslog", "url", "") },
    Every { formats: SHAPES, ..every("nats", "url", "") },
    every("alertmanager", "urls", ""),
    Every { more: QUEUE, formats: SHAPES, ..every("sqs", "endpoint", r#"{"MessageId":"94f20ce6"}"#) },
    Every {
        more: TOPIC,
        formats: &["json", "text", "ecs", "ocsf", "cloudevents"],
        ..every("sns", "endpoint", PUBLISHED)
    },
    Every { formats: SHAPES, ..every("exec", "command", "") },
];

/// All of them, in the order of `KINDS`.
pub(super) fn all() -> impl Iterator<Item = &'static Every> {
    KINDS.iter().map(|known| {
        let found = EVERY.iter().find(|every| every.kind == known.kind);
        found.unwrap_or_else(|| panic!("`{}` is not in the list of every kind", known.kind))
    })
}

impl Every {
    /// The sink toward `place`, with more options.
    pub(super) fn make(&self, place: &str, more: Vec<(&str, Node)>, context: &BuildContext) -> Box<dyn Sink> {
        let place = match self.place {
            "" => None,
            "urls" => Some(list_node(vec![text_node(place)])),
            "command" => Some(list_node(place.split(' ').map(text_node).collect())),
            _ => Some(text_node(place)),
        };
        let options = place.map(|place| (self.place, place)).into_iter();
        let options = options.chain(self.more.iter().map(|(name, value)| (*name, text_node(value)))).chain(more);
        build(self.kind, options.collect(), context).unwrap_or_else(|told| panic!("{}: {told}", self.kind))
    }

    /// A sink that is only asked to render.
    pub(super) fn renderer(&self, format: &str, context: &BuildContext) -> Box<dyn Sink> {
        let place = match self.kind {
            "file" => "alerts.jsonl",
            "exec" => "/bin/true",
            "email" => "smtps://mail.example.org",
            "syslog" => "tcp://logs.example.org",
            "nats" => "nats://nats.example.org",
            _ => "https://alerts.example.org/",
        };
        let format = (!format.is_empty()).then(|| ("format", text_node(format)));
        self.make(place, format.into_iter().collect(), context)
    }

    /// Whether an option says which URL over HTTP it posts to.
    pub(super) fn speaks_http(&self) -> bool {
        !matches!(self.kind, "stdout" | "file" | "email" | "syslog" | "nats" | "exec")
    }
}

#[test]
fn nothing_is_in_the_list_that_is_no_kind() {
    let known: Vec<&str> = all().map(|every| every.kind).collect();
    assert!(EVERY.iter().all(|every| known.contains(&every.kind)) && EVERY.len() == known.len());
    for (every, known) in all().zip(KINDS) {
        let formats = known.specs().into_iter().find_map(|spec| match spec.kind {
            crate::options::OptionKind::Choice(words) if spec.name == "format" => Some(words),
            _ => None,
        });
        assert_eq!(every.formats, formats.unwrap_or(&[""]), "{}: each format is in the list", every.kind);
    }
}
