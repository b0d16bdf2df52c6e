//! What the contract suite cannot see: the file, the lock, damage, a full disk, retention.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use chrono::TimeDelta;
use tempfile::TempDir;

use super::*;
use crate::sink::update::update_id;
use crate::source::{Cursor, Held};
use crate::store::NewDelivery;
use crate::store::archive::{AlertFilter, DeliveryFilter, Retried};
use crate::store::contract::{self, SOURCE, alert, at, batch, delivery, event};
use crate::store::follow::{Due, FollowMove, FollowUps, Look, NewFollowUp, Step};
use crate::store::{NewAlert, StoredEvent};
use crate::store::{Resolution, StoreError};

fn small() -> SqliteOptions {
    SqliteOptions { ballast_bytes: 256 * 1024, ..SqliteOptions::daemon() }
}

fn opened() -> (SqliteStore, TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    (SqliteStore::open(dir.path(), &small()).expect("opened"), dir)
}

fn reopened(dir: &TempDir) -> SqliteStore {
    SqliteStore::open(dir.path(), &small()).expect("opened again")
}

async fn sees(store: &SqliteStore, ids: &[String]) -> Vec<bool> {
    let held = store.held(SOURCE, ids).await.expect("readable");
    held.into_iter().map(|held| held != Held::Nothing).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn settlement(delivery: &Delivery, resolution: Resolution, started_at: DateTime<Utc>) -> Settlement {
    Settlement {
        delivery_id: delivery.delivery_id.clone(),
        resolution,
        started_at,
        latency_ms: 5,
        status: "HTTP 200".into(),
        excerpt: String::new(),
        receipt: None,
    }
}

async fn claim_and_settle(store: &SqliteStore, resolution: Resolution, when: DateTime<Utc>) -> usize {
    let claimed = store.claim("chat", when, when + TimeDelta::minutes(1), 64).await.expect("claimed");
    let settlements = claimed.iter().map(|delivery| settlement(delivery, resolution.clone(), when)).collect();
    store.settle("chat", settlements, None).await.expect("settled");
    claimed.len()
}

contract::suite!(opened());

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let (store, dir) = opened();
    store.commit(batch("a", 10, &["chat", "mail"])).await.expect("committed");
    assert_eq!(claim_and_settle(&store, Resolution::RetryAt(at(500)), at(11)).await, 1);
    let lane = LaneState { step: 2, paused_until: Some(at(60)), reason: "HTTP 503".into() };
    store.settle("chat", Vec::new(), Some(lane.clone())).await.expect("settled");
    let before = (store.deliveries(&DeliveryFilter::default()).await, store.queue("chat").await);
    drop(store);
    let store = reopened(&dir);
    let loaded = store.load().await.expect("readable");
    assert_eq!(loaded.cursors, [(SOURCE.to_owned(), Cursor("after a".into()))]);
    assert_eq!(loaded.lanes, [("chat".to_owned(), lane)]);
    assert_eq!(sees(&store, &["a".into()]).await, [true]);
    let after = (store.deliveries(&DeliveryFilter::default()).await, store.queue("chat").await);
    assert_eq!(after.0.expect("readable"), before.0.expect("readable"));
    assert_eq!(after.1.expect("readable"), before.1.expect("readable"));
    let again = store.claim("chat", at(500), at(600), 1).await.expect("claimed");
    assert_eq!((again[0].attempts, again[0].body.as_slice()), (1, &b"a for chat"[..]));
}

#[tokio::test]
async fn updates_survive_and_are_made_once_whenever_the_process_dies() {
    let look = |due_at: Option<i64>| Look { not_before: Some(at(20)), due_at: due_at.map(at) };
    let mut first = batch("a", 10, &["chat"]);
    first.follow_ups =
        vec![NewFollowUp { alert_id: "a".into(), sink: "chat".into(), told_count: 1, when: look(Some(30)) }];
    let (store, dir) = opened();
    store.commit(first).await.expect("committed");
    drop(store);
    // It dies between the look and the step: the look is made again.
    let store = reopened(&dir);
    let lost = store.due(at(30)).await.expect("readable").rows.remove(0);
    drop(store);
    let store = reopened(&dir);
    let read = store.due(at(31)).await.expect("readable").rows.remove(0);
    assert_eq!(read, lost);
    let update = NewDelivery::new(update_id("a", "chat", 1), "a".into(), "chat".into(), b"one".to_vec());
    let step = Step::Tell { delivery: Box::new(update), closed: false, then: look(None) };
    let moved = FollowMove { read, count: Some(1), step };
    store.advance(vec![moved.clone()], at(31), at(31)).await.expect("stored");
    drop(store);
    // It dies before it knows that the step was taken, and would take it again.
    let store = reopened(&dir);
    assert_eq!(store.due(at(900)).await.expect("readable"), Due::default());
    store.advance(vec![moved], at(32), at(32)).await.expect("stored");
    let listed = store.deliveries(&DeliveryFilter::default()).await.expect("readable");
    let ids: Vec<&str> = listed.iter().map(|row| row.delivery_id.as_str()).collect();
    assert_eq!(ids, [update_id("a", "chat", 1), crate::sink::delivery_id("a", "chat")]);
    // With its alert it goes.
    for _ in 0..2 {
        assert_eq!(claim_and_settle(&store, Resolution::Delivered { unconfirmed: false }, at(40)).await, 1);
    }
    let removed = store.maintain(at(40 + 90 * 86_400), Duration::from_secs(30 * 86_400)).await.expect("removed");
    assert_eq!((removed.alerts, removed.deliveries), (1, 2));
    let left: i64 = Connection::open(dir.path().join(directory::DATABASE))
        .and_then(|connection| connection.query_row("SELECT count(*) FROM follow_ups", [], |row| row.get(0)))
        .expect("readable");
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_store_of_the_first_format_is_brought_up_to_date() {
    let (store, dir) = opened();
    store.commit(batch("a", 10, &["chat"])).await.expect("committed");
    drop(store);
    aged(&dir);
    let refused = SqliteStore::open(dir.path(), &SqliteOptions::tool()).expect_err("a command does not migrate");
    assert!(chain(&refused).contains("format 1"), "{refused:?}");
    let store = reopened(&dir);
    assert_eq!(store.due(at(900)).await.expect("readable"), Due::default());
    assert_eq!(claim_and_settle(&store, Resolution::RetryAt(at(500)), at(11)).await, 1, "what was owed is owed");
}

#[tokio::test]
async fn what_a_dead_process_had_claimed_is_due_at_the_next_start() {
    let (store, dir) = opened();
    store.commit(batch("a", 10, &["chat"])).await.expect("committed");
    assert_eq!(store.claim("chat", at(11), at(500), 64).await.expect("claimed").len(), 1);
    assert_eq!(
        store.claim("chat", at(12), at(500), 64).await.expect("claimed").len(),
        0,
        "the lease holds while it lives"
    );
    drop(store);
    let store = reopened(&dir);
    let again = store.claim("chat", at(12), at(500), 64).await.expect("claimed");
    assert_eq!(again.len(), 1, "nobody else can be sending it");
    assert_eq!(again[0].attempts, 1, "the attempt that may have been made counts");
}

#[tokio::test]
async fn a_second_daemon_is_refused_with_the_pid_of_the_first() {
    let (store, dir) = opened();
    let refused = SqliteStore::open(dir.path(), &small()).expect_err("locked");
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused:?}");
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
    store.commit(batch("a", 10, &["chat"])).await.expect("the first goes on");
    drop(store);
    drop(reopened(&dir));
}

#[tokio::test]
async fn a_command_works_beside_the_daemon() {
    let (daemon, dir) = opened();
    daemon.commit(batch("a", 10, &["chat"])).await.expect("committed");
    assert_eq!(claim_and_settle(&daemon, Resolution::Dead, at(11)).await, 1);
    let tool = SqliteStore::open(dir.path(), &SqliteOptions::tool()).expect("no lock needed");
    let listed =
        tool.deliveries(&DeliveryFilter { failed: true, ..DeliveryFilter::default() }).await.expect("readable");
    assert_eq!(tool.retry(&listed[0].delivery_id, at(20)).await.expect("written"), Retried::Due);
    drop(tool);
    assert_eq!(claim_and_settle(&daemon, Resolution::Dead, at(20)).await, 1, "the daemon sees what the command did");
    daemon.commit(batch("b", 30, &["chat"])).await.expect("committed");
    let empty = tempfile::tempdir().expect("a directory");
    let missing = SqliteStore::open(empty.path(), &SqliteOptions::tool()).expect_err("nothing there");
    assert!(matches!(missing, OpenError::Missing(_)), "{missing:?}");
    assert_eq!(fs::read_dir(empty.path()).expect("readable").count(), 0, "a command creates nothing");
}

#[test]
fn formats_of_other_programs_and_later_releases_are_refused() {
    let (store, dir) = opened();
    drop(store);
    let path = dir.path().join(directory::DATABASE);
    let edit =
        |sql: &str| Connection::open(&path).and_then(|connection| connection.execute_batch(sql)).expect("edited");
    let refused = |options: SqliteOptions| chain(&SqliteStore::open(dir.path(), &options).expect_err("refused"));
    edit("PRAGMA user_version = 99");
    for options in [small(), SqliteOptions::tool()] {
        let text = refused(options);
        assert!(text.contains("format 99") && text.contains("newer release"), "{text}");
    }
    edit("PRAGMA user_version = 2; PRAGMA application_id = 7");
    assert!(refused(small()).contains("another program"));
    fs::remove_file(&path).expect("removed");
    edit("CREATE TABLE theirs (x)");
    assert!(refused(small()).contains("another program"));
    fs::write(&path, "").expect("emptied");
    assert!(refused(SqliteOptions::tool()).contains("format 0"));
}

/// Makes the file one of version 1.
fn aged(dir: &TempDir) {
    let file = Connection::open(dir.path().join(directory::DATABASE)).expect("a store");
    // What the versions since then added, taken away again.
    let undone = "ALTER TABLE lanes DROP COLUMN asked_at;
         DROP TABLE silences; DROP INDEX deliveries_muted; DROP INDEX deliveries_fallback; DROP INDEX deliveries_repeat;
         ALTER TABLE deliveries DROP COLUMN note; ALTER TABLE deliveries DROP COLUMN muted_by;
         ALTER TABLE deliveries DROP COLUMN look_at; ALTER TABLE deliveries DROP COLUMN fallback;
         ALTER TABLE deliveries DROP COLUMN repeat_key; ALTER TABLE deliveries DROP COLUMN told_in;
         ALTER TABLE deliveries DROP COLUMN about; ALTER TABLE deliveries DROP COLUMN receipt;
         DROP TABLE follow_ups; DROP INDEX alerts_muted; DROP INDEX events_poison;
         ALTER TABLE events DROP COLUMN digest; PRAGMA user_version = 1";
    file.execute_batch(undone).expect("edited");
}

#[tokio::test]
async fn a_store_of_version_1_is_migrated_or_recovered_and_its_ids_stay_known() {
    let ids = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
    for by_recovery in [false, true] {
        let (store, dir) = opened();
        store.commit(batch("a", 10, &["chat"])).await.expect("committed");
        drop(store);
        aged(&dir);
        let tool = SqliteStore::open(dir.path(), &SqliteOptions::tool()).expect_err("to be migrated first");
        assert!(chain(&tool).contains("format 1"), "{}", chain(&tool));
        if by_recovery {
            let saved = recover(dir.path(), "v1").expect("recovered");
            assert!(saved.tables.iter().all(|table| table.complete), "{saved:?}");
        }
        let store = reopened(&dir);
        store.commit(batch("b", 20, &["chat"])).await.expect("committed");
        let held = store.held(SOURCE, &ids).await.expect("readable");
        assert_eq!(held, [Held::Unknown, Held::Content(event("b", at(20)).digest), Held::Nothing]);
        assert_eq!(store.queue("chat").await.expect("readable").depth, 2);
    }
}

#[test]
fn others_cannot_look_in() {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("deep/state");
    fs::create_dir_all(&dir).expect("created");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("opened up");
    let store = SqliteStore::open(&dir, &small()).expect("opened");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).expect("readable") {
        let path = entry.expect("readable").path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
        names.push(path.file_name().expect("named").to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, ["ballast", "lock", "vigie.db", "vigie.db-shm", "vigie.db-wal"]);
    assert_eq!(fs::metadata(dir.join("ballast")).expect("there").len(), 256 * 1024);
    drop(store);
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_kept() {
    let (store, dir) = opened();
    for index in 0..200 {
        store.commit(batch(&format!("e{index}"), index, &["chat"])).await.expect("committed");
    }
    drop(store);
    let path = dir.path().join(directory::DATABASE);
    let whole = fs::read(&path).expect("readable");
    let mut pages = whole.clone();
    pages[4096..].chunks_mut(4096).step_by(2).for_each(|page| page.fill(0xA5));
    let mut header = whole.clone();
    header[..64].fill(b'x');
    let cut = whole[..whole.len() / 2].to_vec();
    for damaged in [pages, header, cut] {
        fs::write(&path, &damaged).expect("written");
        let refused = SqliteStore::open(dir.path(), &small()).expect_err("damaged");
        assert!(matches!(refused, OpenError::Damaged { .. }), "{}", chain(&refused));
        assert!(refused.to_string().contains("state recover"), "{refused}");
        let now = fs::read(&path).expect("readable");
        let place = now.iter().zip(&damaged).position(|(now, before)| now != before);
        assert_eq!((now.len(), place), (damaged.len(), None), "the file is kept as it is");
    }
    fs::write(&path, &whole).expect("written");
    assert_eq!(reopened(&dir).queue("chat").await.expect("readable").depth, 200);
}

#[tokio::test]
async fn a_full_store_undoes_the_batch_and_goes_on_when_there_is_space() {
    let dir = tempfile::tempdir().expect("a directory");
    let limited = SqliteOptions { max_file_bytes: Some(400 * 1024), ..small() };
    let store = SqliteStore::open(dir.path(), &limited).expect("opened");
    let large = |name: &str| {
        let mut batch = batch(name, 10, &["chat"]);
        batch.deliveries[0].body = vec![b'x'; 50 * 1024];
        batch
    };
    let mut stored = 0;
    let full = loop {
        match store.commit(large(&format!("e{stored}"))).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "the limit holds");
    };
    assert!(matches!(full, StoreError::Full(_)), "{}", chain(&full));
    let missing = format!("e{stored}");
    assert_eq!(sees(&store, std::slice::from_ref(&missing)).await, [false]);
    assert_eq!(store.queue("chat").await.expect("readable").depth, stored);
    assert_eq!(
        store.load().await.expect("readable").cursors,
        [(SOURCE.to_owned(), Cursor(format!("after e{}", stored - 1)))]
    );
    drop(store);
    let store = reopened(&dir);
    store.commit(large(&missing)).await.expect("there is space again");
    assert_eq!(store.queue("chat").await.expect("readable").depth, stored + 1);
}

#[tokio::test]
async fn requests_that_wait_together_stand_or_fall_alone() {
    let (store, _dir) = opened();
    let outcomes = futures_util::future::join_all((0..64).map(|index| {
        // Every fourth batch repeats the id of the one before it.
        let name = if index % 4 == 3 { format!("e{}", index - 1) } else { format!("e{index}") };
        store.commit(batch(&name, index, &["chat"]))
    }))
    .await;
    for (index, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_err(), index % 4 == 3, "{index}");
    }
    assert_eq!(store.count(SOURCE, at(0), at(1000)).await.expect("readable"), 48);
    assert_eq!(store.queue("chat").await.expect("readable").depth, 48);
}

#[tokio::test]
async fn the_archive_answers() {
    let (store, _dir) = opened();
    let mut first = batch("a", 10, &["chat"]);
    first.events.push(event("plain", at(9)));
    first.events.push(StoredEvent { raw: r#"{"event_type":"USER_LOGIN"}"#.into(), ..event("b", at(12)) });
    first.events.push(StoredEvent { poison: Some("no JSON".into()), raw: "<".into(), ..event("bad", at(11)) });
    first.alerts.push(NewAlert { muted_by: Some("dry run".into()), ..alert("muted", &event("plain", at(9))) });
    store.commit(first).await.expect("committed");
    store.commit(batch("later", 100, &["chat"])).await.expect("committed");
    let listing = &store;
    let ids = |filter: AlertFilter| async move {
        let rows = listing.alerts(&filter).await.expect("readable");
        rows.into_iter().map(|row| row.alert.alert_id).collect::<Vec<_>>().join(" ")
    };
    let any = AlertFilter::default;
    assert_eq!(ids(any()).await, "later muted a");
    assert_eq!(ids(AlertFilter { limit: 1, ..any() }).await, "later");
    assert_eq!(ids(AlertFilter { since: Some(at(100)), ..any() }).await, "later");
    assert_eq!(ids(AlertFilter { rule: Some("other".into()), ..any() }).await, "");
    assert_eq!(
        ids(AlertFilter { source: Some(SOURCE.into()), rule: Some("app-created".into()), ..any() }).await.len(),
        13
    );
    use vigie_engine::rule::Severity::{Critical, High};
    assert_eq!(ids(AlertFilter { min_severity: Some(Critical), ..any() }).await, "");
    assert_eq!(ids(AlertFilter { min_severity: Some(High), ..any() }).await, "later muted a");
    let muted = store.alert("muted").await.expect("readable").expect("stored");
    assert_eq!((muted.row.muted_by.as_deref(), muted.deliveries.len()), (Some("dry run"), 0));
    assert_eq!(muted.row.alert.event.get(), &*event("plain", at(9)).raw);
    let bad = store.event(SOURCE, "bad").await.expect("readable").expect("stored");
    assert_eq!((bad.raw.as_deref(), bad.poison.as_deref()), (Some("<"), Some("no JSON")));
    assert!(store.event("other", "bad").await.expect("readable").is_none());
    let types = store.event_types().await.expect("readable");
    let types: Vec<_> = types.iter().map(|row| (row.event_type.as_str(), row.first_at)).collect();
    assert_eq!(types, [("APP_CREATE", at(9)), ("USER_LOGIN", at(12))]);
}

const DONE: Resolution = Resolution::Delivered { unconfirmed: false };
const DAY: i64 = 86_400;

async fn maintained(store: &SqliteStore, day: i64) -> crate::store::archive::Maintained {
    store.maintain(at(day * DAY), Duration::from_secs(30 * 86_400)).await.expect("maintained")
}

#[tokio::test]
async fn retention_keeps_what_is_owed_or_could_be_shown_again() {
    let (store, _dir) = opened();
    store.commit(batch("done", 0, &["chat"])).await.expect("committed");
    assert_eq!(claim_and_settle(&store, Resolution::Delivered { unconfirmed: true }, at(1)).await, 1);
    store.commit(batch("dead", 0, &["chat"])).await.expect("committed");
    assert_eq!(claim_and_settle(&store, Resolution::Dead, at(1)).await, 1);
    store.commit(batch("owed", 0, &["chat", "mail"])).await.expect("committed");
    store.commit(batch("silent", 0, &[])).await.expect("committed");
    let future = IngestBatch {
        source: SOURCE.into(),
        events: vec![event("future", at(40 * DAY))],
        at: Some(at(0)),
        ..IngestBatch::default()
    };
    store.commit(future).await.expect("committed");
    let seen = ["done", "dead", "owed", "silent", "future"].map(str::to_owned);
    assert_eq!(maintained(&store, 29).await, Default::default());

    let first = maintained(&store, 60).await;
    assert_eq!((first.alerts, first.deliveries, first.events, first.seen), (2, 1, 5, 0));
    assert_eq!(sees(&store, &seen).await, [true; 5], "the source was not polled since");
    assert_eq!(store.count(SOURCE, at(-1), at(1)).await.expect("readable"), 4);
    for kept in ["dead", "owed"] {
        let shown = store.alert(kept).await.expect("readable").expect("kept");
        assert_eq!(shown.row.alert.event.get(), &*event(kept, at(0)).raw, "the alert took its event over");
    }
    assert!(store.event(SOURCE, "done").await.expect("readable").expect("the id stays").raw.is_none());
    assert_eq!(store.replay(Some("chat"), at(0), at(60 * DAY)).await.expect("written"), 1);
    assert_eq!(store.queue("chat").await.expect("readable").depth, 2);

    // Polled again; nothing is taken within 31 days of that.
    store.commit(batch("fresh", 30 * DAY, &[])).await.expect("committed");
    assert_eq!(maintained(&store, 61).await.seen, 0);
    store.commit(batch("polled", 61 * DAY, &[])).await.expect("committed");
    assert_eq!(maintained(&store, 61).await.seen, 4);
    assert_eq!(sees(&store, &seen).await, [false, false, false, false, true]);
    assert_eq!(maintained(&store, 61).await.seen, 0);
    store.commit(batch("polled again", 72 * DAY, &[])).await.expect("committed");
    assert_eq!(maintained(&store, 72).await.seen, 2, "future and fresh");
}

#[tokio::test]
async fn retention_works_through_many_rows_and_gives_space_back() {
    let (store, dir) = opened();
    for chunk in 0..12 {
        let mut many = batch(&format!("c{chunk}"), 0, &["chat"]);
        for index in 0..200 {
            let name = format!("c{chunk}-{index}");
            let row = StoredEvent { raw: format!("\"{}\"", "x".repeat(1900)).into(), ..event(&name, at(0)) };
            many.alerts.push(alert(&name, &row));
            many.deliveries.push(delivery(&name, "chat"));
            many.events.push(row);
        }
        store.commit(many).await.expect("committed");
    }
    while claim_and_settle(&store, Resolution::Delivered { unconfirmed: false }, at(1)).await > 0 {}
    drop(store);
    let store = reopened(&dir);
    let before_bytes = store.store_bytes().expect("readable");
    store.commit(batch("now", 40 * DAY, &[])).await.expect("committed");
    let done = maintained(&store, 40).await;
    assert_eq!((done.alerts, done.deliveries, done.events, done.seen, done.more), (2412, 2412, 2412, 2412, false));
    drop(store);
    let store = reopened(&dir);
    let after_bytes = store.store_bytes().expect("readable");
    assert!(after_bytes * 4 < before_bytes, "{before_bytes} -> {after_bytes}");
    assert_eq!(sees(&store, &["now".into()]).await, [true]);
}

#[tokio::test]
async fn recovery_saves_what_can_be_read() {
    let (store, dir) = opened();
    for index in 0..300 {
        store.commit(batch(&format!("e{index}"), index, &["chat"])).await.expect("committed");
    }
    let running = recover(dir.path(), "now").expect_err("a daemon runs on it");
    assert!(matches!(running, OpenError::Locked { .. }), "{running:?}");
    drop(store);
    let path = dir.path().join(directory::DATABASE);
    let whole = recover(dir.path(), "whole").expect("recovered");
    assert!(whole.tables.iter().all(|table| table.complete), "{whole:?}");
    let rows = |recovered: &Recovered, name: &str| {
        recovered.tables.iter().find(|table| table.name == name).map(|table| (table.rows, table.complete))
    };
    assert_eq!(rows(&whole, "deliveries"), Some((300, true)));
    assert_eq!(rows(&whole, "events"), Some((300, true)));
    let store = reopened(&dir);
    assert_eq!(store.queue("chat").await.expect("readable").depth, 300);
    assert_eq!(
        store.alert("e7").await.expect("readable").expect("saved").row.alert.event.get(),
        &*event("e7", at(7)).raw
    );
    drop(store);

    // One page in the middle of the deliveries is overwritten.
    let root: u32 = Connection::open(&path)
        .and_then(|file| {
            let sql = "SELECT pageno FROM dbstat WHERE name = 'deliveries' AND pagetype = 'leaf' ORDER BY path LIMIT 1 OFFSET 3";
            file.query_row(sql, [], |row| row.get(0))
        })
        .expect("a page");
    let mut bytes = fs::read(&path).expect("readable");
    let start = (root as usize - 1) * 4096;
    bytes[start..start + 4096].fill(0xA5);
    fs::write(&path, &bytes).expect("written");
    let refused = SqliteStore::open(dir.path(), &small()).expect_err("damaged");
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
    let taken = recover(dir.path(), "whole").expect_err("that name is taken");
    assert!(chain(&taken).contains("exists already"), "{}", chain(&taken));
    assert!(recover(dir.path(), "../x").is_err());
    let partly = recover(dir.path(), "2026-03-01").expect("recovered");
    assert!(fs::read(&partly.damaged).expect("kept") == bytes);
    let (saved, complete) = rows(&partly, "deliveries").expect("told");
    assert!(!complete && saved > 200 && saved < 300, "{saved}");
    assert_eq!(rows(&partly, "sources"), Some((1, true)));
    let store = reopened(&dir);
    assert_eq!(store.queue("chat").await.expect("readable").depth, saved);
    assert_eq!(store.load().await.expect("readable").cursors, [(SOURCE.to_owned(), Cursor("after e299".into()))]);
    drop(store);

    fs::write(&path, "no database at all, by any means").expect("written");
    let nothing = recover(dir.path(), "nothing").expect("recovered");
    assert!(nothing.tables.iter().all(|table| table.rows == 0 && !table.complete), "{nothing:?}");
    assert_eq!(reopened(&dir).load().await.expect("readable").cursors, []);
}

/// A file system of its own, unmounted at the end.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let size = format!("size={bytes}");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(dir))
    }

    /// Leaves no space at all.
    fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.0.path().join("filler");
        let mut file = fs::File::create(&path).expect("created");
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![1_u8; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "unmounted");
    }
}

#[tokio::test]
async fn a_full_disk_still_lets_deliveries_be_settled() {
    let Some(disk) = SmallDisk::mount(24 << 20) else {
        println!("skipped: this process may not mount a small tmpfs");
        return;
    };
    let dir = disk.0.path().join("state");
    let store = SqliteStore::open(&dir, &SqliteOptions::daemon()).expect("opened");
    for index in 0..100 {
        store.commit(batch(&format!("e{index}"), 0, &["chat"])).await.expect("committed");
    }
    let first = store.claim("chat", at(1), at(61), 64).await.expect("claimed");
    let filler = disk.fill();
    let mut refused = None;
    for index in 0..64 {
        let mut large = batch(&format!("large{index}"), 2, &["chat"]);
        large.deliveries[0].body = vec![b'x'; 200_000];
        if let Err(error) = store.commit(large).await {
            refused = Some((index, error));
            break;
        }
    }
    let (index, error) = refused.expect("the disk is full");
    assert!(matches!(error, StoreError::Full(_)), "{}", chain(&error));
    let missing = format!("large{index}");
    assert_eq!(sees(&store, &[missing]).await, [false]);
    assert!(dir.join("ballast").exists(), "ingest may not use it up");

    let settlements = first.iter().map(|delivery| settlement(delivery, DONE, at(3))).collect();
    store.settle("chat", settlements, None).await.expect("settled on a full disk");
    assert!(!dir.join("ballast").exists());
    let claim = store.claim("chat", at(200), at(260), 64).await;
    assert!(matches!(claim, Err(StoreError::Full(_))), "no new attempt on a full disk: {claim:?}");
    fs::remove_file(filler).expect("removed");
    store.commit(batch("later", 4, &["chat"])).await.expect("there is space again");
    assert!(dir.join("ballast").exists(), "set aside again");
    drop(store);

    let filler = disk.fill();
    let store = SqliteStore::open(&dir, &SqliteOptions::daemon()).expect("a daemon starts on a full disk");
    assert_eq!(store.queue("chat").await.expect("readable").depth, 37 + index);
    let refused = store.commit(batch("after", 5, &["chat"])).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    let lane = LaneState { step: 1, paused_until: None, reason: "HTTP 503".into() };
    store.settle("chat", Vec::new(), Some(lane)).await.expect("settled on a full disk");
    fs::remove_file(filler).expect("removed");
    store.commit(batch("after", 5, &["chat"])).await.expect("there is space again");
    assert!(dir.join("ballast").exists(), "set aside again");
    assert_eq!(store.claim("chat", at(200), at(260), 64).await.expect("claimed").len() as u64, (38 + index).min(64));
}
