//! Panics, stalls, stops, and a store that fails.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_panic_is_one_failed_attempt() {
    let mut bench = Bench::new();
    bench.store.add("it", 1, start());
    let sink = Scripted::machine(|_, number| if number == 0 { Act::Panic } else { Act::Give(Outcome::Delivered) });
    bench.lane("it", &sink).run_for(Duration::from_secs(10)).await;
    let ledger = bench.store.settled("it");
    assert_eq!(ledger.len(), 2);
    assert_eq!(ledger[0].status, "the sink panicked");
    assert_eq!(bench.store.delivered("it"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_never_answers_is_given_up_by_the_lane() {
    let mut bench = Bench::new();
    bench.store.add("it", 1, start());
    let sink = Scripted::machine(|_, number| if number == 0 { Act::Stall } else { Act::Give(Outcome::Delivered) });
    bench.lane("it", &sink).run_for(Duration::from_secs(120)).await;
    let ledger = bench.store.settled("it");
    assert_eq!(ledger[0].latency_ms, MAX_SEND.as_millis() as u64);
    assert_eq!(ledger[1].resolution, Resolution::Delivered { unconfirmed: false });
}

#[tokio::test(start_paused = true)]
async fn a_slow_destination_gets_no_row_twice_and_none_whose_lease_may_end_meanwhile() {
    let mut bench = Bench::new();
    bench.store.add("slow", 40, start());
    let (store, began) = (Arc::clone(&bench.store), Instant::now());
    let slow = Scripted::new(RetryProfile::Person, move |delivery, _| {
        let rows = store.rows("slow");
        let row = rows.iter().find(|row| row.delivery_id == delivery.delivery_id).expect("stored");
        let now = start() + TimeDelta::from_std(began.elapsed()).expect("in range");
        assert!(row.next_at > Some(now + TimeDelta::seconds(90)), "the lease outlives the longest send");
        Act::Slow(Duration::from_secs(55), Outcome::Delivered)
    });
    bench.lane("slow", &slow).run_for(HOUR).await;
    assert_eq!(slow.attempts().len(), 40);
    assert_eq!(bench.store.delivered("slow"), 40);
}

#[tokio::test(start_paused = true)]
async fn a_stop_settles_what_is_in_flight_and_gives_back_the_rest() {
    let mut bench = Bench::new();
    bench.store.add("it", 100, start());
    let sink = Scripted::machine(|_, _| Act::Slow(Duration::from_secs(10), Outcome::Delivered));
    let began = Instant::now();
    bench.lane("it", &sink).run_for(Duration::from_secs(5)).await;
    assert_eq!(began.elapsed().as_secs(), 10, "waits for the sends, not longer");
    assert_eq!(bench.store.delivered("it"), MACHINE_IN_FLIGHT);
    let waiting: Vec<DeliveryRow> =
        bench.store.rows("it").into_iter().filter(|row| row.status == DeliveryStatus::Pending).collect();
    assert_eq!(waiting.len(), 100 - MACHINE_IN_FLIGHT);
    let stopped_at = Some(start() + TimeDelta::seconds(5));
    let free = |row: &DeliveryRow| row.attempts == 0 && row.next_at <= stopped_at;
    assert!(waiting.iter().all(free), "due at once after a restart");
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_within_its_limit_though_a_send_does_not() {
    let mut bench = Bench::new();
    bench.store.add("it", 3, start());
    let sink = Scripted::machine(|_, number| match number {
        0 => Act::Slow(Duration::from_secs(2), Outcome::Delivered),
        _ => Act::Stall,
    });
    let began = Instant::now();
    bench.lane("it", &sink).run_for(Duration::from_secs(1)).await;
    assert_eq!(began.elapsed().as_secs(), 1 + MAX_DRAIN.as_secs());
    assert_eq!(bench.store.delivered("it"), 1, "what ended is settled");
    let lease = Some(start() + TimeDelta::seconds(150));
    let leased = bench.store.rows("it").iter().filter(|row| row.next_at == lease).count();
    assert_eq!(leased, 2, "the others come again after their lease");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_loses_no_result_and_repeats_no_send() {
    let mut bench = Bench::new();
    bench.store.add("it", 200, start());
    let sink = Scripted::machine(|_, _| Act::Slow(Duration::from_millis(5), Outcome::Delivered));
    bench.lane("it", &sink);
    // The first claim works, then 12 writes in a row find no space.
    let running = bench.spawn();
    tokio::time::sleep(Duration::from_millis(2)).await;
    bench.store.book().failures.extend(["full"; 12]);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!bench.store.book().failures.is_empty(), "it waits longer and longer");
    assert_eq!(sink.attempts().len(), MACHINE_IN_FLIGHT, "nothing new is sent while results cannot be written");
    tokio::time::sleep(Duration::from_secs(120)).await;
    bench.stop.cancel();
    running.await.expect("no panic").expect("a full disk is no failure");
    assert_eq!(bench.store.delivered("it"), 200);
    assert_eq!(sink.attempts().len(), 200, "each sent once");
}

#[tokio::test(start_paused = true)]
async fn what_a_kill_would_repeat_is_never_more_than_what_may_be_in_flight() {
    let mut bench = Bench::new();
    bench.store.add("it", 300, start());
    let store = Arc::clone(&bench.store);
    let most = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&most);
    let sink = Scripted::machine(move |_, number| {
        let unsettled = number + 1 - store.settled("it").len();
        let mut most = seen.lock().expect("not poisoned");
        *most = unsettled.max(*most);
        Act::Slow(Duration::from_millis(1 + number as u64 * 7 % 40), Outcome::Delivered)
    });
    bench.lane("it", &sink).run_for(HOUR).await;
    assert_eq!(bench.store.delivered("it"), 300);
    assert_eq!(*most.lock().expect("not poisoned"), MACHINE_IN_FLIGHT, "begun and not settled");
}

#[tokio::test(start_paused = true)]
async fn results_that_cannot_be_written_before_the_end_are_an_error() {
    let mut bench = Bench::new();
    bench.store.add("it", 1, start());
    let sink = Scripted::always(Outcome::Delivered);
    bench.lane("it", &sink);
    bench.store.book().failures.push_back("none");
    bench.store.book().failures.extend(["full"; 1000]);
    let running = bench.spawn();
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.stop.cancel();
    let ended = running.await.expect("no panic");
    assert!(matches!(ended, Err(StoreError::Full(_))), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broken_store_stops_all_lanes() {
    let mut bench = Bench::new();
    bench.store.add("a", 1, start());
    let began = Instant::now();
    bench.lane("a", &Scripted::always(Outcome::Delivered)).lane("b", &Scripted::always(Outcome::Delivered));
    bench.store.book().failures.extend(["fatal"; 2]);
    let ended = bench.spawn().await.expect("no panic");
    assert!(matches!(ended, Err(StoreError::Fatal(_))), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn draining_ends_with_an_error_when_the_disk_stays_full() {
    let mut bench = Bench::new();
    bench.store.add("it", 1, start());
    bench.lane("it", &Scripted::always(Outcome::Delivered));
    // The claim goes through, the settlement never does.
    bench.store.book().failures.push_back("none");
    bench.store.book().failures.extend(["full"; 1000]);
    let ended = drain(std::mem::take(&mut bench.lanes), &bench.stop).await;
    assert!(matches!(ended, Err(StoreError::Full(_))), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn draining_ends_as_well_when_nothing_can_be_claimed() {
    for storm in [None, Some(Storm { above: 5, follow: None })] {
        let mut bench = Bench::new();
        bench.store.add("it", 1, start());
        bench.lane("it", &Scripted::always(Outcome::Delivered));
        bench.store.book().failures.extend(["full"; 1000]);
        let lanes = std::mem::take(&mut bench.lanes).into_iter().map(|lane| lane.folding(storm)).collect();
        let ended = tokio::time::timeout(MAX_DRAIN * 3, drain(lanes, &bench.stop)).await;
        assert!(ended.is_ok(), "it waits for ever");
        assert!(bench.store.book().commits < 100, "it backs off: {}", bench.store.book().commits);
    }
}
