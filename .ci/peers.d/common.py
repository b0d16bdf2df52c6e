"""What both parts need: hostile events, a directory with a configuration, the binary, results."""

import contextlib
import datetime
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

HOSTILE = (
    "x\r\nBcc: victim@example.org\r\n\r\n<script>alert(1)</script> \u202egpj.exe <!channel> "
    "\x1b]0;owned\x07 \x9b31m \x00 `rm` https://evil.example/a https://é.example ünï"
)
RULES = """
rules:
  - id: peer
    title: Peer
    severity: high
    response: Call the user.
    when: {event_type: "*", source: CD}
    alert: {title: "{{ event.user_email }} changed {{ event.context.name }}"}
    tests:
      - {name: any, events: [{event_type: A, source: CD, user_email: u, context: {name: n}}], expect: alert}
"""
PATIENCE = 30


def check(name, holds, detail=""):
    """One line for the stage's count."""
    print(f"ok {name}" if holds else f"FAILED {name} {detail!r}", flush=True)
    return holds


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(holds):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return False


class Place:
    """A directory with rules, events and a configuration, and the binary in it."""

    def __init__(self, binary, sinks, events=1):
        self.binary = binary
        self.directory = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.directory.name)
        (self.path / "rules.yaml").write_text(RULES)
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        with (self.path / "events.ndjson").open("w") as file:
            for number in range(events):
                event = {"id": f"e{number}", "event_type": "APP_UPDATE", "created_at": now, "source": "CD"}
                event |= {"user_email": HOSTILE, "context": {"name": f"{number} {HOSTILE}"}}
                file.write(json.dumps(event) + "\n")
        config = "sources: {log: {ndjson: {path: events.ndjson}}}\nrules: [rules.yaml]\nsinks:\n" + sinks
        (self.path / "vigie.yaml").write_text(config)

    def run(self, *words):
        """Runs a verb to its end; gives its status and all that it said."""
        done = subprocess.run(
            [self.binary, *words, "-c", "vigie.yaml"], cwd=self.path, env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=2 * PATIENCE,
        )
        return done.returncode, done.stdout.decode()

    def listed(self):
        done = subprocess.run(
            [self.binary, "deliveries", "list", "-o", "json", "-c", "vigie.yaml"], cwd=self.path,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=PATIENCE,
        )
        return json.loads(done.stdout) if done.returncode == 0 else []

    @contextlib.contextmanager
    def daemon(self):
        with (self.path / "log").open("wb") as log:
            process = subprocess.Popen(
                [self.binary, "run", "-c", "vigie.yaml"], cwd=self.path, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()


def main(run):
    run(*sys.argv[1:])
