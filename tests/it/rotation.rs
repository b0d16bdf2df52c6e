//! Secrets that are renewed while the program runs: a file that changes is taken up without a restart, and nothing that
//! waited is lost for it.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::api::Api;
use crate::program::{PATIENCE, Place, text, until};
use crate::receiver::{Answer, Received, Receiver};

const OLD: &str = "canary-old-1";
const NEW: &str = "canary-new-2";

/// Puts a version of a secret in place as Kubernetes does: a new directory, then one link that is swapped.
fn swap(volume: &Path, version: &str, content: &str) {
    std::fs::create_dir_all(volume.join(version)).expect("a directory");
    std::fs::write(volume.join(version).join("key"), content).expect("written");
    symlink(version, volume.join("..data_tmp")).expect("a link");
    std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("swapped");
}

/// A volume with the first version of `key` in it.
fn volume(place: &Place) -> std::path::PathBuf {
    let volume = place.file("secret");
    std::fs::create_dir(&volume).expect("a directory");
    swap(&volume, "..one", &format!("{OLD}\n"));
    symlink("..data/key", volume.join("key")).expect("a link");
    volume
}

fn header<'a>(request: &'a Received, name: &str) -> &'a str {
    request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn assert_no_secret(place: &Place) {
    let log = place.log();
    assert!(!log.contains(OLD) && !log.contains(NEW), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_secret_is_in_the_next_delivery_and_nothing_that_waited_is_lost() {
    let (api, receiver, place) = (Api::start().await, Receiver::start().await, Place::new());
    let volume = volume(&place);
    let headers = format!("headers: {{X-Key: '${{file:{}}}'}}", volume.join("key").display());
    place.configure(&api, &format!("sinks: {{soc: {{webhook: {{url: '{}', {headers}}}}}}}\n", receiver.url));
    receiver.answer(Answer::Status(503, Vec::new(), String::new()));
    let daemon = place.start(&["run", "-c", "vigie.yaml"]);
    api.happen("APP_CREATE");
    assert!(receiver.wait(PATIENCE, |received| !received.is_empty()).await, "{}", place.log());
    let first = receiver.received().remove(0);
    assert_eq!(header(&first, "x-key"), OLD);

    swap(&volume, "..two", &format!("{NEW}\n"));
    let renewed = |received: &[Received]| received.iter().any(|request| header(request, "x-key") == NEW);
    assert!(receiver.wait(PATIENCE, renewed).await, "{}", place.log());
    receiver.answer(Answer::Status(200, Vec::new(), String::new()));
    assert!(
        receiver.wait(PATIENCE, |received| received.iter().any(|request| request.accepted)).await,
        "{}",
        place.log()
    );
    let accepted = receiver.received().into_iter().find(|request| request.accepted).expect("it was there");
    assert_eq!(header(&accepted, "x-key"), NEW);
    assert_eq!((header(&accepted, "webhook-id"), &accepted.body), (header(&first, "webhook-id"), &first.body));

    // An empty one is no secret: it is told, and what runs goes on with the last good one.
    swap(&volume, "..three", "\n");
    until("it is refused", async || place.log().contains("not reloaded")).await;
    api.happen("APP_CREATE");
    let both = |received: &[Received]| received.iter().filter(|request| request.accepted).count() == 2;
    assert!(receiver.wait(PATIENCE, both).await, "{}", place.log());
    assert_eq!(receiver.received().last().map(|request| header(request, "x-key").to_owned()), Some(NEW.to_owned()));
    let problem = place.log();
    assert!(problem.contains("/key, which is empty"), "{problem}");
    std::fs::remove_file(volume.join("..data")).expect("removed");
    swap(&volume, "..four", OLD);
    let taken = || place.log().lines().filter(|line| line.trim_end().ends_with(" reloaded")).count();
    until("the next one is taken", async || taken() == 2).await;
    assert_eq!(daemon.end("TERM").await.code(), Some(0), "{}", place.log());
    assert_no_secret(&place);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bearer_token_is_read_before_each_request_and_is_no_reason_to_reload() {
    let (api, receiver, place) = (Api::start().await, Receiver::start().await, Place::new());
    let volume = volume(&place);
    let token = format!("bearer_token_file: '{}'", volume.join("key").display());
    place.configure(&api, &format!("sinks: {{soc: {{webhook: {{url: '{}', {token}}}}}}}\n", receiver.url));
    let daemon = place.start(&["run", "-c", "vigie.yaml"]);
    for (count, version, content) in [(1, "..two", NEW), (2, "..three", OLD)] {
        api.happen("APP_CREATE");
        assert!(receiver.wait(PATIENCE, |received| received.len() == count).await, "{}", place.log());
        swap(&volume, version, content);
    }
    api.happen("APP_CREATE");
    assert!(receiver.wait(PATIENCE, |received| received.len() == 3).await, "{}", place.log());
    let sent: Vec<String> =
        receiver.received().iter().map(|request| header(request, "authorization").to_owned()).collect();
    assert_eq!(sent, [OLD, NEW, OLD].map(|token| format!("Bearer {token}")));
    assert_eq!(daemon.end("TERM").await.code(), Some(0), "{}", place.log());
    assert!(!place.log().contains("reloaded"), "{}", place.log());
    assert_no_secret(&place);
    let tested = place.run(&["sink", "test", "soc", "-c", "vigie.yaml", "-vv"]).await;
    assert_eq!(tested.status.code(), Some(0), "{}", text(&tested.stderr));
}
