//! Names of the metrics, in one place, and the recorder that serves them.
//!
//! Everything that counts uses these constants; what is served is in the public contract, so a name never changes.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Events stored and evaluated, by source.
pub const EVENTS: &str = "vigie_events_total";
/// Events that an answer repeated, by source.
pub const EVENTS_DUPLICATE: &str = "vigie_events_duplicate_total";
/// Rows that could not be read as events, by source.
pub const EVENTS_POISON: &str = "vigie_events_poison_total";
/// Requests to a source, by source and outcome.
pub const POLL: &str = "vigie_poll_total";
/// Time of the last good request, by source.
pub const POLL_LAST_SUCCESS: &str = "vigie_poll_last_success_timestamp_seconds";
/// Seconds between an event and its evaluation, by source.
pub const EVENT_LAG: &str = "vigie_event_lag_seconds";
/// Windows not yet proven complete, by source.
pub const WINDOWS_OWED: &str = "vigie_windows_owed";
/// Matches, by rule.
pub const RULE_MATCHES: &str = "vigie_rule_matches_total";
/// Field values that a rule could not use (an address that does not parse, a wrong type).
pub const UNUSABLE_VALUES: &str = "vigie_unusable_values_total";
/// Alerts whose title template failed, so that they carry their rule's title.
pub const TITLE_FAILURES: &str = "vigie_title_failures_total";
/// Alerts, by severity and outcome (`routed`, `muted`, `unrouted`).
pub const ALERTS: &str = "vigie_alerts_total";
/// Notices of the program about itself, by kind.
pub const NOTICES: &str = "vigie_notices_total";
/// Attempts, by sink and outcome.
pub const DELIVERIES: &str = "vigie_deliveries_total";
/// Seconds from commit to delivery, by sink.
pub const DELIVERY_LATENCY: &str = "vigie_delivery_latency_seconds";
/// Waiting deliveries, by sink.
pub const DELIVERY_QUEUE_DEPTH: &str = "vigie_delivery_queue_depth";
/// Age of the oldest waiting delivery, by sink.
pub const DELIVERY_OLDEST: &str = "vigie_delivery_oldest_seconds";
/// Deliveries given up, by sink.
pub const DEAD_LETTERS: &str = "vigie_dead_letters_total";
/// Rows of rule state, by rule.
pub const STATE_KEYS: &str = "vigie_state_keys";
/// Rows of rule state given up because a bound was reached.
pub const STATE_EVICTED: &str = "vigie_state_evicted_total";
/// Whether the last reload of the configuration took effect.
pub const RELOAD_SUCCESSFUL: &str = "vigie_config_last_reload_successful";
/// Size of the store on disk.
pub const STORE_BYTES: &str = "vigie_store_bytes";

/// From response read to webhook sent is aimed at 20 ms; the upper end shows a dead sink.
const LATENCY_BUCKETS_SECONDS: &[f64] = &[0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 21_600.0];

/// Installs the recorder of this process. Call it once; a second call fails.
///
/// # Errors
/// When a recorder is already there.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), LATENCY_BUCKETS_SECONDS)?
        .install_recorder()?;
    describe();
    Ok(handle)
}

fn describe() {
    describe_counter!(EVENTS, "Events stored and evaluated");
    describe_counter!(EVENTS_DUPLICATE, "Events that an answer repeated");
    describe_counter!(EVENTS_POISON, "Rows that could not be read as events");
    describe_counter!(POLL, "Requests to a source by outcome");
    describe_gauge!(POLL_LAST_SUCCESS, Unit::Seconds, "Time of the last good request");
    describe_gauge!(EVENT_LAG, Unit::Seconds, "Seconds between the newest event and its evaluation");
    describe_gauge!(WINDOWS_OWED, "Windows not yet proven complete");
    describe_counter!(RULE_MATCHES, "Matches by rule");
    describe_counter!(UNUSABLE_VALUES, "Field values that a rule could not use");
    describe_counter!(TITLE_FAILURES, "Alerts whose title template failed");
    describe_counter!(ALERTS, "Alerts by severity and outcome");
    describe_counter!(NOTICES, "Notices of the program about itself");
    describe_counter!(DELIVERIES, "Attempts by sink and outcome");
    describe_histogram!(DELIVERY_LATENCY, Unit::Seconds, "Seconds from commit to delivery");
    describe_gauge!(DELIVERY_QUEUE_DEPTH, "Waiting deliveries");
    describe_gauge!(DELIVERY_OLDEST, Unit::Seconds, "Age of the oldest waiting delivery");
    describe_gauge!(DEAD_LETTERS, "Deliveries given up and kept");
    describe_gauge!(STATE_KEYS, "Rows of rule state");
    describe_counter!(STATE_EVICTED, "Rows of rule state given up because a bound was reached");
    describe_gauge!(RELOAD_SUCCESSFUL, "Whether the last reload of the configuration took effect");
    describe_gauge!(STORE_BYTES, Unit::Bytes, "Size of the store on disk");
}
