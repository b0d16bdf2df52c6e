//! Below the destination's limit: waiting for a token is no failure, and nobody waits longer than needed.

use super::*;

fn pace(rate: &str, burst: u32, bucket: &Arc<Bucket>) -> Option<Pace> {
    Some(Pace::new(Rate::parse(rate).expect("a rate"), burst, Arc::clone(bucket)))
}

fn seconds_since(began: Instant, sink: &Scripted) -> Vec<u64> {
    sink.attempts().iter().map(|seen| (seen.at - began).as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_lane_keeps_to_its_rate_and_each_row_is_sent_once() {
    let mut bench = Bench::new();
    bench.store.add("chat", 100, start());
    let began = Instant::now();
    let chat = Scripted::new(RetryProfile::Person, |_, _| Act::Slow(Duration::from_millis(150), Outcome::Delivered));
    bench.paced_lane("chat", &chat, pace("1/s", 3, &Arc::default())).run_for(Duration::from_secs(120)).await;
    let expected: Vec<u64> = (0..100_u64).map(|index| index.saturating_sub(2)).collect();
    assert_eq!(seconds_since(began, &chat), expected, "three at once, then one a second, and no slower");
    assert!(bench.store.rows("chat").iter().all(|row| row.attempts == 1), "waiting costs no attempt");
    assert_eq!((bench.store.delivered("chat"), bench.store.lane("chat")), (100, LaneState::default()));
    assert_eq!(bench.notices(), []);
    assert!(bench.store.book().commits <= 2 * 100, "{} commits", bench.store.book().commits);
}

#[tokio::test(start_paused = true)]
async fn a_rate_slower_than_a_lease_sends_no_row_twice_and_claims_seldom() {
    let mut bench = Bench::new();
    bench.store.add("it", 30, start());
    let began = Instant::now();
    let sink = Scripted::machine(|_, _| Act::Slow(Duration::from_secs(20), Outcome::Delivered));
    bench.paced_lane("it", &sink, pace("12/h", 1, &Arc::default())).run_for(3 * HOUR).await;
    assert_eq!(seconds_since(began, &sink), (0..30).map(|index| index * 300).collect::<Vec<u64>>());
    assert_eq!(bench.store.delivered("it"), 30);
    assert!(bench.store.book().commits <= 3 * 30, "{} commits", bench.store.book().commits);
}

#[tokio::test(start_paused = true)]
async fn lanes_to_one_destination_share_its_limit_in_turns() {
    let mut bench = Bench::new();
    let (one, two) = (Scripted::always(Outcome::Delivered), Scripted::always(Outcome::Delivered));
    bench.store.add("one", 200, start());
    bench.store.add("two", 20, start());
    let began = Instant::now();
    let bucket = Arc::default();
    bench.paced_lane("one", &one, pace("1/s", 1, &bucket)).paced_lane("two", &two, pace("1/s", 1, &bucket));
    bench.run_for(Duration::from_millis(39_500)).await;
    let (of_one, of_two) = (seconds_since(began, &one), seconds_since(began, &two));
    assert_eq!((of_one.len(), of_two.len()), (21, 19), "a backlog does not starve the other");
    let mut all = [of_one, of_two].concat();
    all.sort_unstable();
    assert_eq!(all, (0..40).collect::<Vec<u64>>(), "together they keep to it");
}

#[tokio::test(start_paused = true)]
async fn an_idle_and_a_paused_lane_hold_no_token() {
    let mut bench = Bench::new();
    bench.store.add("down", 5, start());
    let down = Scripted::always(Outcome::Wait(Some(5 * HOUR)));
    let (busy, idle) = (Scripted::always(Outcome::Delivered), Scripted::always(Outcome::Delivered));
    let bucket = Arc::default();
    for (name, sink) in [("idle", &idle), ("down", &down), ("busy", &busy)] {
        bench.paced_lane(name, sink, pace("1/m", 1, &bucket));
    }
    let running = bench.spawn();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let added = Instant::now();
    bench.store.add("busy", 3, start());
    bench.wake.wake();
    tokio::time::sleep(Duration::from_secs(200)).await;
    bench.stop.cancel();
    running.await.expect("no panic").expect("no failure");
    assert_eq!(seconds_since(added, &busy), [0, 60, 120]);
    assert_eq!((down.attempts().len(), idle.attempts().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_finite_run_waits_for_tokens_and_a_stop_does_not() {
    let mut bench = Bench::new();
    bench.store.add("it", 10, start());
    let sink = Scripted::always(Outcome::Delivered);
    let began = Instant::now();
    bench.paced_lane("it", &sink, pace("1/s", 1, &Arc::default()));
    let left = drain(std::mem::take(&mut bench.lanes), &bench.stop).await.expect("no failure");
    assert_eq!((left[0].1.depth, began.elapsed().as_secs()), (0, 9));

    let mut bench = Bench::new();
    bench.store.add("it", 10, start());
    let began = Instant::now();
    bench.paced_lane("it", &sink, pace("1/h", 2, &Arc::default())).run_for(Duration::from_secs(30)).await;
    assert_eq!((bench.store.delivered("it"), began.elapsed().as_secs()), (2, 30));
    assert!(bench.store.rows("it").iter().filter(|row| row.next_at.is_some()).all(|row| row.attempts == 0));
}

#[tokio::test(start_paused = true)]
async fn a_used_up_limit_pauses_the_lane_in_full_without_a_failure() {
    for outcome in [Outcome::Delivered, Outcome::Accepted] {
        let mut bench = Bench::new();
        bench.store.add("it", 100, start());
        let began = Instant::now();
        let spent = Duration::from_secs(1800);
        let sink = Scripted::machine(move |_, number| match number {
            20 => Act::Spent(outcome.clone(), spent),
            _ => Act::Slow(Duration::from_millis(100), Outcome::Delivered),
        });
        bench.lane("it", &sink);
        let running = bench.spawn();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let lane = bench.store.lane("it");
        assert_eq!((lane.step, lane.paused_until.is_some()), (0, true), "kept over a restart");
        tokio::time::sleep(HOUR).await;
        bench.stop.cancel();
        running.await.expect("no panic").expect("no failure");
        let said_at = sink.attempts()[20].at;
        let after: Vec<Instant> = sink.attempts().iter().map(|seen| seen.at).filter(|at| *at > said_at).collect();
        assert!(after.iter().all(|at| *at >= said_at + spent), "not within the pause");
        assert!(after[0] < said_at + spent + Duration::from_millis(100), "and not longer");
        assert!(after[4] == after[0], "no probe: the lane was healthy");
        assert_eq!((bench.store.delivered("it"), sink.attempts().len()), (100, 100));
        assert_eq!((bench.store.lane("it"), bench.notices()), (LaneState::default(), Vec::new()));
        assert!(began.elapsed() > spent);
    }
}

#[tokio::test(start_paused = true)]
async fn a_used_up_limit_beside_another_answer_makes_its_pause_longer_and_never_longer_than_six_hours() {
    for (outcome, spent_s, expected_s) in [
        (Outcome::Misconfigured, 3600, 3600),
        (Outcome::Misconfigured, 10, 300),
        (Outcome::Dead, 60, 60),
        (Outcome::Delivered, u64::MAX, 6 * 3600),
    ] {
        let mut bench = Bench::new();
        bench.store.add("it", 20, start());
        let (given, began) = (outcome.clone(), Instant::now());
        let sink = Scripted::machine(move |_, _| Act::Spent(given.clone(), Duration::from_secs(spent_s)));
        bench.lane("it", &sink).run_for(7 * HOUR).await;
        let tries = seconds_since(began, &sink);
        let second = tries.iter().find(|at| **at > 0);
        assert_eq!(second, Some(&expected_s), "{outcome:?}: {tries:?}");
    }
}
