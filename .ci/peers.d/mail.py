"""Mail through aiosmtpd: what it parses must be what was meant, and what it refuses must be treated as it should."""

import contextlib
import email
import email.policy
import ssl

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from common import Place, check, free_port, main, until, waits

USER, PASSWORD = "vigie-mailer", "correct horse/battery@staple"
SOC = "soc@example.org"
GREY = "451 4.7.1 greylisted"
UNKNOWN = "550 5.1.1 no such user"


class Relay:
    """Keeps mails; `answers` holds a reply for each RCPT to come by its address, and for each mail's end."""

    def __init__(self, tls=None, answers=None, endings=None, greetings=None):
        self.mails, self.sessions = [], []
        self.answers, self.endings, self.greetings = answers or {}, endings or [], greetings or []
        self.password = PASSWORD
        options = {}
        if tls:
            options = {"tls_context": tls, "require_starttls": True, "auth_required": True, "authenticator": self.log_in}
        self.port = free_port()
        self.controller = Controller(self, hostname="127.0.0.1", port=self.port, **options)

    def __enter__(self):
        self.controller.start()
        return self

    def __exit__(self, *_):
        self.controller.stop()

    def log_in(self, server, session, envelope, mechanism, data):
        good = data.login == USER.encode() and data.password == self.password.encode()
        return AuthResult(success=good, handled=False)

    async def handle_MAIL(self, server, session, envelope, address, options):
        if self.greetings:
            return self.greetings.pop(0)
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        waiting = self.answers.get(address, [])
        if waiting:
            return waiting.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.endings:
            return self.endings.pop(0)
        mail = email.message_from_bytes(envelope.original_content, policy=email.policy.default)
        self.mails.append((list(envelope.rcpt_tos), mail))
        self.sessions.append(session)
        return "250 taken"


def sink(url, extra="", to="[soc@example.org]"):
    return f'  mail: {{email: {{smtp: "{url}", from: "Vigie <vigie@example.org>", to: {to}{extra}}}}}\n'


def inert(text):
    bad = "\x1b\x07\x00\x9b\x7f\u202e"
    return not any(character in text for character in bad) and "://evil" not in text


def judge(name, mail, message_id=None):
    """The mail as another parser sees it."""
    known = {
        "date", "from", "to", "subject", "message-id", "in-reply-to", "references", "auto-submitted", "mime-version",
        "content-type", "x-auto-response-suppress", "x-vigie-alert-id", "x-vigie-delivery-id", "x-vigie-rule",
        "x-vigie-severity", "x-vigie-source", "x-peer", "x-mailfrom", "x-rcptto",
    }
    others = {key.lower() for key in mail.keys()} - known
    check(f"{name}: no header of the event's own", not others, others)
    check(f"{name}: no defects", not mail.defects and all(not part.defects for part in mail.walk()), mail.defects)
    expected = f"<{mail['X-Vigie-Delivery-Id']}@example.org>"
    check(f"{name}: Message-ID is the delivery's", mail["Message-ID"] == (message_id or expected), mail["Message-ID"])
    check(f"{name}: Auto-Submitted", mail["Auto-Submitted"] == "auto-generated")
    subject = str(mail["Subject"])
    check(f"{name}: subject on one line", subject.startswith("[") and "\n" not in subject and inert(subject), subject)
    check(f"{name}: two parts, text first", mail.get_content_type() == "multipart/alternative"
          and [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"])
    plain, html = (part.get_content() for part in mail.iter_parts())
    check(f"{name}: text is inert", inert(plain) and "\nBcc:" not in plain, plain)
    live = [tag for tag in ("<script", "<img", "<a ", "href=") if tag in html.lower()]
    check(f"{name}: HTML is inert", inert(html) and not live, live)
    return plain


def plain_text(binary):
    with Relay() as relay:
        place = Place(binary, sink(f"smtp://127.0.0.1:{relay.port}"))
        status, said = place.run("sink", "test", "mail")
        check("plain: sink test delivers", status == 0 and len(relay.mails) == 1, said)
        judge("plain: test", relay.mails[0][1])
        status, said = place.run("run", "--once")
        check("plain: run delivers", status == 0 and len(relay.mails) == 2, said)
        text = judge("plain: alert", relay.mails[1][1])
        check("plain: the text itself is there", "Bcc: victim@example" in text and "Call the user." in text, text)


@contextlib.contextmanager
def secure_relay():
    """A relay with STARTTLS and a log-in, and the file of its authority."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    with authority.cert_pem.tempfile() as ca, Relay(tls=context) as relay:
        yield relay, ca


def secured(binary):
    with secure_relay() as (relay, ca):
        url = f"smtp+starttls://localhost:{relay.port}"
        log_in = f', user: {USER}, password: "{PASSWORD}", ca_file: "{ca}"'
        place = Place(binary, sink(url, log_in), events=3)
        status, said = place.run("run", "--once", "-vv")
        check("STARTTLS: three alerts", status == 0 and len(relay.mails) == 3, said)
        check("STARTTLS: the channel was secured", all(session.ssl for session in relay.sessions))
        check("STARTTLS: logged in", all(session.authenticated for session in relay.sessions))
        for number, (_, mail) in enumerate(relay.mails):
            judge(f"STARTTLS: alert {number}", mail)
        check("STARTTLS: no secret in the log", PASSWORD not in said)

        other = Place(binary, sink(url, log_in.replace(PASSWORD, "wrong horse")))
        status, said = other.run("sink", "test", "mail", "-vv")
        check("wrong password: refused, and not shown", status == 5 and "535" in said and "wrong horse" not in said, said)
        status, said = Place(binary, sink(url, f', user: {USER}, password: "{PASSWORD}"')).run("sink", "test", "mail")
        check("unknown authority: nothing is sent", status == 75 and "TLS failed" in said and len(relay.mails) == 3, said)


def retried(binary):
    # Busy for a moment: the same mail again, within seconds.
    with Relay(greetings=["421 4.3.2 not now", "421 4.3.2 not now"]) as relay:
        place = Place(binary, sink(f"smtp://127.0.0.1:{relay.port}"))
        with place.daemon():
            check("421 twice: then accepted", until(lambda: len(relay.mails) == 1), (place.path / "log").read_text())
            check("421 twice: delivered", until(lambda: [row["status"] for row in place.listed()] == ["delivered"]))
        check("421 twice: three attempts", place.listed()[0]["attempts"] == 3, place.listed())

    # Greylisted: five minutes later it is tried again.
    for name, said in [("at RCPT", {"answers": {SOC: [GREY]}}), ("after DATA", {"endings": [GREY]})]:
        with Relay(**said) as relay:
            place = Place(binary, sink(f"smtp://127.0.0.1:{relay.port}"))
            status, said = place.run("run", "--once")
            check(f"451 {name}: still waits", status == 75 and not relay.mails, said)
            check(f"451 {name}: one attempt, kept", place.statuses() == [("pending", 1)], place.statuses())
            status, said = place.run("run", "--once", after="+4m")
            check(f"451 {name}: not before five minutes", place.statuses() == [("pending", 1)], place.statuses())
            status, said = place.run("run", "--once", after="+6m")
            check(f"451 {name}: then accepted", status == 0 and [to for to, _ in relay.mails] == [[SOC]], said)
            check(f"451 {name}: delivered", place.statuses() == [("delivered", 2)], place.statuses())

    # Greylisted for one of two: only that one gets the mail again, and it is the same mail.
    late = "late@example.org"
    with Relay(answers={late: [GREY]}) as relay:
        place = Place(binary, sink(f"smtp://127.0.0.1:{relay.port}", to=f"[{SOC}, {late}]"))
        with place.daemon():
            check("451 for one: the other has it", until(lambda: [to for to, _ in relay.mails] == [[SOC]]))
            check("451 for one: it waits", until(lambda: any(row["attempts"] == 1 for row in place.listed())))
            delivery = place.listed()[0]["delivery_id"]
            place.run("deliveries", "retry", delivery)
            check("451 for one: then accepted", until(lambda: len(relay.mails) == 2), (place.path / "log").read_text())
            done = until(lambda: [row["status"] for row in place.listed()] == ["delivered"])
            check("451 for one: delivered", done, place.listed())
        (_, first), (to, second) = relay.mails
        check("451 for one: only that one again", to == [late], to)
        check("451 for one: the same mail", first.as_bytes() == second.as_bytes())


def refused(binary):
    with Relay(answers={SOC: [UNKNOWN] * 9}) as relay:
        place = Place(binary, sink(f"smtp://127.0.0.1:{relay.port}"))
        status, said = place.run("run", "--once")
        rows = [row for row in place.listed() if row["attempts"]]
        check("550: a dead letter after one attempt", all((r["status"], r["attempts"]) == ("dead", 1) for r in rows) and rows, rows)
        check("550: nothing was taken", not relay.mails)
        status, shown = place.run("deliveries", "show", rows[-1]["delivery_id"])
        check("550: the ledger says why", "550" in shown and "no such user" in shown, shown)
        relay.answers.clear()
        place.run("deliveries", "replay", "--failed", "--since", "1h", "--sink", "mail")
        with place.daemon():
            check("550: replayed after it was mended", until(lambda: len(relay.mails) >= 1))

    # One of two is unknown: the other has the mail, and only the one is owed after it was mended.
    gone = "gone@example.org"
    with Relay(answers={gone: [UNKNOWN]}) as relay:
        place = Place(binary, sink(f"smtp://127.0.0.1:{relay.port}", to=f"[{SOC}, {gone}]"))

        def sent_to():
            return [to for to, mail in relay.mails if mail["X-Vigie-Rule"] == "peer"]

        with place.daemon():
            check("550 for one: a dead letter", until(lambda: ("dead", 1) in place.statuses()), place.statuses())
            check("550 for one: the other has it", sent_to() == [[SOC]], sent_to())
            dead = next(row for row in place.listed() if row["status"] == "dead")
            _, shown = place.run("deliveries", "show", dead["delivery_id"])
            check("550 for one: the ledger says who", gone in shown and "550" in shown, shown)
            place.run("deliveries", "replay", "--failed", "--since", "1h", "--sink", "mail")
            check("550 for one: replayed to that one", until(lambda: sent_to() == [[SOC], [gone]]), sent_to())


def locked_out(binary):
    """The relay refuses the password (535) until the operator has set it there: nothing is lost meanwhile."""
    with secure_relay() as (relay, ca):
        relay.password = "not yet the one"
        log_in = f', user: {USER}, password: "{PASSWORD}", ca_file: "{ca}"'
        place = Place(binary, sink(f"smtp+starttls://localhost:{relay.port}", log_in), events=3)
        status, said = place.run("run", "--once")
        rows = place.listed()
        check("535: the backlog is kept", waits(place, status), said)
        check("535: nobody hammers", sum(row["attempts"] for row in rows) <= 2 and not relay.mails, rows)
        relay.password = PASSWORD
        status, said = place.run("run", "--once", after="+6m")
        mails = [mail for _, mail in relay.mails if mail["X-Vigie-Rule"] == "peer"]
        check("535: mended, all are delivered", status == 0 and len(mails) == 3, said)


def run(binary):
    plain_text(binary)
    secured(binary)
    retried(binary)
    refused(binary)
    locked_out(binary)


main(run)
