//! A backtest as one HTML page that stands by itself: no script, nothing loaded from elsewhere, no link.
//!
//! Text of events and of rules goes through `text`, which makes it one inert line and escapes it; a policy in the page
//! forbids everything but its own style, should that ever fail.

use vigie_engine::rule::Severity;
use vigie_engine::text::single_line;

use super::human::{key, many};
use super::plot::{self, Layer};
use super::report::{AgainstPart, AlertPart, Report, RulePart};

const STYLE: &str = include_str!("page.css");
/// Bars in a plot over the whole page.
const MAX_BINS: usize = 120;
/// Bars in a table's row.
const MAX_SMALL_BINS: usize = 60;
/// Alerts in a table: a page that opens at once; the JSON document has more.
const MAX_ALERTS: usize = 500;
/// Alerts gained, and alerts lost, that are listed.
const MAX_DIFFERENCES: usize = 200;
/// Days that are named as too loud.
const MAX_LOUD_DAYS: usize = 50;
/// Longest text in a cell.
const MAX_TEXT_CHARS: usize = 160;

impl Report<'_> {
    /// The page.
    pub(super) fn page(&self) -> String {
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>Backtest</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
        );
        self.head(&mut page);
        self.too_loud(&mut page);
        self.plots(&mut page);
        self.rules_table(&mut page);
        self.loudest_keys(&mut page);
        self.silent_rules(&mut page);
        if let Some(against) = &self.against {
            difference(against, &mut page);
        }
        self.alerts_table(&mut page);
        let version = env!("CARGO_PKG_VERSION");
        page.push_str(&format!(
            "<footer>vigie {version}. Days and times are UTC.</footer>\n</main>\n</body>\n</html>\n"
        ));
        page
    }

    fn head(&self, page: &mut String) {
        let history = &self.history;
        let day = |at: chrono::DateTime<chrono::Utc>| at.format("%Y-%m-%d").to_string();
        let sources = text(&history.sources.join(", "));
        let (first, last) = (day(history.first_at), day(history.last_at));
        page.push_str(&format!("<h1>Backtest</h1>\n<p class=\"faint\">{sources}, {first} to {last}</p>\n"));
        let days = (history.last_at.date_naive() - history.first_at.date_naive()).num_days().unsigned_abs() + 1;
        let matched = self.rules.iter().filter(|rule| rule.counts.matches > 0).count();
        let enabled = self.rules.iter().filter(|rule| rule.enabled).count();
        let events = history.events + history.learned;
        let figures = [
            (events.to_string(), format!("events in {}", many(days, "day"))),
            (self.total.alerts.to_string(), "alerts".to_owned()),
            (self.total.matches.to_string(), "matches".to_owned()),
            (tenths(self.total.alerts, days), "alerts a day".to_owned()),
            (format!("{matched} of {enabled}"), "rules matched".to_owned()),
        ];
        page.push_str("<div class=\"figures\">\n");
        for (number, what) in &figures {
            page.push_str(&format!("<div class=\"figure\"><strong>{number}</strong><span>{what}</span></div>\n"));
        }
        page.push_str("</div>\n");
        let mut remarks = self.remarks();
        if history.learned > 0 {
            remarks.insert(0, format!("{} were only learned from", many(history.learned, "event")));
        }
        for remark in &remarks {
            page.push_str(&format!("<p class=\"faint\">{}</p>\n", text(remark)));
        }
    }

    fn too_loud(&self, page: &mut String) {
        let Some(limit) = self.max_per_day.as_ref().filter(|limit| !limit.exceeded.is_empty()) else { return };
        let most = limit.limit;
        page.push_str(&format!("<section class=\"warning\"><h2>Louder than {most} alerts a day</h2>\n<table>\n"));
        page.push_str("<tr><th>rule</th><th>day</th><th class=\"number\">alerts</th></tr>\n");
        for part in limit.exceeded.iter().take(MAX_LOUD_DAYS) {
            let (rule, day, alerts) = (text(part.rule.unwrap_or_default()), part.day, part.counts.alerts);
            page.push_str(&format!(
                "<tr><td><code>{rule}</code></td><td>{day}</td><td class=\"number\">{alerts}</td></tr>\n"
            ));
        }
        page.push_str("</table>\n");
        more(limit.exceeded.len() as u64, MAX_LOUD_DAYS, "day", page);
        page.push_str("</section>\n");
    }

    fn plots(&self, page: &mut String) {
        let axis = self.axis(MAX_BINS);
        let layer = |severity: &Severity| Layer {
            class: severity.as_str(),
            name: severity.as_str().to_owned(),
            sums: axis.sums(self.days.iter().map(|day| (day.day, day.by_severity.get(severity).copied().unwrap_or(0)))),
        };
        let layers: Vec<Layer> =
            Severity::ALL.iter().map(layer).filter(|layer| layer.sums.iter().any(|sum| *sum > 0)).collect();
        page.push_str("<section><h2>Alerts by day</h2>\n");
        if layers.is_empty() {
            page.push_str("<p>No rule raised an alert.</p>\n");
        } else {
            page.push_str("<div class=\"legend\">");
            for layer in layers.iter().rev() {
                page.push_str(&format!("<span class=\"severity {0}\">{0}</span>", layer.class));
            }
            page.push_str("</div>\n");
            page.push_str(&plot::bars(&axis, &layers, "alerts by day and severity", 240));
        }
        let events = Layer {
            class: "events",
            name: "events".into(),
            sums: axis.sums(self.days.iter().map(|day| (day.day, day.events))),
        };
        page.push_str("<h3>Events by day</h3>\n");
        page.push_str(&plot::bars(&axis, &[events], "events by day", 120));
        page.push_str("</section>\n");
    }

    fn rules_table(&self, page: &mut String) {
        let mut rules: Vec<&RulePart<'_>> = self.rules.iter().filter(|rule| rule.is_told()).collect();
        if rules.is_empty() {
            return;
        }
        rules.sort_by_key(|rule| (std::cmp::Reverse((rule.counts.alerts, rule.counts.matches)), rule.id));
        let axis = self.axis(MAX_SMALL_BINS);
        page.push_str(
            "<section><h2>Rules</h2>\n<table>\n<tr><th>rule</th><th>severity</th><th class=\"number\">alerts</th>\
             <th class=\"number\">matches</th><th>loudest day</th><th>alerts by day</th></tr>\n",
        );
        for rule in rules {
            let sums = axis.sums(rule.days.iter().map(|part| (part.day, part.counts.alerts)));
            let layer = Layer { class: rule.severity.as_str(), name: format!("{} by day", rule.id), sums };
            let loudest = rule.loudest_day.as_ref();
            let loudest = loudest.map_or(String::new(), |part| format!("{} ({})", part.day, part.counts.alerts));
            let silent = [
                (rule.learned, "only learned"),
                (rule.uncounted, "could not be counted"),
                (rule.evicted, "forgotten before their time"),
            ];
            let silent = silent.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("; {count} {what}"));
            page.push_str(&format!(
                "<tr><td><code>{}</code><small>{}{}</small></td><td>{}</td><td class=\"number\">{}</td>\
                     <td class=\"number\">{}</td><td class=\"day\">{loudest}</td><td>{}</td></tr>\n",
                text(rule.id),
                text(rule.title),
                silent.collect::<String>(),
                severity(rule.severity),
                rule.counts.alerts,
                rule.counts.matches,
                plot::small(&axis, &layer)
            ));
        }
        page.push_str("</table></section>\n");
    }

    fn loudest_keys(&self, page: &mut String) {
        let Some(most) = self.loudest.first().map(|part| part.counts.alerts.max(1)) else { return };
        page.push_str(
            "<section><h2>Loudest keys</h2>\n<table>\n<tr><th>rule and key</th><th class=\"number\">alerts</th>\
             <th class=\"number\">matches</th><th></th></tr>\n",
        );
        for part in &self.loudest {
            let share = (u128::from(part.counts.alerts) * 220 / u128::from(most)).clamp(2, 220);
            page.push_str(&format!(
                    "<tr><td><code>{}</code><small>{}</small></td><td class=\"number\">{}</td>\
                     <td class=\"number\">{}</td><td><span class=\"share\" style=\"width:{share}px\"></span></td></tr>\n",
                    text(part.rule),
                    text(&key(part.key)),
                    part.counts.alerts,
                    part.counts.matches
                ),
            );
        }
        page.push_str("</table></section>\n");
    }

    fn silent_rules(&self, page: &mut String) {
        let disabled: Vec<&str> = self.rules.iter().filter(|rule| !rule.enabled).map(|rule| rule.id).collect();
        for (title, ids) in [("Never matched", &self.never_matched), ("Switched off", &disabled)] {
            if ids.is_empty() {
                continue;
            }
            page.push_str(&format!("<section><h2>{title}</h2>\n<ul class=\"ids\">\n"));
            for id in ids {
                page.push_str(&format!("<li><code>{}</code></li>\n", text(id)));
            }
            page.push_str("</ul></section>\n");
        }
    }

    fn alerts_table(&self, page: &mut String) {
        if self.alerts.is_empty() {
            return;
        }
        page.push_str("<section><h2>Alerts</h2>\n");
        alerts(&self.alerts, MAX_ALERTS, page);
        more(self.total.alerts, MAX_ALERTS, "alert", page);
        page.push_str("</section>\n");
    }
}

fn difference(against: &AgainstPart<'_>, page: &mut String) {
    page.push_str(&format!(
        "<section><h2>Against the old rules</h2>\n<p><span class=\"gained\">{} gained</span>, \
             <span class=\"lost\">{} lost</span></p>\n",
        against.gained, against.lost
    ));
    if !against.rules.is_empty() {
        page.push_str("<table>\n<tr><th>rule</th>");
        for heading in ["old", "new", "gained", "lost"] {
            page.push_str(&format!("<th class=\"number\">{heading}</th>"));
        }
        page.push_str("</tr>\n");
    }
    for (id, part) in &against.rules {
        page.push_str(&format!("<tr><td><code>{}</code></td>", text(id)));
        for number in [part.before, part.now, part.gained, part.lost] {
            page.push_str(&format!("<td class=\"number\">{number}</td>"));
        }
        page.push_str("</tr>\n");
    }
    if !against.rules.is_empty() {
        page.push_str("</table>\n");
    }
    for (class, list, all) in
        [("gained", &against.gained_alerts, against.gained), ("lost", &against.lost_alerts, against.lost)]
    {
        if !list.is_empty() {
            page.push_str(&format!("<h3 class=\"{class}\">{class}</h3>\n"));
            alerts(list, MAX_DIFFERENCES, page);
            more(all, MAX_DIFFERENCES, "alert", page);
        }
    }
    if against.not_compared > 0 {
        let alerts = many(against.not_compared, "alert");
        page.push_str(&format!("<p class=\"faint\">{alerts} beyond what is kept were not compared.</p>\n"));
    }
    page.push_str("</section>\n");
}

fn alerts(alerts: &[AlertPart<'_>], most: usize, page: &mut String) {
    page.push_str(
        "<table>\n<tr><th>first</th><th>severity</th><th>alert</th><th>key</th><th class=\"number\">matches</th></tr>\n",
    );
    for alert in alerts.iter().take(most) {
        page.push_str(&format!(
            "<tr><td class=\"day\">{}</td><td>{}</td><td>{}<small><code>{}</code></small></td><td>{}</td>\
                 <td class=\"number\">{}</td></tr>\n",
            alert.first_at.format("%Y-%m-%d %H:%M:%S"),
            severity(alert.severity),
            text(alert.title.as_raw()),
            text(alert.rule),
            text(&key(alert.key)),
            alert.count
        ));
    }
    page.push_str("</table>\n");
}

fn more(all: u64, shown: usize, noun: &str, page: &mut String) {
    let more = all.saturating_sub(shown as u64);
    if more > 0 {
        let more = many(more, &format!("more {noun}"));
        page.push_str(&format!(
            "<p class=\"faint\">and {more}; <code>-o json</code> and <code>-o ndjson</code> list more.</p>\n"
        ));
    }
}

fn severity(severity: Severity) -> String {
    format!("<span class=\"severity {0}\">{0}</span>", severity.as_str())
}

/// With one decimal.
fn tenths(count: u64, days: u64) -> String {
    let tenths = (u128::from(count) * 10 + u128::from(days) / 2) / u128::from(days.max(1));
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Anybody's text as one inert line between tags or in an attribute.
fn text(text: &str) -> String {
    escape(&single_line(text, MAX_TEXT_CHARS))
}

/// For between tags and in attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
