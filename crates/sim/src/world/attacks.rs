//! Attacks planted in a world: the ground truth that rules are measured against.
//! An attack never uses what the routine does not offer an intruder: it shows only event types and contexts of the API.
//! Each is placed on a day of its own in the later part of the world, so that stateful rules have a past to compare
//! with.

use std::borrow::Cow;

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use serde_json::json;

use super::Stage;
use super::people::{CALLBACK_DOMAINS, FORWARD_NUMBERS, Person, Role, in_working_hours};
use super::routines::{app_context, by_key, by_person, forward_context, link_context};
use crate::event::{SimEvent, Stamp};
use crate::rng::Rng;

/// One planted attack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlantedAttack {
    /// Its name, stable: `account_takeover`, ...
    pub name: &'static str,
    /// One sentence for people: what happens.
    pub description: &'static str,
    /// The events it consists of, in order of time.
    pub event_ids: Vec<String>,
    /// When its first event happened.
    pub started_at: DateTime<Utc>,
    /// No single event of it breaks the policy of `people`: only a rule that remembers earlier events can catch it.
    pub needs_state: bool,
    /// The hour is the only thing that gives it away to a rule without memory.
    pub hour_is_the_clue: bool,
    /// What gives it away is that something does not come: it shows this long after `started_at`, and not by an event.
    pub shows_after: Option<TimeDelta>,
}

/// When an attack is staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hour {
    Working,
    Night,
}

struct Script {
    name: &'static str,
    description: &'static str,
    hour: Hour,
    needs_state: bool,
    /// Hours from its first event until what does not come has not come for long enough; 0: it shows at once.
    shows_after_hours: i64,
    acts: fn(&Stage<'_>, &mut Rng, DateTime<Utc>) -> Vec<SimEvent>,
}

const SCRIPTS: &[Script] = &[
    Script {
        name: "account_takeover",
        description: "a login from a foreign country, then an API secret and an application with a foreign callback",
        hour: Hour::Working,
        needs_state: false,
        shows_after_hours: 0,
        acts: account_takeover,
    },
    Script {
        name: "leaked_key",
        description: "the API key is used from a network that the company's servers never use",
        hour: Hour::Working,
        needs_state: false,
        shows_after_hours: 0,
        acts: leaked_key,
    },
    Script {
        name: "number_hijack",
        description: "numbers are forwarded to a foreign telephone and a foreign SIP host, one is linked elsewhere",
        hour: Hour::Working,
        needs_state: false,
        shows_after_hours: 0,
        acts: number_hijack,
    },
    Script {
        name: "toll_fraud_prelude",
        description: "a secret and an application are made, auto-reload is raised tenfold, numbers are bought in a row",
        hour: Hour::Night,
        needs_state: false,
        shows_after_hours: 0,
        acts: toll_fraud_prelude,
    },
    Script {
        name: "allowlist_stripped",
        description: "both entries of the IP allow-list are deleted, then the key is used from elsewhere",
        hour: Hour::Working,
        needs_state: false,
        shows_after_hours: 0,
        acts: allowlist_stripped,
    },
    Script {
        name: "secret_swap",
        description: "at night a secret is created and the old one deleted within a quarter of an hour",
        hour: Hour::Night,
        needs_state: false,
        shows_after_hours: 0,
        acts: secret_swap,
    },
    Script {
        name: "impossible_travel",
        description: "one user logs in at home in one country and 20 minutes later in another",
        hour: Hour::Working,
        needs_state: true,
        shows_after_hours: 0,
        acts: impossible_travel,
    },
    Script {
        name: "mass_disable",
        description: "one user disables ten applications within five minutes",
        hour: Hour::Working,
        needs_state: true,
        shows_after_hours: 0,
        acts: mass_disable,
    },
    Script {
        name: "search_burst",
        description: "one user searches 24 times within eight minutes",
        hour: Hour::Working,
        needs_state: true,
        shows_after_hours: 0,
        acts: search_burst,
    },
    Script {
        name: "bulk_purchase",
        description: "one user rents eight numbers at home within four minutes",
        hour: Hour::Working,
        needs_state: true,
        shows_after_hours: 0,
        acts: bulk_purchase,
    },
    Script {
        name: "profile_change",
        description: "a user's profile is changed at the office, ten minutes later the user signs in from a rented server",
        hour: Hour::Working,
        needs_state: true,
        shows_after_hours: 0,
        acts: profile_change,
    },
    Script {
        name: "number_relinked",
        description: "a number is taken from its application and linked to one that never had a number",
        hour: Hour::Working,
        needs_state: true,
        shows_after_hours: 0,
        acts: number_relinked,
    },
    Script {
        name: "rotation_left_open",
        description: "a secret is created in a sub-account, and none is deleted for a week",
        hour: Hour::Working,
        needs_state: true,
        shows_after_hours: 7 * 24,
        acts: rotation_left_open,
    },
    Script {
        name: "feed_cut",
        description: "the programs of a sub-account show an event every four hours, then nothing for three days",
        hour: Hour::Working,
        needs_state: true,
        shows_after_hours: FEED_HOURS + 3 * 24,
        acts: feed_cut,
    },
];

/// From the first to the last event of the feed that is cut.
const FEED_HOURS: i64 = 44;

/// Plays every script once; attacks come in order of time.
pub(crate) fn plant(stage: &Stage<'_>, rng: &mut Rng) -> Vec<(PlantedAttack, Vec<SimEvent>)> {
    let mut planted: Vec<_> =
        SCRIPTS.iter().enumerate().map(|(place, script)| play(stage, script, place, rng)).collect();
    planted.sort_by_key(|(attack, _)| attack.started_at);
    planted
}

fn play(stage: &Stage<'_>, script: &Script, place: usize, rng: &mut Rng) -> (PlantedAttack, Vec<SimEvent>) {
    let started = place_in_time(stage, script, place, rng);
    let mut events = (script.acts)(stage, rng, started);
    events.sort_by_key(|event| event.created_at);
    let attack = PlantedAttack {
        name: script.name,
        description: script.description,
        event_ids: events.iter().map(|event| event.id.clone()).collect(),
        started_at: events.first().map_or(started, |event| event.created_at),
        needs_state: script.needs_state,
        hour_is_the_clue: script.name == "secret_swap",
        shows_after: (script.shows_after_hours > 0).then(|| TimeDelta::hours(script.shows_after_hours)),
    };
    (attack, events)
}

/// A day in the later half, another for each attack as far as there are enough, at an hour of the wanted kind; earlier
/// where the world would end before the attack shows.
fn place_in_time(stage: &Stage<'_>, script: &Script, place: usize, rng: &mut Rng) -> DateTime<Utc> {
    let days = (stage.end - stage.start).num_days();
    let scripts = i64::try_from(SCRIPTS.len()).unwrap_or(1);
    // The last two days stay free, so that a search for a working day ends inside the world.
    let offset = days / 2 + (days / 2 - 3).max(0) * i64::try_from(place).unwrap_or(0) / scripts;
    let offset = offset.min(days - 4 - script.shows_after_hours.div_euclid(24));
    let day = (stage.start + TimeDelta::days(offset)).date_naive().and_time(NaiveTime::MIN).and_utc();
    let minute = TimeDelta::seconds(i64::try_from(rng.below(50 * 60)).unwrap_or(0));
    match script.hour {
        Hour::Night => day + TimeDelta::hours(2) + minute,
        Hour::Working => {
            let noon = day + TimeDelta::hours(12);
            let shifts = [0, 1, -1, 2, -2].map(TimeDelta::days);
            let fits = shifts.into_iter().map(|shift| noon + shift).find(|at| in_working_hours(*at));
            fits.unwrap_or(noon) + minute
        }
    }
}

/// Addresses that intruders use, with their country. Ranges of large providers; none is a home country.
const FOREIGN: &[(&str, &str)] =
    &[("102.89.34.", "NG"), ("177.54.144.", "BR"), ("113.160.24.", "VN"), ("45.155.205.", "RU"), ("175.45.178.", "KP")];

/// A rented server in a home country: the country is right, the network is not.
const RENTED: &str = "51.140.22.";

fn foreign(rng: &mut Rng) -> (String, &'static str) {
    let (prefix, country) = rng.pick(FOREIGN).copied().unwrap_or(("45.155.205.", "RU"));
    (format!("{prefix}{}", rng.between(2, 250)), country)
}

fn rented(rng: &mut Rng) -> String {
    format!("{RENTED}{}", rng.between(2, 250))
}

fn after(start: DateTime<Utc>, seconds: i64) -> DateTime<Utc> {
    start + TimeDelta::seconds(seconds)
}

/// One of the staff with this role; the stage always has one of each.
fn victim<'a>(stage: &Stage<'a>, role: Role) -> &'a Person {
    static NOBODY: Person = Person {
        email: String::new(),
        user_id: 0,
        country: "GB",
        office_ip: String::new(),
        home_ip: String::new(),
        from_hour: 0,
        to_hour: 0,
        role: Role::Operator,
    };
    stage.people.iter().find(|person| person.role == role).unwrap_or(&NOBODY)
}

fn from_address(mut event: SimEvent, ip: &str, country: &'static str) -> SimEvent {
    event.source_ip = Cow::Owned(ip.to_owned());
    event.source_country = Some(Cow::Borrowed(country));
    event
}

fn msisdn(rng: &mut Rng) -> String {
    format!("4477009{:05}", 1_000 + rng.below(90_000))
}

fn account_takeover(stage: &Stage<'_>, rng: &mut Rng, start: DateTime<Utc>) -> Vec<SimEvent> {
    let person = victim(stage, Role::Operator);
    let (ip, country) = foreign(rng);
    let login = by_person(stage, person, "USER_LOGIN", start, rng);
    let mut secret = by_person(stage, person, "ACCOUNT_SECRET_CREATE", after(start, 140), rng);
    secret.context = json!({"secretId": rng.uuid()});
    let mut app = by_person(stage, person, "APP_CREATE", after(start, 320), rng);
    let app_id = rng.uuid();
    app.context = app_context(
        stage.account_id,
        &app_id,
        "Call centre 2",
        "https://voice-relay.example.net/answer",
        "https://voice-relay.example.net/event",
    );
    let mut settings = by_person(stage, person, "ACCOUNT_UPDATE_SETTINGS", after(start, 410), rng);
    settings.context = json!({"moCallBackUrl": "https://voice-relay.example.net/sms"});
    [login, secret, app, settings].map(|event| from_address(event, &ip, country)).into()
}

fn leaked_key(stage: &Stage<'_>, rng: &mut Rng, start: DateTime<Utc>) -> Vec<SimEvent> {
    let ip = rented(rng);
    let mut events = Vec::new();
    for (seconds, kind) in [(0, "NUMBER_UPDATED"), (35, "ACCOUNT_UPDATE_SETTINGS_API"), (90, "NUMBER_UPDATED")] {
        let mut event = by_key(stage, ip.clone(), "GB", kind, after(start, seconds), rng);
        if kind == "NUMBER_UPDATED" {
            event.context = forward_context(stage.account_id, &msisdn(rng), "tel", "447700900000");
        }
        events.push(event);
    }
    events
}

fn number_hijack(stage: &Stage<'_>, rng: &mut Rng, start: DateTime<Utc>) -> Vec<SimEvent> {
    let person = victim(stage, Role::Operator);
    let mut telephone = by_person(stage, person, "NUMBER_UPDATED", start, rng);
    telephone.context = forward_context(stage.account_id, &msisdn(rng), "tel", "2348055500123");
    let mut sip = by_person(stage, person, "NUMBER_UPDATED", after(start, 75), rng);
    sip.context = forward_context(stage.account_id, &msisdn(rng), "sip", "sip:relay@203.0.113.77");
    let mut link = by_person(stage, person, "NUMBER_LINKED", after(start, 150), rng);
    let app_id = rng.uuid();
    link.context = link_context("ffff9999", &msisdn(rng), &app_id);
    let ip = rented(rng);
    [telephone, sip, link].map(|event| from_address(event, &ip, "GB")).into()
}

fn toll_fraud_prelude(stage: &Stage<'_>, rng: &mut Rng, start: DateTime<Utc>) -> Vec<SimEvent> {
    let person = victim(stage, Role::Finance);
    let ip = rented(rng);
    let mut reload = by_person(stage, person, "AUTORELOAD_UPDATE", start, rng);
    reload.context = json!({"threshold": 400, "amount": 1_000, "currency": "EUR"});
    let billing = by_person(stage, person, "USER_BILLING_UPDATE", after(start, 60), rng);
    let mut secret = by_person(stage, person, "ACCOUNT_SECRET_CREATE", after(start, -200), rng);
    secret.context = json!({"secretId": rng.uuid()});
    let mut app = by_person(stage, person, "APP_CREATE", after(start, -90), rng);
    let app_id = rng.uuid();
    let url = format!("https://hooks.{}/answer", CALLBACK_DOMAINS.first().copied().unwrap_or_default());
    app.context = app_context(stage.account_id, &app_id, "Dialler", &url, &url);
    let mut events = vec![secret, app, reload, billing];
    for (place, country) in ["LV", "CU", "SO", "LV", "GN", "CU"].into_iter().enumerate() {
        let seconds = 120 + 20 * i64::try_from(place).unwrap_or(0);
        let mut bought = by_person(stage, person, "NUMBER_ASSIGN", after(start, seconds), rng);
        let number = format!("371{:08}", rng.below(100_000_000));
        bought.context = json!({"country": country, "msisdn": number, "accountId": stage.account_id});
        events.push(bought);
    }
    events.into_iter().map(|event| from_address(event, &ip, "GB")).collect()
}

fn allowlist_stripped(stage: &Stage<'_>, rng: &mut Rng, start: DateTime<Utc>) -> Vec<SimEvent> {
    let person = victim(stage, Role::Developer);
    let ip = rented(rng);
    let mut events = Vec::new();
    for (seconds, entry) in [(0, "192.0.2.0/24"), (25, "198.51.100.0/24")] {
        let mut deleted = by_person(stage, person, "IP_WHITELIST_DELETE", after(start, seconds), rng);
        deleted.context = json!({"ip": entry, "accountId": stage.account_id});
        events.push(from_address(deleted, &ip, "GB"));
    }
    let (elsewhere, country) = foreign(rng);
    let mut used = by_key(stage, elsewhere, country, "NUMBER_UPDATED", after(start, 200), rng);
    used.context = forward_context(stage.account_id, &msisdn(rng), "tel", "447700900001");
    // With parts of a second, so that it stays behind the deletions when the acts follow each other faster.
    used.stamp = Stamp::ZuluMillis;
    events.push(used);
    events
}

fn secret_swap(stage: &Stage<'_>, rng: &mut Rng, start: DateTime<Utc>) -> Vec<SimEvent> {
    let person = victim(stage, Role::Developer);
    let mut created = by_person(stage, person, "ACCOUNT_SECRET_CREATE", start, rng);
    created.context = json!({"secretId": rng.uuid()});
    let mut deleted = by_person(stage, person, "ACCOUNT_SECRET_DELETE", after(start, 540), rng);
    deleted.context = json!({"secretId": rng.uuid()});
    vec![created, deleted]
}

fn impossible_travel(stage: &Stage<'_>, rng: &mut Rng, start: DateTime<Utc>) -> Vec<SimEvent> {
    let person = victim(stage, Role::Developer);
    let (far_ip, far_country) = if person.country == "ES" { ("86.140.77.9", "GB") } else { ("81.33.77.9", "ES") };
    let near = from_address(by_person(stage, person, "USER_LOGIN", start, rng), &person.home_ip, person.country);
    let far = from_address(by_person(stage, person, "USER_LOGIN", after(start, 1_200), rng), far_ip, far_country);
    let search = by_person(stage, person, "USER_PRODUCT_SEARCH", after(start, 1_260), rng);
    vec![near, far, from_address(search, far_ip, far_country)]
}

fn mass_disable(stage: &Stage<'_>, rng: &mut Rng, start: DateTime<Utc>) -> Vec<SimEvent> {
    let person = victim(stage, Role::Developer);
    let mut events = Vec::new();
    for place in 0..10 {
        let mut disabled = by_person(stage, person, "APP_DISABLE", after(start, place * 28), rng);
        disabled.context = json!({"appId": rng.uuid()});
        events.push(disabled);
    }
    events
}

fn search_burst(stage: &Stage<'_>, rng: &mut Rng, start: DateTime<Utc>) -> Vec<SimEvent> {
    let person = victim(stage, Role::Operator);
    let mut events = Vec::new();
    for place in 0..24 {
        let mut search = by_person(stage, person, "USER_PRODUCT_SEARCH", after(start, place * 20), rng);
        let query = rng.pick(&["secrets", "customers", "numbers in Latvia", "call records", "recordings"]).copied();
        search.context = json!({"query": query.unwrap_or("secrets")});
        events.push(search);
    }
    events
}

fn bulk_purchase(stage: &Stage<'_>, rng: &mut Rng, start: DateTime<Utc>) -> Vec<SimEvent> {
    let person = victim(stage, Role::Operator);
    let mut events = Vec::new();
    for place in 0..8 {
        let mut bought = by_person(stage, person, "NUMBER_ASSIGN", after(start, place * 30), rng);
        bought.context = json!({"country": "GB", "msisdn": msisdn(rng), "accountId": stage.account_id});
        events.push(bought);
    }
    events
}

fn profile_change(stage: &Stage<'_>, rng: &mut Rng, start: DateTime<Utc>) -> Vec<SimEvent> {
    let person = victim(stage, Role::Developer);
    let changed = by_person(stage, person, "USER_UPDATE", start, rng);
    let login = by_person(stage, person, "USER_LOGIN", after(start, 600), rng);
    let ip = rented(rng);
    vec![changed, from_address(login, &ip, "GB")]
}

fn number_relinked(stage: &Stage<'_>, rng: &mut Rng, start: DateTime<Utc>) -> Vec<SimEvent> {
    let person = victim(stage, Role::Operator);
    let number = msisdn(rng);
    let mut events = Vec::new();
    for (kind, seconds) in [("NUMBER_UNLINKED", 0), ("NUMBER_LINKED", 40)] {
        let mut moved = by_person(stage, person, kind, after(start, seconds), rng);
        let app_id = rng.uuid();
        moved.context = link_context(stage.account_id, &number, &app_id);
        events.push(moved);
    }
    events
}

/// An update that the company's programs make in a sub-account.
fn by_program(stage: &Stage<'_>, account_id: &'static str, at: DateTime<Utc>, rng: &mut Rng) -> SimEvent {
    let mut event = by_key(stage, format!("198.51.100.{}", rng.between(20, 27)), "GB", "NUMBER_UPDATED", at, rng);
    let target = FORWARD_NUMBERS.first().copied().unwrap_or_default();
    event.context = forward_context(account_id, &msisdn(rng), "tel", target);
    event.account_id = Cow::Borrowed(account_id);
    event
}

fn rotation_left_open(stage: &Stage<'_>, rng: &mut Rng, start: DateTime<Utc>) -> Vec<SimEvent> {
    const SUB_ACCOUNT: &str = "efgh5678";
    let mut created = by_person(stage, victim(stage, Role::Developer), "ACCOUNT_SECRET_CREATE", start, rng);
    created.context = json!({"secretId": rng.uuid()});
    created.account_id = Cow::Borrowed(SUB_ACCOUNT);
    let mut events = vec![created];
    // The programs go on with the old one, so the account is not quiet.
    events.extend((0..7).map(|day| by_program(stage, SUB_ACCOUNT, after(start, day * 86_400 + 7_200), rng)));
    events
}

fn feed_cut(stage: &Stage<'_>, rng: &mut Rng, start: DateTime<Utc>) -> Vec<SimEvent> {
    (0..=FEED_HOURS / 4).map(|turn| by_program(stage, "ijkl9012", after(start, turn * 4 * 3_600), rng)).collect()
}
