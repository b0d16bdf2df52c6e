//! `vigie init` without a terminal: flags in, files out, nothing overwritten, nothing waited for.

use std::process::Stdio;

use crate::program::{PATIENCE, Place, text};

#[tokio::test(flavor = "multi_thread")]
async fn flags_write_a_file_that_loads_once_its_variables_are_set() {
    let place = Place::new();
    let arguments =
        ["init", "--sink", "slack", "--sink", "email", "--sink", "pagerduty", "--pager-severity", "critical"];
    // An input that is no terminal and never ends is not waited for.
    let mut command = place.command(&arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let held = child.stdin.take();
    let written = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").expect("it ran");
    drop(held);
    let said = text(&written.stderr);
    assert_eq!((written.status.code(), written.stdout.len()), (Some(0), 0), "{said}");
    for line in ["wrote vigie.yaml", "to do: fill in smtp, from, to of `email`", "to do: set SLACK_WEBHOOK_URL"] {
        assert!(said.contains(line), "{said}");
    }
    let read = |name: &str| std::fs::read_to_string(place.file(name)).expect("a file");
    assert!(
        read("vigie.yaml").contains("match: {severity: [critical]}\n    to: [pagerduty]"),
        "{}",
        read("vigie.yaml")
    );
    let hints = read(".env.example");
    let names: Vec<&str> = hints.lines().filter_map(|line| line.strip_suffix('=')).collect();
    assert_eq!(names.len(), 5, "{hints}");
    let unset = place.run(&["check"]).await;
    assert_eq!(unset.status.code(), Some(78), "variables are missing");
    let mut check = place.command(&["check", "--deny-warnings"]);
    for name in names {
        let value = if name.ends_with("_URL") {
            "https://hooks.example.org/a1b2c3"
        } else {
            "0123456789abcdef0123456789abcdef"
        };
        check.env(name, value);
    }
    let checked = tokio::time::timeout(PATIENCE, check.output()).await.expect("it ends").expect("it starts");
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_stays_unless_it_is_to_go() {
    let place = Place::new();
    place.write("vigie.yaml", "mine");
    place.write(".env.example", "MINE=");
    place.write("rules/all.yaml", crate::program::EVERY_EVENT);
    let kept = place.run(&["init", "--yes"]).await;
    assert_eq!(kept.status.code(), Some(2));
    assert!(text(&kept.stderr).contains("--force overwrites it"), "{}", text(&kept.stderr));
    let read = |name: &str| std::fs::read_to_string(place.file(name)).expect("a file");
    assert_eq!((read("vigie.yaml"), read(".env.example")), ("mine".to_owned(), "MINE=".to_owned()));
    let elsewhere = place.run(&["init", "--yes", "-c", "other.yaml"]).await;
    assert_eq!(elsewhere.status.code(), Some(0), "{}", text(&elsewhere.stderr));
    assert!(read("other.yaml").contains("stdout") && read(".env.example") == "MINE=");
    assert!(!place.file("rules/vonage").exists(), "there are rules already");
    assert_eq!(place.run(&["init", "--yes", "--force"]).await.status.code(), Some(0));
    assert!(read("vigie.yaml").contains("vonage_audit") && read(".env.example").contains("VONAGE_API_KEY="));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_can_be_chosen_and_a_wrong_one_is_told() {
    let place = Place::new();
    let kinds = vigie::sink::KINDS.iter().flat_map(|kind| ["--sink", kind.kind]);
    let written = place.run(&["init"].into_iter().chain(kinds).collect::<Vec<_>>()).await;
    let said = text(&written.stderr);
    assert!(written.status.code() == Some(0) && !said.contains("error["), "{said}");
    for (arguments, expected) in [
        (["--sink", "slak"], "did you mean `slack`?"),
        (["--pager-severity", "huge"], "`huge` is no severity"),
        (["--key-variable", "s3cret-value"], "its value is not asked for"),
    ] {
        let place = Place::new();
        let refused = place.run(&[&["init"][..], &arguments].concat()).await;
        let told = text(&refused.stderr);
        assert!(refused.status.code() == Some(2) && told.contains(expected), "{told}");
        assert!(!told.contains("s3cret") && !place.file("vigie.yaml").exists(), "{told}");
    }
}
