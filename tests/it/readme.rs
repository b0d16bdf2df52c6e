//! The README and the examples do what they say: commands run, configurations load, rules pass their tests.
//!
//! Commands that would talk to somebody are checked up to their arguments only.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, BufReader};
use vigie_engine::diagnostic::{Diagnostics, SourceFile};

use crate::program::{Place, text};

/// From the start of the demo to its first alert on the terminal.
const FIRST_ALERT: Duration = Duration::from_secs(5);
/// `demo --once` ends by itself.
const DEMO: Duration = Duration::from_secs(30);
/// What the configurations take from the environment.
const VARIABLES: &[(&str, &str)] = &[
    ("VONAGE_API_KEY", "abcd1234"),
    ("VONAGE_API_SECRET", "an-api-secret"),
    ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/T0/B0/a-webhook-secret"),
    ("SMTP_PASSWORD", "a-mail-password"),
];
/// Verbs that open sockets, or need a store.
const TALKING: &[&str] = &["run", "sink", "demo", "events", "backtest", "deliveries", "silences"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).expect("README.md")
}

/// Fenced blocks of one language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let parts = page.split("```").skip(1).step_by(2);
    parts.filter_map(|block| block.strip_prefix(&format!("{language}\n"))).map(str::to_owned).collect()
}

/// `vigie ...` between backticks, outside blocks.
fn commands(page: &str) -> Vec<Vec<String>> {
    let prose: String = page.split("```").step_by(2).collect();
    let quoted = prose.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|command| command.strip_prefix("vigie "))
        .map(|arguments| arguments.split_whitespace().map(str::to_owned).collect())
        .collect()
}

/// Between the markers, without the fence.
fn two_commands(page: &str) -> Vec<String> {
    let between = page.split("<!-- commands -->").nth(1).and_then(|rest| rest.split("<!-- end commands -->").next());
    let lines = between.unwrap_or_default().lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("```")).map(str::to_owned).collect()
}

/// The README's configuration and rule beside a copy of the shipped rules.
fn place(page: &str) -> Place {
    let place = Place::new();
    copy(&root().join("rules"), &place.file("rules"));
    let blocks = blocks(page, "yaml");
    let begins = |with: &str| blocks.iter().find(|block| block.starts_with(with)).expect("a block");
    // The page shows the tree of routes by itself; it takes the place of the short ones.
    let (before, rest) = begins("sources:").split_once("routes:\n").expect("routes");
    let (_, after) = rest.split_once("\nstate:").expect("a state");
    place.write("vigie.yaml", &format!("{before}{}\nstate:{after}", begins("routes:")));
    place.write("short.yaml", begins("sources:"));
    place.write("rules/readme.yaml", begins("rules:"));
    place.write("event.json", r#"{"id": "one", "event_type": "ACCOUNT_SECRET_CREATE", "source_country": "BR"}"#);
    place
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &target),
            false => {
                std::fs::copy(&path, &target).expect("a copy");
            }
        }
    }
}

async fn succeeds(place: &Place, arguments: &[&str]) -> String {
    let output = place.command(arguments).envs(VARIABLES.iter().copied()).output().await.expect("it starts");
    assert!(output.status.success(), "{arguments:?}: {}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn there_are_two_commands_one_for_the_demo_and_one_for_the_tests() {
    assert_eq!(two_commands(&readme()), ["cargo run --quiet -- demo", "cargo test --workspace --quiet"]);
}

#[tokio::test]
async fn every_command_of_the_readme_is_one_that_the_program_takes() {
    let page = readme();
    let commands = commands(&page);
    assert!(commands.len() >= 8, "{commands:?}");
    let place = place(&page);
    for command in &commands {
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        if arguments.first().is_some_and(|verb| TALKING.contains(verb)) {
            arguments.push("--help");
        }
        succeeds(&place, &arguments).await;
    }
}

#[tokio::test]
async fn the_configuration_and_the_rule_of_the_readme_load() {
    let page = readme();
    assert_eq!(blocks(&page, "yaml").len(), 3);
    for file in ["vigie.yaml", "short.yaml"] {
        let shown = succeeds(&place(&page), &["check", "-c", file]).await;
        assert!(shown.contains("1 source") && shown.contains("36 rules") && shown.contains("3 sinks"), "{shown}");
    }
}

#[tokio::test]
async fn what_the_readme_must_not_say_is_noticed() {
    let page = readme().replace("vigie check -c vigie.yaml", "vigie chekc -c vigie.yaml");
    let bad = commands(&page).into_iter().find(|command| command.first().is_some_and(|verb| verb == "chekc"));
    let output = Place::new().run(&[&bad.expect("it is found")[0], "-c", "vigie.yaml"]).await;
    assert_eq!(output.status.code(), Some(2));
    let page = readme().replace("poll_interval: 15s", "poll_intervall: 15s");
    let output = place(&page).command(&["check"]).envs(VARIABLES.iter().copied()).output().await.expect("it starts");
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
}

#[tokio::test]
async fn the_demo_shows_an_alert_within_5_s_and_ends_by_itself() {
    let place = Place::new();
    let start = Instant::now();
    let mut child =
        place.command(&["demo", "--once"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut first = None;
    let mut caught = 0;
    let reading = async {
        while let Some(line) = lines.next_line().await.expect("a line") {
            if first.is_none() && ["CRITICAL", "HIGH", "MEDIUM", "LOW"].iter().any(|word| line.starts_with(word)) {
                first = Some(start.elapsed());
            }
            caught += usize::from(line.contains("caught by"));
        }
        child.wait().await.expect("it ends")
    };
    let status = tokio::time::timeout(DEMO, reading).await.expect("it ends within its time");
    let first = first.expect("an alert");
    println!("first alert after {first:?}, end after {:?}, {caught} attacks caught", start.elapsed());
    assert!(status.success(), "{status}");
    assert!(first < FIRST_ALERT, "{first:?}");
    assert_eq!(caught, 14, "planted attacks caught");
}

#[tokio::test]
async fn the_quickstart_finds_the_stranger() {
    let place = Place::new();
    copy(&root().join("examples"), &place.file("examples"));
    let shown = succeeds(&place, &["run", "-c", "examples/quickstart/vigie.yaml", "--once"]).await;
    assert!(shown.contains("secret-by-stranger") && shown.contains("ada@example.org"), "{shown}");
    assert_eq!(shown.matches("API secret created by").count(), 1, "one of the two events is from home: {shown}");
}

#[tokio::test]
async fn the_sidecar_loads() {
    let place = Place::new();
    copy(&root().join("examples/sidecar"), place.path());
    copy(&root().join("rules"), &place.file("rules"));
    let shown = succeeds(&place, &["check", "-c", "vigie.yaml"]).await;
    assert!(shown.contains("35 rules"), "{shown}");
    for name in ["compose.yaml", "kubernetes.yaml"] {
        let text = std::fs::read_to_string(place.file(name)).expect("a file");
        let mut diagnostics = Diagnostics::default();
        let file = SourceFile { path: name.into(), text: text.as_str().into() };
        let tree = vigie_engine::yaml::parse(&file, &mut diagnostics);
        assert!(tree.is_some() && !diagnostics.has_errors(), "{name}: {}", diagnostics.render());
        assert!(text.contains("[run, -c, /etc/vigie/vigie.yaml, --log-format, json]"), "{name} starts something else");
    }
    succeeds(&place, &["run", "-c", "/etc/vigie/vigie.yaml", "--log-format", "json", "--help"]).await;
}
