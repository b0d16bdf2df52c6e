//! Lines as files give them: identity, time, rotation, truncation, poison.

use std::io::Write as _;

use super::*;
use crate::store::memory::MemoryStore;

fn source(path: &std::path::Path, follow: bool) -> NdjsonSource {
    let fields = Fields { event_type: vec!["action.name".into()], ..Fields::default() };
    NdjsonSource::new(NdjsonOptions { name: "file".into(), path: Some(path.to_owned()), fields, follow })
}

async fn fetch(source: &mut NdjsonSource, cursor: Option<&Cursor>) -> Fetched {
    source.fetch(cursor, &MemoryStore::new()).await.expect("readable")
}

fn ids(fetched: &Fetched) -> Vec<&str> {
    fetched.events.iter().map(vigie_engine::event::Event::id).collect()
}

fn line(id: u32) -> String {
    format!("{{\"id\":\"e{id}\",\"time\":{}}}\n", 1_700_000_000 + id)
}

#[tokio::test]
async fn lines_become_events_or_poison() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("log");
    let long = "x".repeat(400_000);
    std::fs::write(
        &path,
        format!(
            "{{\"id\":\"a\",\"created_at\":\"2026-01-02T03:04:05Z\",\"action\":{{\"name\":\"LOGIN\"}}}}\n\n\
             {{\"@timestamp\":1700000000123}}\r\nnot json\n[1]\n{{\"id\":\"b\"}}\n\"{long}\"\n\
             {{\"id\":7,\"time\":\"1700000000\"}}"
        ),
    )
    .expect("written");
    let fetched = fetch(&mut source(&path, false), None).await;
    assert!(fetched.finished && fetched.caught_up);
    assert_eq!(fetched.events.len(), 3);
    let first = &fetched.events[0];
    assert_eq!(first.id(), "a");
    assert!(first.raw().starts_with("{\"event_type\":\"LOGIN\",\"id\":\"a\""), "{}", first.raw());
    assert_eq!(fetched.events[1].id().len(), 32);
    assert_eq!(fetched.events[1].created_at().timestamp_millis(), 1_700_000_000_123);
    assert_eq!((fetched.events[2].id(), fetched.events[2].created_at().timestamp()), ("7", 1_700_000_000));
    let errors: Vec<&str> = fetched.poison.iter().map(|poison| poison.error.as_str()).collect();
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(errors[1].contains("object") && errors[2].contains("no time") && errors[3].contains("too large"));
    assert!(fetched.poison[3].raw.len() <= vigie_engine::event::MAX_EVENT_BYTES);
}

#[tokio::test]
async fn what_a_rule_can_read_is_no_poison() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("log");
    let lines = [
        r#"{"id":"a","time":1700000000,"user":"x\ud800y"}"#,
        r#"{"id":"b\ud800","time":1700000000,"size":1e999}"#,
        r#"{"id":"c","time":1700000000,"action":{"name":"\udfffLOGIN"},"n":-1e999}"#,
        r#"{"id":1e999,"time":1700000000}"#,
    ];
    std::fs::write(&path, lines.join("\n")).expect("written");
    let fetched = fetch(&mut source(&path, false), None).await;
    assert!(fetched.poison.is_empty(), "{:?}", fetched.poison);
    assert_eq!(ids(&fetched), ["a", "b\u{fffd}", "c", "1e999"]);
    assert_eq!(fetched.events[0].text("user").as_deref(), Some("x\u{fffd}y"));
    assert_eq!(fetched.events[2].text("event_type").as_deref(), Some("\u{fffd}LOGIN"));
}

#[tokio::test]
async fn lines_that_share_an_id_are_all_read_and_told_of() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("log");
    std::fs::write(&path, "{\"id\":1,\"time\":1700000000}\n{\"id\":1,\"time\":1700000001}\n").expect("written");
    let fetched = fetch(&mut source(&path, false), None).await;
    assert!(ids(&fetched)[0] == "1" && ids(&fetched)[1].starts_with("1#"), "{:?}", ids(&fetched));
    assert!(fetched.notices.iter().any(|notice| notice.kind == NoticeKind::IdReused), "{:?}", fetched.notices);
}

#[tokio::test]
async fn batches_are_bounded_repeatable_and_resumed() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("log");
    std::fs::write(&path, (0..1_201).map(line).collect::<String>()).expect("written");
    let mut reading = source(&path, false);
    let first = fetch(&mut reading, None).await;
    assert_eq!((first.events.len(), first.finished), (500, false));
    let again = fetch(&mut reading, None).await;
    assert_eq!(ids(&again), ids(&first));
    let second = fetch(&mut reading, Some(&first.cursor)).await;
    assert_eq!(ids(&second)[0], "e500");
    let after_restart = fetch(&mut source(&path, false), Some(&first.cursor)).await;
    assert_eq!(ids(&after_restart), ids(&second));
    let third = fetch(&mut reading, Some(&second.cursor)).await;
    assert_eq!((third.events.len(), third.finished), (201, true));
}

#[tokio::test]
async fn a_followed_file_grows_rotates_and_is_truncated() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("log");
    std::fs::write(&path, format!("{}{{\"id\":\"e1\"", line(0))).expect("written");
    let mut reading = source(&path, true);
    let first = fetch(&mut reading, None).await;
    assert_eq!((ids(&first), first.finished, first.caught_up), (vec!["e0"], false, true));

    let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("open");
    file.write_all(b",\"time\":1700000001}\n").expect("written");
    let second = fetch(&mut reading, Some(&first.cursor)).await;
    assert_eq!(ids(&second), ["e1"]);

    file.write_all(line(2).as_bytes()).expect("written");
    std::fs::rename(&path, dir.path().join("log.1")).expect("renamed");
    let gap = fetch(&mut reading, Some(&second.cursor)).await;
    assert_eq!(ids(&gap), ["e2"], "no file has the name for a moment");
    std::fs::write(&path, line(3)).expect("written");
    let noticed = fetch(&mut reading, Some(&gap.cursor)).await;
    assert!(ids(&noticed).is_empty());
    file.write_all(line(20).as_bytes()).expect("written");
    file.write_all(line(21).trim_end().as_bytes()).expect("written");
    let third = fetch(&mut reading, Some(&noticed.cursor)).await;
    assert_eq!(ids(&third), ["e20", "e21", "e3"], "the writer still had the old file");

    std::fs::write(&path, "\n").expect("truncated");
    let fourth = fetch(&mut reading, Some(&third.cursor)).await;
    std::fs::write(&path, format!("\n{}", line(4))).expect("written");
    assert_eq!(ids(&fetch(&mut reading, Some(&fourth.cursor)).await), ["e4"]);
}

#[tokio::test]
async fn what_cannot_be_read_stops_a_finite_source_only() {
    let missing = std::path::Path::new("/nowhere/to/be/found");
    let finite = source(missing, false).fetch(None, &MemoryStore::new()).await.expect_err("missing");
    assert_eq!(finite.fault, Fault::Stop);
    let followed = source(missing, true).fetch(None, &MemoryStore::new()).await.expect_err("missing");
    assert_eq!(followed.fault, Fault::RetryAfter(FOLLOW_INTERVAL));
}
