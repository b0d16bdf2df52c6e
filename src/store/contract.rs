//! The contract of a store, as one suite over every implementation.
//!
//! It never looks inside a store: what a test asserts was read back through the store's own calls. `open` is called once per
//! case and must give an empty store; what needs a file (reopening, locks, damage) is tested beside `sqlite`.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::value::RawValue;
use vigie_engine::alert::{Alert, AlertRule, MAX_ALERT_EVENT_IDS};
use vigie_engine::engine::Fold;
use vigie_engine::event::text_digest;
use vigie_engine::rule::Severity;
use vigie_engine::state::{StateChange, StateKey, StateRows};
use vigie_engine::text::Untrusted;

use super::archive::{AlertDetail, DeliveryDetail, DeliveryFilter, DeliveryRow, DeliveryStatus, Retried};
use super::follow::{Due, FollowMove, FollowUp, FollowUps, Look, MAX_FOLLOW_UPS, NewFollowUp, Step};
use super::hold::{FallbackDue, Fold as HoldFold, Hold, Holds, Standing};
use super::memory::MemoryStore;
use super::sqlite::SqliteStore;
use super::{
    IngestBatch, LaneState, MAX_CLAIM, Maintain, NewAlert, NewDelivery, Queue, Resolution, Result, Settlement, Store,
    StoreError, StoredEvent,
};
use crate::sink::{Delivery, delivery_id};
use crate::source::{Cursor, Held};

/// A store with the part of its archive that the contract covers.
pub(super) trait Subject: Store + FollowUps + Holds {
    async fn alert_of(&self, alert_id: &str) -> Option<AlertDetail>;
    async fn listed(&self, filter: &DeliveryFilter) -> Vec<DeliveryRow>;
    async fn shown(&self, delivery_id: &str) -> Option<DeliveryDetail>;
    async fn retried(&self, delivery_id: &str, now: DateTime<Utc>) -> Retried;
    async fn replayed(&self, sink: Option<&str>, since: DateTime<Utc>, now: DateTime<Utc>) -> u64;
    async fn muted_of(&self, muted_by: &str, after: u64, limit: usize) -> Vec<(u64, Alert)>;
}

macro_rules! subject {
    ($store:ty, $muted:expr) => {
        impl Subject for $store {
            async fn alert_of(&self, alert_id: &str) -> Option<AlertDetail> {
                self.alert(alert_id).await.expect("readable")
            }
            async fn listed(&self, filter: &DeliveryFilter) -> Vec<DeliveryRow> {
                self.deliveries(filter).await.expect("readable")
            }
            async fn shown(&self, delivery_id: &str) -> Option<DeliveryDetail> {
                self.delivery(delivery_id).await.expect("readable")
            }
            async fn retried(&self, delivery_id: &str, now: DateTime<Utc>) -> Retried {
                self.retry(delivery_id, now).await.expect("written")
            }
            async fn replayed(&self, sink: Option<&str>, since: DateTime<Utc>, now: DateTime<Utc>) -> u64 {
                self.replay(sink, since, now).await.expect("written")
            }
            async fn muted_of(&self, muted_by: &str, after: u64, limit: usize) -> Vec<(u64, Alert)> {
                $muted(self, muted_by, after, limit).await
            }
        }
    };
}
subject!(MemoryStore, async |store: &MemoryStore, by: &str, after, limit| store.muted(by, after, limit));
subject!(SqliteStore, async |store: &SqliteStore, by: &str, after, limit| {
    Maintain::muted(store, by, after, limit).await.expect("readable")
});

/// One test per case of the suite, for a store that `$open` makes (with whatever must outlive it).
macro_rules! suite {
    ($open:expr) => {
        $crate::store::contract::suite!($open;
            a_batch_is_visible_as_a_whole, a_failed_batch_leaves_nothing, seen_is_per_source, counts_are_half_open,
            events_of_unknown_sources_are_unseen, a_stored_alert_is_left_as_it_is, a_muted_alert_is_taken_up_later, folds_change_the_alert_and_not_the_body,
            state_is_set_and_removed, state_expires_late, claims_lease_and_count_attempts,
            claims_prefer_the_least_tried_then_the_oldest, claims_take_at_most_64, claims_are_per_sink, settle_ends_a_delivery,
            retry_waits_for_its_time,
            how_long_a_delivery_fails_is_counted_from_its_first_failure_after_a_refusal,
            a_retry_and_a_replay_ask_their_lanes_only, degrading_changes_the_body_once, dead_letters_are_kept_and_replayed,
            released_claims_cost_nothing, late_answers_change_nothing_that_is_done, settle_is_all_or_nothing,
            lanes_survive, what_waits_is_taken_over, follow_ups_wait_for_their_time_and_for_matches, what_is_told_is_one_step_from_what_was_read,
            follow_ups_are_all_or_nothing, what_is_muted_waits_and_ends_in_one_step, what_is_not_confirmed_in_time_goes_elsewhere_once,
            what_waits_folds_once, what_a_route_told_is_found, an_update_finds_the_receipt_of_its_alert, queues_tell_what_is_owed, lists_are_filtered, unicode_is_kept, batches_need_a_time,
        );
    };
    ($open:expr; $($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                let (store, _kept) = $open;
                $crate::store::contract::$case(&store).await;
            }
        )*
    };
}
pub(super) use suite;

pub(super) const SOURCE: &str = "main";

/// A fixed day, `seconds` after its start.
pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    "2026-03-01T00:00:00Z".parse::<DateTime<Utc>>().expect("a time") + TimeDelta::seconds(seconds)
}

pub(super) fn event(id: &str, created_at: DateTime<Utc>) -> StoredEvent {
    let raw = format!(r#"{{"id":"{id}","event_type":"APP_CREATE"}}"#);
    StoredEvent { id: id.into(), created_at, digest: text_digest(&raw), raw: raw.into(), poison: None }
}

pub(super) fn alert(id: &str, event: &StoredEvent) -> NewAlert {
    let rule = AlertRule {
        id: "app-created".into(),
        title: "Application created".into(),
        severity: Severity::High,
        tags: vec!["attack.t1078".into()],
        response: "Ask.".into(),
    };
    let alert = Alert {
        alert_id: id.into(),
        rule,
        source: SOURCE.into(),
        account_id: Some(Untrusted::new("abcd1234")),
        title: Untrusted::new("Application created"),
        first_at: event.created_at,
        last_at: event.created_at,
        count: 1,
        late: None,
        finding: None,
        note: None,
        key: vec![("account_id".into(), Untrusted::new("abcd1234"))],
        reason: Vec::new(),
        event: RawValue::from_string(event.raw.to_string()).expect("JSON"),
        events: vec![event.id.clone()],
    };
    NewAlert { alert, muted_by: None }
}

pub(super) fn delivery(alert_id: &str, sink: &str) -> NewDelivery {
    let body = format!("{alert_id} for {sink}").into_bytes();
    NewDelivery::new(delivery_id(alert_id, sink), alert_id.into(), sink.into(), body)
}

/// One event, one alert on it, one delivery per sink.
pub(crate) fn batch(name: &str, seconds: i64, sinks: &[&str]) -> IngestBatch {
    let event = event(name, at(seconds));
    IngestBatch {
        source: SOURCE.into(),
        cursor: Some(Cursor(format!("after {name}"))),
        alerts: vec![alert(name, &event)],
        events: vec![event],
        deliveries: sinks.iter().map(|sink| delivery(name, sink)).collect(),
        at: Some(at(seconds)),
        ..IngestBatch::default()
    }
}

fn settlement(delivery: &Delivery, resolution: Resolution, seconds: i64) -> Settlement {
    Settlement {
        delivery_id: delivery.delivery_id.clone(),
        resolution,
        started_at: at(seconds),
        latency_ms: 250,
        status: "HTTP 503".into(),
        excerpt: "busy".into(),
        receipt: None,
    }
}

const DONE: Resolution = Resolution::Delivered { unconfirmed: false };

async fn claim_all(store: &impl Subject, sink: &str, seconds: i64) -> Vec<Delivery> {
    store.claim(sink, at(seconds), at(seconds + 60), MAX_CLAIM).await.expect("claimed")
}

async fn claim_one(store: &impl Subject, sink: &str, seconds: i64) -> Delivery {
    let mut claimed = claim_all(store, sink, seconds).await;
    assert_eq!(claimed.len(), 1, "{claimed:?}");
    claimed.remove(0)
}

async fn commit(store: &impl Subject, batch: IngestBatch) {
    store.commit(batch).await.expect("committed");
}

async fn settle(store: &impl Subject, delivery: &Delivery, resolution: Resolution, seconds: i64) {
    let settlements = vec![settlement(delivery, resolution, seconds)];
    store.settle(&delivery.sink, settlements, None).await.expect("settled");
}

async fn queue(store: &impl Subject, sink: &str) -> Queue {
    store.queue(sink).await.expect("readable")
}

async fn sees(store: &impl Subject, ids: &[&str]) -> Vec<bool> {
    let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    store.held(SOURCE, &ids).await.expect("readable").into_iter().map(|held| held != Held::Nothing).collect()
}

fn state(key: &str, value: Option<&str>, expires_at: Option<DateTime<Utc>>) -> StateChange {
    StateChange {
        key: StateKey { rule_id: "r".into(), kind: "fold".into(), key: key.into() },
        value: value.map(str::to_owned),
        expires_at_us: expires_at.map(|at| at.timestamp_micros()),
    }
}

async fn state_of(store: &impl Subject) -> Vec<StateRows> {
    store.load().await.expect("readable").state.all().await.expect("readable")
}

async fn loaded_state(store: &impl Subject) -> Vec<(String, String)> {
    let mut rows: Vec<(String, String)> = state_of(store)
        .await
        .into_iter()
        .flat_map(|part| part.rows)
        .map(|(key, value)| (key.to_string(), value))
        .collect();
    rows.sort();
    rows
}

pub(super) async fn a_batch_is_visible_as_a_whole(store: &impl Subject) {
    let mut first = batch("a", 10, &["chat", "mail"]);
    first.state = vec![state("k", Some("1"), None)];
    commit(store, first).await;
    assert_eq!(sees(store, &["a", "b"]).await, [true, false]);
    let loaded = store.load().await.expect("readable");
    assert_eq!(loaded.cursors, [(SOURCE.to_owned(), Cursor("after a".into()))]);
    assert_eq!(loaded.state.all().await.expect("readable").len(), 1);
    let shown = store.alert_of("a").await.expect("stored");
    assert_eq!(shown.row.alert.event.get(), r#"{"id":"a","event_type":"APP_CREATE"}"#);
    assert_eq!(shown.row.alert.events, ["a"]);
    assert_eq!(shown.row.alert.key, [("account_id".to_owned(), Untrusted::new("abcd1234"))]);
    assert_eq!((shown.row.pending, shown.row.created_at), (2, at(10)));
    let sinks: Vec<&str> = shown.deliveries.iter().map(|delivery| delivery.row.sink.as_str()).collect();
    assert_eq!(sinks, ["chat", "mail"]);
    let claimed = claim_one(store, "mail", 10).await;
    assert_eq!(claimed.body, b"a for mail");
    assert_eq!((claimed.alert_id.as_str(), claimed.attempts, claimed.created_at), ("a", 0, at(10)));
    // A batch without a cursor leaves the source where it stood.
    commit(store, IngestBatch { source: SOURCE.into(), at: Some(at(11)), ..IngestBatch::default() }).await;
    assert_eq!(store.load().await.expect("readable").cursors.len(), 1);
}

pub(super) async fn a_failed_batch_leaves_nothing(store: &impl Subject) {
    commit(store, batch("a", 10, &["chat"])).await;
    let mut again = batch("b", 20, &["chat"]);
    again.events.push(event("a", at(10)));
    let mut twice = batch("b", 20, &["chat"]);
    twice.events.push(event("b", at(20)));
    let mut orphan = batch("b", 20, &["chat"]);
    orphan.deliveries.push(delivery("nobody", "chat"));
    for mut bad in [again, twice, orphan] {
        bad.state = vec![state("k", Some("1"), None)];
        bad.folds = vec![Fold {
            alert_id: "a".into(),
            count: 9,
            first_at: at(0),
            last_at: at(20),
            event_ids: vec!["b".into()],
        }];
        let refused = store.commit(bad).await;
        assert!(matches!(refused, Err(StoreError::Fatal(_))), "{refused:?}");
        assert_eq!(sees(store, &["a", "b"]).await, [true, false]);
        let loaded = store.load().await.expect("readable");
        assert_eq!(loaded.cursors, [(SOURCE.to_owned(), Cursor("after a".into()))]);
        assert!(loaded.state.all().await.expect("readable").is_empty());
        assert!(store.alert_of("b").await.is_none());
        assert_eq!(store.alert_of("a").await.expect("stored").row.alert.count, 1);
        assert_eq!(queue(store, "chat").await.depth, 1);
        assert_eq!(store.count(SOURCE, at(0), at(100)).await.expect("readable"), 1);
    }
    commit(store, batch("b", 20, &["chat"])).await;
    assert_eq!(queue(store, "chat").await.depth, 2);
}

pub(super) async fn seen_is_per_source(store: &impl Subject) {
    commit(store, batch("a", 10, &[])).await;
    let other = IngestBatch {
        source: "other".into(),
        events: vec![event("a", at(11)), event("b", at(12))],
        at: Some(at(12)),
        ..IngestBatch::default()
    };
    commit(store, other).await;
    let ids = ["a".to_owned(), "b".to_owned()];
    let held = store.held("other", &ids).await.expect("readable");
    assert_eq!(held, ids.map(|id| Held::Content(event(&id, at(0)).digest)));
    assert_eq!(sees(store, &["a", "b"]).await, [true, false]);
    assert_eq!(store.count("other", at(0), at(100)).await.expect("readable"), 2);
    assert_eq!(store.count(SOURCE, at(0), at(100)).await.expect("readable"), 1);
}

pub(super) async fn counts_are_half_open(store: &impl Subject) {
    let times: Vec<DateTime<Utc>> =
        [0_i64, 1, 999_999, 1_000_000, -1].iter().map(|micros| at(100) + TimeDelta::microseconds(*micros)).collect();
    let mut events: Vec<StoredEvent> =
        times.iter().enumerate().map(|(index, time)| event(&format!("e{index}"), *time)).collect();
    // Below a microsecond a stamp counts as the microsecond that it lies in.
    events.push(event("nano", at(100) + TimeDelta::nanoseconds(500)));
    commit(store, IngestBatch { source: SOURCE.into(), events, at: Some(at(200)), ..IngestBatch::default() }).await;
    let micros = TimeDelta::microseconds;
    for (from, to, expected) in [
        (at(100), at(101), 4),
        (at(100), at(101) + micros(1), 5),
        (at(100) - micros(1), at(101), 5),
        (at(100), at(100) + micros(1), 2),
        (at(100) + micros(1), at(100) + micros(2), 1),
        (at(100), at(100), 0),
        (at(101), at(100), 0),
        (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC, 6),
    ] {
        assert_eq!(store.count(SOURCE, from, to).await.expect("readable"), expected, "{from} {to}");
    }
}

pub(super) async fn events_of_unknown_sources_are_unseen(store: &impl Subject) {
    assert_eq!(sees(store, &["a", "b"]).await, [false, false]);
    assert_eq!(store.count(SOURCE, at(0), at(100)).await.expect("readable"), 0);
    assert!(store.held(SOURCE, &[]).await.expect("readable").is_empty());
    assert!(claim_all(store, "nowhere", 0).await.is_empty());
    assert_eq!(queue(store, "nowhere").await, Queue::default());
    let loaded = store.load().await.expect("readable");
    assert!(loaded.cursors.is_empty() && loaded.lanes.is_empty());
    assert!(loaded.state.all().await.expect("readable").is_empty());
}

pub(super) async fn a_stored_alert_is_left_as_it_is(store: &impl Subject) {
    commit(store, batch("a", 10, &["chat"])).await;
    let claimed = claim_one(store, "chat", 10).await;
    settle(store, &claimed, DONE, 11).await;
    let mut again = batch("a", 20, &["chat", "mail"]);
    again.events = vec![event("x", at(20))];
    again.deliveries.iter_mut().for_each(|delivery| delivery.body = b"another".to_vec());
    commit(store, again).await;
    assert_eq!(store.alert_of("a").await.expect("stored").row.created_at, at(10));
    assert_eq!(queue(store, "chat").await.depth, 0);
    assert_eq!(claim_one(store, "mail", 20).await.body, b"another");
}

pub(super) async fn a_muted_alert_is_taken_up_later(store: &impl Subject) {
    for name in ["a", "b", "c", "d"] {
        let mut muted = batch(name, 10, &[]);
        muted.alerts.iter_mut().for_each(|new| new.muted_by = (name != "c").then(|| "no route".into()));
        commit(store, muted).await;
    }
    let ids = |page: &[(u64, Alert)]| page.iter().map(|(_, alert)| alert.alert_id.clone()).collect::<Vec<_>>();
    let first = store.muted_of("no route", 0, 2).await;
    assert_eq!(ids(&first), ["a", "b"]);
    let (place, _) = first[1].clone();
    assert_eq!(ids(&store.muted_of("no route", place, 2).await), ["d"]);
    assert!(store.muted_of("dry run", 0, 9).await.is_empty());
    let taken_up = IngestBatch {
        source: SOURCE.into(),
        unmuted: vec!["a".into(), "gone".into()],
        deliveries: vec![delivery("a", "chat")],
        at: Some(at(20)),
        ..IngestBatch::default()
    };
    commit(store, taken_up).await;
    assert_eq!(ids(&store.muted_of("no route", 0, 9).await), ["b", "d"]);
    assert_eq!(store.alert_of("a").await.expect("stored").row.muted_by, None);
    assert_eq!(claim_one(store, "chat", 20).await.alert_id, "a");
}

pub(super) async fn folds_change_the_alert_and_not_the_body(store: &impl Subject) {
    commit(store, batch("a", 10, &["chat"])).await;
    let ids = |range: std::ops::Range<usize>| range.map(|number| format!("f{number}")).collect::<Vec<_>>();
    for (count, event_ids) in [(51, ids(0..50)), (121, ids(45..120))] {
        let fold = Fold { alert_id: "a".into(), count, first_at: at(5), last_at: at(900), event_ids };
        let gone = Fold { alert_id: "removed".into(), ..fold.clone() };
        let batch =
            IngestBatch { source: SOURCE.into(), folds: vec![fold, gone], at: Some(at(900)), ..IngestBatch::default() };
        commit(store, batch).await;
    }
    let alert = store.alert_of("a").await.expect("stored").row.alert;
    assert_eq!((alert.count, alert.first_at, alert.last_at), (121, at(5), at(900)));
    assert_eq!(alert.events.len(), MAX_ALERT_EVENT_IDS);
    assert_eq!(alert.events.first().map(String::as_str), Some("a"));
    assert_eq!(alert.events.last().map(String::as_str), Some("f98"));
    assert_eq!(claim_one(store, "chat", 1000).await.body, b"a for chat");
    assert!(store.alert_of("removed").await.is_none());
}

pub(super) async fn state_is_set_and_removed(store: &impl Subject) {
    let change = |changes: Vec<StateChange>| IngestBatch {
        source: SOURCE.into(),
        cursor: Some(Cursor("c".into())),
        state: changes,
        at: Some(at(0)),
        ..IngestBatch::default()
    };
    commit(store, change(vec![state("a", Some("1"), None), state("b", Some("1"), Some(at(50)))])).await;
    commit(store, change(vec![state("a", Some("2"), Some(at(60))), state("c", None, None)])).await;
    assert_eq!(loaded_state(store).await, [("a".into(), "2".into()), ("b".into(), "1".into())]);
    commit(store, change(vec![state("b", None, None), state("d", Some("4"), None), state("d", None, None)])).await;
    assert_eq!(loaded_state(store).await, [("a".into(), "2".into())]);
}

pub(super) async fn state_expires_late(store: &impl Subject) {
    let day = 86_400;
    let set = IngestBatch {
        source: SOURCE.into(),
        cursor: Some(Cursor("c".into())),
        state: vec![state("short", Some("1"), Some(at(0))), state("for ever", Some("1"), None)],
        at: Some(at(0)),
        ..IngestBatch::default()
    };
    commit(store, set).await;
    let later = |days: i64, changes: Vec<StateChange>| IngestBatch {
        source: SOURCE.into(),
        cursor: Some(Cursor("d".into())),
        state: changes,
        at: Some(at(days * day)),
        ..IngestBatch::default()
    };
    commit(store, later(7, Vec::new())).await;
    assert_eq!(loaded_state(store).await.len(), 2, "an event of a week ago may still come");
    commit(store, later(9, vec![state("old events are read", Some("1"), Some(at(-day)))])).await;
    let kept: Vec<String> = loaded_state(store).await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(kept, ["for ever", "old events are read"]);
}

pub(super) async fn claims_lease_and_count_attempts(store: &impl Subject) {
    commit(store, batch("a", 10, &["chat"])).await;
    assert!(claim_all(store, "chat", 9).await.is_empty(), "not due before it was committed");
    let first = store.claim("chat", at(10), at(40), 8).await.expect("claimed");
    assert_eq!(first.iter().map(|delivery| delivery.attempts).collect::<Vec<_>>(), [0]);
    assert!(store.claim("chat", at(39), at(90), 8).await.expect("claimed").is_empty(), "leased");
    let second = store.claim("chat", at(40), at(70), 8).await.expect("claimed");
    assert_eq!(second.iter().map(|delivery| delivery.attempts).collect::<Vec<_>>(), [1]);
    assert_eq!(second[0].delivery_id, first[0].delivery_id);
    assert_eq!(second[0].body, first[0].body);
    assert_eq!(queue(store, "chat").await.next_due_at, Some(at(70)));
    assert!(store.claim("chat", at(100), at(200), 0).await.expect("claimed").is_empty());
}

pub(super) async fn claims_prefer_the_least_tried_then_the_oldest(store: &impl Subject) {
    for (index, name) in ["a", "b", "c"].iter().enumerate() {
        commit(store, batch(name, 10 + index as i64, &["chat"])).await;
    }
    let first = store.claim("chat", at(20), at(80), 1).await.expect("claimed").remove(0);
    assert_eq!(first.alert_id, "a");
    settle(store, &first, Resolution::RetryAt(at(20)), 20).await;
    let order: Vec<String> = claim_all(store, "chat", 21).await.into_iter().map(|delivery| delivery.alert_id).collect();
    assert_eq!(order, ["b", "c", "a"]);
}

pub(super) async fn claims_take_at_most_64(store: &impl Subject) {
    let mut many = batch("a", 10, &[]);
    for index in 0..70 {
        let name = format!("m{index:02}");
        let event = many.events[0].clone();
        many.alerts.push(alert(&name, &event));
        many.deliveries.push(delivery(&name, "chat"));
    }
    commit(store, many).await;
    let claimed = store.claim("chat", at(10), at(70), 1000).await.expect("claimed");
    assert_eq!(claimed.len(), MAX_CLAIM);
    assert_eq!(claimed[63].alert_id, "m63");
    let settlements = claimed.iter().map(|delivery| settlement(delivery, DONE, 11)).collect();
    store.settle("chat", settlements, None).await.expect("settled");
    assert_eq!(claim_all(store, "chat", 12).await.len(), 6);
    assert_eq!(queue(store, "chat").await.depth, 6);
}

pub(super) async fn claims_are_per_sink(store: &impl Subject) {
    commit(store, batch("a", 10, &["chat", "mail"])).await;
    let chat = claim_one(store, "chat", 10).await;
    let wrong = store.settle("mail", vec![settlement(&chat, DONE, 11)], None).await;
    assert!(matches!(wrong, Err(StoreError::Fatal(_))), "{wrong:?}");
    settle(store, &chat, DONE, 11).await;
    assert_eq!((queue(store, "chat").await.depth, queue(store, "mail").await.depth), (0, 1));
    assert_eq!(claim_one(store, "mail", 10).await.sink, "mail");
}

pub(super) async fn settle_ends_a_delivery(store: &impl Subject) {
    commit(store, batch("a", 10, &["chat", "syslog"])).await;
    for (sink, unconfirmed, expected) in
        [("chat", false, DeliveryStatus::Delivered), ("syslog", true, DeliveryStatus::Unconfirmed)]
    {
        let claimed = claim_one(store, sink, 10).await;
        settle(store, &claimed, Resolution::Delivered { unconfirmed }, 11).await;
        assert!(claim_all(store, sink, 100_000).await.is_empty());
        let shown = store.shown(&claimed.delivery_id).await.expect("kept");
        assert_eq!((shown.row.status, shown.row.attempts, shown.row.next_at), (expected, 1, None));
        assert_eq!(shown.row.settled_at, Some(at(11) + TimeDelta::milliseconds(250)));
        let line = &shown.log[0];
        assert_eq!((line.number, line.started_at, line.latency_ms), (1, at(11), 250));
        assert_eq!((line.status.as_str(), line.excerpt.as_str()), ("HTTP 503", "busy"));
        assert_eq!(store.retried(&claimed.delivery_id, at(12)).await, Retried::AlreadyDelivered);
    }
    assert_eq!(store.alert_of("a").await.expect("stored").row.delivered, 2);
}

pub(super) async fn retry_waits_for_its_time(store: &impl Subject) {
    commit(store, batch("a", 10, &["chat"])).await;
    let claimed = claim_one(store, "chat", 10).await;
    settle(store, &claimed, Resolution::RetryAt(at(30)), 11).await;
    assert!(claim_all(store, "chat", 29).await.is_empty());
    let again = claim_one(store, "chat", 30).await;
    assert_eq!((again.attempts, &again.body, again.created_at), (1, &claimed.body, at(10)));
    settle(store, &again, Resolution::RetryAt(at(5000)), 31).await;
    assert_eq!(store.retried(&again.delivery_id, at(40)).await, Retried::Due);
    assert_eq!(claim_one(store, "chat", 40).await.attempts, 2);
    assert_eq!(store.retried("no such", at(40)).await, Retried::Unknown);
    let log = store.shown(&again.delivery_id).await.expect("kept").log;
    assert_eq!(log.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(log[1].resolution, "retry");
}

/// What counts toward the age at which a delivery is given up: failures since it was last refused, not waiting.
pub(super) async fn how_long_a_delivery_fails_is_counted_from_its_first_failure_after_a_refusal(store: &impl Subject) {
    commit(store, batch("a", 10, &["chat"])).await;
    let steps = [
        (50, Resolution::RetryAt(at(60)), None),
        (60, Resolution::Refused(at(70)), Some(50)),
        (70, Resolution::Refused(at(80)), None),
        (80, Resolution::RetryAt(at(90)), None),
        (90, Resolution::Degraded(at(95), b"plain".to_vec()), Some(80)),
        (95, Resolution::Dead, Some(80)),
    ];
    for (seconds, resolution, expected) in steps {
        let claimed = claim_one(store, "chat", seconds).await;
        assert_eq!(claimed.failing_since, expected.map(at), "at {seconds}");
        settle(store, &claimed, resolution, seconds).await;
    }
    let only = store.replayed(None, at(0), at(1000)).await;
    let revived = claim_one(store, "chat", 1000).await;
    assert_eq!((only, revived.created_at), (1, at(1000)), "a replayed one is young whatever its ledger says");
}

/// Whatever the lane writes meanwhile, it learns that somebody wants it to try; how often it failed is not forgotten.
pub(super) async fn a_retry_and_a_replay_ask_their_lanes_only(store: &impl Subject) {
    commit(store, batch("a", 10, &["chat", "mail", "hook"])).await;
    let (chat, mail) = (claim_one(store, "chat", 10).await, claim_one(store, "mail", 10).await);
    assert_eq!(store.retried(&chat.delivery_id, at(20)).await, Retried::Due);
    let troubled = LaneState { step: 3, paused_until: Some(at(9000)), reason: "HTTP 503".into() };
    for name in ["chat", "mail", "hook"] {
        assert_eq!(queue(store, name).await.asked_at, None, "a lane that is well is not asked: {name}");
        store.settle(name, Vec::new(), Some(troubled.clone())).await.expect("settled");
        assert_eq!(queue(store, name).await.asked_at, None, "{name}");
    }
    assert_eq!(store.retried(&chat.delivery_id, at(40)).await, Retried::Due);
    assert_eq!(store.retried("no such", at(41)).await, Retried::Unknown);
    assert_eq!(store.replayed(None, at(0), at(42)).await, 0, "nothing to replay is no reason to ask");
    settle(store, &mail, Resolution::Dead, 43).await;
    assert_eq!(store.replayed(None, at(0), at(44)).await, 1);
    let asked = async |name| queue(store, name).await.asked_at;
    assert_eq!((asked("chat").await, asked("mail").await, asked("hook").await), (Some(at(40)), Some(at(44)), None));
    let opened = LaneState { paused_until: None, ..troubled.clone() };
    let mut lanes = store.load().await.expect("readable").lanes;
    lanes.sort_by(|left, right| left.0.cmp(&right.0));
    let expected = [("chat", opened.clone()), ("hook", troubled.clone()), ("mail", opened)];
    assert_eq!(lanes, expected.map(|(name, lane)| (name.to_owned(), lane)));
    store.settle("chat", Vec::new(), Some(troubled)).await.expect("settled");
    assert_eq!(asked("chat").await, Some(at(40)), "what the lane writes does not take it away");
    store.settle("chat", Vec::new(), Some(LaneState::default())).await.expect("settled");
    assert_eq!(asked("chat").await, None, "a lane that is well has nothing to do");
}

pub(super) async fn degrading_changes_the_body_once(store: &impl Subject) {
    commit(store, batch("a", 10, &["chat"])).await;
    let claimed = claim_one(store, "chat", 10).await;
    settle(store, &claimed, Resolution::Degraded(at(12), b"plain".to_vec()), 11).await;
    assert!(claim_all(store, "chat", 11).await.is_empty());
    let again = claim_one(store, "chat", 12).await;
    assert_eq!((again.body.as_slice(), again.attempts), (&b"plain"[..], 1));
    assert_eq!(again.delivery_id, claimed.delivery_id);
    assert!(store.shown(&claimed.delivery_id).await.expect("kept").row.degraded);
}

pub(super) async fn dead_letters_are_kept_and_replayed(store: &impl Subject) {
    for name in ["a", "b", "c"] {
        commit(store, batch(name, 10, &["chat", "mail"])).await;
    }
    let claimed = claim_all(store, "chat", 10).await;
    for (delivery, seconds) in claimed.iter().zip([100, 200, 300]) {
        settle(store, delivery, Resolution::Dead, seconds).await;
    }
    let mail = store.claim("mail", at(10), at(9000), 1).await.expect("claimed").remove(0);
    settle(store, &mail, Resolution::Dead, 300).await;
    assert!(claim_all(store, "chat", 100_000).await.is_empty());
    assert_eq!(queue(store, "chat").await, Queue { dead: 3, ..Queue::default() });
    assert_eq!(store.replayed(Some("chat"), at(200), at(1000)).await, 2);
    assert_eq!(queue(store, "chat").await.dead, 1);
    assert_eq!(queue(store, "chat").await.oldest_created_at, Some(at(1000)));
    let revived = claim_all(store, "chat", 1000).await;
    assert_eq!(revived.iter().map(|delivery| delivery.alert_id.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    assert!(revived.iter().all(|delivery| delivery.attempts == 0 && delivery.created_at == at(1000)), "{revived:?}");
    settle(store, &revived[0], DONE, 1001).await;
    let log = store.shown(&revived[0].delivery_id).await.expect("kept").log;
    let told: Vec<&str> = log.iter().map(|line| line.resolution.as_str()).collect();
    assert_eq!(told, ["dead", "delivered"]);
    assert_eq!(store.retried(&claimed[0].delivery_id, at(2000)).await, Retried::Due);
    assert_eq!(claim_all(store, "chat", 2000).await.len(), 2, "the one retried and the one whose lease ran out");
    assert_eq!(store.replayed(None, at(0), at(3000)).await, 1);
    assert_eq!(queue(store, "mail").await.dead, 0);
}

pub(super) async fn released_claims_cost_nothing(store: &impl Subject) {
    commit(store, batch("a", 10, &["chat"])).await;
    let claimed = claim_one(store, "chat", 20).await;
    settle(store, &claimed, Resolution::Released, 21).await;
    assert_eq!(queue(store, "chat").await.next_due_at, Some(at(21)));
    let again = claim_one(store, "chat", 21).await;
    assert_eq!(again.attempts, 0);
    assert!(store.shown(&claimed.delivery_id).await.expect("kept").log.is_empty());
}

pub(super) async fn late_answers_change_nothing_that_is_done(store: &impl Subject) {
    commit(store, batch("a", 10, &["chat"])).await;
    let first = claim_one(store, "chat", 10).await;
    let second = claim_one(store, "chat", 70).await;
    settle(store, &second, DONE, 71).await;
    for late in [
        Resolution::RetryAt(at(80)),
        Resolution::Dead,
        Resolution::Released,
        Resolution::Degraded(at(80), b"x".to_vec()),
        Resolution::Delivered { unconfirmed: true },
    ] {
        settle(store, &first, late, 75).await;
    }
    let shown = store.shown(&first.delivery_id).await.expect("kept");
    assert_eq!((shown.row.status, shown.body.as_str()), (DeliveryStatus::Delivered, "a for chat"));
    assert_eq!(shown.log.len(), 5);
    assert_eq!(queue(store, "chat").await, Queue::default());
    // The other way round: given up, then the answer says that it arrived.
    commit(store, batch("b", 100, &["chat"])).await;
    let lost = claim_one(store, "chat", 100).await;
    settle(store, &lost, Resolution::Dead, 101).await;
    settle(store, &lost, DONE, 102).await;
    assert_eq!(store.shown(&lost.delivery_id).await.expect("kept").row.status, DeliveryStatus::Delivered);
    assert_eq!(queue(store, "chat").await, Queue::default());
}

pub(super) async fn settle_is_all_or_nothing(store: &impl Subject) {
    commit(store, batch("a", 10, &["chat"])).await;
    let claimed = claim_one(store, "chat", 10).await;
    let unknown = Settlement { delivery_id: "nobody".into(), ..settlement(&claimed, DONE, 11) };
    let lane = LaneState { step: 3, paused_until: None, reason: "503".into() };
    let refused = store.settle("chat", vec![settlement(&claimed, DONE, 11), unknown], Some(lane)).await;
    assert!(matches!(refused, Err(StoreError::Fatal(_))), "{refused:?}");
    let shown = store.shown(&claimed.delivery_id).await.expect("kept");
    assert_eq!((shown.row.status, shown.log.len()), (DeliveryStatus::Pending, 0));
    assert!(store.load().await.expect("readable").lanes.is_empty());
}

pub(super) async fn lanes_survive(store: &impl Subject) {
    let lane = LaneState { step: 4, paused_until: Some(at(600)), reason: "HTTP 503".into() };
    store.settle("chat", Vec::new(), Some(lane.clone())).await.expect("settled");
    let warned = LaneState { step: 1, paused_until: None, reason: String::new() };
    store.settle("mail", Vec::new(), Some(warned.clone())).await.expect("settled");
    store.settle("mail", Vec::new(), None).await.expect("settled");
    let mut lanes = store.load().await.expect("readable").lanes;
    lanes.sort_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(lanes, [("chat".to_owned(), lane.clone()), ("mail".to_owned(), warned)]);
    let worse = LaneState { step: 5, ..lane };
    store.settle("chat", Vec::new(), Some(worse.clone())).await.expect("settled");
    store.settle("mail", Vec::new(), Some(LaneState::default())).await.expect("settled");
    assert_eq!(store.load().await.expect("readable").lanes, [("chat".to_owned(), worse)]);
}

fn follow_up(alert_id: &str, not_before: Option<i64>, due_at: Option<i64>) -> NewFollowUp {
    let when = Look { not_before: not_before.map(at), due_at: due_at.map(at) };
    NewFollowUp { alert_id: alert_id.into(), sink: "chat".into(), told_count: 1, when }
}

/// The alert of that name with a follow-up.
fn followed(name: &str, seconds: i64, not_before: Option<i64>, due_at: Option<i64>) -> IngestBatch {
    IngestBatch { follow_ups: vec![follow_up(name, not_before, due_at)], ..batch(name, seconds, &["chat"]) }
}

fn folded(name: &str, count: u64, seconds: i64) -> IngestBatch {
    let fold = Fold { alert_id: name.into(), count, first_at: at(0), last_at: at(seconds), event_ids: Vec::new() };
    IngestBatch { source: SOURCE.into(), folds: vec![fold], at: Some(at(seconds)), ..IngestBatch::default() }
}

async fn due(store: &impl Subject, seconds: i64) -> Due {
    store.due(at(seconds)).await.expect("readable")
}

async fn due_names(store: &impl Subject, seconds: i64) -> Vec<String> {
    due(store, seconds).await.rows.into_iter().map(|row| row.alert_id).collect()
}

fn tell(read: &FollowUp, count: u64, closed: bool, due_at: Option<i64>) -> FollowMove {
    let mut delivery = delivery(&read.alert_id, &read.sink);
    delivery.delivery_id = crate::sink::update::update_id(&read.alert_id, &read.sink, read.number + 1);
    delivery.body = format!("update {}", read.number + 1).into_bytes();
    let then = Look { not_before: None, due_at: due_at.map(at) };
    FollowMove {
        read: read.clone(),
        count: Some(count),
        step: Step::Tell { delivery: Box::new(delivery), closed, then },
    }
}

pub(super) async fn follow_ups_wait_for_their_time_and_for_matches(store: &impl Subject) {
    assert_eq!(due(store, 9_999).await, Due::default());
    for (name, not_before, due_at) in [
        ("timed", Some(600), Some(300)),
        ("waits", Some(600), None),
        ("late", Some(20), None),
        ("note", None, Some(400)),
    ] {
        commit(store, followed(name, 10, not_before, due_at)).await;
    }
    assert_eq!(due(store, 299).await, Due { rows: Vec::new(), next_at: Some(at(300)) });
    assert_eq!(due_names(store, 300).await, ["timed"]);
    assert_eq!(due_names(store, 9_999).await, ["timed", "note"]);
    for name in ["timed", "waits", "late", "note"] {
        commit(store, folded(name, 5, 100)).await;
    }
    assert_eq!(due_names(store, 9_999).await, ["late", "timed", "note", "waits"]);
    assert_eq!(due(store, 99).await.next_at, Some(at(100)), "a match that may be told is told now");
    assert_eq!(due_names(store, 599).await, ["late", "timed", "note"], "what is told at most so often waits");
    let row = due(store, 100).await.rows.remove(0);
    assert_eq!((row.number, row.told_count, row.told_at, row.changed_at, row.closed), (0, 1, at(10), at(100), false));
    assert_eq!(queue(store, "chat").await.depth, 4, "nothing is told by itself");
    for number in 0..MAX_FOLLOW_UPS {
        commit(store, followed(&format!("n{number}"), 10, None, Some(50))).await;
    }
    assert_eq!(due(store, 9_999).await.rows.len(), MAX_FOLLOW_UPS);
}

pub(super) async fn what_is_told_is_one_step_from_what_was_read(store: &impl Subject) {
    commit(store, followed("a", 10, Some(20), Some(30))).await;
    let read = due(store, 30).await.rows.remove(0);
    let first = tell(&read, 1, false, Some(50));
    store.advance(vec![first.clone()], at(40), at(40)).await.expect("stored");
    // The same step again, as after a crash that hid its answer: it was taken already.
    store.advance(vec![first], at(41), at(41)).await.expect("stored");
    let alert = claim_one(store, "chat", 45).await;
    assert_eq!((alert.body.as_slice(), queue(store, "chat").await.depth), (&b"a for chat"[..], 2));
    store.settle("chat", vec![settlement(&alert, Resolution::RetryAt(at(46)), 45)], None).await.expect("settled");
    let read = due(store, 50).await.rows.remove(0);
    assert_eq!((read.number, read.told_count, read.told_at, read.changed_at), (1, 1, at(40), at(10)));

    // A match between the look and the step.
    commit(store, folded("a", 3, 60)).await;
    let wait = Look { not_before: None, due_at: Some(at(900)) };
    for step in [tell(&read, 1, true, None).step, Step::Wait(wait), Step::End] {
        let stale = FollowMove { read: read.clone(), count: Some(1), step };
        store.advance(vec![stale], at(61), at(61)).await.expect("stored");
        let known_count = FollowMove { read: read.clone(), count: Some(3), step: tell(&read, 3, true, None).step };
        store.advance(vec![known_count], at(61), at(61)).await.expect("stored");
        let again = due(store, 61).await.rows.remove(0);
        assert_eq!((again.number, again.told_count, again.changed_at), (1, 1, at(60)));
    }
    let read = due(store, 61).await.rows.remove(0);
    store.advance(vec![tell(&read, 3, true, None)], at(62), at(62)).await.expect("stored");
    assert_eq!(due(store, 9_999).await, Due::default());
    assert_eq!(queue(store, "chat").await.depth, 3);
    commit(store, folded("a", 4, 70)).await;
    let read = due(store, 70).await.rows.remove(0);
    assert_eq!((read.number, read.told_count, read.told_at, read.closed), (2, 3, at(62), true));
    let moved = |step: Step| FollowMove { read: read.clone(), count: Some(4), step };
    store.advance(vec![moved(Step::Wait(wait))], at(71), at(71)).await.expect("stored");
    assert_eq!(due(store, 899).await, Due { rows: Vec::new(), next_at: Some(at(900)) });
    store.advance(vec![moved(Step::End)], at(72), at(72)).await.expect("stored");
    commit(store, folded("a", 5, 80)).await;
    assert_eq!(due(store, 9_999).await, Due::default(), "followed no more");
    let shown = store.alert_of("a").await.expect("stored");
    assert_eq!((shown.deliveries.len(), shown.row.alert.count), (3, 5));

    // The clock was set back to 500 since: a row that was moved ahead of it is looked at, and one that was not keeps its time.
    commit(store, followed("past", 400, Some(700), Some(800))).await;
    commit(store, followed("ahead", 5_000, Some(6_000), Some(7_000))).await;
    store.take_over(at(500), at(9_999)).await.expect("taken over");
    let taken = due(store, 500).await;
    assert_eq!((taken.rows.len(), taken.next_at), (1, Some(at(500))));
    assert_eq!(
        (taken.rows[0].alert_id.as_str(), taken.rows[0].told_at, taken.rows[0].changed_at),
        ("ahead", at(500), at(500))
    );
    assert_eq!(due_names(store, 799).await, ["ahead"]);
}

pub(super) async fn follow_ups_are_all_or_nothing(store: &impl Subject) {
    let mut bad = followed("a", 10, None, Some(20));
    bad.deliveries.push(delivery("nobody", "chat"));
    assert!(store.commit(bad).await.is_err());
    assert_eq!(due(store, 9_999).await, Due::default());
    commit(store, followed("a", 10, None, Some(20))).await;
    // What is stored already is left as it stands.
    let mut again = followed("a", 90, None, Some(5));
    again.events = Vec::new();
    commit(store, again).await;
    assert_eq!(due(store, 19).await, Due { rows: Vec::new(), next_at: Some(at(20)) });
}

fn muted(alert_id: &str, sink: &str, by: &str, until: Option<i64>) -> NewDelivery {
    let hold = Hold { by: by.into(), note: format!("{by}, because"), until: until.map(at) };
    NewDelivery { hold: Some(hold), ..delivery(alert_id, sink) }
}

fn fold_of(sink: &str, standing: Standing) -> HoldFold {
    let (told, digest, sent, held, follow_ups) = (Vec::new(), None, Vec::new(), Vec::new(), Vec::new());
    HoldFold { sink: sink.into(), standing, told, digest, sent, held, follow_ups, at: at(600), due_at: at(600) }
}

fn digest_for(sink: &str) -> (NewAlert, NewDelivery) {
    let alert = alert("digest", &event("digest", at(600)));
    (alert, delivery("digest", sink))
}

pub(super) async fn what_is_muted_waits_and_ends_in_one_step(store: &impl Subject) {
    for name in ["a", "b", "c", "d"] {
        let mut new = batch(name, 10, &[]);
        new.deliveries = vec![muted(name, "chat", "silence 1", Some(500)), muted(name, "mail", "repeat", None)];
        commit(store, new).await;
    }
    assert_eq!((claim_all(store, "chat", 9_999).await.len(), queue(store, "chat").await.depth), (0, 0));
    let row = store.alert_of("a").await.expect("stored").row;
    assert_eq!((row.muted, row.pending), (2, 0));
    let id = |name: &str| delivery_id(name, "chat");
    let shown = store.shown(&id("a")).await.expect("stored").row;
    assert_eq!((shown.status, shown.muted_by.as_deref()), (DeliveryStatus::Muted, Some("silence 1")));
    assert_eq!(shown.note.as_deref(), Some("silence 1, because"));
    assert_eq!(store.released(at(499)).await.expect("readable"), None);
    let released = store.released(at(500)).await.expect("readable").expect("its time is over");
    assert_eq!((released.sink.as_str(), released.by.as_str()), ("chat", "silence 1"));
    assert_eq!(released.rows.iter().map(|(_, alert_id)| alert_id.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);

    let sent = NewDelivery { body: b"anew".to_vec(), note: Some("until now".into()), ..delivery("c", "chat") };
    let again = Hold { by: "silence 2".into(), note: "another".into(), until: Some(at(900)) };
    let fold = || HoldFold {
        told: vec![id("a"), id("b")],
        digest: Some(digest_for("chat")),
        sent: vec![sent.clone()],
        held: vec![(id("d"), again.clone())],
        follow_ups: vec![NewFollowUp { alert_id: "c".into(), ..follow_up("c", None, Some(700)) }],
        ..fold_of("chat", Standing::Muted)
    };
    let of_another = HoldFold { told: vec![id("a"), delivery_id("a", "mail")], ..fold() };
    store.fold(of_another).await.expect("stored");
    assert_eq!(store.shown(&id("a")).await.expect("stored").row.status, DeliveryStatus::Muted, "all or nothing");
    assert!(store.fold(HoldFold { digest: None, ..fold() }).await.is_err(), "told of by nothing");
    store.fold(fold()).await.expect("stored");
    assert_eq!(store.alert_of("a").await.expect("stored").row.muted_by, None);
    // Once more, as after a crash that hid its answer: what is done stays as it is.
    store.fold(fold()).await.expect("stored");
    let digested = store.shown(&id("a")).await.expect("stored").row;
    assert_eq!((digested.status, digested.told_in), (DeliveryStatus::Digested, Some(id("digest"))));
    let other = store.shown(&delivery_id("a", "mail")).await.expect("stored").row;
    assert_eq!(other.status, DeliveryStatus::Muted, "of another sink");
    let claimed = claim_all(store, "chat", 600).await;
    let bodies: Vec<_> = claimed.iter().map(|row| (row.body.as_slice(), row.note.as_deref())).collect();
    assert_eq!(bodies, [(&b"anew"[..], Some("until now")), (b"digest for chat", None)]);
    assert_eq!(due_names(store, 700).await, ["c"]);
    assert_eq!(store.released(at(899)).await.expect("readable"), None);
    assert_eq!(store.released(at(900)).await.expect("readable").expect("another").by, "silence 2");

    assert_eq!(store.retried(&delivery_id("b", "mail"), at(950)).await, Retried::Due, "a person may send it");
    assert_eq!(claim_all(store, "mail", 950).await.len(), 1);
    assert_eq!(store.retried(&id("a"), at(950)).await, Retried::AlreadyDelivered);
}

pub(super) async fn what_is_not_confirmed_in_time_goes_elsewhere_once(store: &impl Subject) {
    for name in ["late", "dead", "done"] {
        let mut new = batch(name, 10, &[]);
        let fallback = Some(FallbackDue { to: vec!["mail".into(), "soc".into()], at: at(100) });
        new.deliveries = vec![NewDelivery { fallback, ..delivery(name, "chat") }];
        commit(store, new).await;
    }
    let of = |name: &str| delivery_id(name, "chat");
    for row in claim_all(store, "chat", 20).await {
        let resolution = match row.alert_id.as_str() {
            "late" => Resolution::RetryAt(at(5_000)),
            "dead" => Resolution::Dead,
            _ => Resolution::Delivered { unconfirmed: true },
        };
        settle(store, &row, resolution, 20).await;
    }
    let due = store.unconfirmed(at(99)).await.expect("readable");
    assert_eq!(
        due.iter().map(|row| (row.alert_id.as_str(), row.is_dead)).collect::<Vec<_>>(),
        [("dead", true)],
        "at once"
    );
    let due = store.unconfirmed(at(100)).await.expect("readable");
    assert_eq!(due.iter().map(|row| row.alert_id.as_str()).collect::<Vec<_>>(), ["late", "dead"]);
    assert_eq!((due[0].to.as_slice(), due[0].owed_since), (["mail".to_owned(), "soc".to_owned()].as_slice(), at(10)));
    assert!(!due[0].last_status.is_empty());
    let mut quiet = batch("quiet", 30, &[]);
    quiet.events = Vec::new();
    quiet.alerts = Vec::new();
    quiet.deliveries = vec![muted("late", "mail", "quiet time", Some(9_000))];
    commit(store, quiet).await;
    let elsewhere = |name: &str| (vec![delivery(name, "mail")], vec![follow_up(name, None, Some(700))]);
    for name in ["late", "done", "late", "nobody"] {
        store.fall_back(&of(name), elsewhere(name), at(101), at(101)).await.expect("stored");
    }
    let sent: Vec<String> = claim_all(store, "mail", 101).await.into_iter().map(|row| row.alert_id).collect();
    assert_eq!(sent, ["late"], "what is confirmed goes nowhere else, and what mutes it there does not count");
    let due = store.unconfirmed(at(9_999)).await.expect("readable");
    assert_eq!(due.iter().map(|row| row.alert_id.as_str()).collect::<Vec<_>>(), ["dead"], "once");
}

pub(super) async fn what_waits_folds_once(store: &impl Subject) {
    for name in ["a", "b", "c", "d"] {
        let mut new = batch(name, 10, &["chat", "mail"]);
        if name == "c" {
            new.deliveries[0].fallback = Some(FallbackDue { to: vec!["mail".into()], at: at(100) });
        }
        if matches!(name, "b" | "c") {
            new.follow_ups = vec![follow_up(name, None, Some(700))];
        }
        commit(store, new).await;
    }
    let tried = store.claim("chat", at(20), at(200), 1).await.expect("claimed").remove(0);
    assert_eq!(tried.alert_id, "a");
    settle(store, &tried, Resolution::RetryAt(at(30)), 20).await;
    let waiting = async |skip, limit| {
        let rows = store.waiting("chat", skip, limit).await.expect("readable");
        rows.into_iter().map(|(_, alert_id)| alert_id).collect::<Vec<_>>()
    };
    assert_eq!(waiting(0, 9).await, ["b", "c", "d"]);
    assert_eq!(waiting(1, 1).await, ["c"]);
    let id = |name: &str| delivery_id(name, "chat");
    let fold = |names: &[&str]| {
        let told = names.iter().map(|name| id(name)).collect();
        HoldFold { told, digest: Some(digest_for("chat")), ..fold_of("chat", Standing::Waiting) }
    };
    store.fold(fold(&["a", "c", "d"])).await.expect("stored");
    assert_eq!(queue(store, "chat").await.depth, 4, "a was tried: nothing is done");
    store.fold(fold(&["c", "d"])).await.expect("stored");
    assert_eq!(queue(store, "chat").await.depth, 3, "a and b, and the digest");
    let due = store.unconfirmed(at(9_999)).await.expect("readable");
    let due: Vec<_> = due.iter().map(|row| (row.alert_id.as_str(), row.to.clone())).collect();
    assert_eq!(due, [("digest", vec!["mail".to_owned()])], "it takes over what they had beside their sink");
    assert_eq!(due_names(store, 9_999).await, ["b"], "nobody is told how the others go on");
    assert_eq!(queue(store, "mail").await.depth, 4);
    let row = store.alert_of("c").await.expect("stored").row;
    assert_eq!((row.pending, row.delivered), (1, 1), "told in a digest");
    let done = DeliveryFilter { status: Some(DeliveryStatus::Digested), ..DeliveryFilter::default() };
    assert_eq!(store.listed(&done).await.len(), 2);
}

pub(super) async fn what_a_route_told_is_found(store: &impl Subject) {
    let keyed = |name: &str| NewDelivery { repeat_key: Some("k".into()), ..delivery(name, "chat") };
    let mut new = batch("a", 10, &[]);
    new.deliveries = vec![keyed("a")];
    commit(store, new).await;
    let mut new = batch("b", 20, &[]);
    new.deliveries = vec![NewDelivery { repeat_key: Some("k".into()), ..muted("b", "chat", "repeat", None) }];
    commit(store, new).await;
    let told = async |sink: &str, key: &str, since, until| {
        store.told_between(sink, key, (at(since), at(until))).await.expect("readable")
    };
    assert_eq!(told("chat", "k", 9, 30).await, Some(("a".to_owned(), at(10))), "and not what was muted");
    for (sink, key, since, until) in
        [("chat", "k", 10, 30), ("chat", "k", 0, 9), ("chat", "l", 0, 30), ("mail", "k", 0, 30)]
    {
        assert_eq!(told(sink, key, since, until).await, None, "{sink} {key} {since} {until}");
    }
    let given_up = claim_one(store, "chat", 30).await;
    settle(store, &given_up, Resolution::Dead, 30).await;
    assert_eq!(told("chat", "k", 9, 30).await, None, "what was given up was not told");
}

pub(super) async fn an_update_finds_the_receipt_of_its_alert(store: &impl Subject) {
    for name in ["a", "b"] {
        let mut new = batch(name, 10, &["chat"]);
        let about = Some(delivery_id(name, "chat"));
        let update = NewDelivery::new(format!("u-{name}"), name.into(), "chat".into(), Vec::new());
        new.deliveries.push(NewDelivery { about, ..update });
        commit(store, new).await;
    }
    let rows = claim_all(store, "chat", 20).await;
    let ids: Vec<&str> = rows.iter().map(|row| row.delivery_id.as_str()).collect();
    assert_eq!(
        ids,
        [delivery_id("a", "chat"), delivery_id("b", "chat")],
        "what is told of one alert goes in its order"
    );
    for row in rows {
        let (resolution, receipt) = match row.delivery_id == delivery_id("a", "chat") {
            true => (Resolution::Delivered { unconfirmed: false }, Some("17.5".to_owned())),
            false => (Resolution::RetryAt(at(30)), None),
        };
        let settled = Settlement { receipt, ..settlement(&row, resolution, 20) };
        store.settle("chat", vec![settled], None).await.expect("settled");
    }
    let rows = claim_all(store, "chat", 25).await;
    let receipts: Vec<_> = rows.iter().map(|row| (row.delivery_id.as_str(), row.about_receipt.as_deref())).collect();
    assert_eq!(receipts, [("u-a", Some("17.5"))]);
    let late = claim_one(store, "chat", 30).await;
    assert_eq!(late.delivery_id, delivery_id("b", "chat"), "the update of b waits for b");
    settle(store, &late, Resolution::Dead, 30).await;
    assert_eq!(claim_one(store, "chat", 31).await.delivery_id, "u-b", "and not for ever");
}

pub(super) async fn what_waits_is_taken_over(store: &impl Subject) {
    for name in ["soon", "far", "leased", "dead"] {
        commit(store, batch(name, 1000, &["chat"])).await;
    }
    let claimed = claim_all(store, "chat", 1000).await;
    let of = |name: &str| claimed.iter().find(|delivery| delivery.alert_id == name).expect("claimed");
    settle(store, of("soon"), Resolution::RetryAt(at(1600)), 1001).await;
    settle(store, of("far"), Resolution::RetryAt(at(90_000)), 1001).await;
    settle(store, of("dead"), Resolution::Dead, 1001).await;
    commit(store, batch("fresh", 1200, &["chat"])).await;
    commit(store, batch("given back", 1200, &["chat"])).await;
    // The clock is set back to 500: what was committed at 1200 lies ahead.
    store.take_over(at(500), at(500 + 21_600)).await.expect("taken over");
    let mut due: Vec<Delivery> = claim_all(store, "chat", 500).await;
    due.sort_by(|left, right| left.alert_id.cmp(&right.alert_id));
    assert_eq!(due.iter().map(|row| row.alert_id.as_str()).collect::<Vec<_>>(), ["far", "fresh", "given back"]);
    assert!(due.iter().all(|row| row.created_at == at(500)), "as young as the clock lets it be: {due:?}");
    // A row that is put off within reason and one that is being sent keep their times.
    assert_eq!(claim_all(store, "chat", 1060).await.iter().filter(|row| row.alert_id == "leased").count(), 1);
    assert!(claim_all(store, "chat", 1599).await.iter().all(|row| row.alert_id != "soon"));
    assert!(claim_all(store, "chat", 1600).await.iter().any(|row| row.alert_id == "soon"));
    assert_eq!(queue(store, "chat").await.dead, 1);
}

pub(super) async fn queues_tell_what_is_owed(store: &impl Subject) {
    commit(store, batch("a", 10, &["chat"])).await;
    commit(store, batch("b", 20, &["chat"])).await;
    let expected = Queue { depth: 2, next_due_at: Some(at(10)), oldest_created_at: Some(at(10)), ..Queue::default() };
    assert_eq!(queue(store, "chat").await, expected);
    let first = store.claim("chat", at(30), at(90), 1).await.expect("claimed").remove(0);
    assert_eq!(queue(store, "chat").await, Queue { next_due_at: Some(at(20)), ..expected });
    settle(store, &first, DONE, 31).await;
    let expected = Queue { depth: 1, next_due_at: Some(at(20)), oldest_created_at: Some(at(20)), ..Queue::default() };
    assert_eq!(queue(store, "chat").await, expected);
}

pub(super) async fn lists_are_filtered(store: &impl Subject) {
    for (name, seconds) in [("a", 10), ("b", 20), ("c", 30), ("d", 40)] {
        commit(store, batch(name, seconds, &["chat"])).await;
    }
    let claimed = store.claim("chat", at(50), at(500), 3).await.expect("claimed");
    settle(store, &claimed[0], DONE, 51).await;
    settle(store, &claimed[1], Resolution::Dead, 51).await;
    settle(store, &claimed[2], Resolution::RetryAt(at(90)), 51).await;
    let any = DeliveryFilter::default;
    for (filter, expected) in [
        (any(), "d c b a"),
        (DeliveryFilter { limit: 2, ..any() }, "d c"),
        (DeliveryFilter { since: Some(at(20)), ..any() }, "d c b"),
        (DeliveryFilter { failed: true, ..any() }, "c b"),
        (DeliveryFilter { status: Some(DeliveryStatus::Delivered), ..any() }, "a"),
        (DeliveryFilter { status: Some(DeliveryStatus::Pending), ..any() }, "d c"),
        (DeliveryFilter { sink: Some("mail".into()), ..any() }, ""),
    ] {
        let listed: Vec<String> = store.listed(&filter).await.into_iter().map(|row| row.alert_id).collect();
        assert_eq!(listed.join(" "), expected, "{filter:?}");
    }
}

pub(super) async fn unicode_is_kept(store: &impl Subject) {
    let text = "Ünïcødé 日本 🗼 \u{202e}\u{0}'\"; DROP TABLE events; --";
    let raw: Arc<str> = format!("{{\"id\":{}}}", serde_json::to_string(text).expect("JSON")).into();
    let digest = text_digest(&raw);
    let stored = StoredEvent { id: text.into(), created_at: at(1), digest, raw, poison: Some(text.into()) };
    let mut new = alert(text, &stored);
    new.alert.title = Untrusted::new(text);
    new.muted_by = Some(text.into());
    let batch = IngestBatch {
        source: text.into(),
        cursor: Some(Cursor(text.into())),
        events: vec![stored],
        alerts: vec![new],
        deliveries: vec![NewDelivery { body: text.as_bytes().to_vec(), ..delivery(text, text) }],
        state: vec![state(text, Some(text), None)],
        at: Some(at(1)),
        ..IngestBatch::default()
    };
    commit(store, batch).await;
    assert_eq!(store.held(text, &[text.to_owned()]).await.expect("readable"), [Held::Content(digest)]);
    assert_eq!(loaded_state(store).await, [(text.to_owned(), text.to_owned())]);
    let shown = store.alert_of(text).await.expect("stored");
    assert_eq!((shown.row.alert.title.as_raw(), shown.row.muted_by.as_deref()), (text, Some(text)));
    assert_eq!(claim_one(store, text, 1).await.body, text.as_bytes());
    let lane = LaneState { step: 1, paused_until: None, reason: text.into() };
    store.settle(text, Vec::new(), Some(lane.clone())).await.expect("settled");
    let loaded = store.load().await.expect("readable");
    assert_eq!(loaded.cursors, [(text.to_owned(), Cursor(text.into()))]);
    assert_eq!(loaded.lanes, [(text.to_owned(), lane)]);
}

pub(super) async fn batches_need_a_time(store: &impl Subject) {
    let refused: Result<()> = store.commit(IngestBatch { at: None, ..batch("a", 10, &["chat"]) }).await;
    assert!(matches!(refused, Err(StoreError::Fatal(_))), "{refused:?}");
    assert_eq!(sees(store, &["a"]).await, [false]);
}
