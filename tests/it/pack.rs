//! The shipped rules against simulated accounts: every planted attack is told by the rules that are meant for it, and a
//! month of routine is quiet.
//!
//! Events go through the engine itself, in order of time and with its timers, as a poller without trouble would give them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::{DateTime, FixedOffset, TimeDelta, Utc};
use vigie_engine::alert::Alert;
use vigie_engine::engine::Engine;
use vigie_engine::event::Event;
use vigie_engine::rule::Rule;
use vigie_sim::event::SimEvent;
use vigie_sim::world::{World, WorldConfig};

/// Most alerts that a month of routine may raise, as the README says.
const MAX_BENIGN_ALERTS: usize = 3;
/// Most matches behind them: an alert that folds all month is noise too.
const MAX_BENIGN_MATCHES: u64 = 10;
/// Worlds of the test: every weekday is a first day.
const SEEDS: u64 = 21;
const SOURCE: &str = "main";
/// As a poller waits for late events.
const LATENESS: TimeDelta = TimeDelta::minutes(10);
/// What time decides is decided at least this often.
const TICK: TimeDelta = TimeDelta::minutes(5);

/// Each attack with the rules that must tell of it: all of them, whatever else fires.
const MEANT: &[(&str, &[&str])] = &[
    (
        "account_takeover",
        &[
            "account-callback-outside",
            "account-settings-changed",
            "app-with-foreign-callback",
            "dashboard-change-from-unexpected-country",
            "login-from-unexpected-country",
        ],
    ),
    ("allowlist_stripped", &["allow-list-entry-deleted", "allow-list-stripped", "allow-list-opened-then-used"]),
    ("bulk_purchase", &["numbers-rented-in-bulk"]),
    ("feed_cut", &["account-gone-quiet"]),
    ("impossible_travel", &["impossible-travel", "new-country-for-user"]),
    ("leaked_key", &["api-change-from-new-network", "api-change-from-unknown-network"]),
    ("mass_disable", &["apps-stopped-in-bulk"]),
    (
        "number_hijack",
        &["dashboard-change-outside-office", "number-forwarded-elsewhere", "number-linked-to-another-account"],
    ),
    ("number_relinked", &["number-linked-to-new-application"]),
    ("profile_change", &["profile-changed-then-login"]),
    ("rotation_left_open", &["secret-rotation-left-open"]),
    ("search_burst", &["search-burst"]),
    ("secret_swap", &["secret-created-out-of-hours", "secret-deleted-out-of-hours", "secret-swapped"]),
    (
        "toll_fraud_prelude",
        &["autoreload-or-billing-changed", "number-rented-abroad", "numbers-rented-in-bulk", "toll-fraud-prelude"],
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rules() -> Vec<Rule> {
    let (rules, diagnostics) = vigie::config::load_rules(&[root().join("rules/vonage")]);
    assert!(!diagnostics.has_errors(), "{}", diagnostics.render());
    rules
}

fn world(seed: u64) -> World {
    let monday: DateTime<Utc> = "2026-03-02T00:00:00Z".parse().expect("a time");
    let start = monday + TimeDelta::days(i64::try_from(seed % 7).expect("a day")) + TimeDelta::minutes(150);
    World::generate(&WorldConfig::new(seed, start))
}

fn event(event: &SimEvent) -> Event {
    let utc = FixedOffset::east_opt(0).expect("a zone");
    Event::new(event.id.as_str(), event.created_at, event.to_json(utc).as_str().into()).expect("an event")
}

/// All alerts of a world, with the counts and events that they reached.
fn play<'w>(rules: Vec<Rule>, events: impl Iterator<Item = &'w SimEvent>, end: DateTime<Utc>) -> Vec<Alert> {
    let mut engine = Engine::new(rules);
    let mut alerts: BTreeMap<String, Alert> = BTreeMap::new();
    let mut ticked: Option<DateTime<Utc>> = None;
    let mut commit = |engine: &mut Engine, event: Option<&Event>, at: DateTime<Utc>, received_at: DateTime<Utc>| {
        let mut batch = engine.batch();
        if let Some(event) = event {
            batch.step(SOURCE, event, received_at);
        }
        batch.tick(SOURCE, at - LATENESS, None);
        let effects = batch.finish();
        assert_eq!((effects.title_failures, effects.evicted), (0, Vec::new()));
        alerts.extend(effects.alerts.into_iter().map(|alert| (alert.alert_id.clone(), alert)));
        for fold in effects.folds {
            let alert = alerts.get_mut(&fold.alert_id).expect("an alert that was raised");
            alert.events.extend(fold.event_ids);
            alert.count = fold.count;
        }
        engine.apply(effects.changes);
    };
    for sim_event in events {
        let at = sim_event.created_at;
        let mut due = ticked.map_or(at, |ticked| ticked + TICK);
        while due < at {
            commit(&mut engine, None, due, due);
            due += TICK;
        }
        commit(&mut engine, Some(&event(sim_event)), at, at);
        ticked = Some(at);
    }
    commit(&mut engine, None, end, end);
    alerts.into_values().collect()
}

#[test]
fn every_planted_attack_is_told_by_the_rules_that_are_meant_for_it() {
    let rules = rules();
    let mut firing: BTreeSet<String> = BTreeSet::new();
    for seed in 0..SEEDS {
        let world = world(seed);
        let alerts = play(rules.clone(), world.events().iter(), world.end());
        let names: BTreeSet<&str> = world.attacks().iter().map(|attack| attack.name).collect();
        assert_eq!(names, MEANT.iter().map(|(name, _)| *name).collect(), "an attack without a rule, or the other way");
        for attack in world.attacks() {
            let told: BTreeSet<&str> = alerts
                .iter()
                .filter(|alert| alert.events.iter().any(|id| attack.event_ids.contains(id)))
                .map(|alert| alert.rule.id.as_str())
                .collect();
            let (_, meant) = MEANT.iter().find(|(name, _)| *name == attack.name).expect("it is in the list");
            let silent: Vec<_> = meant.iter().filter(|id| !told.contains(*id)).collect();
            assert!(silent.is_empty(), "seed {seed}, {}: {silent:?} say nothing; {told:?} do", attack.name);
        }
        firing.extend(alerts.into_iter().map(|alert| alert.rule.id));
    }
    let stateful: BTreeSet<String> =
        rules.iter().filter(|rule| rule.detection.is_some()).map(|rule| rule.id.clone()).collect();
    let meant: BTreeSet<String> = MEANT.iter().flat_map(|(_, ids)| ids.iter().map(|id| (*id).to_owned())).collect();
    assert!(stateful.len() >= 14, "{stateful:?}");
    assert!(stateful.is_subset(&meant), "no attack is meant for {:?}", stateful.difference(&meant));
    println!("{} of {} rules fired", firing.len(), rules.len());
}

#[test]
fn a_month_of_routine_is_quiet() {
    let rules = rules();
    let mut total = 0;
    for seed in 0..SEEDS {
        let world = world(seed);
        let alerts = play(rules.clone(), world.benign(), world.end());
        let told: Vec<_> = alerts.iter().map(|alert| (alert.rule.id.as_str(), alert.first_at, alert.count)).collect();
        let matches: u64 = alerts.iter().map(|alert| alert.count).sum();
        assert!(told.len() <= MAX_BENIGN_ALERTS && matches <= MAX_BENIGN_MATCHES, "seed {seed}: {told:?}");
        total += told.len();
    }
    println!("{total} alerts in {SEEDS} months of routine");
}

/// `$name` in the part of a rule that selects events.
fn lists(text: &str) -> BTreeSet<&str> {
    let selecting = text.split("    response:").nth(1).and_then(|rest| rest.split("    alert:\n").next());
    let names = selecting.unwrap_or_default().split('$').skip(1);
    names.map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()).collect()
}

#[test]
fn the_page_about_the_rules_says_what_they_are() {
    let page = std::fs::read_to_string(root().join("rules/README.md")).expect("a page");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ["))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let mut rules = rules();
    rules.sort_by(|one, other| one.id.cmp(&other.id));
    assert_eq!(rows.len(), rules.len());
    for (row, rule) in rows.iter().zip(&rules) {
        let file: PathBuf = root().join(format!("rules/vonage/{}.yaml", rule.id));
        let text = std::fs::read_to_string(&file).expect("a file of the rule's name");
        let techniques: Vec<String> = rule
            .tags
            .iter()
            .filter_map(|tag| {
                tag.strip_prefix("attack.t").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            })
            .map(|number| format!("T{number}"))
            .collect();
        assert!(!techniques.is_empty() && !rule.response.is_empty(), "{}", rule.id);
        assert!(text.contains("    description:") && text.contains("    false_positives:"), "{}", rule.id);
        assert_eq!(row[0], format!("[{0}](vonage/{0}.yaml)", rule.id));
        assert_eq!(row[1], rule.severity.as_str(), "{}", rule.id);
        assert_eq!(row[2], techniques.join(", "), "{}", rule.id);
        assert_eq!(row[3], rule.detection.as_ref().map_or("", |detection| detection.question.name()), "{}", rule.id);
        assert!(row[4] == "any" || row[4].split(", ").all(|name| text.contains(name)), "{}: {}", rule.id, row[4]);
        let named: BTreeSet<&str> = row[5].split(", ").filter(|name| !name.is_empty()).collect();
        assert_eq!(named, lists(&text), "{}", rule.id);
    }
}
