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

/// What was mended is not waited for; what is not mended is asked once more and no oftener than before.
#[tokio::test(start_paused = true)]
async fn a_start_after_a_refusal_probes_at_once() {
    for (second, delivered, attempts) in [(Outcome::Delivered, 5, 5), (Outcome::Misconfigured, 0, 1)] {
        let mut bench = Bench::new();
        bench.store.add("it", 5, start());
        let refusing = Scripted::new(RetryProfile::Person, |_, _| Act::Give(Outcome::Misconfigured));
        bench.lane("it", &refusing).run_for(Duration::from_secs(60)).await;
        assert_eq!(refusing.attempts().len(), PERSON_IN_FLIGHT, "no oftener without a start");
        let kept = bench.store.lane("it");
        assert_eq!((kept.step, kept.paused_until), (1, None));
        let again = Scripted::new(RetryProfile::Person, move |_, _| Act::Give(second.clone()));
        let sink = Arc::clone(&again) as Arc<dyn Sink>;
        for refusals in [bench.shared.refusals.clone(), Refusals::default()] {
            assert_eq!(again.attempts().len(), 0, "another lane of the same run waits on");
            bench.shared.refusals = refusals;
            bench.stop = CancellationToken::new();
            bench.lanes = vec![bench.shared.lane("it", Arc::clone(&sink), kept.clone())];
            bench.run_for(Duration::from_secs(60)).await;
        }
        assert_eq!((bench.store.delivered("it"), again.attempts().len()), (delivered, attempts));
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
