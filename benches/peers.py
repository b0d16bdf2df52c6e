#!/usr/bin/env python3
"""Vigie beside Alertmanager, each sending to the same kind of webhook receiver on loopback; prints a table in Markdown.

    .ci/peers alertmanager      # once: builds Vigie, and unpacks Debian's Alertmanager into target/peers/debian
    benches/peers.py [path of vigie]

Takes about six minutes, for Alertmanager's default `group_interval` of five minutes is waited for. Attempts against an
address where nobody listens are what each program counts itself; all else is what the receiver has seen.
"""

import concurrent.futures
import contextlib
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".ci/peers.d"))
from common import Place, Receiver, event, free_port, main, running, until  # noqa: E402

ALERTS = 10
DEAD_SECONDS = 60
# Alertmanager's interval and a little; Vigie's longest pause by then is two minutes.
LONGEST_SECONDS = 330
CONFIG = """
route: {{receiver: hook, group_by: [alertname], group_wait: 1s, group_interval: {interval}, repeat_interval: 4h}}
receivers: [{{name: hook, webhook_configs: [{{url: "{url}", send_resolved: false}}]}}]
"""


def alertmanager_binary():
    """The installed one, or what `.ci/peers` has unpacked."""
    unpacked = ROOT / "target/peers/debian"
    os.environ.setdefault("PEERS_DEBIAN", str(unpacked))
    own = str(ROOT / ".ci/peers.d/alertmanager.sh") if (unpacked / "usr/bin/prometheus-alertmanager").exists() else None
    return shutil.which("prometheus-alertmanager") or own


class Vigie:
    """A rule that alerts on every event of a file; a webhook with the settings that it has by default."""

    def __init__(self, binary, url):
        self.place = Place(binary, f'  hook: {{webhook: {{url: "{url}"}}}}\n', events=0)

    def start(self):
        return self.place.start()

    def give(self, count):
        """Hands over so many alerts; returns when it has them."""
        self.place.add([event(number) for number in range(count)])
        return until(lambda: len(self.place.listed()) == count)

    def attempts(self):
        return sum(row["attempts"] for row in self.place.listed())

    @staticmethod
    def ids(body):
        return [json.loads(body)["alert_id"]]


class Alertmanager:
    """One group an alert; `group_wait` of a second, the interval as it is given."""

    def __init__(self, binary, url, interval):
        self.binary, self.directory = binary, tempfile.TemporaryDirectory()
        self.path, self.port = pathlib.Path(self.directory.name), free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        (self.path / "alertmanager.yml").write_text(CONFIG.format(url=url, interval=interval))

    def start(self):
        with (self.path / "log").open("ab") as log:
            process = subprocess.Popen(
                [self.binary, "--config.file=alertmanager.yml", "--storage.path=data", "--cluster.listen-address=",
                 f"--web.listen-address=127.0.0.1:{self.port}"],
                cwd=self.path, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        until(self.is_ready)
        return process

    def is_ready(self):
        try:
            return urllib.request.urlopen(f"{self.base}/-/ready", timeout=5).status == 200
        except OSError:
            return False

    def give(self, count):
        now = datetime.datetime.now(datetime.timezone.utc)
        times = {"startsAt": now.isoformat(), "endsAt": (now + datetime.timedelta(hours=1)).isoformat()}
        alerts = [{"labels": {"alertname": f"a{number}"}, **times} for number in range(count)]
        request = urllib.request.Request(
            f"{self.base}/api/v2/alerts", json.dumps(alerts).encode(), {"content-type": "application/json"}
        )
        return urllib.request.urlopen(request, timeout=5).status == 200

    def attempts(self):
        text = urllib.request.urlopen(f"{self.base}/metrics", timeout=5).read().decode()
        name = 'alertmanager_notification_requests_total{integration="webhook"}'
        return sum(int(float(line.split()[-1])) for line in text.splitlines() if line.startswith(name))

    @staticmethod
    def ids(body):
        return [alert["labels"]["alertname"] for alert in json.loads(body)["alerts"]]


def delivered(subject, receiver):
    return {one for request in receiver.requests if request["status"] == 200 for one in subject.ids(request["body"])}


def seconds_until_all(subject, receiver, count, since):
    if until(lambda: len(delivered(subject, receiver)) == count, LONGEST_SECONDS):
        return f"{max(request['at'] for request in receiver.requests) - since:.1f} s"
    return f"{len(delivered(subject, receiver))} of {count} within {LONGEST_SECONDS} s"


def busy(make):
    """From the answer 429 with `Retry-After: 2` until the alert is delivered."""
    with Receiver(answers=[(429, {"retry-after": "2"})]) as receiver:
        subject = make(receiver.url)
        with running(subject.start()):
            subject.give(1)
            until(lambda: receiver.requests)
            return [seconds_until_all(subject, receiver, 1, receiver.requests[0]["at"])]


def dead(make, status):
    """Ten alerts while nobody listens, or all is answered 503: attempts, and the time that it takes after healing."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        receiver = Receiver(port=port)
        subject = make(receiver.url)
        if status is None:
            receiver.server_close()
        else:
            receiver.status = status
            stack.enter_context(receiver)
        stack.enter_context(running(subject.start()))
        subject.give(ALERTS)
        start = time.monotonic()
        counts = []
        for seconds in (5, DEAD_SECONDS):
            time.sleep(max(0, start + seconds - time.monotonic()))
            counts.append(str(subject.attempts() if status is None else len(receiver.requests)))
        healed = time.monotonic()
        if status is None:
            receiver = stack.enter_context(Receiver(port=port))
        receiver.status = 200
        return [*counts, seconds_until_all(subject, receiver, ALERTS, healed)]


def killed(make):
    """Ten accepted alerts, nobody listens; kill -9 after the first attempts, restart, the receiver is there."""
    port = free_port()
    subject = make(f"http://127.0.0.1:{port}")
    with running(subject.start()) as process:
        accepted = subject.give(ALERTS)
        until(lambda: subject.attempts() > 0)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with Receiver(port=port) as receiver, running(subject.start()):
        until(lambda: len(delivered(subject, receiver)) == ALERTS, LONGEST_SECONDS)
        return [f"{len(delivered(subject, receiver))} of {ALERTS if accepted else 0}"]


MEASUREMENTS = [
    (busy, ["one alert, the first answer 429 with `Retry-After: 2`: delivered after"]),
    (lambda make: dead(make, None), [
        "ten alerts, nobody listens: attempts within 5 s",
        f"... within {DEAD_SECONDS} s", "... then somebody does: all delivered after"]),
    (lambda make: dead(make, 503), [
        "ten alerts, each answered 503: attempts within 5 s",
        f"... within {DEAD_SECONDS} s", "... then 200: all delivered after"]),
    (killed, ["ten accepted alerts, nobody listens, kill -9, restart, somebody listens: delivered"]),
]


def version(binary):
    done = subprocess.run([binary, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return next((word for word in done.stdout.split() if word[0].isdigit()), "of unknown version")


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def run(vigie=ROOT / "target/debug/vigie"):
    peer = alertmanager_binary()
    if peer is None:
        sys.exit("no prometheus-alertmanager; `.ci/peers alertmanager` unpacks Debian's")
    vigie = str(pathlib.Path(vigie).resolve())
    subjects = {
        "Vigie": lambda url: Vigie(vigie, url),
        "Alertmanager, `group_interval: 5m`": lambda url: Alertmanager(peer, url, "5m"),
        "Alertmanager, `group_interval: 10s`": lambda url: Alertmanager(peer, url, "10s"),
    }
    # All at once: they wait and hardly work.
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(subjects) * len(MEASUREMENTS)) as pool:
        columns = [[pool.submit(measure, make) for measure, _ in MEASUREMENTS] for make in subjects.values()]
        columns = [[cell for future in column for cell in future.result()] for column in columns]
    now = datetime.datetime.now(datetime.timezone.utc)
    print(f"{now:%Y-%m-%d}, {processor()}, {os.cpu_count()} cores, Linux {platform.release()}; "
          f"Vigie {version(vigie)}, Alertmanager {version(peer)}\n")
    print(f"| | {' | '.join(subjects)} |")
    print(f"|---|{'---|' * len(subjects)}")
    for cells in zip([name for _, names in MEASUREMENTS for name in names], *columns):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(run)
