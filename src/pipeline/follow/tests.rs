//! What is told and when: the decision by itself, then over a store whose process dies at any look.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt as _;
use vigie_engine::engine::Fold;

use super::*;
use crate::pipeline::BoxFuture;
use crate::sink::format::{Format, Shape};
use crate::sink::stdout::StdoutSink;
use crate::store::archive::DeliveryFilter;
use crate::store::contract::{at, batch};
use crate::store::follow::Due;
use crate::store::memory::MemoryStore;
use crate::store::{IngestBatch, Store};

const MINUTE: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(3600);

fn minute(number: i64) -> DateTime<Utc> {
    at(number * 60)
}

fn row(told_count: u64, told: i64, changed: i64, closed: bool) -> FollowUp {
    FollowUp {
        alert_id: "a".into(),
        sink: "chat".into(),
        number: 0,
        told_count,
        told_at: minute(told),
        changed_at: minute(changed),
        closed,
    }
}

#[test]
fn what_is_told_follows_from_row_count_and_time() {
    let updates = Follow { every: Some(10 * MINUTE), closing: false, keeps: None };
    let closing = Follow { every: None, closing: true, keeps: None };
    let both = Follow { every: Some(10 * MINUTE), closing: true, keeps: None };
    let wait = |minutes: Option<i64>| (None, minutes);
    let more = |minutes: Option<i64>| (Some(Told::More), minutes);
    let end = (Some(Told::Closing { quiet: QUIET }), None);
    for (case, follow, read, count, now, expected) in [
        ("nothing came", updates, row(1, 0, 0, false), 1, 30, wait(None)),
        ("too early", updates, row(1, 0, 3, false), 2, 9, wait(Some(10))),
        ("in time", updates, row(1, 0, 3, false), 2, 10, more(None)),
        ("long after", updates, row(1, 0, 3, false), 2, 500, more(None)),
        ("not quiet yet", closing, row(1, 0, 0, false), 1, 59, wait(Some(60))),
        ("quiet", closing, row(1, 0, 0, false), 1, 60, end),
        ("a match put it off", closing, row(1, 0, 30, false), 2, 60, wait(Some(90))),
        ("told already", closing, row(2, 90, 30, true), 2, 91, wait(None)),
        ("open again", closing, row(2, 90, 100, true), 3, 101, wait(Some(160))),
        ("the update is first", both, row(1, 0, 3, false), 2, 5, wait(Some(10))),
        ("then the note", both, row(1, 0, 3, false), 2, 10, more(Some(63))),
        ("one of the two", both, row(1, 55, 3, false), 2, 64, end),
        ("the note alone is owed", both, row(2, 10, 3, false), 2, 11, wait(Some(63))),
        ("a clock that was set back", updates, row(1, 5000, 5000, false), 2, 0, wait(Some(10))),
    ] {
        let (told, look) = decide(&read, count, follow, QUIET, minute(now));
        assert_eq!((told, look.due_at), (expected.0, expected.1.map(minute)), "{case}");
        let told_at =
            if told.is_some() { now } else { read.told_at.min(minute(now)).timestamp() / 60 - at(0).timestamp() / 60 };
        let not_before = follow.every.map(|_| minute(told_at + 10));
        assert_eq!(look.not_before, not_before, "{case}");
    }
}

#[test]
fn what_is_held_open_is_told_again_until_it_is_quiet_and_at_once_when_it_opens_again() {
    let keeps = Some(22 * MINUTE);
    let held = Follow { every: None, closing: true, keeps };
    let unclosed = Follow { every: None, closing: false, keeps };
    let updated = Follow { every: Some(10 * MINUTE), closing: true, keeps };
    let wait = |due: Option<i64>| (None, due);
    let still = |due| (Some(Told::Still), due);
    let more = |due| (Some(Told::More), due);
    let end = (Some(Told::Closing { quiet: QUIET }), None);
    for (case, follow, read, count, now, expected) in [
        ("just posted", held, row(1, 0, 0, false), 1, 0, wait(Some(22))),
        ("not yet", held, row(1, 0, 0, false), 1, 21, wait(Some(22))),
        ("again", held, row(1, 0, 0, false), 1, 22, still(Some(44))),
        ("once more, then the note", held, row(1, 44, 0, false), 1, 45, wait(Some(60))),
        ("the last before the note", held, row(1, 22, 0, false), 1, 44, still(Some(60))),
        ("the note ends it", held, row(1, 44, 0, false), 1, 60, end),
        ("late for both", held, row(1, 0, 0, false), 1, 500, end),
        ("what came is told with it", held, row(1, 0, 10, false), 3, 22, more(Some(44))),
        ("ended", held, row(1, 60, 0, true), 1, 500, wait(None)),
        ("opens again at once", held, row(1, 60, 61, true), 2, 61, more(Some(83))),
        ("without a note it is let go", unclosed, row(1, 44, 0, false), 1, 45, wait(None)),
        ("quiet without a note", unclosed, row(1, 0, 0, false), 1, 60, wait(None)),
        ("a match after it was let go", unclosed, row(1, 44, 100, false), 2, 100, more(Some(122))),
        ("an update is sooner", updated, row(1, 0, 5, false), 2, 10, more(Some(32))),
        ("nothing for an update", updated, row(1, 0, 0, false), 1, 10, wait(Some(22))),
        ("a clock that was set back", held, row(1, 5000, 5000, false), 1, 0, wait(Some(22))),
    ] {
        let (told, look) = decide(&read, count, follow, QUIET, minute(now));
        assert_eq!((told, look.due_at), (expected.0, expected.1.map(minute)), "{case}");
    }
    let (_, look) = decide(&row(1, 44, 0, false), 1, updated, QUIET, minute(60));
    let at_once = look.after_match(minute(61)).due_at;
    assert_eq!(at_once, Some(minute(61)), "a match after the note waits for no update's time");
}

/// A clock that the test sets.
#[derive(Debug, Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> DateTime<Utc> {
        // Set wrong by a day: nothing waits by it.
        self.steady() + TimeDelta::days(1)
    }

    fn steady(&self) -> DateTime<Utc> {
        minute(i64::try_from(self.0.load(Ordering::Relaxed)).expect("small"))
    }
}

/// When the process dies in a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    Before,
    After,
}

/// A store whose process dies, as the script says.
struct Mortal {
    store: MemoryStore,
    deaths: Mutex<Vec<Option<Death>>>,
}

impl FollowUps for Mortal {
    fn due(&self, now: DateTime<Utc>) -> BoxFuture<'_, Result<Due>> {
        self.store.due(now)
    }

    fn advance(&self, moves: Vec<FollowMove>, at: DateTime<Utc>, due_at: DateTime<Utc>) -> BoxFuture<'_, Result<()>> {
        let death = self.deaths.lock().expect("not poisoned").pop().flatten();
        let died = || Box::pin(std::future::ready(Err(StoreError::Fatal("killed".into()))));
        match death {
            Some(Death::Before) => died(),
            Some(Death::After) => {
                self.store.advance(moves, at, due_at).now_or_never().expect("never waits").expect("stored");
                died()
            }
            None => self.store.advance(moves, at, due_at),
        }
    }
}

fn outlet(name: &str, follow: Option<Follow>) -> Outlet {
    let sink = Arc::new(StdoutSink::new(Shape::Json(Format::Native), false, Arc::new(Mutex::new(std::io::sink()))));
    Outlet { name: name.into(), sink, follow }
}

fn now<T>(call: impl Future<Output = Result<T>>) -> T {
    call.now_or_never().expect("never waits").expect("stored")
}

const BOTH: Follow = Follow { every: Some(Duration::from_secs(600)), closing: true, keeps: None };
const HELD: Follow = Follow { every: None, closing: true, keeps: Some(Duration::from_secs(1_320)) };

/// One alert to two sinks, one of which is told again; matches come at some minutes; the process may die in each look and
/// then starts anew. What was stored for the sinks, by time of commit.
fn life(
    both: Follow,
    matches: &[u64],
    minutes: u64,
    mut death: impl FnMut() -> Option<Death>,
) -> Vec<(String, String, String)> {
    let store = MemoryStore::new();
    let clock = Arc::new(Hand::default());
    let outlets = vec![outlet("chat", Some(both)), outlet("mail", None), outlet("pager", Some(both))];
    let mut first = batch("a", 0, &["chat", "mail"]);
    first.follow_ups = begin(&first.alerts[0].alert, &first.deliveries, &outlets, at(0));
    now(store.commit(first));
    let mut count = 1;
    for minute_now in 0..minutes {
        clock.0.store(minute_now, Ordering::Relaxed);
        let came = matches.iter().filter(|at| **at == minute_now).count() as u64;
        if came > 0 {
            count += came;
            let at = clock.steady();
            let fold = Fold { alert_id: "a".into(), count, first_at: minute(0), last_at: at, event_ids: Vec::new() };
            let batch =
                IngestBatch { source: "main".into(), folds: vec![fold], at: Some(at), ..IngestBatch::default() };
            now(store.commit(batch));
        }
        loop {
            let follower = Follower {
                rows: Arc::new(Mortal { store: store.clone(), deaths: Mutex::new(vec![death()]) }),
                alerts: Arc::new(store.clone()),
                outlets: outlets.clone(),
                quiets: Quiets::default(),
                clock: clock.clone(),
                wake: Wake::default(),
            };
            if follower.look().now_or_never().expect("never waits").is_ok() {
                break;
            }
        }
    }
    let mut rows = now(store.deliveries(&DeliveryFilter::default()));
    rows.reverse();
    let body = |id: &str| now(store.delivery(id)).expect("stored").body;
    rows.iter()
        .map(|row| {
            (
                row.sink.clone(),
                (row.created_at - TimeDelta::days(i64::from(row.created_at != at(0)))).to_rfc3339(),
                body(&row.delivery_id),
            )
        })
        .collect()
}

#[test]
fn an_alert_that_goes_on_is_told_again_and_closed_once() {
    let told = life(BOTH, &[1, 2, 12, 40, 41, 41], 300, || None);
    let updates: Vec<(String, serde_json::Value)> = told
        .iter()
        .filter_map(|(sink, at, body)| {
            let json: serde_json::Value = serde_json::from_str(body).ok()?;
            assert_eq!(sink, "chat", "only who asked, and only who got the alert");
            Some((at.get(11..16)?.to_owned(), json))
        })
        .collect();
    let shown: Vec<String> = updates
        .iter()
        .map(|(at, json)| {
            format!("{at} {} +{} of {}", json["kind"].as_str().unwrap_or_default(), json["more"], json["count"])
        })
        .collect();
    assert_eq!(
        shown,
        [
            "00:10 more +2 of 3",
            "00:20 more +1 of 4",
            "00:40 more +1 of 5",
            "00:50 more +2 of 7",
            "01:41 closing +0 of 7"
        ]
    );
    for (index, (_, json)) in updates.iter().enumerate() {
        let number = u32::try_from(index + 1).expect("few");
        assert_eq!(json["number"], number);
        assert_eq!(json["delivery_id"].as_str(), Some(update_id("a", "chat", number).as_str()));
        assert_eq!(json["alert_delivery_id"].as_str(), Some(crate::sink::delivery_id("a", "chat").as_str()));
    }
    assert_eq!(told.len(), 2 + updates.len());
}

#[test]
fn a_match_after_the_closing_note_opens_the_alert_again() {
    let told = life(BOTH, &[200], 400, || None);
    let kinds: Vec<String> = told
        .iter()
        .filter_map(|(_, at, body)| {
            let json: serde_json::Value = serde_json::from_str(body).ok()?;
            Some(format!("{} {}", at.get(11..16)?, json["kind"].as_str()?))
        })
        .collect();
    assert_eq!(kinds, ["01:00 closing", "03:20 more", "04:20 closing"]);
}

#[test]
fn what_is_held_open_hears_of_it_at_half_of_its_end_and_of_its_end() {
    let told = life(HELD, &[30, 200], 400, || None);
    let kinds: Vec<String> = told
        .iter()
        .filter_map(|(_, at, body)| {
            let json: serde_json::Value = serde_json::from_str(body).ok()?;
            Some(format!("{} {}", at.get(11..16)?, json["kind"].as_str()?))
        })
        .collect();
    let expected = [
        "00:22 still",
        "00:44 more",
        "01:06 still",
        "01:28 still",
        "01:30 closing",
        "03:20 more",
        "03:42 still",
        "04:04 still",
        "04:20 closing",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn whoever_is_only_kept_informed_is_looked_at_from_the_start() {
    let keeps = Follow { every: None, closing: false, keeps: HELD.keeps };
    let first = batch("a", 0, &["chat"]);
    let rows = begin(&first.alerts[0].alert, &first.deliveries, &[outlet("chat", Some(keeps))], at(0));
    assert_eq!(rows[0].when, Look { not_before: None, due_at: Some(at(0)) });
}

#[test]
fn dying_at_any_look_loses_and_repeats_nothing() {
    for seed in 0..200_u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut draw = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let matches: Vec<u64> = (0..draw(12)).map(|_| draw(150)).collect();
        let follow = if seed % 2 == 0 { BOTH } else { HELD };
        let undisturbed = life(follow, &matches, 260, || None);
        let mortal = life(follow, &matches, 260, || [Some(Death::Before), Some(Death::After), None][draw(3) as usize]);
        assert_eq!(mortal, undisturbed, "seed {seed}, matches {matches:?}");
    }
}

#[test]
fn a_sink_that_no_longer_asks_is_followed_no_more() {
    let store = MemoryStore::new();
    let clock = Arc::new(Hand::default());
    let asks = vec![outlet("chat", Some(Follow { every: None, closing: true, keeps: None }))];
    let mut first = batch("a", 0, &["chat"]);
    first.follow_ups = begin(&first.alerts[0].alert, &first.deliveries, &asks, at(0));
    assert_eq!(first.follow_ups.len(), 1);
    now(store.commit(first));
    let follower = Follower {
        rows: Arc::new(store.clone()),
        alerts: Arc::new(store.clone()),
        outlets: vec![outlet("chat", None)],
        quiets: Quiets::default(),
        clock,
        wake: Wake::default(),
    };
    now(follower.look());
    assert_eq!(now(store.due(minute(9_999))), Due::default());
    assert_eq!(now(store.deliveries(&DeliveryFilter::default())).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_it_at_once_and_a_broken_store_ends_it_with_an_error() {
    let follower = |deaths: Vec<Option<Death>>| {
        let store = MemoryStore::new();
        let outlets = vec![outlet("chat", Some(Follow { every: None, closing: true, keeps: None }))];
        let mut first = batch("a", 0, &["chat"]);
        first.follow_ups = begin(&first.alerts[0].alert, &first.deliveries, &outlets, at(0));
        now(store.commit(first));
        Arc::new(Follower {
            rows: Arc::new(Mortal { store: store.clone(), deaths: Mutex::new(deaths) }),
            alerts: Arc::new(store),
            outlets,
            quiets: Quiets::default(),
            clock: Arc::new(Hand::default()),
            wake: Wake::default(),
        })
    };
    let stop = CancellationToken::new();
    stop.cancel();
    let started = tokio::time::Instant::now();
    follower(Vec::new()).run(stop).await.expect("stopped");
    assert!(started.elapsed() < MIN_SLEEP);
    let ended = follower(vec![Some(Death::Before)]).run(CancellationToken::new()).await;
    assert!(matches!(ended, Err(StoreError::Fatal(_))), "{ended:?}");
}
