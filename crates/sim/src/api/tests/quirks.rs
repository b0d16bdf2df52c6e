//! Each quirk, shown by what it does to an answer.

use std::collections::BTreeSet;

use chrono::FixedOffset;

use super::*;
use crate::faults::FAULT_NAMES;
use crate::quirks::{Bound, Lateness, Malformed, OptionsAnswer, Resolution, SortOrder, Totals};
use crate::world::StressConfig;

fn with(events: Vec<SimEvent>, change: impl FnOnce(&mut Quirks)) -> Sim {
    let mut quirks = Quirks::default();
    change(&mut quirks);
    sim(events).with_quirks(quirks)
}

/// 40 events within one second, in steps of 10 ms, with ids in no order.
fn tied() -> Vec<SimEvent> {
    let mut rng = crate::rng::Rng::new(3);
    (0..40)
        .map(|n| SimEvent::new(rng.uuid(), "APP_UPDATE", at("2026-05-04T10:00:00Z") + TimeDelta::milliseconds(n * 10)))
        .collect()
}

/// All ids over all pages of this size.
fn walk(sim: &mut Sim, size: usize) -> Vec<String> {
    let mut all = Vec::new();
    for number in 1..=40 / size {
        all.extend(ids(sim, &format!("size={size}&page={number}")));
    }
    all
}

#[test]
fn order_is_as_set_and_pages_fit_together() {
    let oldest_first: Vec<String> = tied().into_iter().map(|event| event.id).collect();
    let newest_first: Vec<String> = oldest_first.iter().rev().cloned().collect();
    let mut ascending = sim(tied());
    assert_eq!(walk(&mut ascending, 8), oldest_first);
    let mut descending = with(tied(), |quirks| quirks.order = SortOrder::Descending);
    assert_eq!(walk(&mut descending, 8), newest_first);
    let mut scrambled = with(tied(), |quirks| quirks.order = SortOrder::Scrambled);
    let first = walk(&mut scrambled, 8);
    assert_eq!(walk(&mut scrambled, 8), first);
    assert_ne!(first, oldest_first);
    assert_ne!(first, newest_first);
    assert_eq!(first.iter().collect::<BTreeSet<_>>(), oldest_first.iter().collect());
    let mut by_id = with(tied(), |quirks| {
        quirks.order = SortOrder::NewestFirstById;
        quirks.resolution = Resolution::Second;
    });
    let mut sorted = oldest_first.clone();
    sorted.sort();
    assert_eq!(walk(&mut by_id, 8), sorted);
}

#[test]
fn coarse_resolution_keeps_ties_in_order_of_arrival() {
    let mut coarse = with(tied(), |quirks| {
        quirks.order = SortOrder::Descending;
        quirks.resolution = Resolution::Second;
    });
    let newest_first: Vec<String> = tied().into_iter().rev().map(|event| event.id).collect();
    assert_eq!(walk(&mut coarse, 10), newest_first);
}

#[test]
fn unstable_ties_differ_between_requests_and_repeat_from_the_start() {
    for order in [SortOrder::Ascending, SortOrder::Descending, SortOrder::Scrambled, SortOrder::NewestFirstById] {
        let make = || {
            with(tied(), |quirks| {
                quirks.order = order;
                quirks.resolution = Resolution::Second;
                quirks.unstable_ties = true;
            })
        };
        let mut unstable = make();
        let first = ids(&mut unstable, "size=40");
        let second = ids(&mut unstable, "size=40");
        assert_ne!(first, second, "{order:?}");
        assert_eq!(first.iter().collect::<BTreeSet<_>>(), second.iter().collect());
        // Walking pages over such ties misses rows: that is the point.
        assert!(walk(&mut unstable, 8).into_iter().collect::<BTreeSet<_>>().len() < 40, "{order:?}");
        assert_eq!(ids(&mut make(), "size=40"), first);
    }
    // Different stamps are never mixed up.
    let mut distinct = with(ten(), |quirks| quirks.unstable_ties = true);
    assert_eq!(ids(&mut distinct, ""), sim(ten()).all_ids());
}

#[test]
fn bounds_are_inclusive_or_exclusive_and_full_or_coarse() {
    let events =
        || vec![event("a", "10:00:00"), event("b", "10:00:00.400"), event("c", "10:00:01"), event("d", "10:00:01.400")];
    let query = "date_from=2026-05-04T10:00:00Z&date_to=2026-05-04T10:00:01Z";
    let cases = [
        (Bound::Inclusive, Bound::Inclusive, Resolution::Full, "abc"),
        (Bound::Inclusive, Bound::Exclusive, Resolution::Full, "ab"),
        (Bound::Exclusive, Bound::Inclusive, Resolution::Full, "bc"),
        (Bound::Exclusive, Bound::Exclusive, Resolution::Full, "b"),
        (Bound::Inclusive, Bound::Inclusive, Resolution::Second, "abcd"),
        (Bound::Inclusive, Bound::Exclusive, Resolution::Second, "ab"),
        (Bound::Exclusive, Bound::Inclusive, Resolution::Second, "cd"),
        (Bound::Exclusive, Bound::Exclusive, Resolution::Second, ""),
    ];
    for (from, to, resolution, expected) in cases {
        let mut sim = with(events(), |quirks| {
            quirks.from = from;
            quirks.to = to;
            quirks.resolution = resolution;
        });
        assert_eq!(ids(&mut sim, query).concat(), expected, "{from:?} {to:?} {resolution:?}");
        assert_eq!(total(&page(&mut sim, query)), expected.len() as u64);
    }
    let mut coarse = with(events(), |quirks| quirks.resolution = Resolution::Second);
    assert_eq!(ids(&mut coarse, "date_from=2026-05-04T10:00:01.900Z").concat(), "cd");
}

#[test]
fn naive_stamps_and_bounds_are_in_the_servers_zone() {
    let mut naive = event("naive", "10:00:00");
    naive.stamp = Stamp::Naive;
    let mut sim = with(vec![naive, event("zoned", "10:00:01")], |quirks| {
        quirks.zone = FixedOffset::east_opt(2 * 3_600).unwrap();
    });
    let rows = page(&mut sim, "");
    assert_eq!(rows["_embedded"]["events"][0]["created_at"], "2026-05-04T12:00:00");
    assert_eq!(rows["_embedded"]["events"][1]["created_at"], "2026-05-04T10:00:01.000Z");
    assert_eq!(ids(&mut sim, "date_to=2026-05-04T12:00:00"), ["naive"]);
    assert_eq!(ids(&mut sim, "date_to=2026-05-04T10:00:00Z"), ["naive"]);
    assert!(ids(&mut sim, "date_to=2026-05-04T10:00:00").is_empty());
    // A bare date is midnight in that zone: 22:00 UTC of the day before.
    assert!(ids(&mut sim, "date_to=2026-05-04").is_empty());
    assert_eq!(ids(&mut sim, "date_from=2026-05-04").len(), 2);
}

#[test]
fn one_stamp_for_all_cuts_what_it_does_not_show() {
    let mut sim = with(vec![event("a", "10:00:00.400")], |quirks| quirks.stamp = Some(Stamp::Naive));
    assert_eq!(page(&mut sim, "")["_embedded"]["events"][0]["created_at"], "2026-05-04T10:00:00");
    assert_eq!(ids(&mut sim, "date_to=2026-05-04T10:00:00"), ["a"]);
}

#[test]
fn hidden_fractions_are_compared_though_not_shown() {
    let mut sim = with(vec![event("a", "10:00:00.400")], |quirks| {
        quirks.stamp = Some(Stamp::Naive);
        quirks.hidden_fraction = true;
    });
    assert_eq!(page(&mut sim, "")["_embedded"]["events"][0]["created_at"], "2026-05-04T10:00:00");
    assert!(ids(&mut sim, "date_to=2026-05-04T10:00:00").is_empty());
    assert_eq!(ids(&mut sim, "date_to=2026-05-04T10:00:01"), ["a"]);
}

#[test]
fn lateness_delays_every_row_within_its_bound() {
    let lateness = Lateness { usual: Duration::from_secs(2), late_share: 0.3, late_max: Duration::from_secs(60) };
    let mut sim = with(ten(), |quirks| quirks.lateness = Some(lateness));
    assert!(ids_of(&body(&ask_at(&mut sim, "", at("2026-05-04T10:00:09Z")))).len() < 10);
    assert_eq!(sim.visible_ids(at("2026-05-04T10:01:09Z")).len(), 10);
    let spread: BTreeSet<_> = sim.events().map(|event| event.lateness).collect();
    assert!(spread.len() > 5, "{spread:?}");
}

#[test]
fn pages_are_capped_whatever_is_asked_for() {
    let mut sim = with(tied(), |quirks| quirks.page_cap = Some(15));
    let capped = page(&mut sim, "size=100");
    assert_eq!((ids_of(&capped).len(), &capped["page"]["size"]), (15, &Value::from(15)));
    assert_eq!(ids(&mut sim, "size=100&page=3").len(), 10);
    assert_eq!(ids(&mut sim, "size=5").len(), 5);
}

#[test]
fn totals_lie_as_set_and_rows_stay_true() {
    let cases = [
        (Totals::Exact, [10, 10, 10]),
        (Totals::Low(3), [7, 7, 7]),
        (Totals::Low(30), [0, 0, 0]),
        (Totals::High(5), [15, 15, 15]),
        (Totals::Capped(4), [4, 4, 4]),
        (Totals::Shrinking(2), [10, 8, 6]),
    ];
    for (totals, expected) in cases {
        let mut sim = with(ten(), |quirks| quirks.totals = totals);
        let pages = [(); 3].map(|()| page(&mut sim, ""));
        assert_eq!(pages.each_ref().map(total), expected, "{totals:?}");
        assert!(pages.iter().all(|page| ids_of(page).len() == 10));
    }
}

#[test]
fn rows_shift_while_paging_and_stay() {
    let mut events = ten();
    events[9].created_at = now() - TimeDelta::seconds(1);
    events[9].set_lateness(Duration::from_secs(10));
    let make = |shift: u64| {
        with(events.clone(), |quirks| {
            quirks.order = SortOrder::Descending;
            quirks.shift = Duration::from_secs(shift);
        })
    };
    let mut sim = make(30);
    assert_eq!(ids(&mut sim, "size=5"), ["e8", "e7", "e6", "e5", "e4"]);
    // A new row came in at the top: e4 is there again, and e9 was passed over.
    assert_eq!(ids(&mut sim, "size=5&page=2"), ["e4", "e3", "e2", "e1", "e0"]);
    assert_eq!(ids(&mut sim, "size=5"), ["e9", "e8", "e7", "e6", "e5"]);
    assert_eq!(sim.visible_ids(now()).len(), 10);
    // Shifting shows late rows early, never rows that have not happened.
    sim.push(SimEvent::new("ahead".to_owned(), "APP_UPDATE", now() + TimeDelta::seconds(10)));
    assert!(!ids(&mut sim, "size=5&page=2").contains(&"ahead".to_owned()));
    assert!(!sim.visible_ids(now()).contains(&"ahead".to_owned()));
    let mut steady = make(0);
    assert_eq!(ids(&mut steady, "size=5&page=2"), ["e3", "e2", "e1", "e0"]);
}

#[test]
fn one_row_is_dated_in_the_future() {
    let mut sim = with(ten(), |quirks| quirks.future_row = Some(Duration::from_secs(365 * 86_400)));
    let id = sim.future_id().unwrap().to_owned();
    let rows = page(&mut sim, "date_from=2026-06-01");
    assert_eq!(ids_of(&rows), [id]);
    assert!(rows["_embedded"]["events"][0]["created_at"].as_str().unwrap().starts_with("2027-05-04T10:00:0"));
    assert_eq!(sim.visible_ids(now()).len(), 10);
    // It is shown when the event that it was would have been shown, not before.
    assert!(ids_of(&body(&ask_at(&mut sim, "", at("2026-05-04T09:59:59Z")))).is_empty());
}

#[test]
fn rows_repeat_within_a_page() {
    let mut sim = with(ten(), |quirks| quirks.repeated_rows = 1.0);
    let rows = page(&mut sim, "");
    let all = ids_of(&rows);
    assert_eq!((all.len(), total(&rows)), (11, 10));
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 10);
    sim.set_quirks(Quirks { repeated_rows: 0.3, ..Quirks::default() });
    let repeated = (0..200).filter(|_| ids(&mut sim, "").len() == 11).count();
    assert!((30..90).contains(&repeated), "{repeated}");
}

#[test]
fn one_row_is_malformed_in_every_answer() {
    let kinds = [Malformed::NoStamp, Malformed::BadStamp, Malformed::NumericId, Malformed::Text];
    for kind in kinds {
        let mut sim = with(ten(), |quirks| quirks.malformed = Some(kind));
        let broken = sim.malformed_id().unwrap().to_owned();
        let place = sim.all_ids().iter().position(|id| *id == broken).unwrap();
        for _ in 0..2 {
            let rows = page(&mut sim, "");
            let row = &rows["_embedded"]["events"][place];
            let is_broken = match kind {
                Malformed::NoStamp => row.get("created_at").is_none() && row["id"] == *broken,
                Malformed::BadStamp => row["created_at"] == "yesterday",
                Malformed::NumericId => row["id"] == 17,
                Malformed::Text => row.is_string(),
            };
            assert!(is_broken, "{kind:?}: {row}");
            let whole = rows["_embedded"]["events"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|row| row["id"].is_string() && row["created_at"].is_string());
            assert!(whole.count() >= 9);
        }
    }
}

#[test]
fn options_may_have_no_content() {
    let mut sim = with(ten(), |quirks| quirks.options = OptionsAnswer::NoContent);
    let authorization = Sim::basic_authorization(KEY, DEFAULT_SECRET);
    let request = SimRequest { method: "OPTIONS".to_owned(), ..SimRequest::get(EVENTS_PATH, "", &authorization) };
    let response = sim.handle(&request, now());
    assert_eq!((response.status, response.body.len()), (204, 0));
}

#[test]
fn quirks_can_change_while_it_runs() {
    let mut sim = with(ten(), |quirks| quirks.malformed = Some(Malformed::Text));
    sim.set_quirks(Quirks { order: SortOrder::Descending, ..Quirks::default() });
    assert_eq!(ids(&mut sim, "").first().map(String::as_str), Some("e9"));
    assert_eq!((sim.malformed_id(), sim.future_id()), (None, None));
}

#[test]
fn equal_seeds_and_quirks_give_equal_answers() {
    let run = || {
        let config = StressConfig::new(77, at("2026-05-04T00:00:00Z"), Duration::from_secs(12 * 3_600));
        let mut sim = Sim::from_world(&World::stress(&config)).with_quirks(Quirks {
            order: SortOrder::Scrambled,
            unstable_ties: true,
            repeated_rows: 0.2,
            shift: Duration::from_secs(60),
            ..Quirks::default()
        });
        let chances = FAULT_NAMES.iter().map(|name| crate::faults::Fault::parse(&format!("{name}:0.02")).unwrap());
        sim.set_fault_plan(FaultPlan::seeded(77, chances.filter(|chance| chance.fault != huge()).collect()));
        (0..200).map(|n| ask(&mut sim, &format!("size=100&page={}", n % 5 + 1))).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

fn huge() -> Fault {
    Fault::named("huge").unwrap()
}

#[test]
fn a_twin_is_listed_and_counted_twice() {
    let mut sim = with(ten(), |quirks| quirks.twin = true);
    let answer = body(&ask(&mut sim, ""));
    assert_eq!(total(&answer), 11);
    assert_eq!(ids_of(&answer).iter().filter(|id| *id == "e5").count(), 2);
    assert_eq!(sim.visible_ids(now()).len(), 10);
}

#[test]
fn a_stray_row_comes_with_every_range_that_it_is_not_in() {
    let mut sim = with(ten(), |quirks| quirks.stray = true);
    let answer = body(&ask(&mut sim, "date_from=2026-05-04T10:00:05Z"));
    assert_eq!((ids_of(&answer).last().cloned(), total(&answer)), (Some("e0".into()), 6));
    let second = body(&ask(&mut sim, "date_from=2026-05-04T10:00:05Z&size=3&page=2"));
    assert_eq!((ids_of(&second), total(&second)), (vec!["e8".to_owned(), "e9".to_owned()], 6));
    assert_eq!(total(&body(&ask(&mut sim, ""))), 10);
}

#[test]
fn rows_may_be_long_and_one_longer() {
    let mut sim = with(ten(), |quirks| (quirks.padding_bytes, quirks.giant_bytes) = (1_000, Some(50_000)));
    let rows = body(&ask(&mut sim, ""));
    let lengths = |row: &Value| row["padding"].as_str().map_or(0, str::len);
    let lengths: Vec<usize> = rows["_embedded"]["events"].as_array().unwrap().iter().map(lengths).collect();
    assert_eq!(lengths.iter().filter(|length| **length == 1_000).count(), 9);
    assert_eq!((lengths[4], sim.giant_id()), (51_000, Some("e4")));
}

#[test]
fn nothing_may_be_refused() {
    let mut sim = with(ten(), |quirks| (quirks.beyond, quirks.nothing) = (Nothing::BadRequest, Nothing::NotFound));
    let statuses =
        ["size=5&page=2", "size=5&page=3", "date_from=2026-05-04T11:00:00Z"].map(|query| ask(&mut sim, query));
    assert_eq!(statuses.map(|response| response.status), [200, 400, 404]);
}

#[test]
fn ranges_may_be_refused() {
    let mut sim = with(ten(), |quirks| {
        quirks.horizon = Some(Duration::from_secs(3_600));
        quirks.broken_at = Some(at("2026-05-04T10:00:05Z"));
    });
    let statuses = [
        "date_from=2026-05-04T11:00:00Z&date_to=2026-05-04T12:59:00Z",
        "date_from=2026-05-04T11:00:00Z&date_to=2026-05-04T13:01:00Z",
        "date_from=2026-05-04T10:00:00Z&date_to=2026-05-04T10:00:05Z",
        "date_from=2026-05-04T10:00:00Z",
    ]
    .map(|query| ask(&mut sim, query));
    assert_eq!(statuses.map(|response| response.status), [200, 400, 500, 200]);
}
