//! The sink against receivers on loopback, polite and rude ones; what a message holds at its limits and under hostile text.

use std::net::SocketAddr;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use vigie_engine::text::is_unsafe;

use super::super::update::Told;
use super::*;
use crate::clock::Clock as _;
use crate::sink::contract::{
    self, HOSTILE, StoppedClock, alert_titled, attempt, delivery, make_hostile, make_long, stateful_alert, text_node,
    update_of,
};
use crate::sink::wire::tests::{TLS_FILES, acceptor};

fn made(url: &str, more: &[(&'static str, &str)]) -> Result<Box<dyn Sink>, String> {
    let mut options = vec![("url", text_node(url)), ("hostname", text_node("h1"))];
    options.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
    options.extend(more.iter().map(|(name, value)| (*name, text_node(value))));
    contract::build("syslog", options, &contract::context().0)
}

fn make(url: &str, more: &[(&'static str, &str)]) -> Box<dyn Sink> {
    made(url, more).expect("builds")
}

fn tls(file: &str) -> String {
    format!("{TLS_FILES}/{file}")
}

/// Header and message.
fn rendered(sink: &dyn Sink, alert: &Alert, form: Form) -> (String, String) {
    let body = String::from_utf8(delivery(sink, alert, form).body).expect("UTF-8");
    let (header, message) = body.split_once("] ").expect("structured data");
    (format!("{header}] "), message.to_owned())
}

/// A receiver of one connection: what it reads until the other side ends it.
async fn receiver(tls: Option<bool>) -> (SocketAddr, JoinHandle<io::Result<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut read = Vec::new();
        match tls {
            None => stream.read_to_end(&mut read).await?,
            Some(knows_clients) => acceptor(knows_clients).accept(stream).await?.read_to_end(&mut read).await?,
        };
        Ok(read)
    });
    (address, task)
}

/// Accepts one connection and does that with it.
async fn rude(with: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { listener.accept().await.map(|(stream, _)| with(stream)) });
    address
}

#[tokio::test]
async fn over_tcp_the_message_goes_counted_and_counts_as_taken() {
    let (address, server) = receiver(None).await;
    let sink = make(&format!("tcp://{address}"), &[]);
    let report = attempt(&*sink).await;
    assert_eq!((report.outcome, report.status.as_str(), report.excerpt.as_str()), (Outcome::Accepted, "sent", ""));
    let read = String::from_utf8(server.await.expect("no panic").expect("read")).expect("UTF-8");
    let (count, message) = read.split_once(' ').expect("a count");
    assert_eq!(count.parse(), Ok(message.len()));
    let alert = alert_titled("Number forwarded elsewhere");
    assert_eq!(message.as_bytes(), delivery(&*sink, &alert, Form::Full).body);
    assert!(
        message.starts_with("<131>1 2026-03-04T05:00:00.000Z h1 vigie - alert [vigie@32473 alert_id=\""),
        "{message}"
    );
    let (_, json) = message.split_once("] ").expect("structured data");
    let json: Value = serde_json::from_str(json).expect("JSON without a mark before it");
    assert_eq!((&json["schema"], &json["title"]), (&"vigie/alert/v1".into(), &"Number forwarded elsewhere".into()));
}

#[tokio::test]
async fn a_receiver_that_leaves_before_it_read_gets_the_message_again() {
    let resets: fn(TcpStream) = |stream| stream.set_zero_linger().expect("set");
    let report = attempt(&*make(&format!("tcp://{}", rude(resets).await), &[])).await;
    assert_eq!(report.outcome, Outcome::Retry, "{report:?}");
    let report = attempt(&*make(&format!("tcp://{}", rude(drop).await), &[])).await;
    assert_eq!(report.outcome, Outcome::Retry, "{report:?}");

    let closed = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let report = attempt(&*make(&format!("tcp://{closed}"), &[])).await;
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "connection refused"));
}

fn sink() -> SyslogSink {
    let (options, mut diagnostics) =
        (contract::map_node(vec![("url", text_node("tcp://127.0.0.1"))]), Diagnostics::default());
    let expand = |text: &str| Ok(text.to_owned());
    let options =
        crate::options::read(&options, "x", &SYSLOG.options.concat(), &expand, &mut diagnostics).expect("a map");
    let spec = WireSpec { url_option: "url", default_port: 1, tls: false, secrets: &[] };
    let wire = Wire::build(&spec, &options, &contract::context().0, &mut diagnostics).expect("builds");
    let header = header(&options, &mut diagnostics).expect("good");
    SyslogSink { wire, transport: Transport::Tcp, format: Format::Json, header, max_message_bytes: 8192 }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_never_ends_the_connection_has_the_message_all_the_same() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let started = tokio::time::Instant::now();
    let report = sink().hand_over(ours, b"m").await.expect("handed over");
    assert_eq!((report.outcome, started.elapsed()), (Outcome::Accepted, REFUSAL + FAREWELL));
    drop(theirs);

    // One that talks on and on.
    let (ours, mut theirs) = tokio::io::duplex(1 << 10);
    let talk = tokio::spawn(async move { while theirs.write_all(&[b'a'; 512]).await.is_ok() {} });
    let report = sink().hand_over(ours, b"m").await.expect("handed over");
    assert_eq!(report.outcome, Outcome::Accepted);
    talk.await.expect("ends with the connection");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_not_asked_for_is_told_from_one_that_was() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let leaves = tokio::spawn(async move { theirs.read_exact(&mut [0; 3]).await.map(|_| ()) });
    let report = sink().hand_over(ours, b"m").await.expect_err("not taken");
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "closed by the receiver"));
    leaves.await.expect("no panic").expect("read");

    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let reads = tokio::spawn(async move {
        let mut read = Vec::new();
        theirs.read_to_end(&mut read).await.map(|_| read)
    });
    let started = tokio::time::Instant::now();
    let report = sink().hand_over(ours, "é".as_bytes()).await.expect("handed over");
    assert_eq!((report.outcome, started.elapsed()), (Outcome::Accepted, REFUSAL));
    assert_eq!(reads.await.expect("no panic").expect("read"), "2 é".as_bytes());
}

#[tokio::test]
async fn over_tls_only_to_whom_the_authorities_vouch_for() {
    let (address, server) = receiver(Some(false)).await;
    let report = attempt(&*make(&format!("tls://{address}"), &[])).await;
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "TLS failed"));
    assert!(server.await.expect("no panic").is_err());

    let (address, server) = receiver(Some(false)).await;
    let report = attempt(&*make(&format!("tls://{address}"), &[("ca_file", &tls("authority.pem"))])).await;
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Accepted, "sent"));
    let read = server.await.expect("no panic").expect("read");
    assert!(read.windows(8).any(|window| window == b" <131>1 "), "{read:?}");

    // A receiver without TLS.
    let report = attempt(&*make(&format!("tls://{}", rude(drop).await), &[])).await;
    assert_eq!(report.outcome, Outcome::Retry, "{report:?}");
}

#[tokio::test]
async fn a_receiver_that_asks_for_a_certificate_gets_ours() {
    let authority = tls("authority.pem");
    let (address, server) = receiver(Some(true)).await;
    let report = attempt(&*make(&format!("tls://{address}"), &[("ca_file", &authority)])).await;
    let refused = (Outcome::Misconfigured, "the client certificate is refused");
    assert_eq!((report.outcome, report.status.as_str()), refused, "{}", report.excerpt);
    assert!(server.await.expect("no panic").is_err());

    let (address, server) = receiver(Some(true)).await;
    let (certificate, key) = (tls("client.pem"), tls("client-key.pem"));
    let ours = [("ca_file", authority.as_str()), ("certificate_file", &certificate), ("key_file", &key)];
    let report = attempt(&*make(&format!("tls://{address}"), &ours)).await;
    assert_eq!(report.outcome, Outcome::Accepted, "{report:?}");
    assert!(!server.await.expect("no panic").expect("read").is_empty());
}

#[tokio::test]
async fn over_udp_it_is_one_datagram_and_a_closed_port_is_seen() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let address = socket.local_addr().expect("bound");
    let sink = make(&format!("udp://{address}"), &[]);
    let report = attempt(&*sink).await;
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Accepted, "sent"));
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    let count = socket.recv(&mut buffer).await.expect("received");
    let alert = alert_titled("Number forwarded elsewhere");
    assert_eq!(buffer[..count], delivery(&*sink, &alert, Form::Full).body);

    drop(socket);
    let report = attempt(&*sink).await;
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "connection refused"));

    // The most that a datagram takes, whatever was configured.
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let sink = make(&format!("udp://{}", socket.local_addr().expect("bound")), &[("max_message", "1MiB")]);
    let mut alert = alert_titled("t");
    alert.event = RawValue::from_string(format!("\"{}\"", "x".repeat(80_000))).expect("valid");
    let delivery = delivery(&*sink, &alert, Form::Full);
    assert!(delivery.body.len() <= MAX_DATAGRAM_BYTES && sink.send(&delivery).await.outcome == Outcome::Accepted);
}

#[test]
fn what_does_not_fit_goes_in_its_order_and_a_limit_is_kept() {
    let alert = stateful_alert();
    for (format, marks) in [
        ("json", ["\"exception\":", "\"at\":", "\"event\":{"]),
        ("cef", ["cs5Label=exception", "flexString1Label=evidence", "cs6Label=event"]),
        ("leef", ["^exception=", "^evidence=", "^event="]),
    ] {
        let mut body = String::new();
        let mut max_bytes = 1 << 20;
        for expected in [[true; 3], [false, true, true], [false, false, true], [false; 3]] {
            let max = format!("{max_bytes}B");
            // Below the least that the option takes, to reach the last step with a small alert.
            let mut small = sink();
            small.max_message_bytes = max_bytes;
            small.format = match format {
                "json" => Format::Json,
                "cef" => Format::Pairs(Pairs::Cef),
                _ => Format::Pairs(Pairs::Leef),
            };
            body = String::from_utf8(delivery(&small, &alert, Form::Full).body).expect("UTF-8");
            assert_eq!(marks.map(|mark| body.contains(mark)), expected, "{format} {max}");
            assert!(body.len() <= max_bytes, "{format} {max}");
            max_bytes = body.len() - 1;
        }
        assert!(body.contains("Two countries at once"), "{body}");
    }
}

#[test]
fn every_form_stays_within_the_least_limit_whatever_an_event_holds() {
    for character in ["\u{202e}", "\u{1f600}", "\u{7}", "]", "\\", "^", "|", "\u{5d0}", "\""] {
        let mut alert = stateful_alert();
        make_long(&mut alert, character);
        alert.title = Untrusted::new(character.repeat(5_000));
        alert.account_id = Some(Untrusted::new(character.repeat(5_000)));
        alert.events = vec![character.repeat(300); 100];
        alert.rule.id = "r".repeat(80);
        alert.rule.title = "t".repeat(2_000);
        for format in ["json", "cef", "leef", "text"] {
            let sink = make("tcp://127.0.0.1", &[("format", format), ("max_message", "2KiB")]);
            for form in [Form::Full, Form::Plain] {
                let body = delivery(&*sink, &alert, form).body;
                assert!(body.len() <= 2048, "{format} {form:?} {character:?}: {}", body.len());
                let body = String::from_utf8(body).expect("UTF-8");
                assert!(!body.replace(BOM, "").chars().any(is_unsafe), "{format}: {body}");
            }
            let context = RenderContext { delivery_id: "d2", now: StoppedClock.now(), form: Form::Full };
            let update = sink.render_update(&update_of(&alert, Told::More), &context).expect("renders");
            assert!(update.len() <= 2048, "{format} {character:?}: {}", update.len());
        }
    }
}

#[test]
fn hostile_text_is_inert_in_every_format() {
    let mut alert = stateful_alert();
    make_hostile(&mut alert, HOSTILE);
    alert.title = Untrusted::new(HOSTILE);
    for format in ["json", "cef", "leef", "text"] {
        let (header, message) = rendered(&*make("tcp://127.0.0.1", &[("format", format)]), &alert, Form::Full);
        let shown = header + message.strip_prefix(BOM).unwrap_or(&message);
        assert!(!shown.chars().any(is_unsafe), "{format}: {shown}");
    }
}

#[test]
fn text_is_one_line_and_marked_only_beyond_ascii() {
    let sink = make("udp://127.0.0.1", &[("format", "text"), ("facility", "authpriv"), ("app_name", "watch")]);
    let (header, message) = rendered(&*sink, &alert_titled("Number forwarded elsewhere"), Form::Full);
    assert!(header.starts_with("<83>1 2026-03-04T05:00:00.000Z h1 watch - alert ["), "{header}");
    let expected =
        "HIGH Number forwarded elsewhere | when 2026-03-04 05:00:00 UTC to 2026-03-04 05:01:01 UTC, 3 matches";
    assert!(message.starts_with(expected), "{message}");
    let (_, message) = rendered(&*sink, &alert_titled("Numéro renvoyé"), Form::Full);
    assert!(message.starts_with("\u{feff}HIGH Numéro renvoyé | when"), "{message}");
}

#[test]
fn an_update_is_a_message_of_its_own() {
    let alert = alert_titled("Number forwarded elsewhere");
    let context = RenderContext { delivery_id: "d2", now: StoppedClock.now(), form: Form::Full };
    for (format, expected) in [
        ("json", "{\"schema\":\"vigie/update/v1\","),
        ("text", "Update to HIGH: Number forwarded elsewhere | more 2 more matches"),
        ("cef", "CEF:0|Vigie|Vigie|"),
        ("leef", "LEEF:2.0|Vigie|Vigie|"),
    ] {
        let sink = make("tcp://127.0.0.1", &[("format", format)]);
        let body = sink.render_update(&update_of(&alert, Told::More), &context).expect("renders");
        let body = String::from_utf8(body).expect("UTF-8");
        let (header, message) = body.split_once("] ").expect("structured data");
        assert!(header.contains(" vigie - update [") && header.contains("delivery_id=\"d2\""), "{header}");
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn options_that_have_no_meaning_are_told() {
    let authority = tls("authority.pem");
    for (url, more, code) in [
        ("tcp://h", ("ca_file", authority.as_str()), "E0453"),
        ("udp://h", ("key_file", authority.as_str()), "E0453"),
        ("tls://h", ("hostname", "a b"), "E0452"),
        ("tls://h", ("app_name", &"a".repeat(49)), "E0452"),
        ("tls://h", ("sd_id", "a]b"), "E0452"),
        ("tls://h/x", ("format", "json"), "E0451"),
        ("tcp://169.254.169.254", ("format", "json"), "E0421"),
        ("http://h", ("format", "json"), "E0403"),
        ("tcp://h", ("facility", "local8"), "E0403"),
    ] {
        let told = made(url, &[more]).err().expect("refused");
        assert!(told.contains(code), "{url} {more:?}: {told}");
    }
    assert!(made("tls://h", &[("app_name", &"a".repeat(48))]).is_ok());
    let (header, _) = rendered(&*make("udp://h", &[("hostname", "-")]), &alert_titled("t"), Form::Full);
    assert!(header.contains("Z - vigie"), "{header}");
}
