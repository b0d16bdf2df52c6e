//! The rows behind the API: rendered once, indexed by stamp and by id, shown from their `visible_at` on.
//! A row that was shown never disappears. Rows are never removed; the index holds times as microseconds, so that a wide
//! range is one pass over compact numbers.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::query::Filter;
use crate::event::SimEvent;
use crate::quirks::{Bound, Malformed, Quirks, Resolution, SortOrder};
use crate::rng::{fraction_of, hash_text, mix};

const SECOND_US: i64 = 1_000_000;

/// One page and what stands behind it.
pub(super) struct Found<'a> {
    pub(super) page: Vec<&'a str>,
    pub(super) total: u64,
}

#[derive(Debug)]
pub(super) struct Rows {
    rows: Vec<Row>,
    /// Sorted by (created, arrival).
    index: Vec<Key>,
    by_id: HashMap<String, usize>,
    /// Rows that were created by now and become visible by then are shown already (the quirk `shift`). It only grows.
    revealed_us: i64,
    future: Option<usize>,
    malformed: Option<usize>,
    giant: Option<usize>,
}

#[derive(Debug)]
struct Row {
    /// As it came, before any quirk.
    given: SimEvent,
    /// With the time, stamp and lateness that the quirks give it.
    shown: SimEvent,
    json: String,
    /// The first digits of the id as a number: orders like the id.
    id_rank: u64,
    id_hash: u64,
}

#[derive(Debug, Clone, Copy)]
struct Key {
    created_us: i64,
    visible_us: i64,
    row: usize,
}

impl Rows {
    pub(super) fn new(events: Vec<SimEvent>, quirks: &Quirks) -> Self {
        let rows: Vec<Row> = events.into_iter().map(Row::new).collect();
        let by_id = rows.iter().enumerate().map(|(place, row)| (row.given.id.clone(), place)).collect();
        let mut made =
            Self { rows, index: Vec::new(), by_id, revealed_us: i64::MIN, future: None, malformed: None, giant: None };
        made.rebuild(quirks);
        made
    }

    /// Applies other quirks to all rows.
    pub(super) fn rebuild(&mut self, quirks: &Quirks) {
        // Which rows are odd depends only on the rows: the ones a third and two thirds on in order of arrival, and some
        // in between.
        let count = self.rows.len();
        self.future = quirks.future_row.filter(|_| count > 0).map(|_| count / 3);
        self.malformed = quirks.malformed.filter(|_| count > 0).map(|_| (count * 2 / 3).min(count.saturating_sub(1)));
        self.giant = quirks.giant_bytes.filter(|_| count > 0).map(|_| count * 4 / 9);
        for place in 0..count {
            self.dress(place, quirks);
        }
        self.index = self.rows.iter().enumerate().map(|(place, row)| row.key(place)).collect();
        let twin = self.rows.get(count * 5 / 9).filter(|_| quirks.twin);
        self.index.extend(twin.map(|row| row.key(count * 5 / 9)));
        self.index.sort_unstable_by_key(|key| (key.created_us, key.row));
    }

    /// Adds one; an id that is known replaces its row.
    pub(super) fn push(&mut self, event: SimEvent, quirks: &Quirks) {
        if let Some(&place) = self.by_id.get(&event.id) {
            if let Some(row) = self.rows.get_mut(place) {
                *row = Row::new(event);
            }
            self.index.retain(|key| key.row != place);
            self.place(place, quirks);
            return;
        }
        let place = self.rows.len();
        self.by_id.insert(event.id.clone(), place);
        self.rows.push(Row::new(event));
        self.place(place, quirks);
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &SimEvent> {
        self.rows.iter().map(|row| &row.shown)
    }

    pub(super) fn future_id(&self) -> Option<&str> {
        self.id_at(self.future)
    }

    pub(super) fn giant_id(&self) -> Option<&str> {
        self.id_at(self.giant)
    }

    pub(super) fn malformed_id(&self) -> Option<&str> {
        self.id_at(self.malformed)
    }

    pub(super) fn visible_ids(&self, now: DateTime<Utc>) -> Vec<String> {
        let now_us = now.timestamp_micros();
        let visible = self.index.iter().filter(|key| self.is_visible(key, now_us));
        let mut ids: Vec<String> =
            visible.filter_map(|key| self.rows.get(key.row)).map(|row| row.given.id.clone()).collect();
        // A twin stands beside its row.
        ids.dedup();
        ids
    }

    /// The JSON of one row, if it is visible.
    pub(super) fn json_of(&self, id: &str, now: DateTime<Utc>) -> Option<&str> {
        let place = *self.by_id.get(id)?;
        let row = self.rows.get(place)?;
        self.is_visible(&row.key(place), now.timestamp_micros()).then_some(row.json.as_str())
    }

    /// The rows that a request asks for.
    pub(super) fn select(
        &mut self,
        filter: &Filter,
        quirks: &Quirks,
        now: DateTime<Utc>,
        request_index: u64,
    ) -> Found<'_> {
        let now_us = now.timestamp_micros();
        if filter.page > 1 && !quirks.shift.is_zero() {
            let shift_us = i64::try_from(quirks.shift.as_micros()).unwrap_or(i64::MAX);
            self.revealed_us = self.revealed_us.max(now_us.saturating_add(shift_us));
        }
        let mut matched = self.matching(filter, quirks, now_us);
        let total = matched.len() as u64;
        let size = u64::from(filter.size);
        let skip = usize::try_from((filter.page - 1).saturating_mul(size)).unwrap_or(usize::MAX).min(matched.len());
        let end = skip.saturating_add(usize::try_from(size).unwrap_or(usize::MAX)).min(matched.len());
        self.order(&mut matched, quirks, request_index, skip, end);
        let shown = matched.get(skip..end).unwrap_or_default();
        let mut page: Vec<&str> =
            shown.iter().filter_map(|key| self.rows.get(key.row)).map(|row| row.json.as_str()).collect();
        let draw = mix(request_index, 0x7265_7065_6174);
        if page.len() > 1 && fraction_of(draw) < quirks.repeated_rows {
            let again = usize::try_from(mix(draw, 1) % page.len() as u64).unwrap_or(0);
            page.insert(again, page.get(again).copied().unwrap_or_default());
        }
        let Some(stray) = self.stray(filter, quirks, now_us) else { return Found { page, total } };
        if filter.page == 1 {
            page.push(stray);
        }
        Found { page, total: total + 1 }
    }

    /// The first row of all, where it is shown although it lies outside of the range.
    fn stray(&self, filter: &Filter, quirks: &Quirks, now_us: i64) -> Option<&str> {
        let (low, high) = range_us(filter, quirks);
        let row = self.rows.first().filter(|_| quirks.stray)?;
        let key = row.key(0);
        let is_inside = (low..high).contains(&key.created_us);
        (self.is_visible(&key, now_us) && !is_inside).then_some(row.json.as_str())
    }

    fn matching(&self, filter: &Filter, quirks: &Quirks, now_us: i64) -> Vec<Key> {
        let (low, high) = range_us(filter, quirks);
        let start = self.index.partition_point(|key| key.created_us < low);
        let end = self.index.partition_point(|key| key.created_us < high).max(start);
        let in_range = self.index.get(start..end).unwrap_or_default();
        let visible = in_range.iter().filter(|key| self.is_visible(key, now_us));
        if filter.event_types.is_empty() && filter.search_text.is_none() {
            return visible.copied().collect();
        }
        let wanted = |key: &&Key| self.rows.get(key.row).is_some_and(|row| row.is_wanted(filter));
        visible.filter(wanted).copied().collect()
    }

    /// Brings the places `skip..end` into the order of the quirks; what lies outside of them may stay unsorted.
    fn order(&self, matched: &mut [Key], quirks: &Quirks, request_index: u64, skip: usize, end: usize) {
        let presorted = quirks.resolution == Resolution::Full && !quirks.unstable_ties;
        match quirks.order {
            SortOrder::Ascending if presorted => return,
            SortOrder::Descending if presorted => {
                matched.reverse();
                return;
            }
            _ => {}
        }
        if skip >= end {
            return;
        }
        let rank = |key: &Key| self.rank(key, quirks, request_index);
        if skip > 0 {
            matched.select_nth_unstable_by_key(skip, rank);
        }
        let tail = matched.get_mut(skip..).unwrap_or_default();
        if end - skip < tail.len() {
            tail.select_nth_unstable_by_key(end - skip, rank);
        }
        tail.get_mut(..end - skip).unwrap_or_default().sort_unstable_by_key(rank);
    }

    /// What rows are sorted by. The row number comes last, so no two rows are equal.
    fn rank(&self, key: &Key, quirks: &Quirks, request_index: u64) -> (i64, u64, usize) {
        let stamp = match quirks.resolution {
            Resolution::Full => key.created_us,
            Resolution::Second => key.created_us.div_euclid(SECOND_US),
        };
        let (id_rank, id_hash) = self.rows.get(key.row).map_or((0, 0), |row| (row.id_rank, row.id_hash));
        let tie = |stable: u64| if quirks.unstable_ties { mix(id_hash, request_index) } else { stable };
        match quirks.order {
            SortOrder::Ascending => (stamp, tie(0), key.row),
            SortOrder::Descending => (-stamp, tie(0), usize::MAX - key.row),
            SortOrder::NewestFirstById => (-stamp, tie(id_rank), key.row),
            SortOrder::Scrambled => (mix(stamp.unsigned_abs(), 5).cast_signed(), tie(id_hash), key.row),
        }
    }

    fn is_visible(&self, key: &Key, now_us: i64) -> bool {
        key.visible_us <= now_us || (key.created_us <= now_us && key.visible_us <= self.revealed_us)
    }

    fn id_at(&self, place: Option<usize>) -> Option<&str> {
        self.rows.get(place?).map(|row| row.given.id.as_str())
    }

    fn place(&mut self, place: usize, quirks: &Quirks) {
        self.dress(place, quirks);
        let Some(key) = self.rows.get(place).map(|row| row.key(place)) else { return };
        let at = self.index.partition_point(|other| (other.created_us, other.row) < (key.created_us, key.row));
        self.index.insert(at, key);
    }

    /// Gives a row the time, stamp, lateness and JSON that follow from the quirks.
    fn dress(&mut self, place: usize, quirks: &Quirks) {
        let (is_future, is_malformed) = (self.future == Some(place), self.malformed == Some(place));
        let padding_bytes =
            quirks.padding_bytes + quirks.giant_bytes.filter(|_| self.giant == Some(place)).unwrap_or(0);
        let Some(row) = self.rows.get_mut(place) else { return };
        let mut event = row.given.clone();
        if let Some(stamp) = quirks.stamp {
            event.stamp = stamp;
            event.set_created_at(row.given.created_at);
        }
        if let Some(lateness) = quirks.lateness {
            event.lateness = lateness.draw(row.id_hash);
        }
        if let (true, Some(ahead)) = (is_future, quirks.future_row) {
            let visible_at = event.visible_at();
            event.set_created_at(visible_at + TimeDelta::from_std(ahead).unwrap_or_default());
            event.lateness = visible_at - event.created_at;
        }
        row.json = event.to_json(quirks.zone);
        if padding_bytes > 0 && row.json.pop().is_some() {
            row.json.push_str(",\"padding\":\"");
            row.json.extend(std::iter::repeat_n('x', padding_bytes));
            row.json.push_str("\"}");
        }
        if let (true, Some(kind)) = (is_malformed, quirks.malformed) {
            row.json = broken(&row.json, kind);
        }
        if quirks.hidden_fraction && !event.stamp.has_fraction() {
            // After rendering: the server knows more than it shows. Never past the moment of becoming visible.
            let hidden = TimeDelta::milliseconds(i64::try_from(row.id_hash % 1_000).unwrap_or(0));
            event.created_at += hidden;
        }
        row.shown = event;
    }
}

impl Row {
    fn new(given: SimEvent) -> Self {
        let digits = given.id.bytes().filter(u8::is_ascii_hexdigit).take(16);
        let id_rank =
            digits.fold(0, |rank, digit| (rank << 4) | u64::from(char::from(digit).to_digit(16).unwrap_or(0)));
        let id_hash = hash_text(&given.id);
        Self { shown: given.clone(), given, json: String::new(), id_rank, id_hash }
    }

    fn key(&self, row: usize) -> Key {
        Key {
            created_us: self.shown.created_at.timestamp_micros(),
            visible_us: self.shown.visible_at().timestamp_micros(),
            row,
        }
    }

    fn is_wanted(&self, filter: &Filter) -> bool {
        let type_fits =
            filter.event_types.is_empty() || filter.event_types.iter().any(|name| *name == self.given.event_type);
        type_fits && filter.search_text.as_ref().is_none_or(|text| self.json.contains(text.as_str()))
    }
}

/// The bounds as a half-open range of microseconds.
fn range_us(filter: &Filter, quirks: &Quirks) -> (i64, i64) {
    let step = match quirks.resolution {
        Resolution::Full => 1,
        Resolution::Second => SECOND_US,
    };
    let cell = |at: DateTime<Utc>| at.timestamp_micros().div_euclid(step);
    let low = filter.from.map(|from| match quirks.from {
        Bound::Inclusive => cell(from),
        Bound::Exclusive => cell(from) + 1,
    });
    let high = filter.to.map(|to| match quirks.to {
        Bound::Inclusive => cell(to) + 1,
        Bound::Exclusive => cell(to),
    });
    (low.map_or(i64::MIN, |low| low.saturating_mul(step)), high.map_or(i64::MAX, |high| high.saturating_mul(step)))
}

fn broken(json: &str, kind: Malformed) -> String {
    let Ok(serde_json::Value::Object(mut row)) = serde_json::from_str(json) else { return json.to_owned() };
    match kind {
        Malformed::NoStamp => {
            row.remove("created_at");
        }
        Malformed::BadStamp => {
            row.insert("created_at".to_owned(), "yesterday".into());
        }
        Malformed::NumericId => {
            row.insert("id".to_owned(), 17.into());
        }
        Malformed::Text => return "\"this is not an event\"".to_owned(),
    }
    serde_json::Value::Object(row).to_string()
}
