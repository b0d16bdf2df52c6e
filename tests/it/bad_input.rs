//! Broken configurations and rules, as the user meets them: the real binary says what is wrong, where, and how to mend
//! it, ends with 78, and nothing was started.
//!
//! A case is one file of `tests/cases/bad`: sections that begin with `=== NAME`. `=== expect` is all of stderr, `=== env`
//! is the environment, every other section is a file of the working directory (`(latin-1)` behind the name writes it in
//! that encoding). What a case does not give it takes from `GOOD_CONFIG` and `GOOD_RULE`. `@PORT@` stands for a port on
//! loopback that the test holds: whoever connects to it is seen, and whoever tries to listen on it fails otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;

use crate::program::{PATIENCE, Place, text};

/// The least number of cases that must be there: a moved directory must not pass as an empty one.
const LEAST_CASES: usize = 40;
/// Longer than every message of the cases.
const MAX_SENTENCE_CHARS: usize = 600;
const GOOD_CONFIG: &str = "\
sources:
  main: {vonage_audit: {api_key: abcd1234, api_secret: canary-secret, base_url: 'http://127.0.0.1:@PORT@/beta/audit'}}
rules: [rules/]
server: {listen: '127.0.0.1:@PORT@'}
";
const GOOD_RULE: &str = "\
rules:
- id: app-created
  title: An application was created
  severity: low
  when: {event_type: APP_CREATE}
  tests: [{events: [{event_type: APP_CREATE}], expect: alert}]
";

struct Case {
    name: String,
    files: Vec<(String, Vec<u8>)>,
    environment: Vec<(String, String)>,
    expect: String,
}

impl Case {
    fn read(path: &Path) -> Self {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let whole = std::fs::read_to_string(path).expect("a readable case");
        let mut case = Self { name, files: Vec::new(), environment: Vec::new(), expect: String::new() };
        for section in format!("\n{whole}").split("\n=== ").skip(1) {
            let (title, body) = section.split_once('\n').unwrap_or((section, ""));
            // The line end before the next title was taken by the split; the last section has its own.
            let body = if body.is_empty() || body.ends_with('\n') { body.to_owned() } else { format!("{body}\n") };
            match title.split_once(' ') {
                None if title == "expect" => case.expect = body,
                None if title == "env" => {
                    let pairs = body.lines().filter_map(|line| line.split_once('='));
                    case.environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                }
                None => case.files.push((title.to_owned(), body.into_bytes())),
                Some((file, "(latin-1)")) => {
                    let bytes = body.chars().map(|character| u8::try_from(u32::from(character)).expect("latin-1"));
                    case.files.push((file.to_owned(), bytes.collect()));
                }
                Some(_) => assert!(title.is_empty(), "{}: no such section: {title}", case.name),
            }
        }
        if case.files.iter().all(|(file, _)| file != "vigie.yaml") {
            case.files.push(("vigie.yaml".into(), GOOD_CONFIG.into()));
        }
        if case.files.iter().all(|(file, _)| !file.starts_with("rules")) {
            case.files.push(("rules/a.yaml".into(), GOOD_RULE.into()));
        }
        case
    }

    fn lay_out(&self, place: &Place, port: u16) {
        for (name, content) in &self.files {
            let path = place.write(name, "");
            let with_port = match std::str::from_utf8(content) {
                Ok(text) => text.replace("@PORT@", &port.to_string()).into_bytes(),
                Err(_) => content.clone(),
            };
            std::fs::write(path, with_port).expect("a file");
        }
    }

    async fn run(&self, place: &Place, arguments: &[&str]) -> Output {
        let mut command = place.command(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        output.expect("it ends").expect("it starts")
    }

    /// All configuration files that the case has; most have one.
    fn arguments<'a>(&'a self, verb: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = verb.to_vec();
        let mut configs: Vec<&str> = self.files.iter().map(|(name, _)| name.as_str()).collect();
        configs.retain(|name| !name.contains('/') && name.ends_with(".yaml"));
        configs.sort_unstable();
        configs.iter().for_each(|name| arguments.extend(["-c", name]));
        arguments
    }
}

fn cases(directory: &str) -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(directory);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory).expect("cases").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| Case::read(path)).collect()
}

/// Everything below a directory.
fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).expect("entries").map(|entry| entry.expect("an entry").path()));
            found.insert(path, Vec::new());
        } else {
            let content = std::fs::read(&path).expect("a file");
            found.insert(path, content);
        }
    }
    found
}

/// What is wrong with one case; empty when all is as it should be.
async fn judge(case: &Case, listener: &TcpListener) -> Vec<String> {
    let place = Place::new();
    let port = listener.local_addr().expect("an address").port();
    case.lay_out(&place, port);
    let expect = case.expect.replace("@PORT@", &port.to_string());
    let before = tree(place.path());
    let check = case.run(&place, &case.arguments(&["check"])).await;
    let run = case.run(&place, &case.arguments(&["run"])).await;
    let json = case.run(&place, &case.arguments(&["check", "-o", "json"])).await;
    let mut wrong = Vec::new();
    for (verb, output) in [("check", &check), ("run", &run), ("check -o json", &json)] {
        if output.status.code() != Some(78) {
            wrong.push(format!("{verb} ends with {}", output.status));
        }
        if text(&output.stderr).contains("panicked") {
            wrong.push(format!("{verb} panics"));
        }
    }
    for (verb, output) in [("check", &check), ("run", &run)] {
        if text(&output.stderr) != expect {
            wrong.push(format!("{verb} says\n{}instead of\n{expect}", text(&output.stderr)));
        }
        if !output.stdout.is_empty() {
            wrong.push(format!("{verb} writes data: {}", text(&output.stdout)));
        }
    }
    wrong.extend(judge_json(&json, &expect));
    if tree(place.path()) != before {
        wrong.push("files were written".into());
    }
    if tokio::time::timeout(Duration::ZERO, listener.accept()).await.is_ok() {
        wrong.push("it connected".into());
    }
    wrong
}

/// The JSON form holds the same findings, each with a place, a text and a hint.
fn judge_json(output: &Output, expect: &str) -> Vec<String> {
    let Ok(Value::Array(findings)) = serde_json::from_slice(&output.stdout) else {
        return vec![format!("no JSON list: {}", text(&output.stdout))];
    };
    let mut wrong = Vec::new();
    for finding in &findings {
        let part = |name: &str| finding[name].as_str().unwrap_or_default();
        let span = &finding["span"];
        let line = format!(
            "{}:{}:{}: {}[{}]: {}",
            span["path"].as_str().unwrap_or_default(),
            span["line"],
            span["column"],
            part("level"),
            part("code"),
            // On a terminal the text is inert; in JSON it is what the file says.
            vigie_engine::text::single_line(part("message"), MAX_SENTENCE_CHARS),
        );
        if !expect.lines().any(|known| known == line) {
            wrong.push(format!("only the JSON says: {line}"));
        }
        if part("hint").is_empty() {
            wrong.push(format!("no hint: {line}"));
        }
    }
    let errors = expect.lines().filter(|line| line.contains(": error[")).count();
    if errors == 0 || errors != findings.iter().filter(|finding| finding["level"] == "error").count() {
        wrong.push(format!("{errors} errors as text, {} findings as JSON", findings.len()));
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_is_told_with_place_and_hint_and_nothing_starts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let cases = cases("bad");
    let mut wrong = Vec::new();
    for case in &cases {
        wrong.extend(judge(case, &listener).await.into_iter().map(|text| format!("{}: {text}", case.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() >= LEAST_CASES, "only {} cases", cases.len());
    let codes: BTreeSet<&str> = cases.iter().flat_map(|case| codes(&case.expect)).collect();
    println!("{} broken inputs, {} different findings: all end with 78", cases.len(), codes.len());
}

fn codes(expect: &str) -> impl Iterator<Item = &str> {
    expect.lines().filter_map(|line| line.split_once("[E")?.1.split_once("]: ").map(|(code, _)| code))
}

/// The good parts that the cases lean on are good: no case fails for another reason than its own.
#[tokio::test]
async fn without_a_mistake_check_ends_with_0() {
    let place = Place::new();
    let good = Case { name: "good".into(), files: Vec::new(), environment: Vec::new(), expect: String::new() };
    let files = vec![("vigie.yaml".into(), GOOD_CONFIG.into()), ("rules/a.yaml".into(), GOOD_RULE.into())];
    let good = Case { files, ..good };
    good.lay_out(&place, 1);
    let output = place.run(&["check", "--deny-warnings"]).await;
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    assert_eq!(text(&output.stdout), "ok: 1 source, 1 rule (1 test), 1 sink, 1 route\n");
}

#[tokio::test]
async fn warnings_end_with_3_only_when_they_are_denied() {
    let cases = cases("warned");
    assert!(cases.len() >= 3, "only {} cases", cases.len());
    for case in &cases {
        let place = Place::new();
        case.lay_out(&place, 1);
        let allowed = case.run(&place, &case.arguments(&["check"])).await;
        assert_eq!((allowed.status.code(), text(&allowed.stderr)), (Some(0), case.expect.clone()), "{}", case.name);
        let denied = case.run(&place, &case.arguments(&["check", "--deny-warnings"])).await;
        assert_eq!((denied.status.code(), text(&denied.stderr)), (Some(3), case.expect.clone()), "{}", case.name);
        assert!(denied.stdout.is_empty(), "{}: denied warnings are no success", case.name);
    }
}
