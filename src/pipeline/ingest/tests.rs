//! What ingest takes and what it leaves: an id counts once for its source.
//!
//! The store is the one in memory; nothing here waits or is sent.

use chrono::DateTime;
use vigie_engine::event::Event;

use super::evaluation::stored;
use super::*;
use crate::clock::{SystemClock, TokioClock};
use crate::pipeline::BoxFuture;
use crate::source::Seen;
use crate::store::memory::MemoryStore;

const SOURCE: &str = "main";

fn event(id: &str) -> Event {
    let raw = format!(r#"{{"id":"{id}","created_at":"2026-03-01T00:00:00Z"}}"#);
    Event::new(id, DateTime::UNIX_EPOCH, Arc::from(raw)).expect("an event")
}

fn poison(id: &str) -> Poison {
    Poison { id: id.into(), created_at: None, raw: "17".into(), error: "it is no JSON object".into() }
}

async fn ingest_that_has(ids: &[&str]) -> Ingest {
    let store = Arc::new(MemoryStore::new());
    let events = ids.iter().map(|id| stored(&event(id))).collect();
    store
        .commit(IngestBatch { source: SOURCE.into(), events, at: Some(DateTime::UNIX_EPOCH), ..IngestBatch::default() })
        .await
        .expect("memory");
    ingest_over(store, Arc::new(SystemClock))
}

fn ingest_over(store: Arc<MemoryStore>, clock: Arc<dyn Clock>) -> Ingest {
    Ingest::new(Parts {
        drift: Drift::default(),
        history: History::default(),
        engine: Engine::new(Vec::new()),
        routes: Vec::new(),
        inhibitions: Vec::new(),
        inhibitors: Inhibitors::default(),
        holds: Arc::new(MemoryStore::new()),
        outlets: Vec::new(),
        wake: Wake::default(),
        store,
        clock,
        status: Arc::default(),
        dry_run: false,
    })
}

#[tokio::test]
async fn what_is_stored_or_came_before_in_the_same_answer_is_not_evaluated() {
    let ingest = ingest_that_has(&["old", "late", "bad"]).await;
    let events = vec![event("old"), event("new"), event("new"), event("late")];
    let before_start = vec![event("late"), event("earlier"), event("new")];
    let rows = vec![poison("bad"), poison("worse"), poison("worse"), poison("earlier")];
    let Unseen { events, before_start, poison } =
        ingest.unseen(SOURCE, events, before_start, rows).await.expect("memory");
    let ids = |events: &[Event]| events.iter().map(|event| event.id().to_owned()).collect::<Vec<_>>();
    assert_eq!((ids(&events), ids(&before_start)), (vec!["new".into()], vec!["earlier".into()]));
    assert_eq!(poison.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["worse"]);
}

#[tokio::test]
async fn the_same_id_of_another_source_is_another_event() {
    let ingest = ingest_that_has(&["old"]).await;
    let unseen = ingest.unseen("other", vec![event("old")], Vec::new(), Vec::new()).await.expect("memory");
    assert_eq!(unseen.events.len(), 1);
}

/// An account where nothing happens: each poll has a cursor with its number.
struct Quiet {
    polls: u64,
    cursor_may_wait: bool,
}

impl Source for Quiet {
    fn fetch<'a>(
        &'a mut self,
        _: Option<&'a Cursor>,
        _: &'a dyn Seen,
    ) -> BoxFuture<'a, std::result::Result<Fetched, SourceError>> {
        self.polls += 1;
        let fetched = Fetched {
            events: Vec::new(),
            before_start: Vec::new(),
            poison: Vec::new(),
            repeated: 0,
            cursor: Cursor(self.polls.to_string()),
            cursor_may_wait: self.cursor_may_wait,
            notices: Vec::new(),
            settled_at: None,
            aloud_from: None,
            learn_from: None,
            next_in: Duration::from_secs(15),
            windows_owed: 0,
            finished: false,
            caught_up: true,
            at_fault: None,
        };
        Box::pin(async move { Ok(fetched) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_may_wait_is_stored_once_a_minute_and_at_the_end() {
    for (cursor_may_wait, expected) in [(true, ["1", "1", "5", "6"]), (false, ["1", "4", "5", "6"])] {
        let store = Arc::new(MemoryStore::new());
        let clock = TokioClock::starting_at(DateTime::UNIX_EPOCH);
        let ingest = Arc::new(ingest_over(store.clone(), Arc::new(clock)));
        let (stop, mut source) = (CancellationToken::new(), Quiet { polls: 0, cursor_may_wait });
        let (running, ends) = (ingest.clone(), stop.clone());
        let run = tokio::spawn(async move { running.run_source(SOURCE, &mut source, None, false, &ends).await });
        let stored = async || store.load().await.expect("memory").cursors.remove(0).1.0;
        let mut seen = Vec::new();
        for pause_s in [1, 49, 15] {
            tokio::time::sleep(Duration::from_secs(pause_s)).await;
            seen.push(stored().await);
        }
        tokio::time::sleep(Duration::from_secs(15)).await;
        stop.cancel();
        assert_eq!(run.await.expect("no panic").expect("memory"), SourceEnd::Cancelled);
        seen.push(stored().await);
        assert_eq!(seen, expected, "it may wait: {cursor_may_wait}");
    }
}
