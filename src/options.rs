//! Options as tables: each driver declares its options once, and reading, JSON Schema and reference page come from that.
//!
//! Reading reports every mistake with its place. What could be read is returned all the same, so that its reader finds the
//! mistakes in it too; who takes it must ask whether it is whole. It opens nothing: variables are expanded through a function
//! that the configuration passes in.

mod schema;
mod size;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use url::Url;
use vigie_engine::diagnostic::{Diagnostics, Span, nearest};
use vigie_engine::time::{format_duration, parse_duration};
use vigie_engine::yaml::Node;

use crate::pace::{MAX_SENDS, Rate};
use crate::secret::Secret;

pub use schema::json_schema;
use size::format_size;
pub use size::parse_size;

/// One option of a driver.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// Key in the YAML.
    pub name: &'static str,
    /// What it takes.
    pub kind: OptionKind,
    /// Whether it must be there.
    pub presence: Presence,
    /// One sentence for schema and reference.
    pub help: &'static str,
}

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionKind {
    /// Any text that is not empty.
    Text,
    /// Path of a file whose content counts, so that a change of it is a change of the configuration.
    File,
    /// Text that is never shown.
    Secret,
    /// An absolute URL with one of these schemes; never shown beyond its host.
    Url(&'static [&'static str]),
    /// The same for a URL that is asked on the way and is no destination itself.
    Via(&'static [&'static str]),
    /// One such URL or a list of them.
    Urls(&'static [&'static str]),
    /// A whole number within these bounds, both included.
    Integer(u64, u64),
    /// `true` or `false`.
    Flag,
    /// A duration with a unit, within these bounds in milliseconds, both included.
    Duration(u64, u64),
    /// A duration as in `Duration`, with or without the word `every` before it.
    Every(u64, u64),
    /// A size with a unit (`10MiB`), within these bounds in bytes, both included.
    Size(u64, u64),
    /// So many in so much time (`30/m`).
    Rate,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// One text or a list of texts.
    Texts,
    /// One secret or a list of secrets.
    Secrets,
    /// A map from text to secret text.
    Map,
}

/// Whether an option must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It must.
    Required,
    /// It may be missing.
    Optional,
    /// Missing means this text.
    Default(&'static str),
}

/// Puts `${VAR}` and `${file:path}` in.
pub type Expand<'a> = &'a dyn Fn(&str) -> Result<String, Unexpanded>;

/// Why variables could not be put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unexpanded {
    /// The rest of a sentence that begins with the option; names what is missing, never a value.
    pub message: String,
    /// How to mend it.
    pub hint: &'static str,
}

#[derive(Clone)]
enum Value {
    Text(String),
    File(String),
    Secret(Secret),
    Urls(Vec<Url>),
    Via(Url),
    Integer(u64),
    Flag(bool),
    Duration(Duration),
    Rate(Rate),
    Texts(Vec<String>),
    Secrets(Vec<Secret>),
    Map(Vec<(String, Secret)>),
}

/// Values of a driver's options, all of the kinds that its table says.
#[derive(Clone)]
pub struct Options {
    span: Span,
    values: BTreeMap<&'static str, (Value, Span)>,
    /// Of the table, written or not.
    known: BTreeSet<&'static str>,
    /// Written, and not usable: what depends on them cannot be judged.
    refused: BTreeSet<&'static str>,
    is_whole: bool,
}

/// Reads the map under a driver's key. `what` names it in messages (`sink "chat" (slack)`). `None` when it is no map; else
/// what could be read of it, see [`Options::is_whole`].
pub fn read(
    node: &Node,
    what: &str,
    specs: &[OptionSpec],
    expand: Expand<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Options> {
    let entries = match node.entries() {
        Some(entries) => entries,
        None if node.is_null() => &[],
        None => {
            let hint = Some(format!("write options as `{}`", example(specs)));
            diagnostics.error("E0401", &node.span, format!("{what} takes a map, not {}", node.describe()), hint);
            return None;
        }
    };
    let mut options = Options {
        span: node.span.clone(),
        values: BTreeMap::new(),
        known: specs.iter().map(|spec| spec.name).collect(),
        refused: BTreeSet::new(),
        is_whole: true,
    };
    for (key, value) in entries {
        let Some(spec) = specs.iter().find(|spec| spec.name == key.text) else {
            diagnostics.error(
                "E0402",
                &key.span,
                format!("{what} has no option `{}`", key.text),
                Some(suggestion(&key.text, specs.iter().map(|spec| spec.name))),
            );
            options.is_whole = false;
            continue;
        };
        match parse(value, spec, expand) {
            Ok(parsed) => {
                options.values.insert(spec.name, (parsed, value.span.clone()));
            }
            Err((message, hint)) => {
                diagnostics.error("E0403", &value.span, format!("{what}: `{}` {message}", spec.name), hint);
                options.refused.insert(spec.name);
                options.is_whole = false;
            }
        }
    }
    options.is_whole &= fill(&mut options, what, specs, diagnostics, entries);
    Some(options)
}

/// `did you mean ...` or the list of what there is.
pub fn suggestion<'a>(given: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(given, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

fn fill(
    options: &mut Options,
    what: &str,
    specs: &[OptionSpec],
    diagnostics: &mut Diagnostics,
    entries: &[(vigie_engine::yaml::Key, Node)],
) -> bool {
    let mut complete = true;
    for spec in specs {
        if entries.iter().any(|(key, _)| key.text == spec.name) {
            continue;
        }
        match spec.presence {
            Presence::Optional => {}
            Presence::Required => {
                let hint = Some(spec.help.to_owned());
                diagnostics.error("E0404", &options.span, format!("{what} needs `{}`", spec.name), hint);
                complete = false;
            }
            Presence::Default(text) => match parse_text(text, spec) {
                Ok(value) => {
                    options.values.insert(spec.name, (value, options.span.clone()));
                }
                Err((message, hint)) => {
                    let text = format!("{what}: default of `{}` {message}", spec.name);
                    diagnostics.error("E0403", &options.span, text, hint);
                    complete = false;
                }
            },
        }
    }
    complete
}

type Refusal = (String, Option<String>);

fn parse(node: &Node, spec: &OptionSpec, expand: Expand<'_>) -> Result<Value, Refusal> {
    match spec.kind {
        OptionKind::Texts => Ok(Value::Texts(texts(node, expand)?)),
        OptionKind::Secrets => Ok(Value::Secrets(texts(node, expand)?.into_iter().map(Secret::new).collect())),
        OptionKind::Urls(schemes) => {
            let urls = texts(node, expand)?.into_iter().map(|text| parse_url(&text, schemes));
            Ok(Value::Urls(urls.collect::<Result<_, Refusal>>()?))
        }
        OptionKind::Map => {
            let entries = node.entries().ok_or_else(|| {
                let hint = "write it as `{name: value}`".to_owned();
                (format!("takes a map, not {}", node.describe()), Some(hint))
            })?;
            let pairs = entries.iter().map(|(key, value)| Ok((key.text.clone(), Secret::new(text(value, expand)?))));
            Ok(Value::Map(pairs.collect::<Result<_, Refusal>>()?))
        }
        _ => parse_text(&text(node, expand)?, spec),
    }
}

fn texts(node: &Node, expand: Expand<'_>) -> Result<Vec<String>, Refusal> {
    let hint = || Some("name at least one, or remove the option; look at the variable that fills it".to_owned());
    let texts: Vec<String> = match node.items() {
        Some([]) => return Err(("is an empty list".into(), hint())),
        Some(items) => items.iter().map(|item| text(item, expand)).collect::<Result<_, _>>()?,
        None => vec![text(node, expand)?],
    };
    // A variable that is set to nothing is a mistake, not a recipient or a key.
    match texts.iter().position(|text| text.trim().is_empty()) {
        Some(_) if texts.len() == 1 => Err(("is empty".into(), hint())),
        Some(index) => Err((format!("is empty at item {}", index + 1), hint())),
        None => Ok(texts),
    }
}

fn text(node: &Node, expand: Expand<'_>) -> Result<String, Refusal> {
    let hint = "write one value; quote it if it begins with `{` or `[`".to_owned();
    let written = node.text().ok_or_else(|| (format!("takes text, not {}", node.describe()), Some(hint)))?;
    expand(written).map_err(|refusal| (refusal.message, Some(refusal.hint.to_owned())))
}

fn parse_text(text: &str, spec: &OptionSpec) -> Result<Value, Refusal> {
    let refuse = |message: String, hint: &str| Err((message, Some(hint.to_owned())));
    match spec.kind {
        _ if text.trim().is_empty() => refuse("is empty".into(), spec.help),
        OptionKind::Text => Ok(Value::Text(text.to_owned())),
        OptionKind::File => Ok(Value::File(text.to_owned())),
        OptionKind::Secret => Ok(Value::Secret(Secret::new(text))),
        OptionKind::Via(schemes) => parse_url(text, schemes).map(Value::Via),
        OptionKind::Url(schemes) | OptionKind::Urls(schemes) => Ok(Value::Urls(vec![parse_url(text, schemes)?])),
        OptionKind::Integer(least, most) => match text.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(Value::Integer(number)),
            _ => refuse(format!("takes a whole number from {least} to {most}, not `{text}`"), spec.help),
        },
        OptionKind::Flag => match text {
            "true" => Ok(Value::Flag(true)),
            "false" => Ok(Value::Flag(false)),
            _ => refuse(format!("takes true or false, not `{text}`"), spec.help),
        },
        OptionKind::Duration(least_ms, most_ms) | OptionKind::Every(least_ms, most_ms) => {
            let every = text.trim().strip_prefix("every ").filter(|_| matches!(spec.kind, OptionKind::Every(..)));
            let duration = parse_duration(every.unwrap_or(text))
                .map_err(|message| (message, Some("durations carry units: 500ms, 15s, 5m, 6h, 7d".to_owned())))?;
            let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            if !(least_ms..=most_ms).contains(&ms) {
                let bounds = [least_ms, most_ms].map(|ms| format_duration(Duration::from_millis(ms)));
                return refuse(format!("must lie between {} and {}, not `{text}`", bounds[0], bounds[1]), spec.help);
            }
            Ok(Value::Duration(duration))
        }
        OptionKind::Size(least, most) => match parse_size(text) {
            Some(bytes) if (least..=most).contains(&bytes) => Ok(Value::Integer(bytes)),
            Some(_) => {
                let [least, most] = [least, most].map(format_size);
                refuse(format!("must lie between {least} and {most}, not `{text}`"), spec.help)
            }
            None => refuse(format!("`{text}` is not a size"), "sizes carry units: 512B, 64KiB, 10MiB, 1GiB"),
        },
        OptionKind::Rate => match Rate::parse(text) {
            Some(rate) => Ok(Value::Rate(rate)),
            None => refuse(format!("takes 1 to {MAX_SENDS} in a unit of time, not `{text}`"), RATE_HINT),
        },
        OptionKind::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
        OptionKind::Choice(words) => Err((
            format!("takes one of {}, not `{text}`", words.join(", ")),
            Some(suggestion(text, words.iter().copied())),
        )),
        OptionKind::Texts => Ok(Value::Texts(vec![text.to_owned()])),
        OptionKind::Secrets => Ok(Value::Secrets(vec![Secret::new(text)])),
        OptionKind::Map => refuse("has no text form".into(), spec.help),
    }
}

const RATE_HINT: &str = "rates carry a unit: 1/s, 30/m, 100/h, 500/d";

/// The text may be a secret, so a refusal never repeats it.
fn parse_url(text: &str, schemes: &'static [&'static str]) -> Result<Url, Refusal> {
    let hint = Some(format!("an absolute URL that starts with {}://", schemes.join(":// or ")));
    let url = Url::parse(text).map_err(|error| (format!("is not a URL ({error})"), hint.clone()))?;
    if !schemes.contains(&url.scheme()) {
        return Err((format!("has the scheme `{}`", url.scheme()), hint));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(("has no host".into(), hint));
    }
    Ok(url)
}

fn example(specs: &[OptionSpec]) -> String {
    let required: Vec<_> = specs.iter().filter(|spec| spec.presence == Presence::Required).collect();
    let shown = if required.is_empty() { specs.iter().take(1).collect() } else { required };
    format!("{{{}}}", shown.iter().map(|spec| format!("{}: ...", spec.name)).collect::<Vec<_>>().join(", "))
}

/// Names only: a value may be a secret, and a whole URL is one.
impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given: Vec<&str> = self.values.keys().copied().collect();
        let mut shown = formatter.debug_struct("Options");
        shown.field("given", &given).field("refused", &self.refused).finish_non_exhaustive()
    }
}

impl Options {
    /// Nothing was wrong with it. Otherwise something was reported, and nothing that is built from it may be used.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether an option was written and cannot be used, which was reported: it is not the same as a missing one.
    #[must_use]
    pub fn is_refused(&self, name: &str) -> bool {
        self.refused.contains(name)
    }

    /// Whether the driver has such an option at all.
    #[must_use]
    pub fn is_known(&self, name: &str) -> bool {
        self.known.contains(name)
    }

    /// Whether an option was written, usable or not, or has a default.
    #[must_use]
    pub fn is_given(&self, name: &str) -> bool {
        self.values.contains_key(name) || self.is_refused(name)
    }

    /// The files whose content counts.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.values.values().filter_map(|(value, _)| match value {
            Value::File(path) => Some(path.as_str()),
            _ => None,
        })
    }

    /// Where the driver's map stands.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Where an option's value stands; the map when it was not written.
    #[must_use]
    pub fn span_of(&self, name: &str) -> &Span {
        self.values.get(name).map_or(&self.span, |(_, span)| span)
    }

    /// A `Text`, `File` or `Choice`.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name) {
            Some((Value::Text(text) | Value::File(text), _)) => Some(text),
            _ => None,
        }
    }

    /// A `Secret`.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        match self.values.get(name) {
            Some((Value::Secret(secret), _)) => Some(secret),
            _ => None,
        }
    }

    /// A `Url` or `Via`.
    #[must_use]
    pub fn url(&self, name: &str) -> Option<&Url> {
        self.urls(name).first()
    }

    /// `Urls`; empty when missing.
    #[must_use]
    pub fn urls(&self, name: &str) -> &[Url] {
        match self.values.get(name) {
            Some((Value::Urls(urls), _)) => urls,
            Some((Value::Via(url), _)) => std::slice::from_ref(url),
            _ => &[],
        }
    }

    /// An `Integer`, or a `Size` in bytes.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<u64> {
        match self.values.get(name) {
            Some((Value::Integer(number), _)) => Some(*number),
            _ => None,
        }
    }

    /// A `Flag`; false when it is missing. One that cannot be read allows what it may have been meant to allow, so that what
    /// it is needed for is no second mistake.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.values.get(name), Some((Value::Flag(true), _))) || self.is_refused(name)
    }

    /// A `Duration`.
    #[must_use]
    pub fn duration(&self, name: &str) -> Option<Duration> {
        match self.values.get(name) {
            Some((Value::Duration(duration), _)) => Some(*duration),
            _ => None,
        }
    }

    /// A `Rate`.
    #[must_use]
    pub fn rate(&self, name: &str) -> Option<Rate> {
        match self.values.get(name) {
            Some((Value::Rate(rate), _)) => Some(*rate),
            _ => None,
        }
    }

    /// What all the URLs among the options come to, as a digest: drivers with the same one reach the same destination.
    /// `None` when there is no URL.
    #[must_use]
    pub fn destination(&self) -> Option<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        let urls =
            self.values.values().filter_map(|(value, _)| if let Value::Urls(urls) = value { Some(urls) } else { None });
        for url in urls.flatten() {
            hasher.update(&(url.as_str().len() as u64).to_le_bytes());
            hasher.update(url.as_str().as_bytes());
        }
        (hasher.count() > 0).then(|| *hasher.finalize().as_bytes())
    }

    /// `Texts`; empty when missing.
    #[must_use]
    pub fn texts(&self, name: &str) -> &[String] {
        match self.values.get(name) {
            Some((Value::Texts(texts), _)) => texts,
            _ => &[],
        }
    }

    /// `Secrets`; empty when missing.
    #[must_use]
    pub fn secrets(&self, name: &str) -> &[Secret] {
        match self.values.get(name) {
            Some((Value::Secrets(secrets), _)) => secrets,
            _ => &[],
        }
    }

    /// A `Map`; empty when missing.
    #[must_use]
    pub fn map(&self, name: &str) -> &[(String, Secret)] {
        match self.values.get(name) {
            Some((Value::Map(pairs), _)) => pairs,
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use vigie_engine::diagnostic::SourceFile;

    use super::*;

    const SPECS: &[OptionSpec] = &[
        spec("text", OptionKind::Text, Presence::Required),
        spec("file", OptionKind::File, Presence::Optional),
        spec("secret", OptionKind::Secret, Presence::Optional),
        spec("url", OptionKind::Url(&["https", "http"]), Presence::Optional),
        spec("via", OptionKind::Via(&["https", "http"]), Presence::Optional),
        spec("urls", OptionKind::Urls(&["https", "http"]), Presence::Optional),
        spec("integer", OptionKind::Integer(1, 10), Presence::Default("5")),
        spec("flag", OptionKind::Flag, Presence::Default("true")),
        spec("duration", OptionKind::Duration(1_000, 60_000), Presence::Default("15s")),
        spec("every", OptionKind::Every(1_000, 60_000), Presence::Optional),
        spec("size", OptionKind::Size(1_024, 1 << 20), Presence::Default("64KiB")),
        spec("rate", OptionKind::Rate, Presence::Default("1/s")),
        spec("choice", OptionKind::Choice(&["text", "json"]), Presence::Default("text")),
        spec("texts", OptionKind::Texts, Presence::Optional),
        spec("secrets", OptionKind::Secrets, Presence::Optional),
        spec("map", OptionKind::Map, Presence::Optional),
    ];

    const fn spec(name: &'static str, kind: OptionKind, presence: Presence) -> OptionSpec {
        OptionSpec { name, kind, presence, help: "what it is for" }
    }

    /// Options, and each finding as `line:column code message`.
    fn read_yaml(yaml: &str) -> (Option<Options>, Vec<String>) {
        let file = SourceFile { path: "vigie.yaml".into(), text: yaml.into() };
        let mut diagnostics = Diagnostics::default();
        let node = vigie_engine::yaml::parse(&file, &mut diagnostics).expect("YAML");
        let expand = |text: &str| match text {
            "${SET}" => Ok("canary".to_owned()),
            "${EMPTY}" => Ok(String::new()),
            "${UNSET}" => Err(Unexpanded { message: "variable UNSET is not set".into(), hint: "set it" }),
            text => Ok(text.to_owned()),
        };
        let options = read(&node, "sink `x`", SPECS, &expand, &mut diagnostics);
        let shown = diagnostics.sorted().into_iter().map(|finding| {
            format!("{}:{} {} {}", finding.span.line, finding.span.column, finding.code, finding.message)
        });
        (options.filter(Options::is_whole), shown.collect())
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let yaml = "text: 0123\nsecret: ${SET}\nurl: https://h.example/canary\nurls: [http://a.example, http://b.example]\ninteger: 10\nflag: false\n\
                    duration: 1m\nevery: every 2s\nsize: 1MiB\nrate: 30/m\nchoice: json\ntexts: [a, NO]\nsecrets: one\nmap: {X-A: \"${SET}\"}\n\
                    via: http://p.example\nfile: a/b\n";
        let (options, findings) = read_yaml(yaml);
        let options = options.expect("no mistake");
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!(options.text("text"), Some("0123"));
        assert_eq!(options.secret("secret").map(Secret::expose), Some("canary"));
        assert_eq!(options.url("url").and_then(Url::host_str), Some("h.example"));
        let hosts: Vec<_> = options.urls("urls").iter().filter_map(Url::host_str).collect();
        assert_eq!(hosts, ["a.example", "b.example"]);
        assert_eq!((options.integer("integer"), options.integer("size")), (Some(10), Some(1 << 20)));
        assert_eq!((options.flag("flag"), options.text("choice")), (false, Some("json")));
        assert_eq!(options.duration("duration"), Some(Duration::from_secs(60)));
        assert_eq!(options.duration("every"), Some(Duration::from_secs(2)));
        assert_eq!(options.rate("rate"), Rate::parse("30/m"));
        assert_eq!(options.texts("texts"), ["a", "NO"]);
        assert_eq!(options.secrets("secrets").iter().map(Secret::expose).collect::<Vec<_>>(), ["one"]);
        assert_eq!(options.map("map")[0].0, "X-A");
        assert_eq!(options.url("via").and_then(Url::host_str), Some("p.example"));
        assert_eq!((options.text("file"), options.files().collect::<Vec<_>>()), (Some("a/b"), vec!["a/b"]));
        assert_eq!((options.span_of("flag").line, options.span().line), (6, 1));
        let shown = format!("{options:?}");
        assert!(shown.contains("\"url\"") && !shown.contains("canary"), "{shown}");
    }

    #[test]
    fn what_is_missing_takes_its_default() {
        let options = read_yaml("text: a").0.expect("no mistake");
        assert_eq!((options.integer("integer"), options.flag("flag")), (Some(5), true));
        assert_eq!(options.duration("duration"), Some(Duration::from_secs(15)));
        assert_eq!(options.rate("rate"), Rate::parse("1/s"));
        assert_eq!((options.integer("size"), options.text("choice")), (Some(65_536), Some("text")));
        assert!(
            options.secret("secret").is_none() && options.texts("texts").is_empty() && options.map("map").is_empty()
        );
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let yaml = "txt: a\nsecret: ${UNSET}\nurl: ftp://h/canary\ninteger: 11\nflag: yes\nduration: 15\nsize: 10\n\
                    choice: jsn\ntexts: [a, \"\"]\nsecrets: ${EMPTY}\nmap: [a]\nrate: 1/week\n";
        let (options, findings) = read_yaml(yaml);
        assert!(options.is_none());
        let expected = [
            "1:1 E0402 sink `x` has no option `txt`",
            "1:1 E0404 sink `x` needs `text`",
            "2:9 E0403 sink `x`: `secret` variable UNSET is not set",
            "3:6 E0403 sink `x`: `url` has the scheme `ftp`",
            "4:10 E0403 sink `x`: `integer` takes a whole number from 1 to 10, not `11`",
            "5:7 E0403 sink `x`: `flag` takes true or false, not `yes`",
            "6:11 E0403 sink `x`: `duration` `15` has no unit",
            "7:7 E0403 sink `x`: `size` `10` is not a size",
            "8:9 E0403 sink `x`: `choice` takes one of text, json, not `jsn`",
            "9:8 E0403 sink `x`: `texts` is empty at item 2",
            "10:10 E0403 sink `x`: `secrets` is empty",
            "11:6 E0403 sink `x`: `map` takes a map, not a list",
            "12:7 E0403 sink `x`: `rate` takes 1 to 1000 in a unit of time, not `1/week`",
        ];
        let mut sorted = findings.clone();
        sorted.sort_by_key(|line| line.split(':').next().and_then(|line| line.parse::<u32>().ok()));
        assert_eq!(sorted, expected);
    }

    #[test]
    fn what_could_be_read_is_there_beside_what_could_not() {
        let file =
            SourceFile { path: "vigie.yaml".into(), text: "text: a\nflag: maybe\nbogus: 1\ninteger: x\n".into() };
        let mut diagnostics = Diagnostics::default();
        let node = vigie_engine::yaml::parse(&file, &mut diagnostics).expect("YAML");
        let options = read(&node, "x", SPECS, &|text| Ok(text.to_owned()), &mut diagnostics).expect("a map");
        assert!(!options.is_whole() && diagnostics.count() == 3);
        assert_eq!((options.text("text"), options.integer("integer"), options.flag("flag")), (Some("a"), None, true));
        assert!(options.is_refused("integer") && !options.is_refused("secret") && !options.is_refused("text"));
        let names = ["integer", "text", "rate", "secret", "bogus"];
        assert_eq!(names.map(|name| options.is_given(name)), [true, true, true, false, false]);
        assert_eq!(names.map(|name| options.is_known(name)), [true, true, true, true, false]);
    }

    #[test]
    fn no_refusal_repeats_what_may_be_secret() {
        for yaml in [
            "text: a\nurl: canary",
            "text: a\nurls: [http://a.example, canary]",
            "text: a\nurl: https://:80/canary",
            "text: a\nsecret: [canary]",
            "text: ${EMPTY}",
        ] {
            let (options, findings) = read_yaml(yaml);
            assert!(options.is_none() && findings.len() == 1, "{yaml}: {findings:?}");
            assert!(!findings[0].contains("canary"), "{findings:?}");
        }
        let (options, findings) = read_yaml("- a");
        assert!(options.is_none());
        assert_eq!(findings, ["1:1 E0401 sink `x` takes a map, not a list"]);
    }

    #[test]
    fn a_destination_is_its_url_and_nothing_else() {
        let of = |yaml: &str| read_yaml(yaml).0.expect("no mistake").destination();
        let one = of("text: a\nurl: https://h.example/canary");
        assert!(one.is_some());
        assert_eq!(one, of("text: b\nurl: https://H.example:443/canary\nrate: 2/s\nvia: http://p.example"));
        assert_ne!(one, of("text: a\nurl: https://h.example/other"));
        assert_ne!(of("text: a\nurls: [http://a, http://b]"), of("text: a\nurls: [http://a]"));
        assert_eq!(of("text: a"), None);
    }

    #[test]
    fn the_schema_says_the_same_as_the_table() {
        let schema = json_schema(SPECS);
        assert_eq!(schema["required"], serde_json::json!(["text"]));
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["integer"]["default"], 5);
        assert_eq!(schema["properties"]["flag"]["default"], true);
        assert_eq!(schema["properties"]["duration"]["default"], "15s");
        assert_eq!(schema["properties"].as_object().map(serde_json::Map::len), Some(SPECS.len()));
    }

    #[test]
    fn sizes_need_units() {
        let cases = [("512B", 512), (" 64 KiB ", 65_536), ("10MB", 10_000_000), ("1GiB", 1 << 30), ("2kB", 2_000)];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "10", "B", "1.5MB", "-1B", "1TB", "99999999999999999999B", "18446744073709551615KiB", "1é"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
