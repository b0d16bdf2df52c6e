//! What people and servers do every day, in keeping with the policy constants of `people`.
//! No act here may look like an attack to a sensible rule: changes come from the office inside working hours, callbacks
//! and forwards go to the company's own, secrets overlap for days. Only auto-reload changes and number purchases are
//! routine acts that a cautious rule may still want to see; they are rare.

use std::borrow::Cow;
use std::time::Duration;

use chrono::{DateTime, Datelike, TimeDelta, Utc, Weekday};
use serde_json::{Value, json};

use super::Stage;
use super::people::{CALLBACK_DOMAINS, FORWARD_NUMBERS, FORWARD_SIP_DOMAINS, Person, Role, in_working_hours};
use crate::event::{Origin, SimEvent, Stamp};
use crate::rng::Rng;

/// Events become visible within this time, as far as routines and attacks go. Hostile lateness is a quirk.
const USUAL_LATENESS: Duration = Duration::from_secs(3);

/// Events of one world: applications and numbers that the routine works on.
struct Estate {
    apps: Vec<String>,
    numbers: Vec<String>,
}

/// All routine events of the stage, in no order.
pub(crate) fn play(stage: &Stage<'_>, rng: &mut Rng) -> Vec<SimEvent> {
    let estate = Estate {
        apps: (0..6).map(|_| rng.uuid()).collect(),
        numbers: (0..24).map(|_| format!("4477009{:05}", 1_000 + rng.below(90_000))).collect(),
    };
    let mut events = Vec::new();
    let mut day = stage.start;
    while day < stage.end {
        for person in stage.people {
            workday(stage, &estate, person, day, rng, &mut events);
        }
        servers(stage, &estate, day, rng, &mut events);
        // Both days of a rotation must be working days, whatever day the world starts on.
        if day.weekday() == Weekday::Wed {
            secret_rotation(stage, day, rng, &mut events);
        }
        day += TimeDelta::days(1);
    }
    events.retain(|event| event.created_at >= stage.start && event.created_at < stage.end);
    events
}

/// A dashboard event by a person from an address.
pub(crate) fn by_person(
    stage: &Stage<'_>,
    person: &Person,
    event_type: &'static str,
    at: DateTime<Utc>,
    rng: &mut Rng,
) -> SimEvent {
    let mut event = SimEvent::new(rng.uuid(), event_type, at);
    event.stamp = Stamp::ZuluMillis;
    event.set_lateness(rng.duration_below(USUAL_LATENESS));
    event.account_id = Cow::Owned(stage.account_id.to_owned());
    event.user_email = Some(person.email.clone());
    event.user_id = Some(person.user_id);
    event.source_ip = Cow::Owned(person.office_ip.clone());
    event.source_country = Some(Cow::Borrowed(person.country));
    event
}

/// An event by a program that holds the API key: it has no user fields.
pub(crate) fn by_key(
    stage: &Stage<'_>,
    ip: impl Into<Cow<'static, str>>,
    country: &'static str,
    event_type: &'static str,
    at: DateTime<Utc>,
    rng: &mut Rng,
) -> SimEvent {
    let mut event = SimEvent::new(rng.uuid(), event_type, at);
    event.stamp = Stamp::Naive;
    event.set_created_at(at);
    event.set_lateness(rng.duration_below(USUAL_LATENESS));
    event.account_id = Cow::Owned(stage.account_id.to_owned());
    event.origin = Origin::Api;
    event.source_ip = ip.into();
    event.source_country = Some(Cow::Borrowed(country));
    event
}

/// The context of APP_CREATE.
pub(crate) fn app_context(account_id: &str, app_id: &str, name: &str, answer_url: &str, event_url: &str) -> Value {
    json!({
        "appId": app_id,
        "created": {
            "accountId": account_id, "appId": app_id, "name": name, "type": "voice",
            "answer_url": {"method": "GET", "url": answer_url},
            "event_url": {"method": "POST", "url": event_url},
        },
    })
}

/// The context of NUMBER_LINKED and NUMBER_UNLINKED.
pub(crate) fn link_context(account_id: &str, msisdn: &str, app_id: &str) -> Value {
    json!({"country": "GB", "account": account_id, "msisdn": msisdn, "applicationId": app_id})
}

/// The context of NUMBER_UPDATED.
pub(crate) fn forward_context(account_id: &str, msisdn: &str, voice_type: &str, voice_value: &str) -> Value {
    json!({
        "country": "GB", "msisdn": msisdn, "accountId": account_id,
        "voice-type": voice_type, "voice-value": voice_value,
    })
}

fn workday(
    stage: &Stage<'_>,
    estate: &Estate,
    person: &Person,
    day: DateTime<Utc>,
    rng: &mut Rng,
    events: &mut Vec<SimEvent>,
) {
    // The stage may start at any time of day; hours count from midnight UTC.
    let midnight = day.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
    let noon = midnight + TimeDelta::hours(12);
    if !in_working_hours(noon) || rng.chance(0.08) {
        return;
    }
    let opens = midnight + TimeDelta::hours(i64::from(person.from_hour)) + within_minutes(rng, 0, 40);
    let closes = midnight + TimeDelta::hours(i64::from(person.to_hour)) - within_minutes(rng, 0, 60);
    let from_home = rng.chance(0.3);
    let mut login = by_person(stage, person, "USER_LOGIN", opens, rng);
    let mut logout = by_person(stage, person, "USER_LOGOUT", closes, rng);
    if from_home {
        login.source_ip = Cow::Owned(person.home_ip.clone());
        logout.source_ip = Cow::Owned(person.home_ip.clone());
    }
    events.extend([login, logout]);
    for _ in 0..rng.between(0, 3) {
        let at = opens + within_minutes(rng, 5, 420);
        let mut search = by_person(stage, person, "USER_PRODUCT_SEARCH", at, rng);
        search.context =
            json!({"query": rng.pick(&["voice", "sms", "verify", "numbers in Spain"]).copied().unwrap_or("sms")});
        if from_home {
            search.source_ip = Cow::Owned(person.home_ip.clone());
        }
        events.push(search);
    }
    // Who works from home changes nothing: the policy allows changes from the office only.
    if !from_home {
        for _ in 0..rng.between(1, 6) {
            let at = opens + within_minutes(rng, 5, 420);
            events.push(change(stage, estate, person, at, rng));
        }
    }
}

fn change(stage: &Stage<'_>, estate: &Estate, person: &Person, at: DateTime<Utc>, rng: &mut Rng) -> SimEvent {
    match person.role {
        Role::Developer => app_change(stage, estate, person, at, rng),
        Role::Operator => number_change(stage, estate, person, at, rng),
        Role::Finance => finance_change(stage, person, at, rng),
    }
}

fn app_change(stage: &Stage<'_>, estate: &Estate, person: &Person, at: DateTime<Utc>, rng: &mut Rng) -> SimEvent {
    let domain = CALLBACK_DOMAINS.first().copied().unwrap_or_default();
    let (answer_url, event_url) = (format!("https://hooks.{domain}/answer"), format!("https://hooks.{domain}/event"));
    if rng.chance(0.2) {
        let mut event = by_person(stage, person, "APP_CREATE", at, rng);
        let app_id = rng.uuid();
        let name = rng.pick(&["IVR staging", "Call centre", "Number masking", "Reminders"]).copied().unwrap_or("IVR");
        event.context = app_context(stage.account_id, &app_id, name, &answer_url, &event_url);
        return event;
    }
    let kind = rng.pick(&["APP_UPDATE", "APP_UPDATE", "APP_UPDATE", "APP_DISABLE", "APP_ENABLE"]).copied();
    let mut event = by_person(stage, person, kind.unwrap_or("APP_UPDATE"), at, rng);
    let app_id = rng.pick(&estate.apps).cloned().unwrap_or_default();
    event.context = if event.event_type == "APP_UPDATE" {
        json!({"appId": app_id, "updated": {"answer_url": {"method": "GET", "url": answer_url}}})
    } else {
        json!({"appId": app_id})
    };
    event
}

fn number_change(stage: &Stage<'_>, estate: &Estate, person: &Person, at: DateTime<Utc>, rng: &mut Rng) -> SimEvent {
    let msisdn = rng.pick(&estate.numbers).cloned().unwrap_or_default();
    let app_id = rng.pick(&estate.apps).cloned().unwrap_or_default();
    let draw = rng.fraction();
    let (kind, context) = if draw < 0.35 {
        ("NUMBER_UPDATED", routine_forward(stage, &msisdn, &app_id, rng))
    } else if draw < 0.65 {
        ("NUMBER_LINKED", link_context(stage.account_id, &msisdn, &app_id))
    } else if draw < 0.92 {
        ("NUMBER_UNLINKED", link_context(stage.account_id, &msisdn, &app_id))
    } else {
        ("NUMBER_ASSIGN", json!({"country": "GB", "msisdn": msisdn, "accountId": stage.account_id}))
    };
    let mut event = by_person(stage, person, kind, at, rng);
    event.context = context;
    event
}

fn routine_forward(stage: &Stage<'_>, msisdn: &str, app_id: &str, rng: &mut Rng) -> Value {
    match rng.below(3) {
        0 => {
            let target = rng.pick(FORWARD_NUMBERS).copied().unwrap_or_default();
            forward_context(stage.account_id, msisdn, "tel", target)
        }
        1 => {
            let host = rng.pick(FORWARD_SIP_DOMAINS).copied().unwrap_or_default();
            forward_context(stage.account_id, msisdn, "sip", &format!("sip:desk{}@{host}", rng.between(1, 9)))
        }
        _ => forward_context(stage.account_id, msisdn, "app", app_id),
    }
}

fn finance_change(stage: &Stage<'_>, person: &Person, at: DateTime<Utc>, rng: &mut Rng) -> SimEvent {
    if rng.chance(0.02) {
        let mut event = by_person(stage, person, "AUTORELOAD_UPDATE", at, rng);
        event.context = json!({"threshold": 10, "amount": rng.between(5, 10) * 10, "currency": "EUR"});
        return event;
    }
    let mut event = by_person(stage, person, "USER_PRODUCT_SEARCH", at, rng);
    event.context = json!({"query": "invoices"});
    event
}

/// A new secret in working hours; the old one goes the working day after, so that programs have time to change over.
fn secret_rotation(stage: &Stage<'_>, day: DateTime<Utc>, rng: &mut Rng, events: &mut Vec<SimEvent>) {
    let Some(person) = stage.people.iter().find(|person| person.role == Role::Developer) else { return };
    let midnight = day.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
    let created = midnight + TimeDelta::hours(10) + within_minutes(rng, 0, 300);
    let deleted = created + TimeDelta::hours(24);
    if in_working_hours(created) && in_working_hours(deleted) {
        for (kind, at) in [("ACCOUNT_SECRET_CREATE", created), ("ACCOUNT_SECRET_DELETE", deleted)] {
            let mut event = by_person(stage, person, kind, at, rng);
            event.context = json!({"secretId": rng.uuid()});
            events.push(event);
        }
    }
}

/// Number updates by the company's own programs, day and night.
fn servers(stage: &Stage<'_>, estate: &Estate, day: DateTime<Utc>, rng: &mut Rng, events: &mut Vec<SimEvent>) {
    for _ in 0..rng.between(20, 45) {
        let at = day + TimeDelta::milliseconds(i64::try_from(rng.below(86_400_000)).unwrap_or(0));
        let ip = if rng.chance(0.2) {
            format!("2001:db8:20::{:x}", rng.between(1, 8))
        } else {
            format!("198.51.100.{}", rng.between(20, 27))
        };
        let msisdn = rng.pick(&estate.numbers).cloned().unwrap_or_default();
        let app_id = rng.pick(&estate.apps).cloned().unwrap_or_default();
        let mut event = by_key(stage, ip, "GB", "NUMBER_UPDATED", at, rng);
        event.context = routine_forward(stage, &msisdn, &app_id, rng);
        events.push(event);
    }
}

/// An offset between two numbers of minutes, to the millisecond.
fn within_minutes(rng: &mut Rng, low: u64, high: u64) -> TimeDelta {
    TimeDelta::milliseconds(i64::try_from(rng.between(low * 60_000, high * 60_000)).unwrap_or(0))
}
