//! The contract, the limits and the answers of each system.

use url::Url;
use vigie_engine::text::is_unsafe;

use super::super::update::Told;
use super::*;
use crate::sink::contract::{
    self, CANARY, HOSTILE, Loopback, Reply, alert_titled, attempt, delivery, hold, make_hostile, make_long,
    stateful_alert, text_node, update_of,
};

const ALL: [&Desk; 3] = [&jira::DESK, &servicenow::DESK, &thehive::DESK];
const ALERT_ID: &str = "0123456789abcdef0123456789abcdef";
const FOOTER: &str = "vigie, alert 0123456789ab, delivery ";

fn make(kind: &str, url: &Url, context: &BuildContext) -> Box<dyn Sink> {
    let mut options = vec![("url", text_node(url.as_str())), ("token", text_node(CANARY))];
    options.extend((kind == "jira").then(|| ("project", text_node("SEC"))));
    contract::build(kind, options, context).expect("builds")
}

fn sink(kind: &str) -> Box<dyn Sink> {
    make(kind, &Url::parse("https://desk.example.org").expect("valid"), &contract::context().0)
}

fn rendered(kind: &str, alert: &Alert, form: Form) -> Value {
    serde_json::from_slice(&delivery(&*sink(kind), alert, form).body).expect("JSON")
}

fn description(record: &Value) -> &str {
    record["description"].as_str().expect("text")
}

fn summary(record: &Value) -> &str {
    let summary = ["summary", "short_description", "title"].iter().find_map(|name| record[*name].as_str());
    summary.expect("text")
}

async fn outcome(kind: &str, status: &'static str, body: &str) -> Outcome {
    let server = Loopback::start(Reply::Http(status, vec![], body.into())).await;
    attempt(&*make(kind, &server.url("/"), &contract::context().0)).await.outcome
}

#[tokio::test]
async fn each_holds_the_contract() {
    for desk in ALL {
        let yes = json!({desk.assent: {}}).to_string();
        hold(&|url, context| make(desk.kind, &url, context), yes.as_bytes(), Outcome::Misconfigured).await;
    }
}

#[test]
fn the_records_are_those_of_the_systems() {
    let alert = alert_titled("Number forwarded elsewhere");
    let issue = rendered("jira", &alert, Form::Full);
    let text = description(&issue);
    assert!(text.starts_with("{noformat}\nHIGH     Number forwarded elsewhere\n  when "), "{text}");
    assert!(text.ends_with("\n{noformat}") && text.contains(FOOTER), "{text}");
    let expected = json!({
        "summary": "HIGH: Number forwarded elsewhere",
        "description": text,
        "labels": ["vigie", format!("vigie-{ALERT_ID}")],
    });
    assert_eq!(issue, expected);
    let incident = rendered("servicenow", &alert, Form::Full);
    let expected = json!({
        "short_description": "HIGH: Number forwarded elsewhere",
        "description": description(&incident),
        "urgency": "1",
        "impact": "2",
        "correlation_id": ALERT_ID,
        "correlation_display": "vigie",
    });
    assert_eq!(incident, expected);
    assert!(description(&incident).starts_with("HIGH     Number forwarded elsewhere\n"));
    let alert = rendered("thehive", &stateful_alert(), Form::Full);
    let expected = json!({
        "type": "vigie",
        "source": "vigie",
        "sourceRef": ALERT_ID,
        "title": "HIGH: Two countries at once",
        "description": description(&alert),
        "severity": 3,
        "date": 1_772_600_400_000_i64,
        "tags": ["attack.t1078.004", "rule:change-from-unexpected-country", format!("vigie:{ALERT_ID}")],
        "observables": [
            {"dataType": "ip", "data": "192.0.2.9"},
            {"dataType": "mail", "data": "bob@example.org"},
        ],
    });
    assert_eq!(alert, expected);
}

#[tokio::test]
async fn what_the_operator_chose_is_sent_and_not_stored() {
    for (kind, path) in [
        ("jira", "/own/rest/api/2/issue"),
        ("servicenow", "/own/api/now/table/incident"),
        ("thehive", "/own/api/v1/alert"),
    ] {
        let server = Loopback::start(Reply::Http("201 Created", vec![], vec![])).await;
        let sink = make(kind, &server.url("/own/"), &contract::context().0);
        let stored = delivery(&*sink, &alert_titled("t"), Form::Full);
        let text = String::from_utf8(stored.body.clone()).expect("UTF-8");
        assert!(!text.contains("SEC") && !text.contains(CANARY), "{text}");
        assert_eq!(sink.send(&stored).await.outcome, Outcome::Delivered);
        let request = &server.received()[0];
        assert!(request.head.starts_with(&format!("POST {path} HTTP/1.1")), "{}", request.head);
        assert_eq!(request.header("authorization"), Some(format!("Bearer {CANARY}").as_str()));
        assert_eq!(request.header("accept"), Some("application/json"));
        let sent: Value = serde_json::from_slice(&request.body).expect("JSON");
        let mut record: Value = serde_json::from_str(&text).expect("JSON");
        if kind == "jira" {
            record["project"] = json!({"key": "SEC"});
            record["issuetype"] = json!({"name": "Task"});
            record = json!({"fields": record});
        }
        assert_eq!(sent, record, "{kind}");
    }
}

#[tokio::test]
async fn a_record_that_was_made_is_never_made_again_and_a_page_is_no_assent() {
    for desk in ALL {
        assert_eq!(outcome(desk.kind, "201 Created", "{\"cut").await, Outcome::Delivered, "{}", desk.kind);
        for body in ["<html>please log in</html>", "", "{}"] {
            assert_eq!(outcome(desk.kind, "200 OK", body).await, Outcome::Retry, "{}: {body}", desk.kind);
        }
    }
}

#[tokio::test]
async fn jira_blames_the_operator_or_the_record() {
    for (body, expected) in [
        (r#"{"errorMessages":[],"errors":{"project":"valid project is required"}}"#, Outcome::Misconfigured),
        (r#"{"errors":{"issuetype":"The issue type selected is invalid."}}"#, Outcome::Misconfigured),
        (r#"{"errors":{"summary":"too long","customfield_10010":"is required"}}"#, Outcome::Misconfigured),
        (r#"{"errors":{"summary":"Summary must be less than 255 characters."}}"#, Outcome::Degrade),
        (r#"{"errors":{"labels":"It is not on the appropriate screen, or unknown."}}"#, Outcome::Degrade),
        (r#"{"errorMessages":["project"],"errors":{}}"#, Outcome::Degrade),
    ] {
        assert_eq!(outcome("jira", "400 Bad Request", body).await, expected, "{body}");
    }
    let plain = rendered("jira", &alert_titled("t"), Form::Plain);
    assert!(plain.get("labels").is_none(), "a screen without them refuses the issue: {plain}");
}

#[tokio::test]
async fn an_alert_that_thehive_has_is_delivered_and_nothing_else_that_sounds_like_it() {
    let there = |message: &str| json!({"type": "CreateError", "message": message}).to_string();
    let hive = format!("Alert vigie:vigie:{ALERT_ID} already exist in organisation soc");
    for (status, body, expected) in [
        ("400 Bad Request", there(&hive), Outcome::Delivered),
        ("400 Bad Request", there("Alert already exists"), Outcome::Delivered),
        ("400 Bad Request", there("Observable already exists"), Outcome::Degrade),
        ("500 Internal Server Error", there("Alert already exists"), Outcome::Retry),
        (
            "400 Bad Request",
            json!({"type": "InvalidFormatAttributeError", "message": "Alert x already exist"}).to_string(),
            Outcome::Degrade,
        ),
        ("400 Bad Request", "Alert already exists".into(), Outcome::Degrade),
    ] {
        assert_eq!(outcome("thehive", status, &body).await, expected, "{status} {body}");
    }
}

#[test]
fn a_record_fits_whatever_an_event_holds() {
    for desk in ALL {
        for character in ["a", "🦀", "{", "\u{202e}"] {
            let at_limit = character.repeat(desk.max_summary_units / desk.units(character));
            assert_eq!(desk.summary(&at_limit), at_limit, "{}", desk.kind);
            let beyond = desk.summary(&(at_limit.clone() + character));
            assert!(desk.units(&beyond) <= desk.max_summary_units && beyond.ends_with('…'), "{}: {beyond}", desk.kind);
            let mut alert = stateful_alert();
            make_long(&mut alert, character);
            alert.title = vigie_engine::text::Untrusted::new(character.repeat(5_000));
            alert.key = vec![alert.key[0].clone(); 200];
            for (form, most) in [(Form::Full, desk.max_description_units), (Form::Plain, MAX_PLAIN_UNITS)] {
                let record = rendered(desk.kind, &alert, form);
                let (summary, text) = (summary(&record), description(&record));
                assert!(desk.units(summary) <= desk.max_summary_units, "{} {character}: {summary}", desk.kind);
                assert!(desk.units(text) <= most, "{} {character} {form:?}: {}", desk.kind, desk.units(text));
                assert!(text.contains(FOOTER), "{}: {text}", desk.kind);
            }
        }
    }
}

#[test]
fn a_description_is_whole_at_the_limit_and_cut_by_lines_beyond_it() {
    for desk in ALL {
        let room = desk.room(FOOTER, Form::Full);
        let at_limit = format!("{}\n{}", "a".repeat(100), "b".repeat(room - 100 - 2 * (1 + desk.line_units)));
        let shown = desk.description(&at_limit, FOOTER, Form::Full);
        assert!(shown.contains("bb") && !shown.contains("more lines"), "{}", desk.kind);
        assert!(desk.units(&shown) <= desk.max_description_units, "{}", desk.kind);
        let beyond = desk.description(&(at_limit + "b"), FOOTER, Form::Full);
        assert!(!beyond.contains("bb") && beyond.contains("and 1 more lines"), "{}: {beyond}", desk.kind);
    }
}

#[test]
fn hostile_text_ends_no_block_and_acts_in_none() {
    let text =
        format!("{HOSTILE} {{noformat}} {{NoFormat:title=x}} {{{{noformat}} [~admin] [CODE]<b>[/code] ![x](y)\n# h");
    let mut hostile = stateful_alert();
    make_hostile(&mut hostile, &text);
    hostile.title = vigie_engine::text::Untrusted::new(text.as_str());
    let context = RenderContext { delivery_id: "d2", now: hostile.first_at, form: Form::Full };
    for desk in ALL {
        let update = sink(desk.kind).render_update(&update_of(&hostile, Told::More), &context).expect("renders");
        let update = serde_json::from_slice(&update).expect("JSON");
        for record in [rendered(desk.kind, &hostile, Form::Full), rendered(desk.kind, &hostile, Form::Plain), update] {
            let text = record.to_string();
            assert!(!text.contains("://evil"), "{}: {text}", desk.kind);
            let (summary, text) = (summary(&record), description(&record));
            assert!(!summary.chars().any(is_unsafe) && !text.chars().any(|c| c != '\n' && is_unsafe(c)), "{text}");
            let lower = text.to_lowercase();
            match desk.kind {
                "jira" => {
                    assert_eq!(lower.matches("{noformat").count(), 2, "{text}");
                    assert!(!text.contains("[~") && !summary.contains("[~"), "{text}");
                }
                "thehive" => assert!(text.lines().all(|line| line.starts_with("    ")), "{text}"),
                _ => assert!(!lower.contains("[code") && !lower.contains("[/code"), "{text}"),
            }
        }
    }
}

#[test]
fn an_update_is_a_record_of_its_own_under_the_same_alert() {
    let alert = alert_titled("t");
    let context = RenderContext { delivery_id: "d2", now: alert.first_at, form: Form::Full };
    for (kind, member, expected) in [
        ("jira", "labels", json!(["vigie", format!("vigie-{ALERT_ID}")])),
        ("servicenow", "correlation_id", json!(ALERT_ID)),
        ("thehive", "sourceRef", json!(format!("{ALERT_ID}.1"))),
    ] {
        let update = sink(kind).render_update(&update_of(&alert, Told::More), &context).expect("renders");
        let update: Value = serde_json::from_slice(&update).expect("JSON");
        assert_eq!(summary(&update), "Update to HIGH: t", "{kind}");
        assert_eq!(update[member], expected, "{kind}");
        assert!(description(&update).contains("2 more matches since"), "{update}");
    }
}

#[test]
fn one_that_cannot_log_in_is_refused() {
    for desk in ALL {
        let mut options = vec![("url", text_node("https://desk.example.org"))];
        options.extend((desk.kind == "jira").then(|| ("project", text_node("SEC"))));
        let told = contract::build(desk.kind, options, &contract::context().0).err().expect("refused");
        assert!(told.contains("E0462"), "{}: {told}", desk.kind);
    }
}
