//! The time of day is set while lanes are at work: nothing comes sooner or later for it, and nothing twice.

use super::*;

const JUMPS_S: [i64; 4] = [-400 * 86_400, -3600, 3600, 20_000 * 86_400];

/// When each attempt began, of a run over which the clock is set by `jump_s` at several moments.
async fn attempts_over(jump_s: i64, script: impl Fn(&Delivery, usize) -> Act + Send + Sync + 'static) -> Vec<Duration> {
    let mut bench = Bench::new();
    let began = Instant::now();
    let sink = Scripted::machine(script);
    bench.store.add("it", 10, start());
    bench.lane("it", &sink);
    let running = bench.spawn();
    for (step, rest_s) in [1, 20, 61, 200, 600].into_iter().enumerate() {
        tokio::time::sleep(Duration::from_secs(rest_s)).await;
        bench.clock.set_by(if step % 2 == 0 { jump_s } else { 0 });
        let (at, due_at) = (bench.shared.clock.now(), bench.shared.clock.steady());
        bench.store.add_due("it", 10, at, due_at);
        bench.wake.wake();
    }
    tokio::time::sleep(HOUR).await;
    bench.stop.cancel();
    running.await.expect("no panic").expect("no failure");
    assert_eq!(bench.store.delivered("it"), 60, "{jump_s}");
    sink.attempts().iter().map(|seen| seen.at - began).collect()
}

#[tokio::test(start_paused = true)]
async fn retries_pauses_and_leases_end_by_what_has_passed() {
    type Script = fn(&Delivery, usize) -> Act;
    let failing: Script = |_, number| Act::Give(if number < 12 { Outcome::Retry } else { Outcome::Delivered });
    let asking: Script = |_, number| match number {
        3 | 30 => Act::Give(Outcome::Wait(Some(Duration::from_secs(900)))),
        _ => Act::Give(Outcome::Delivered),
    };
    let slow: Script = |_, _| Act::Slow(Duration::from_secs(55), Outcome::Delivered);
    let poisoned: Script = |delivery, _| {
        Act::Give(match delivery.alert_id.as_str() {
            "alert-4" if delivery.attempts < 5 => Outcome::Later(Duration::from_secs(400)),
            _ => Outcome::Delivered,
        })
    };
    for (name, script, sends) in
        [("failing", failing, 72), ("asking", asking, 62), ("slow", slow, 60), ("later", poisoned, 65)]
    {
        let usual = attempts_over(0, script).await;
        assert_eq!(usual.len(), sends, "{name}");
        for jump_s in JUMPS_S {
            assert_eq!(attempts_over(jump_s, script).await, usual, "{name}, the clock set by {jump_s} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_given_up_early_because_the_clock_was_set() {
    for jump_s in JUMPS_S {
        let mut bench = Bench::new();
        bench.store.add("it", 1, start());
        let sink = Scripted::new(RetryProfile::Person, |_, _| Act::Give(Outcome::Retry));
        bench.lane("it", &sink);
        let running = bench.spawn();
        tokio::time::sleep(HOUR).await;
        bench.clock.set_by(jump_s);
        // What another process stamps by the time of day: a dead letter that was replayed.
        bench.store.add("it", 1, bench.shared.clock.now());
        tokio::time::sleep(22 * HOUR).await;
        assert_eq!(bench.store.dead("it"), 0, "the clock set by {jump_s} s");
        bench.stop.cancel();
        running.await.expect("no panic").expect("no failure");
    }
}

#[tokio::test(start_paused = true)]
async fn the_ledger_tells_the_time_of_day() {
    let mut bench = Bench::new();
    bench.store.add("it", 1, start());
    bench.clock.set_by(-7200);
    bench.lane("it", &Scripted::always(Outcome::Delivered)).run_for(Duration::from_secs(1)).await;
    assert_eq!(bench.store.settled("it")[0].started_at, start() - TimeDelta::hours(2));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_works_says_that_the_store_has_space() {
    let mut bench = Bench::new();
    bench.store.add("it", 1, start());
    bench.shared.status.update(|snapshot| snapshot.store = Some("no space left".into()));
    bench.lane("it", &Scripted::always(Outcome::Delivered)).run_for(Duration::from_secs(1)).await;
    assert_eq!(bench.shared.status.snapshot().store, None);
}
