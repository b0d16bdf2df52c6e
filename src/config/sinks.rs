//! From `sinks: {NAME: {KIND: {...}}}` to what can be sent to: the driver, its pace, and what it wants to hear.
//!
//! Without any, alerts go to standard output. It opens nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use vigie_engine::diagnostic::{Diagnostics, Span};
use vigie_engine::yaml::{Key, Kind, Node};

use super::variables::Variables;
use super::{check_name, one_kind};
use crate::options;
use crate::pace::{Bucket, Pace};
use crate::pipeline::deliver::Storm;
use crate::sink::bound::Bound;
use crate::sink::http::{CA_FILE, CERTIFICATE_FILE, KEY_FILE};
use crate::sink::{self, Sink};

/// A sink by its name.
pub struct NamedSink {
    /// The identity.
    pub name: String,
    /// Ready to send.
    pub sink: Arc<dyn Sink>,
    /// How fast, where its options set a limit.
    pub pace: Option<Pace>,
    /// What it wants to hear of an alert that it got.
    pub follow: Option<sink::update::Follow>,
    /// When its alerts fold into a digest.
    pub storm: Option<Storm>,
    /// What its destination takes at most, with the figures that its options set.
    pub bounds: Vec<(&'static Bound, usize)>,
}

/// Sinks with the same URL reach the same destination, and a limit is the destination's: they share its bucket.
#[derive(Default)]
pub(super) struct Buckets(BTreeMap<[u8; 32], Arc<Bucket>>);

impl Buckets {
    fn pace(&mut self, options: &options::Options) -> Option<Pace> {
        let (rate, burst) = sink::limit(options)?;
        let bucket = match options.destination() {
            Some(destination) => Arc::clone(self.0.entry(destination).or_default()),
            None => Arc::default(),
        };
        Some(Pace::new(rate, burst, bucket))
    }
}

pub(super) fn build_sink(
    key: &Key,
    node: &Node,
    variables: &Variables<'_>,
    context: &sink::BuildContext,
    buckets: &mut Buckets,
    diagnostics: &mut Diagnostics,
) -> Option<NamedSink> {
    let named = check_name(key, "sink", diagnostics);
    let kinds: Vec<&'static str> = sink::KINDS.iter().map(|kind| kind.kind).collect();
    let (kind, node) = one_kind(key, node, "sink", &kinds, diagnostics)?;
    let driver = sink::KINDS.iter().find(|driver| driver.kind == kind)?;
    let what = format!("sink `{}` ({kind})", key.text);
    let options = variables.read(node, &what, &driver.specs(), diagnostics)?;
    let sink = (driver.build)(&options, &key.text, context, diagnostics).filter(|_| options.is_whole())?;
    warn_of_what_does_nothing(&key.text, &driver.specs(), &options, diagnostics);
    let (pace, follow) = (buckets.pace(&options), sink::update::Follow::of(&options));
    let storm = Storm::of(&options);
    let bounds = driver.bounds.iter().filter_map(|bound| Some((bound, bound.figure(&options)?))).collect();
    named.then(|| NamedSink { name: key.text.clone(), sink: Arc::from(sink), pace, follow, storm, bounds })
}

/// Options that are good by themselves and have no effect beside the others.
fn warn_of_what_does_nothing(
    name: &str,
    specs: &[options::OptionSpec],
    options: &options::Options,
    diagnostics: &mut Diagnostics,
) {
    // A default stands where the map does.
    let is_written = options.span_of(sink::BURST) != options.span();
    if is_written && !options.is_given(sink::RATE) {
        let message = format!("sink `{name}`: `burst` has no meaning without `rate`");
        let hint = "set `rate`, such as 30/m, or remove it";
        diagnostics.warning("W0426", options.span_of(sink::BURST), message, Some(hint.into()));
    }
    // Of a destination, a proxy and a server of tokens; what speaks no HTTP says so itself.
    let mut ways = specs.iter().flat_map(|spec| options.urls(spec.name));
    if ways.all(|url| url.scheme() == "http") {
        for file in
            [CA_FILE.name, CERTIFICATE_FILE.name, KEY_FILE.name].into_iter().filter(|file| options.is_given(file))
        {
            let message = format!("sink `{name}`: `{file}` has a meaning with https:// only");
            let hint = "write the URL as https://host";
            diagnostics.warning("W0422", options.span_of(file), message, Some(hint.into()));
        }
    }
}

/// No sinks configured: stdout, in the form for people.
pub(super) fn default_sink(
    anchor: &Span,
    context: &sink::BuildContext,
    diagnostics: &mut Diagnostics,
) -> Option<NamedSink> {
    let key = Key { text: "stdout".into(), span: anchor.clone() };
    let empty = || Node { span: anchor.clone(), kind: Kind::Map(Vec::new()) };
    let node = Node { kind: Kind::Map(vec![(key.clone(), empty())]), ..empty() };
    build_sink(&key, &node, &Variables::new(&|_| None), context, &mut Buckets::default(), diagnostics)
}
