//! What a mail looks like, and what hostile text becomes in it.

use std::time::Duration;

use super::*;
use crate::clock::Clock as _;
use crate::sink::contract::{StoppedClock, update_of};
use crate::sink::update::Told;

/// Header lines without folding.
fn headers(mail: &str) -> Vec<String> {
    let head = mail.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n ", " ");
    head.split("\r\n").map(str::to_owned).collect()
}

fn header(mail: &str, name: &str) -> String {
    let prefix = format!("{name}: ");
    let found: Vec<_> = headers(mail).into_iter().filter(|line| line.starts_with(&prefix)).collect();
    assert_eq!(found.len(), 1, "{name} in {:?}", headers(mail));
    found[0].replacen(&prefix, "", 1)
}

/// Both parts, transfer encoding undone.
fn parts(mail: &str) -> (String, String) {
    let boundary =
        format!("--{}", mail.split("boundary=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("has one"));
    let parts: Vec<String> = mail
        .split(&boundary)
        .skip(1)
        .filter_map(|part| part.split_once("\r\n\r\n"))
        .map(|(head, body)| {
            if head.contains("quoted-printable") {
                unquote(body)
            } else if head.contains("base64") {
                let bytes = STANDARD.decode(body.replace("\r\n", "")).expect("base64");
                String::from_utf8(bytes).expect("UTF-8")
            } else {
                body.to_owned()
            }
        })
        .collect();
    assert_eq!(parts.len(), 2, "{mail}");
    (parts[0].clone(), parts[1].clone())
}

fn unquote(body: &str) -> String {
    let joined = body.replace("=\r\n", "");
    String::from_utf8(decode_with(&joined)).expect("UTF-8")
}

fn decode_with(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = |at: usize| tail.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'=', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

#[test]
fn a_mail_is_as_the_golden_one() {
    let mail = rendered(&alert_titled("Number forwarded elsewhere"), Form::Full);
    let golden = include_str!("golden.eml");
    assert_eq!(mail.replace("\r\n", "\n"), golden);
    assert_eq!(mail.matches('\n').count(), mail.matches("\r\n").count(), "every line ends with CR LF");
    assert!(mail.lines().all(|line| line.len() <= 998) && mail.is_ascii());
}

#[test]
fn a_mail_about_several_events_is_as_the_golden_one() {
    let mail = rendered(&stateful_alert(), Form::Full);
    assert_eq!(mail.replace("\r\n", "\n"), include_str!("stateful.eml"));
}

#[test]
fn an_exception_out_of_a_mail_means_what_it_says() {
    for text in ["bob@sub.example.org", HOSTILE, "a  b.c\\d.e\"f.g"] {
        let mut alert = stateful_alert();
        make_hostile(&mut alert, text);
        let (plain, html) = parts(&rendered(&alert, Form::Full));
        let copied = plain.lines().find(|line| line.contains("- {when")).expect("there").trim();
        assert!(!copied.contains("example.org") && !copied.contains("evil.example"), "a live link: {copied}");
        let shown = html.lines().find(|line| line.contains("- {when")).expect("there");
        let shown = shown.trim_end().trim_start_matches("<li>").trim_end_matches("</li>");
        let shown = shown.replace("&quot;", "\"").replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">");
        assert_eq!(shown.replace("&amp;", "&"), copied);
        let dotted = |yaml: &str| yaml.replace("\\x2E", ".");
        assert_eq!(dotted(copied), dotted(&alert.exception().expect("made")));
    }
}

#[test]
fn rendering_is_pure_and_the_plain_form_is_text_only() {
    let alert = alert_titled("x");
    assert_eq!(rendered(&alert, Form::Full), rendered(&alert, Form::Full));
    let plain = rendered(&alert, Form::Plain);
    assert!(header(&plain, "Content-Type").starts_with("text/plain"), "{plain}");
    assert!(!plain.contains("<html"), "{plain}");
}

#[test]
fn hostile_text_is_inert_wherever_it_stands() {
    let mut hostile = vec![HOSTILE.to_owned()];
    for extra in [
        "\r\nBcc: eve@evil.example",
        "=?utf-8?q?=0D=0ABcc:?=",
        "</title><img src=x>",
        "--vigie-x--",
        "\u{feff}\u{e0041}",
    ] {
        hostile.push(extra.to_owned());
    }
    hostile.push("ü".repeat(5000));
    hostile.push("a".repeat(5000));
    for text in hostile {
        let mut alert = alert_titled(&text);
        alert.account_id = Some(Untrusted::new(text.clone()));
        alert.key = vec![("actor".into(), Untrusted::new(text.clone()))];
        alert.reason[0].actual = Some(Untrusted::new(text.clone()));
        alert.events = vec![text.clone()];
        let event = serde_json::json!({"note": text, (text.as_str()): "field name"});
        alert.event = serde_json::value::RawValue::from_string(event.to_string()).expect("JSON");
        alert.finding = stateful_alert().finding;
        if let Some(finding) = &mut alert.finding {
            finding.summary = Untrusted::new(text.clone());
            finding.evidence[0].note = Some(Untrusted::new(text.clone()));
        }
        let mail = rendered(&alert, Form::Full);
        assert!(mail.is_ascii() && mail.lines().all(|line| line.len() <= 998), "{text:?}");

        let names: Vec<String> =
            headers(&mail).iter().map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect();
        let ordinary = headers(&rendered(&alert_titled("x"), Form::Full));
        let expected: Vec<_> = ordinary.iter().map(|line| line.split(':').next().unwrap_or_default()).collect();
        assert_eq!(names, expected, "no header more or less: {text:?}");

        let (plain, html) = parts(&mail);
        for shown in [&plain, &html] {
            let unsafe_left: Vec<char> = shown.chars().filter(|c| is_unsafe(*c) && !matches!(c, '\r' | '\n')).collect();
            assert!(unsafe_left.is_empty(), "{unsafe_left:?} of {text:?}");
            assert!(!shown.contains("://") && !shown.contains("evil.example"), "a live link: {shown}");
        }
        let tags = html.matches('<').count();
        let ordinary_tags = |html: &str| {
            [
                "<!DOCTYPE",
                "<html",
                "<head",
                "<meta",
                "<title",
                "</title",
                "</head",
                "<body",
                "<h2",
                "</h2",
                "<h3",
                "</h3",
                "<ul",
                "</ul",
                "<li",
                "</li",
                "</body",
                "</html",
            ]
            .iter()
            .map(|tag| html.matches(&format!("{tag}>")).count() + html.matches(&format!("{tag} ")).count())
            .sum::<usize>()
        };
        assert_eq!(tags, ordinary_tags(&html), "no tag but ours: {html}");
        assert!(!html.contains("<img") && !html.contains("<script"), "{html}");
    }
}

#[test]
fn mails_of_one_key_share_a_thread_and_others_do_not() {
    let thread = |alert: &Alert| {
        let mail = rendered(alert, Form::Full);
        assert_eq!(header(&mail, "References"), header(&mail, "In-Reply-To"));
        header(&mail, "References")
    };
    let first = alert_titled("x");
    let mut second = alert_titled("y");
    second.alert_id = "f".repeat(32);
    assert_eq!(thread(&first), thread(&second), "one key");
    second.key[0].1 = Untrusted::new("carol@example.org");
    assert_ne!(thread(&first), thread(&second), "another key");
    let (mut third, mut fourth) = (first.clone(), first.clone());
    third.key.clear();
    fourth.key.clear();
    fourth.alert_id = "f".repeat(32);
    assert_ne!(thread(&third), thread(&fourth), "no key: each alert for itself");
}

#[test]
fn an_update_answers_the_mail_of_its_alert() {
    let sink = EmailSink::new(options(nowhere())).expect("valid");
    for title in ["Number forwarded elsewhere", HOSTILE] {
        let alert = alert_titled(title);
        let alert_mail = rendered(&alert, Form::Full);
        let mut update = update_of(&alert, Told::Closing { quiet: Duration::from_secs(3600) });
        let alert_delivery_id = crate::sink::delivery_id(&alert.alert_id, "test");
        update.alert_delivery_id = &alert_delivery_id;
        let context = RenderContext { delivery_id: "d2", now: StoppedClock.now(), form: Form::Full };
        let mail = sink.render_update(&update, &context).expect("renders");
        let mail = String::from_utf8(mail).expect("ASCII");
        assert!(mail.is_ascii() && mail.lines().all(|line| line.len() <= 998), "{mail}");
        let message_id = header(&alert_mail, "Message-ID");
        assert_eq!(header(&mail, "In-Reply-To"), message_id);
        assert_eq!(header(&mail, "References"), format!("{} {message_id}", header(&alert_mail, "References")));
        assert_eq!(header(&mail, "Message-ID"), "<d2@example.org>");
        assert!(header(&mail, "Subject").starts_with("Quiet again: HIGH: "), "{mail}");
        let body = unquote(mail.split_once("\r\n\r\n").expect("a body").1);
        assert!(body.contains("no more matches for 1h") && !body.contains("://"), "{body}");
        let names =
            |mail: &str| headers(mail).iter().map(|line| line.split(':').next().map(str::to_owned)).collect::<Vec<_>>();
        assert!(
            names(&mail)
                .iter()
                .all(|name| names(&alert_mail).contains(name) || name.as_deref() == Some("Content-Transfer-Encoding")),
            "{mail}"
        );
    }
}

#[test]
fn what_cannot_work_is_said_where_it_stands() {
    let (context, _) = context();
    let good = |smtp: &str| {
        vec![("smtp", text_node(smtp)), ("from", text_node("v@example.org")), ("to", text_node("s@example.org"))]
    };
    let with = |name: &'static str, node: Node| {
        let mut entries: Vec<_> =
            good("smtps://mail.example.org").into_iter().filter(|(key, _)| *key != name).collect();
        entries.push((name, node));
        entries
    };
    for smtp in
        ["smtps://u:p@mail.example.org", "smtp://localhost", "smtp://[::1]:2525", "smtp+starttls://mail.example.org"]
    {
        assert!(build_kind(EMAIL.kind, good(smtp), &context).is_ok(), "{smtp}");
    }
    let many = (0..=MAX_RECIPIENTS).map(|number| text_node(&format!("a{number}@example.org"))).collect();
    let table = [
        (good("smtps://169.254.169.254"), "E0421"),
        (good("smtp://metadata.google.internal"), "E0421"),
        (good("https://mail.example.org"), "E0403"),
        (good("smtps://mail.example.org/inbox"), "E0428"),
        (good("smtps://user@mail.example.org"), "E0428"),
        (with("password", text_node(CANARY)), "E0428"),
        (with("insecure", text_node("true")), "E0428"),
        (with("ca_file", text_node("/nonexistent/ca.pem")), "E0422"),
        (with("from", text_node("not an address")), "E0427"),
        (with("from", text_node("A\r\nBcc: x <a@example.org>")), "E0427"),
        (with("to", list_node(vec![text_node("a@example.org"), text_node("b@")])), "E0427"),
        (with("to", text_node("ü@example.org")), "E0427"),
        (with("to", list_node(many)), "E0427"),
        (with("recipients", text_node("a@example.org")), "E0402"),
    ];
    for (entries, code) in table {
        let shown = format!("{entries:?}");
        let wrong = build_kind(EMAIL.kind, entries, &context).err().unwrap_or_else(|| panic!("{shown} was taken"));
        assert!(wrong.contains(code), "{code}: {wrong}");
    }
}

#[test]
fn plain_text_stays_on_loopback() {
    let security = |smtp: &str, insecure| {
        let smtp = Url::parse(smtp).expect("valid");
        match EmailSink::new(EmailOptions { smtp, insecure, ..options(nowhere()) }).expect("valid").relay.security {
            Security::Plain => "plain",
            Security::StartTls(_) => "starttls",
            Security::Implicit(..) => "tls",
        }
    };
    assert_eq!(security("smtp://127.0.0.1", false), "plain");
    assert_eq!(security("smtp://[::1]", false), "plain");
    assert_eq!(security("smtp://LOCALHOST", false), "plain");
    assert_eq!(security("smtp://mail.example.org", false), "starttls");
    assert_eq!(security("smtp://localhost.example.org", false), "starttls");
    assert_eq!(security("smtp://mail.example.org", true), "plain");
    assert_eq!(security("smtp+starttls://127.0.0.1", false), "starttls");
    assert_eq!(security("smtps://127.0.0.1", false), "tls");
}
