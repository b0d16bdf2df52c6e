//! What keeps an alert from a sink: silences, inhibitions, quiet times of routes and what a route has told already.
//!
//! It only says so: the delivery is stored with what muted it, and a digest tells of it when that ends. What cannot be
//! decided mutes nothing. Which alerts hold down others is kept with the rules' state and loaded with it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use vigie_engine::alert::Alert;
use vigie_engine::condition::During;
use vigie_engine::mute::{Inhibition, Silence};
use vigie_engine::route::{AlertView, Destination, Repeat, Route};
use vigie_engine::state::{StateChange, StateRows};
use vigie_engine::time::format_duration;

use crate::pipeline::own_rows::OwnRows;
use crate::store::Result;
use crate::store::hold::{Hold, Holds, StoredSilence};

/// Alerts that hold down others at one time. Beyond it those that end first are forgotten, which tells more and not less.
const MAX_OPEN: usize = 10_000;
/// How far ahead the end of a quiet time is looked for; a week without an end is looked at again.
const MAX_QUIET: TimeDelta = TimeDelta::days(8);
/// Longest quiet time of a rule, and a day to spare.
const MAX_OPEN_FOR: TimeDelta = TimeDelta::days(31);
/// Of an id, enough to find it.
const SHORT_ID_CHARS: usize = 12;
const ROWS: OwnRows = OwnRows { kind: "inhibitors", unreadable: "what this alert held down is told again" };

/// An alert that holds down others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    alert_id: String,
    rule_id: String,
    until: DateTime<Utc>,
}

/// Open alerts that hold down others, by inhibition and the values that it asks for.
#[derive(Debug, Clone, Default)]
pub struct Inhibitors(BTreeMap<String, Open>);

impl Inhibitors {
    /// Takes up what was noted, while it is read.
    pub fn take_up(&mut self, rows: &StateRows) {
        self.0.extend(ROWS.read(rows));
    }
}

/// The alert that a sink is told of under a key of a route, in the commit that is being made.
pub(super) type Told<'a> = dyn Fn(&str, &str) -> Option<String> + Sync + 'a;

/// What mutes.
pub(super) struct Mutes {
    inhibitions: Vec<Inhibition>,
    open: Mutex<Inhibitors>,
    read: Mutex<HashMap<String, Arc<Silence>>>,
    /// By route: at most one entry each.
    quiet_ends: Mutex<HashMap<String, DateTime<Utc>>>,
    holds: Arc<dyn Holds>,
}

/// What a sink owes, or why it owes nothing.
pub(super) struct Verdict {
    pub(super) hold: Option<Hold>,
    /// The key of the route that let it through, if that route tells the same only once in a while.
    pub(super) repeat_key: Option<String>,
}

impl Mutes {
    pub(super) fn new(inhibitions: Vec<Inhibition>, open: Inhibitors, holds: Arc<dyn Holds>) -> Self {
        Self { inhibitions, open: Mutex::new(open), read: Mutex::default(), quiet_ends: Mutex::default(), holds }
    }

    /// What keeps an alert from every sink.
    pub(super) fn of_alert(
        &self,
        view: &AlertView,
        silences: &[StoredSilence],
        staged: &Inhibitors,
        now: DateTime<Utc>,
    ) -> Option<Hold> {
        let silenced = silences.iter().find(|stored| self.parsed(stored).is_some_and(|silence| silence.fits(view)));
        silenced.map(silence_hold).or_else(|| self.inhibited(view, staged, now))
    }

    /// Silences in force, to be asked for once a commit.
    pub(super) async fn silences(&self, now: DateTime<Utc>) -> Result<Vec<StoredSilence>> {
        let silences = self.holds.silences(now).await?;
        let ids: HashSet<&str> = silences.iter().map(|stored| stored.silence_id.as_str()).collect();
        self.lock_read().retain(|id, _| ids.contains(id.as_str()));
        Ok(silences)
    }

    /// What keeps it from one sink: each route that leads there must hold it back.
    pub(super) async fn of_destination(
        &self,
        to: &Destination<'_>,
        view: &AlertView,
        told: &Told<'_>,
        now: DateTime<Utc>,
    ) -> Result<Verdict> {
        let mut first_hold = None;
        for route in &to.by {
            let key = route.repeat.as_ref().and_then(|repeat| repeat_key(route, repeat, view));
            let hold = match (route.muted_at(now), &route.repeat, &key) {
                (Some(during), ..) => Some(self.quiet_hold(route, during, now)),
                (None, Some(repeat), Some(key)) => self.repeated(to.sink, (route, repeat, key), told, now).await?,
                _ => None,
            };
            match hold {
                None => return Ok(Verdict { hold: None, repeat_key: key }),
                Some(hold) => first_hold = first_hold.or(Some(hold)),
            }
        }
        Ok(Verdict { hold: first_hold, repeat_key: None })
    }

    /// Stages what an alert that is told holds down from now on.
    pub(super) fn stage(&self, alert: &Alert, view: &AlertView, until: DateTime<Utc>, staged: &mut Inhibitors) {
        for inhibition in &self.inhibitions {
            if let Some(values) = inhibition.held_by(view) {
                let (alert_id, rule_id) = (alert.alert_id.clone(), alert.rule.id.clone());
                staged.0.insert(row_key(inhibition, &values), Open { alert_id, rule_id, until });
            }
        }
    }

    /// Stages that an alert took up a further match: it holds down others for longer.
    pub(super) fn stage_match(
        &self,
        alert_id: &str,
        quiet: impl Fn(&str) -> Duration,
        now: DateTime<Utc>,
        staged: &mut Inhibitors,
    ) {
        for (key, open) in self.lock().0.iter().filter(|(_, open)| open.alert_id == alert_id) {
            staged.0.insert(key.clone(), Open { until: later(now, quiet(&open.rule_id)), ..open.clone() });
        }
    }

    /// The rows of what is staged, and of what is over.
    pub(super) fn rows(&self, staged: &Inhibitors, now: DateTime<Utc>) -> Vec<StateChange> {
        let open = self.lock();
        let over = open.0.iter().filter(|(key, open)| open.until <= now && !staged.0.contains_key(*key));
        let ended = over.map(|(key, _)| ROWS.remove(key));
        staged.0.iter().map(|(key, open)| ROWS.write(key, open)).chain(ended).collect()
    }

    /// It was stored.
    pub(super) fn apply(&self, staged: Inhibitors, now: DateTime<Utc>) {
        let open = &mut self.lock().0;
        open.extend(staged.0);
        open.retain(|_, open| open.until > now);
        while open.len() > MAX_OPEN {
            let Some(first) = open.iter().min_by_key(|(_, open)| open.until).map(|(key, _)| key.clone()) else { break };
            open.remove(&first);
        }
    }

    fn inhibited(&self, view: &AlertView, staged: &Inhibitors, now: DateTime<Utc>) -> Option<Hold> {
        let open = self.lock();
        // Beyond this a clock was wrong when it was written.
        let sensible = now..=now + MAX_OPEN_FOR;
        let mut found = self.inhibitions.iter().filter_map(|inhibition| {
            let key = row_key(inhibition, &inhibition.held_down(view)?);
            let by = staged.0.get(&key).or_else(|| open.0.get(&key)).filter(|open| sensible.contains(&open.until))?;
            let by_id = short(&by.alert_id);
            let note = format!("{} is open (alert {by_id}, inhibition at {})", by.rule_id, inhibition.place);
            Some(Hold { by: format!("inhibited by alert {by_id}"), note, until: Some(by.until) })
        });
        found.next()
    }

    async fn repeated(
        &self,
        sink: &str,
        (route, repeat, key): (&Route, &Repeat, &str),
        told: &Told<'_>,
        now: DateTime<Utc>,
    ) -> Result<Option<Hold>> {
        let since = TimeDelta::from_std(repeat.quiet).ok().and_then(|quiet| now.checked_sub_signed(quiet));
        let earlier = match told(sink, key) {
            Some(alert_id) => Some((alert_id, now)),
            None => self.holds.told_between(sink, key, (since.unwrap_or(DateTime::<Utc>::MIN_UTC), now)).await?,
        };
        Ok(earlier.map(|(alert_id, told_at)| {
            let fields: Vec<&str> = repeat.fields.iter().map(|field| field.as_str()).collect();
            let (fields, quiet, place) = (fields.join(", "), format_duration(repeat.quiet), route.place());
            let by = format!("repeat of alert {}", short(&alert_id));
            let note = format!("the route at {place} tells of the same {fields} once in {quiet}");
            Hold { by, note, until: Some(later(told_at, repeat.quiet)) }
        }))
    }

    /// The end is looked for once for each quiet time.
    fn quiet_hold(&self, route: &Route, during: &During, now: DateTime<Utc>) -> Hold {
        let place = route.place();
        let mut ends = self.quiet_ends.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ends.get(&place).copied().filter(|end| *end > now && *end <= now + MAX_QUIET);
        let until = known.unwrap_or_else(|| quiet_until(route, now));
        ends.insert(place.clone(), until);
        let note = format!("the route at {place} is quiet: {}", during.written());
        Hold { by: format!("quiet time of the route at {place}"), note, until: Some(until) }
    }

    /// Compiled once for as long as it is in force. One that cannot be read mutes nothing.
    fn parsed(&self, stored: &StoredSilence) -> Option<Arc<Silence>> {
        if let Some(known) = self.lock_read().get(&stored.silence_id) {
            return Some(known.clone());
        }
        let read = Silence::new(&stored.matchers, stored.starts_at, stored.ends_at);
        let silence =
            read.inspect_err(|error| tracing::error!(silence = %stored.silence_id, ?error, "is not in force"));
        let silence = Arc::new(silence.ok()?);
        self.lock_read().insert(stored.silence_id.clone(), silence.clone());
        Some(silence)
    }

    fn lock(&self) -> MutexGuard<'_, Inhibitors> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_read(&self) -> MutexGuard<'_, HashMap<String, Arc<Silence>>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn silence_hold(stored: &StoredSilence) -> Hold {
    let until = stored.ends_at.format("%Y-%m-%d %H:%M UTC");
    let note = format!("silence {} by {} until {until}: {}", stored.silence_id, stored.owner, stored.reason);
    Hold { by: stored.by(), note, until: Some(stored.ends_at) }
}

/// The first full minute at which none of the route's windows holds.
fn quiet_until(route: &Route, now: DateTime<Utc>) -> DateTime<Utc> {
    let minute = now.timestamp().div_euclid(60) + 1;
    let minutes =
        (minute..=minute + MAX_QUIET.num_minutes()).filter_map(|minute| DateTime::from_timestamp(minute * 60, 0));
    minutes.into_iter().find(|at| route.muted_at(*at).is_none()).unwrap_or(now + MAX_QUIET)
}

/// Each route counts for itself: what one told of low severity does not keep back what another would tell of critical.
fn repeat_key(route: &Route, repeat: &Repeat, view: &AlertView) -> Option<String> {
    let place = route.place();
    let fields: Vec<&str> =
        [place.as_str()].into_iter().chain(repeat.fields.iter().map(|field| field.as_str())).collect();
    let values = view.key(&repeat.fields)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(serde_json::Value::from_iter(fields).to_string().as_bytes());
    hasher.update(values.as_bytes());
    Some(hasher.finalize().to_hex().chars().take(32).collect())
}

fn row_key(inhibition: &Inhibition, values: &str) -> String {
    format!("{} {values}", inhibition.identity)
}

fn short(id: &str) -> String {
    id.chars().take(SHORT_ID_CHARS).collect()
}

pub(super) fn later(at: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    crate::pipeline::deliver::later(at, by)
}
