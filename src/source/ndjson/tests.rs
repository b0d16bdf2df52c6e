//! Lines as files give them: identity, time, rotation, truncation, poison.

use std::io::Write as _;

use super::*;
use crate::clock::TokioClock;
use crate::store::memory::MemoryStore;

fn source(path: &std::path::Path, follow: bool) -> NdjsonSource {
    let fields = Fields { event_type: vec!["action.name".into()], ..Fields::default() };
    let (name, path, lateness) = ("file".into(), Some(path.to_owned()), Duration::from_secs(60));
    NdjsonSource::new(NdjsonOptions { name, path, fields, follow, lateness }, Arc::new(TokioClock::starting_at(now())))
}

/// After all that these files tell of.
fn now() -> DateTime<Utc> {
    "2026-11-25T00:00:00Z".parse().expect("a stamp")
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

/// Writes a file that was last changed so many seconds after the first.
fn write(path: &std::path::Path, text: &str, at_s: u64) {
    std::fs::write(path, text).expect("written");
    let changed = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + at_s);
    std::fs::File::options().append(true).open(path).and_then(|file| file.set_modified(changed)).expect("set");
}

/// Fetches until nothing comes for two looks.
async fn drain(source: &mut NdjsonSource, mut cursor: Cursor) -> (Vec<String>, Vec<Notice>) {
    let (mut events, mut notices, mut idle) = (Vec::new(), Vec::new(), 0);
    for _ in 0..50 {
        let fetched = fetch(source, Some(&cursor)).await;
        idle = if fetched.events.is_empty() { idle + 1 } else { 0 };
        assert_eq!(fetched.poison, []);
        events.extend(ids(&fetched).into_iter().map(str::to_owned));
        notices.extend(fetched.notices);
        cursor = fetched.cursor;
        if fetched.finished || idle == 3 {
            break;
        }
    }
    (events, notices)
}

#[tokio::test]
async fn the_rest_of_a_file_that_was_rotated_meanwhile_is_read_first() {
    for (name, follow) in [("log.1", true), ("log-20260301", true), ("log.2026-03-01", false), ("log.1", false)] {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        std::fs::write(&path, line(0)).expect("written");
        let before = fetch(&mut source(&path, follow), None).await;
        assert_eq!(ids(&before), ["e0"]);
        // The last line of the old file was never ended; a lock and a link are no logs.
        std::fs::write(&path, format!("{}{}{}", line(0), line(1), line(2).trim_end())).expect("written");
        std::fs::rename(&path, dir.path().join(name)).expect("renamed");
        std::fs::write(dir.path().join("log.lock"), "not json\n").expect("written");
        std::fs::write(&path, line(3)).expect("written");
        let mut again = source(&path, follow);
        let (events, notices) = drain(&mut again, before.cursor.clone()).await;
        assert_eq!((events, notices), (["e1", "e2", "e3"].map(str::to_owned).to_vec(), Vec::new()), "{name} {follow}");
    }
}

#[tokio::test]
async fn files_between_the_rotated_one_and_the_present_one_are_read_in_their_order() {
    for follow in [true, false] {
        let dir = tempfile::tempdir().expect("dir");
        let (path, place) = (dir.path().join("log"), |name: &str| dir.path().join(name));
        std::fs::write(&path, line(0)).expect("written");
        let before = fetch(&mut source(&path, follow), None).await;
        std::fs::rename(&path, place("log.10")).expect("renamed");
        write(&place("log.10"), &format!("{}{}", line(0), line(1)), 10);
        write(&place("log.11"), &line(90), 5);
        write(&place("log.9"), &line(2), 20);
        write(&place("log.1"), &line(3), 30);
        write(&place("log.index"), "not json\n", 25);
        std::os::unix::fs::symlink(place("log.index"), place("log.8")).expect("linked");
        write(&path, &line(4), 40);
        let first = fetch(&mut source(&path, follow), Some(&before.cursor)).await;
        assert_eq!(ids(&first).first(), Some(&"e1"));
        let (mut events, notices) = drain(&mut source(&path, follow), before.cursor.clone()).await;
        assert_eq!((events.join(" "), notices), ("e1 e2 e3 e4".to_owned(), Vec::new()), "follow: {follow}");
        // A file that was read and is changed by somebody does not come again.
        let mut reading = source(&path, true);
        let (mut looked, mut seen) = (fetch(&mut reading, Some(&before.cursor)).await, Vec::new());
        for _ in 0..10 {
            seen.extend(ids(&looked).into_iter().map(str::to_owned));
            if seen.len() == 2 {
                write(&place("log.10"), &format!("{}{}", line(0), line(1)), 35);
            }
            looked = fetch(&mut reading, Some(&looked.cursor)).await;
        }
        assert_eq!(seen.join(" "), "e1 e2 e3 e4");
        write(&place("log.10"), &format!("{}{}", line(0), line(1)), 10);
        // A restart in between goes on where it was.
        (events, _) = drain(&mut source(&path, follow), first.cursor.clone()).await;
        assert_eq!([ids(&first).join(" "), events.join(" ")].join(" ").trim_end(), "e1 e2 e3 e4");
    }
}

#[tokio::test]
async fn a_rotated_file_that_is_gone_or_cut_is_told() {
    for (name, kept) in [("elsewhere", true), ("log.1", false), ("logs.1", true)] {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        std::fs::write(&path, line(0)).expect("written");
        let before = fetch(&mut source(&path, true), None).await;
        let text = if kept { format!("{}{}", line(0), line(1)) } else { "{}\n".to_owned() };
        std::fs::write(&path, text).expect("written");
        std::fs::rename(&path, dir.path().join(name)).expect("renamed");
        std::fs::write(&path, line(3)).expect("written");
        let (events, notices) = drain(&mut source(&path, true), before.cursor).await;
        assert_eq!(events, ["e3"], "{name}");
        assert_eq!(notices.iter().map(|notice| notice.kind).collect::<Vec<_>>(), [NoticeKind::AnchorMissing], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_finite_file_is_settled_at_its_end_up_to_its_newest_event_over_a_restart() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("log");
    let newest = "{\"id\":\"newest\",\"time\":1750000000}\n{\"id\":\"ahead\",\"time\":4000000000}\n";
    let rest: String = (0..600).map(line).collect();
    std::fs::write(&path, format!("{newest}{rest}")).expect("written");
    let first = fetch(&mut source(&path, false), None).await;
    assert!(!first.finished && first.settled_at.is_none(), "more may come, in any order");
    let last = fetch(&mut source(&path, false), Some(&first.cursor)).await;
    assert!(last.finished);
    let settled_s = last.settled_at.map(|at| at.timestamp());
    assert_eq!(settled_s, Some(1_750_000_000), "neither the last line nor what is dated ahead of now");
}

#[tokio::test(start_paused = true)]
async fn a_followed_file_is_settled_up_to_now_less_its_lateness_once_it_is_read() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("log");
    std::fs::write(&path, (0..600).map(line).collect::<String>()).expect("written");
    let mut source = source(&path, true);
    let first = fetch(&mut source, None).await;
    assert!(!first.caught_up && first.settled_at.is_none(), "what stands in the file is not late");
    let read = fetch(&mut source, Some(&first.cursor)).await;
    assert_eq!(read.settled_at, Some(now() - TimeDelta::seconds(60)));
    tokio::time::advance(Duration::from_secs(3_600)).await;
    let idle = fetch(&mut source, Some(&read.cursor)).await;
    assert_eq!(idle.settled_at, Some(now() + TimeDelta::seconds(3_540)), "time goes on without a line");
}
