//! Names of the metrics, in one place, and the recorder that serves them.
//!
//! Everything that counts uses these constants; what is served is in the public contract, so a name never changes.

use std::time::Duration;

use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

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
/// Events that a stateful rule could not count, because a field that it needs was missing; by rule.
pub const RULE_UNCOUNTED: &str = "vigie_rule_uncounted_total";
/// Field values that a rule could not use (an address that does not parse, a wrong type).
pub const UNUSABLE_VALUES: &str = "vigie_unusable_values_total";
/// Alerts whose title template failed, so that they carry their rule's title.
pub const TITLE_FAILURES: &str = "vigie_title_failures_total";
/// Look-ups that an address database could not answer because it is damaged.
pub const GEO_FAILURES: &str = "vigie_geo_failures_total";
/// Alerts, by severity and outcome (`routed`, `muted`, `unrouted`).
pub const ALERTS: &str = "vigie_alerts_total";
/// Notices of the program about itself, by kind.
pub const NOTICES: &str = "vigie_notices_total";
/// Notices about a sink that found the queue to the pipeline full, by sink; each is in the log.
pub const SINK_NOTICES_DROPPED: &str = "vigie_sink_notices_dropped_total";
/// Attempts, by sink and outcome.
pub const DELIVERIES: &str = "vigie_deliveries_total";
/// Seconds from commit to delivery, by sink.
pub const DELIVERY_LATENCY: &str = "vigie_delivery_latency_seconds";
/// Waiting deliveries, by sink.
pub const DELIVERY_QUEUE_DEPTH: &str = "vigie_delivery_queue_depth";
/// Notices that could not be kept while the disk was full.
pub const NOTICES_DROPPED: &str = "vigie_notices_dropped_total";
/// Age of the oldest waiting delivery, by sink.
pub const DELIVERY_OLDEST: &str = "vigie_delivery_oldest_seconds";
/// Deliveries given up, by sink.
pub const DEAD_LETTERS: &str = "vigie_dead_letters_total";
/// Rows of rule state, by rule.
pub const STATE_KEYS: &str = "vigie_state_keys";
/// Rows of rule state given up because a bound was reached, by rule.
pub const STATE_EVICTED: &str = "vigie_state_evicted_total";
/// Whether the last reload of the configuration took effect.
pub const RELOAD_SUCCESSFUL: &str = "vigie_config_last_reload_successful";
/// Size of the store on disk.
pub const STORE_BYTES: &str = "vigie_store_bytes";

/// What a metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// As it is now.
    Gauge,
    /// How often values of each size were seen.
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric as it is served.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Name.
    pub name: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// Names of its labels, with commas.
    pub labels: &'static str,
    /// One line for `/metrics` and the reference.
    pub help: &'static str,
}

/// All of them.
pub const METRICS: &[Metric] = &[
    metric(EVENTS, Kind::Counter, "source", "Events stored and evaluated"),
    metric(EVENTS_DUPLICATE, Kind::Counter, "source", "Events that an answer repeated"),
    metric(EVENTS_POISON, Kind::Counter, "source", "Rows that could not be read as events"),
    metric(POLL, Kind::Counter, "source, outcome", "Requests to a source by outcome"),
    metric(POLL_LAST_SUCCESS, Kind::Gauge, "source", "Time of the last good request"),
    metric(EVENT_LAG, Kind::Gauge, "source", "Seconds between the newest event and its evaluation"),
    metric(WINDOWS_OWED, Kind::Gauge, "source", "Windows not yet proven complete"),
    metric(RULE_MATCHES, Kind::Counter, "rule", "Matches by rule"),
    metric(RULE_UNCOUNTED, Kind::Counter, "rule", "Events that a stateful rule could not count"),
    metric(UNUSABLE_VALUES, Kind::Counter, "", "Field values that a rule could not use"),
    metric(TITLE_FAILURES, Kind::Counter, "", "Alerts whose title template failed"),
    metric(GEO_FAILURES, Kind::Counter, "", "Look-ups that a damaged address database could not answer"),
    metric(ALERTS, Kind::Counter, "severity, outcome", "Alerts by severity and outcome"),
    metric(NOTICES, Kind::Counter, "kind", "Notices of the program about itself"),
    metric(NOTICES_DROPPED, Kind::Counter, "", "Notices that could not be kept while the disk was full"),
    metric(SINK_NOTICES_DROPPED, Kind::Counter, "sink", "Notices about a sink that found their queue full"),
    metric(DELIVERIES, Kind::Counter, "sink, outcome", "Attempts by sink and outcome"),
    metric(DELIVERY_LATENCY, Kind::Histogram, "sink", "Seconds from commit to delivery"),
    metric(DELIVERY_QUEUE_DEPTH, Kind::Gauge, "sink", "Waiting deliveries"),
    metric(DELIVERY_OLDEST, Kind::Gauge, "sink", "Age of the oldest waiting delivery"),
    metric(DEAD_LETTERS, Kind::Counter, "sink", "Deliveries given up and kept"),
    metric(STATE_KEYS, Kind::Gauge, "rule", "Rows of rule state"),
    metric(
        STATE_EVICTED,
        Kind::Counter,
        "rule",
        "Rows and noted events of rule state given up because a bound was reached",
    ),
    metric(RELOAD_SUCCESSFUL, Kind::Gauge, "", "Whether the last reload of the configuration took effect"),
    metric(STORE_BYTES, Kind::Gauge, "", "Size of the store on disk"),
];

/// From response read to webhook sent is aimed at 20 ms; the upper end shows a dead sink.
const LATENCY_BUCKETS_SECONDS: &[f64] = &[0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 21_600.0];

/// How often values are taken out of the histograms: a busy lane records some hundred in between.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Installs the recorder of this process. Call it once; a second call fails. [`keep_up`] must run beside it.
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

/// Until told to stop, empties what has gathered since the last time. Without this, values of histograms are all kept until
/// somebody reads `/metrics`, and nobody need ever do that.
pub async fn keep_up(handle: PrometheusHandle, stop: CancellationToken) {
    every(UPKEEP_EVERY, &stop, || handle.run_upkeep()).await;
}

async fn every(interval: Duration, stop: &CancellationToken, mut work: impl FnMut()) {
    while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
        work();
    }
}

fn describe() {
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Histogram => describe_histogram!(metric.name, metric.help),
        }
    }
}

const fn metric(name: &'static str, kind: Kind, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind, labels, help }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn upkeep_goes_on_until_it_is_told_to_stop() {
        let (stop, count) = (CancellationToken::new(), Cell::new(0));
        let work = || {
            count.set(count.get() + 1);
            if count.get() == 3 {
                stop.cancel();
            }
        };
        let began = tokio::time::Instant::now();
        every(UPKEEP_EVERY, &stop, work).await;
        assert_eq!((count.get(), began.elapsed()), (3, UPKEEP_EVERY * 3));
    }
}
