//! What a server does for good, not once: nothing is lost, nothing keeps what is fresh waiting, and `run --once` ends.

use std::time::Duration;

use chrono::TimeDelta;
use vigie::source::NoticeKind;
use vigie_sim::Fault;
use vigie_sim::faults::{HUGE_PAGE_BYTES, WRONG_DATE_S};
use vigie_sim::quirks::{Bound, Nothing, Quirks, Resolution, SortOrder};

use super::world::Scenario;
use super::{Daemon, Outcome, on_paused_time};

/// The longest that something fresh may go unseen here: an interval of 90 s, and some requests.
const FRESH: TimeDelta = TimeDelta::minutes(5);

/// A calm world that has the quirk from its beginning to its end. What is visible some minutes before the end must have
/// been evaluated by then, and not only by what `run --once` finds afterwards.
fn run(quirks: Quirks, change: impl FnOnce(&mut Scenario)) -> Outcome {
    on_paused_time(async {
        let mut scenario = Scenario::calm(quirks);
        change(&mut scenario);
        let mut daemon = Daemon::new(scenario);
        tokio::time::sleep(daemon.scenario.head_start).await;
        let late = late_at_the_end(&mut daemon).await;
        assert!(late.is_empty(), "{} are not seen in time: {late:?}", late.len());
        daemon.finish().await
    })
}

/// Runs to the end of the world; of what was visible some minutes before, what has not been evaluated by then.
async fn late_at_the_end(daemon: &mut Daemon) -> Vec<String> {
    let end = daemon.scenario.ends_at();
    daemon.run_until(end - FRESH).await;
    let visible = daemon.server.visible_ids();
    daemon.run_until(end).await;
    daemon.late(&visible).await
}

fn assert_clean(name: &str, outcome: &Outcome) {
    assert!(outcome.is_clean(), "{name}: {outcome:?}");
    assert!(outcome.expected > 100, "{name}: only {} events", outcome.expected);
}

/// Notices, each kind once, in the order in which they came first.
fn kinds(outcome: &Outcome) -> Vec<NoticeKind> {
    let mut kinds = Vec::new();
    for kind in &outcome.notices {
        if !kinds.contains(kind) {
            kinds.push(*kind);
        }
    }
    kinds
}

#[test]
fn a_server_that_refuses_where_there_is_nothing_is_read_like_any_other() {
    let friendly = Quirks::default;
    let hour = Some(Duration::from_secs(3_600));
    for (name, quirks) in [
        ("404 beyond", Quirks { beyond: Nothing::NotFound, ..friendly() }),
        ("400 beyond", Quirks { beyond: Nothing::BadRequest, ..friendly() }),
        ("404 for nothing", Quirks { nothing: Nothing::NotFound, ..friendly() }),
        ("400 for the far", Quirks { horizon: hour, future_row: Some(Duration::from_secs(1_800)), ..friendly() }),
    ] {
        let future = quirks.future_row.map(|_| NoticeKind::FutureEvent);
        let outcome = run(quirks, |_| {});
        assert_clean(name, &outcome);
        assert!(outcome.errors.is_empty(), "{name}: {:?}", outcome.errors.first());
        assert_eq!(kinds(&outcome), future.into_iter().collect::<Vec<_>>(), "{name}");
    }
}

/// A list that is not there at all answers 404 as well.
#[test]
fn a_list_that_is_gone_is_not_taken_for_one_without_rows() {
    let outcome = on_paused_time(async {
        let mut daemon = Daemon::new(Scenario::calm(Quirks::default()));
        tokio::time::sleep(daemon.scenario.head_start).await;
        let begin = daemon.scenario.stress.start;
        daemon.run_until(begin + TimeDelta::minutes(60)).await;
        daemon.server.move_away(true);
        daemon.run_until(begin + TimeDelta::minutes(90)).await;
        daemon.server.move_away(false);
        daemon.run_until(daemon.scenario.ends_at()).await;
        daemon.finish().await
    });
    assert_clean("moved away", &outcome);
    assert_eq!(kinds(&outcome), [NoticeKind::PollingFailing]);
}

#[test]
fn a_second_that_always_fails_keeps_nothing_else_waiting() {
    let outcome = on_paused_time(async {
        let mut scenario = Scenario::calm(Quirks::default());
        scenario.stress.bursts_per_day = 200.0;
        scenario.stress.burst_max = 150;
        // Within a burst, so that it does not fit on the page of a root.
        let mut daemon = Daemon::new(scenario);
        let broken_at = daemon.server.crowded_second(daemon.scenario.stress.start + TimeDelta::minutes(60));
        daemon.server.set_quirks(Quirks { broken_at, ..Quirks::default() });
        tokio::time::sleep(daemon.scenario.head_start).await;
        let late = late_at_the_end(&mut daemon).await;
        // Every request reaches one second further on both sides.
        let (created_s, broken_s) = (daemon.server.created_s(), broken_at.expect("set").timestamp());
        let far: Vec<i64> = late.iter().map(|id| created_s[id] - broken_s).filter(|off_s| off_s.abs() > 2).collect();
        assert!(far.is_empty(), "{far:?}");
        daemon.server.set_quirks(Quirks::default());
        daemon.finish().await
    });
    assert_clean("one second", &outcome);
    assert!(outcome.errors.iter().all(|error| error.contains("500")), "{:?}", outcome.errors);
    assert_eq!(kinds(&outcome), [NoticeKind::WindowStuck]);
}

/// `run --once` against a second that never answers says so instead of going on for ever.
#[test]
fn a_finite_run_gives_up_on_a_second_that_always_fails() {
    on_paused_time(async {
        let mut scenario = Scenario::calm(Quirks::default());
        scenario.start = vigie::source::vonage::Start::Ago(Duration::from_secs(3_600));
        let broken_at = Some(scenario.stress.start + TimeDelta::minutes(70));
        let mut daemon = Daemon::new(scenario);
        daemon.server.set_quirks(Quirks { broken_at, ..Quirks::default() });
        tokio::time::sleep(Duration::from_secs(90 * 60)).await;
        let end = daemon.poll(true, Duration::from_secs(3_600)).await;
        assert!(matches!(end, Some(vigie::pipeline::ingest::SourceEnd::Stopped(_))), "{end:?}");
    });
}

#[test]
fn pages_that_stay_too_long_are_read_in_parts() {
    // 100 rows are 20 MB, 50 fit.
    let outcome = run(Quirks { padding_bytes: 200_000, ..Quirks::default() }, |scenario| {
        scenario.stress.events_per_hour = 60.0;
        (scenario.stress.bursts_per_day, scenario.stress.burst_max) = (48.0, 120);
    });
    assert_clean("long rows", &outcome);
    assert_eq!(kinds(&outcome), []);
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors.first());
}

#[test]
fn a_row_that_no_answer_can_carry_is_kept_as_far_as_it_was_read_and_told() {
    for order in [SortOrder::Ascending, SortOrder::Descending] {
        let quirks = Quirks { giant_bytes: Some(HUGE_PAGE_BYTES), order, ..Quirks::default() };
        let outcome = run(quirks, |_| {});
        assert_clean("a row of 20 MB", &outcome);
        assert_eq!(outcome.notices, [NoticeKind::PoisonEvent], "{order:?}");
    }
}

/// The fault makes even an empty page as long as that, whatever is asked for.
#[test]
fn answers_with_more_in_them_than_rows_are_read_row_by_row() {
    let outcome = on_paused_time(async {
        let mut scenario = Scenario::calm(Quirks::default());
        scenario.stress.events_per_hour = 60.0;
        (scenario.stress.bursts_per_day, scenario.body_bytes) = (0.0, 100_000);
        let mut daemon = Daemon::new(scenario);
        tokio::time::sleep(daemon.scenario.head_start).await;
        let begin = daemon.scenario.stress.start;
        daemon.run_until(begin + TimeDelta::minutes(60)).await;
        daemon.server.set_fault(Some(Fault::HugePage { body_bytes: 110_000 }));
        let before = daemon.ledger.evaluated().len();
        daemon.run_until(begin + TimeDelta::minutes(90)).await;
        assert!(daemon.ledger.evaluated().len() > before + 20, "nothing is seen while it lasts");
        daemon.server.set_fault(None);
        daemon.run_until(daemon.scenario.ends_at()).await;
        daemon.finish().await
    });
    assert!(outcome.is_clean(), "{outcome:?}");
    assert_eq!(outcome.notices, []);
}

/// A `Date` that is off on some answers, or on all of them for an hour.
#[test]
fn a_wrong_date_loses_nothing_and_is_told() {
    for ahead_s in [WRONG_DATE_S, 3_600, -3_600, -WRONG_DATE_S] {
        for minutes in [1, 60] {
            let outcome = on_paused_time(async {
                let mut daemon = Daemon::new(Scenario::calm(Quirks::default()));
                tokio::time::sleep(daemon.scenario.head_start).await;
                let begin = daemon.scenario.stress.start;
                daemon.run_until(begin + TimeDelta::minutes(60)).await;
                daemon.server.set_fault(Some(Fault::WrongDate { ahead_s }));
                daemon.run_until(begin + TimeDelta::minutes(60 + minutes)).await;
                // A restart in the middle of it must not believe it either.
                daemon.restart();
                daemon.run_until(begin + TimeDelta::minutes(61 + minutes)).await;
                daemon.server.set_fault(None);
                let visible = daemon.server.visible_ids();
                daemon.run_until(begin + TimeDelta::minutes(61 + minutes) + FRESH).await;
                let late = daemon.late(&visible).await;
                assert!(late.is_empty(), "{ahead_s} {minutes}: {late:?}");
                daemon.run_until(daemon.scenario.ends_at()).await;
                daemon.finish().await
            });
            assert_clean(&format!("{ahead_s} s for {minutes} min"), &outcome);
            assert!(outcome.notices.contains(&NoticeKind::ClockDoubted), "{ahead_s} {minutes}: {:?}", outcome.notices);
        }
    }
}

/// The very first answers have a wrong `Date`: nothing may be taken for older than the start, or for newer.
#[test]
fn a_first_date_that_is_wrong_does_not_decide_the_start() {
    let outcome = on_paused_time(async {
        let mut daemon = Daemon::new(Scenario::calm(Quirks::default()));
        tokio::time::sleep(daemon.scenario.head_start).await;
        daemon.server.set_fault(Some(Fault::WrongDate { ahead_s: WRONG_DATE_S }));
        let begin = daemon.server.clock_now();
        daemon.run_until(begin + TimeDelta::milliseconds(500)).await;
        daemon.server.set_fault(None);
        daemon.run_until(daemon.scenario.ends_at()).await;
        daemon.finish().await
    });
    assert_clean("a wrong first Date", &outcome);
}

#[test]
fn two_rows_with_one_id_do_not_keep_a_window_open() {
    for size in [100, 7] {
        let [alone, twins] = [false, true].map(|twin| {
            let outcome = run(Quirks { twin, page_cap: Some(size), ..Quirks::default() }, |scenario| {
                (scenario.stress.bursts_per_day, scenario.stress.burst_max) = (48.0, 150);
            });
            assert_clean("a twin", &outcome);
            assert_eq!(kinds(&outcome), []);
            outcome.requests
        });
        println!("pages of {size}: {alone} requests without a twin, {twins} with one");
        // At full speed it would be five a second.
        assert!(twins < 12_000, "pages of {size}: {twins} instead of {alone} requests");
    }
}

#[test]
fn a_row_that_is_always_shown_does_not_keep_windows_open() {
    let outcome = run(Quirks { stray: true, ..Quirks::default() }, |scenario| {
        (scenario.stress.bursts_per_day, scenario.stress.burst_max) = (48.0, 150);
    });
    assert_clean("a stray row", &outcome);
    assert_eq!(kinds(&outcome), [NoticeKind::FilterIgnored, NoticeKind::FilterIgnoredLong]);
    assert!(outcome.requests < 4_000, "{} requests", outcome.requests);
}

/// A page that answers for itself is handed on although nothing can be learned of what comes after it.
#[test]
fn a_server_that_fails_behind_the_last_page_is_read_all_the_same() {
    let outcome = on_paused_time(async {
        let quirks = Quirks { beyond: Nothing::ServerError, ..Quirks::default() };
        let mut scenario = Scenario::calm(quirks.clone());
        (scenario.stress.events_per_hour, scenario.stress.bursts_per_day) = (60.0, 24.0);
        let mut daemon = Daemon::new(scenario);
        tokio::time::sleep(daemon.scenario.head_start).await;
        let late = late_at_the_end(&mut daemon).await;
        assert!(late.is_empty(), "{} are not seen in time: {late:?}", late.len());
        daemon.server.set_quirks(Quirks::default());
        daemon.finish().await
    });
    assert_clean("500 beyond", &outcome);
}

/// What no root reads again must not be settled by a server that shows nothing at all for some seconds.
#[test]
fn an_outage_of_empty_answers_while_the_past_is_read_loses_nothing() {
    for fault in [Fault::EmptyPage, Fault::NotFound] {
        for begins_ms in [300, 700, 1_500, 4_000] {
            let outcome = on_paused_time(async {
                let mut scenario = Scenario::calm(Quirks::default());
                scenario.head_start = Duration::from_secs(7_000);
                scenario.start = vigie::source::vonage::Start::Ago(Duration::from_secs(6_900));
                for tier in &mut scenario.tiers {
                    // What begins to be read lies beyond what is read again.
                    tier.every = Duration::from_secs(30);
                    tier.look_back = tier.look_back.min(Duration::from_secs(1_200));
                }
                let mut daemon = Daemon::new(scenario);
                tokio::time::sleep(daemon.scenario.head_start).await;
                let began = daemon.server.clock_now();
                daemon.run_until(began + TimeDelta::milliseconds(begins_ms)).await;
                daemon.server.set_fault(Some(fault.clone()));
                daemon.run_until(began + TimeDelta::milliseconds(begins_ms + 20_000)).await;
                daemon.server.set_fault(None);
                daemon.run_until(daemon.scenario.ends_at()).await;
                daemon.finish().await
            });
            assert_clean(&format!("{fault:?} after {begins_ms} ms"), &outcome);
        }
    }
}

/// An account where stamps have no zone, and the clocks are put forward.
#[test]
fn clocks_that_are_put_forward_are_noticed_and_lose_nothing() {
    let hours = |hours: i32| chrono::FixedOffset::east_opt(hours * 3_600).expect("a zone");
    let quirks = |zone| Quirks { stamp: Some(vigie_sim::event::Stamp::Naive), zone, ..Quirks::default() };
    let outcome = on_paused_time(async {
        let mut daemon = Daemon::new(Scenario::calm(quirks(hours(1))));
        tokio::time::sleep(daemon.scenario.head_start).await;
        let middle = daemon.scenario.stress.start + TimeDelta::minutes(50);
        daemon.run_until(middle).await;
        daemon.server.set_quirks(quirks(hours(2)));
        let late = late_at_the_end(&mut daemon).await;
        assert!(late.is_empty(), "{} are not seen in time: {late:?}", late.len());
        daemon.finish().await
    });
    assert_clean("an hour forward", &outcome);
    let told = outcome.notices.iter().filter(|kind| **kind == NoticeKind::FutureEvent).count();
    assert!((1..40).contains(&told), "{told} events were read as dated ahead");
}

/// Far more happens each second than a page holds, at a fast poll: each root owes its look-back again, and what was walked
/// already must not keep the newest from its turn.
#[test]
fn a_flood_is_read_to_its_end_although_each_root_owes_it_again() {
    let outcome = on_paused_time(async {
        let mut scenario = Scenario::calm(Quirks::default());
        (scenario.stress.events_per_hour, scenario.stress.duration) = (540_000.0, Duration::from_secs(40));
        scenario.stress.bursts_per_day = 0.0;
        scenario.head_start = Duration::ZERO;
        for tier in &mut scenario.tiers {
            tier.every = Duration::from_millis(200);
        }
        let mut daemon = Daemon::new(scenario);
        let end = daemon.scenario.stress.start + TimeDelta::seconds(40);
        daemon.run_until(end).await;
        let visible = daemon.server.visible_ids();
        daemon.run_until(end + FRESH).await;
        let late = daemon.late(&visible).await;
        assert!(late.is_empty(), "{} of {} are not seen in time", late.len(), visible.len());
        daemon.finish().await
    });
    assert_clean("a flood", &outcome);
}

/// More rows than fit a page in each look-back, and some in nearly every second: windows cannot be counted without the
/// seconds at their bounds.
fn busy(to: Bound, from: Bound, resolution: Resolution) -> Outcome {
    let quirks = Quirks { from, to, resolution, order: SortOrder::Descending, ..Quirks::default() };
    run(quirks, |scenario| {
        scenario.stress.events_per_hour = 7_200.0;
        scenario.stress.bursts_per_day = 0.0;
        scenario.tiers[0].every = Duration::from_secs(15);
    })
}

#[test]
fn what_the_bounds_are_is_learned_and_spares_a_busy_account_most_requests() {
    let inclusive = busy(Bound::Inclusive, Bound::Inclusive, Resolution::Second);
    let exclusive = busy(Bound::Exclusive, Bound::Exclusive, Resolution::Second);
    let fractions = busy(Bound::Exclusive, Bound::Exclusive, Resolution::Full);
    for (name, outcome) in [("inclusive", &inclusive), ("exclusive", &exclusive), ("fractions", &fractions)] {
        println!("{name}: {} events, {} requests", outcome.expected, outcome.requests);
        assert_clean(name, outcome);
    }
    // Where fractions decide, no second belongs to a window as a whole: roots are read again in parts.
    assert!(inclusive.requests * 2 < fractions.requests, "{} and {}", inclusive.requests, fractions.requests);
    assert!(exclusive.requests * 2 < fractions.requests, "{} and {}", exclusive.requests, fractions.requests);
}
