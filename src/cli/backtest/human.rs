//! A backtest as text for a terminal.

use std::io;

use vigie_engine::text::single_line;

use super::axis::Axis;
use super::report::{AgainstPart, AlertPart, KeyMap, Report};
use super::tally::MAX_KEPT_ALERTS;
use crate::cli::output::{Output, counted};

/// Widest line of blocks, a block for a day or for several.
const MAX_BLOCKS: usize = 31;
/// Days in the list by day; the JSON document has all.
const MAX_DAYS: usize = 40;
/// Alerts gained, and alerts lost, that are listed; the JSON document has more.
const MAX_DIFFERENCES: usize = 20;
/// Rules named for one day.
const MAX_RULES_A_DAY: usize = 4;
/// How much of a key or title a line shows.
const MAX_TEXT_CHARS: usize = 80;

impl Report<'_> {
    /// Everything that a person wants to know first.
    pub(super) fn print(&self, output: &mut Output) -> io::Result<()> {
        self.print_history(output)?;
        self.print_rules(output)?;
        self.print_days(output)?;
        if !self.loudest.is_empty() {
            output.line("\nloudest keys")?;
            for part in &self.loudest {
                let (alerts, matches) = (part.counts.alerts, part.counts.matches);
                output.line(&format!("  {alerts:>7}  {matches:>7}  {}  {}", part.rule, key(part.key)))?;
            }
        }
        if !self.never_matched.is_empty() {
            output.line(&format!(
                "\nnever matched ({}): {}",
                self.never_matched.len(),
                self.never_matched.join(", ")
            ))?;
        }
        if let Some(against) = &self.against {
            print_against(against, output)?;
        }
        Ok(())
    }

    fn print_history(&self, output: &mut Output) -> io::Result<()> {
        let history = &self.history;
        let day = |at: chrono::DateTime<chrono::Utc>| at.format("%Y-%m-%d").to_string();
        output.line(&format!(
            "{} of {}, {} to {}; {}",
            many(history.events + history.learned, "event"),
            history.sources.join(", "),
            day(history.first_at),
            day(history.last_at),
            counted(self.rules.len(), "rule"),
        ))?;
        if history.learned > 0 {
            output.line(&format!("{} of them were only learned from", history.learned))?;
        }
        for line in self.remarks() {
            output.line(&line)?;
        }
        Ok(())
    }

    /// What was left out, and why.
    pub(super) fn remarks(&self) -> Vec<String> {
        let skipped = &self.history.skipped;
        let mut remarks = Vec::new();
        if skipped.poison > 0 {
            let first = skipped.first_poison.as_ref().map(|error| format!(" (the first: {})", shown(error)));
            let rows = match skipped.poison {
                1 => "1 row that is no event was left out".to_owned(),
                rows => format!("{rows} rows that are no events were left out"),
            };
            remarks.push(rows + &first.unwrap_or_default());
        }
        if skipped.duplicates > 0 {
            remarks.push(format!("{} came again and counted once", many(skipped.duplicates, "event")));
        }
        if skipped.outside > 0 {
            remarks.push(format!("{} outside of the time asked for", many(skipped.outside, "event")));
        }
        if skipped.without_text > 0 {
            let events = many(skipped.without_text, "event");
            remarks.push(format!("{events} could not be run over: retention has left only the id"));
        }
        if self.total.alerts > MAX_KEPT_ALERTS as u64 {
            remarks.push(format!("keys and lists are of the first {MAX_KEPT_ALERTS} alerts; counts are of all"));
        }
        remarks
    }

    fn print_rules(&self, output: &mut Output) -> io::Result<()> {
        let mut rules: Vec<_> = self.rules.iter().filter(|rule| rule.is_told()).collect();
        rules.sort_by_key(|rule| (std::cmp::Reverse((rule.counts.alerts, rule.counts.matches)), rule.id));
        if rules.is_empty() {
            return output.line("\nno rule matched");
        }
        let axis = self.axis(MAX_BLOCKS);
        output.line(&format!(
            "\n   alerts  matches  severity  loudest day      {:<width$}  rule",
            "by day",
            width = axis.bins.max(6)
        ))?;
        for rule in rules {
            let blocks = blocks(&axis.sums(rule.days.iter().map(|part| (part.day, part.counts.alerts))));
            let loudest = rule.loudest_day.as_ref().map_or(String::new(), |part| {
                let alerts = part.counts.alerts;
                format!("{} {alerts:>4}", part.day)
            });
            let silent = [
                (rule.learned, "learned"),
                (rule.uncounted, "uncounted"),
                (rule.evicted, "forgotten before their time"),
            ];
            let silent =
                silent.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(" ({count} {what})"));
            output.line(&format!(
                "  {:>7}  {:>7}  {:<8}  {loudest:<15}  {blocks:<width$}  {}{}",
                rule.counts.alerts,
                rule.counts.matches,
                rule.severity.as_str(),
                rule.id,
                silent.collect::<String>(),
                width = axis.bins.max(6)
            ))?;
        }
        output.line(&format!("  {:>7}  {:>7}  in all", self.total.alerts, self.total.matches))
    }

    fn print_days(&self, output: &mut Output) -> io::Result<()> {
        let loud: Vec<_> = self.days.iter().filter(|day| day.counts.alerts > 0).collect();
        if loud.is_empty() {
            return Ok(());
        }
        output.line("\n   alerts  matches   events  day")?;
        let left_out = loud.len().saturating_sub(MAX_DAYS);
        for part in loud.iter().skip(left_out) {
            let mut rules: Vec<String> =
                part.rules.iter().take(MAX_RULES_A_DAY).map(|(id, alerts)| format!("{id} {alerts}")).collect();
            let more = part.rules.len().saturating_sub(MAX_RULES_A_DAY);
            if more > 0 {
                rules.push(counted(more, "more rule"));
            }
            let (alerts, matches) = (part.counts.alerts, part.counts.matches);
            let (events, day, rules) = (part.events, part.day, rules.join(", "));
            output.line(&format!("  {alerts:>7}  {matches:>7}  {events:>7}  {day}  {rules}"))?;
        }
        if left_out > 0 {
            output.line(&format!("  and {left_out} earlier days; -o json has them"))?;
        }
        Ok(())
    }

    /// The days of the history.
    pub(super) fn axis(&self, max_bins: usize) -> Axis {
        let (first, last) = (self.history.first_at.date_naive(), self.history.last_at.date_naive());
        Axis::over(first, last, max_bins)
    }
}

fn print_against(against: &AgainstPart<'_>, output: &mut Output) -> io::Result<()> {
    output.line(&format!("\nagainst the old rules: {} gained, {} lost", against.gained, against.lost))?;
    if !against.rules.is_empty() {
        output.line("      old      new   gained     lost  rule")?;
    }
    for (id, part) in &against.rules {
        let (before, now, gained, lost) = (part.before, part.now, part.gained, part.lost);
        output.line(&format!("  {before:>7}  {now:>7}  {gained:>7}  {lost:>7}  {id}"))?;
    }
    for (sign, alerts) in [('+', &against.gained_alerts), ('-', &against.lost_alerts)] {
        for alert in alerts.iter().take(MAX_DIFFERENCES) {
            output.line(&format!("  {sign} {}", line(alert)))?;
        }
        let all = if sign == '+' { against.gained } else { against.lost };
        let more = all.saturating_sub(MAX_DIFFERENCES as u64);
        if more > 0 {
            output.line(&format!("  {sign} and {more} more"))?;
        }
    }
    if against.not_compared > 0 {
        output.line(&format!("  {} beyond what is kept were not compared", many(against.not_compared, "alert")))?;
    }
    Ok(())
}

/// An alert on one line.
fn line(alert: &AlertPart<'_>) -> String {
    let at = alert.first_at.format("%Y-%m-%dT%H:%M:%SZ");
    let title = alert.title.single_line(MAX_TEXT_CHARS);
    format!("{at}  x{:<4} {}  {}  {title}", alert.count, alert.rule, key(alert.key))
}

/// A key on one line.
pub(super) fn key(key: KeyMap<'_>) -> String {
    if key.0.is_empty() {
        return "(no key)".into();
    }
    let part = |(field, value): &(String, vigie_engine::text::Untrusted)| {
        format!("{}={}", shown(field), value.single_line(MAX_TEXT_CHARS))
    };
    key.0.iter().map(part).collect::<Vec<_>>().join(" ")
}

/// One line of blocks, the highest for the largest.
fn blocks(sums: &[u64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let largest = sums.iter().copied().max().unwrap_or(0).max(1);
    let block = |sum: &u64| match *sum {
        0 => '·',
        sum => {
            let level = (u128::from(sum) * BLOCKS.len() as u128).div_ceil(u128::from(largest));
            let level = usize::try_from(level).unwrap_or(BLOCKS.len());
            BLOCKS.get(level.saturating_sub(1)).copied().unwrap_or('█')
        }
    };
    sums.iter().map(block).collect()
}

/// `1 event`, `2 events`.
pub(super) fn many(count: u64, noun: &str) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), noun)
}

fn shown(text: &str) -> String {
    single_line(text, MAX_TEXT_CHARS)
}

#[cfg(test)]
mod tests {
    use vigie_engine::text::Untrusted;

    use super::*;

    #[test]
    fn blocks_show_nothing_little_and_most() {
        assert_eq!(blocks(&[0, 1, 8, 16]), "·▁▄█");
        assert_eq!(blocks(&[0, 0]), "··");
        assert_eq!(blocks(&[u64::MAX, 1]), "█▁");
    }

    #[test]
    fn a_key_is_one_inert_line() {
        let parts = [("actor".to_owned(), Untrusted::new("a\n\u{1b}[2Jb"))];
        assert_eq!(key(KeyMap(&parts)), "actor=a \\u{1b}[2Jb");
        assert_eq!(key(KeyMap(&[])), "(no key)");
    }
}
