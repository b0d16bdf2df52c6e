//! More than a sink takes: one digest a rule, nothing lost, nothing rare hidden.

use super::*;
use crate::pipeline::digest;

impl BookStore {
    fn add_of_rule(&self, sink: &str, rule: &str, names: std::ops::Range<usize>, at: DateTime<Utc>) {
        let mut batch = IngestBatch { source: "main".into(), at: Some(at), ..IngestBatch::default() };
        for index in names {
            let alert_id = format!("{rule}-{index}");
            let mut new = alert(&alert_id);
            new.rule.id = rule.into();
            batch.alerts.push(NewAlert { alert: new, muted_by: None });
            let delivery_id = crate::sink::delivery_id(&alert_id, sink);
            batch.deliveries.push(NewDelivery::new(delivery_id, alert_id.clone(), sink.into(), alert_id.into_bytes()));
        }
        now(self.memory.commit(batch));
    }

    fn alert_ids(&self) -> Vec<String> {
        self.memory.alerts().into_iter().map(|new| new.alert.rule.id).collect()
    }
}

fn taking() -> Arc<Scripted> {
    Scripted::new(RetryProfile::Person, |_, _| Act::Give(Outcome::Delivered))
}

async fn drained(bench: &mut Bench) {
    let lanes = std::mem::take(&mut bench.lanes);
    let storm = Some(Storm { above: 5, follow: None });
    let lanes = lanes.into_iter().map(|lane| lane.folding(storm)).collect();
    drain(lanes, &bench.stop).await.expect("drained");
}

#[tokio::test(start_paused = true)]
async fn a_flood_folds_and_does_not_hide_what_is_rare() {
    let mut bench = Bench::new();
    bench.store.add_of_rule("it", "flood", 0..40, start());
    bench.store.add_of_rule("it", "rare", 0..2, start());
    bench.lane("it", &taking());
    drained(&mut bench).await;
    let rows = bench.store.rows("it");
    let count = |status| rows.iter().filter(|row| row.status == status).count();
    assert_eq!((rows.len(), count(DeliveryStatus::Digested), count(DeliveryStatus::Delivered)), (43, 35, 8));
    let told_in: Vec<_> = rows.iter().filter_map(|row| row.told_in.clone()).collect();
    let digest_row = rows.iter().find(|row| Some(&row.delivery_id) == told_in.first()).expect("stored");
    assert_eq!((told_in.len(), digest_row.status), (35, DeliveryStatus::Delivered));
    assert!(told_in.iter().all(|id| *id == digest_row.delivery_id));
    assert_eq!(bench.store.alert_ids().iter().filter(|rule| *rule == digest::RULE_ID).count(), 1);
    let rare =
        rows.iter().filter(|row| row.alert_id.starts_with("rare")).all(|row| row.status == DeliveryStatus::Delivered);
    assert!(rare, "told by themselves: {rows:?}");
}

#[tokio::test(start_paused = true)]
async fn few_go_by_themselves_and_what_was_tried_never_folds() {
    let mut bench = Bench::new();
    bench.store.add_of_rule("it", "flood", 0..5, start());
    bench.lane("it", &taking());
    drained(&mut bench).await;
    assert_eq!(bench.store.count("it", DeliveryStatus::Delivered), 5, "no more than the limit");

    let mut bench = Bench::new();
    bench.store.add_of_rule("it", "flood", 0..40, start());
    // All of them were in doubt once.
    let claimed = now(bench.store.memory.claim("it", start(), start(), MAX_CLAIM));
    assert_eq!(claimed.len(), 40);
    bench.lane("it", &taking());
    drained(&mut bench).await;
    assert_eq!(bench.store.count("it", DeliveryStatus::Delivered), 40);
}

#[tokio::test(start_paused = true)]
async fn a_digest_that_is_refused_is_a_dead_letter_that_names_what_it_stood_for() {
    let mut bench = Bench::new();
    bench.store.add_of_rule("it", "flood", 0..40, start());
    let refuses_digests = Scripted::new(RetryProfile::Person, |delivery, _| {
        Act::Give(if delivery.alert_id.starts_with("flood") { Outcome::Delivered } else { Outcome::Dead })
    });
    bench.lane("it", &refuses_digests);
    drained(&mut bench).await;
    let rows = bench.store.rows("it");
    let dead: Vec<_> = rows.iter().filter(|row| row.status == DeliveryStatus::Dead).collect();
    assert_eq!(dead.len(), 1);
    assert_eq!(rows.iter().filter(|row| row.told_in.as_ref() == Some(&dead[0].delivery_id)).count(), 35);
}
