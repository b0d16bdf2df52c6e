"""rsyslog (Debian) over UDP, TCP and TLS: whatever stands in an event, one alert is one record, and its parts are parsed."""

import json
import os
import pathlib
import socket
import subprocess
import tempfile

import trustme

from common import DEBIAN, HOSTILE, PATIENCE, Place, check, free_port, main, running, until

# Each record is one line of JSON, as rsyslog has parsed it: control characters are kept as they came, structured data by
# mmpstrucdata, CEF by liblognorm (what it cannot parse is told as such).
CONFIG = """
global(workDirectory="{place}" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off"
       defaultNetstreamDriverCAFile="{place}/ca.pem" defaultNetstreamDriverCertFile="{place}/server.pem"
       defaultNetstreamDriverKeyFile="{place}/server.key")
module(load="imudp")
module(load="imptcp")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon")
module(load="mmpstrucdata")
module(load="mmnormalize")
template(name="parsed" type="list" option.jsonf="on") {{
    property(outname="version" name="protocol-version" format="jsonf")
    property(outname="facility" name="syslogfacility-text" format="jsonf")
    property(outname="severity" name="syslogseverity-text" format="jsonf")
    property(outname="host" name="hostname" format="jsonf")
    property(outname="app" name="app-name" format="jsonf")
    property(outname="msgid" name="msgid" format="jsonf")
    property(outname="message" name="msg" format="jsonf")
    property(outname="parts" name="$!" format="jsonf")
}}
template(name="place" type="string" string="{place}/%inputname%.%app-name%")
ruleset(name="keep") {{
    action(type="mmpstrucdata")
    action(type="mmnormalize" rule=["rule=:%cef:cef%"])
    action(type="omfile" dynaFile="place" template="parsed")
}}
input(type="imudp" address="127.0.0.1" port="{udp}" ruleset="keep" name="udp")
input(type="imptcp" address="127.0.0.1" port="{tcp}" ruleset="keep" name="tcp")
input(type="imtcp" address="127.0.0.1" port="{tls}" ruleset="keep" name="tls")
input(type="imtcp" address="127.0.0.1" port="{known}" ruleset="keep" name="known" streamDriver.authMode="x509/certvalid")
"""
FORMATS = ["json", "cef", "leef", "text"]
EVENTS = 3


class Rsyslog:
    """One with an input of each kind; what comes in is kept by input and APP-NAME."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.directory.name)
        self.ports = {way: free_port() for way in ("udp", "tcp", "tls", "known")}
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.path / "ca.pem"))
        trustme.CA().cert_pem.write_to_path(str(self.path / "other.pem"))
        for name, certificate in {"server": authority.issue_cert("localhost"), "client": authority.issue_cert("h1")}.items():
            certificate.cert_chain_pems[0].write_to_path(str(self.path / f"{name}.pem"))
            certificate.private_key_pem.write_to_path(str(self.path / f"{name}.key"))
        (self.path / "rsyslog.conf").write_text(CONFIG.format(place=self.path, **self.ports))

    def start(self):
        libraries = next(DEBIAN.glob("usr/lib/*/rsyslog"))
        env = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(libraries.parent), "RSYSLOG_MODDIR": f"{libraries}/"}
        with (self.path / "log").open("ab") as log:
            process = subprocess.Popen(
                [DEBIAN / "usr/sbin/rsyslogd", "-n", "-f", self.path / "rsyslog.conf", "-i", self.path / "pid"],
                env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        # It listens before it writes its number.
        if not until((self.path / "pid").exists):
            check("syslog: rsyslog started", False, self.said())
        return process

    def said(self):
        return (self.path / "log").read_text()

    def records(self, way, app):
        kept = self.path / f"{way}.{app}"
        records = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
        return [record | {"parts": json.loads(record["parts"] or "{}")} for record in records]


def sink(server, way, form, app="", more=""):
    """A sink whose APP-NAME is the format."""
    scheme = "tls" if way == "known" else way
    # What it listens on, and what its certificate is for.
    host = "localhost" if scheme == "tls" else "127.0.0.1"
    more += f', ca_file: "{server.path}/ca.pem"' if scheme == "tls" and "ca_file" not in more else ""
    options = f'url: "{scheme}://{host}:{server.ports[way]}", format: {form}, hostname: h1, app_name: {app or form}'
    return f"  {way}-{app or form}: {{syslog: {{{options}, max_message: 16KiB{more}}}}}\n"


def judge(name, record, form):
    head = [record[part] for part in ("version", "facility", "severity", "host", "app", "msgid")]
    check(f"{name}: the header", head == ["1", "local0", "err", "h1", form, "alert"], head)
    data = record["parts"]["rfc5424-sd"]["vigie@32473"]
    known = {"alert_id", "delivery_id", "rule", "severity", "source"}
    check(f"{name}: the structured data", data.keys() == known and data["rule"] == "peer" and data["severity"] == "high", data)
    message = record["message"]
    bad = [character for character in "\r\n\x1b\x07\x00\x9b\u202e" if character in message]
    check(f"{name}: no control and no direction", not bad, bad)
    if form == "json":
        alert = json.loads(message)
        whole = alert["event"]["user_email"] == HOSTILE and HOSTILE in alert["event"]["context"]["name"]
        check(f"{name}: all of the text", whole and alert["alert_id"] == data["alert_id"], message)
    elif form == "cef":
        cef = record["parts"].get("cef", {})
        fields = cef.get("Extensions", {})
        check(f"{name}: liblognorm parses it", cef.get("DeviceVendor") == "Vigie" and cef.get("SignatureID") == "peer", record)
        named = fields.get("cs1") == data["alert_id"] and fields.get("externalId") == data["delivery_id"]
        check(f"{name}: what it has a name for", named and fields.get("cat") == "alert", fields)
        check(f"{name}: all of the text", "Bcc: victim@example.org" in fields.get("suser", ""), fields)
        check(f"{name}: the event whole", json.loads(fields["cs6"])["user_email"] == HOSTILE, fields)
    else:
        check(f"{name}: all of the text", "Bcc: victim@example.org" in message, message)


def run(binary):
    server = Rsyslog()
    with running(server.start()):
        each = [(way, form) for way in ("udp", "tcp", "tls") for form in FORMATS]
        place = Place(binary, "".join(sink(server, *one) for one in each), events=EVENTS)
        status, said = place.run("run", "--once")
        check("syslog: all is handed over", status == 0, said)
        for way, form in each:
            name = f"syslog: {form} over {way}"
            came = until(lambda: len(server.records(way, form)) >= EVENTS)
            records = server.records(way, form)
            check(f"{name}: one record an alert", came and len(records) == EVENTS, (records, server.said()))
            if records:
                judge(name, records[0], form)

        strange = sink(server, "tls", "json", "strange", f', ca_file: "{server.path}/other.pem"')
        status, said = Place(binary, strange).run("run", "--once")
        check("syslog: unknown authority: nothing is sent", status == 75 and not server.records("tls", "strange"), said)
        ours = f', certificate_file: "{server.path}/client.pem", key_file: "{server.path}/client.key"'
        status, said = Place(binary, sink(server, "known", "json", "client", ours)).run("run", "--once")
        check("syslog: with a certificate of ours: taken", status == 0 and until(lambda: server.records("known", "client")), said)
        place = Place(binary, sink(server, "known", "json", "nobody"))
        status, said = place.run("run", "--once")
        check("syslog: without one: it waits", status == 75 and not server.records("known", "nobody"), (place.listed(), said))

        # The oracle sees more than one record where there is more than one.
        with socket.create_connection(("127.0.0.1", server.ports["tcp"])) as raw:
            raw.sendall(b"<131>1 - h1 broken - - - one\n<131>1 - h1 broken - - - Bcc: two\n")
        check("syslog: two records would be seen", until(lambda: len(server.records("tcp", "broken")) == 2))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.ports["tcp"] = listener.getsockname()[1]
        with Place(binary, sink(server, "tcp", "text")).daemon():
            listener.settimeout(PATIENCE)
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as stream:
                frame = stream.read()
    count, message = frame.split(b" ", 1)
    check("syslog: the frame is counted in octets", int(count) == len(message) and "ünï".encode() in message, frame)
    down = Place(binary, sink(server, "tcp", "json"))
    status, said = down.run("run", "--once")
    check("syslog: nobody listens: it waits", status == 75 and down.statuses() == [("pending", 1)], said)


main(run)
