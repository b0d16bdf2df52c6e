//! What is given up, and when.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_delivery_is_given_up_at_the_age_of_its_profile() {
    for (profile, hours) in [(RetryProfile::Person, 24), (RetryProfile::Machine, 72)] {
        let mut bench = Bench::new();
        bench.store.add("it", 1, start());
        let sink = Scripted::new(profile, |_, _| Act::Give(Outcome::Retry));
        bench.lane("it", &sink).run_for((hours + 5) * HOUR).await;
        assert_eq!(bench.store.dead("it"), 1);
        let ledger = bench.store.settled("it");
        let died_at = ledger.last().expect("attempts").started_at - start();
        assert!((hours.into()..i64::from(hours) + 5).contains(&died_at.num_hours()), "{profile:?}: {died_at}");
        assert_eq!(bench.notices(), [LaneNoticeKind::Failing, LaneNoticeKind::DeadLetter]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_misconfigured_sink_keeps_its_backlog_is_probed_every_five_minutes_and_told_once() {
    let mut bench = Bench::new();
    bench.store.add("it", 20, start());
    let mended_at = Instant::now() + 30 * HOUR;
    let sink = Scripted::new(RetryProfile::Person, move |_, _| {
        Act::Give(if Instant::now() < mended_at { Outcome::Misconfigured } else { Outcome::Delivered })
    });
    bench.lane("it", &sink).run_for(31 * HOUR).await;
    let refused = sink.attempts().iter().filter(|seen| seen.at < mended_at).count();
    assert!((355..=360 + PERSON_IN_FLIGHT).contains(&refused), "{refused} probes in 30 h");
    assert_eq!(bench.store.delivered("it"), 20, "nothing is given up");
    assert_eq!(bench.notices(), [LaneNoticeKind::Misconfigured, LaneNoticeKind::Recovered]);
}

/// Rows that waited longer than the age at which they are given up, because we were refused, or untried because we were not
/// running, are not given up at the first failure after it; a day of failures from then on is their end.
#[tokio::test(start_paused = true)]
async fn what_waited_for_an_operator_is_not_given_up_at_the_next_failure() {
    for refused in [true, false] {
        for then in [Outcome::Retry, Outcome::Wait(None), Outcome::Wait(Some(Duration::from_secs(2)))] {
            let mut bench = Bench::new();
            let owed_at = if refused { start() } else { start() - TimeDelta::hours(30) };
            bench.store.add("it", 20, owed_at);
            let mended_at = Instant::now() + if refused { 30 * HOUR } else { Duration::ZERO };
            let (well_at, name) = (mended_at + HOUR, format!("{refused} {then:?}"));
            let sink = Scripted::new(RetryProfile::Person, move |_, _| {
                let now = Instant::now();
                Act::Give(match (now < mended_at, now < well_at) {
                    (true, _) => Outcome::Misconfigured,
                    (false, true) => then.clone(),
                    (false, false) => Outcome::Delivered,
                })
            });
            bench.lane("it", &sink).run_for(40 * HOUR).await;
            assert_eq!((bench.store.delivered("it"), bench.store.dead("it")), (20, 0), "{name}");
            assert!(sink.attempts().iter().any(|seen| seen.at >= mended_at && seen.at < well_at), "{name}: no failure");
        }
    }
}

/// What was mended is not waited for; what is not mended is asked once more and no oftener than before.
#[tokio::test(start_paused = true)]
async fn a_start_after_a_failure_probes_at_once() {
    for (first, second, delivered, attempts) in [
        (Outcome::Misconfigured, Outcome::Delivered, 5, 5),
        (Outcome::Misconfigured, Outcome::Misconfigured, 0, 1),
        (Outcome::Retry, Outcome::Delivered, 5, 5),
        (Outcome::Retry, Outcome::Retry, 0, 1),
    ] {
        let mut bench = Bench::new();
        bench.store.add("it", 5, start());
        let failing = Scripted::new(RetryProfile::Person, move |_, _| Act::Give(first.clone()));
        // Until a probe failed after which the next is 15 minutes away at most; a refusal is probed each five minutes.
        bench.lane("it", &failing).run_for(3 * HOUR).await;
        let kept = bench.store.lane("it");
        assert!(kept.step > 5, "{kept:?}");
        assert_eq!(kept.paused_until, None, "only what the destination asks for is kept");
        // The pause that runs may end in any second; this one does not within the test.
        bench.shared.own_pauses.note("it", Some(Instant::now() + HOUR));
        let again = Scripted::new(RetryProfile::Person, move |_, _| Act::Give(second.clone()));
        let sink = Arc::clone(&again) as Arc<dyn Sink>;
        for own_pauses in [bench.shared.own_pauses.clone(), OwnPauses::default()] {
            assert_eq!(again.attempts().len(), 0, "another lane of the same run waits on");
            bench.shared.own_pauses = own_pauses;
            bench.stop = CancellationToken::new();
            bench.lanes = vec![bench.shared.lane("it", Arc::clone(&sink), kept.clone())];
            bench.run_for(Duration::from_millis(50)).await;
        }
        assert_eq!((bench.store.delivered("it"), again.attempts().len()), (delivered, attempts));
    }
}

/// `deliveries retry` is how somebody says that a destination is well again: whatever the lane waits for, it tries now.
#[tokio::test(start_paused = true)]
async fn a_retry_by_hand_ends_the_pause_of_a_running_lane() {
    for first in [Outcome::Misconfigured, Outcome::Retry, Outcome::Wait(Some(5 * HOUR))] {
        let mut bench = Bench::new();
        bench.store.add("it", 5, start());
        // Not when a probe is due anyway: one is each five minutes after a refusal, and its answer takes 5 ms.
        let mended_at = Instant::now() + 3 * HOUR + Duration::from_secs(100);
        let given = first.clone();
        let sink = Scripted::machine(move |_, _| {
            let outcome = if Instant::now() < mended_at { given.clone() } else { Outcome::Delivered };
            Act::Slow(Duration::from_millis(5), outcome)
        });
        bench.lane("it", &sink);
        let running = bench.spawn();
        tokio::time::sleep_until(mended_at).await;
        let before = sink.attempts().len();
        let asked = Instant::now();
        let own = bench.shared.own_pauses.until("it").map(|until| until - asked);
        let kept = bench.store.lane("it").paused_until.map(|until| (until - start()).num_seconds() - 10_900);
        assert!(own.map_or(0, |own| own.as_secs()).max(kept.map_or(0, i64::unsigned_abs)) > 60, "{first:?}: no pause");
        let row = bench.store.rows("it").remove(0);
        bench.store.memory.retry(&row.delivery_id, bench.shared.clock.now()).await.expect("in memory");
        tokio::time::sleep(IDLE_RECHECK + Duration::from_millis(100)).await;
        assert_eq!(bench.store.delivered("it"), 5, "{first:?}");
        let after: Vec<Instant> = sink.attempts().iter().skip(before).map(|seen| seen.at).collect();
        assert!(after[0] - asked <= IDLE_RECHECK, "{first:?}");
        assert!(after.iter().skip(1).all(|at| *at > after[0]), "one probe, then the rest: {first:?}");
        bench.stop.cancel();
        running.await.expect("no panic").expect("no failure");
    }
}

/// Who asks while a probe is on its way means one that begins after the asking; the pause after it ends at once, once.
#[tokio::test(start_paused = true)]
async fn a_retry_by_hand_is_not_lost_on_a_probe_that_is_on_its_way() {
    let mut bench = Bench::new();
    bench.store.add("it", 1, start());
    let began = Instant::now();
    let sink = Scripted::machine(|_, _| Act::Slow(Duration::from_secs(40), Outcome::Misconfigured));
    bench.lane("it", &sink);
    let running = bench.spawn();
    let ask = async |bench: &Bench| {
        let row = bench.store.rows("it").remove(0);
        bench.store.memory.retry(&row.delivery_id, bench.shared.clock.now()).await.expect("in memory")
    };
    // The second probe begins at 340 s and ends at 380 s.
    tokio::time::sleep_until(began + Duration::from_secs(350)).await;
    ask(&bench).await;
    tokio::time::sleep_until(began + Duration::from_secs(1000)).await;
    let second_after: Vec<u64> = sink.attempts().iter().map(|seen| (seen.at - began).as_secs()).collect();
    assert_eq!(second_after.len(), 4, "{second_after:?}");
    assert!((0..=1).contains(&second_after[0]) && second_after[1] == 340, "{second_after:?}");
    assert!((380..=382).contains(&second_after[2]), "at once after the probe that was on its way: {second_after:?}");
    assert_eq!(second_after[3], second_after[2] + 340, "and no oftener: {second_after:?}");
    bench.stop.cancel();
    running.await.expect("no panic").expect("no failure");
    // A lane that begins later does not take the asking for new, and knows how often it failed.
    let kept = bench.store.lane("it");
    assert_eq!((kept.step, kept.paused_until), (4, None));
    bench.stop = CancellationToken::new();
    bench.lanes.push(bench.shared.lane("it", Arc::clone(&sink) as Arc<dyn Sink>, kept));
    let made = sink.attempts().len();
    bench.run_for(Duration::from_secs(30)).await;
    assert_eq!(sink.attempts().len(), made, "it goes on with the pause of this run");
}

/// More comes in than there are probes, so each probe is the first of its row: the rows are as old as their sink's trouble.
#[tokio::test(start_paused = true)]
async fn rows_that_are_never_tried_twice_are_given_up_when_their_sink_has_failed_for_as_long() {
    let mut bench = Bench::new();
    let sink = Scripted::new(RetryProfile::Person, |_, _| Act::Give(Outcome::Retry));
    bench.store.add("it", 400, start());
    bench.lane("it", &sink);
    let running = bench.spawn();
    let mut dead_after_hours = Vec::new();
    for _ in 0..30 {
        bench.store.add("it", 20, bench.shared.clock.now());
        bench.wake.wake();
        tokio::time::sleep(HOUR).await;
        dead_after_hours.push(bench.store.dead("it"));
    }
    bench.stop.cancel();
    running.await.expect("no panic").expect("no failure");
    assert_eq!(dead_after_hours[22], 0, "{dead_after_hours:?}");
    assert!(dead_after_hours[29] > 5, "{dead_after_hours:?}");
    let tried = sink.attempts();
    let rows: std::collections::HashSet<_> = tried.iter().map(|seen| &seen.delivery.delivery_id).collect();
    assert_eq!(rows.len(), tried.len(), "none twice");
}

/// A clock that is set back while the program is not running puts nothing off.
#[tokio::test(start_paused = true)]
async fn what_failed_is_due_after_a_start_with_a_clock_that_was_set_back() {
    for first in [Outcome::Retry, Outcome::Wait(Some(Duration::from_secs(1))), Outcome::Misconfigured] {
        let mut bench = Bench::new();
        bench.store.add("it", 1, start());
        let given = first.clone();
        let failing = Scripted::machine(move |_, _| Act::Slow(Duration::from_secs(1), given.clone()));
        bench.lane("it", &failing).run_for(Duration::from_millis(1050)).await;
        let clock = Arc::new(SetClock::starting_at(start() - TimeDelta::hours(1)));
        bench.shared.clock = clock.clone();
        bench.shared.own_pauses = OwnPauses::default();
        bench.store.take_over(clock.steady(), clock.steady() + TimeDelta::hours(6)).await.expect("in memory");
        let kept = LaneState { paused_until: None, ..bench.store.lane("it") };
        let well = Scripted::always(Outcome::Delivered);
        bench.stop = CancellationToken::new();
        bench.lanes.push(bench.shared.lane("it", Arc::clone(&well) as Arc<dyn Sink>, kept));
        bench.run_for(Duration::from_secs(3)).await;
        assert_eq!(bench.store.delivered("it"), 1, "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_body_whose_alert_is_gone_is_a_dead_letter() {
    let mut bench = Bench::new();
    bench.store.add("it", 1, start());
    bench.store.book().alerts_are_gone = true;
    let sink = Scripted::always(Outcome::Degrade);
    bench.lane("it", &sink).run_for(Duration::from_secs(5)).await;
    assert_eq!(sink.attempts().len(), 1);
    assert_eq!(bench.store.dead("it"), 1);
}
