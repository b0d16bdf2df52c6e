//! Lines that share an id and say different things.
//!
//! The id of an audit log need not be unique (a request's, a session's), and whoever writes into the log may choose it: a
//! line must not pass for a repetition of another one. So such a line is an event under an id of its own, derived from what
//! it says; the same line read again derives the same id, and counts once.

use std::collections::HashMap;

use vigie_engine::event::{Digest, Event};

use crate::source::{Held, Notice, NoticeKind, Seen};

/// Hex digits of the digest that are put behind the id. Two lines with the first few in common can be made on purpose; with
/// all of them they cannot.
const DERIVED_HEX_DIGITS: [usize; 2] = [8, 32];

/// What is under an id, in the store or earlier in the batch; `None` when that is not known any more.
type Taken = HashMap<String, Option<Digest>>;

/// Gives every event the id under which it counts, and says so when lines share one.
pub(super) async fn tell_apart(
    source: &str,
    events: Vec<Event>,
    seen: &dyn Seen,
) -> crate::store::Result<(Vec<Event>, Option<Notice>)> {
    let digests: Vec<Digest> = events.iter().map(Event::digest).collect();
    let mut named: Vec<Option<Event>> = Vec::with_capacity(events.len());
    named.resize_with(events.len(), || None);
    let mut open: Vec<(usize, Event)> = events.into_iter().enumerate().collect();
    let mut taken = Taken::new();
    let mut shared: Vec<String> = Vec::new();
    for hex_digits in [0].into_iter().chain(DERIVED_HEX_DIGITS) {
        let digest = |place: usize| digests.get(place).copied().unwrap_or_default();
        let ids: Vec<String> = open.iter().map(|(at, event)| derived(event.id(), &digest(*at), hex_digits)).collect();
        look_up(source, &ids, seen, &mut taken).await?;
        let mut rest = Vec::new();
        for ((place, event), id) in std::mem::take(&mut open).into_iter().zip(ids) {
            let own = digest(place);
            match taken.get(&id) {
                Some(Some(other)) if *other != own => {
                    rest.push((place, event));
                    continue;
                }
                Some(_) => {}
                None => {
                    taken.insert(id.clone(), Some(own));
                    if hex_digits > 0 {
                        shared.push(event.id().to_owned());
                    }
                }
            }
            if let Some(slot) = named.get_mut(place) {
                let at = event.created_at();
                *slot = Some(if hex_digits > 0 { event.identified(&id, at) } else { event });
            }
        }
        open = rest;
        if open.is_empty() {
            break;
        }
    }
    Ok((named.into_iter().flatten().collect(), notice(&shared)))
}

async fn look_up(source: &str, ids: &[String], seen: &dyn Seen, taken: &mut Taken) -> crate::store::Result<()> {
    for (id, held) in ids.iter().zip(seen.held(source, ids).await?) {
        let known = match held {
            Held::Nothing => continue,
            Held::Unknown => None,
            Held::Content(digest) => Some(digest),
        };
        taken.insert(id.clone(), known);
    }
    Ok(())
}

fn derived(id: &str, digest: &Digest, hex_digits: usize) -> String {
    if hex_digits == 0 {
        return id.to_owned();
    }
    let hex =
        digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|half| char::from_digit(half.into(), 16));
    format!("{id}#{}", hex.take(hex_digits).collect::<String>())
}

fn notice(shared: &[String]) -> Option<Notice> {
    let first = shared.first()?;
    let message = format!(
        "{} line(s) have an id that another line has too (such as `{}`); each was evaluated under an id of its own, made \
         from what it says: set `id_field` to a field that is unique",
        shared.len(),
        vigie_engine::text::single_line(first, super::MAX_SHOWN_ID_CHARS),
    );
    Some(Notice { kind: NoticeKind::IdReused, message })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::DateTime;

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{IngestBatch, Store, StoredEvent};

    const SOURCE: &str = "file";

    fn event(id: &str, raw: &str) -> Event {
        Event::new(id, DateTime::UNIX_EPOCH, Arc::from(raw)).expect("an event")
    }

    fn ids(events: &[Event]) -> Vec<&str> {
        events.iter().map(Event::id).collect()
    }

    async fn store(events: &[Event], store: &MemoryStore) {
        let row = |event: &Event| StoredEvent {
            id: event.id().to_owned(),
            created_at: event.created_at(),
            raw: event.raw().clone(),
            digest: event.digest(),
            poison: None,
        };
        let events = events.iter().map(row).collect();
        let at = Some(DateTime::UNIX_EPOCH);
        store
            .commit(IngestBatch { source: SOURCE.into(), events, at, ..IngestBatch::default() })
            .await
            .expect("stored");
    }

    #[tokio::test]
    async fn a_shared_id_hides_no_line_and_a_repeated_line_counts_once() {
        let seen = MemoryStore::new();
        let first = event("7", r#"{"id":7,"a":1}"#);
        let (events, notice) = tell_apart(SOURCE, vec![first.clone()], &seen).await.expect("readable");
        assert_eq!((ids(&events), notice), (vec!["7"], None));
        store(&events, &seen).await;

        let other = event("7", r#"{"id":7,"a":2}"#);
        let third = event("7", r#"{"id":7,"a":3}"#);
        let same = event("7", r#"{ "a": 1, "id": 7 }"#);
        let batch = vec![other.clone(), same, other.clone(), third];
        let (events, notice) = tell_apart(SOURCE, batch.clone(), &seen).await.expect("readable");
        let told = notice.expect("told").message;
        assert!(told.starts_with("2 line(s)") && told.contains("`7`"), "{told}");
        let named = ids(&events);
        assert_eq!((named[1], named[0]), ("7", named[2]), "{named:?}");
        assert!(named[0] != named[3] && named[0].starts_with("7#") && named[0].len() == 10, "{named:?}");
        assert!(events.iter().zip(&batch).all(|(one, other)| one.raw() == other.raw()), "in the order of the file");

        store(&[events[0].clone(), events[3].clone()], &seen).await;
        let (again, notice) = tell_apart(SOURCE, batch, &seen).await.expect("readable");
        assert_eq!((ids(&again), notice), (ids(&events), None), "what was told once is not told again");
    }

    #[tokio::test]
    async fn a_derived_id_that_is_taken_gets_longer() {
        let seen = MemoryStore::new();
        let second = event("7", r#"{"id":7,"a":2}"#);
        let squatter = derived("7", &second.digest(), 8);
        store(&[event("7", r#"{"id":7,"a":1}"#), event(&squatter, r#"{"made":"on purpose"}"#)], &seen).await;
        let (events, _) = tell_apart(SOURCE, vec![second], &seen).await.expect("readable");
        assert_eq!(events[0].id().len(), 2 + 32, "{}", events[0].id());
    }
}
