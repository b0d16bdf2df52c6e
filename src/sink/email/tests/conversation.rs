//! What each reply of a relay leads to.

use super::*;

async fn attempt(sink: &EmailSink) -> AttemptReport {
    let mail = delivery(sink, &alert_titled("Number forwarded elsewhere"), Form::Full);
    let report = sink.send(&mail).await;
    assert!(!report.excerpt.contains('\n'), "{report:?}");
    report
}

/// Says this to the command that starts with `to`.
fn when(to: &'static str, reply: Reply) -> impl Fn(&str) -> Option<Reply> + Send + Sync {
    move |command| command.starts_with(to).then(|| reply.clone())
}

#[tokio::test]
async fn a_mail_is_handed_over_as_it_was_rendered() {
    let relay = FakeRelay::start(|_| None).await;
    let sink = relay.sink(&["SOC <soc@example.org>", "boss@example.org"]);
    let mail = delivery(&sink, &alert_titled(".\r\n.\r\nQUIT"), Form::Full);
    let report = sink.send(&mail).await;
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Delivered, "SMTP 250"));
    assert_eq!(report.excerpt, "250 2.0.0 queued as 4F2");
    let heard = relay.heard();
    let said: Vec<&str> = heard.iter().map(String::as_str).filter(|line| !line.starts_with("EHLO")).collect();
    let expected =
        ["MAIL FROM:<vigie@example.org>", "RCPT TO:<soc@example.org>", "RCPT TO:<boss@example.org>", "DATA", "QUIT"];
    assert_eq!(said, expected);
    let taken = relay.mails()[0].replace("\r\n..", "\r\n.");
    assert!(taken.starts_with(std::str::from_utf8(&mail.body).expect("ASCII")), "{taken}");
}

#[tokio::test]
async fn every_reply_has_its_class() {
    let (wait, retry) = (Outcome::Wait(Some(GREYLISTED)), Outcome::Retry);
    let table = [
        ("GREETING", Reply::Say("421 too busy"), retry.clone(), "SMTP 421"),
        ("GREETING", Reply::Say("554 go away"), Outcome::Misconfigured, "SMTP 554"),
        ("GREETING", Reply::Drop, retry.clone(), "no SMTP answer"),
        ("GREETING", Reply::Say("<html>not a relay</html>"), retry.clone(), "no SMTP answer"),
        ("MAIL", Reply::Say("451 try later"), wait.clone(), "SMTP 451"),
        ("MAIL", Reply::Say("553 sender not allowed"), Outcome::Misconfigured, "SMTP 553"),
        ("MAIL", Reply::Say("530 log in first"), Outcome::Misconfigured, "SMTP 530"),
        ("RCPT", Reply::Say("450 greylisted"), wait.clone(), "SMTP 450"),
        ("RCPT", Reply::Say("451 greylisted"), wait.clone(), "SMTP 451"),
        ("RCPT", Reply::Say("550 no such user"), Outcome::Dead, "SMTP 550"),
        ("RCPT", Reply::Say("421 closing"), retry.clone(), "SMTP 421"),
        ("RCPT", Reply::Drop, retry.clone(), "no SMTP answer"),
        ("DATA", Reply::Say("452 no room"), wait.clone(), "SMTP 452"),
        ("DATA", Reply::Say("554 no"), Outcome::Dead, "SMTP 554"),
        (".", Reply::Say("451 scanner down"), wait, "SMTP 451"),
        (".", Reply::Say("552 too large"), Outcome::Dead, "SMTP 552"),
        (".", Reply::Say("421 closing"), retry.clone(), "SMTP 421"),
        (".", Reply::Drop, retry, "no SMTP answer (in doubt: the answer after DATA was lost)"),
        ("QUIT", Reply::Say("500 what?"), Outcome::Delivered, "SMTP 250"),
        ("QUIT", Reply::Drop, Outcome::Delivered, "SMTP 250"),
    ];
    for (to, reply, outcome, status) in table {
        let relay = FakeRelay::start(when(to, reply.clone())).await;
        let report = attempt(&relay.sink(&["soc@example.org"])).await;
        assert_eq!((&report.outcome, report.status.as_str()), (&outcome, status), "{to} {reply:?}: {report:?}");
    }
}

#[tokio::test]
async fn a_copy_after_a_lost_answer_has_the_same_bytes() {
    let relay = FakeRelay::start(when(".", Reply::Drop)).await;
    let sink = relay.sink(&["soc@example.org"]);
    let mail = delivery(&sink, &alert_titled("x"), Form::Full);
    for _ in 0..2 {
        assert_eq!(sink.send(&mail).await.outcome, Outcome::Retry);
    }
    let mails = relay.mails();
    assert_eq!(mails[0], mails[1]);
    assert!(mails[0].contains(&format!("Message-ID: <{}@example.org>", mail.delivery_id)), "{}", mails[0]);
}

#[tokio::test]
async fn recipients_have_fates_of_their_own_and_nobody_gets_a_copy() {
    let tries = StdMutex::new(0);
    let relay = FakeRelay::start(move |command| match command {
        "RCPT TO:<gone@example.org>" => Some(Reply::Say("550 5.1.1 no such user")),
        "RCPT TO:<grey@example.org>" => {
            let mut tries = tries.lock().expect("not poisoned");
            *tries += 1;
            (*tries == 1).then_some(Reply::Say("450 4.7.1 greylisted"))
        }
        _ => None,
    })
    .await;
    let sink = relay.sink(&["soc@example.org", "gone@example.org", "grey@example.org"]);
    let mail = delivery(&sink, &alert_titled("x"), Form::Full);

    let first = sink.send(&mail).await;
    assert_eq!(first.outcome, Outcome::Later(GREYLISTED), "the lane goes on: {first:?}");
    assert_eq!(first.status, "SMTP 450 (1 taken, 1 refused: gone@example.org, 1 not yet)");
    assert!(first.excerpt.contains("grey@example.org: 4.7.1 greylisted"), "{first:?}");
    assert!(first.excerpt.contains("gone@example.org: 5.1.1 no such user"), "{first:?}");

    let second = sink.send(&mail).await;
    assert_eq!(second.outcome, Outcome::Dead, "one will never have it, and somebody must hear of that");
    assert_eq!(second.status, "SMTP 550 (2 taken, 1 refused: gone@example.org)");
    let asked =
        |name: &str| relay.heard().iter().filter(|line| **line == format!("RCPT TO:<{name}@example.org>")).count();
    assert_eq!((asked("soc"), asked("gone"), asked("grey")), (1, 1, 2));
    assert_eq!(relay.mails().len(), 2);

    let replayed = sink.send(&mail).await;
    assert_eq!(replayed.outcome, Outcome::Dead);
    assert_eq!((asked("soc"), asked("gone"), asked("grey")), (1, 2, 2), "those who have it get no copy");
    assert_eq!(relay.mails().len(), 2);
}

#[tokio::test]
async fn a_recipient_that_comes_back_is_reached_by_a_replay_and_the_mail_is_forgotten() {
    let tries = StdMutex::new(0);
    let relay = FakeRelay::start(move |command| {
        let mut tries = tries.lock().expect("not poisoned");
        *tries += u32::from(command == "RCPT TO:<gone@example.org>");
        (command == "RCPT TO:<gone@example.org>" && *tries == 1).then_some(Reply::Say("550 5.1.1 no such user"))
    })
    .await;
    let sink = relay.sink(&["soc@example.org", "gone@example.org"]);
    let mail = delivery(&sink, &alert_titled("x"), Form::Full);
    let first = sink.send(&mail).await;
    assert_eq!(first.outcome, Outcome::Dead);
    assert_eq!(first.status, "SMTP 550 (1 taken, 1 refused: gone@example.org)");
    assert!(first.excerpt.contains("gone@example.org: 5.1.1 no such user"), "{first:?}");
    assert_eq!(sink.send(&mail).await.outcome, Outcome::Delivered);
    assert_eq!(relay.heard().iter().filter(|line| **line == "RCPT TO:<soc@example.org>").count(), 1);
    assert!(sink.partial.lock().expect("not poisoned").is_empty(), "a settled mail is forgotten");
}

#[tokio::test]
async fn a_refused_log_in_is_misconfigured_and_shows_no_secret() {
    let login = STANDARD.encode(format!("\0vigie\0{CANARY}"));
    let echo: &'static str = Box::leak(format!("535 5.7.8 bad login {CANARY} {login}").into_boxed_str());
    let busy = Reply::Say("454 4.7.0 log-in server down");
    for (reply, outcome) in [(Reply::Say(echo), Outcome::Misconfigured), (busy, Outcome::Retry)] {
        let relay = FakeRelay::start(when("AUTH", reply)).await;
        let smtp = Url::parse(&format!("smtp://vigie:{CANARY}@{}", relay.address)).expect("valid");
        let sink = EmailSink::new(EmailOptions { smtp, ..options(relay.address) }).expect("valid");
        let report = attempt(&sink).await;
        assert_eq!(report.outcome, outcome, "{report:?}");
        let shown = format!("{report:?} {sink:?}");
        assert!(!shown.contains(CANARY) && !shown.contains(&login), "{shown}");
        assert_eq!(relay.heard().iter().filter(|line| **line == format!("AUTH PLAIN {login}")).count(), 1);
        assert!(relay.mails().is_empty());
    }
}

#[tokio::test]
async fn a_password_is_taken_as_it_is_or_decoded_from_the_url() {
    let relay = FakeRelay::start(|_| None).await;
    let login = format!("AUTH PLAIN {}", STANDARD.encode("\0a@b\0p/@:%"));
    let smtp = Url::parse(&format!("smtp://a%40b:p%2F%40%3A%25@{}", relay.address)).expect("valid");
    let apart =
        EmailOptions { user: Some("a@b".into()), password: Some(Secret::new("p/@:%")), ..options(relay.address) };
    for options in [EmailOptions { smtp, ..options(relay.address) }, apart] {
        assert_eq!(attempt(&EmailSink::new(options).expect("valid")).await.outcome, Outcome::Delivered);
    }
    assert_eq!(relay.heard().iter().filter(|line| **line == login).count(), 2);
}

#[tokio::test]
async fn nothing_is_said_to_a_relay_without_the_tls_that_was_asked_for() {
    let relay = FakeRelay::start(|_| None).await;
    let with = |scheme: &str| {
        let smtp = Url::parse(&format!("{scheme}://vigie:{CANARY}@{}", relay.address)).expect("valid");
        EmailSink::new(EmailOptions { smtp, ..options(relay.address) }).expect("valid")
    };
    let report = attempt(&with("smtp+starttls")).await;
    assert_eq!(report.status, "the relay offers no STARTTLS");
    assert_eq!(report.outcome, Outcome::Misconfigured);
    let report = attempt(&with("smtps")).await;
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "TLS failed"));
    assert!(relay.heard().iter().all(|line| line.starts_with("EHLO") || !line.contains("AUTH")), "{:?}", relay.heard());
    assert!(relay.mails().is_empty());
}

#[tokio::test]
async fn a_relay_that_is_down_is_retried_by_the_ladder() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let report = attempt(&EmailSink::new(options(closed)).expect("valid")).await;
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "connection refused"));
}

#[tokio::test]
async fn a_relay_that_stalls_is_left_after_the_limit() {
    let relay = FakeRelay::start(when("DATA", Reply::Stall)).await;
    let sink = relay.sink(&["soc@example.org"]);
    let heard = async {
        while !relay.heard().iter().any(|line| line == "DATA") {
            tokio::task::yield_now().await;
        }
        // From here on nothing moves but time.
        tokio::time::pause();
        std::future::pending::<()>().await
    };
    let report = tokio::select! { report = attempt(&sink) => report, () = heard => unreachable!("never ends") };
    assert_eq!((report.outcome, report.status.as_str()), (Outcome::Retry, "timed out"));
}

#[tokio::test]
async fn the_relay_is_logged_in_to_and_gets_no_mail_to_ask() {
    use crate::sink::probe::{Probe, Verdict};
    for (said, expected) in [
        ("235 welcome", Verdict::Holds),
        ("535 5.7.8 no such log-in", Verdict::Refused),
        ("454 4.7.0 not now", Verdict::NotNow),
    ] {
        let relay = FakeRelay::start(move |line| line.starts_with("AUTH").then_some(Reply::Say(said))).await;
        let (user, password) = (Some("vigie".to_owned()), Some(Secret::new(CANARY)));
        let sink = EmailSink::new(EmailOptions { user, password, ..options(relay.address) }).expect("valid options");
        let Probe::Asks(asking) = sink.probe() else { panic!("it can be asked") };
        let probed = asking.await;
        assert_eq!((probed[0].verdict(), probed[0].asked), (expected, "EHLO, AUTH, QUIT"), "{probed:?}");
        assert!(!format!("{probed:?}").contains(CANARY));
        assert!(!relay.heard().iter().any(|line| line.starts_with("MAIL") || line.starts_with("RCPT")));
    }
}
