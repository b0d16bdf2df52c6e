//! The world: the same for the same seed, with attacks where its ground truth says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::event::{EVENT_TYPES, Origin, Stamp};
use crate::quirks::Lateness;

fn start() -> DateTime<Utc> {
    "2026-03-02T00:00:00Z".parse().unwrap()
}

fn world(seed: u64) -> World {
    World::generate(&WorldConfig::new(seed, start()))
}

/// Whether an address lies in one of these networks.
fn within(ip: &str, networks: &[&str]) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let ip: IpAddr = ip.parse().unwrap();
    networks.iter().any(|network| {
        let (base, length) = network.split_once('/').unwrap();
        let base: IpAddr = base.parse().unwrap();
        let shift = 128 - length.parse::<u32>().unwrap();
        base.is_ipv4() == ip.is_ipv4() && bits(base).0 >> shift == bits(ip).0 >> shift
    })
}

#[test]
fn equal_seeds_give_equal_worlds() {
    let render = |world: &World| -> Vec<String> {
        let utc = chrono::FixedOffset::east_opt(0).unwrap();
        world.events().iter().map(|event| format!("{} {}", event.to_json(utc), event.visible_at())).collect()
    };
    assert_eq!(render(&world(42)), render(&world(42)));
    assert_eq!(world(42).attacks(), world(42).attacks());
    assert_ne!(render(&world(42)), render(&world(43)));
}

#[test]
fn a_month_is_full_of_distinct_events_in_order() {
    let world = world(1);
    let ids: BTreeSet<&str> = world.events().iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids.len(), world.events().len());
    assert!((1_500..6_000).contains(&ids.len()), "{}", ids.len());
    assert!(world.events().is_sorted_by_key(|event| event.created_at));
    assert!(world.events().iter().all(|event| event.created_at >= world.start() && event.created_at < world.end()));
    let known: BTreeSet<&str> = EVENT_TYPES.iter().map(|(name, _)| *name).collect();
    let seen: BTreeSet<&str> = world.events().iter().map(|event| &*event.event_type).collect();
    assert!(seen.is_subset(&known));
    assert!(seen.len() >= 15, "{seen:?}");
}

#[test]
fn the_routine_keeps_the_policy() {
    for seed in 0..20 {
        let world = world(seed);
        for event in world.benign() {
            let country = event.source_country.as_deref().unwrap();
            assert!(HOME_COUNTRIES.contains(&country), "{event:?}");
            let networks: &[&[&str]] = match (event.origin, &*event.event_type) {
                (Origin::Api, _) => &[SERVER_NETWORKS],
                (Origin::Dashboard, "USER_LOGIN" | "USER_LOGOUT" | "USER_PRODUCT_SEARCH") => {
                    &[OFFICE_NETWORKS, HOME_NETWORKS]
                }
                (Origin::Dashboard, _) => &[OFFICE_NETWORKS],
            };
            assert!(networks.iter().any(|networks| within(&event.source_ip, networks)), "{event:?}");
            match &event.user_email {
                Some(email) => {
                    assert!(STAFF_DOMAINS.contains(&email.split_once('@').unwrap().1));
                    assert!(in_working_hours(event.created_at), "{event:?}");
                }
                None => assert!(event.origin == Origin::Api && event.user_id.is_none()),
            }
            benign_context(event);
        }
    }
}

fn benign_context(event: &SimEvent) {
    let context = &event.context;
    let text = context.to_string();
    for url in text.split('"').filter(|part| part.contains("://")) {
        let host = url.strip_prefix("https://").unwrap().split('/').next().unwrap();
        assert!(
            CALLBACK_DOMAINS.iter().any(|domain| host == *domain || host.ends_with(&format!(".{domain}"))),
            "{url}"
        );
    }
    match context["voice-type"].as_str() {
        Some("tel") => assert!(FORWARD_NUMBERS.contains(&context["voice-value"].as_str().unwrap())),
        Some("sip") => {
            let host = context["voice-value"].as_str().unwrap().split_once('@').unwrap().1;
            assert!(FORWARD_SIP_DOMAINS.contains(&host), "{host}");
        }
        _ => {}
    }
    let never = [
        "IP_WHITELIST_CREATE",
        "IP_WHITELIST_DELETE",
        "NUMBER_RELEASE",
        "ACCOUNT_UPDATE_SPAMMER",
        "ACCOUNT_UPDATE_SETTINGS",
        "ACCOUNT_UPDATE_SETTINGS_API",
        "USER_BILLING_UPDATE",
    ];
    assert!(!never.contains(&&*event.event_type), "{event:?}");
}

#[test]
fn who_works_from_home_changes_nothing() {
    let world = world(2);
    let day_of = |event: &SimEvent| (event.user_id, event.created_at.date_naive());
    let is_change =
        |event: &SimEvent| !matches!(&*event.event_type, "USER_LOGIN" | "USER_LOGOUT" | "USER_PRODUCT_SEARCH");
    let routine =
        || world.benign().filter(|event| event.user_id.is_some() && !event.event_type.starts_with("ACCOUNT_SECRET"));
    let home: BTreeSet<_> = routine().filter(|event| within(&event.source_ip, HOME_NETWORKS)).map(day_of).collect();
    assert!(home.len() > 20, "{}", home.len());
    assert!(routine().filter(|event| is_change(event)).all(|event| !home.contains(&day_of(event))));
}

#[test]
fn routine_secrets_overlap_for_a_day() {
    // The day that a world starts on does not matter.
    for day in 0..7 {
        let config = WorldConfig::new(5, start() + chrono::TimeDelta::days(day));
        let world = World::generate(&config);
        let of = |kind: &'static str| world.benign().filter(move |event| event.event_type == kind);
        assert!(of("ACCOUNT_SECRET_CREATE").count() >= 3);
        for deleted in of("ACCOUNT_SECRET_DELETE") {
            let apart = |created: &SimEvent| (deleted.created_at - created.created_at).num_hours().abs();
            assert!(of("ACCOUNT_SECRET_CREATE").all(|created| apart(created) >= 12));
        }
    }
}

#[test]
fn every_attack_is_planted_once_and_its_events_exist() {
    for seed in 0..20 {
        let world = world(seed);
        let by_id: BTreeMap<&str, &SimEvent> = world.events().iter().map(|event| (event.id.as_str(), event)).collect();
        let names: BTreeSet<&str> = world.attacks().iter().map(|attack| attack.name).collect();
        let expected = [
            "account_takeover",
            "allowlist_stripped",
            "bulk_purchase",
            "feed_cut",
            "impossible_travel",
            "leaked_key",
            "mass_disable",
            "number_hijack",
            "number_relinked",
            "profile_change",
            "rotation_left_open",
            "search_burst",
            "secret_swap",
            "toll_fraud_prelude",
        ];
        assert_eq!(names.into_iter().collect::<Vec<_>>(), expected);
        for attack in world.attacks() {
            let acts: Vec<&SimEvent> = attack.event_ids.iter().map(|id| by_id[id.as_str()]).collect();
            assert!(acts.len() >= 2 && acts.is_sorted_by_key(|event| event.created_at), "{attack:?}");
            assert_eq!(acts[0].created_at, attack.started_at);
            let breaks = acts.iter().any(|event| breaks_policy(event));
            assert_eq!(breaks, !attack.needs_state, "{attack:?}");
            let shown_at = attack.started_at + attack.shows_after.unwrap_or_default();
            assert!(shown_at + chrono::TimeDelta::hours(1) < world.end(), "{attack:?}");
        }
    }
}

/// What a rule without memory can see: place, hour, target, or a type that the routine never shows.
fn breaks_policy(event: &SimEvent) -> bool {
    let login = matches!(&*event.event_type, "USER_LOGIN" | "USER_LOGOUT" | "USER_PRODUCT_SEARCH");
    let foreign = !HOME_COUNTRIES.contains(&event.source_country.as_deref().unwrap());
    let network = match event.origin {
        Origin::Api => !within(&event.source_ip, SERVER_NETWORKS),
        Origin::Dashboard => !login && !within(&event.source_ip, OFFICE_NETWORKS),
    };
    let hour = event.origin == Origin::Dashboard && !in_working_hours(event.created_at);
    foreign || network || hour
}

#[test]
fn the_secret_swap_is_at_night_and_quick() {
    let world = world(3);
    let attack = world.attacks().iter().find(|attack| attack.name == "secret_swap").unwrap();
    assert!(attack.hour_is_the_clue);
    let acts: Vec<&SimEvent> = world.events().iter().filter(|event| attack.event_ids.contains(&event.id)).collect();
    assert_eq!(
        acts.iter().map(|event| &*event.event_type).collect::<Vec<_>>(),
        ["ACCOUNT_SECRET_CREATE", "ACCOUNT_SECRET_DELETE"]
    );
    assert!((acts[1].created_at - acts[0].created_at).num_minutes() < 15);
    assert!(acts.iter().all(|event| !in_working_hours(event.created_at)));
}

#[test]
fn what_is_left_out_stays_out() {
    for seed in 0..20 {
        let world = world(seed);
        let attack = |name: &str| world.attacks().iter().find(|attack| attack.name == name).unwrap();
        let in_account = |id: &'static str| world.events().iter().filter(move |event| event.account_id == id);
        let open = attack("rotation_left_open");
        assert!(in_account("efgh5678").all(|event| event.event_type != "ACCOUNT_SECRET_DELETE"));
        assert!(in_account("efgh5678").all(|event| open.event_ids.contains(&event.id)));
        let cut = attack("feed_cut");
        let last = in_account("ijkl9012").map(|event| event.created_at).max().unwrap();
        assert_eq!(cut.started_at + cut.shows_after.unwrap() - last, chrono::TimeDelta::days(3));
    }
}

#[test]
fn without_attacks_only_the_routine_remains() {
    let quiet = World::generate(&WorldConfig { attacks: false, ..WorldConfig::new(8, start()) });
    assert!(quiet.attacks().is_empty());
    let loud = world(8);
    assert_eq!(quiet.events().len(), loud.benign().count());
}

fn stress(seed: u64) -> World {
    World::stress(&StressConfig::new(seed, start(), Duration::from_secs(86_400)))
}

#[test]
fn stress_has_bursts_gaps_and_late_events() {
    let mut largest_second = 0;
    let mut longest_gap = chrono::TimeDelta::zero();
    let mut latest = chrono::TimeDelta::zero();
    let mut styles = BTreeSet::new();
    for seed in 0..20 {
        let world = stress(seed);
        let mut seconds: BTreeMap<i64, usize> = BTreeMap::new();
        for event in world.events() {
            *seconds.entry(event.created_at.timestamp()).or_default() += 1;
            latest = latest.max(event.lateness);
            styles.insert(format!("{:?}", event.stamp));
            assert!(event.lateness >= chrono::TimeDelta::zero());
        }
        largest_second = largest_second.max(seconds.values().copied().max().unwrap_or(0));
        for pair in world.events().windows(2) {
            longest_gap = longest_gap.max(pair[1].created_at - pair[0].created_at);
        }
        assert!(world.events().iter().all(|event| event.created_at >= world.start() && event.created_at < world.end()));
    }
    assert!(largest_second > 100, "{largest_second}");
    assert!(longest_gap.num_minutes() >= 60, "{longest_gap}");
    let bound = chrono::TimeDelta::from_std(Lateness::default().late_max).unwrap();
    assert!(latest.num_minutes() >= 10 && latest <= bound, "{latest}");
    assert!(styles.len() >= 5, "{styles:?}");
}

#[test]
fn stress_follows_its_seed_and_its_stamp() {
    assert_eq!(stress(4).events(), stress(4).events());
    assert_ne!(stress(4).events(), stress(5).events());
    let config =
        StressConfig { stamp: Some(Stamp::Naive), ..StressConfig::new(4, start(), Duration::from_secs(3_600)) };
    let world = World::stress(&config);
    assert!(!world.events().is_empty());
    assert!(world.events().iter().all(|event| event.created_at.timestamp_subsec_millis() == 0));
    let silent = StressConfig { events_per_hour: 0.0, bursts_per_day: 0.0, gaps_per_day: 0.0, ..config };
    assert!(World::stress(&silent).events().is_empty());
}
