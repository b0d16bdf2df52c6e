//! The configuration: YAML text in, a validated meaning or all of its mistakes out.
//!
//! Everything is parsed and built before any socket opens, and one bad part stops the start. This is the only module that
//! reads the environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vigie_engine::diagnostic::{Diagnostics, SourceFile, Span};
use vigie_engine::mute::{self, Inhibition};
use vigie_engine::route::{self, Route};
use vigie_engine::rule::Rule;
use vigie_engine::yaml::{Key, Kind, Node, Scalar};

use crate::geo::Lookup;
use crate::options::{self, OptionKind, OptionSpec, Presence, suggestion};
use crate::pipeline::heartbeat::Beat;
use crate::sink;
use crate::source::located::Located;
use crate::source::{self, Source};

mod files;
mod geo;
mod heartbeat;
mod mask;
pub mod reference;
mod rules;
pub mod schema;
mod sections;
mod sinks;
pub mod variables;

pub use files::{Directory, Watched, read_files};
pub use geo::{GEO_FIELDS_HELP, GEO_OPTIONS};
pub use heartbeat::HEARTBEAT_OPTIONS;
pub use rules::BUILTIN_PATH;
pub(crate) use sections::Sections;
pub use sinks::NamedSink;
use sinks::{Buckets, build_sink, default_sink};
use variables::Variables;

/// Options of `state:`.
pub const STATE_OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "dir",
        kind: OptionKind::Text,
        presence: Presence::Default("./state"),
        help: "directory of the store, relative to the working directory; one process at a time",
    },
    OptionSpec {
        name: "retention",
        kind: OptionKind::Duration(8 * 86_400_000, 3650 * 86_400_000),
        presence: Presence::Default("30d"),
        help: "how long events, alerts and delivered deliveries are kept (at least 8d, the longest look-back)",
    },
];

/// Options of `server:`.
pub const SERVER_OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: "listen",
    kind: OptionKind::Text,
    presence: Presence::Default("127.0.0.1:8787"),
    help: "loopback address and port of /healthz, /readyz and /metrics",
}];

/// Top-level keys.
pub const TOP_LEVEL: &[&str] =
    &["sources", "rules", "sinks", "routes", "inhibit", "geo", "heartbeat", "state", "server"];

/// A configuration as meant.
pub struct Config {
    /// Named sources, ready to fetch.
    pub sources: Vec<NamedSource>,
    /// The user's rules and the built-in ones.
    pub rules: Vec<Rule>,
    /// Named sinks, ready to send.
    pub sinks: Vec<NamedSink>,
    /// In order.
    pub routes: Vec<Route>,
    /// Which alerts hold down which.
    pub inhibitions: Vec<Inhibition>,
    /// Address databases, for events that do not come from one of `sources` (theirs are located already).
    pub geo: Option<Arc<Lookup>>,
    /// Where the store lives.
    pub state_dir: PathBuf,
    /// Where it beats while all is well.
    pub heartbeat: Option<Beat>,
    /// How long things are kept.
    pub retention: Duration,
    /// Where the console listens, if the configuration asks for it.
    pub listen: Option<SocketAddr>,
    /// What was read, for watching.
    pub watched: Watched,
}

/// A source by its name.
pub struct NamedSource {
    /// The identity.
    pub name: String,
    /// Kind, such as `vonage_audit`.
    pub kind: &'static str,
    /// Ready to fetch.
    pub source: Box<dyn Source>,
    /// The account's client, for the verbs that ask the API directly.
    pub account: Option<source::vonage::account::Account>,
    /// It reads stdin, which cannot be opened a second time.
    pub reads_stdin: bool,
    /// Where its name stands.
    pub span: Span,
}

impl NamedSource {
    /// Its events come with their place from now on.
    fn located(self, lookup: &Arc<Lookup>) -> Self {
        Self { source: Box::new(Located::new(self.source, lookup.clone())), ..self }
    }
}

/// What building drivers may use.
pub struct Surroundings<'a> {
    /// Environment variables.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// What sinks may use.
    pub sinks: sink::BuildContext,
    /// What sources may use.
    pub sources: source::BuildContext,
}

/// The environment of this process.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn process_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Loads everything that the paths name. `None` when there was an error; the findings say which.
#[must_use]
pub fn load(paths: &[PathBuf], surroundings: &Surroundings<'_>) -> (Option<Config>, Diagnostics) {
    let (loaded, diagnostics) = load_or_named(paths, surroundings);
    (loaded.ok(), diagnostics)
}

/// The same, but what does not load gives what it named: once that changes it is worth another try.
pub fn load_or_named(paths: &[PathBuf], surroundings: &Surroundings<'_>) -> (Result<Config, Watched>, Diagnostics) {
    let mut diagnostics = Diagnostics::default();
    let files = read_files(paths, &mut diagnostics);
    let mut config = load_files(&files, surroundings, &mut diagnostics);
    if let Some(config) = &mut config {
        let directories = paths.iter().filter(|path| path.is_dir());
        config.watched.directories.extend(directories.map(|path| Directory::of_configuration(path)));
    }
    let loaded = match config {
        Some(config) if diagnostics.has_errors() => Err(config.watched),
        Some(config) => Ok(config),
        None => Err(Watched::default()),
    };
    (loaded, diagnostics)
}

/// Loads configuration files that were read already.
pub fn load_files(
    files: &[SourceFile],
    surroundings: &Surroundings<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Config> {
    let sections = Sections::collect(files, diagnostics)?;
    let variables = Variables::new(surroundings.variable);
    let expand = |text: &str| variables.expand(text);
    let loaded = rules::load(&sections, diagnostics);
    let sources = sections
        .named("sources")
        .into_iter()
        .filter_map(|(key, node)| build_source(key, node, &variables, &surroundings.sources, diagnostics));
    let mut sources: Vec<NamedSource> = sources.collect();
    let lookup = geo::load(&sections, &loaded.rules, &expand, diagnostics);
    if let Some(lookup) = &lookup {
        sources = sources.into_iter().map(|named| named.located(lookup)).collect();
    }
    let mut sinks: Vec<NamedSink> = Vec::new();
    let mut buckets = Buckets::default();
    for (key, node) in sections.named("sinks") {
        sinks.extend(build_sink(key, node, &variables, &surroundings.sinks, &mut buckets, diagnostics));
    }
    let no_sinks = sections.get("sinks").is_none();
    if no_sinks {
        sinks.extend(default_sink(&sections.anchor, &surroundings.sinks, diagnostics));
    }
    let routes = routes(&sections, &loaded.lists, no_sinks, diagnostics);
    let inhibitions: Vec<Inhibition> =
        sections.all("inhibit").iter().flat_map(|node| mute::load(node, &loaded.lists, diagnostics)).collect();
    let heartbeat = heartbeat::read(&sections, &variables, &surroundings.sinks, diagnostics);
    // A list may seem unused only because what uses it did not load.
    if !diagnostics.has_errors() {
        loaded.lists.report_unused(diagnostics);
    }
    let state = read_section(&sections, "state", STATE_OPTIONS, &expand, diagnostics);
    let server = read_section(&sections, "server", SERVER_OPTIONS, &expand, diagnostics);
    let listen = match sections.get("server") {
        Some(_) => server.as_ref().and_then(|options| listen_address(options, diagnostics)),
        None => None,
    };
    let state = state.filter(options::Options::is_whole)?;
    let mut watched = Watched {
        files: files.iter().map(|file| PathBuf::from(&*file.path)).collect(),
        directories: loaded.directories,
    };
    watched.files.extend(loaded.read);
    watched.files.extend(variables.into_files());
    Some(Config {
        sources,
        rules: loaded.rules,
        sinks,
        routes,
        inhibitions,
        geo: lookup,
        heartbeat,
        state_dir: PathBuf::from(state.text("dir").unwrap_or("./state")),
        retention: state.duration("retention").unwrap_or(Duration::from_secs(30 * 86_400)),
        listen,
        watched,
    })
}

/// Loads rule files without a configuration, their tests not yet run.
#[must_use]
pub fn load_rules(paths: &[PathBuf]) -> (Vec<Rule>, Diagnostics) {
    let mut diagnostics = Diagnostics::default();
    let rules = rules::load_paths(paths, &mut diagnostics);
    (rules, diagnostics)
}

fn read_section(
    sections: &Sections,
    name: &'static str,
    specs: &'static [OptionSpec],
    expand: options::Expand<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<options::Options> {
    sections.refuse_second(name, diagnostics);
    let empty = Node { span: sections.anchor.clone(), kind: Kind::Map(Vec::new()) };
    options::read(sections.get(name).unwrap_or(&empty), &format!("`{name}`"), specs, expand, diagnostics)
}

/// `name: {kind: {options}}`: exactly one key, the kind.
fn one_kind<'n>(
    key: &Key,
    node: &'n Node,
    what: &str,
    kinds: &[&'static str],
    diagnostics: &mut Diagnostics,
) -> Option<(&'static str, &'n Node)> {
    let shape = || Some(format!("write `{}: {{{}: {{...}}}}`", key.text, kinds.first().copied().unwrap_or_default()));
    let Some([(kind, options)]) = node.entries() else {
        let text = format!("{what} `{}` takes one driver, by its kind ({})", key.text, kinds.join(", "));
        diagnostics.error("E0415", &node.span, text, shape());
        return None;
    };
    let known = kinds.iter().find(|known| **known == kind.text);
    if known.is_none() {
        let text = format!("there is no {what} of the kind `{}`", kind.text);
        diagnostics.error("E0416", &kind.span, text, Some(suggestion(&kind.text, kinds.iter().copied())));
    }
    known.map(|known| (*known, options))
}

/// Names stand in metrics, ids and command lines.
fn check_name(key: &Key, what: &str, diagnostics: &mut Diagnostics) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = !key.text.is_empty() && key.text.len() <= 64 && key.text.chars().all(plain);
    let reserved = key.text == crate::pipeline::notice::SOURCE && what == "source";
    if !fits {
        let hint = "letters, digits, `-`, `_` and `.`, at most 64 of them";
        diagnostics.error("E0417", &key.span, format!("`{}` is no name for a {what}", key.text), Some(hint.into()));
    }
    if reserved {
        let hint = "it is the built-in source of the program's own events";
        diagnostics.error("E0417", &key.span, "the name `vigie` is taken", Some(hint.into()));
    }
    fits && !reserved
}

fn build_source(
    key: &Key,
    node: &Node,
    variables: &Variables<'_>,
    context: &source::BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<NamedSource> {
    let named = check_name(key, "source", diagnostics);
    let kinds: Vec<&'static str> = source::KINDS.iter().map(|kind| kind.kind).collect();
    let (kind, node) = one_kind(key, node, "source", &kinds, diagnostics)?;
    let driver = source::KINDS.iter().find(|driver| driver.kind == kind)?;
    let what = format!("source `{}` ({kind})", key.text);
    let options = variables.read(node, &what, driver.options, diagnostics)?;
    // Built from what could be read, too: what else is wrong with it is then told in the same run.
    let built = (driver.build)(&options, &key.text, context, diagnostics);
    let built = built.filter(|_| options.is_whole())?;
    let source::Built { source, account, reads_stdin } = built;
    named.then(|| NamedSource { name: key.text.clone(), kind, source, account, reads_stdin, span: key.span.clone() })
}

/// No routes configured: everything goes everywhere.
fn routes(
    sections: &Sections,
    lists: &vigie_engine::rule::Lists,
    no_sinks: bool,
    diagnostics: &mut Diagnostics,
) -> Vec<Route> {
    let names: Vec<String> = match no_sinks {
        true => vec!["stdout".into()],
        false => sections.named("sinks").into_iter().map(|(key, _)| key.text.clone()).collect(),
    };
    // Routes are tried in order, and two files have none.
    sections.refuse_second("routes", diagnostics);
    let everything = route_to_all(&sections.anchor, &names);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    route::load(sections.get("routes").unwrap_or(&everything), lists, &names, diagnostics)
}

/// `routes: [{to: [every sink]}]`.
fn route_to_all(anchor: &Span, names: &[String]) -> Node {
    let node = |kind| Node { span: anchor.clone(), kind };
    let name = |text: &String| node(Kind::Scalar(Scalar { text: text.clone(), quoted: true }));
    let to = node(Kind::List(names.iter().map(name).collect()));
    node(Kind::List(vec![node(Kind::Map(vec![(Key { text: "to".into(), span: anchor.clone() }, to)]))]))
}

/// Off loopback a token would be required; there is none yet, so loopback it is.
fn listen_address(options: &options::Options, diagnostics: &mut Diagnostics) -> Option<SocketAddr> {
    let text = options.text("listen")?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Some(address),
        Ok(_) => {
            let hint = "use 127.0.0.1 or [::1]; put a proxy with authentication in front to reach it from elsewhere";
            diagnostics.error(
                "E0418",
                options.span_of("listen"),
                format!("`{text}` is not loopback"),
                Some(hint.into()),
            );
            None
        }
        Err(_) => {
            let hint = Some("an address and a port, such as 127.0.0.1:8787".into());
            diagnostics.error("E0418", options.span_of("listen"), format!("`{text}` is no address"), hint);
            None
        }
    }
}

/// The directory that relative paths of a file refer to.
pub(crate) fn directory_of(path: &str) -> PathBuf {
    Path::new(path).parent().map(Path::to_path_buf).unwrap_or_default()
}
