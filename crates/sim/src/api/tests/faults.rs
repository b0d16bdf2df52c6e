//! Each fault, shown by what it does to an answer.

use super::*;

/// Asks for five of the ten events.
const QUERY: &str = "date_from=2026-05-04T10:00:03&date_to=2026-05-04T10:00:07";

fn ask_with(fault: &str) -> SimResponse {
    let mut sim = sim(ten());
    sim.set_fault(Some(Fault::named(fault).unwrap()));
    ask(&mut sim, QUERY)
}

#[test]
fn refusals_have_their_status_and_body() {
    for (name, status) in [("401", 401), ("403", 403), ("429", 429), ("429-date", 429), ("500", 500), ("503", 503)] {
        let response = ask_with(name);
        assert_eq!(response.status, status);
        assert_eq!(body(&response)["status"], status);
        let retry_after = match name {
            "429" => Some("5"),
            "429-date" => Some("Mon, 04 May 2026 12:00:05 GMT"),
            _ => None,
        };
        assert_eq!(response.header("Retry-After"), retry_after, "{name}");
    }
}

#[test]
fn transport_faults_leave_the_body_whole() {
    let whole = ask(&mut sim(ten()), QUERY);
    let cases = [
        ("cut", Transport::CutAfter(whole.body.len() / 2)),
        ("reset", Transport::NoAnswer),
        ("stall", Transport::StallFor(crate::faults::STALL)),
        ("slow", Transport::SlowBytes { piece_bytes: 256, pause: Duration::from_millis(50) }),
    ];
    for (name, transport) in cases {
        assert_eq!(ask_with(name), SimResponse { transport, ..whole.clone() });
    }
}

#[test]
fn bodies_are_spoiled_under_a_good_status() {
    let spoiled = |name: &str| {
        let response = ask_with(name);
        assert_eq!((response.status, response.transport), (200, Transport::Whole), "{name}");
        response
    };
    assert!(serde_json::from_slice::<Value>(&spoiled("truncated").body).unwrap_err().is_eof());
    let html = spoiled("html");
    assert_eq!(html.header("content-type"), Some("text/html"));
    assert!(html.body.starts_with(b"<!DOCTYPE html>"));
    assert!(spoiled("empty").body.is_empty());
    assert_eq!(spoiled("null").body.as_ref(), b"null");
}

#[test]
fn an_empty_page_claims_that_there_is_nothing() {
    let answer = body(&ask_with("empty-page"));
    assert_eq!((ids_of(&answer).len(), total(&answer)), (0, 0));
}

#[test]
fn ignored_filters_give_what_was_not_asked_for() {
    let answer = body(&ask_with("filter-ignored"));
    assert_eq!((ids_of(&answer).len(), total(&answer)), (10, 10));
}

#[test]
fn an_ignored_page_gives_the_first() {
    let mut sim = sim(ten());
    let first = ids_of(&body(&ask(&mut sim, "size=4")));
    sim.set_fault(Fault::named("page-ignored"));
    for page in 1..5 {
        let answer = body(&ask(&mut sim, &format!("size=4&page={page}")));
        assert_eq!((ids_of(&answer), total(&answer)), (first.clone(), 10));
    }
}

#[test]
fn a_huge_page_is_valid_and_huge() {
    let response = ask_with("huge");
    assert_eq!(response.body.len(), crate::faults::HUGE_PAGE_BYTES);
    assert_eq!(ids_of(&body(&response)), ["e3", "e4", "e5", "e6", "e7"]);
}

#[test]
fn a_set_fault_goes_before_the_plan_until_it_is_taken_back() {
    let mut sim = sim(ten()).with_faults(FaultPlan::scripted(vec![(1, Fault::ServerError), (3, Fault::Unavailable)]));
    let mut statuses = vec![ask(&mut sim, "").status, ask(&mut sim, "").status];
    sim.set_fault(Some(Fault::Forbidden));
    statuses.push(ask(&mut sim, "").status);
    statuses.push(ask(&mut sim, "").status);
    sim.set_fault(None);
    statuses.push(ask(&mut sim, "").status);
    assert_eq!(statuses, [200, 500, 403, 403, 200]);
}

#[test]
fn faults_do_not_let_strangers_in() {
    for name in crate::faults::FAULT_NAMES {
        let mut sim = sim(ten());
        sim.set_fault(Some(Fault::named(name).unwrap()));
        let response = sim.handle(&SimRequest::get(EVENTS_PATH, "", "none"), now());
        assert!(!String::from_utf8_lossy(&response.body).contains("NUMBER_UPDATED"), "{name}");
    }
}

#[test]
fn a_wrong_date_is_off_by_what_was_asked_for() {
    let mut sim = sim(ten());
    sim.set_fault(Some(Fault::WrongDate { ahead_s: -3_600 }));
    let response = ask(&mut sim, "");
    assert_eq!((response.status, response.header("Date")), (200, Some("Mon, 04 May 2026 11:00:00 GMT")));
    assert_eq!(response.headers.iter().filter(|(name, _)| name == "Date").count(), 1);
}
