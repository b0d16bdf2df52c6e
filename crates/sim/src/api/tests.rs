//! The API as its description says: listing, pages, filters, authentication, errors.

use chrono::TimeDelta;
use serde_json::Value;

use super::*;
use crate::event::Stamp;
use crate::world::WorldConfig;

mod faults;
mod quirks;
mod schema;

const KEY: &str = "abcd1234";

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Now, in most tests.
fn now() -> DateTime<Utc> {
    at("2026-05-04T12:00:00Z")
}

/// An event at a time on the day of `now`, with a readable id.
fn event(name: &str, time: &str) -> SimEvent {
    let mut event = SimEvent::new(name.to_owned(), "NUMBER_UPDATED", at(&format!("2026-05-04T{time}Z")));
    event.account_id = KEY.into();
    event.source_ip = "192.0.2.1".into();
    event
}

fn sim(events: Vec<SimEvent>) -> Sim {
    Sim::new(KEY, DEFAULT_SECRET, events, Quirks::default(), FaultPlan::none())
}

/// Ten events, one a second from 10:00:00, named e0 to e9.
fn ten() -> Vec<SimEvent> {
    (0..10).map(|second| event(&format!("e{second}"), &format!("10:00:0{second}"))).collect()
}

fn ask_at(sim: &mut Sim, query: &str, now: DateTime<Utc>) -> SimResponse {
    let authorization = Sim::basic_authorization(KEY, DEFAULT_SECRET);
    sim.handle(&SimRequest::get(EVENTS_PATH, query, &authorization), now)
}

fn ask(sim: &mut Sim, query: &str) -> SimResponse {
    ask_at(sim, query, now())
}

fn body(response: &SimResponse) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}

/// The page that a query gives.
fn page(sim: &mut Sim, query: &str) -> Value {
    let response = ask(sim, query);
    assert_eq!(response.status, 200, "{query}: {response:?}");
    assert_eq!(response.transport, Transport::Whole);
    body(&response)
}

fn ids_of(page: &Value) -> Vec<String> {
    let rows = page["_embedded"]["events"].as_array().unwrap();
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

fn ids(sim: &mut Sim, query: &str) -> Vec<String> {
    ids_of(&page(sim, query))
}

fn total(page: &Value) -> u64 {
    page["page"]["totalElements"].as_u64().unwrap()
}

#[test]
fn pages_by_number_and_size() {
    let events = (0..75).map(|n| event(&format!("e{n}"), &format!("10:{:02}:{:02}", n / 60, n % 60))).collect();
    let mut sim = sim(events);
    let first = page(&mut sim, "");
    assert_eq!(ids_of(&first).len(), 30);
    assert_eq!(first["page"], serde_json::json!({"size": 30, "totalElements": 75, "totalPages": 3, "number": 1}));
    let last = page(&mut sim, "page=2&size=50&date_from=2026-05-04");
    assert_eq!(ids_of(&last).first().map(String::as_str), Some("e50"));
    assert_eq!(ids_of(&last).len(), 25);
    // The documented links: plain http, and the filters are gone.
    let href = |page: &Value, name: &str| page["_links"][name]["href"].as_str().map(str::to_owned);
    let base = "http://api.nexmo.com/beta/audit/events";
    assert_eq!(href(&first, "self"), Some(format!("{base}?page=1&size=30")));
    assert_eq!(href(&first, "next"), Some(format!("{base}?page=2&size=30")));
    assert_eq!(href(&first, "last"), Some(format!("{base}?page=3&size=30")));
    assert_eq!(href(&last, "next"), None);
    assert_eq!(href(&last, "last"), Some(format!("{base}?page=2&size=50")));
    assert!(ids(&mut sim, "page=9").is_empty());
}

#[test]
fn refuses_what_the_description_does_not_allow() {
    let mut sim = sim(ten());
    let bad = [
        "size=0",
        "size=101",
        "size=x",
        "page=0",
        "page=-1",
        "page=",
        "date_from=yesterday",
        "date_to=2026-13-01",
        // An unescaped plus is a space, so this zone is broken.
        "date_from=2026-05-04T10:00:00+00:00",
        "search_text=%22",
        "search_text=%7B",
        "search_text=%5Cx",
        "search_text=%zz",
    ];
    for query in bad {
        let response = ask(&mut sim, query);
        assert_eq!(response.status, 400, "{query}");
        assert_eq!(body(&response)["error"], "Bad Request");
    }
    for query in ["size=1", "size=100", "page=1", "unknown=1", "date_from=2026-05-04T10%3A00%3A00%2B00%3A00"] {
        assert_eq!(ask(&mut sim, query).status, 200, "{query}");
    }
}

#[test]
fn filters_by_time_type_and_text() {
    let mut events = ten();
    events[3].event_type = "APP_CREATE".into();
    events[4].event_type = "APP_DELETE".into();
    events[5].context = serde_json::json!({"note": "say \"hi\" {now}"});
    let mut sim = sim(events);
    assert_eq!(ids(&mut sim, "date_from=2026-05-04T10:00:07"), ["e7", "e8", "e9"]);
    assert_eq!(ids(&mut sim, "date_from=2026-05-04T10:00:07.001Z&date_to=2026-05-04T10:00:08Z"), ["e8"]);
    assert_eq!(ids(&mut sim, "date_to=2026-05-04T12:00:01%2B02:00"), ["e0", "e1"]);
    assert_eq!(ids(&mut sim, "date_from=2026-05-04").len(), 10);
    assert!(ids(&mut sim, "date_from=2026-05-05").is_empty());
    assert!(ids(&mut sim, "date_from=2026-05-04T10:00:07&date_to=2026-05-04T10:00:02").is_empty());
    assert_eq!(ids(&mut sim, "event_type=APP_CREATE,APP_DELETE"), ["e3", "e4"]);
    assert_eq!(ids(&mut sim, "event_type=APP_CREATE%2CNOTHING"), ["e3"]);
    assert_eq!(ids(&mut sim, "search_text=say+%5C%22hi%5C%22+%5C%7Bnow%5C%7D"), ["e5"]);
    assert!(ids(&mut sim, "search_text=nowhere").is_empty());
}

#[test]
fn gives_one_event_by_id_or_404() {
    let mut events = ten();
    events[9].set_lateness(Duration::from_secs(7_200));
    let mut sim = sim(events);
    let authorization = Sim::basic_authorization(KEY, DEFAULT_SECRET);
    let mut get = |id: &str, now| sim.handle(&SimRequest::get(&format!("{EVENTS_PATH}/{id}"), "", &authorization), now);
    let found = get("e4", now());
    assert_eq!((found.status, &body(&found)["id"]), (200, &Value::from("e4")));
    let missing = get("e9", now());
    assert_eq!(missing.status, 404);
    assert_eq!(
        body(&missing),
        serde_json::json!({"status": 404, "error": "Not Found", "message": "Event with provided id: e9 was not found"})
    );
    assert_eq!(get("e9", now() + TimeDelta::hours(1)).status, 200);
}

#[test]
fn answers_options_and_refuses_other_methods_and_paths() {
    let mut sim = sim(ten());
    let authorization = Sim::basic_authorization(KEY, DEFAULT_SECRET);
    let mut send = |method: &str, path: &str| {
        let request = SimRequest { method: method.to_owned(), ..SimRequest::get(path, "", &authorization) };
        sim.handle(&request, now())
    };
    let options = send("OPTIONS", EVENTS_PATH);
    let types = body(&options)["eventTypes"].as_array().unwrap().len();
    assert_eq!((options.status, types), (200, crate::event::EVENT_TYPES.len()));
    assert_eq!(send("POST", EVENTS_PATH).status, 405);
    assert_eq!(send("OPTIONS", "/beta/audit/events/e1").status, 405);
    assert_eq!(send("GET", "/beta/audit/eventsx").status, 404);
    assert_eq!(send("GET", "/").status, 404);
}

#[test]
fn asks_for_the_right_credentials() {
    let mut sim = sim(ten());
    let wrong = [None, Some(Sim::basic_authorization(KEY, "other")), Some("Bearer x".to_owned())];
    for authorization in wrong {
        let request = SimRequest { authorization, ..SimRequest::get(EVENTS_PATH, "", "") };
        let response = sim.handle(&request, now());
        assert_eq!(response.status, 401);
        assert_eq!(body(&response)["status"], 401);
    }
    assert_eq!(ask(&mut sim, "").status, 200);
}

#[test]
fn shows_events_from_their_time_on_and_never_before() {
    let mut late = event("late", "10:00:00");
    late.set_lateness(Duration::from_secs(600));
    let mut sim = sim(vec![event("prompt", "10:00:00"), late]);
    let seen = |sim: &mut Sim, time: &str| {
        let now = at(&format!("2026-05-04T{time}Z"));
        let shown = ids_of(&body(&ask_at(sim, "", now)));
        assert_eq!(shown, sim.visible_ids(now));
        shown
    };
    assert!(seen(&mut sim, "09:59:59.999").is_empty());
    assert_eq!(seen(&mut sim, "10:00:00"), ["prompt"]);
    assert_eq!(seen(&mut sim, "10:09:59.999"), ["prompt"]);
    assert_eq!(seen(&mut sim, "10:10:00"), ["prompt", "late"]);
    assert_eq!(sim.all_ids(), ["prompt", "late"]);
    assert_eq!(sim.requests(), 4);
}

#[test]
fn takes_events_while_it_runs() {
    let mut sim = sim(ten());
    sim.push(event("new", "10:00:04.500"));
    assert_eq!(ids(&mut sim, "date_from=2026-05-04T10:00:04&date_to=2026-05-04T10:00:05"), ["e4", "new", "e5"]);
    let mut again = event("new", "10:00:08.500");
    again.event_type = "APP_CREATE".into();
    sim.push(again);
    assert_eq!(ids(&mut sim, "date_from=2026-05-04T10:00:08"), ["e8", "new", "e9"]);
    assert_eq!(sim.all_ids().len(), 11);
    assert_eq!(sim.visible_ids(now()).len(), 11);
    assert_eq!(ids(&mut sim, "date_to=2026-05-04T10:00:05"), ["e0", "e1", "e2", "e3", "e4", "e5"]);
}

#[test]
fn every_answer_carries_the_servers_date() {
    let mut sim = sim(ten());
    for query in ["", "size=0"] {
        assert_eq!(ask(&mut sim, query).header("date"), Some("Mon, 04 May 2026 12:00:00 GMT"));
    }
}
