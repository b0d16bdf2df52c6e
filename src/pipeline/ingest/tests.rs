//! What ingest takes and what it leaves: an id counts once for its source.
//!
//! The store is the one in memory; nothing here waits or is sent.

use chrono::DateTime;
use vigie_engine::event::Event;

use super::evaluation::stored;
use super::*;
use crate::clock::SystemClock;
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
    Ingest::new(Parts {
        drift: Drift::default(),
        history: History::default(),
        engine: Engine::new(Vec::new()),
        routes: Vec::new(),
        outlets: Vec::new(),
        wake: Wake::default(),
        store,
        clock: Arc::new(SystemClock),
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
