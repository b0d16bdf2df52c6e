//! The cursor styles of real connectors, in the same worlds on the same friendly terms as ours (they may repeat, they
//! retry what fails): each loses events. This is what shows that the simulation bites.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use vigie::clock::Clock as _;
use vigie::source::vonage::client::{Client, ListQuery};
use vigie::source::vonage::event::read_row;

use super::server::Server;
use super::world::Scenario;

/// How a connector remembers where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `date_from` = newest stamp and one second.
    AfterNewest,
    /// `date_from` = newest stamp, ids compared.
    FromNewest,
    /// From the last poll to this one.
    BetweenPolls,
    /// The last 60 s, with the last 10,000 ids remembered.
    LastMinute,
    /// The newest page and older ones until a known id turns up.
    UntilSeen,
}

pub(super) const STYLES: [Style; 5] =
    [Style::AfterNewest, Style::FromNewest, Style::BetweenPolls, Style::LastMinute, Style::UntilSeen];

const POLL: Duration = Duration::from_secs(30);
const REMEMBERED: usize = 10_000;
const MAX_PAGES: u32 = 50;

struct Connector {
    style: Style,
    client: Client,
    server: Arc<Server>,
    seen: HashSet<String>,
    recent: VecDeque<String>,
    newest: DateTime<Utc>,
    polled: DateTime<Utc>,
}

/// How many events of a world a style had to see, and how many it did not.
pub(super) async fn lost(scenario: &Scenario, style: Style) -> (usize, usize) {
    let server = Arc::new(Server::new(scenario));
    let began = server.clock().now();
    let mut connector = Connector {
        style,
        client: Client::new(server.clone(), server.clock()),
        server: server.clone(),
        seen: HashSet::new(),
        recent: VecDeque::new(),
        newest: began,
        polled: began,
    };
    while server.clock().now() < scenario.ends_at() {
        connector.poll().await;
        tokio::time::sleep(POLL).await;
    }
    let malformed = server.malformed_id();
    let visible = server.visible_ids();
    let expected: Vec<&String> = visible.iter().filter(|id| Some(*id) != malformed.as_ref()).collect();
    (expected.len(), expected.iter().filter(|id| !connector.seen.contains(**id)).count())
}

impl Connector {
    async fn poll(&mut self) {
        let now = self.server.clock().now();
        let (from, to) = match self.style {
            Style::AfterNewest => (Some(self.newest + TimeDelta::seconds(1)), None),
            Style::FromNewest => (Some(self.newest), None),
            Style::BetweenPolls => (Some(self.polled), Some(now)),
            Style::LastMinute => (Some(now - TimeDelta::seconds(60)), None),
            Style::UntilSeen => (None, None),
        };
        for page in 1..=MAX_PAGES {
            let query = ListQuery { from, to, page, size: 100, ..ListQuery::default() };
            let Some(more) = self.page(&query).await else { return };
            if !more {
                break;
            }
        }
        self.polled = now;
    }

    /// Reads a page; whether there may be another, or nothing when the request failed too often.
    async fn page(&mut self, query: &ListQuery) -> Option<bool> {
        for _ in 0..5 {
            let Ok(answer) = self.client.list(query).await else {
                tokio::time::sleep(Duration::from_secs(2)).await;
                continue;
            };
            let zone = self.server.zone();
            let now = self.server.clock().now();
            let mut known = false;
            for row in answer.rows.iter().map(|raw| read_row(raw, zone, now)) {
                known |= self.recent.contains(&row.id);
                if row.counted {
                    self.newest = self.newest.max(row.at);
                }
                self.seen.insert(row.id.clone());
                self.recent.push_back(row.id);
                if self.recent.len() > REMEMBERED {
                    self.recent.pop_front();
                }
            }
            let last = answer.page.total_pages.unwrap_or(0) <= u64::from(query.page) || answer.rows.is_empty();
            return Some(!(last || self.style == Style::UntilSeen && known));
        }
        None
    }
}
