//! One sink's trouble stays its own, and a destination in trouble is left alone.

use super::LaneNoticeKind::{Failing, Recovered};
use super::*;

#[tokio::test(start_paused = true)]
async fn a_dead_sink_with_500_rows_gets_one_probe_per_step() {
    let mut bench = Bench::new();
    bench.store.add("dead", 500, start());
    let dead = Scripted::always(Outcome::Retry);
    bench.lane("dead", &dead).run_for(2 * HOUR).await;

    let lane = bench.store.lane("dead");
    let attempts = dead.attempts();
    let first = attempts.iter().filter(|seen| seen.at == attempts[0].at).count();
    assert_eq!(first, MACHINE_IN_FLIGHT, "only what was in flight at the first failure");
    assert_eq!(attempts.len() - first + 1, lane.step as usize, "one attempt per step");
    assert!((7..=14).contains(&lane.step), "{} steps in two hours", lane.step);
    let probes: Vec<Instant> = attempts.iter().skip(first - 1).map(|seen| seen.at).collect();
    for (failures, pair) in (1..).zip(probes.windows(2)) {
        let gap = pair[1] - pair[0];
        let limit = crate::backoff::MACHINE.step(failures) + Duration::from_millis(50);
        assert!(gap <= limit && gap >= crate::backoff::MIN_DELAY, "step {failures} took {gap:?}");
    }
    let made: u32 = bench.store.rows("dead").iter().map(|row| row.attempts).sum();
    assert_eq!(made as usize, attempts.len(), "released rows keep their attempts");
    let probed: std::collections::HashSet<_> = attempts.iter().map(|seen| &seen.delivery.delivery_id).collect();
    assert_eq!(probed.len(), attempts.len(), "a probe takes the row with the fewest attempts");
    assert_eq!(bench.notices(), [Failing], "the operator is told once");
}

#[tokio::test(start_paused = true)]
async fn the_backlog_leaves_at_once_when_the_destination_is_back() {
    let mut bench = Bench::new();
    bench.store.add("back", 500, start());
    let back_at = Instant::now() + HOUR;
    let back = Scripted::machine(move |_, _| {
        Act::Give(if Instant::now() < back_at { Outcome::Retry } else { Outcome::Delivered })
    });
    bench.lane("back", &back).run_for(3 * HOUR).await;
    assert_eq!(bench.store.delivered("back"), 500);
    let attempts = back.attempts();
    let good: Vec<_> = attempts.iter().filter(|seen| seen.at >= back_at).collect();
    assert_eq!(good.len(), 500, "each once");
    assert!(good[499].at - good[0].at < Duration::from_secs(3), "one success opens the lane");
    assert_eq!(bench.store.lane("back"), LaneState::default());
    let told = bench.told();
    assert_eq!(told.iter().map(|notice| notice.kind).collect::<Vec<_>>(), [Failing, Recovered]);
    let delay = told.last().and_then(|notice| notice.message.split_once("its oldest alert was delayed by "));
    let hours = delay.and_then(|(_, delay)| delay.split_once('h')).map(|(hours, _)| hours);
    // It was back after an hour, and probed by then each four hours at most.
    assert!(hours.is_some_and(|hours| (1..=3).contains(&hours.parse::<u32>().unwrap_or(0))), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_a_stalling_and_a_429_sink_delay_no_other() {
    let mut bench = Bench::new();
    for sink in ["dead", "stalling", "limited", "panicking", "good"] {
        bench.store.add(sink, 200, start());
    }
    let good = Scripted::always(Outcome::Delivered);
    let began = Instant::now();
    bench
        .lane("dead", &Scripted::always(Outcome::Retry))
        .lane("stalling", &Scripted::machine(|_, _| Act::Stall))
        .lane("limited", &Scripted::always(Outcome::Wait(Some(HOUR))))
        .lane("panicking", &Scripted::machine(|_, _| Act::Panic))
        .lane("good", &good)
        .run_for(Duration::from_secs(30))
        .await;
    assert_eq!(bench.store.delivered("good"), 200);
    let slowest = good.attempts().iter().map(|seen| seen.at - began).max().expect("attempts");
    assert!(slowest < Duration::from_millis(5), "the good sink's last attempt began after {slowest:?}");
    for sink in ["dead", "stalling", "limited", "panicking"] {
        assert_eq!(bench.store.delivered(sink) + bench.store.dead(sink), 0, "{sink} keeps its backlog");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_stands_in_full_for_the_whole_lane() {
    let mut bench = Bench::new();
    bench.store.add("limited", 50, start());
    let hint = Duration::from_secs(600);
    // The second attempt is refused with a hint; those that are in flight with it succeed a little later.
    let limited = Scripted::machine(move |_, number| match number {
        1 => Act::Give(Outcome::Wait(Some(hint))),
        _ => Act::Slow(Duration::from_millis(200), Outcome::Delivered),
    });
    bench.lane("limited", &limited).run_for(HOUR).await;
    let attempts = limited.attempts();
    let refused_at = attempts[1].at;
    assert!(
        attempts.iter().all(|seen| seen.at == refused_at || seen.at >= refused_at + hint),
        "no attempt within the pause"
    );
    assert_eq!(attempts.iter().filter(|seen| seen.at == refused_at).count(), MACHINE_IN_FLIGHT);
    assert!(attempts.iter().any(|seen| seen.at < refused_at + hint + Duration::from_secs(1)), "and not much longer");
    assert_eq!(bench.store.delivered("limited"), 50);
}

#[tokio::test(start_paused = true)]
async fn a_poison_row_does_not_starve_the_others() {
    let mut bench = Bench::new();
    bench.store.add("it", 300, start());
    let began = Instant::now();
    let sink = Scripted::machine(|delivery, _| {
        Act::Give(if delivery.alert_id == "alert-0" { Outcome::Retry } else { Outcome::Delivered })
    });
    bench.lane("it", &sink);
    let running = bench.spawn();
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(bench.store.delivered("it"), 299);
    // More keeps coming for two hours, so that the lane opens again after each failure.
    while began.elapsed() < 2 * HOUR {
        tokio::time::sleep(Duration::from_secs(20)).await;
        bench.store.add("it", 1, start());
        bench.wake.wake();
    }
    bench.stop.cancel();
    running.await.expect("no panic").expect("no storage failure");
    let poison = sink.attempts().iter().filter(|seen| seen.delivery.alert_id == "alert-0").count();
    assert!((4..=20).contains(&poison), "{poison} attempts: it backs off by its own ladder");
    assert!(bench.store.delivered("it") > 640, "{}", bench.store.delivered("it"));
}

#[tokio::test(start_paused = true)]
async fn retries_are_byte_identical_until_the_destination_refuses_the_form() {
    let mut bench = Bench::new();
    bench.store.add("it", 1, start());
    let sink = Scripted::machine(|_, number| {
        Act::Give(match number {
            0..4 => Outcome::Retry,
            4 => Outcome::Degrade,
            5 => Outcome::Retry,
            _ => Outcome::Delivered,
        })
    });
    bench.lane("it", &sink).run_for(2 * HOUR).await;
    let attempts = sink.attempts();
    let bodies: Vec<_> = attempts.iter().map(|seen| String::from_utf8_lossy(&seen.delivery.body)).collect();
    assert_eq!(bodies[..5], ["full body of alert-0"; 5]);
    assert_eq!(bodies[5..], ["plain alert-0 of 08:00:00"; 2]);
    assert_eq!(attempts.iter().map(|seen| seen.delivery.attempts).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
    assert!(attempts.iter().all(|seen| seen.delivery.delivery_id == attempts[0].delivery.delivery_id));
    assert_eq!(bench.store.delivered("it"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pause_survives_a_restart() {
    let mut bench = Bench::new();
    bench.store.add("it", 5, start());
    let began = Instant::now();
    let sink = Scripted::machine(|_, _| Act::Slow(Duration::from_millis(5), Outcome::Delivered));
    let kept = LaneState { step: 3, paused_until: Some(start() + TimeDelta::seconds(90)), reason: "HTTP 503".into() };
    now(bench.store.memory.settle("it", Vec::new(), Some(kept.clone())));
    bench.lanes.push(bench.shared.lane("it", Arc::clone(&sink) as Arc<dyn Sink>, kept));
    bench.run_for(Duration::from_secs(120)).await;
    let attempts = sink.attempts();
    assert_eq!(attempts.len(), 5);
    assert!(attempts[0].at - began >= Duration::from_secs(90), "not hammered");
    assert!(attempts[1].at > attempts[0].at, "one probe, then the rest");
}
