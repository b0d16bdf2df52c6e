//! Rules over history from outside: what live raised is what a replay raises, from a file and from the store; how it ends;
//! what its pages hold.

use std::collections::BTreeMap;
use std::process::Output;

use serde_json::{Value, json};

use crate::api::{Api, KEY, SECRET};
use crate::program::{Place, closed_port, text};

/// One rule of each kind that a finite file decides by itself.
pub(crate) const RULES: &str = r#"
rules:
  - {id: plain, title: Plain, severity: low, when: {event_type: SIGN}, alert: {dedup: [user_id, source_country], quiet: 2h}}
  - {id: single, title: Single, severity: info, when: {event_type: RARE}}
  - id: burst
    title: Burst
    severity: high
    when: {event_type: APP}
    threshold: {count: 4, within: 30m, by: user_id}
  - id: many-apps
    title: Many apps
    severity: medium
    when: {event_type: APP}
    distinct: {field: app, count: 3, within: 2h, by: user_id}
  - id: new-country
    title: New country
    severity: high
    when: {event_type: SIGN}
    first_seen: {of: source_country, by: user_id, learn: 3d}
  - id: too-far
    title: Too far
    severity: critical
    when: {event_type: SIGN}
    travel: {by: user_id}
  - id: swap
    title: Swap
    severity: high
    sequence:
      by: user_id
      within: 1h
      steps: [{when: {event_type: RARE}}, {when: {event_type: APP}}]
  - id: flood
    title: Flood
    severity: medium
    when: {event_type: [APP, SIGN]}
    spike: {ratio: 3, at_least: 8, window: 30m, baseline: 2d}
  - {id: never, title: Never, severity: info, when: {event_type: NO_SUCH_TYPE}}
"#;
pub(crate) const CONFIG: &str = "sources: {audit: {ndjson: {path: events.ndjson}}}\nrules: [rules/]\n\
    sinks: {trail: {file: {path: alerts.jsonl}}}\n";

/// Draws numbers that are the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Ten days of 3,000 events in order, with ties, repetitions, and events without a user.
fn history(seed: u64) -> String {
    let mut dice = Dice(seed);
    let mut at: chrono::DateTime<chrono::Utc> = "2026-01-01T00:00:00Z".parse().expect("a stamp");
    let mut lines: Vec<String> = Vec::new();
    for number in 0..3_000 {
        let in_flood = number % 400 > 360;
        let calm = if in_flood { 20 } else { 600 };
        at += chrono::TimeDelta::seconds(i64::try_from(dice.below(calm)).expect("small"));
        let kind = ["SIGN", "SIGN", "APP", "APP", "APP", "RARE"][usize::try_from(dice.below(6)).expect("small")];
        let rare = number > 1_500 && dice.below(100) == 0;
        let place = if rare { 6 } else { usize::try_from(dice.below(6)).expect("small") };
        let country = ["FR", "FR", "FR", "FR", "ES", "JP", "KP"][place];
        let mut event = json!({
            "id": format!("e{number}"), "event_type": kind, "created_at": at, "source_country": country,
            "source_ip": format!("203.0.113.{}", dice.below(200)), "app": format!("a{}", dice.below(5)),
        });
        if !in_flood && dice.below(20) > 0 {
            event["user_id"] = dice.below(8).into();
        }
        lines.push(event.to_string());
        if dice.below(100) == 0 {
            lines.push(lines[usize::try_from(dice.below(lines.len() as u64)).expect("small")].clone());
        }
    }
    lines.join("\n") + "\n"
}

pub(crate) fn code(output: &Output) -> Option<i32> {
    assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
    output.status.code()
}

pub(crate) async fn ok(place: &Place, arguments: &[&str]) -> Output {
    let output = place.run(arguments).await;
    assert_eq!(code(&output), Some(0), "{arguments:?}: {}", text(&output.stderr));
    output
}

async fn report(place: &Place, arguments: &[&str]) -> Value {
    let output = ok(place, &[&["backtest", "-o", "json"], arguments].concat()).await;
    serde_json::from_slice(&output.stdout).expect("JSON on stdout")
}

fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Rule, key, first time and count of each alert, counted.
fn identities<'v>(alerts: impl Iterator<Item = &'v Value>) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for alert in alerts {
        let rule = if alert["rule"].is_string() { &alert["rule"] } else { &alert["rule"]["id"] };
        let pairs = |pair: &Value| (pair[0].as_str().unwrap_or_default().to_owned(), pair[1].clone());
        let key: Value = match alert["key"].as_array() {
            Some(list) => list.iter().map(pairs).collect(),
            None => alert["key"].clone(),
        };
        let identity = format!("{rule} {key} {} {}", alert["first_at"], alert["count"]);
        *counted.entry(identity).or_default() += 1;
    }
    counted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_a_file_and_of_the_store_raises_what_live_raised() {
    let place = Place::new();
    place.write("rules/all.yaml", RULES);
    place.write("vigie.yaml", CONFIG);
    place.write("events.ndjson", &history(7));
    ok(&place, &["run", "--once", "-c", "vigie.yaml"]).await;
    let listed = ok(&place, &["alerts", "list", "--source", "audit", "--limit", "10000", "-o", "ndjson"]).await;
    let listed: Vec<Value> = lines(&listed).iter().map(|row| row["alert"].clone()).collect();
    let live = identities(listed.iter());
    for rule in ["plain", "single", "burst", "many-apps", "new-country", "too-far", "swap", "flood"] {
        let alerts = live.keys().filter(|identity| identity.starts_with(&format!("\"{rule}\""))).count();
        assert!(alerts > 0, "the history has nothing for {rule}");
    }

    for arguments in [&["--file", "events.ndjson", "--source", "audit"][..], &[]] {
        let replayed = ok(&place, &[&["backtest", "-o", "ndjson"], arguments].concat()).await;
        let replayed = lines(&replayed);
        let alerts = replayed.iter().filter(|line| line["kind"] == "alert");
        assert_eq!(identities(alerts), live, "{arguments:?}");
        let total = replayed.last().expect("lines");
        assert_eq!((&total["kind"], &total["history"]["events"]), (&json!("total"), &json!(3_000)), "{arguments:?}");
        assert_eq!(total["alerts"], listed.len());
    }
    let report = report(&place, &["--file", "events.ndjson", "--source", "audit"]).await;
    let matches: u64 = listed.iter().filter_map(|alert| alert["count"].as_u64()).sum();
    assert_eq!((&report["total"]["alerts"], &report["total"]["matches"]), (&json!(listed.len()), &json!(matches)));
    assert_eq!(report["never_matched"], json!(["never"]));
    let skipped = &report["history"]["skipped"];
    assert!(skipped["duplicates"].as_u64() > Some(0), "{skipped}");
    for part in ["rules", "days"] {
        let summed: u64 =
            report[part].as_array().expect("a list").iter().filter_map(|part| part["alerts"].as_u64()).sum();
        assert_eq!(summed, listed.len() as u64, "{part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_rule_shows_what_is_gained_and_lost() {
    let place = Place::new();
    place.write("new/all.yaml", RULES);
    place.write(
        "old/all.yaml",
        &RULES.replace("count: 4, within: 30m", "count: 6, within: 30m").replace("id: single", "id: gone"),
    );
    place.write("events.ndjson", &history(7));
    let same = report(&place, &["--file", "events.ndjson", "--rules", "new", "--against", "new"]).await;
    assert_eq!((&same["against"]["gained"], &same["against"]["lost"]), (&json!(0), &json!(0)));
    let changed = report(&place, &["--file", "events.ndjson", "--rules", "new", "--against", "old"]).await;
    let against = &changed["against"];
    let rules: Vec<&String> = against["rules"].as_object().expect("a map").keys().collect();
    assert_eq!(rules, ["burst", "gone", "single"]);
    let (gone, single) = (&against["rules"]["gone"], &against["rules"]["single"]);
    assert_eq!((&gone["lost"], &gone["now"]), (&gone["before"], &json!(0)));
    assert_eq!((&single["gained"], &single["lost"]), (&single["now"], &json!(0)));
    let listed = against["gained_alerts"].as_array().expect("a list");
    assert_eq!(Some(listed.len() as u64), against["gained"].as_u64());
    assert!(listed.iter().all(|alert| alert["rule"] == "burst" || alert["rule"] == "single"));

    let one = report(&place, &["--file", "events.ndjson", "--rules", "new", "--rule", "burst"]).await;
    assert_eq!(one["rules"].as_array().map(Vec::len), Some(1));
    let some = report(&place, &["--file", "events.ndjson", "--rules", "new", "--rule", "^(plain|swap)$"]).await;
    assert_eq!(some["rules"].as_array().map(Vec::len), Some(2));
    let all = ["backtest", "--file", "events.ndjson", "--rules", "new"];
    place.write("events.ndjson", &(history(7) + "no event\n"));
    let human = ok(&place, &[&all[..], &["--against", "old", "--max-per-day", "100000"]].concat()).await;
    let human = text(&human.stdout);
    for part in [
        "3000 events of file, 2026-01-01 to",
        "1 row that is no event was left out",
        "came again and counted once",
        "loudest keys",
        "never matched (1): never",
        "against the old rules",
    ] {
        assert!(human.contains(part), "{part} is not in\n{human}");
    }
    let loud = place.run(&[&all[..], &["--max-per-day", "5"]].concat()).await;
    assert_eq!(code(&loud), Some(1));
    assert!(text(&loud.stderr).contains("single is louder than 5 a day: "), "{}", text(&loud.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn history_before_a_time_only_teaches() {
    let place = Place::new();
    place.write("rules/all.yaml", RULES);
    place.write("events.ndjson", &history(7));
    let whole = ["--file", "events.ndjson", "--rules", "rules"];
    let all = report(&place, &whole).await;
    let learned = report(&place, &[&whole[..], &["--learn-until", "2026-01-05"]].concat()).await;
    let later = report(&place, &[&whole[..], &["--since", "2026-01-05"]].concat()).await;
    assert_eq!(learned["history"]["events"], later["history"]["events"]);
    let taught = learned["history"]["learned"].as_u64().expect("a number");
    let outside = later["history"]["skipped"]["outside"].as_u64().expect("a number");
    assert!(taught > 500 && outside >= taught, "{taught} and {outside}, repetitions included");
    let since = |report: &Value| {
        let alerts = report["alerts"].as_array().expect("a list").clone();
        let recent = alerts.iter().filter(|alert| alert["first_at"].as_str() > Some("2026-01-05T03"));
        identities(recent.filter(|alert| alert["rule"] == "new-country"))
    };
    assert_eq!(since(&learned), since(&all), "what was learned is not new");
    assert!(
        learned["alerts"]
            .as_array()
            .is_some_and(|alerts| alerts.iter().all(|alert| alert["first_at"].as_str() >= Some("2026-01-05")))
    );
    let few = report(&place, &[&whole[..], &["--until", "2026-01-02"]].concat()).await;
    assert!(few["history"]["last_at"].as_str() < Some("2026-01-02"));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_the_code_of_what_went_wrong() {
    let place = Place::new();
    place.write("rules/all.yaml", RULES);
    place.write("vigie.yaml", CONFIG);
    place.write("broken/all.yaml", "rules: [{id: x, title: X, severity: loud, when: {a: b}}]");
    place.write("events.ndjson", &history(7));
    place.write("empty.ndjson", "\n");
    let nobody = format!("http://127.0.0.1:{}/beta/audit", closed_port());
    for (arguments, expected, said) in [
        (&["--file", "events.ndjson", "--rules", "broken"][..], 78, "severity"),
        (&["--file", "events.ndjson", "--against", "broken"], 78, "severity"),
        (&["--api"], 2, "--since"),
        (&["--api", "--since", "1d", "--file", "events.ndjson"], 2, "cannot be used with"),
        (&["--file", "missing.ndjson"], 2, "missing.ndjson"),
        (&["--file", "events.ndjson", "--since", "soon"], 2, "is no time"),
        (&["--file", "events.ndjson", "--since", "2026-01-02", "--until", "2026-01-02"], 2, "lies after"),
        (&["--file", "events.ndjson", "--rule", "["], 2, "regular expression"),
        (&["--file", "events.ndjson", "--rule", "no-such"], 20, "no rule"),
        (&["--file", "empty.ndjson"], 20, "no events"),
        (&["--file", "events.ndjson", "--since", "2027-01-01"], 20, "no events"),
        (&[], 20, "no store"),
        (&["--api", "--since", "1d", "--rules", "rules", "--base-url", &nobody], 69, "no answer"),
        (&["--file", "events.ndjson", "--html", "no/such/place.html"], 74, "cannot be written"),
    ] {
        let mut command = place.command(&[&["backtest"], arguments].concat());
        command.env("VONAGE_API_KEY", KEY).env("VONAGE_API_SECRET", SECRET);
        let output = command.output().await.expect("it starts");
        assert_eq!(code(&output), Some(expected), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(said), "{arguments:?}: {}", text(&output.stderr));
    }
    let elsewhere = Place::new();
    let bare = elsewhere.run(&["backtest", "--file", "-"]).await;
    assert_eq!(code(&bare), Some(2), "neither rules nor a configuration: {}", text(&bare.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn history_comes_from_the_api_and_from_the_store_of_a_running_daemon() {
    let (place, api) = (Place::new(), Api::start().await);
    for _ in 0..230 {
        api.happen("APP_CREATE");
    }
    place.configure(&api, "sinks: {trail: {file: {path: alerts.jsonl}}}\n");
    let asked = report(&place, &["--api", "--since", "1h"]).await;
    assert_eq!((&asked["history"]["events"], &asked["total"]["alerts"]), (&json!(230), &json!(230)));
    assert_eq!(asked["history"]["sources"], json!(["main"]));
    let mut command = place.command(&["backtest", "--api", "--since", "1h", "--rules", "rules", "-o", "json"]);
    command.args(["--base-url", &api.base_url]).env("VONAGE_API_KEY", KEY).env("VONAGE_API_SECRET", "wrong");
    assert_eq!(command.output().await.expect("it starts").status.code(), Some(5));

    let mut daemon = place.start(&["run", "-c", "vigie.yaml"]);
    crate::program::until("all alerts are in the file", async || {
        std::fs::read_to_string(place.file("alerts.jsonl")).is_ok_and(|alerts| alerts.lines().count() == 230)
    })
    .await;
    let stored = report(&place, &[]).await;
    assert_eq!((&stored["history"]["events"], &stored["total"]["alerts"]), (&json!(230), &json!(230)));
    assert_eq!(report(&place, &["--source", "main", "--since", "1h"]).await["total"], stored["total"]);
    let unknown = place.run(&["backtest", "--source", "other"]).await;
    assert_eq!(code(&unknown), Some(20));
    assert!(daemon.is_running());
    daemon.end("TERM").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_stands_by_itself_and_holds_no_markup_of_events() {
    const HOSTILE: &str =
        "\"><script>alert(1)</script><img src=x onerror=alert(1)></style>'\u{202e}\u{1b}[2J&amp;\r\n{{x}}";
    let place = Place::new();
    let rules = serde_json::to_string(&json!({"rules": [{
        "id": "hostile", "title": format!("Rule {}", "<b>bold</b>"), "severity": "critical", "when": {"event_type": "*"},
        "alert": {"title": "{{ event.who }} did it", "dedup": ["who", "event_type"]},
    }]}));
    place.write("rules/all.yaml", &rules.expect("JSON"));
    let rows = (0..30).map(|number| {
        let at = format!("2026-01-{:02}T00:00:00Z", 1 + number % 10);
        json!({"id": format!("{HOSTILE}{number}"), "event_type": HOSTILE, "created_at": at, "who": format!("{HOSTILE}{}", number % 3)})
    });
    let rows: Vec<String> = rows.map(|row| row.to_string()).chain([format!("no event {HOSTILE:?}")]).collect();
    place.write("events.ndjson", &rows.join("\n"));
    place.write("old/all.yaml", "rules: [{id: other, title: <i>O</i>, severity: low, when: {event_type: '*'}}]");
    let words = ["backtest", "--file", "events.ndjson", "--source", "<u>", "--rules", "rules", "--against", "old"];
    for form in ["human", "json", "ndjson"] {
        let more = ["--html", "report.html", "--max-per-day", "1", "-o", form];
        let output = place.run(&[&words[..], &more].concat()).await;
        assert_eq!(code(&output), Some(1), "{}", text(&output.stderr));
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.chars().any(|c| c != '\n' && vigie_engine::text::is_unsafe(c)), "{form}: {said}");
    }
    let page = std::fs::read_to_string(place.file("report.html")).expect("a page");
    assert!(!page.chars().any(|c| c != '\n' && vigie_engine::text::is_unsafe(c)));
    let style = page.matches("</style>").count();
    assert_eq!(style, 1, "an event ended the style sheet");
    for forbidden in [
        "<script", "<img", "<b>", "<i>", "<u>", "href", "src=\"", "http:", "https:", "url(", "@import", "<link",
        "<iframe",
    ] {
        let around = page.split(forbidden).next().unwrap_or_default();
        assert!(!page.contains(forbidden), "{forbidden} behind {:?}", around.get(around.len().saturating_sub(80)..));
    }
    for part in [
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "default-src 'none'",
        "<svg",
        "prefers-color-scheme: dark",
        "Loudest keys",
        "gained",
    ] {
        assert!(page.contains(part), "{part} is not in the page");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert_eq!(page.matches("<section").count(), page.matches("</section>").count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_rule_may_be_named_like_the_programs_own() {
    let place = Place::new();
    let rule = "rules: [{id: vigie-mine, title: Mine, severity: low, when: {event_type: RARE}}]";
    place.write("rules/all.yaml", rule);
    place.write("vigie.yaml", CONFIG);
    place.write("events.ndjson", &history(3));
    let told = report(&place, &["--file", "events.ndjson"]).await;
    let rules: Vec<&Value> = told["rules"].as_array().expect("rules").iter().map(|rule| &rule["id"]).collect();
    assert_eq!(rules, [&json!("vigie-mine")], "the program's own have nothing to say of a user's events");
    assert!(told["total"]["alerts"].as_u64() > Some(100), "{}", told["total"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_had_to_be_forgotten_before_its_time_is_shown() {
    let place = Place::new();
    let rule = |max_keys: u32| {
        format!(
            "rules: [{{id: burst, title: B, severity: low, when: {{event_type: APP}}, \
             threshold: {{count: 900, within: 9d, by: user_id, max_keys: {max_keys}}}}}]"
        )
    };
    place.write("few/all.yaml", &rule(2));
    place.write("enough/all.yaml", &rule(100));
    place.write("events.ndjson", &history(3));
    let words = |rules| ["--file", "events.ndjson", "--rules", rules];
    let few = report(&place, &words("few")).await;
    assert!(few["rules"][0]["evicted"].as_u64() > Some(0), "eight users and two places: {}", few["rules"][0]);
    assert_eq!(report(&place, &words("enough")).await["rules"][0]["evicted"], 0);
    let shown = ok(&place, &[&["backtest", "--html", "report.html"], &words("few")[..]].concat()).await;
    let page = std::fs::read_to_string(place.file("report.html")).expect("a page");
    for text in [text(&shown.stdout), page] {
        assert!(text.contains("forgotten before their time"), "{text}");
    }
}
